//! Proving a client's own IAM token: only the database can, by letting somebody in with it.
//!
//! The server that this opens is one of the pool's, and counts in the budget like any other.

use super::core::Idle;
use super::open::Opening;
use super::{BorrowError, Pool};
use crate::server::connect::{ConnectError, Proof, connect};
use crate::server::{CloseReason, Server};
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

impl Pool {
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
        token: &str,
        worker: usize,
        deadline: Instant,
    ) -> Result<(), ProofError> {
        let begun = clock::now();
        let opening = loop {
            if let Some(opening) = self.reserve_or_make_room() {
                break opening;
            }
            let now = clock::now();
            if now >= deadline {
                let waited = now.saturating_duration_since(begun);
                return Err(ProofError::Busy(BorrowError::Timeout {
                    waited,
                    cause: self.obstacle(),
                }));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        };
        let opened = self.log_in_with(token).await;
        match opened {
            Ok(opened) => {
                opening.finish(Ok(opened), worker);
                Ok(())
            }
            Err(error) => {
                // The token is the client's: its failure says nothing about the pool.
                drop(opening);
                self.pools.grow(worker);
                if error.is_refused_login() {
                    Err(ProofError::Refused)
                } else {
                    Err(ProofError::Unasked(error))
                }
            }
        }
    }

    async fn log_in_with(
        self: &Arc<Self>,
        token: &str,
    ) -> Result<(Server, crate::server::Reported), ConnectError> {
        let known = self.pools.credentials.lookup(&self.user).ok_or(ConnectError::NoCredential)?;
        let proof = Proof::Token {
            user: known.username.clone(),
            token: Arc::new(zeroize::Zeroizing::new(token.to_owned())),
            generation: known.generation,
        };
        let defaults = self.defaults_changes();
        let mut opened = connect(&self.pools.endpoint(), &self.database, &proof).await?;
        opened.0.defaults = defaults;
        self.examine(&mut opened.0).await.map_err(|_| ConnectError::Protocol)?;
        Ok(opened)
    }

    fn reserve_or_make_room(self: &Arc<Self>) -> Option<Opening> {
        let evicted = {
            let mut core = self.pools.core.lock();
            let limits = core.limits();
            if core.open() < limits.budget {
                core.reserve(self.id);
                return Some(Opening::of(self));
            }
            let mut found = false;
            core.take_idle(|_, _: &mut Idle<Box<Server>>| !std::mem::replace(&mut found, true))
        };
        for (id, server) in evicted {
            if let Some(pool) = self.pools.pool_by_id(id) {
                pool.close(server, CloseReason::MakeRoom);
            }
        }
        None
    }
}
