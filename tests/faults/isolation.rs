//! Nothing of a pinned client's session reaches another, and its server is used again, clean.

use super::vanishing::next_client_finds_a_clean_server;
use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::shared;

/// What leaves state on a server, and the reason to pin that it gives.
const STATE: [(&str, &str); 4] = [
    ("CREATE TEMP TABLE left_over (id int)", "temporary_object"),
    ("LISTEN left_over", "listen"),
    ("SELECT pg_advisory_lock(4711)", "advisory_lock"),
    ("BEGIN; DECLARE left_over CURSOR WITH HOLD FOR SELECT 1; COMMIT", "hold_cursor"),
];

/// What follows its client, who is not pinned.
const FOLLOWS: [(&str, &str); 3] = [
    ("SET work_mem = '77MB'", "SHOW work_mem"),
    ("SELECT set_config('work_mem', '77MB', false)", "SHOW work_mem"),
    ("SET ROLE app", "SHOW role"),
];

fn pool_of(servers: u32) -> Pgweir {
    Setup::before(shared()).target(&format!("max_connections = {servers}")).start()
}

fn pinned(pgweir: &Pgweir) -> f64 {
    pgweir.metric("pgweir_database_connections_currently_session_pinned", "")
}

#[test]
fn state_of_a_session_never_reaches_another_while_its_client_lives() {
    // With two servers or more, one of them listens for everybody and nobody is pinned for it.
    for (statement, reason) in STATE.into_iter().filter(|(_, reason)| *reason != "listen") {
        let pgweir = pool_of(2);
        let mut client = pgweir.client();
        client.execute(statement);
        let own = client.value("SELECT pg_backend_pid()");
        eventually(statement, || pinned(&pgweir) == 1.0);
        assert_eq!(pgweir.metric("pgweir_session_pins_total", reason), 1.0, "{statement}");
        for _ in 0..5 {
            let mut other = pgweir.client();
            assert_ne!(other.value("SELECT pg_backend_pid()"), own, "{statement}");
        }
        assert_eq!(client.value("SELECT pg_backend_pid()"), own, "{statement}");
    }
}

#[test]
fn what_follows_its_client_reaches_nobody_else() {
    for (statement, show) in FOLLOWS {
        let pgweir = pool_of(1);
        let (mut client, mut other) = (pgweir.client(), pgweir.client());
        let before = other.value(show);
        client.execute(statement);
        for _ in 0..3 {
            assert_eq!(other.value(show), before, "{statement}");
            assert_ne!(client.value(show), before, "{statement}");
        }
        assert_eq!(pinned(&pgweir), 0.0, "{statement}");
    }
}

#[test]
fn what_a_client_left_is_gone_before_the_next_one_comes() {
    let pgweir = pool_of(1);
    for goodbye in [true, false] {
        let prepare = ("PREPARE left_over AS SELECT 1", "");
        for (statement, _) in STATE.into_iter().chain(FOLLOWS).chain([prepare]) {
            let mut client = pgweir.client();
            client.execute(statement);
            if goodbye {
                client.send(&frontend::terminate());
                client.until_closed();
            }
            drop(client);
            next_client_finds_a_clean_server(&pgweir);
            eventually("nobody is pinned", || pinned(&pgweir) == 0.0);
        }
    }
    // All of these could be cleaned: one connection was enough.
    let opened = pgweir.metric("pgweir_database_connections_setup_succeeded_total", "");
    assert!(opened <= 2.0, "{opened} servers were opened");
}

#[test]
fn the_same_by_the_extended_protocol() {
    let pgweir = pool_of(1);
    for (statement, reason) in STATE.iter().filter(|(statement, _)| !statement.starts_with("BEGIN"))
    {
        let mut client = pgweir.client();
        client.send(
            &[
                frontend::parse("left_over", statement),
                frontend::bind("", "left_over", &[]),
                frontend::execute("", 0),
                frontend::sync(),
            ]
            .concat(),
        );
        assert_eq!(client.until_ready().last().unwrap(), "ReadyForQuery I");
        eventually(reason, || pinned(&pgweir) == 1.0);
        drop(client);
        next_client_finds_a_clean_server(&pgweir);
    }
}

#[test]
fn a_client_that_discards_all_is_no_longer_pinned() {
    let pgweir = pool_of(1);
    let mut client = pgweir.client();
    client.execute("CREATE TEMP TABLE left_over (id int)");
    eventually("pinned", || pinned(&pgweir) == 1.0);
    client.execute("DISCARD ALL");
    next_client_finds_a_clean_server(&pgweir);
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn notifications_reach_the_client_that_listens_and_nobody_else() {
    let pgweir = pool_of(2);
    let mut listener = pgweir.client();
    listener.execute("LISTEN news");
    let mut other = pgweir.client();
    other.execute("NOTIFY news, 'extra'");
    assert_eq!(listener.read_message().line(), "NotificationResponse news extra");
    assert_eq!(other.query("SELECT 1").len(), 4);
}

#[test]
fn a_vanished_holder_of_a_session_lock_frees_it() {
    let pgweir = pool_of(2);
    let mut holder = pgweir.client();
    holder.execute("SELECT pg_advisory_lock(815)");
    let mut other = pgweir.client();
    assert_eq!(other.value("SELECT pg_try_advisory_xact_lock(815)"), "f");
    drop(holder);
    eventually("the lock is free", || other.value("SELECT pg_try_advisory_xact_lock(815)") == "t");
}
