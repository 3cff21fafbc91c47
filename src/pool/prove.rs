//! Proving a client's own IAM token: only the database can, by letting somebody in with it.
//!
//! The server that this opens counts in the budget like any other, and becomes one of its pool's when
//! the token is proven. Before that there need not be such a pool: who has proven nothing makes none.

use super::account::Attempt;
use super::open::{Failed, Opening};
use super::{BorrowError, Pool, Pools};
use crate::credentials::Token;
use crate::server::connect::{ConnectError, Proof, connect};
use crate::server::overdue::Overdue;
use crate::server::{CloseReason, Reported, Server};
use crate::telemetry::clock;
use crate::telemetry::metrics::GaugeKind;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How often it is looked whether the budget has room.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How long a closed server that no pool takes may keep its slot.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Why a token was not proven.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The database does not take it.
    #[error("the target refused the token")]
    Refused,
    /// It could not be asked.
    #[error("the target could not be asked")]
    Unasked(#[source] ConnectError),
    /// No connection of the budget became free in time.
    #[error("no connection became free")]
    Busy(#[source] BorrowError),
}

impl Pools {
    /// Logs in to the target with a client's token, on this thread, and keeps the server if that works. `held` is kept
    /// until that is over.
    ///
    /// Waits for room in the budget until `deadline`. An idle server makes room; where there is none, the next one that
    /// is given back does, for one token at a time.
    ///
    /// # Errors
    /// [`ProofError`].
    ///
    /// # Cancel safety
    /// A dropped call no longer waits for room. A login that has begun goes on, and its server is kept if it works:
    /// the database counts it in any case.
    pub async fn prove(
        self: &Arc<Self>,
        (database, user): (&str, &str),
        token: &str,
        worker: usize,
        deadline: Instant,
        held: impl Send + 'static,
    ) -> Result<(), ProofError> {
        let slot = self.slot_by(deadline, worker).await.map_err(ProofError::Busy)?;
        let session = (database.to_owned(), user.to_owned());
        let token = Arc::new(Zeroizing::new(token.to_owned()));
        let proving = tokio::spawn(async move {
            let outcome = slot.prove(&session.0, &session.1, token).await;
            drop(held);
            outcome
        });
        // It ends before its time where the process does.
        proving.await.unwrap_or(Err(ProofError::Unasked(ConnectError::Protocol)))
    }

    /// A slot for a connection that belongs to no pool, if one is free.
    pub(crate) fn free_slot(self: &Arc<Self>, worker: usize) -> Option<Slot> {
        let free = self.core.lock().reserve_proof();
        free.then(|| Slot { pools: Some(Arc::clone(self)), worker })
    }

    /// The same, with room made for it, by `deadline`.
    ///
    /// # Cancel safety
    /// A dropped call waits no more.
    pub(crate) async fn slot_by(
        self: &Arc<Self>,
        deadline: Instant,
        worker: usize,
    ) -> Result<Slot, BorrowError> {
        let begun = clock::now();
        let _waiting = Waiting::of(self, worker);
        loop {
            if let Some(slot) = self.free_slot(worker) {
                return Ok(slot);
            }
            let now = clock::now();
            self.make_room_for_proof(now);
            if now >= deadline {
                let waited = now.saturating_duration_since(begun);
                return Err(BorrowError::Timeout { waited, cause: self.obstacle() });
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn make_room_for_proof(self: &Arc<Self>, now: Instant) {
        let evicted = self.core.lock().evict_for_proof(now);
        if let Some((id, server)) = evicted
            && let Some(pool) = self.pool_by_id(id)
        {
            pool.see_off(server, CloseReason::MakeRoom);
        }
    }
}

/// Somebody who waits for a [`Slot`].
struct Waiting {
    pools: Arc<Pools>,
    worker: usize,
}

impl Waiting {
    fn of(pools: &Arc<Pools>, worker: usize) -> Self {
        pools.core.lock().wait_for_proof();
        Self { pools: Arc::clone(pools), worker }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.pools.core.lock().give_up_proof();
        // What was kept free for it may be of use to others.
        self.pools.grow(self.worker);
    }
}

/// A slot of the budget that belongs to no pool yet, as one for a server that is to prove a token. Dropped, it goes to
/// who waits.
pub(crate) struct Slot {
    pools: Option<Arc<Pools>>,
    worker: usize,
}

impl Slot {
    async fn prove(self, database: &str, user: &str, token: Token) -> Result<(), ProofError> {
        let Some(pools) = self.pools.clone() else { return Ok(()) };
        let worker = self.worker;
        let proving = pools.metrics.shard(worker).enter(GaugeKind::DatabaseConnectionsProving);
        let attempt = Attempt::begin(&pools, worker);
        let defaults = pools.defaults_changes(database, user);
        let (mut server, reported) = match log_in_with(&pools, database, user, token).await {
            Ok(opened) => opened,
            // The token is the client's: its failure says nothing about the pool.
            Err(mut error) => {
                if error.is_refused_login() {
                    return Err(ProofError::Refused);
                }
                self.vacate_after(error.take_overdue());
                return Err(ProofError::Unasked(error));
            }
        };
        let pool = match pools.pool(database, user) {
            Ok(pool) => pool,
            Err(error) => {
                drop(attempt);
                // Its slot is free when PostgreSQL has let go of it.
                server.close(CLOSE_PATIENCE).await;
                return Err(ProofError::Busy(error));
            }
        };
        let opening = self.adopted_by(&pool);
        drop(proving);
        server.defaults = defaults;
        server.worker = worker;
        if let Err(reason) = pool.examine(&mut server).await {
            opening.finish(Err(Failed::examination(server, reason)), worker);
            return Err(ProofError::Unasked(ConnectError::Protocol));
        }
        attempt.succeeded(&mut server);
        opening.finish(Ok((server, reported)), worker);
        Ok(())
    }

    fn adopted_by(mut self, pool: &Arc<Pool>) -> Opening {
        if let Some(pools) = self.pools.take() {
            pools.core.lock().adopt_proof(pool.id);
        }
        Opening::of(pool)
    }

    /// Gives the slot back when nothing is left of a login.
    pub(crate) fn vacate_after(self, overdue: Option<Overdue>) {
        if let Some(overdue) = overdue {
            tokio::spawn(async move {
                overdue.ended().await;
                drop(self);
            });
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pools) = self.pools.take() {
            pools.core.lock().vacate_proof();
            pools.grow(self.worker);
        }
    }
}

async fn log_in_with(
    pools: &Pools,
    database: &str,
    user: &str,
    token: Token,
) -> Result<(Server, Reported), ConnectError> {
    let known = pools.credentials.lookup(user).ok_or(ConnectError::NoCredential)?;
    let user = known.username.clone();
    let proof = Proof::Token { user, token, generation: known.generation };
    connect(&pools.endpoint(), database, proof).await
}
