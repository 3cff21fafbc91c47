//! Metrics, health and the log: what they have, and what they must never have.

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::messages::{PROTOCOL_3_0, backend, frontend};
use crate::support::pgweir::Setup;
use crate::support::postgres::{DATABASE, PASSWORD, USER, shared};
use crate::support::raw::RawClient;
use crate::support::scripted::{ScriptedServer, mentions};

/// RDS Proxy's metrics, in snake case: a gauge by its name, a counter with `_total`, a latency as a histogram of
/// seconds. `QueryRequestsTLS` and `QueryRequestsNoTLS` are told by a label.
///
/// Source: <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy.monitoring.html>
const RDS_PROXY_METRICS: [&str; 25] = [
    "availability_percentage gauge",
    "client_connections gauge",
    "client_connections_closed_total counter",
    "client_connections_in_setup gauge",
    "client_connections_no_tls gauge",
    "client_connections_received_total counter",
    "client_connections_setup_failed_auth_total counter",
    "client_connections_setup_succeeded_total counter",
    "client_connections_tls gauge",
    "database_connection_requests_total counter",
    "database_connection_requests_with_tls_total counter",
    "database_connections gauge",
    "database_connections_borrow_latency_seconds histogram",
    "database_connections_borrow_requests_aborted_total counter",
    "database_connections_borrow_requests_total counter",
    "database_connections_currently_borrowed gauge",
    "database_connections_currently_in_transaction gauge",
    "database_connections_currently_session_pinned gauge",
    "database_connections_setup_failed_total counter",
    "database_connections_setup_succeeded_total counter",
    "database_connections_with_tls gauge",
    "max_database_connections_allowed gauge",
    "query_database_response_latency_seconds histogram",
    "query_requests_total counter",
    "query_response_latency_seconds histogram",
];

#[test]
fn the_metrics_have_the_names_of_rds_proxy() {
    let authority = Authority::new();
    let pgweir = Setup::before(shared()).tls(&authority.sign_loopback()).start();
    let mut client = RawClient::connect_tls(pgweir.port(), &authority);
    client.log_in(USER, PASSWORD, DATABASE);
    client.execute("SELECT 1");
    let metrics = pgweir.http_get("/metrics").unwrap();
    let has = |name: &&str| metrics.lines().any(|line| line == format!("# TYPE pgweir_{name}"));
    let missing: Vec<&str> = RDS_PROXY_METRICS.into_iter().filter(|name| !has(name)).collect();
    assert!(missing.is_empty(), "missing: {missing:?}\n{metrics}");
    assert_eq!(pgweir.metric("pgweir_query_requests_total", "tls=\"true\""), 1.0, "{metrics}");
    assert_eq!(pgweir.metric("pgweir_query_requests_total", "tls=\"false\""), 0.0, "{metrics}");
}

#[test]
fn refusals_before_and_during_a_login_are_counted_as_errors() {
    let pgweir = Setup::before(shared()).proxy("max_client_connections = 1").start();
    let refused = |password: &str, parameters: &[(&str, &str)]| {
        let mut client = RawClient::connect(pgweir.port());
        let refusal = client.try_log_in(USER, password, parameters).unwrap_err();
        client.until_closed();
        refusal.field('C')
    };
    let mut expected = std::collections::BTreeMap::<String, f64>::new();
    let mut check = |sqlstate: &str, refused: String| {
        assert_eq!(refused, sqlstate);
        let class = sqlstate[..2].to_owned();
        *expected.entry(class).or_default() += 1.0;
        for (class, number) in &expected {
            let label = format!("sqlstate_class=\"{class}\"");
            assert_eq!(
                pgweir.metric("pgweir_errors_total", &label),
                *number,
                "{sqlstate}, {class}"
            );
        }
        let all: f64 = expected.values().sum();
        assert_eq!(pgweir.metric("pgweir_errors_total", ""), all, "{sqlstate}");
        // Whoever was refused makes room for the next one.
        eventually("it has left", || pgweir.metric("pgweir_client_connections", "") == 0.0);
    };
    check("28P01", refused("guess", &[("database", DATABASE)]));
    check("3D000", refused(PASSWORD, &[("database", "nowhere")]));
    check("0A000", refused(PASSWORD, &[("database", DATABASE), ("replication", "true")]));
    check("22023", refused(PASSWORD, &[("database", DATABASE), ("DateStyle", "nonsense")]));
    let mut client = RawClient::connect(pgweir.port());
    client.send(&frontend::startup(4 << 16, &[("user", USER)]));
    check("0A000", client.read_message().field('C'));
    client.until_closed();
    let holder = pgweir.client();
    let surplus = refused(PASSWORD, &[("database", DATABASE)]);
    drop(holder);
    check("53300", surplus);
}

