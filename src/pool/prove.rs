//! Proving a client's own IAM token: only the database can, by letting somebody in with it.
//!
//! The server that this opens counts in the budget like any other, and becomes one of its pool's when
//! the token is proven. Before that there need not be such a pool: who has proven nothing makes none.

use super::open::{Failed, Opening};
use super::{BorrowError, Pool, Pools};
use crate::server::connect::{ConnectError, Proof, connect};
use crate::server::{CloseReason, Reported, Server};
use crate::telemetry::clock;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether the budget has room.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

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
    /// Logs in to the target with a client's token, on this thread, and keeps the server if that works.
    ///
    /// Waits for room in the budget until `deadline`; an idle server makes room.
    ///
    /// # Errors
    /// [`ProofError`].
    ///
    /// # Cancel safety
    /// A dropped call gives its room back.
    pub async fn prove(
        self: &Arc<Self>,
        (database, user): (&str, &str),
        token: &str,
        worker: usize,
        deadline: Instant,
    ) -> Result<(), ProofError> {
        let slot = self.slot_by(deadline, worker).await.map_err(ProofError::Busy)?;
        let defaults = self.defaults_changes(database, user);
        // The token is the client's: its failure says nothing about the pool.
        let (mut server, reported) =
            self.log_in_with(database, user, token).await.map_err(|error| {
                if error.is_refused_login() {
                    ProofError::Refused
                } else {
                    ProofError::Unasked(error)
                }
            })?;
        let pool = self.pool(database, user).map_err(ProofError::Busy)?;
        let opening = slot.adopted_by(&pool);
        server.defaults = defaults;
        server.worker = worker;
        if let Err(reason) = pool.examine(&mut server).await {
            opening.finish(Err(Failed::examination(server, reason)), worker);
            return Err(ProofError::Unasked(ConnectError::Protocol));
        }
        opening.finish(Ok((server, reported)), worker);
        Ok(())
    }

    async fn slot_by(
        self: &Arc<Self>,
        deadline: Instant,
        worker: usize,
    ) -> Result<Slot, BorrowError> {
        let begun = clock::now();
        loop {
            if self.core.lock().reserve_proof() {
                return Ok(Slot { pools: Some(Arc::clone(self)), worker });
            }
            self.make_room_for_proof();
            let now = clock::now();
            if now >= deadline {
                let waited = now.saturating_duration_since(begun);
                return Err(BorrowError::Timeout { waited, cause: self.obstacle() });
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn log_in_with(
        &self,
        database: &str,
        user: &str,
        token: &str,
    ) -> Result<(Server, Reported), ConnectError> {
        let known = self.credentials.lookup(user).ok_or(ConnectError::NoCredential)?;
        let proof = Proof::Token {
            user: known.username.clone(),
            token: Arc::new(zeroize::Zeroizing::new(token.to_owned())),
            generation: known.generation,
        };
        connect(&self.endpoint(), database, &proof).await
    }

    fn make_room_for_proof(self: &Arc<Self>) {
        let evicted = self.core.lock().evict_for_proof();
        if let Some((id, server)) = evicted
            && let Some(pool) = self.pool_by_id(id)
        {
            pool.see_off(server, CloseReason::MakeRoom);
        }
    }
}

/// A slot of the budget for a server that is to prove a token. Dropped, it goes to who waits.
struct Slot {
    pools: Option<Arc<Pools>>,
    worker: usize,
}

impl Slot {
    fn adopted_by(mut self, pool: &Arc<Pool>) -> Opening {
        if let Some(pools) = self.pools.take() {
            pools.core.lock().adopt_proof(pool.id);
        }
        Opening::of(pool)
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
