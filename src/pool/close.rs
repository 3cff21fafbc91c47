//! Closing servers: their slots are free when PostgreSQL has let go of them.

use super::lease::CountedUnlent;
use super::{Pool, account};
use crate::server::overdue::Overdue;
use crate::server::{CloseReason, Server};
use std::sync::Arc;
use std::time::Duration;

/// Longest time that a closed backend may keep its slot before it is taken for gone.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);

/// How long a socket that was just dropped is taken to hold its slot.
const ABANDON_PATIENCE: Duration = Duration::from_secs(1);

impl Pool {
    /// Closes a server in the background; its slot is free when PostgreSQL has let go of it.
    pub(crate) fn close(self: &Arc<Self>, server: Box<Server>, reason: CloseReason) {
        self.pools.core.lock().closing(self.id);
        self.see_off(server, reason);
    }

    /// [`Pool::close`] for a server that counts as closing already.
    pub(super) fn see_off(self: &Arc<Self>, server: Box<Server>, reason: CloseReason) {
        account::closed(&self.pools, &server, (&self.database, &self.user), reason);
        self.dismiss(server, reason);
    }

    /// [`Pool::see_off`] for a server that was not set up.
    pub(super) fn dismiss(self: &Arc<Self>, server: Box<Server>, reason: CloseReason) {
        let pool = Arc::clone(self);
        let worker = server.worker;
        let runs = !server.side.pipeline.is_settled() && reason != CloseReason::ClosedByServer;
        let fence = runs.then(|| server.cancel.fence());
        let unlent = CountedUnlent::of(self);
        let task = async move {
            let farewell = server.close(CLOSE_PATIENCE);
            match fence {
                // It would run on for nobody, and keep its slot.
                Some(fence) => {
                    tokio::join!(farewell, pool.pools.send_cancel(fence));
                }
                None => farewell.await,
            }
            pool.vacate(worker);
            drop(unlent);
        };
        match self.pools.runtime(worker) {
            Some(runtime) => drop(runtime.spawn(task)),
            None => self.vacate(worker),
        }
    }

    /// The same for a login that is overdue, which counts as closing too.
    pub(super) fn await_end(self: &Arc<Self>, overdue: Overdue, worker: usize) {
        let pool = Arc::clone(self);
        let unlent = CountedUnlent::of(self);
        tokio::spawn(async move {
            overdue.ended().await;
            pool.vacate(worker);
            drop(unlent);
        });
    }

    pub(super) fn vacate(self: &Arc<Self>, worker: usize) {
        self.pools.core.lock().closed(self.id);
        self.pools.grow(worker);
    }

    /// A server was dropped without a good-bye: its slot is free a little later.
    pub(super) fn abandon(self: &Arc<Self>) {
        account::lost(&self.pools, 0, CloseReason::NotClean);
        self.pools.core.lock().closing(self.id);
        let pool = Arc::clone(self);
        if let Some(runtime) = self.pools.runtimes.first() {
            let unlent = CountedUnlent::of(self);
            runtime.spawn(async move {
                tokio::time::sleep(ABANDON_PATIENCE).await;
                pool.vacate(0);
                drop(unlent);
            });
        }
    }
}
