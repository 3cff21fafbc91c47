//! What pgweir is for: a fleet of Lambda containers against a database of 87 connections.
//!
//! The handlers are those of `deploy/lambda`. 100 containers in 4 processes by default, as many as `TEST_CONTAINERS`
//! and `TEST_PROCESSES` say on request; between two invocations they are frozen, in the end killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::certificates::Authority;
use support::driver::{Endpoint, node, python};
use support::pgweir::Setup;
use support::postgres::{PgVersion, Postgres, PostgresOptions, USER};

/// What a db.t3.micro has.
const MAX_CONNECTIONS: u32 = 87;
/// `superuser_reserved_connections` as it comes.
const RESERVED: u32 = 3;
const BUDGET: u32 = MAX_CONNECTIONS - RESERVED;

/// How a handler connects.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// `new Client()` in each invocation.
    ClientPerInvocation,
    /// `new Pool({max: 1})` outside the handler: the connection stays while the container lives.
    PoolOfOne,
    /// psycopg, with its connection outside the handler; in one process that is not frozen.
    Python,
}

/// What the fleet and the database saw.
struct Outcome {
    succeeded: u32,
    failed: u32,
    /// The first few errors, as text.
    errors: String,
    /// Most connections of [`USER`] at once, as the database counted them.
    most_servers: u32,
}

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

/// Otherwise the tests above would show nothing.
#[test]
fn without_pgweir_the_same_fleet_gets_errors() {
    let postgres = database();
    let endpoint = Endpoint::plain(postgres.port());
    let Some(outcome) = fleet(Style::PoolOfOne, containers(), &endpoint, &postgres) else {
        return;
    };
    assert!(outcome.failed > 0, "all of {} succeeded", containers());
    assert!(outcome.errors.contains("53300"), "{}", outcome.errors);
}

fn holds(style: Style, tls: bool) {
    let postgres = database();
    let authority = Authority::new();
    // The default budget: all connections that are not reserved.
    let mut setup = Setup::before(&postgres)
        .target("max_connections_percent = 100")
        .without_target("max_connections");
    if tls {
        setup = setup.tls(&authority.sign_loopback());
    }
    let pgweir = setup.start();
    let endpoint =
        if tls { Endpoint::tls(pgweir.port(), &authority) } else { Endpoint::plain(pgweir.port()) };
    let Some(outcome) = fleet(style, containers(), &endpoint, &postgres) else {
        return;
    };
    assert_eq!((outcome.failed, outcome.errors.as_str()), (0, ""));
    assert_eq!(outcome.succeeded, containers());
    let most = outcome.most_servers;
    assert!((1..=BUDGET).contains(&most), "{most} servers at once, {BUDGET} allowed");
}

fn containers() -> u32 {
    requested("TEST_CONTAINERS", 100)
}

fn requested(variable: &str, default: u32) -> u32 {
    let number = std::env::var(variable).ok();
    number.map_or(default, |number| number.parse().expect("it is a number"))
}

/// The command of a fleet in this style.
fn command(style: Style, containers: u32) -> Option<Command> {
    let lambda = support::repository().join("deploy/lambda");
    let mut command = match style {
        Style::Python => python(&lambda.join("invoke.py"))?,
        Style::ClientPerInvocation | Style::PoolOfOne => node(&lambda.join("invoke.js"))?,
    };
    match style {
        Style::Python => command.arg("--containers").arg(containers.to_string()),
        Style::ClientPerInvocation => command.arg("client"),
        Style::PoolOfOne => command.arg("pool"),
    };
    if !matches!(style, Style::Python) {
        let processes = requested("TEST_PROCESSES", 4);
        command.args(["--freeze", "--containers", &containers.to_string()]);
        command.args(["--processes", &processes.to_string()]);
    }
    Some(command)
}

fn database() -> Postgres {
    Postgres::start_with(&PostgresOptions {
        version: PgVersion::Installed,
        max_connections: MAX_CONNECTIONS,
        ..PostgresOptions::default()
    })
}

/// Runs the fleet while counting connections past pgweir.
fn fleet(
    style: Style,
    containers: u32,
    endpoint: &Endpoint,
    postgres: &Postgres,
) -> Option<Outcome> {
    let mut command = command(style, containers)?;
    endpoint.describe_to_lambda(command.stdin(Stdio::null()));

    // Before the fleet, which may take every slot but the reserved ones.
    let mut superuser = postgres.superuser();
    let ended = Arc::new(AtomicBool::new(false));
    let fleet_ended = ended.clone();
    let watcher = std::thread::spawn(move || {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}'");
        let mut most = 0;
        while !fleet_ended.load(Ordering::Acquire) {
            most = most.max(superuser.value(&count).parse().unwrap());
            // Sampling at full speed would take the processor from those who are watched.
            std::thread::sleep(Duration::from_millis(5));
        }
        most
    });
    let said = support::run(&mut command);
    ended.store(true, Ordering::Release);
    let most_servers = watcher.join().unwrap();

    let report: serde_json::Value = serde_json::from_str(&said).expect("the fleet reports JSON");
    let number = |key: &str| u32::try_from(report[key].as_u64().unwrap()).unwrap();
    Some(Outcome {
        succeeded: number("succeeded"),
        failed: number("failed"),
        errors: report["errors"].as_str().unwrap().to_owned(),
        most_servers,
    })
}
