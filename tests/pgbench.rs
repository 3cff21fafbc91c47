//! pgbench in all its query modes: twenty clients over three servers, with and without TLS.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use support::certificates::Authority;
use support::driver::{Endpoint, client_program};
use support::pgweir::Setup;
use support::postgres::{PgVersion, Postgres, PostgresOptions};
use support::run;

const SERVERS_MAX: u32 = 3;
const CLIENTS: u32 = 20;
const TRANSACTIONS_PER_CLIENT: u32 = 50;

/// TPC-B writes, so that a lost or doubled transaction shows in the sums.
#[test]
fn every_mode_keeps_the_books_in_order() {
    for version in [PgVersion::Installed, PgVersion::Newest] {
        if version.binaries().is_none() {
            support::absent(&format!("PostgreSQL ({version:?})"));
            continue;
        }
        let postgres = Postgres::start_with(&PostgresOptions {
            version,
            max_connections: 20,
            ..PostgresOptions::default()
        });
        let pgweir =
            Setup::before(&postgres).target(&format!("max_connections = {SERVERS_MAX}")).start();
        keeps_the_books_in_order(&Endpoint::plain(pgweir.port()), &postgres);
    }
}

#[test]
fn every_mode_keeps_the_books_in_order_with_tls() {
    let postgres = Postgres::start(PgVersion::Installed);
    let authority = Authority::new();
    let pgweir = Setup::before(&postgres)
        .target(&format!("max_connections = {SERVERS_MAX}"))
        .target("tls = \"require\"")
        .tls(&authority.sign_loopback())
        .start();
    keeps_the_books_in_order(&Endpoint::tls(pgweir.port(), &authority), &postgres);
}

/// There, wakers are taken by other threads than those that leave them.
#[test]
fn every_mode_keeps_the_books_in_order_on_threads_that_share_their_work() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres)
        .target(&format!("max_connections = {SERVERS_MAX}"))
        .proxy("runtime = \"work-stealing\"")
        .start();
    keeps_the_books_in_order(&Endpoint::plain(pgweir.port()), &postgres);
}

/// The same program without pgweir, as a check of this test.
#[test]
fn every_mode_keeps_the_books_in_order_directly() {
    let postgres = Postgres::start(PgVersion::Installed);
    keeps_the_books_in_order(&Endpoint::plain(postgres.port()), &postgres);
}

fn keeps_the_books_in_order(endpoint: &Endpoint, postgres: &Postgres) {
    let Some(mut initialise) = client_program("pgbench", endpoint) else {
        return;
    };
    run(initialise.args(["--initialize", "--quiet", "--scale", "1"]));
    let mut expected = 0;
    for mode in ["simple", "extended", "prepared"] {
        for connect in [None, Some("--connect")] {
            let mut pgbench = client_program("pgbench", endpoint).unwrap();
            pgbench
                .args(["--protocol", mode, "--no-vacuum"])
                .args(["--client", &CLIENTS.to_string()])
                // pgbench prepares without looking after its thread's other clients. These would keep
                // the servers that the one waits for, if they did not have threads of their own.
                .args(["--jobs", &CLIENTS.to_string()])
                .args(connect);
            // A new connection for each transaction is slow; a few show what there is to show.
            let transactions = if connect.is_some() { 5 } else { TRANSACTIONS_PER_CLIENT };
            let said = run(pgbench.args(["--transactions", &transactions.to_string()]));
            assert!(said.contains("number of failed transactions: 0 (0.000%)"), "{said}");
            expected += CLIENTS * transactions;
        }
    }
    let books = "SELECT count(*), sum(delta) = (SELECT sum(abalance) FROM pgbench_accounts),
        sum(delta) = (SELECT sum(bbalance) FROM pgbench_branches) FROM pgbench_history";
    let mut superuser = postgres.superuser_in(support::postgres::DATABASE);
    assert_eq!(superuser.execute(books).concat(), [&expected.to_string(), "t", "t"]);
}
