//! Limits in time that are no faults of anybody.

use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::Setup;
use crate::support::postgres::{PgVersion, Postgres, shared};
use std::time::{Duration, Instant};

#[test]
fn an_idle_client_is_sent_away_and_a_busy_one_is_not() {
    let pgweir = Setup::before(shared()).proxy("idle_client_timeout = \"2s\"").start();
    let mut idle = pgweir.client();
    let mut busy = pgweir.client();
    let begun = Instant::now();
    eventually("longer than the limit", || {
        assert_eq!(busy.value("SELECT 1"), "1");
        begun.elapsed() > Duration::from_secs(4)
    });
    assert_eq!(idle.until_closed(), ["ErrorResponse FATAL 57P05"]);
    assert_eq!(busy.value("SELECT pg_sleep(3)"), "");
}

#[test]
fn a_client_that_was_refused_and_says_nothing_more_is_idle() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .target("connection_borrow_timeout = \"200ms\"")
        .proxy("idle_client_timeout = \"1s\"")
        .start();
    let mut holder = pgweir.client();
    holder.execute("BEGIN");
    let mut client = pgweir.client();
    client.send(&[frontend::parse("", "SELECT 1"), frontend::flush()].concat());
    let said = client.until_closed();
    assert_eq!(said, ["ErrorResponse ERROR 08000", "ErrorResponse FATAL 57P05"]);
}

#[test]
fn a_client_is_sent_away_at_the_end_of_its_lifetime_but_not_inside_a_transaction() {
    let pgweir = Setup::before(shared()).proxy("max_client_lifetime = \"1s\"").start();
    let mut client = pgweir.client();
    client.execute("BEGIN");
    client.execute("SELECT pg_sleep(3)");
    assert_eq!(client.query("COMMIT"), ["CommandComplete COMMIT", "ReadyForQuery I"]);
    assert_eq!(client.until_closed(), ["ErrorResponse FATAL 57P05"]);
}

#[test]
fn a_server_is_replaced_at_the_end_of_its_lifetime() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres)
        .target("connection_lifetime = \"1s\"")
        .target("max_connections = 2")
        .start();
    let mut client = pgweir.client();
    let first = client.value("SELECT pg_backend_pid()");
    eventually("another server serves", || client.value("SELECT pg_backend_pid()") != first);
    eventually("the first one is closed", || {
        let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {first}");
        postgres.superuser().value(&sql) == "0"
    });
    assert!(pgweir.metric("pgweir_database_connections_closed_total", "lifetime") >= 1.0);
}

#[test]
fn surplus_servers_are_closed_when_they_are_idle() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres)
        .target("max_connections = 4")
        .target("max_idle_connections_percent = 25")
        .target("idle_connection_timeout = \"1s\"")
        .start();
    let mut clients: Vec<_> = (0..4).map(|_| pgweir.client()).collect();
    for client in &mut clients {
        client.execute("BEGIN");
    }
    for client in &mut clients {
        client.execute("COMMIT");
    }
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    assert_eq!(postgres.superuser().value(sql), "4");
    eventually("one is kept", || postgres.superuser().value(sql) == "1");
    assert_eq!(clients[0].value("SELECT 1"), "1");
}

#[test]
fn the_initial_query_runs_once_on_each_server() {
    let postgres = Postgres::start(PgVersion::Installed);
    postgres
        .superuser_in("app")
        .execute("CREATE TABLE opened (pid int); GRANT ALL ON opened TO PUBLIC");
    let pgweir = Setup::before(&postgres)
        .target("init_query = \"INSERT INTO opened SELECT pg_backend_pid() WHERE current_database() = 'app'\"")
        .target("max_connections = 2")
        .start();
    let mut client = pgweir.client();
    for _ in 0..5 {
        client.execute("SELECT 1");
    }
    let pid = client.value("SELECT pg_backend_pid()");
    let count = client.value(&format!("SELECT count(*) FROM opened WHERE pid = {pid}"));
    assert_eq!(count, "1");
}
