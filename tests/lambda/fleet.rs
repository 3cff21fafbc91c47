//! A fleet of containers from its start to its end, and what is seen of it.

use crate::support::driver::{Endpoint, node, python};
use crate::support::postgres::{Postgres, USER};
use crate::support::{PROGRAM_PATIENCE, repository};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How a handler connects.
#[derive(Clone, Copy, Debug)]
pub enum Style {
    /// `new Client()` in each invocation.
    ClientPerInvocation,
    /// `new Pool({max: 1})` outside the handler: the connection stays while the container lives.
    PoolOfOne,
    /// psycopg, with its connection outside the handler; in one process that is not frozen.
    Python,
}

/// Containers in one process of Node.js: 1,000 processes do not fit a small machine.
const CONTAINERS_PER_PROCESS: u32 = 40;

/// Containers of a fleet: as many as `TEST_CONTAINERS` says.
pub fn containers() -> u32 {
    let requested = std::env::var("TEST_CONTAINERS").ok();
    requested.map_or(100, |number| number.parse().expect("it is a number"))
}

/// The command of a fleet in this style, which ends when its standard input does.
pub fn command(style: Style) -> Option<Command> {
    let lambda = repository().join("deploy/lambda");
    let mut command = match style {
        Style::Python => python(&lambda.join("invoke.py"))?,
        Style::ClientPerInvocation | Style::PoolOfOne => node(&lambda.join("invoke.js"))?,
    };
    let containers = containers();
    match style {
        Style::Python => &mut command,
        Style::ClientPerInvocation => command.args(["client", "--freeze"]),
        Style::PoolOfOne => command.args(["pool", "--freeze"]),
    };
    if !matches!(style, Style::Python) {
        let processes = containers.div_ceil(CONTAINERS_PER_PROCESS);
        command.args(["--processes", &processes.to_string()]);
    }
    command.args(["--hold", "--containers", &containers.to_string()]);
    Some(command)
}

/// A fleet that has done its work and holds its connections, frozen if it can be.
pub struct Fleet {
    child: Child,
    report: Value,
}

impl Fleet {
    /// Starts one, and waits until it has reported.
    pub fn of(mut command: Command) -> Self {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().unwrap();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = tell.send(line);
        });
        let said = told.recv_timeout(PROGRAM_PATIENCE).unwrap_or_default();
        let Ok(report) = serde_json::from_str(&said) else {
            let _ = child.kill();
            panic!("{command:?} reports no JSON: {said:?}");
        };
        Self { child, report }
    }

    /// A number of its report.
    pub fn number(&self, key: &str) -> u32 {
        u32::try_from(self.report[key].as_u64().unwrap()).unwrap()
    }

    /// What went wrong, and how often; empty if nothing did.
    pub fn errors(&self) -> String {
        let errors = self.report["errors"].as_object().unwrap();
        let lines: Vec<_> =
            errors.iter().map(|(error, count)| format!("{count} x {error}")).collect();
        lines.join("\n")
    }

    /// How long logins or queries took, of which the fleets of Node.js report.
    fn latency(&self, kind: &str) -> String {
        let of = |part: &str| self.report[kind][part].as_f64();
        match (of("p50_ms"), of("p99_ms")) {
            (Some(p50), Some(p99)) => format!(", {kind} p50 {p50:.0} ms p99 {p99:.0} ms"),
            _ => String::new(),
        }
    }

    /// Kills all of its containers at once, as they are.
    pub fn die(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// Counts a database's connections of [`USER`], past everything that is between.
pub struct Watcher {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<u32>,
}

impl Watcher {
    /// To be called before a fleet that may take every slot but the reserved ones.
    pub fn of(postgres: &Postgres) -> Self {
        let mut superuser = postgres.superuser();
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let count = format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}'");
            let mut most = 0;
            while !told.load(Ordering::Acquire) {
                most = most.max(superuser.value(&count).parse().unwrap());
                // Sampling at full speed would take the processor from those who are watched.
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        Self { ended, thread }
    }

    /// The most at once.
    pub fn most(self) -> u32 {
        self.ended.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }
}

/// Runs a fleet while its connections in the database are counted; says what was seen.
pub fn storm(
    name: &str,
    style: Style,
    endpoint: &Endpoint,
    postgres: &Postgres,
) -> Option<(Fleet, u32)> {
    let mut command = command(style)?;
    endpoint.describe_to_lambda(&mut command);
    let watcher = Watcher::of(postgres);
    let fleet = Fleet::of(command);
    let most = watcher.most();
    println!(
        "{name}: {} containers, {} with errors, {most} servers at most{}{}",
        containers(),
        fleet.number("failed"),
        fleet.latency("connect"),
        fleet.latency("query"),
    );
    Some((fleet, most))
}
