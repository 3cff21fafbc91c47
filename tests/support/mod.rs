//! What the tests against real processes share: a throw-away PostgreSQL, pgweir in front of it, a raw
//! protocol client, a scripted server, certificates, and the tools that `tests/run` installs.
//!
//! Nothing here uses code of pgweir: a mistake in its codec must not be hidden by the same mistake in
//! the tests.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::doc_markdown,
    reason = "each test binary uses its own part, a harness that cannot go on should panic, and message \
              names are words here"
)]

pub mod certificates;
pub mod driver;
pub mod messages;
pub mod pgbouncer;
pub mod pgweir;
pub mod postgres;
pub mod raw;
pub mod scram;
pub mod scripted;

use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time any single step of a test may take before it counts as hanging.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Longest time a program of a test may take, such as a driver's whole script.
pub const PROGRAM_PATIENCE: Duration = Duration::from_secs(180);

/// Below the range the kernel takes for outgoing connections, so that a port stays free between our
/// choosing it and the server's binding it.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;

/// A TCP port of 127.0.0.1 that nobody listens on.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries run beside each other; each begins somewhere else.
    let start = u16::try_from(std::process::id().wrapping_mul(37) % u32::from(PORTS)).unwrap();
    for _ in 0..PORTS {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start) % PORTS;
        let port = FIRST_PORT + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free TCP port between {FIRST_PORT} and {}", FIRST_PORT + PORTS);
}

/// Where `tests/run` puts what it installs: the virtual environment, the node modules and the newest
/// PostgreSQL. The rule is the same there.
pub fn tools_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("TEST_TOOLS") {
        return dir.into();
    }
    if running_as_root() {
        // PostgreSQL refuses to run as root, and its own user cannot read root's home directory.
        return PathBuf::from("/var/cache/pgweir");
    }
    repository().join(".pgweir")
}

/// The root of the working copy.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the effective user is root.
pub fn running_as_root() -> bool {
    std::fs::metadata("/proc/self")
        .is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// Says that a test cannot run here: an error in CI, a loud line on the terminal elsewhere.
///
/// Written past the test harness' capture, which shows nothing of tests that pass.
pub fn absent(what: &str) {
    let message = format!("\n*** NOT TESTED: {what} is absent. `tests/run` installs it. ***\n");
    assert!(std::env::var_os("CI").is_none(), "{message}");
    let _ = std::io::stderr().lock().write_all(message.as_bytes());
    // `tests/run` repeats these at the end.
    if let Some(list) = std::env::var_os("TEST_NOT_TESTED") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(list);
        writeln!(file.unwrap(), "{what}").unwrap();
    }
}

/// Whether `program` can be started from `PATH`.
pub fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Runs a program to its end and returns what it wrote to standard output.
///
/// # Panics
/// With everything it wrote, when it fails or takes longer than [`PROGRAM_PATIENCE`].
pub fn run(command: &mut Command) -> String {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = read_aside(child.stdout.take().unwrap());
    let stderr = read_aside(child.stderr.take().unwrap());
    let begun = Instant::now();
    let mut status = child.try_wait().unwrap();
    while status.is_none() && begun.elapsed() < PROGRAM_PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
        status = child.try_wait().unwrap();
    }
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let ending = status.map_or("hangs".to_owned(), |status| status.to_string());
    let succeeded = status.is_some_and(|status| status.success());
    assert!(succeeded, "{command:?}: {ending}\n{stdout}\n{stderr}");
    stdout
}

fn read_aside(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Polls `condition` until it holds.
///
/// For what happens in another process, which offers nothing to wait on.
///
/// # Panics
/// After [`PATIENCE`], naming `what`.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal by the name that `kill` knows (`TERM`, `HUP`, `KILL`, `STOP`, `CONT`).
pub fn signal(pid: u32, name: &str) {
    // `kill` is part of every shell and not of every container.
    run(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]));
}
