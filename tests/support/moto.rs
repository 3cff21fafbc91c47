//! AWS in a process of its own: moto's server, on a port of loopback.

use crate::support::tools_dir;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Ends with our process, also when that is killed: then its standard input closes.
const SERVER: &str = "
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(['-H', '127.0.0.1', '-p', sys.argv[1]])
";
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server. Its AWS accounts are empty at first, and gone when it is dropped.
pub struct Moto {
    process: Child,
    port: u16,
}

impl Moto {
    /// Starts one on a free port.
    pub fn start() -> Self {
        Self::start_on(0)
    }

    /// Starts one on `port`, for instance that of a server that was stopped.
    pub fn start_on(port: u16) -> Self {
        let mut process = Command::new(interpreter())
            .args(["-c", SERVER, &port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 is needed for moto: apt-get install python3 python3-pip");
        let output = process.stderr.take().expect("it is piped");
        let port = match port_of(BufReader::new(output)) {
            Ok(port) => port,
            Err(output) => panic!(
                "moto's server did not start. It is needed to test Secrets Manager; install it by\n\
                 \n    python3 -m pip install 'moto[server]>=5'\n\nIt said:\n{output}"
            ),
        };
        Self { process, port }
    }

    /// For `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it, and yields its port.
    pub fn stop(self) -> u16 {
        self.port
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// That of the virtual environment of `tests/run`, whose moto has a version that is known.
fn interpreter() -> PathBuf {
    let installed = tools_dir().join("venv/bin/python");
    if installed.is_file() { installed } else { "python3".into() }
}

/// The port that the server says it listens on, or all that it said if it does not.
fn port_of(output: impl BufRead + Send + 'static) -> Result<u16, String> {
    let (tell, told) = mpsc::channel();
    // Reads to the end: a server whose log nobody reads stops at some point.
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    let mut said = String::new();
    while let Ok(line) = told.recv_timeout(START_TIMEOUT) {
        let port = line.split_once("Running on http://127.0.0.1:").map(|(_, port)| port);
        if let Some(port) = port.and_then(|port| port.trim().parse().ok()) {
            return Ok(port);
        }
        said.push_str(&line);
        said.push('\n');
    }
    Err(said)
}