#[test]
fn what_is_done_is_counted() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let mut client = pgweir.client();
    client.execute("SELECT 1");
    client.query("SELECT 1/0");
    client.batch(&[
        frontend::parse("", "SELECT 1"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::sync(),
    ]);
    assert_eq!(pgweir.metric("pgweir_query_requests_total", "simple"), 2.0);
    assert_eq!(pgweir.metric("pgweir_query_requests_total", "extended"), 1.0);
    assert_eq!(pgweir.metric("pgweir_errors_total", "sqlstate_class=\"22\""), 1.0);
    assert_eq!(pgweir.metric("pgweir_transactions_total", ""), 3.0);
    assert_eq!(pgweir.metric("pgweir_client_connections", ""), 1.0);
    assert_eq!(pgweir.metric("pgweir_statements_prepared_total", ""), 1.0);
    assert_eq!(pgweir.metric("pgweir_database_connection_requests_with_tls_total", ""), 1.0);
    let in_transaction =
        || pgweir.metric("pgweir_database_connections_currently_in_transaction", "");
    assert_eq!(in_transaction(), 0.0);
    client.execute("BEGIN");
    assert_eq!(in_transaction(), 1.0);
    client.execute("ROLLBACK");
    assert_eq!(in_transaction(), 0.0);
    assert_eq!(pgweir.metric("pgweir_database_connections_currently_session_pinned", ""), 0.0);
    client.execute("CREATE TEMP TABLE pinning (id int)");
    let pinned = || {
        let name = "pgweir_database_connections_currently_session_pinned";
        pgweir.metric(name, "temporary_object")
    };
    // The server is asked behind the reply.
    eventually("the client is pinned", || pinned() == 1.0);
    assert_eq!(pgweir.metric("pgweir_database_connections", "state=\"pinned\""), 1.0);
    assert_eq!(pgweir.metric("pgweir_database_connections", "state=\"borrowed\""), 0.0);
    let mut wrong = RawClient::connect(pgweir.port());
    assert!(wrong.try_log_in(USER, "guess", &[("database", DATABASE)]).is_err());
    wrong.until_closed();
    assert_eq!(pgweir.metric("pgweir_client_logins_rejected_total", "password"), 1.0);
    // psql leaves when it is asked for a password, and comes again with one.
    for goodbye in [&b""[..], &frontend::terminate()] {
        let mut asks = RawClient::connect(pgweir.port());
        let parameters = [("user", USER), ("database", DATABASE)];
        asks.send(&frontend::startup(PROTOCOL_3_0, &parameters));
        asks.read_message();
        asks.send(goodbye);
    }
    eventually("they have left", || {
        pgweir.metric("pgweir_client_logins_rejected_total", "left") == 2.0
    });
    assert_eq!(pgweir.metric("pgweir_client_connections_setup_failed_auth_total", ""), 1.0);
    drop(client);
    eventually("the client is counted out", || {
        pgweir.metric("pgweir_client_connections", "") == 0.0
            && pgweir.metric("pgweir_database_connections_currently_session_pinned", "") == 0.0
    });
}

#[test]
fn a_server_that_is_being_cleaned_or_closed_is_borrowed_by_nobody() {
    // It does not get round to what comes behind the BEGIN.
    let server = ScriptedServer::start(|connection| {
        connection.accept_login()?;
        connection.behave_until(|message| mentions(message, "BEGIN"))?;
        let begun = [backend::command_complete("BEGIN"), backend::ready_for_query(b'T')];
        connection.send(&begun.concat())?;
        connection.hang()
    });
    let pgweir = Setup::before_port(server.port())
        .user(USER, PASSWORD)
        .target("tls = \"disable\"")
        .target("max_connections = 1")
        .start();
    let servers =
        |state: &str| pgweir.metric("pgweir_database_connections", &format!("state=\"{state}\""));
    let mut client = pgweir.client();
    client.query("BEGIN");
    assert_eq!((servers("borrowed"), servers("closing")), (1.0, 0.0));
    drop(client);
    eventually("its client is gone", || servers("closing") == 1.0);
    assert_eq!(servers("borrowed"), 0.0);
    assert_eq!(pgweir.metric("pgweir_database_connections_currently_borrowed", ""), 0.0);
}

