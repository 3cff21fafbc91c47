//! What is done now and then: dead, old and surplus idle servers are closed, and replaced in time.

use super::{BorrowError, Cause, Pool, Pools, core::PoolId};
use crate::server::{CloseReason, Server};
use crate::telemetry::clock;
use hashbrown::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often idle servers are looked at. One that died is noticed within this time, or when lent.
const INTERVAL: Duration = Duration::from_secs(1);

/// By how much a client may wait longer than it should.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(50);

impl Pools {
    /// Looks after idle servers until the task is dropped.
    ///
    /// # Cancel safety
    /// Can be dropped at any await.
    pub async fn maintain(self: Arc<Self>) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            self.sweep();
        }
    }

    fn sweep(self: &Arc<Self>) {
        let now = clock::now();
        let settings = self.settings();
        let stopping = self.stopping.load(Ordering::Relaxed);
        self.drop_unused();
        let mut reasons = Vec::new();
        let pools: HashMap<PoolId, Arc<Pool>> =
            self.by_name.read().values().map(|pool| (pool.id, Arc::clone(pool))).collect();
        for pool in pools.values() {
            pool.note_secret();
            pool.follow_overdue_defaults();
        }
        let taken = {
            let mut core = self.core.lock();
            let kept_max =
                core.limits().budget * u32::from(settings.max_idle_connections_percent) / 100;
            let mut long_idle = 0;
            core.take_idle(|_, idle| {
                let idle_for = now.saturating_duration_since(idle.since);
                long_idle += u32::from(idle_for >= settings.idle_connection_timeout);
                false
            });
            let mut surplus = long_idle.saturating_sub(kept_max);
            core.take_idle(|id, idle| {
                let server: &mut Server = &mut idle.server;
                let idle_for = now.saturating_duration_since(idle.since);
                let reason = if stopping {
                    Some(CloseReason::Shutdown)
                } else if let Err(reason) = server.check_idle() {
                    Some(reason)
                } else if server.expires_at.is_some_and(|at| at <= now) {
                    Some(CloseReason::Lifetime)
                } else if pools.get(&id).is_some_and(|pool| pool.outdates(server, now)) {
                    Some(CloseReason::SecretChanged)
                } else if pools.get(&id).is_some_and(|pool| pool.has_old_defaults(server)) {
                    Some(CloseReason::DefaultsChanged)
                } else if idle_for >= settings.idle_connection_timeout && surplus > 0 {
                    surplus -= 1;
                    Some(CloseReason::Idle)
                } else {
                    None
                };
                reasons.extend(reason);
                reason.is_some()
            })
        };
        for ((id, server), reason) in taken.into_iter().zip(reasons) {
            self.retire(id, server, reason);
        }
        self.examine_again();
        self.grow(0);
    }

    fn retire(self: &Arc<Self>, id: PoolId, server: Box<Server>, reason: CloseReason) {
        let Some(pool) = self.pool_by_id(id) else { return };
        let worker = server.worker;
        let secret_changed = reason == CloseReason::SecretChanged && pool.secret.is_known();
        let replace = (reason == CloseReason::Lifetime || secret_changed) && {
            let mut core = self.core.lock();
            let limits = core.limits();
            let room = core.open() < limits.budget && core.counts(id).opening == 0;
            if room {
                core.reserve(id);
            }
            room
        };
        if replace {
            pool.open(worker);
        }
        pool.close(server, reason);
    }

    /// Tells those who have waited for `connection_borrow_timeout`, until the task is dropped.
    ///
    /// # Cancel safety
    /// Can be dropped at any await.
    pub async fn expire_waiters(self: Arc<Self>) {
        let mut interval = tokio::time::interval(EXPIRY_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let now = clock::now();
            let mut patience = self.settings().connection_borrow_timeout;
            if patience.is_zero() {
                // Only logins wait then.
                patience = self.endpoint().timeout;
            }
            let Some(before) = now.checked_sub(patience) else {
                continue;
            };
            let expired = {
                let mut core = self.core.lock();
                if core.waiting() == 0 { Vec::new() } else { core.expire(before) }
            };
            for (id, turn, since) in expired {
                let cause = self.pool_by_id(id).map_or(Cause::Shutdown, |pool| pool.obstacle());
                let waited = now.saturating_duration_since(since);
                turn.refuse(BorrowError::Timeout { waited, cause });
            }
        }
    }

    /// Counts a connection that belongs to no pool and exists already: before there is a budget, or whoever waits
    /// takes its slot.
    pub fn add_apart(&self) {
        self.core.lock().add_apart();
    }

    /// From now on, servers are closed as they are given back, and idle ones at once.
    pub fn stop(self: &Arc<Self>) {
        self.stopping.store(true, Ordering::Relaxed);
        self.listeners.wake_all();
        self.sweep();
    }

    /// Servers in whatever state.
    #[must_use]
    pub fn open_servers(&self) -> u32 {
        let core = self.core.lock();
        core.open().saturating_sub(core.apart())
    }

    /// Servers beyond the budget that are not on their way out yet.
    #[must_use]
    pub fn surplus(&self) -> u32 {
        self.core.lock().surplus()
    }

    /// Connections in whatever state, those included that belong to no pool.
    #[must_use]
    pub fn open_connections(&self) -> u32 {
        self.core.lock().open()
    }

    /// Most servers at once: the budget without the connections that belong to no pool.
    #[must_use]
    pub fn servers_max(&self) -> u32 {
        let core = self.core.lock();
        core.limits().budget.saturating_sub(core.apart())
    }
}
