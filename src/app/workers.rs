//! The threads that serve clients.
//!
//! `per-core`: one single-threaded runtime per core, so that a client, its server and their wake-ups
//! stay on one thread; `listener` chooses the thread. `work-stealing`: one runtime over all cores.
//! Which is cheaper was measured; `benches/README.md` has the figures.

use super::StartError;
use crate::config::{Config, Runtime};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Longest time until the next timer of a thread: shorter than what clients wait for.
const NEXT_TIMER: Duration = Duration::from_secs(1);

/// Running runtimes.
pub(super) struct Workers {
    /// One per reactor.
    pub(super) handles: Vec<Handle>,
    threads: Vec<(oneshot::Sender<()>, JoinHandle<()>)>,
}

fn cores(config: &Config) -> usize {
    match config.proxy.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => usize::from(workers),
    }
}

impl Workers {
    /// Starts the threads.
    pub(super) fn start(config: &Config) -> Result<Self, StartError> {
        let cores = cores(config);
        let mut workers = Self { handles: Vec::new(), threads: Vec::new() };
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
        self.handles.push(runtime.handle().clone());
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                prefer_batches();
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
