//! The harness itself, against PostgreSQL without pgweir: what it claims must be true of the real thing.

mod support;

use support::messages::{PROTOCOL_3_0, backend, frontend};
use support::postgres::{
    CLEARTEXT_USER, DATABASE, MD5_USER, PASSWORD, PgVersion, Postgres, PostgresOptions, USER,
    shared,
};
use support::raw::{RawClient, cancel};
use support::scripted::{ScriptedServer, mentions};

#[test]
fn transcript_of_a_simple_query() {
    let mut client = shared().client();
    assert_eq!(
        client.query("SELECT 1 AS one, NULL AS nothing"),
        [
            "RowDescription one|nothing",
            "DataRow 1|null",
            "CommandComplete SELECT 1",
            "ReadyForQuery I"
        ]
    );
}

#[test]
fn transcript_of_a_batch_that_fails() {
    let mut client = shared().client();
    let transcript = client.batch(&[
        frontend::parse("", "SELECT $1::int"),
        frontend::bind("", "", &[Some("no number")]),
        frontend::execute("", 0),
        frontend::sync(),
    ]);
    assert_eq!(transcript, ["ParseComplete", "ErrorResponse ERROR 22P02", "ReadyForQuery I"]);
}

#[test]
fn every_password_method_logs_in() {
    for user in [USER, MD5_USER, CLEARTEXT_USER] {
        let mut client = RawClient::connect_tls(shared().port(), shared().authority());
        client.log_in(user, PASSWORD, DATABASE);
        assert_eq!(client.value("SELECT current_user"), user);
        assert_eq!(client.value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "t");
    }
}

#[test]
fn wrong_password_is_refused() {
    let mut client = RawClient::connect(shared().port());
    let refusal = client.try_log_in(USER, "guess", &[("database", DATABASE)]).unwrap_err();
    assert_eq!(refusal.line(), "ErrorResponse FATAL 28P01");
}

#[test]
fn cancel_reaches_the_running_query() {
    let mut client = shared().client();
    client.send(&frontend::query("SELECT pg_sleep(60)"));
    support::eventually("the query runs", || {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = {} AND wait_event = 'PgSleep'",
            client.process_id
        );
        shared().superuser().value(&sql) == "1"
    });
    cancel(shared().port(), client.process_id, &client.key);
    assert_eq!(
        client.until_ready(),
        ["RowDescription pg_sleep", "ErrorResponse ERROR 57014", "ReadyForQuery I"]
    );
}

#[test]
fn the_newest_postgresql_runs() {
    if PgVersion::Newest.binaries().is_none() {
        support::absent("the newest PostgreSQL");
        return;
    }
    let postgres = Postgres::start(PgVersion::Newest);
    let version: u32 = postgres.client().value("SHOW server_version_num").parse().unwrap();
    assert!(version >= 180_000, "{version}");
}

#[test]
fn a_server_comes_back_on_its_port_after_a_crash() {
    let postgres =
        Postgres::start_with(&PostgresOptions { max_connections: 7, ..PostgresOptions::default() });
    let mut client = postgres.client();
    assert_eq!(client.value("SHOW max_connections"), "7");
    postgres.crash();
    assert_eq!(client.until_closed(), Vec::<String>::new());
    postgres.start_again();
    assert_eq!(postgres.client().value("SELECT 1"), "1");
    postgres.stop();
    postgres.start_again();
    assert_eq!(postgres.client().value("SELECT 2"), "2");
}

#[test]
fn the_directory_of_a_server_goes_with_it() {
    let postgres = Postgres::start(PgVersion::Installed);
    let dir = postgres.dir().to_owned();
    assert!(dir.join("data").is_dir());
    drop(postgres);
    assert!(!dir.exists());
}

#[test]
fn a_scripted_server_follows_its_script() {
    let server = ScriptedServer::start(|connection| {
        let parameters = connection.accept_login()?;
        assert!(parameters.contains(&"user=app".to_owned()));
        connection.behave_until(|message| mentions(message, "die"))?;
        connection.send(&backend::error("FATAL", "57P01", "as told"))
    });
    let mut client = RawClient::connect(server.port());
    client.send(&frontend::startup(PROTOCOL_3_0, &[("user", "app")]));
    client.authenticate("app", "").unwrap();
    assert_eq!(client.query("anything"), ["CommandComplete SELECT 0", "ReadyForQuery I"]);
    client.send(&frontend::query("die"));
    assert_eq!(client.until_closed(), ["ErrorResponse FATAL 57P01"]);
    assert_eq!(server.connections(), 1);
}
