//! Stopping and reloading.

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::messages::{PROTOCOL_3_0, frontend};
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{
    DATABASE, OTHER_DATABASE, OTHER_USER, PASSWORD, PgVersion, Postgres, USER, shared,
};
use crate::support::raw::RawClient;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

fn start() -> Pgweir {
    Setup::before(shared()).proxy("shutdown_timeout = \"20s\"").start()
}

#[test]
fn a_drain_lets_transactions_end_and_sends_the_idle_away() {
    let mut pgweir = start();
    let mut idle = pgweir.client();
    let mut pinned = pgweir.client();
    pinned.execute("CREATE TEMP TABLE mine (id int)");
    let mut busy = pgweir.client();
    busy.execute("BEGIN");
    pgweir.signal("TERM");
    assert_eq!(idle.until_closed(), ["ErrorResponse FATAL 57P01"]);
    assert_eq!(pinned.until_closed(), ["ErrorResponse FATAL 57P01"]);
    assert_eq!(pgweir.http_status("/readyz"), Some(503));
    assert_eq!(pgweir.http_status("/healthz"), Some(200));
    eventually("nobody is let in", || TcpStream::connect(("127.0.0.1", pgweir.port())).is_err());
    assert_eq!(busy.value("SELECT 'still working'"), "still working");
    assert_eq!(busy.query("COMMIT"), ["CommandComplete COMMIT", "ReadyForQuery I"]);
    let told = Instant::now();
    assert_eq!(busy.until_closed(), ["ErrorResponse FATAL 57P01"]);
    let status = pgweir.wait();
    assert_eq!(status.code(), Some(0));
    // The last transaction was over: nothing is waited for.
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
}

