//! `PgBouncer` as a process of its own, for comparison.

use super::certificates::Authority;
use super::postgres::{DATABASE, PASSWORD, Postgres, USER, as_server};
use super::{absent, free_port, on_path, run, running_as_root};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// It is not in the `PATH` of ordinary users.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A running one, which ends with the test.
pub struct PgBouncer {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl PgBouncer {
    /// In front of `postgres` for [`USER`], in transaction mode with this many servers and with TLS; all else as it
    /// comes. `None`, said loudly, when it is not installed.
    pub fn before(postgres: &Postgres, servers: u32, authority: &Authority) -> Option<Self> {
        if !Path::new(PROGRAM).is_file() && !on_path("pgbouncer") {
            absent("PgBouncer");
            return None;
        }
        let program = if on_path("pgbouncer") { "pgbouncer" } else { PROGRAM };
        let (port, dir) = (free_port(), TempDir::with_prefix("pgweir-pgbouncer-").unwrap());
        authority.sign_loopback().write_into(dir.path());
        let path = dir.path().display();
        let target = postgres.port();
        let users = format!("\"{USER}\" \"{PASSWORD}\"\n");
        std::fs::write(dir.path().join("users.txt"), users).unwrap();
        let configuration = format!(
            "[databases]\n{DATABASE} = host=127.0.0.1 port={target}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             pool_mode = transaction\ndefault_pool_size = {servers}\nmax_client_conn = 10000\n\
             auth_type = scram-sha-256\nauth_file = {path}/users.txt\n\
             client_tls_sslmode = require\nclient_tls_cert_file = {path}/server.pem\n\
             client_tls_key_file = {path}/server.key\n"
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, configuration).unwrap();
        if running_as_root() {
            run(std::process::Command::new("chown").args(["-R", "postgres"]).arg(dir.path()));
        }
        let child = as_server(Path::new(program))
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start PgBouncer");
        super::eventually("PgBouncer listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Self { child, port, _dir: dir })
    }

    /// Port for clients on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
