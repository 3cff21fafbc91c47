//! pgweir as a process of its own, in front of a server of the test.

use super::certificates::Signed;
use super::postgres::{self, DATABASE, PASSWORD, Postgres, USER};
use super::raw::RawClient;
use super::{PATIENCE, free_port, run, signal};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use tempfile::TempDir;

/// A configuration, and what it needs beside it.
pub struct Setup {
    dir: TempDir,
    port: u16,
    admin_port: u16,
    proxy: String,
    auth: String,
    target: String,
    environment: Vec<(String, String)>,
    descriptors: Option<&'static str>,
}

impl Setup {
    /// In front of `postgres`, for all its ordinary users, with a pool of three servers.
    pub fn before(postgres: &Postgres) -> Self {
        let setup = Self::before_port(postgres.port())
            .user(USER, PASSWORD)
            .user(postgres::OTHER_USER, PASSWORD)
            .user(postgres::MD5_USER, PASSWORD)
            .user(postgres::CLEARTEXT_USER, PASSWORD);
        postgres.authority().write_into(setup.dir.path());
        setup.target("tls = \"prefer\"").target("max_connections = 3")
    }

    /// In front of whatever listens there, for nobody yet.
    pub fn before_port(target: u16) -> Self {
        let setup = Self {
            dir: TempDir::with_prefix("pgweir-test-").unwrap(),
            port: free_port(),
            admin_port: free_port(),
            proxy: String::new(),
            auth: String::new(),
            target: String::new(),
            environment: Vec::new(),
            descriptors: None,
        };
        setup.target("host = \"127.0.0.1\"").target(&format!("port = {target}"))
    }

    /// Lets a user in.
    pub fn user(self, user: &str, password: &str) -> Self {
        self.user_by(user, password, "POSTGRES_SCRAM_SHA_256")
    }

    /// Lets a user in by a method of `client_password_auth_type`.
    pub fn user_by(mut self, user: &str, password: &str, method: &str) -> Self {
        write_secret(self.dir.path(), user, password);
        let file = secret_name(user);
        let _ = writeln!(
            self.auth,
            "[[proxy.auth]]\nsecret_file = {file:?}\nclient_password_auth_type = {method:?}"
        );
        self
    }

    /// Adds an entry of `[[proxy.auth]]`, given as lines of TOML.
    pub fn entry(mut self, lines: &str) -> Self {
        let _ = writeln!(self.auth, "[[proxy.auth]]\n{lines}");
        self
    }

    /// Sets a key of `[proxy]`, given as a line of TOML; a later line for the same key wins.
    pub fn proxy(mut self, line: &str) -> Self {
        set(&mut self.proxy, line);
        self
    }

    /// Sets a key of `[target]`.
    pub fn target(mut self, line: &str) -> Self {
        set(&mut self.target, line);
        self
    }

    /// Leaves a key of `[target]` to its default.
    pub fn without_target(mut self, key: &str) -> Self {
        set(&mut self.target, key);
        self.target =
            self.target.lines().filter(|line| *line != key).collect::<Vec<_>>().join("\n");
        self
    }

    /// Offers TLS to clients.
    pub fn tls(self, signed: &Signed) -> Self {
        signed.write_into(self.dir.path());
        self.proxy("tls_certificate = \"server.pem\"").proxy("tls_private_key = \"server.key\"")
    }

    /// Sets a variable of the process' environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it with these limits of file descriptors, `SOFT:HARD`.
    pub fn descriptors(mut self, limits: &'static str) -> Self {
        self.descriptors = Some(limits);
        self
    }

    /// Port for clients.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Directory of the configuration, the secrets and the certificates.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration file's text.
    pub fn text(&self) -> String {
        let Self { port, admin_port, proxy, auth, target, .. } = self;
        format!(
            "[proxy]\nlisten = \"127.0.0.1:{port}\"\n{proxy}\n{auth}\n[target]\n{target}\n\
             [admin]\nlisten = \"127.0.0.1:{admin_port}\"\n[log]\nlevel = \"debug\"\n"
        )
    }

