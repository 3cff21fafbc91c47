//! Making a server clean again whose client is gone, or proving that it cannot be done.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-discard.html>,
//! <https://www.postgresql.org/docs/current/sql-rollback.html>

use super::{CloseReason, Server};
use crate::state::TransactionStatus;
use crate::state::pipeline::Pipeline;
use crate::state::reply::Passing;
use crate::state::session::{Sequences, ServerUnnamed};
use crate::state::settings::IDLE_SESSION_TIMEOUT;
use std::sync::Arc;
use std::time::Duration;

/// Longest a server may take to roll back and discard before it is closed instead.
const RESET_TIMEOUT: Duration = Duration::from_secs(10);

/// What a server needs before another client may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// Its client left a transaction open.
    Rollback,
    /// Its client was pinned, and whatever it left is thrown away.
    DiscardAll,
    /// It may listen on channels of its client.
    Unlisten,
    /// PostgreSQL would end it for being idle, as its client wanted for its own session.
    Unwatch,
    /// A cancel was on its way when it was given back.
    Settle,
}

impl Server {
    /// Cleans a server that owes no reply.
    ///
    /// # Errors
    /// [`CloseReason`]: the server must be closed.
    ///
    /// # Cancel safety
    /// None: the server of a dropped call must be closed.
    pub async fn clean(&mut self, cleaning: Cleaning) -> Result<(), CloseReason> {
        if self.passing != Passing::Nothing || !self.held.is_empty() {
            return Err(CloseReason::NotClean);
        }
        tokio::time::timeout(RESET_TIMEOUT, self.clean_now(cleaning))
            .await
            .map_err(|_| CloseReason::NotClean)?
    }

    async fn clean_now(&mut self, cleaning: Cleaning) -> Result<(), CloseReason> {
        self.cancel.wait_until_landed().await;
        if self.cancel.may_strike() {
            return Err(CloseReason::NotClean);
        }
        if self.side.pipeline.status() != TransactionStatus::Idle {
            self.ask("ROLLBACK").await?;
        }
        match cleaning {
            Cleaning::Rollback => {}
            // A signal that came after the end of its statement is ignored while the server
            // waits for a command: an answer to one proves that it is gone.
            Cleaning::Settle => self.ask("").await?,
            Cleaning::Unlisten => {
                self.ask("UNLISTEN *").await?;
                self.side.may_listen = false;
            }
            Cleaning::Unwatch => {
                self.ask("RESET idle_session_timeout").await?;
                self.side.applied = Arc::new(self.side.applied.without(IDLE_SESSION_TIMEOUT));
            }
            Cleaning::DiscardAll => {
                self.ask("DISCARD ALL").await?;
                self.side.may_listen = false;
                self.side.altered = true;
                self.side.applied = Arc::default();
                self.side.wipe = false;
                self.side.statements.clear();
                self.side.own = None;
                self.side.sequences = Sequences::default();
            }
        }
        self.side.unnamed = ServerUnnamed::Unknown;
        self.side.pipeline = Pipeline::default();
        if self.held.is_empty() { Ok(()) } else { Err(CloseReason::NotClean) }
    }

    async fn ask(&mut self, sql: &str) -> Result<(), CloseReason> {
        match self.query(sql).await {
            Ok(_) => Ok(()),
            Err(_) => Err(CloseReason::NotClean),
        }
    }
}
