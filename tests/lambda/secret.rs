//! A container that lives longer than its secret.

use crate::support::driver::{Endpoint, node};
use crate::support::postgres::{PASSWORD, PgVersion, Postgres, USER};
use crate::support::{eventually, repository};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};

struct Container {
    child: Child,
    answers: BufReader<ChildStdout>,
}

impl Container {
    /// One whose user and password are in a secret, which is what `secret` holds at the moment.
    fn start(handler: &str, postgres: &Postgres, secret: &Path) -> Option<Self> {
        let mut command = node(&repository().join("tests/lambda/invocations.cjs"))?;
        Endpoint::plain(postgres.port()).describe_to_lambda(&mut command);
        command.env_remove("DB_USER").env_remove("DB_PASSWORD");
        command.arg(handler).env("DB_SECRET", "app").env("TEST_SECRET", secret);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, answers })
    }

    fn invoke(&mut self, n: u32) -> Value {
        writeln!(self.child.stdin.as_mut().unwrap(), "{n}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(secret: &Path, password: &str) {
    let text = json!({ "username": USER, "password": password }).to_string();
    std::fs::write(secret, text).unwrap();
}

/// Its connection ends some time after the rotation, as each does, and it has to log in anew.
#[test]
fn a_container_that_outlives_its_secret_fails_no_invocation() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret.json");
    let postgres = Postgres::start(PgVersion::Installed);
    let mut superuser = postgres.superuser();
    for handler in ["pool", "client"] {
        superuser.execute(&format!("ALTER ROLE {USER} PASSWORD '{PASSWORD}'"));
        write(&secret, PASSWORD);
        let Some(mut container) = Container::start(handler, &postgres, &secret) else { return };
        assert_eq!(container.invoke(1), json!({ "n": 1 }), "{handler}");

        superuser.execute(&format!("ALTER ROLE {USER} PASSWORD 'rotated'"));
        write(&secret, "rotated");
        let theirs = format!("FROM pg_stat_activity WHERE usename = '{USER}'");
        superuser.execute(&format!("SELECT pg_terminate_backend(pid) {theirs}"));
        eventually("its connection is gone", || {
            superuser.value(&format!("SELECT count(*) {theirs}")) == "0"
        });
        assert_eq!(container.invoke(2), json!({ "n": 2 }), "{handler}");
    }
}
