//! The threads that serve clients.
//!
//! `per-core`: one single-threaded runtime per core, so that a client, its server and their wake-ups
//! stay on one thread; `listener` chooses the thread. `work-stealing`: one runtime over all cores.
//! Which is cheaper was measured; `benches/README.md` has the figures.

use super::StartError;
use crate::config::{Config, Runtime};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Longest time until the next timer of a thread: shorter than what clients wait for.
const NEXT_TIMER: Duration = Duration::from_secs(1);

/// Nanoseconds that the thread which opens it has spent on a processor, and two other numbers.
///
/// Source: <https://docs.kernel.org/scheduler/sched-stats.html#proc-pid-schedstat>
const OWN_TIME: &str = "/proc/thread-self/schedstat";

/// Running runtimes.
pub(super) struct Workers {
    /// One per reactor.
    pub(super) handles: Vec<Handle>,
    /// How much each of these has worked.
    pub(super) meters: Vec<Meter>,
    threads: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

fn cores(config: &Config) -> usize {
    match config.proxy.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => usize::from(workers),
    }
}

/// How many reactors there will be.
pub(super) fn reactors(config: &Config) -> usize {
    match config.proxy.runtime {
        Runtime::PerCore => cores(config),
        Runtime::WorkStealing => 1,
    }
}

impl Workers {
    /// Starts the threads.
    pub(super) fn start(config: &Config) -> Result<Self, StartError> {
        let cores = cores(config);
        let mut workers = Self { handles: Vec::new(), meters: Vec::new(), threads: Vec::new() };
        match config.proxy.runtime {
            Runtime::PerCore => {
                for index in 0..cores {
                    workers.spawn(index, Builder::new_current_thread())?;
                }
            }
            Runtime::WorkStealing => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(cores).thread_name("worker");
                workers.spawn(0, builder)?;
            }
        }
        Ok(workers)
    }

    fn spawn(&mut self, index: usize, mut builder: Builder) -> Result<(), StartError> {
        let runtime =
            builder.enable_all().build().map_err(StartError::io("cannot start a runtime"))?;
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let handle = runtime.handle().clone();
        self.handles.push(handle.clone());
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                prefer_batches();
                let _ = tell.send(File::open(OWN_TIME).ok());
                runtime.block_on(async {
                    tokio::select! {
                        // Told, or whoever would tell is gone.
                        _ = stopped => {}
                        () = keep_a_timer() => {}
                    }
                });
                runtime.shutdown_background();
            })
            .map_err(StartError::io("cannot start a thread"))?;
        self.threads.push((stop, thread));
        self.meters.push(Meter { handle, time: told.recv().ok().flatten().map(Arc::new) });
        Ok(())
    }

    /// Ends the threads; what still runs on them is dropped.
    pub(super) fn stop(self) {
        for (stop, thread) in self.threads {
            let _ = stop.send(());
            let _ = thread.join();
        }
    }
}

/// Tells how much a thread has worked.
#[derive(Clone)]
pub(super) struct Meter {
    handle: Handle,
    /// [`OWN_TIME`] of the thread, if there is such a thing.
    time: Option<Arc<File>>,
}

impl Meter {
    /// The time for which it has worked in all. Time for which it had to wait for a processor counts only where it
    /// cannot be told: another thread would wait as well.
    pub(super) fn total(&self) -> Duration {
        let on_processor = self.time.as_ref().and_then(|time| {
            let mut text = [0; 64];
            let len = time.read_at(&mut text, 0).ok()?;
            let first = text.get(..len)?.split(u8::is_ascii_whitespace).next()?;
            Some(Duration::from_nanos(std::str::from_utf8(first).ok()?.parse().ok()?))
        });
        on_processor.unwrap_or_else(|| self.handle.metrics().worker_total_busy_duration(0))
    }
}

/// Keeps a timer running on the thread.
///
/// To a timer that ends before all others, a runtime wakes itself up: a write to its own event, and the wait that it
/// ends. On an idle thread each login and each wait for a server would be such a timer.
async fn keep_a_timer() {
    loop {
        tokio::time::sleep(NEXT_TIMER).await;
    }
}

/// Asks the scheduler not to let this thread cut in on others the moment it has something to do.
///
/// On a busy machine, the thread then wakes up to several clients' messages instead of one, and
/// spends less on waking up; on one with idle cores it makes no difference.
///
/// Source: <https://man7.org/linux/man-pages/man7/sched.7.html>, `SCHED_BATCH`
#[cfg(target_os = "linux")]
fn prefer_batches() {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };
    // A niceness of 0 on this crate's scale of 0 to 99.
    let Ok(nice) = 52_u8.try_into() else { return };
    // Where it is not allowed, all works as before.
    let _ = set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Crossplatform(nice),
        ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch),
    );
}

#[cfg(not(target_os = "linux"))]
fn prefer_batches() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_works_is_told_from_one_that_waits() {
        let meter =
            Meter { handle: Handle::current(), time: File::open(OWN_TIME).ok().map(Arc::new) };
        assert!(meter.time.is_some(), "the kernel tells the time of threads");
        let before = meter.total();
        while meter.total() < before + Duration::from_millis(20) {
            std::hint::spin_loop();
        }
    }
}
