//! When a statement is described again before it is used, and what comes of it.

use super::*;
use crate::state::test_support::{
    World, answer, backend, backend_words, client, frames, frontend, frontend_words, sort,
};

const PROBE: &str = "pgweir_fffffffffffffffc";

/// A `RowDescription` of columns with these names, types and formats.
fn columns(columns: &[(&str, u32, u16)]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::message(&mut out, BackendTag::ROW_DESCRIPTION.0, |out| {
        out.extend(u16::try_from(columns.len()).expect("few").to_be_bytes());
        for (name, type_oid, format) in columns {
            encode::cstr(out, name.as_bytes());
            out.extend([7; 6]);
            out.extend(type_oid.to_be_bytes());
            out.extend([0, 4]);
            out.extend([0xff; 4]);
            out.extend(format.to_be_bytes());
        }
    });
    out
}

fn parameters(type_oid: u32) -> Vec<u8> {
    let mut out = Vec::new();
    encode::message(&mut out, BackendTag::PARAMETER_DESCRIPTION.0, |out| {
        out.extend([0, 1]);
        out.extend(type_oid.to_be_bytes());
    });
    out
}

fn described(type_oid: u32) -> Vec<u8> {
    [parameters(23), columns(&[("a", type_oid, 0)])].concat()
}

/// A client that was told of its statement `s`, behind which there was DDL.
fn told(world: &mut World) -> Session {
    let (mut client, mut server) = (client(1), ServerSide::default());
    world.send(&mut client, &mut server, "Parse s=SELECT a, Describe s, Sync");
    let replies = [backend("ParseComplete"), described(23), backend("ReadyForQuery")].concat();
    sort(&mut client, &mut server, &replies, |_| ());
    ddl(world);
    client
}

/// Another one with the same statement.
fn client_of(world: &mut World, id: u64) -> Session {
    let (mut client, mut server) = (client(id), ServerSide::default());
    let ddl_seen = std::mem::take(&mut world.table.ddl_seen);
    let replies = "ParseComplete ReadyForQuery";
    world.batch(&mut client, &mut server, "Parse s=SELECT a, Sync", replies);
    world.table.ddl_seen = ddl_seen;
    client
}

fn ddl(world: &mut World) {
    world.limits.ddl_seen += 1;
    world.table.ddl_seen = world.limits.ddl_seen;
}

/// Has the client use its statement, where that is asked for first. The server answers with `described`.
fn asked(
    world: &mut World,
    client: &mut Session,
    server: &mut ServerSide,
    words: &str,
    described: &[u8],
) -> String {
    let probe =
        format!("Close {PROBE}, Parse {PROBE}=SELECT a, Describe {PROBE}, Close {PROBE}, Flush");
    let (done, out) = world.translate(client, server, &frontend(words));
    assert_eq!((done.consumed, frontend_words(&out)), (0, probe));
    // It is not asked twice.
    let (done, out) = world.translate(client, server, &frontend(words));
    assert_eq!((done.consumed, out.len()), (0, 0));
    let replies =
        [&backend("CloseComplete ParseComplete"), described, &backend("CloseComplete")].concat();
    assert!(sort(client, server, &replies, |_| ()).is_empty());
    world.send(client, server, words)
}

const USE: &str = "Bind s, Execute, Sync";

#[test]
fn a_statement_is_described_before_it_is_used_once_for_all_servers() {
    let mut world = World::default();
    let mut client = told(&mut world);
    let sent = asked(&mut world, &mut client, &mut ServerSide::default(), USE, &described(23));
    assert_eq!(sent, "Parse pgweir_1=SELECT a, Bind pgweir_1, Execute, Sync");
    let mut another = ServerSide::default();
    let replies = "ParseComplete BindComplete CommandComplete ReadyForQuery";
    assert_eq!(world.send(&mut client, &mut another, USE), sent);
    answer(&mut client, &mut another, replies);
    ddl(&mut world);
    // Where it is, PostgreSQL itself sees to it.
    assert_eq!(world.send(&mut client, &mut another, USE), "Bind pgweir_1, Execute, Sync");
    asked(&mut world, &mut client, &mut ServerSide::default(), "Describe s, Sync", &described(23));
}

#[test]
fn a_statement_that_has_changed_is_refused_until_it_is_prepared_anew() {
    for changed in [
        described(25),
        [parameters(25), columns(&[("a", 23, 0)])].concat(),
        [parameters(23), columns(&[("b", 23, 0)])].concat(),
        [parameters(23), columns(&[("a", 23, 0), ("b", 23, 0)])].concat(),
        [parameters(23), backend("NoData")].concat(),
    ] {
        let mut world = World::default();
        let mut client = told(&mut world);
        let mut server = ServerSide::default();
        let sent = asked(&mut world, &mut client, &mut server, USE, &changed);
        assert_eq!(sent, "Describe pgweir_, Execute, Sync");
        let mut refusal = Vec::new();
        encode::message(&mut refusal, BackendTag::ERROR_RESPONSE.0, |out| {
            out.extend(b"SERROR\0C26000\0Mprepared statement \"pgweir_\" does not exist\0\0");
        });
        refusal.extend(backend("ReadyForQuery"));
        let answer = sort(&mut client, &mut server, &refusal, |_| ());
        assert_eq!(answer, [stale_plan(), backend("ReadyForQuery")].concat());
        assert!(server.pipeline.is_settled());
        // It need not be asked again.
        assert_eq!(world.send(&mut client, &mut server, USE), sent);
    }
}

