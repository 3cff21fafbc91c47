//! From the first byte to the first `ReadyForQuery`.

use crate::support::certificates::Authority;
use crate::support::driver::{Endpoint, client_program};
use crate::support::messages::{GSSENC_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, SSL_REQUEST, frontend};
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{CLEARTEXT_USER, DATABASE, MD5_USER, PASSWORD, USER, shared};
use crate::support::raw::{RawClient, cancel};
use crate::support::{eventually, run};

fn with_tls(authority: &Authority) -> Pgweir {
    Setup::before(shared()).tls(&authority.sign_loopback()).start()
}

#[test]
fn without_a_certificate_tls_is_declined_and_the_client_may_go_on() {
    let pgweir = Setup::before(shared()).start();
    let mut client = RawClient::connect(pgweir.port());
    client.send(&frontend::untagged(GSSENC_REQUEST, &[]));
    assert_eq!(client.read_byte(), b'N');
    client.send(&frontend::untagged(SSL_REQUEST, &[]));
    assert_eq!(client.read_byte(), b'N');
    client.log_in(USER, PASSWORD, DATABASE);
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn with_a_certificate_clients_have_tls_or_not_as_they_like() {
    let authority = Authority::new();
    let pgweir = with_tls(&authority);
    let mut client = RawClient::connect(pgweir.port());
    client.send(&frontend::untagged(GSSENC_REQUEST, &[]));
    assert_eq!(client.read_byte(), b'N');
    client.log_in(USER, PASSWORD, DATABASE);

    let mut client = RawClient::connect_tls(pgweir.port(), &authority);
    client.log_in(USER, PASSWORD, DATABASE);
    assert_eq!(client.value("SELECT current_user"), USER);
    assert!(pgweir.metric("pgweir_client_connections_tls", "") >= 1.0);
}

#[test]
fn direct_tls_needs_the_protocol_to_be_named() {
    let authority = Authority::new();
    let pgweir = with_tls(&authority);
    let mut client = RawClient::connect_direct_tls(pgweir.port(), &authority);
    client.log_in(USER, PASSWORD, DATABASE);
    assert_eq!(client.value("SELECT 1"), "1");

    let mut other = RawClient::connect_direct_tls_as(pgweir.port(), &authority, &[]);
    // Whether the refusal comes before or after the startup packet is the kernel's choice.
    let _ = other.try_send(&frontend::startup(PROTOCOL_3_0, &[("user", USER)]));
    assert_eq!(other.until_closed(), Vec::<String>::new());
}

#[test]
fn tls_can_be_demanded() {
    let authority = Authority::new();
    let pgweir =
        Setup::before(shared()).tls(&authority.sign_loopback()).proxy("require_tls = true").start();
    let mut plain = RawClient::connect(pgweir.port());
    let refusal = plain.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).unwrap_err();
    assert_eq!(refusal.line(), "ErrorResponse FATAL 28000");
    assert_eq!(refusal.field('M'), "This RDS Proxy requires TLS connections.");
    let mut client = RawClient::connect_tls(pgweir.port(), &authority);
    client.log_in(USER, PASSWORD, DATABASE);
}

#[test]
fn protocol_3_2_has_long_cancel_keys_and_3_0_short_ones() {
    let pgweir = Setup::before(shared()).start();
    let mut old = pgweir.client();
    assert_eq!(old.key.len(), 4);

    let mut client = RawClient::connect(pgweir.port());
    let parameters = [("user", USER), ("database", DATABASE)];
    client.send(&frontend::startup(PROTOCOL_3_2, &parameters));
    client.authenticate(USER, PASSWORD).unwrap();
    assert_eq!(client.key.len(), 32);

    client.send(&frontend::query("SELECT pg_sleep(60) /* long key */"));
    sleeps("long key");
    cancel(pgweir.port(), client.process_id, &client.key[..4]);
    assert_eq!(old.value("SELECT 1"), "1");
    sleeps("long key");
    cancel(pgweir.port(), client.process_id, &client.key);
    assert!(client.until_ready().contains(&"ErrorResponse ERROR 57014".to_owned()));
}

fn sleeps(marker: &str) {
    let mut superuser = shared().superuser();
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%{marker}%'"
    );
    eventually("the query runs", || superuser.value(&sql) == "1");
}

