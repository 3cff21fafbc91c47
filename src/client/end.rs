//! How a client's connection ends, and the last it is told.

use super::serve::{Attachment, Client};
use crate::pool::Lease;
use crate::server::CloseReason;
use crate::server::reset::Cleaning;
use crate::state::reply::Passing;
use crate::state::session::ClientFault;
use crate::telemetry::clock;
use crate::wire::{ErrorResponse, FrameError, SqlState};
use std::io;
use std::time::Duration;

/// Longest that the last words to a client may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// How a client's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It said good-bye.
    Terminated,
    /// It vanished.
    Gone,
    /// It broke the protocol or a limit.
    Fault(ClientFault),
    /// Its server was lost.
    ServerLost,
    /// It was told of the end by the server.
    ServerFatal,
    /// Its time was up.
    IdleTimeout,
    /// It was pinned and idle while there were more servers than there may be.
    Surplus,
    /// It left a transaction open for too long.
    IdleInTransaction,
    /// It did not read.
    Stalled,
    /// It did not finish its message.
    Unfinished,
    /// pgweir stops.
    Shutdown,
    /// Not at all: it goes on, on another thread.
    Moves,
}

impl End {
    /// For the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminated => "terminated by the client",
            Self::Gone => "the client vanished",
            Self::Fault(_) => "protocol violation",
            Self::ServerLost => "the server was lost",
            Self::ServerFatal => "ended by the server",
            Self::IdleTimeout => "idle_client_timeout or max_client_lifetime",
            Self::Surplus => "idle_pinned_timeout",
            Self::IdleInTransaction => "idle_in_transaction_timeout",
            Self::Stalled => "client_stall_timeout, not reading",
            Self::Unfinished => "client_stall_timeout, message unfinished",
            Self::Shutdown => "shutting down",
            Self::Moves => "moved to another thread",
        }
    }

    /// The last message to the client; `None` where nobody is there, or it was told already.
    pub(super) fn last_words(self) -> Option<ErrorResponse> {
        let (sqlstate, message) = match self {
            Self::Terminated | Self::Gone | Self::ServerFatal | Self::Stalled | Self::Moves => {
                return None;
            }
            Self::Fault(ClientFault::TooManyStatements) => {
                (SqlState::CONFIGURATION_LIMIT_EXCEEDED, "too many prepared statements")
            }
            Self::Fault(ClientFault::TooLargeStatements) => {
                (SqlState::CONFIGURATION_LIMIT_EXCEEDED, "too large prepared statements")
            }
            Self::Fault(ClientFault::StatementsFull) => (
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                "prepared statements of all clients take too much memory",
            ),
            Self::Fault(ClientFault::TooMuchAhead) => (
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "too many or too large prepared statements are named at once",
            ),
            Self::Fault(ClientFault::TooManyChannels) => (
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "too many statements about channels in one query",
            ),
            Self::Fault(ClientFault::Frame(FrameError::TooLarge { .. })) => {
                (SqlState::PROGRAM_LIMIT_EXCEEDED, "message is too large")
            }
            Self::Fault(ClientFault::Sequences) => (
                SqlState::FEATURE_NOT_SUPPORTED,
                "the sequence values of this session cannot be told; connect again and repeat",
            ),
            Self::Fault(_) => (SqlState::PROTOCOL_VIOLATION, "invalid frontend message"),
            Self::ServerLost => {
                (SqlState::CONNECTION_FAILURE, "server closed the connection unexpectedly")
            }
            Self::IdleTimeout => (
                SqlState::IDLE_SESSION_TIMEOUT,
                "terminating connection due to idle-session timeout",
            ),
            // As an administrator would end the session to get its connection.
            Self::Surplus => (
                SqlState::ADMIN_SHUTDOWN,
                "terminating idle pinned connection because its server must be given back",
            ),
            Self::IdleInTransaction => (
                SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                "terminating connection due to idle-in-transaction timeout",
            ),
            Self::Unfinished => (
                SqlState::PROTOCOL_VIOLATION,
                "terminating connection because its message was not finished in time",
            ),
            Self::Shutdown => {
                (SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
            }
        };
        let response = ErrorResponse::fatal(sqlstate, message);
        Some(match self.hint() {
            Some(hint) => response.with_hint(hint),
            None => response,
        })
    }

    /// What can be done about it, where the message does not say that.
    fn hint(self) -> Option<&'static str> {
        let Self::Fault(fault) = self else { return None };
        match fault {
            ClientFault::TooManyStatements => Some(
                "Close statements that are no longer used, let the driver keep fewer, or raise max_prepared_statements.",
            ),
            ClientFault::TooLargeStatements => Some(
                "Close statements that are no longer used, let the driver keep fewer, or send values as parameters.",
            ),
            ClientFault::StatementsFull => Some(
                "The clients of this pgweir together have too many or too large prepared statements: let drivers keep fewer.",
            ),
            _ => None,
        }
    }
}

impl Client {
    /// Lets go of the server, in whatever state it is.
    pub(super) fn release(&mut self, end: End) {
        let attachment = std::mem::replace(&mut self.attachment, Attachment::Detached);
        self.unpin();
        self.entered.seat.end();
        match attachment {
            Attachment::Detached => {}
            Attachment::Waiting { .. } => self.pool.leave(&self.entered.seat, clock::now()),
            Attachment::Attached(lease) => self.release_server(lease, end),
        }
    }

    fn release_server(&mut self, lease: Lease, end: End) {
        self.cut_short = matches!(lease.server.passing, Passing::Forward(_));
        let pipeline = &lease.server.side.pipeline;
        let answered =
            pipeline.is_answered() && self.to_server.is_empty() && !self.session.is_streaming();
        let lost = matches!(end, End::ServerLost | End::ServerFatal);
        match self.session.pin {
            _ if lost => lease.close(CloseReason::ClosedByServer),
            Some(reason) if reason.leaves_traces() => lease.close(CloseReason::NotClean),
            _ if !answered => lease.close(CloseReason::ClientGone),
            Some(_) => lease.clean(Cleaning::DiscardAll),
            None if self.session.keeps_server() => lease.clean(Cleaning::DiscardAll),
            None => lease.clean(Cleaning::Rollback),
        }
    }

    pub(super) async fn say_goodbye(&mut self, end: End) {
        let words = end.last_words();
        if words.is_none() && end != End::ServerFatal {
            return;
        }
        let bytes = words.map(|words| {
            self.worker.shard.errors.of(&words.sqlstate.0).one();
            words.to_bytes()
        });
        let farewell = async {
            std::future::poll_fn(|cx| self.to_client.poll_write(cx, &mut self.stream)).await?;
            if let Some(bytes) = bytes.filter(|_| !self.cut_short) {
                self.stream.write_all(&bytes).await?;
            }
            self.stream.shutdown().await?;
            io::Result::Ok(())
        };
        // Whether it listens or not, the connection ends here.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, farewell).await;
    }
}
