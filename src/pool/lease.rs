//! A server that belongs to one client until it is given back.

use super::Pool;
use crate::server::{CloseReason, Server};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The only way to reach a server: giving it back consumes it.
#[must_use = "dropping a lease closes its server"]
pub struct Lease {
    /// The server.
    pub server: Box<Server>,
    slot: Slot,
}

impl Lease {
    pub(super) fn new(server: Box<Server>, pool: &Arc<Pool>) -> Self {
        Self { server, slot: Slot { pool: Some(Arc::clone(pool)) } }
    }

    /// Returns the server to the pool if it is clean, has it cleaned if that can be done, and
    /// closes it otherwise.
    pub fn give_back(self, now: Instant) {
        let Self { server, mut slot } = self;
        if let Some(pool) = slot.pool.take() {
            pool.give_back(server, now);
        }
    }

    /// Closes the server; what it still runs is cancelled.
    pub fn close(self, reason: CloseReason) {
        let Self { server, mut slot } = self;
        if let Some(pool) = slot.pool.take() {
            pool.close(server, reason);
        }
    }

    /// Has the server cleaned of what its client left, in the background.
    pub fn clean(self, cleaning: crate::server::reset::Cleaning) {
        let Self { server, mut slot } = self;
        if let Some(pool) = slot.pool.take() {
            pool.clean(server, cleaning);
        }
    }

    /// The pool it came from.
    #[must_use]
    pub fn pool(&self) -> Option<&Arc<Pool>> {
        self.slot.pool.as_ref()
    }
}

/// The place of a server in the budget.
struct Slot {
    pool: Option<Arc<Pool>>,
}

impl Drop for Slot {
    /// Only a task that is torn down gets here; its server's socket is closed beside this.
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.abandon();
        }
    }
}

/// A client of the pool that is pinned, counted until this is dropped.
#[must_use = "dropping it takes the count down again"]
pub struct CountedPin(Arc<Pool>);

impl CountedPin {
    /// One more.
    pub fn of(pool: &Arc<Pool>) -> Self {
        pool.pinned.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pool))
    }
}

impl Drop for CountedPin {
    fn drop(&mut self) {
        self.0.pinned.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server of the pool that no client has and none can get, as it is being cleaned or closed; counted
/// until this is dropped.
#[must_use = "dropping it takes the count down again"]
pub(super) struct CountedUnlent(Arc<Pool>);

impl CountedUnlent {
    /// One more.
    pub(super) fn of(pool: &Arc<Pool>) -> Self {
        pool.unlent.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pool))
    }
}

impl Drop for CountedUnlent {
    fn drop(&mut self) {
        self.0.unlent.fetch_sub(1, Ordering::Relaxed);
    }
}
