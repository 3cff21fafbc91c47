//! Whose values a server tells, and when it is told to forget.

use super::*;
use crate::state::pipeline::Surprise;
use crate::state::session::Session;
use std::sync::Arc;

const SEPARATE: Limits =
    Limits { sequences: SequenceCare::Separate, ..crate::state::test_support::LIMITS };

fn client(id: u64) -> Session {
    Session::new(id, Arc::default())
}

/// True if the server was told to forget before the statement.
fn runs(client: &mut Session, server: &mut ServerSide, effects: Effects) -> bool {
    let mut out = Vec::new();
    client.observe_sequences(effects, server, Moment::BetweenBatches, &mut out).unwrap();
    !out.is_empty()
}

#[test]
fn a_client_alone_on_its_server_loses_nothing() {
    let (mut server, mut one) = (ServerSide::default(), client(1));
    assert!(!runs(&mut one, &mut server, Effects::SEQUENCE_READ));
    assert!(!runs(&mut one, &mut server, Effects::WRITE));
    assert!(!runs(&mut one, &mut server, Effects::SEQUENCE_READ));
    one.released();
    assert!(!one.separate_sequences(&mut server, &SEPARATE, &mut Vec::new()));
    assert!(!runs(&mut one, &mut server, Effects::SEQUENCE_READ));
    assert!(one.take_reads_later());
}

#[test]
fn values_of_others_are_forgotten_before_they_can_be_read() {
    let (mut server, mut one, mut two) = (ServerSide::default(), client(1), client(2));
    assert!(!runs(&mut one, &mut server, Effects::SEQUENCE_NEXT));
    assert!(runs(&mut two, &mut server, Effects::SEQUENCE_READ));
    assert!(!two.take_reads_later());
    // Nobody can tell whose these are any more.
    assert!(!runs(&mut one, &mut server, Effects::WRITE));
    assert!(!runs(&mut two, &mut server, Effects::WRITE));
    assert!(runs(&mut two, &mut server, Effects::SEQUENCE_READ));
    assert!(!runs(&mut one, &mut server, Effects::WRITE));
    two.released();
    assert!(two.separate_sequences(&mut server, &SEPARATE, &mut Vec::new()));
}

#[test]
fn what_a_client_took_elsewhere_meanwhile_makes_its_old_values_void() {
    let mut one = client(1);
    let (mut first, mut second) = (ServerSide::default(), ServerSide::default());
    for server in [&mut first, &mut second] {
        assert!(!runs(&mut one, server, Effects::SEQUENCE_NEXT));
        one.released();
    }
    assert!(runs(&mut one, &mut first, Effects::SEQUENCE_READ));
    assert!(!runs(&mut one, &mut second, Effects::SEQUENCE_READ));
}

#[test]
fn what_was_not_forgotten_is_remembered() {
    let (mut server, mut one, mut two) = (ServerSide::default(), client(1), client(2));
    runs(&mut one, &mut server, Effects::SEQUENCE_NEXT);
    assert!(runs(&mut two, &mut server, Effects::SEQUENCE_READ));
    server.sequences.not_forgotten();
    assert!(runs(&mut two, &mut server, Effects::SEQUENCE_READ));
}

/// An `ErrorResponse`.
fn cancelled() -> Vec<u8> {
    let mut out = Vec::new();
    encode::message(&mut out, crate::wire::BackendTag::ERROR_RESPONSE.0, |out| {
        out.extend(b"SERROR\0C57014\0\0");
    });
    out
}

#[test]
fn a_cancel_ahead_of_a_read_is_one_of_the_statement() {
    use crate::state::reply::{Outgoing, Passing, sort};
    use crate::state::test_support::{World, frontend};
    let (mut server, mut other, mut reader) = (ServerSide::default(), client(1), client(2));
    assert!(!runs(&mut other, &mut server, Effects::SEQUENCE_NEXT));
    World::default().translate(&mut reader, &mut server, &frontend("Query SELECT lastval()"));
    let (mut passing, mut out) = (Passing::Nothing, Outgoing::default());
    let found = sort(&mut reader, &mut server, &mut passing, &cancelled(), &mut out, |_| ());
    assert_eq!(found, Err(Surprise::Cancelled));
}

#[test]
fn a_cancel_ahead_of_a_read_in_a_block_fails_the_block() {
    use crate::state::reply::Event;
    use crate::state::test_support::{World, backend, frontend, frontend_words, sort};
    let (mut server, mut other, mut reader) = (ServerSide::default(), client(1), client(2));
    assert!(!runs(&mut other, &mut server, Effects::SEQUENCE_NEXT));
    let input = frontend("Query BEGIN, Query SELECT lastval()");
    let mut world = World::default();
    let (done, sent) = world.translate(&mut reader, &mut server, &input);
    assert_eq!(frontend_words(&sent), "Query BEGIN", "nobody knows yet that a block is open");
    let mut reply = backend("CommandComplete");
    encode::message(&mut reply, crate::wire::BackendTag::READY_FOR_QUERY.0, |out| out.push(b'T'));
    sort(&mut reader, &mut server, &reply, |_| ());
    let (rest, sent) = world.translate(&mut reader, &mut server, &input[done.consumed..]);
    assert_eq!(done.consumed + rest.consumed, input.len());
    assert!(frontend_words(&sent).starts_with("Parse pgweir_discard_sequences"));
    let mut errors = 0;
    sort(&mut reader, &mut server, &cancelled(), |event| {
        errors += u32::from(matches!(event, Event::Error { fatal: false, .. }));
    });
    assert_eq!(errors, 1, "the client is told, and keeps its server");
}
