//! Starting: the check, the exit codes, and a configuration without a file.

use crate::support::pgweir::{Setup, check};
use crate::support::postgres::{DATABASE, PASSWORD, USER, shared};
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
    assert!(said.contains("28P01"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
    let setup = Setup::before_port(free_port()).user(USER, PASSWORD);
    let output = setup.command(&["check"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
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
