//! Clients that wait for the connection that listens for all, and what becomes of those who do not get so far.

use super::{line_of, listen, next, notified, pinned, unasked};
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{PgVersion, Postgres, shared};
use crate::support::raw::RawClient;
use crate::support::{eventually, signal};

/// One server beside the connection that listens.
fn with_one_server(postgres: &Postgres) -> Pgweir {
    Setup::before(postgres)
        .target("max_connections = 2")
        .target("connection_borrow_timeout = \"1s\"")
        .start()
}

/// What `client` sends while the connection that listens is held up waits for it, and then for a server that it does
/// not get.
fn is_refused(pgweir: &Pgweir, line: u32, client: &mut RawClient, sql: &str) {
    let mut holder = pgweir.client();
    signal(line, "STOP");
    client.send(&frontend::query(sql));
    // Time enough for it to ask.
    for _ in 0..50 {
        holder.execute("SELECT 1");
    }
    holder.execute("BEGIN");
    signal(line, "CONT");
    assert_eq!(client.until_ready(), ["ErrorResponse ERROR 08000", "ReadyForQuery I"]);
}

#[test]
fn a_client_that_vanishes_behind_half_a_batch_about_channels_is_gone() {
    let pgweir = Setup::before(shared()).start();
    let half = [frontend::query("SELECT 1"), frontend::parse("", "LISTEN half")].concat();
    for in_block in [false, true] {
        let mut client = pgweir.client();
        if in_block {
            client.execute("BEGIN");
        }
        client.send(&half);
        client.until_ready();
        client.shut_down_writing();
        assert_eq!(client.until_closed(), [""; 0]);
    }
    let mut client = pgweir.client();
    client.send(&half);
    client.shut_down_writing();
    assert_eq!(client.until_closed().last().unwrap(), "ReadyForQuery I");
    eventually("nobody listens", || {
        pgweir.metric("pgweir_client_connections_listening", "") == 0.0
    });
}

#[test]
fn who_sends_no_more_is_not_at_fault_while_it_waits_for_the_listener() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).start();
    let (mut other, mut client) = (pgweir.client(), pgweir.client());
    listen(&mut other, "known");
    let line = line_of(&postgres);
    client.execute("BEGIN");
    signal(line, "STOP");
    client.send(&frontend::query("LISTEN known; COMMIT"));
    client.shut_down_writing();
    // Longer than somebody who seems to be gone may hold a server.
    other.execute("SELECT pg_sleep(3)");
    signal(line, "CONT");
    let answer = ["CommandComplete LISTEN", "CommandComplete COMMIT", "ReadyForQuery I"];
    assert_eq!(client.until_closed(), answer);
}

#[test]
fn unlisten_after_one_that_got_no_server_waits_for_what_is_under_way_too() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = with_one_server(&postgres);
    let (mut client, mut notifier) = (pgweir.client(), postgres.client());
    listen(&mut client, "refused");
    let line = line_of(&postgres);
    is_refused(&pgweir, line, &mut client, "UNLISTEN refused");
    signal(line, "STOP");
    notifier.execute("NOTIFY refused, 'before'");
    client.send(&frontend::query("UNLISTEN refused"));
    // Time enough for an UNLISTEN that does not care for what is on its way.
    let mut other = pgweir.client();
    for _ in 0..50 {
        other.execute("SELECT 1");
    }
    signal(line, "CONT");
    assert_eq!(unasked(&mut client), [notified("refused", "before")]);
}

#[test]
fn a_listen_that_got_no_server_listens_on_nothing() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = with_one_server(&postgres);
    let (mut first, mut client) = (pgweir.client(), pgweir.client());
    listen(&mut first, "known");
    is_refused(&pgweir, line_of(&postgres), &mut client, "LISTEN refused");
    assert_eq!(pgweir.metric("pgweir_client_connections_listening", ""), 1.0);
}

#[test]
fn what_waits_for_the_listener_asks_for_a_server_once() {
    let pgweir = Setup::before(shared()).start();
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    let asked = || pgweir.metric("pgweir_database_connections_borrow_requests_total", "");
    let statement = |sql: &str| {
        [
            frontend::parse("", sql),
            frontend::bind("", "", &[]),
            frontend::execute("", 0),
            frontend::sync(),
        ]
        .concat()
    };
    // Only the first one of all waits for a server that it does without in the end.
    eventually("the connection that listens is up", || {
        other.execute("UNLISTEN once");
        let before = asked();
        listen(&mut other, "once");
        asked() - before == 1.0
    });
    for message in [
        frontend::query("LISTEN once"),
        frontend::query("UNLISTEN once; LISTEN another"),
        frontend::query("DISCARD ALL"),
        statement("LISTEN once"),
        statement("UNLISTEN *"),
    ] {
        let before = asked();
        client.send(&message);
        assert_eq!(client.until_ready().last().unwrap(), "ReadyForQuery I");
        assert_eq!(asked() - before, 1.0);
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

/// PostgreSQL's own servers say what they listen on, whoever told them to.
#[test]
fn what_a_block_of_code_listens_on_is_heard_beside_what_its_client_does() {
    let pgweir = Setup::before(shared()).start();
    let (mut client, mut notifier) = (pgweir.client(), pgweir.client());
    let hidden = "DO $$ BEGIN EXECUTE 'LISTEN by_code'; END $$";
    client.execute(&format!("BEGIN; LISTEN by_text; {hidden}; COMMIT"));
    eventually("its server was asked", || pinned(&pgweir) == 1.0);
    notifier.execute("NOTIFY by_code, 'x'");
    assert_eq!(next(&mut client), notified("by_code", "x"));
    notifier.execute("NOTIFY by_text, 'y'");
    assert_eq!(next(&mut client), notified("by_text", "y"));
    client.execute("UNLISTEN by_code");
    eventually("its server was asked again", || pinned(&pgweir) == 0.0);
    notifier.execute("NOTIFY by_code; NOTIFY by_text, 'z'");
    assert_eq!(unasked(&mut client), [notified("by_text", "z")]);
}

#[test]
fn a_text_of_more_statements_than_are_followed_loses_no_channel() {
    let pgweir = Setup::before(shared()).start();
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    client.execute(&("LISTEN many_a;".repeat(4096) + "LISTEN many_z"));
    eventually("its server listens", || pinned(&pgweir) == 1.0);
    other.execute("NOTIFY many_z, 'heard'");
    assert_eq!(next(&mut client), notified("many_z", "heard"));
    // What pgweir listens on for a client cannot be ended by what is not followed.
    listen(&mut other, "many_x");
    other.send(&frontend::query(&("UNLISTEN many_a;".repeat(4096) + "UNLISTEN many_x")));
    assert_eq!(other.until_closed(), ["ErrorResponse FATAL 54000"]);
}
