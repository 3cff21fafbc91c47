//! A session through pgweir is as one on a connection of its own: what it changes follows it from server
//! to server, what cannot follow keeps it on its server for as long as it is there, and nobody else sees any of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

mod support;

#[path = "transparent/ahead.rs"]
mod ahead;
#[path = "transparent/authorization.rs"]
mod authorization;
#[path = "transparent/catalogue.rs"]
mod catalogue;
#[path = "transparent/defaults.rs"]
mod defaults;
#[path = "transparent/extensions.rs"]
mod extensions;
#[path = "transparent/hidden.rs"]
mod hidden;
#[path = "transparent/pins.rs"]
mod pins;
#[path = "transparent/prepared.rs"]
mod prepared;
#[path = "transparent/resets.rs"]
mod resets;
#[path = "transparent/sequences.rs"]
mod sequences;
#[path = "transparent/settings.rs"]
mod settings;
#[path = "transparent/startup.rs"]
mod startup;

use support::pgweir::{Pgweir, Setup};
use support::postgres::{DATABASE, PASSWORD, USER, shared};
use support::raw::RawClient;

fn pool_of(servers: u32) -> Pgweir {
    Setup::before(shared()).target(&format!("max_connections = {servers}")).start()
}

fn pinned(pgweir: &Pgweir) -> f64 {
    pgweir.metric("pgweir_database_connections_currently_session_pinned", "")
}

fn direct_with(parameters: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::connect(shared().port());
    let all = [&[("database", DATABASE)], parameters].concat();
    client.try_log_in(USER, PASSWORD, &all).unwrap();
    client
}

/// Each query is answered as on a connection of one's own, with another client on the only server after each that
/// ends a transaction; and nothing keeps the client in the end.
fn same_alone(startup: &[(&str, &str)], queries: &[&str]) {
    let pgweir = pool_of(1);
    let (mut pooled, mut direct) = (pgweir.client_with(startup), direct_with(startup));
    let mut other = pgweir.client();
    for sql in queries {
        let (answer, expected) = (pooled.query(sql), direct.query(sql));
        assert_eq!(answer, expected, "{sql} of {queries:?}");
        if answer.last().unwrap() == "ReadyForQuery I" {
            finds_nothing(&mut other);
        }
    }
    assert_eq!(pinned(&pgweir), 0.0, "{queries:?}");
}

/// A client that has set nothing sees nothing of what others set.
fn finds_nothing(client: &mut RawClient) {
    let seen = client.execute(
        "SELECT current_setting('work_mem'), current_setting('role'), current_setting('search_path'), \
         coalesce(current_setting('myapp.tenant', true), ''), current_setting('timezone') <> 'Asia/Tokyo', \
         current_setting('application_name'), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' \
         AND pid = pg_backend_pid()), (SELECT count(*) FROM pg_cursors), \
         to_regclass('pg_temp.left_over') IS NULL, current_user",
    );
    let expected =
        ["4MB", "none", "\"$user\", public", "", "t", "", "0", "0", "t", USER].map(str::to_owned);
    assert_eq!(seen, [expected]);
}
