//! What pgweir is for: a fleet of Lambda containers against a database of 87 connections.
//!
//! The handlers are those of `deploy/lambda`. 100 containers by default, as many as `TEST_CONTAINERS` says on
//! request; between two invocations they are frozen, in the end killed. What was seen is printed:
//! `TEST_CONTAINERS=1000 tests/run --test lambda -- --nocapture --test-threads 1`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::print_stdout,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

#[path = "lambda/fleet.rs"]
mod fleet;
#[path = "lambda/network.rs"]
mod network;
#[path = "lambda/secret.rs"]
mod secret;
mod support;

use fleet::{Fleet, Style, containers, storm};
use network::Network;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use support::certificates::Authority;
use support::driver::{Endpoint, client_program};
use support::eventually;
use support::pgbouncer::PgBouncer;
use support::pgweir::{Pgweir, Setup};
use support::postgres::{PgVersion, Postgres, PostgresOptions};

/// What a db.t3.micro has.
const MAX_CONNECTIONS: u32 = 87;
/// `superuser_reserved_connections` as it comes.
const RESERVED: u32 = 3;
const BUDGET: u32 = MAX_CONNECTIONS - RESERVED;

#[test]
fn a_client_per_invocation_gets_no_error() {
    holds(Style::ClientPerInvocation, false);
}

#[test]
fn a_client_per_invocation_gets_no_error_with_tls() {
    holds(Style::ClientPerInvocation, true);
}

#[test]
fn a_pool_of_one_in_each_container_gets_no_error() {
    holds(Style::PoolOfOne, false);
}

#[test]
fn a_connection_of_psycopg_in_each_container_gets_no_error() {
    holds(Style::Python, true);
}

/// The same fleet in front of the same database: otherwise the tests above would show nothing.
#[test]
fn without_a_pooler_there_are_errors_and_behind_one_there_are_none() {
    let postgres = database();
    let authority = Authority::new();
    let style = Style::PoolOfOne;
    let direct = Endpoint::tls(postgres.port(), postgres.authority());
    let Some((fleet, _)) = storm("directly", style, &direct, &postgres) else {
        return;
    };
    assert!(fleet.number("failed") > 0, "all of {} succeeded", containers());
    assert!(fleet.errors().contains("53300"), "{}", fleet.errors());
    fleet.die();
    if let Some(pgbouncer) = PgBouncer::before(&postgres, BUDGET, &authority) {
        let endpoint = Endpoint::tls(pgbouncer.port(), &authority);
        let (fleet, most) = storm("through PgBouncer", style, &endpoint, &postgres).unwrap();
        assert!((1..=BUDGET).contains(&most), "{most} servers at once, {BUDGET} allowed");
        fleet.die();
    }
    let pgweir = all_of(&postgres).tls(&authority.sign_loopback()).start();
    through(&pgweir, style, &Endpoint::tls(pgweir.port(), &authority), &postgres);
}

fn holds(style: Style, tls: bool) {
    let postgres = database();
    let authority = Authority::new();
    let mut setup = all_of(&postgres);
    if tls {
        setup = setup.tls(&authority.sign_loopback());
    }
    let pgweir = setup.start();
    let endpoint =
        if tls { Endpoint::tls(pgweir.port(), &authority) } else { Endpoint::plain(pgweir.port()) };
    through(&pgweir, style, &endpoint, &postgres);
}

/// What is promised to a fleet, from its start to after its end.
fn through(pgweir: &Pgweir, style: Style, endpoint: &Endpoint, postgres: &Postgres) {
    let name = format!("through pgweir, {style:?}");
    let Some((fleet, most)) = storm(&name, style, endpoint, postgres) else {
        return;
    };
    assert_eq!((fleet.number("failed"), fleet.errors().as_str()), (0, ""));
    assert_eq!(fleet.number("succeeded"), containers());
    assert!((1..=BUDGET).contains(&most), "{most} servers at once, {BUDGET} allowed");
    let clients = || pgweir.metric("pgweir_client_connections", "");
    // Frozen with its connection open, or done with it.
    let left_open =
        if matches!(style, Style::ClientPerInvocation) { 0.0 } else { f64::from(containers()) };
    eventually("clients are those that hold a connection", || clients() == left_open);
    let begun = Instant::now();
    fleet.die();
    eventually("what the dead left open is reaped", || clients() == 0.0);
    println!("{name}: {left_open} connections left open, reaped {:?} later", begun.elapsed());
}

/// A container whose host is lost says nothing, not even that its connection ends.
#[test]
fn containers_that_are_lost_with_their_network_are_reaped() {
    let Some(network) = Network::new() else {
        return;
    };
    let postgres = database();
    let setup =
        all_of(&postgres).proxy("tcp_keepalive = \"1s\"").proxy("tcp_user_timeout = \"2s\"");
    let address = network.address();
    let port = setup.port();
    let pgweir = setup.environment("PGWEIR_PROXY_LISTEN", &format!("{address}:{port}")).start();
    let clients = || pgweir.metric("pgweir_client_connections", "");
    let Some(mut command) = fleet::command(Style::PoolOfOne) else {
        return;
    };
    let endpoint = Endpoint::plain(port);
    endpoint.describe_to_lambda(&mut command);
    command.env("DB_HOST", address.to_string());
    let fleet = Fleet::of(network.enter(&command));
    assert_eq!(fleet.errors(), "");

    let mut psql = client_program("psql", &endpoint).expect("psql is part of PostgreSQL");
    psql.env("PGHOST", address.to_string());
    let inside = "BEGIN; SELECT 'inside';";
    // What waits for its result meanwhile: the reply finds nobody.
    let busy = "SELECT 'busy', pg_sleep(1), repeat('x', 100000);";
    let mut lost: Vec<_> =
        [inside, inside, busy].iter().map(|sql| at_work(&network, &psql, sql)).collect();
    let mut superuser = postgres.superuser();
    let mut at_work = |like: &str| {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND query LIKE";
        superuser.value(&format!("{sql} '{like}%' AND usename = 'app'"))
    };
    eventually("they are at work", || {
        at_work("SELECT ''inside''") == "2" && at_work("SELECT ''busy''") == "1"
    });
    assert_eq!(clients(), f64::from(containers() + 3));

    network.cut();
    let begun = Instant::now();
    // Nobody hears of their end.
    fleet.die();
    for psql in &mut lost {
        psql.kill().unwrap();
        psql.wait().unwrap();
    }
    assert_eq!(clients(), f64::from(containers() + 3), "the network is not cut");
    eventually("all that are lost are reaped", || clients() == 0.0);
    println!("lost with their network: {} reaped {:?} later", containers() + 3, begun.elapsed());
    eventually("no transaction of theirs is open", || at_work("") == "0");
    assert_eq!(pgweir.metric("pgweir_database_connections_currently_borrowed", ""), 0.0);
}

/// A psql inside that has sent this and neither reads more nor ends.
fn at_work(network: &Network, psql: &Command, sql: &str) -> Child {
    let mut command = network.enter(psql);
    let mut child =
        command.arg("-XAtq").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    writeln!(child.stdin.as_mut().unwrap(), "{sql}").unwrap();
    child
}

/// pgweir with the default budget: all connections that are not reserved.
fn all_of(postgres: &Postgres) -> Setup {
    Setup::before(postgres)
        .target("max_connections_percent = 100")
        .without_target("max_connections")
}

fn database() -> Postgres {
    Postgres::start_with(&PostgresOptions {
        version: PgVersion::Installed,
        max_connections: MAX_CONNECTIONS,
        ..PostgresOptions::default()
    })
}
