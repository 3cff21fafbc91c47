//! Which thread serves which client: as few threads as the load needs.
//!
//! A thread that has much to do finds several clients' messages each time it looks, and looks
//! less often; two half-idle threads wake up for every message. So clients are gathered on the
//! first thread until it is busy, then on the next. Clients move, while they are idle, when one
//! thread has too much to do and another has room, and back when little is left to do.

use crate::client::registry::Registry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How often loads are measured and clients moved.
pub const INTERVAL: Duration = Duration::from_millis(100);

/// A thread busier than this gets no further clients while another has room, in thousandths.
const BUSY: u32 = 650;

/// A thread busier than this gives clients away.
const TOO_BUSY: u32 = 850;

/// When all threads together are busy for less than this, the first one serves all.
const LITTLE: u32 = 700;

/// Clients that may be logging in on a thread before the next one is preferred: a login with TLS
/// costs as much as a hundred statements.
const LOGINS_MAX: u32 = 4;

/// How busy each thread is.
pub struct Balance {
    busy: Vec<AtomicU32>,
    logins: Vec<AtomicU32>,
}

impl Balance {
    /// All idle.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            busy: (0..workers).map(|_| AtomicU32::new(0)).collect(),
            logins: (0..workers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// The thread for a new client.
    #[must_use]
    pub fn choose(&self) -> usize {
        let loads = || {
            self.busy.iter().zip(&self.logins).map(|(busy, logins)| {
                (busy.load(Ordering::Relaxed), logins.load(Ordering::Relaxed))
            })
        };
        let free = loads().position(|(busy, logins)| busy < BUSY && logins < LOGINS_MAX);
        free.or_else(|| {
            let least = loads().enumerate().min_by_key(|&(_, (busy, logins))| (logins, busy));
            least.map(|(worker, _)| worker)
        })
        .unwrap_or_default()
    }

    /// A client begins to log in on `worker`.
    pub fn login_begins(&self, worker: usize) {
        if let Some(logins) = self.logins.get(worker) {
            logins.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A login on `worker` is over.
    pub fn login_ends(&self, worker: usize) {
        if let Some(logins) = self.logins.get(worker) {
            logins.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes note of how busy the threads were, in thousandths of the time, and has clients moved.
    pub fn rebalance(&self, measured: &[u32], registry: &Registry) {
        for (busy, measured) in self.busy.iter().zip(measured) {
            // Half of what was: one quiet moment is no reason to move everybody.
            let smoothed = busy.load(Ordering::Relaxed).midpoint(*measured);
            busy.store(smoothed, Ordering::Relaxed);
        }
        if let Some(plan) =
            plan(&self.busy.iter().map(|busy| busy.load(Ordering::Relaxed)).collect::<Vec<_>>())
        {
            registry.move_some(plan.from, plan.to, plan.share);
        }
    }
}

/// Clients that should move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    from: usize,
    to: usize,
    /// One in so many of the clients there.
    share: usize,
}

fn plan(busy: &[u32]) -> Option<Plan> {
    let (to, least) = busy.iter().copied().enumerate().min_by_key(|&(_, busy)| busy)?;
    let (from, most) = busy.iter().copied().enumerate().max_by_key(|&(_, busy)| busy)?;
    if most > TOO_BUSY && least < BUSY {
        return Some(Plan { from, to, share: 8 });
    }
    let all: u32 = busy.iter().sum();
    let last = busy.iter().rposition(|&busy| busy > 0)?;
    (all < LITTLE && last > 0).then_some(Plan { from: last, to: 0, share: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_clients_go_to_the_first_thread_with_room() {
        let balance = Balance::new(3);
        assert_eq!(balance.choose(), 0);
        balance.busy[0].store(BUSY, Ordering::Relaxed);
        assert_eq!(balance.choose(), 1);
        for _ in 0..LOGINS_MAX {
            balance.login_begins(1);
        }
        assert_eq!(balance.choose(), 2);
        balance.login_ends(1);
        assert_eq!(balance.choose(), 1);
    }

    #[test]
    fn without_room_the_least_busy_is_taken() {
        let balance = Balance::new(2);
        balance.busy[0].store(900, Ordering::Relaxed);
        balance.busy[1].store(700, Ordering::Relaxed);
        assert_eq!(balance.choose(), 1);
    }

    #[test]
    fn clients_spread_under_load_and_gather_again() {
        assert_eq!(plan(&[900, 100]), Some(Plan { from: 0, to: 1, share: 8 }));
        assert_eq!(plan(&[900, 900]), None);
        assert_eq!(plan(&[600, 300]), None);
        assert_eq!(plan(&[400, 250]), Some(Plan { from: 1, to: 0, share: 1 }));
        assert_eq!(plan(&[300, 0]), None);
        assert_eq!(plan(&[]), None);
    }
}
