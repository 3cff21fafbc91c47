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
