//! The bounded queue between those who log and the one thread that writes.
//!
//! Whoever logs never waits for the reader of the log: a container's log driver may stall for
//! seconds, and a proxy that stalls with it stalls every client.

use super::LogFormat;
use super::line::dropped_line;
use parking_lot::{Condvar, Mutex};
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Most bytes that wait to be written; beyond that, lines are dropped and counted.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// What waits to be written.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to write, or the end has come.
    filled: Condvar,
    /// All is written.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, each with its end.
    bytes: Vec<u8>,
    /// Lines that found no room since the last were written.
    dropped: u64,
    writing: bool,
    closed: bool,
}

impl Queue {
    /// Adds a line, or drops it if too much waits already.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        if state.bytes.len() + line.len() > BYTES_MAX {
            state.dropped += 1;
            return;
        }
        let was_empty = state.bytes.is_empty();
        state.bytes.extend_from_slice(line);
        drop(state);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Waits until nothing is left to write; `false` if `longest` passed before.
    pub(super) fn flush(&self, longest: Duration) -> bool {
        let mut state = self.state.lock();
        let busy = |state: &mut State| !state.bytes.is_empty() || state.writing;
        !self.emptied.wait_while_for(&mut state, busy, longest).timed_out()
    }

    fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_one();
    }

    /// Exchanges the empty `batch` for what waits, and says how many lines were dropped; `None` at
    /// the end.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.state.lock();
        state.writing = false;
        if state.bytes.is_empty() {
            self.emptied.notify_all();
        }
        self.filled.wait_while(&mut state, |state| state.bytes.is_empty() && !state.closed);
        if state.bytes.is_empty() {
            return None;
        }
        std::mem::swap(&mut state.bytes, batch);
        state.writing = true;
        Some(std::mem::take(&mut state.dropped))
    }
}

/// The side of those who log; dropping it ends the thread once all is written.
#[derive(Debug)]
pub(super) struct Lines(Arc<Queue>);

impl Lines {
    /// Starts the thread that writes to `out`.
    pub(super) fn start(
        mut out: impl Write + Send + 'static,
        format: LogFormat,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let of_thread = Arc::clone(&queue);
        thread::Builder::new().name("log".into()).spawn(move || {
            let mut batch = Vec::new();
            while let Some(dropped) = of_thread.take(&mut batch) {
                if dropped > 0 {
                    batch.extend_from_slice(dropped_line(format, dropped).as_bytes());
                }
                // Nobody can be told that the log cannot be written.
                let _ = out.write_all(&batch).and_then(|()| out.flush());
                batch.clear();
                batch.shrink_to(BATCH_KEPT);
            }
        })?;
        Ok(Self(queue))
    }

    pub(super) fn push(&self, line: &str) {
        self.0.push(line.as_bytes());
    }

    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.0)
    }
}

/// Most bytes that a buffer keeps after a burst.
const BATCH_KEPT: usize = 16 * 1024;

impl Drop for Lines {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Long enough for any machine; reached only by a test that fails.
    const LONG: Duration = Duration::from_secs(60);

    /// A reader of the log that takes each write only when it is told to.
    struct Stalled {
        entered: Sender<()>,
        go_on: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let _ = self.go_on.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_stops_nobody_and_what_was_dropped_is_told() {
        let (entered, has_entered) = channel();
        let (go, go_on) = channel();
        let (written, was_written) = channel();
        let lines = Lines::start(Stalled { entered, go_on, written }, LogFormat::Text).unwrap();
        lines.push("first\n");
        has_entered.recv_timeout(LONG).unwrap();

        let line = format!("{}\n", "x".repeat(1023));
        for _ in 0..BYTES_MAX / line.len() + 7 {
            lines.push(&line);
        }
        assert!(!lines.queue().flush(Duration::ZERO), "nothing is written yet");

        drop(go); // from here on every write goes through
        assert_eq!(was_written.recv_timeout(LONG).unwrap(), b"first\n");
        let batch = String::from_utf8(was_written.recv_timeout(LONG).unwrap()).unwrap();
        let told = batch.lines().last().unwrap();
        assert!(told.ends_with(" dropped=7"), "{told}");
        assert_eq!(batch.lines().count(), BYTES_MAX / line.len() + 1);
        assert!(lines.queue().flush(LONG));
    }

    #[test]
    fn what_was_logged_before_the_end_is_still_written() {
        let (entered, _has_entered) = channel();
        let (go, go_on) = channel();
        let (written, was_written) = channel();
        let lines = Lines::start(Stalled { entered, go_on, written }, LogFormat::Text).unwrap();
        lines.push("last words\n");
        drop(lines);
        drop(go);
        assert_eq!(was_written.recv_timeout(LONG).unwrap(), b"last words\n");
        assert!(was_written.recv_timeout(LONG).is_err(), "the thread has ended");
    }
}