#[test]
fn what_nobody_was_told_is_not_asked_for() {
    let mut world = World::default();
    let (mut client, mut server) = (client(1), ServerSide::default());
    world.batch(
        &mut client,
        &mut server,
        "Parse s=SELECT a, Bind s, Execute, Sync",
        "ParseComplete BindComplete CommandComplete ReadyForQuery",
    );
    ddl(&mut world);
    let sent = world.send(&mut client, &mut ServerSide::default(), USE);
    assert_eq!(sent, "Parse pgweir_1=SELECT a, Bind pgweir_1, Execute, Sync");
}

#[test]
fn the_description_of_a_portal_is_one_of_its_statement() {
    let mut world = World::default();
    let (mut client, mut server) = (client(1), ServerSide::default());
    world.send(&mut client, &mut server, "Parse s=SELECT a, Bind s, Describe portal, Sync");
    let replies =
        [backend("ParseComplete BindComplete"), columns(&[("a", 23, 1)]), backend("ReadyForQuery")];
    sort(&mut client, &mut server, &replies.concat(), |_| ());
    ddl(&mut world);
    let mut server = ServerSide::default();
    let sent = asked(&mut world, &mut client, &mut server, USE, &described(25));
    assert_eq!(sent, "Describe pgweir_, Execute, Sync");
}

#[test]
fn what_clients_were_told_differently_is_not_compared() {
    let mut world = World::default();
    let mut client = told(&mut world);
    let mut server = ServerSide::default();
    world.limits.ddl_seen = 0;
    world.send(&mut client, &mut server, "Describe s, Sync");
    let replies = [&backend("ParseComplete")[..], &described(25), &backend("ReadyForQuery")];
    sort(&mut client, &mut server, &replies.concat(), |_| ());
    world.limits.ddl_seen = 1;
    let parameters_still_count =
        asked(&mut world, &mut client, &mut ServerSide::default(), USE, &described(16));
    assert!(parameters_still_count.starts_with("Parse pgweir_1"));
}

#[test]
fn nothing_is_asked_for_in_a_failed_block() {
    let mut world = World::default();
    let mut client = told(&mut world);
    let mut server = ServerSide::default();
    world.batch(&mut client, &mut server, "Query BEGIN", "CommandComplete ReadyInBlock");
    world.batch(&mut client, &mut server, "Query 1/0", "ErrorResponse ReadyInFailed");
    let sent = world.send(&mut client, &mut server, USE);
    assert_eq!(sent, "Parse pgweir_1=SELECT a, Bind pgweir_1, Execute, Sync");
}

/// A name may mean another table to it.
#[test]
fn what_a_client_finds_under_other_settings_is_its_own_affair() {
    let mut world = World::default();
    let mut client = told(&mut world);
    let mut other = client_of(&mut world, 2);
    client.settings = crate::state::test_support::settings(&[("search_path", "side")]);
    let mut server = ServerSide::default();
    let refused = "Describe pgweir_, Execute, Sync";
    assert_eq!(asked(&mut world, &mut client, &mut server, USE, &described(25)), refused);
    let sent = asked(&mut world, &mut other, &mut ServerSide::default(), USE, &described(23));
    assert_eq!(sent, "Parse pgweir_1=SELECT a, Bind pgweir_1, Execute, Sync");
}

/// A table may be gone, or the batch has failed before.
#[test]
fn a_question_that_fails_is_the_clients_error_and_is_asked_again_in_the_next_batch() {
    let mut world = World::default();
    let mut client = told(&mut world);
    let mut server = ServerSide::default();
    world.translate(&mut client, &mut server, &frontend(USE));
    let seen = answer(&mut client, &mut server, "CloseComplete ErrorResponse");
    assert_eq!(seen, "ErrorResponse");
    assert_eq!(world.send(&mut client, &mut server, USE), "Sync");
    assert_eq!(answer(&mut client, &mut server, "ReadyForQuery"), "ReadyForQuery");
    let sent = asked(&mut world, &mut client, &mut server, USE, &described(23));
    assert_eq!(sent, "Parse pgweir_1=SELECT a, Bind pgweir_1, Execute, Sync");
}

/// What is held for it has a bound.
#[test]
fn of_a_long_description_the_beginning_and_the_length_count() {
    let name = "n".repeat(60);
    let wide = |type_oid| {
        let all: Vec<_> = (0..1000).map(|_| (&*name, 23, 0)).chain([("z", type_oid, 0)]).collect();
        columns(&all)
    };
    let body = |message: &[u8]| message[5..].to_vec();
    let (one, same) = (body(&wide(23)), body(&wide(25)));
    assert!(one.len() > DESCRIPTION_MAX);
    assert_eq!(columns_in(&one, one.len()), columns_in(&same, same.len()));
    assert_eq!(columns_in(&one, one.len()), columns_in(&one[..DESCRIPTION_MAX], one.len()));
    assert_ne!(columns_in(&one, one.len()), columns_in(&one, one.len() + 1));
    // It goes to the client as it came.
    let (mut world, mut client, mut server) = (World::default(), client(1), ServerSide::default());
    world.send(&mut client, &mut server, "Parse s=SELECT a, Describe s, Sync");
    let replies =
        [backend("ParseComplete"), parameters(23), wide(23), backend("ReadyForQuery")].concat();
    assert!(sort(&mut client, &mut server, &replies, |_| ()) == replies);
    assert_eq!(frames(&replies).len(), 4);
    assert_eq!(backend_words(&backend("NoData")), "NoData");
}
