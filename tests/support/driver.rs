//! Real drivers, run as programs of their own against any server.

use super::certificates::Authority;
use super::postgres::{DATABASE, PASSWORD, USER};
use super::{absent, on_path, repository, run, tools_dir};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use tempfile::TempDir;

/// PostgreSQL's JDBC driver, where Debian's package `libpostgresql-jdbc-java` puts it.
const JDBC_JAR: &str = "/usr/share/java/postgresql.jar";

/// A server to connect to, as drivers are told.
pub struct Endpoint {
    port: u16,
    /// Holds `ca.pem` when TLS is to be used and verified.
    authority: Option<TempDir>,
    servers_max: Option<u32>,
}

impl Endpoint {
    pub fn plain(port: u16) -> Self {
        Self { port, authority: None, servers_max: None }
    }

    /// Says that all clients together get this many servers, which the scripts verify.
    pub fn with_servers_max(mut self, servers_max: u32) -> Self {
        self.servers_max = Some(servers_max);
        self
    }

    /// TLS, with the certificate and the name verified.
    pub fn tls(port: u16, authority: &Authority) -> Self {
        let dir = TempDir::new().unwrap();
        authority.write_into(dir.path());
        Self { port, authority: Some(dir), servers_max: None }
    }

    /// Hands everything a driver has to know to `command`, in libpq's environment variables.
    pub fn describe_to(&self, command: &mut Command) {
        command
            .env("PGHOST", "localhost")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", USER)
            .env("PGPASSWORD", PASSWORD)
            .env("PGDATABASE", DATABASE)
            .env("PGCONNECT_TIMEOUT", "20");
        if let Some(servers_max) = self.servers_max {
            command.env("TEST_SERVERS_MAX", servers_max.to_string());
        }
        let Some(dir) = &self.authority else {
            command.env("PGSSLMODE", "disable");
            return;
        };
        command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", dir.path().join("ca.pem"));
    }

    /// The same as a Lambda function is told.
    pub fn describe_to_lambda(&self, command: &mut Command) {
        command
            .env("DB_HOST", "localhost")
            .env("DB_PORT", self.port.to_string())
            .env("DB_USER", USER)
            .env("DB_PASSWORD", PASSWORD)
            .env("DB_NAME", DATABASE)
            // A fleet shares a small machine with all that it connects to.
            .env("DB_CONNECT_TIMEOUT_MS", "60000");
        if let Some(dir) = &self.authority {
            command.env("DB_SSL_CA", dir.path().join("ca.pem"));
        }
    }
}

/// A driver: the program that runs its script, and the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Psycopg,
    Asyncpg,
    NodePostgres,
    PostgresJs,
    Jdbc,
    SqlAlchemyPsycopg,
    SqlAlchemyAsyncpg,
    Django,
    TypeOrm,
    Knex,
    Prisma,
    Sqlx,
    Pdo,
    PsqlOdbc,
}

impl Driver {
    const COUNT: usize = Self::PsqlOdbc as usize + 1;

    /// Runs it while nobody else runs the same script, as these share their tables.
    pub fn alone(self, run: fn(Self)) {
        static TURNS: [Mutex<()>; Driver::COUNT] = [const { Mutex::new(()) }; Driver::COUNT];
        let _turn = TURNS[self as usize].lock().unwrap_or_else(PoisonError::into_inner);
        run(self);
    }

    fn script(self) -> PathBuf {
        let name = match self {
            Self::Psycopg => "psycopg3.py",
            Self::Asyncpg => "asyncpg_.py",
            Self::NodePostgres => "node_postgres.cjs",
            Self::PostgresJs => "postgres_js.cjs",
            Self::Jdbc => "Jdbc.java",
            Self::SqlAlchemyPsycopg => "sqlalchemy_psycopg.py",
            Self::SqlAlchemyAsyncpg => "sqlalchemy_asyncpg.py",
            Self::Django => "django_.py",
            Self::TypeOrm => "typeorm.cjs",
            Self::Knex => "knex.cjs",
            Self::Prisma => "prisma.cjs",
            Self::Sqlx => "sqlx/src/main.rs",
            Self::Pdo => "pdo.php",
            Self::PsqlOdbc => "psqlodbc.py",
        };
        repository().join("tests/drivers").join(name)
    }