#[test]
fn a_running_query_ends_before_its_client_is_sent_away() {
    let mut pgweir = start();
    let mut client = pgweir.client();
    client.send(&frontend::query("SELECT pg_sleep(1.5), 'done' /* drained */"));
    eventually("it runs", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%/* drained%'";
        shared().superuser().value(sql) == "1"
    });
    pgweir.signal("TERM");
    let said = client.until_closed();
    assert!(said.contains(&"DataRow |done".to_owned()), "{said:?}");
    assert_eq!(said.last().unwrap(), "ErrorResponse FATAL 57P01");
    assert_eq!(pgweir.wait().code(), Some(0));
}

#[test]
fn a_login_under_way_is_over_before_its_client_is_sent_away() {
    let mut pgweir = start();
    let mut client = RawClient::connect(pgweir.port());
    let parameters = [("user", USER), ("database", DATABASE)];
    client.send(&frontend::startup(PROTOCOL_3_0, &parameters));
    client.wait_for_word();
    pgweir.signal("TERM");
    eventually("it drains", || pgweir.http_status("/readyz") != Some(200));
    client.authenticate(USER, PASSWORD).unwrap();
    assert_eq!(client.until_closed(), ["ErrorResponse FATAL 57P01"]);
    assert_eq!(pgweir.wait().code(), Some(0));
}

#[test]
fn a_login_that_the_stop_cuts_off_is_told() {
    // One waits for the client, one for a server.
    let mut pgweir = Setup::before(shared())
        .proxy("shutdown_timeout = \"500ms\"")
        .target("max_connections = 1")
        .start();
    let mut holder = pgweir.client();
    holder.execute("BEGIN");
    let mut asked = RawClient::connect(pgweir.port());
    asked.send(&frontend::startup(PROTOCOL_3_0, &[("user", USER), ("database", DATABASE)]));
    asked.wait_for_word();
    let mut waits = RawClient::connect(pgweir.port());
    let other = [("user", OTHER_USER), ("database", OTHER_DATABASE)];
    waits.send(&frontend::startup(PROTOCOL_3_0, &other));
    waits.wait_for_word();
    std::thread::scope(|scope| {
        let login = scope.spawn(|| waits.authenticate(OTHER_USER, PASSWORD).unwrap_err());
        eventually("it waits", || pgweir.metric("pgweir_waiting_clients", "") == 1.0);
        pgweir.signal("TERM");
        let refusal = login.join().unwrap();
        assert_eq!(refusal.line(), "ErrorResponse FATAL 57P03");
        assert_eq!(refusal.field('M'), "the database system is shutting down");
    });
    let last = asked.until_closed();
    assert_eq!(last.last().unwrap(), "ErrorResponse FATAL 57P03");
    assert_eq!(holder.until_closed(), ["ErrorResponse FATAL 57P01"]);
    assert_eq!(pgweir.wait().code(), Some(0));
}

#[test]
fn the_deadline_ends_a_transaction_without_end() {
    let mut pgweir = Setup::before(shared()).proxy("shutdown_timeout = \"1s\"").start();
    let mut client = pgweir.client();
    client.execute("BEGIN");
    let pid = client.value("SELECT pg_backend_pid()");
    let begun = Instant::now();
    assert_eq!(pgweir.stop().code(), Some(0));
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(client.until_closed(), ["ErrorResponse FATAL 57P01"]);
    let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    eventually("its server is gone", || shared().superuser().value(&gone) == "0");
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for second in ["TERM", "INT"] {
        let mut pgweir = start();
        let mut client = pgweir.client();
        client.execute("BEGIN");
        pgweir.signal("TERM");
        eventually("it drains", || pgweir.http_status("/readyz") == Some(503));
        let begun = Instant::now();
        pgweir.signal(second);
        assert_eq!(pgweir.wait().code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(client.until_closed(), ["ErrorResponse FATAL 57P01"]);
    }
}

#[test]
fn no_server_is_left_behind() {
    let postgres = Postgres::start(PgVersion::Installed);
    let mut pgweir = Setup::before(&postgres).start();
    let mut clients: Vec<_> = (0..3).map(|_| pgweir.client()).collect();
    for client in &mut clients {
        client.execute("BEGIN");
        client.execute("COMMIT");
    }
    assert_eq!(pgweir.stop().code(), Some(0));
    let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    eventually("all servers are gone", || postgres.superuser().value(left) == "0");
    let log = postgres.log();
    assert!(!log.contains("unexpected EOF"), "servers were dropped without a word");
}

/// Rewrites the configuration file as `setup` says.
fn rewrite(pgweir: &Pgweir, change: impl Fn(String) -> String) {
    let file = pgweir.dir().join("pgweir.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, change(text)).unwrap();
}

fn reload(pgweir: &Pgweir) {
    let count = || {
        let log = pgweir.log();
        log.matches("configuration reloaded").count()
            + log.matches("configuration not reloaded").count()
    };
    let before = count();
    pgweir.signal("HUP");
    eventually("it reloads", || count() > before);
}

#[test]
fn a_reload_changes_what_can_change_and_says_what_cannot() {
    let pgweir = Setup::before_port(shared().port())
        .user(USER, PASSWORD)
        .proxy("idle_client_timeout = \"1h\"")
        .target("max_connections = 2")
        .start();
    let mut client = pgweir.client();
    client.execute("SELECT 1");
    let mut other = RawClient::connect(pgweir.port());
    let parameters = [("database", OTHER_DATABASE)];
    assert!(other.try_log_in(OTHER_USER, PASSWORD, &parameters).is_err());

    let secret = format!("{{\"username\": \"{OTHER_USER}\", \"password\": \"{PASSWORD}\"}}");
    std::fs::write(pgweir.dir().join("other.json"), secret).unwrap();
    rewrite(&pgweir, |text| {
        text.replace("idle_client_timeout = \"1h\"", "idle_client_timeout = \"1s\"\nworkers = 1")
            .replace("[target]", "[[proxy.auth]]\nsecret_file = \"other.json\"\n[target]")
            .replace("max_connections = 2", "max_connections = 1")
    });
    reload(&pgweir);
    let log = pgweir.log();
    assert!(log.contains("setting needs a restart to change") && log.contains("workers"));
    assert!(log.contains("setting changed") && log.contains("idle_client_timeout"));
    // Those who were there before are meant as well.
    assert_eq!(client.until_closed(), ["ErrorResponse FATAL 57P05"]);
    let mut other = pgweir.client_as(OTHER_USER, OTHER_DATABASE);
    assert_eq!(other.value("SELECT current_user"), OTHER_USER);
    assert_eq!(pgweir.metric("pgweir_max_database_connections_allowed", ""), 1.0);
}

#[test]
fn a_reload_of_a_broken_file_changes_nothing() {
    let pgweir = start();
    let mut client = pgweir.client();
    rewrite(&pgweir, |text| text.replace("[target]", "[target]\nno_such_key = 1"));
    reload(&pgweir);
    assert!(pgweir.log().contains("no_such_key"));
    assert_eq!(client.value("SELECT 'undisturbed'"), "undisturbed");
    assert_eq!(pgweir.client().value("SELECT 'served'"), "served");
}

#[test]
fn a_reload_takes_a_new_certificate_and_keeps_those_who_have_the_old_one() {
    let old = Authority::new();
    let pgweir = Setup::before(shared()).tls(&old.sign_loopback()).start();
    let mut client = RawClient::connect_tls(pgweir.port(), &old);
    client.log_in(USER, PASSWORD, DATABASE);
    let new = Authority::new();
    new.sign_loopback().write_into(pgweir.dir());
    reload(&pgweir);
    let mut later = RawClient::connect_tls(pgweir.port(), &new);
    later.log_in(USER, PASSWORD, DATABASE);
    assert_eq!(client.value("SELECT 'undisturbed'"), "undisturbed");
    // A certificate without its key is refused, and the one in use is kept.
    std::fs::write(pgweir.dir().join("server.key"), "no key").unwrap();
    reload(&pgweir);
    let log = pgweir.log();
    assert!(log.contains("the certificate for clients cannot be used"), "{log}");
    let mut still = RawClient::connect_tls(pgweir.port(), &new);
    still.log_in(USER, PASSWORD, DATABASE);
}

#[test]
fn a_reload_whose_certificate_cannot_be_used_changes_nothing_until_that_is_repaired() {
    let authority = Authority::new();
    let pgweir = start();
    let signed = authority.sign_loopback();
    signed.write_into(pgweir.dir());
    std::fs::write(pgweir.dir().join("server.key"), "no key").unwrap();
    rewrite(&pgweir, |text| {
        let tls = "tls_certificate = \"server.pem\"\ntls_private_key = \"server.key\"";
        text.replace("[proxy]", &format!("[proxy]\n{tls}\nrequire_tls = true"))
    });
    reload(&pgweir);
    let log = pgweir.log();
    assert!(log.contains("server.key") && !log.contains("configuration reloaded"), "{log}");
    assert_eq!(pgweir.client().value("SELECT 'served'"), "served");

    signed.write_into(pgweir.dir());
    reload(&pgweir);
    let mut encrypted = RawClient::connect_tls(pgweir.port(), &authority);
    encrypted.log_in(USER, PASSWORD, DATABASE);
    assert_eq!(encrypted.value("SELECT 'encrypted'"), "encrypted");
    let refusal = RawClient::connect(pgweir.port())
        .try_log_in(USER, PASSWORD, &[("database", DATABASE)])
        .unwrap_err();
    assert_eq!(refusal.line(), "ErrorResponse FATAL 28000");
}

#[test]
fn a_reload_without_a_usable_secret_changes_nothing_until_there_is_one() {
    let setup = Setup::before_port(shared().port()).user(USER, PASSWORD);
    let pgweir = setup.target("max_connections = 2").start();
    rewrite(&pgweir, |text| {
        text.replace("app.json", "moved.json").replace("max_connections = 2", "max_connections = 1")
    });
    let allowed = || pgweir.metric("pgweir_max_database_connections_allowed", "");
    reload(&pgweir);
    let log = pgweir.log();
    assert!(log.contains("moved.json") && !log.contains("configuration reloaded"), "{log}");
    assert_eq!(allowed(), 2.0);
    assert_eq!(pgweir.client().value("SELECT 'served'"), "served");

    std::fs::rename(pgweir.dir().join("app.json"), pgweir.dir().join("moved.json")).unwrap();
    reload(&pgweir);
    assert_eq!(allowed(), 1.0);
    assert_eq!(pgweir.client().value("SELECT 'served'"), "served");
}

/// What needs a restart is not in force: tokens would go to a target that nobody has verified.
#[test]
fn a_reload_that_rests_upon_what_needs_a_restart_changes_nothing() {
    let pgweir = start();
    rewrite(&pgweir, |text| {
        let iam = "[proxy]\ndefault_auth_scheme = \"IAM_AUTH\"\nidle_client_timeout = \"1h\"";
        text.replace("[proxy]", iam).replace("tls = \"prefer\"", "tls = \"verify-full\"")
    });
    reload(&pgweir);
    let log = pgweir.log();
    assert!(log.contains("IAM authentication needs target.tls"), "{log}");
    assert!(!log.contains("setting changed"), "{log}");
    assert_eq!(pgweir.client().value("SELECT 'served'"), "served");
}

#[test]
fn a_reload_changes_how_long_connecting_may_take() {
    // The kernel accepts for it, and nobody ever answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let pgweir = Setup::before_port(silent.local_addr().unwrap().port())
        .user(USER, PASSWORD)
        .target("max_connections = 2")
        .target("connect_timeout = \"1h\"")
        .target("fail_fast_after = \"1ms\"")
        .launch();
    eventually("it is ready", || pgweir.log().contains("ready for clients"));
    rewrite(&pgweir, |text| text.replace("\"1h\"", "\"100ms\""));
    reload(&pgweir);
    let refusal = RawClient::connect(pgweir.port())
        .try_log_in(USER, PASSWORD, &[("database", DATABASE)])
        .unwrap_err();
    assert_eq!(refusal.line(), "ErrorResponse FATAL 08001");
    assert_eq!(refusal.field('D'), "connecting took longer than connect_timeout");
}

/// A Secrets Manager that accepts, and says nothing.
fn before_silence(setup: Setup) -> (Setup, TcpListener) {
    let aws = TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = setup
        .environment("AWS_ENDPOINT_URL", &format!("http://{}", aws.local_addr().unwrap()))
        .environment("AWS_REGION", "eu-central-1")
        .environment("AWS_ACCESS_KEY_ID", "test")
        .environment("AWS_SECRET_ACCESS_KEY", "test");
    (setup, aws)
}

/// A pgweir whose start does not get on, as its secret does not come.
fn starting() -> (Pgweir, TcpStream) {
    let setup = Setup::before_port(shared().port()).entry("secret_arn = \"app\"");
    let (setup, aws) = before_silence(setup);
    let pgweir = setup.launch();
    let (asked, _) = aws.accept().unwrap();
    (pgweir, asked)
}

#[test]
fn a_start_that_takes_long_is_ended_in_order() {
    for stop in ["TERM", "INT"] {
        let (mut pgweir, _asked) = starting();
        pgweir.signal(stop);
        assert_eq!(pgweir.wait().code(), Some(0), "{}", pgweir.log());
        assert!(pgweir.log().contains("pgweir has stopped"));
    }
}

#[test]
fn a_start_that_takes_long_survives_being_told_to_reload() {
    let (mut pgweir, _asked) = starting();
    pgweir.signal("HUP");
    assert_eq!(pgweir.stop().code(), Some(0), "{}", pgweir.log());
}

#[test]
fn a_reload_that_takes_long_does_not_keep_it_from_ending_in_order() {
    for stop in ["TERM", "INT"] {
        let (setup, aws) = before_silence(Setup::before(shared()));
        let mut pgweir = setup.start();
        let mut idle = pgweir.client();
        rewrite(&pgweir, |text| {
            text.replace("[target]", "[[proxy.auth]]\nsecret_arn = \"new\"\n[target]")
        });
        pgweir.signal("HUP");
        let (_asked, _) = aws.accept().unwrap();
        pgweir.signal(stop);
        assert_eq!(idle.until_closed(), ["ErrorResponse FATAL 57P01"]);
        assert_eq!(pgweir.wait().code(), Some(0));
        let log = pgweir.log();
        assert!(!log.contains("configuration reloaded"), "it waited for the secret: {log}");
    }
}

#[test]
fn a_user_removed_by_a_reload_is_no_longer_let_in() {
    let pgweir = start();
    rewrite(&pgweir, |text| {
        text.replace("[[proxy.auth]]\nsecret_file = \"other.json\"\nclient_password_auth_type = \"POSTGRES_SCRAM_SHA_256\"\n", "")
    });
    let mut there = pgweir.client_as(OTHER_USER, OTHER_DATABASE);
    reload(&pgweir);
    let mut client = RawClient::connect(pgweir.port());
    let parameters = [("database", OTHER_DATABASE)];
    let refusal = client.try_log_in(OTHER_USER, PASSWORD, &parameters).unwrap_err();
    assert_eq!(refusal.line(), "ErrorResponse FATAL 28P01");
    // Who is in stays in until a server would have to be opened without a secret.
    let transcript = there.query("SELECT 1");
    assert_eq!(transcript.last().unwrap(), "ReadyForQuery I");
}

#[test]
fn a_changed_password_takes_effect_without_dropping_a_client() {
    let postgres = Postgres::start(PgVersion::Installed);
    let setup = Setup::before(&postgres).target("max_connections = 2");
    let pgweir = setup.proxy("secret_overlap = \"0s\"").start();
    let mut client = pgweir.client();
    let mut inside = pgweir.client();
    inside.execute("BEGIN");
    let before = client.value("SELECT pg_backend_pid()");
    postgres.superuser().execute("ALTER ROLE app PASSWORD 'rotated'");
    pgweir.change_secret(USER, "rotated");
    reload(&pgweir);
    // The new password is asked of new clients, the old one is no longer good.
    let parameters = [("database", DATABASE)];
    let mut new = RawClient::connect(pgweir.port());
    eventually("the secret is read again", || {
        new = RawClient::connect(pgweir.port());
        new.try_log_in(USER, "rotated", &parameters).is_ok()
    });
    let mut old = RawClient::connect(pgweir.port());
    assert!(old.try_log_in(USER, PASSWORD, &parameters).is_err());
    eventually("idle servers of the old password are replaced", || {
        client.value("SELECT pg_backend_pid()") != before
    });
    assert_eq!(inside.value("SELECT 'undisturbed'"), "undisturbed");
    inside.execute("COMMIT");
    assert_eq!(new.value("SELECT current_user"), USER);
}
