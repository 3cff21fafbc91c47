//! Starting: the check, the exit codes, and a configuration without a file.

use crate::support::messages::{Message, frontend};
use crate::support::pgweir::{Pgweir, Setup, check};
use crate::support::postgres::{DATABASE, PASSWORD, Postgres, PostgresOptions, USER, shared};
use crate::support::raw::RawClient;
use crate::support::{eventually, free_port};
use std::process::{Command, Stdio};

#[test]
fn check_logs_in_and_prints_the_budget() {
    let setup = Setup::before(shared()).without_target("max_connections");
    let said = check(&setup);
    assert!(said.contains("budget: 97 of 97"), "{said}");
    assert!(said.contains("login of app"), "{said}");
    let said = check(&setup.target("max_connections_percent = 50"));
    assert!(said.contains("budget: 48 of 97"), "{said}");
}

#[test]
fn check_fails_when_a_login_fails() {
    let setup = Setup::before_port(shared().port()).user(USER, "wrong");
    let output = setup.command(&["check"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("28P01: password authentication failed"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
    let setup = Setup::before_port(free_port()).user(USER, PASSWORD);
    let output = setup.command(&["check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn check_tells_all_that_is_wrong() {
    let setup = Setup::before_port(free_port())
        .user(USER, PASSWORD)
        .proxy("tls_certificate = \"missing.pem\"")
        .proxy("tls_private_key = \"missing.key\"")
        .target("tls = \"verify-full\"")
        .target("tls_ca = \"missing-ca.pem\"");
    std::fs::write(setup.dir().join("app.json"), "{\"username\": \"app\"}").unwrap();
    let output = setup.command(&["check"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["configuration: ok", "missing.pem", "app.json: the secret lacks", "missing-ca.pem"]
    {
        assert!(said.contains(part), "{part} is not in:\n{said}");
    }
    // It does not start either, and says why.
    let output = setup.command(&[]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().unwrap().contains("app.json: the secret lacks"), "{said}");
}

#[test]
fn the_file_can_be_named_by_a_variable() {
    let setup = Setup::before(shared());
    let by_argument = setup.command(&["check"]);
    let mut command = Command::new(by_argument.get_program());
    let file = setup.dir().join("pgweir.toml");
    let output = command.arg("check").env("PGWEIR_CONFIG", file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("login of app"), "{said}");
}

#[test]
fn all_problems_are_told_at_once_with_exit_code_2() {
    let setup = Setup::before_port(shared().port())
        .user(USER, PASSWORD)
        .proxy("no_such_key = 1")
        .proxy("idle_client_timeout = \"soon\"")
        .proxy("tls_certificate = \"server.pem\"")
        .target("max_connections = 0");
    for arguments in [&[][..], &["check"]] {
        let output = setup.command(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        for key in ["no_such_key", "idle_client_timeout", "tls_private_key", "max_connections"] {
            assert!(said.contains(key), "{key} is not in:\n{said}");
        }
        assert!(said.contains("pgweir.toml"), "{said}");
    }
}

#[test]
fn a_port_in_use_is_told_with_exit_code_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let setup = Setup::before(shared()).proxy("workers = 1");
    let text = setup.text();
    let output =
        setup.command(&[]).env("PGWEIR_PROXY_LISTEN", address.to_string()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}\n{text}");
    assert!(said.contains(&address.to_string()), "{said}");
}

/// What a login is told once it is told anything else than that it waited for too long.
fn told_without_budget(setup: Setup, password: &str) -> String {
    let pgweir = setup.without_target("max_connections").launch();
    let mut told = String::new();
    eventually("it is told that waiting is pointless", || {
        let Ok(_) = std::net::TcpStream::connect(("127.0.0.1", pgweir.port())) else {
            return false;
        };
        let mut client = RawClient::connect(pgweir.port());
        let Err(refusal) = client.try_log_in(USER, password, &[("database", DATABASE)]) else {
            return false;
        };
        told = format!("{}: {}", refusal.line(), refusal.field('D'));
        true
    });
    assert_eq!(pgweir.http_status("/readyz"), Some(503));
    told
}

#[test]
fn without_a_budget_nobody_waits_for_longer_than_there_is_hope() {
    let away = Setup::before_port(free_port()).user(USER, PASSWORD);
    let told = told_without_budget(away.target("fail_fast_after = \"1s\""), PASSWORD);
    assert_eq!(told, "ErrorResponse FATAL 08001: the server cannot be reached");
    let refused = Setup::before_port(shared().port()).user(USER, "wrong");
    let told = told_without_budget(refused, "wrong");
    assert_eq!(told, "ErrorResponse FATAL 08001: the server does not let pgweir ask its limits");
}

/// The refusal of a login, once somebody listens.
fn eventually_refused(pgweir: &Pgweir, parameters: &[(&str, &str)]) -> Message {
    eventually("pgweir listens", || pgweir.http_status("/healthz") == Some(200));
    RawClient::connect(pgweir.port()).try_log_in(USER, PASSWORD, parameters).unwrap_err()
}

#[test]
fn an_init_query_that_fails_says_why() {
    const QUERY: &str = "SELECT nowhere.to_be_found() /* kept to itself */";
    let setup = || Setup::before(shared()).target(&format!("init_query = \"{QUERY}\""));
    let checked = setup().command(&["check"]).output().unwrap();
    assert_eq!(checked.status.code(), Some(1));
    let said = String::from_utf8(checked.stdout).unwrap();
    let reason = "init_query failed: server refused the query with SQLSTATE 3F000: schema \"nowhere\" does not exist";
    assert!(said.contains(reason), "{said}");
    assert!(!said.contains("kept to itself"), "{said}");
    let told = told_without_budget(setup(), PASSWORD);
    assert_eq!(told, "ErrorResponse FATAL 08001: init_query failed");
    // With a budget of its own, it is a pool that says it.
    let pgweir = setup().launch();
    let refusal = eventually_refused(&pgweir, &[("database", DATABASE)]);
    assert_eq!(refusal.line(), "ErrorResponse FATAL 08001");
    assert_eq!(refusal.field('D'), "init_query failed");
    eventually("the log has the reason", || {
        let log = pgweir.log();
        assert!(!log.contains("to_be_found"), "{log}");
        let line = log.lines().find(|line| line.contains("cannot open a server"));
        line.is_some_and(|line| line.contains("SQLSTATE 3F000"))
    });
    eventually("it is told there too", || {
        pgweir.http_get("/readyz").unwrap().contains("init_query failed")
    });
}

#[test]
fn who_waits_in_vain_is_advised_by_what_stands_in_the_way() {
    let postgres = Postgres::start_with(&PostgresOptions::default());
    let timeout = "connection_borrow_timeout = \"300ms\"";
    let pgweir = Setup::before(&postgres).target(timeout).target("max_connections = 1").start();
    let mut client = pgweir.client();
    let mut holder = pgweir.client();
    let advice = |client: &mut RawClient| {
        client.send(&frontend::query("SELECT 1"));
        let error = client.read_message();
        client.until_ready();
        assert_eq!(error.line(), "ErrorResponse ERROR 08000");
        (error.field('D'), error.field('H'))
    };
    holder.execute("BEGIN");
    let (detail, hint) = advice(&mut client);
    assert!(detail.ends_with("all connections of the budget are in use."), "{detail}");
    assert!(hint.starts_with("Shorten transactions"), "{hint}");
    postgres.stop();
    drop(holder);
    let mut last = (String::new(), String::new());
    eventually("it is known to be away", || {
        last = advice(&mut client);
        last.0.ends_with("the target cannot be reached.")
    });
    assert!(last.1.starts_with("See whether the database runs"), "{}", last.1);
}

#[test]
fn the_whole_configuration_can_come_from_the_environment() {
    let setup = Setup::before(shared());
    let (port, admin) = (free_port(), free_port());
    // Also the way to the binary.
    let mut command = Command::new(setup.command(&[]).get_program());
    let child = command
        .env("PGWEIR_PROXY_LISTEN", format!("127.0.0.1:{port}"))
        .env("PGWEIR_PROXY_AUTH_0_SECRET_FILE", setup.dir().join("app.json"))
        .env("PGWEIR_TARGET_HOST", "127.0.0.1")
        .env("PGWEIR_TARGET_PORT", shared().port().to_string())
        .env("PGWEIR_TARGET_MAX_CONNECTIONS", "1")
        .env("PGWEIR_ADMIN_LISTEN", format!("127.0.0.1:{admin}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _end = KillOnDrop(child);
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut client = RawClient::connect(port);
    client.log_in(USER, PASSWORD, DATABASE);
    assert_eq!(client.value("SELECT current_user"), USER);
}

/// Ends the process with the test.
struct KillOnDrop(std::process::Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_budget_is_a_share_of_what_the_target_has() {
    let pgweir = Setup::before(shared())
        .without_target("max_connections")
        .target("max_connections_percent = 20")
        .start();
    eventually("the budget is known", || {
        pgweir.metric("pgweir_max_database_connections_allowed", "") == 19.0
    });
}

/// Servers that nobody uses make room for the question what the target has.
#[test]
fn a_budget_is_changed_while_all_of_it_is_open() {
    let pgweir = Setup::before(shared())
        .without_target("max_connections")
        .target("max_connections_percent = 10")
        .target("max_idle_connections_percent = 100")
        .start();
    let budget = |expected: f64| {
        eventually("the budget is known", || {
            pgweir.metric("pgweir_max_database_connections_allowed", "") == expected
        });
    };
    budget(9.0);
    let mut clients: Vec<RawClient> = (0..9).map(|_| pgweir.client()).collect();
    for sql in ["BEGIN", "COMMIT"] {
        for client in &mut clients {
            client.execute(sql);
        }
    }
    assert_eq!(pgweir.metric("pgweir_database_connections", "state=\"idle\""), 9.0);
    let file = pgweir.dir().join("pgweir.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("_percent = 10\n", "_percent = 5\n")).unwrap();
    pgweir.signal("HUP");
    budget(4.0);
}