    /// The command that runs `script`; `None`, said loudly, when something is absent.
    fn command(self, script: &Path) -> Option<Command> {
        match script.extension()?.to_str()? {
            "py" if self == Self::PsqlOdbc && !has_odbc() => {
                absent("psqlODBC");
                None
            }
            "py" => python(script),
            "cjs" => node(script),
            "php" => php(script),
            "rs" => program_of_rust("sqlx"),
            _ => java(script),
        }
    }

    /// Runs the driver's script against `endpoint`.
    ///
    /// # Panics
    /// With what the script wrote, when it fails.
    pub fn run(self, endpoint: &Endpoint) {
        let Some(mut command) = self.command(&self.script()) else {
            return;
        };
        endpoint.describe_to(&mut command);
        let said = run(command.stdin(Stdio::null()));
        assert!(said.trim_end().ends_with("all passed"), "{self:?} did not finish:\n{said}");
    }
}

/// A Python script with the virtual environment of `tests/run`.
pub fn python(script: &Path) -> Option<Command> {
    let interpreter = tools_dir().join("venv/bin/python");
    if !is_installed("requirements.txt") {
        absent("the virtual environment with psycopg, asyncpg, SQLAlchemy and Django");
        return None;
    }
    let mut command = Command::new(interpreter);
    command.arg(script);
    Some(command)
}

/// A program that a package of that environment brings.
pub fn program_of_python(name: &str) -> Option<Command> {
    if !is_installed("requirements.txt") {
        absent(name);
        return None;
    }
    Some(Command::new(tools_dir().join("venv/bin").join(name)))
}

/// The program of a crate in `tests/drivers`, as `tests/run` built it.
fn program_of_rust(name: &str) -> Option<Command> {
    let program = tools_dir().join(format!("{name}/debug/{name}-driver"));
    if !program.is_file() {
        absent(name);
        return None;
    }
    Some(Command::new(program))
}

/// A JavaScript program with the packages of `tests/run`.
///
/// `CommonJS`, because only its imports can be pointed to another directory.
pub fn node(script: &Path) -> Option<Command> {
    let modules = tools_dir().join("node_modules");
    if !is_installed("package-lock.json") || !on_path("node") {
        absent("Node.js with the packages of npm");
        return None;
    }
    let mut command = Command::new("node");
    command.arg(script).env("NODE_PATH", modules);
    Some(command)
}

/// Whether `tests/run` finished installing what this file lists.
fn is_installed(list: &str) -> bool {
    tools_dir().join(format!("{list}.installed")).is_file()
}

/// Debian's package `odbc-postgresql`; `pyodbc` comes with what is above it.
fn has_odbc() -> bool {
    std::fs::read_dir("/usr/lib")
        .is_ok_and(|dirs| dirs.flatten().any(|dir| dir.path().join("odbc/psqlodbcw.so").is_file()))
}

/// A PHP script with PDO's driver of Debian's package `php-pgsql`.
fn php(script: &Path) -> Option<Command> {
    let modules = Command::new("php").arg("-m").output().ok();
    if !modules.is_some_and(|output| String::from_utf8_lossy(&output.stdout).contains("pdo_pgsql"))
    {
        absent("PHP with pdo_pgsql");
        return None;
    }
    let mut command = Command::new("php");
    command.arg(script);
    Some(command)
}

fn java(script: &Path) -> Option<Command> {
    if !Path::new(JDBC_JAR).is_file() || !on_path("java") {
        absent("Java with PostgreSQL's JDBC driver");
        return None;
    }
    let mut command = Command::new("java");
    command.args(["--class-path", JDBC_JAR, "-Xshare:auto", "-XX:TieredStopAtLevel=1"]).arg(script);
    Some(command)
}

/// A `pgbench` or `psql` for `endpoint`; `None`, said loudly, when it is absent.
pub fn client_program(name: &str, endpoint: &Endpoint) -> Option<Command> {
    if !on_path(name) {
        absent(name);
        return None;
    }
    let mut command = Command::new(name);
    endpoint.describe_to(&mut command);
    Some(command)
}