#[test]
fn a_newer_protocol_is_negotiated_down_and_its_options_are_named() {
    let pgweir = Setup::before(shared()).start();
    let mut client = RawClient::connect(pgweir.port());
    let parameters =
        [("user", USER), ("database", DATABASE), ("_pq_.shiny", "1"), ("_pq_.other", "2")];
    client.send(&frontend::startup((3 << 16) + 9999, &parameters));
    let negotiation = client.read_message();
    assert_eq!(negotiation.tag, b'v');
    assert!([2, PROTOCOL_3_2].contains(&negotiation.number_at(0)), "{negotiation:?}");
    assert_eq!(negotiation.number_at(4), 2);
    let names = String::from_utf8_lossy(&negotiation.body[8..]).into_owned();
    assert_eq!(names, "_pq_.shiny\0_pq_.other\0");
    client.authenticate(USER, PASSWORD).unwrap();
    assert_eq!(client.key.len(), 32);
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn what_is_not_spoken_is_refused_with_the_reason() {
    let pgweir = Setup::before(shared()).start();
    let refusal = |version: u32, parameters: &[(&str, &str)]| {
        let mut client = RawClient::connect(pgweir.port());
        client.send(&frontend::startup(version, parameters));
        let message = client.read_message();
        assert_eq!(client.until_closed(), Vec::<String>::new());
        message
    };
    let app = [("user", USER), ("database", DATABASE)];
    assert_eq!(refusal(2 << 16, &app).line(), "ErrorResponse FATAL 0A000");
    assert_eq!(refusal(4 << 16, &app).line(), "ErrorResponse FATAL 0A000");
    for replication in ["true", "database", "on", "1", "yes"] {
        let parameters = [app[0], app[1], ("replication", replication)];
        let answer = refusal(PROTOCOL_3_0, &parameters);
        assert_eq!(answer.line(), "ErrorResponse FATAL 0A000");
        assert!(answer.field('M').contains("replication"), "{}", answer.field('M'));
    }
    assert_eq!(refusal(PROTOCOL_3_0, &app[1..]).line(), "ErrorResponse FATAL 28000");
}

#[test]
fn a_replication_parameter_that_says_no_is_no_obstacle() {
    let pgweir = Setup::before(shared()).start();
    let mut client = pgweir.client_with(&[("replication", "false")]);
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn without_a_database_it_is_that_of_the_users_name() {
    let pgweir = Setup::before(shared()).start();
    let mut client = RawClient::connect(pgweir.port());
    client.try_log_in(USER, PASSWORD, &[]).unwrap();
    assert_eq!(client.value("SELECT current_database()"), USER);
}

#[test]
fn a_database_that_does_not_exist_gives_postgresqls_own_error() {
    let pgweir = Setup::before(shared()).start();
    for _ in 0..2 {
        let mut client = RawClient::connect(pgweir.port());
        let refusal = client.try_log_in(USER, PASSWORD, &[("database", "nowhere")]).unwrap_err();
        assert_eq!(refusal.line(), "ErrorResponse FATAL 3D000");
        assert_eq!(refusal.field('M'), "database \"nowhere\" does not exist");
    }
    assert_eq!(pgweir.client().value("SELECT 1"), "1");
    // Whoever makes up names of databases leaves nothing behind.
    let metrics = || pgweir.http_get("/metrics").unwrap();
    eventually("it is forgotten", || !metrics().contains("database=\"nowhere\""));
    assert!(metrics().contains(&format!("database=\"{DATABASE}\"")));
}

#[test]
fn the_target_is_logged_in_to_by_each_of_its_methods() {
    let pgweir = Setup::before(shared()).start();
    for user in [USER, MD5_USER, CLEARTEXT_USER] {
        let mut client = pgweir.client_as(user, DATABASE);
        assert_eq!(client.value("SELECT current_user"), user);
    }
}

#[test]
fn clients_may_be_asked_for_md5() {
    let pgweir =
        Setup::before_port(shared().port()).user_by(USER, PASSWORD, "POSTGRES_MD5").start();
    assert_eq!(pgweir.client().value("SELECT current_user"), USER);
    let mut client = RawClient::connect(pgweir.port());
    let refusal = client.try_log_in(USER, "guess", &[("database", DATABASE)]).unwrap_err();
    assert_eq!(refusal.line(), "ErrorResponse FATAL 28P01");
}

/// libpq does the binding, and refuses a server that does not offer it.
#[test]
fn libpq_binds_scram_to_the_channel() {
    let authority = Authority::new();
    let pgweir = with_tls(&authority);
    let endpoint = Endpoint::tls(pgweir.port(), &authority);
    let Some(mut psql) = client_program("psql", &endpoint) else { return };
    let said =
        run(psql.env("PGCHANNELBINDING", "require").args(["-XAtc", "SELECT 'bound ' || 42"]));
    assert_eq!(said.trim(), "bound 42");
}

#[test]
fn the_welcome_reports_what_postgresql_reports() {
    let pgweir = Setup::before(shared()).start();
    let direct = shared().client();
    let pooled = pgweir.client();
    let sorted = |client: &RawClient| {
        let mut parameters = client.parameters.clone();
        parameters.sort();
        parameters
    };
    assert_eq!(sorted(&pooled), sorted(&direct));
}
