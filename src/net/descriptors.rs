//! File descriptors: how many this process may have, and how many of them are for clients.
//!
//! Each client and each server takes one. A process that has none left can neither open a server nor
//! answer a health check, so clients are not let in that would take the last ones.
//!
//! Source: <https://man7.org/linux/man-pages/man2/getrlimit.2.html>, `RLIMIT_NOFILE`

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::sync::atomic::{AtomicU64, Ordering};

/// As far as the limit is raised: Linux' own bound, unless it was changed (`fs.nr_open`).
const RAISED_TO: u64 = 1 << 20;

/// Descriptors of the process itself: standard streams, listeners, signals, and the main runtime.
const OWN: u64 = 16;

/// Descriptors of a thread that serves clients: its reactor, and the file that tells its time.
const PER_THREAD: u64 = 5;

/// Descriptors that come and go: health checks and scrapes, a question to the target and one about the
/// fleet, look-ups of names, secrets and certificates that are read again.
const PASSING: u64 = 12;

/// Clients that are told at the same time that there are too many: the most, and the fewest.
const REFUSALS_MAX: u64 = 64;
const REFUSALS_MIN: u64 = 4;

/// Descriptors of a server: one more for a cancel that it is sent.
const OF_A_SERVER: u64 = 2;

/// Of so many descriptors, one is for such a client.
const PER_REFUSAL: u64 = 32;

/// Descriptors that a client takes which is turned away: one more if it asks for a cancel.
const OF_A_REFUSAL: u64 = 2;

/// What the process may open.
#[derive(Debug)]
pub struct Descriptors {
    limit: AtomicU64,
    threads: u64,
}

impl Descriptors {
    /// As they are limited now, in a process of `threads` reactors that serve clients.
    #[must_use]
    pub fn of(threads: usize) -> Self {
        Self::limited(limit(), threads)
    }

    /// As they would be with this limit.
    #[must_use]
    pub fn limited(limit: u64, threads: usize) -> Self {
        Self { limit: AtomicU64::new(limit), threads: threads as u64 }
    }

    /// Looks at the limit again: it can be changed from outside.
    pub fn look_again(&self) {
        self.limit.store(limit(), Ordering::Relaxed);
    }

    /// Most that may be open.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Clients that are told at the same time that there are too many.
    #[must_use]
    pub fn refusals(&self) -> usize {
        let some = (self.limit() / PER_REFUSAL).clamp(REFUSALS_MIN, REFUSALS_MAX);
        usize::try_from(some).unwrap_or(usize::MAX)
    }

    /// How many are left for clients beside a budget of so many servers. Where too few are left for both,
    /// clients get half of them.
    #[must_use]
    pub fn clients(&self, budget: u32) -> u32 {
        let reserved =
            OWN + PER_THREAD * self.threads + PASSING + OF_A_REFUSAL * self.refusals() as u64;
        let left = self.limit().saturating_sub(reserved);
        let servers = OF_A_SERVER * u64::from(budget);
        let clients = left.saturating_sub(servers).max(left / 2).max(1);
        u32::try_from(clients).unwrap_or(u32::MAX)
    }
}

/// Raises the limit as far as this process may.
pub fn raise_limit() {
    let limits = getrlimit(Resource::Nofile);
    let highest = limits.maximum.unwrap_or(RAISED_TO).min(RAISED_TO);
    if limits.current.is_some_and(|current| current < highest) {
        // Where it is not allowed, the limit stays as it is, which is looked at next.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(highest), ..limits });
    }
}

fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// What [`raise_limit`] comes to, without doing it.
#[must_use]
pub fn limit_when_raised() -> u64 {
    let highest = getrlimit(Resource::Nofile).maximum.unwrap_or(RAISED_TO).min(RAISED_TO);
    highest.max(limit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_room_for_servers_and_for_what_else_is_opened() {
        assert_eq!(Descriptors::limited(60, 2).clients(5), 7);
        assert_eq!(Descriptors::limited(1024, 2).clients(84), 754);
        assert_eq!(Descriptors::limited(65_536, 4).clients(84), 65_192);
        assert_eq!(Descriptors::limited(u64::MAX, 4).clients(84), u32::MAX);
    }

    #[test]
    fn some_clients_are_let_in_whatever_the_limit() {
        assert_eq!(Descriptors::limited(100, 2).clients(1000), 27);
        assert_eq!(Descriptors::limited(0, 1).clients(0), 1);
    }
}
