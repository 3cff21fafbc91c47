//! What a service manager and a container's health check are told, and what they and a function tell in turn.

use crate::moto::Moto;
use crate::support::certificates::Authority;
use crate::support::driver::{Endpoint, python};
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{DATABASE, PASSWORD, USER, shared};
use crate::support::raw::RawClient;
use crate::support::{PATIENCE, free_port, repository, run};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};

/// Standard output and exit code of `pgweir health` with these arguments, for one that listens there.
fn health(admin: &str, arguments: &[&str]) -> (String, Option<i32>) {
    let Output { stdout, status, .. } = Command::new(env!("CARGO_BIN_EXE_pgweir"))
        .arg("health")
        .args(arguments)
        .env("PGWEIR_TARGET_HOST", "localhost")
        .env("PGWEIR_PROXY_AUTH_0_SECRET_FILE", "not-read.json")
        .env("PGWEIR_ADMIN_LISTEN", admin)
        .output()
        .unwrap();
    (String::from_utf8(stdout).unwrap(), status.code())
}

fn health_of(pgweir: &Pgweir, arguments: &[&str]) -> (String, Option<i32>) {
    // As a task of ECS listens: the answer is fetched from loopback.
    health(&format!("0.0.0.0:{}", pgweir.admin_port()), arguments)
}

#[test]
fn health_tells_working_from_ready() {
    let pgweir = Setup::before(shared()).start();
    assert_eq!(health_of(&pgweir, &[]), ("ok\n".to_owned(), Some(0)));
    let (said, code) = health_of(&pgweir, &["--ready"]);
    assert!(said.contains(r#""ready":true"#), "{said}");
    assert_eq!(code, Some(0));

    let without_target = Setup::before_port(free_port()).user("a", "b").launch();
    crate::support::eventually("it listens", || without_target.http_status("/healthz").is_some());
    assert_eq!(health_of(&without_target, &[]).1, Some(0));
    let (said, code) = health_of(&without_target, &["--ready"]);
    assert!(said.contains(r#""ready":false"#), "{said}");
    assert_eq!(code, Some(1));
}

#[test]
fn health_fails_when_nobody_answers() {
    let (_, code) = health(&format!("127.0.0.1:{}", free_port()), &[]);
    assert_eq!(code, Some(1));
    let (said, code) = health("off", &[]);
    assert_eq!((said.as_str(), code), ("admin.listen is off: there is nobody to ask\n", Some(1)));
}

#[test]
fn the_service_manager_is_told_of_start_reload_and_stop() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut pgweir =
        Setup::before(shared()).environment("NOTIFY_SOCKET", path.to_str().unwrap()).launch();
    assert_eq!(told(), "READY=1\n");
    // It may be, because it listens now.
    pgweir.client();
    pgweir.signal("HUP");
    assert_eq!(told(), "RELOADING=1\n");
    assert_eq!(told(), "READY=1\n");
    pgweir.signal("TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert_eq!(pgweir.wait().code(), Some(0));
}

/// As ECS hands a secret to a container.
#[test]
fn a_certificate_may_come_by_variables() {
    let authority = Authority::new();
    let signed = authority.sign_loopback();
    let pgweir = Setup::before(shared())
        .environment("PGWEIR_PROXY_TLS_CERTIFICATE", &signed.certificate)
        .environment("PGWEIR_PROXY_TLS_PRIVATE_KEY", &signed.private_key)
        .environment("PGWEIR_PROXY_REQUIRE_TLS", "true")
        .start();
    let mut client = RawClient::connect_tls(pgweir.port(), &authority);
    client.log_in(USER, PASSWORD, DATABASE);
    assert_eq!(client.value("SELECT 'by TLS'"), "by TLS");
    assert!(!pgweir.log().contains("PRIVATE KEY"));
}

/// The secret's user and password beat the variables, which here are wrong.
#[test]
fn a_handler_reads_its_secret() {
    let Some(mut create) = python(Path::new("-c")) else { return };
    let moto = Moto::start();
    let as_account = |command: &mut Command| {
        command
            .env("AWS_ENDPOINT_URL", moto.endpoint())
            .env("AWS_DEFAULT_REGION", "eu-central-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test");
    };
    as_account(&mut create);
    let secret =
        format!(r#"{{"username": "{USER}", "password": "{PASSWORD}", "engine": "postgres"}}"#);
    let code = "import boto3, sys; boto3.client('secretsmanager').create_secret(Name='app', SecretString=sys.argv[1])";
    run(create.args([code, &secret]));

    let pgweir = Setup::before(shared()).start();
    let mut handler = python(&repository().join("deploy/lambda/invoke.py")).unwrap();
    Endpoint::plain(pgweir.port()).describe_to_lambda(&mut handler);
    as_account(&mut handler);
    handler.env("DB_SECRET", "app").env("DB_PASSWORD", "wrong").env_remove("DB_USER");
    let report: serde_json::Value = serde_json::from_str(&run(&mut handler)).unwrap();
    assert_eq!(report["errors"], serde_json::json!({}));
    assert_eq!(report["succeeded"], 1);
}