    /// Writes the configuration and returns `pgweir` with these leading arguments and `--config`.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let file = self.dir.path().join("pgweir.toml");
        std::fs::write(&file, self.text()).unwrap();
        // Another build, such as the optimised one, on request.
        let binary = std::env::var_os("TEST_BINARY");
        let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_pgweir").into());
        let mut command = match self.descriptors {
            None => Command::new(binary),
            Some(limits) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--nofile={limits}")).arg(binary);
                limited
            }
        };
        command
            .args(arguments)
            .arg("--config")
            .arg(file)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Starts pgweir and waits until it says that it is ready.
    ///
    /// # Panics
    /// With its log, when it ends or is not ready in time.
    pub fn start(self) -> Pgweir {
        let mut pgweir = self.launch();
        let begun = Instant::now();
        while pgweir.http_status("/readyz") != Some(200) {
            if let Some(status) = pgweir.child.try_wait().unwrap() {
                panic!("pgweir ended with {status}:\n{}", pgweir.log());
            }
            assert!(begun.elapsed() < PATIENCE, "pgweir is not ready:\n{}", pgweir.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        pgweir
    }

    /// Starts pgweir and waits for nothing: for targets that are not there.
    pub fn launch(self) -> Pgweir {
        let mut child = self
            .command(&[])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start pgweir");
        let log: Arc<Mutex<String>> = Arc::default();
        let readers = vec![
            collect(child.stdout.take().unwrap(), log.clone()),
            collect(child.stderr.take().unwrap(), log.clone()),
        ];
        Pgweir { child, setup: self, log, readers }
    }
}

/// A running pgweir, which ends with the test.
pub struct Pgweir {
    child: Child,
    setup: Setup,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Pgweir {
    /// Port for clients on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.setup.port
    }

    /// Port of `/metrics`, `/healthz` and `/readyz`.
    pub fn admin_port(&self) -> u16 {
        self.setup.admin_port
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Directory of the configuration, the secrets and the certificates.
    pub fn dir(&self) -> &Path {
        self.setup.dir()
    }

    /// What it wrote to standard output and standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Replaces a user's secret.
    pub fn change_secret(&self, user: &str, password: &str) {
        write_secret(self.dir(), user, password);
    }

    /// Has a user's secret say another one, with the same password.
    pub fn rename_user(&self, user: &str, to: &str) {
        write_secret_of(self.dir(), user, to, PASSWORD);
    }

    /// A logged-in client of [`USER`].
    pub fn client(&self) -> RawClient {
        self.client_as(USER, DATABASE)
    }

    pub fn client_as(&self, user: &str, database: &str) -> RawClient {
        let mut client = RawClient::connect(self.port());
        client.log_in(user, PASSWORD, database);
        client
    }

    /// A logged-in client of [`USER`] with these startup parameters.
    pub fn client_with(&self, parameters: &[(&str, &str)]) -> RawClient {
        let mut client = RawClient::connect(self.port());
        let all = [&[("database", DATABASE)], parameters].concat();
        if let Err(refusal) = client.try_log_in(USER, PASSWORD, &all) {
            panic!("{} {}", refusal.line(), refusal.field('M'));
        }
        client
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sum of a metric over those of its label sets that contain `labels`; 0 when there is none.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let answer = self.http_get("/metrics").expect("/metrics answers");
        let values = answer.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            let exact = rest.is_empty() || rest.starts_with('{');
            (exact && rest.contains(labels)).then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }

    /// The status code of an answer; `None` when nobody listens.
    pub fn http_status(&self, path: &str) -> Option<u16> {
        self.http_get(path)?.split(' ').nth(1)?.parse().ok()
    }

    /// The whole answer, its status line first; `None` when nobody listens.
    pub fn http_get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port())).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Sends a signal (`TERM`, `HUP`, ...).
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the process to end by itself, and for its last words.
    pub fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "pgweir does not end:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }
}

impl Drop for Pgweir {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = log.char_indices().nth_back(8000).map_or(0, |(at, _)| at);
            eprintln!("--- pgweir's log ---\n{}\n--- end ---", &log[from..]);
        }
    }
}

/// Checks a configuration by `pgweir check` and returns what it prints.
pub fn check(setup: &Setup) -> String {
    run(&mut setup.command(&["check"]))
}

fn secret_name(user: &str) -> String {
    format!("{user}.json")
}

fn write_secret(dir: &Path, user: &str, password: &str) {
    write_secret_of(dir, user, user, password);
}

/// Into the file that is named after `name`.
fn write_secret_of(dir: &Path, name: &str, user: &str, password: &str) {
    let secret = serde_json::json!({ "username": user, "password": password });
    // Written beside and renamed, so that a reader never sees half of it.
    let draft = dir.join(format!("{name}.json.new"));
    std::fs::write(&draft, secret.to_string()).unwrap();
    std::fs::rename(draft, dir.join(secret_name(name))).unwrap();
}

/// Adds a line of TOML in the place of any earlier one for the same key.
fn set(table: &mut String, line: &str) {
    let key = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let mut lines: Vec<&str> = table.lines().filter(|old| key(old) != key(line)).collect();
    lines.push(line);
    *table = lines.join("\n");
}

fn collect(stream: impl std::io::Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&String::from_utf8_lossy(&line));
            log.push('\n');
        }
    })
}
