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

#[test]
fn a_cancel_ahead_of_a_read_is_one_of_the_statement_only_outside_of_a_block() {
    use crate::state::reply::{Outgoing, Passing, sort};
    use crate::state::test_support::{World, backend, frontend};
    const CANCELLED: &[u8] = b"SERROR\0C57014\0\0";
    for (before, outcome) in [("", Surprise::Cancelled), ("Query BEGIN, ", Surprise::Prelude)] {
        let (mut server, mut other, mut reader) = (ServerSide::default(), client(1), client(2));
        assert!(!runs(&mut other, &mut server, Effects::SEQUENCE_NEXT));
        let words = format!("{before}Query SELECT lastval()");
        World::default().translate(&mut reader, &mut server, &frontend(&words));
        let mut replies = Vec::new();
        if !before.is_empty() {
            replies.extend(backend("CommandComplete"));
            encode::message(&mut replies, crate::wire::BackendTag::READY_FOR_QUERY.0, |out| {
                out.push(b'T');
            });
        }
        encode::message(&mut replies, crate::wire::BackendTag::ERROR_RESPONSE.0, |out| {
            out.extend(CANCELLED);
        });
        let (mut passing, mut out) = (Passing::Nothing, Outgoing::default());
        let found = sort(&mut reader, &mut server, &mut passing, &replies, &mut out, |_| ());
        assert_eq!(found, Err(outcome), "{before}");
    }
}
