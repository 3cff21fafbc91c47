//! How events become lines on standard error: text or JSON, at a level that can change while the
//! process runs.
//!
//! The level applies to pgweir's own events. Other crates are heard from `warn` on, whatever the
//! level, because at finer ones they show what they send and receive, secrets among it.

mod line;
mod queue;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `time LEVEL target message key=value ...`, for people.
    Text,
    /// One flat JSON object per line, for machines.
    Json,
}

/// The least severe events that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something is broken that an operator must look at.
    Error,
    /// Something went wrong that the proxy dealt with.
    Warn,
    /// What happens to the proxy as a whole.
    Info,
    /// What happens to single clients and servers.
    Debug,
    /// Steps of single messages.
    Trace,
}

/// How to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// The least severe events that are logged.
    pub level: LogLevel,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The process has a subscriber already.
    #[error("logging is set up already")]
    AlreadySet(#[from] SetGlobalDefaultError),
    /// The thread that writes the lines could not be started.
    #[error("cannot start the thread that writes the log")]
    Thread(#[from] io::Error),
    /// The subscriber is gone.
    #[error("the log level cannot be changed any more")]
    Gone(#[from] reload::Error),
}

/// Changes the level and waits for lines to be written. `main` keeps it to its end.
#[must_use = "dropping it waits for the lines to be written"]
#[derive(Debug)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
    queue: Arc<queue::Queue>,
}

/// Longest time that the end of the process waits for a reader of its log.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// Sends the events of the whole process to standard error.
///
/// Lines are written by a thread of their own: where the reader of the log stalls, clients do not,
/// and lines beyond a bound are dropped and counted.
///
/// # Errors
/// A second call in one process, or no thread can be started.
pub fn init(log: Log) -> Result<LogControl, LogError> {
    let (subscriber, control) = subscriber(log, io::stderr())?;
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(control)
}

impl LogControl {
    /// Changes the level from the next event on.
    ///
    /// # Errors
    /// The subscriber is gone.
    pub fn set_level(&self, level: LogLevel) -> Result<(), LogError> {
        Ok(self.filter.reload(targets(level))?)
    }

    /// For lines that are no events.
    #[must_use]
    pub fn writer(&self) -> LineWriter {
        LineWriter(Arc::clone(&self.queue))
    }

    /// Waits until all lines so far are written, `longest` at most; `false` if they are not.
    ///
    /// Blocks the thread: for the end of the process only.
    #[must_use]
    pub fn flush(&self, longest: Duration) -> bool {
        self.queue.flush(longest)
    }
}

/// Writes whole lines to the log as they are, between those of events.
#[derive(Clone, Debug)]
pub struct LineWriter(Arc<queue::Queue>);

impl LineWriter {
    /// Writes one line, to which its end is added. Never waits: where too much waits to be written
    /// already, the line is dropped and counted.
    pub fn write(&self, line: &str) {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        self.0.push(&bytes);
    }
}

impl Drop for LogControl {
    fn drop(&mut self) {
        let _written = self.flush(LAST_FLUSH);
    }
}

fn subscriber(
    log: Log,
    out: impl io::Write + Send + 'static,
) -> Result<(impl tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync, LogControl), LogError>
{
    let lines = queue::Lines::start(out, log.format)?;
    let queue = lines.queue();
    let (filter, handle) = reload::Layer::new(targets(log.level));
    let layer = line::LineLayer::new(log.format, lines);
    Ok((Registry::default().with(filter).with(layer), LogControl { filter: handle, queue }))
}

/// Which events pass. The names of this crate's events begin with the crate's name.
fn targets(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let others = own.min(LevelFilter::WARN);
    Targets::new().with_target(env!("CARGO_PKG_NAME"), own).with_default(others)
}