#[test]
fn the_time_in_the_database_is_without_the_wait_for_a_server() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let (mut holder, mut waiter) = (pgweir.client(), pgweir.client());
    holder.execute("BEGIN");
    waiter.send(&frontend::query("SELECT 'at last'"));
    eventually("it waits", || pgweir.metric("pgweir_waiting_clients", "") == 1.0);
    holder.execute("COMMIT");
    assert!(waiter.until_ready().contains(&"DataRow at last".to_owned()));
    let sum = |name: &str| pgweir.metric(&format!("pgweir_{name}_latency_seconds_sum"), "");
    let waited = sum("database_connections_borrow");
    let difference = sum("query_response") - sum("query_database_response");
    assert!(waited > 0.0 && (difference - waited).abs() < 1e-6, "{difference} is not {waited}");
}

#[test]
fn neither_log_nor_metrics_tell_what_clients_say() {
    const MARKER: &str = "zebra7391";
    for format in ["text", "json"] {
        let pgweir = Setup::before(shared())
            .target("max_connections = 1")
            .target("connection_borrow_timeout = \"300ms\"")
            .environment("PGWEIR_LOG_LEVEL", "trace")
            .environment("PGWEIR_LOG_FORMAT", format)
            .start();
        let mut client = pgweir.client_with(&[("application_name", &format!("{MARKER}_name"))]);
        client.query(&format!("SELECT '{MARKER}_text'"));
        client.query(&format!("SELECT {MARKER}_error"));
        client.query(&format!("DO $$ BEGIN RAISE NOTICE '{MARKER}_notice'; END $$"));
        client.query(&format!("SET application_name = '{MARKER}_setting'"));
        client.batch(&[
            frontend::parse(&format!("{MARKER}_statement"), "SELECT $1::text"),
            frontend::bind("", &format!("{MARKER}_statement"), &[Some(&format!("{MARKER}_value"))]),
            frontend::execute("", 0),
            frontend::sync(),
        ]);
        // What pins is told, without its literals.
        client.query(&format!("CREATE TEMP TABLE kept AS SELECT '{MARKER}_row' AS word"));
        eventually("it is pinned", || pgweir.log().contains("client pinned"));
        pgweir.client().query(&format!("SELECT '{MARKER}_refused'"));
        let mut wrong = RawClient::connect(pgweir.port());
        let guess = format!("{MARKER}_guess");
        assert!(wrong.try_log_in(USER, &guess, &[("database", DATABASE)]).is_err());
        client.send(&[&b"~\0\0\0\x20"[..], MARKER.as_bytes(), &[0; 32]].concat());
        client.until_closed();
        let metrics = pgweir.http_get("/metrics").unwrap();
        let log = pgweir.log();
        assert!(log.contains("client pinned") && log.contains("client was not let in"), "{log}");
        for (what, text) in [("log", &log), ("metrics", &metrics)] {
            assert!(!text.contains(MARKER), "the {what} tells what a client said:\n{text}");
            assert!(!text.contains(PASSWORD), "the {what} tells a password:\n{text}");
        }
        if format == "json" {
            for line in log.lines() {
                assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
            }
        }
    }
}

#[test]
fn the_admin_endpoint_answers_what_it_has_and_nothing_else() {
    let pgweir = Setup::before(shared()).start();
    assert_eq!(pgweir.http_status("/healthz"), Some(200));
    assert_eq!(pgweir.http_status("/readyz"), Some(200));
    assert_eq!(pgweir.http_status("/metrics"), Some(200));
    assert_eq!(pgweir.http_status("/"), Some(200));
    assert_eq!(pgweir.http_status("/../../etc/passwd"), Some(404));
    assert_eq!(pgweir.http_status("/metrics/x"), Some(404));
    let long = format!("/{}", "x".repeat(100_000));
    assert!(pgweir.http_status(&long).is_none_or(|status| status >= 400));
    // Clients that say nothing harm nobody.
    let silent: Vec<_> = (0..50)
        .filter_map(|_| std::net::TcpStream::connect(("127.0.0.1", pgweir.admin_port())).ok())
        .collect();
    assert_eq!(pgweir.client().value("SELECT 1"), "1");
    drop(silent);
    eventually("it answers again", || pgweir.http_status("/healthz") == Some(200));
}
