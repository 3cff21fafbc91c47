//! Why a client got no server, and how it is told.

use crate::server::connect::{ConnectError, Outlook, Refusal};
use crate::wire::response::{Severity, with_severity};
use crate::wire::{BackendTag, ErrorResponse, HEADER_LEN, SqlState, encode};
use std::fmt;
use std::time::Duration;

/// Why a client got no server.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BorrowError {
    /// None came free in time.
    #[error("no server became free within {waited:?}")]
    Timeout {
        /// How long was waited.
        waited: Duration,
        /// What stood in the way.
        cause: Cause,
    },
    /// The target refuses this user or database.
    #[error("the target refuses this user or database")]
    Refused(Refusal),
    /// The target cannot be reached, or refuses the pool for a reason of ours.
    #[error("the target is not available: {cause}")]
    Away {
        /// What was observed; names no host.
        cause: &'static str,
    },
    /// The client cancelled its statement while it waited.
    #[error("cancelled while waiting")]
    Cancelled,
    /// More pools than pgweir keeps.
    #[error("too many combinations of database and user")]
    TooManyPools,
    /// The user has no credential any more.
    #[error("the user's secret is gone")]
    NoCredential,
    /// pgweir stops.
    #[error("shutting down")]
    Shutdown,
}

/// What stood in the way of a server, for who has waited in vain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Others have them.
    Budget,
    /// Nobody may wait.
    NoneIdle,
    /// One is on its way.
    Opening,
    /// There is no budget yet.
    NotReached,
    /// The target is full.
    Full,
    /// The target is away.
    Away,
    /// The target refuses this pool.
    Refused,
    /// What each server runs first.
    InitQuery,
    /// The client's login took too long.
    LoginTime,
    /// Others prove their tokens.
    Proofs,
    /// pgweir stops.
    Shutdown,
}

impl Cause {
    /// Why servers of a pool cannot be opened.
    pub(super) fn of_failure(error: &ConnectError) -> Self {
        match (error, error.outlook()) {
            (ConnectError::InitQuery(_), _) => Self::InitQuery,
            (_, Outlook::Full) => Self::Full,
            (_, Outlook::Away) => Self::Away,
            (_, Outlook::Refused) => Self::Refused,
        }
    }

    /// What can be done about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::Budget => {
                "Shorten transactions, raise max_connections_percent, or look at pinned sessions."
            }
            Self::NoneIdle => "Raise connection_borrow_timeout, so that clients wait for a server.",
            Self::Opening => "Look at how long the database takes to let a connection in.",
            Self::NotReached | Self::Away => {
                "See whether the database runs and can be reached; the log of pgweir says what fails."
            }
            Self::Full => "Leave room for pgweir: others hold the connections of the database.",
            Self::Refused => "The log of pgweir says what the database refuses.",
            Self::InitQuery => "Correct init_query; the log of pgweir says how it fails.",
            Self::LoginTime => {
                "Raise client_login_timeout, or see in the log of pgweir what fails."
            }
            Self::Proofs => "Try again.",
            Self::Shutdown => "Connect again.",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Budget => "all connections of the budget are in use",
            Self::NoneIdle => "no server is idle and connection_borrow_timeout is 0",
            Self::Opening => "connections are being opened",
            Self::NotReached => "the target has not been reached yet",
            Self::Full => "the target has no free connection",
            Self::Away => "the target cannot be reached",
            Self::Refused => "the target refuses this user or database",
            Self::InitQuery => INIT_QUERY_FAILED,
            Self::LoginTime => "client_login_timeout was over",
            Self::Proofs => "other tokens are being proven",
            Self::Shutdown => "shutting down",
        })
    }
}

/// What clients are told of an `init_query` that does not work.
pub(super) const INIT_QUERY_FAILED: &str = "init_query failed";

impl BorrowError {
    /// Why waiting for a server of a pool is pointless where opening one failed so.
    pub(super) fn of_failure(error: &ConnectError) -> Self {
        let cause = match error {
            ConnectError::Refused(refusal) if error.outlook() == Outlook::Refused => {
                return Self::Refused(refusal.clone());
            }
            ConnectError::NoCredential => return Self::NoCredential,
            ConnectError::Timeout(_) => "connecting took longer than connect_timeout",
            ConnectError::Refused(_) => "the server refused the connection",
            ConnectError::Unreachable(_) | ConnectError::Io(_) => "the server cannot be reached",
            ConnectError::Tls(_) => "TLS to the server failed",
            ConnectError::Scram(_) | ConnectError::Method => "authentication to the server failed",
            ConnectError::InitQuery(_) => INIT_QUERY_FAILED,
            ConnectError::Protocol => "the server broke the protocol",
            ConnectError::Token(_) => "no IAM token for the server can be signed",
        };
        Self::Away { cause }
    }

    /// What the client is told, as an `ErrorResponse` message: whether its connection ends, the target does not know.
    #[must_use]
    pub fn to_message(&self, severity: Severity) -> Vec<u8> {
        match (self, self.to_response()) {
            (_, Some(response)) => ErrorResponse { severity, ..response }.to_bytes(),
            (Self::Refused(refusal), None) => {
                let body = with_severity(&refusal.body, severity);
                let mut out = Vec::with_capacity(body.len() + HEADER_LEN);
                encode::message(&mut out, BackendTag::ERROR_RESPONSE.0, |out| {
                    out.extend_from_slice(&body);
                });
                out
            }
            (_, None) => Vec::new(),
        }
    }

    /// The same in words of ours; `None` where the target's own are told.
    #[must_use]
    pub fn to_response(&self) -> Option<ErrorResponse> {
        Some(match self {
            Self::Refused(_) => return None,
            Self::Timeout { waited, cause } => ErrorResponse::error(
                SqlState::CONNECTION_EXCEPTION,
                "Timed-out waiting to acquire database connection.",
            )
            .with_detail(format!("Waited {} ms; {cause}.", waited.as_millis()))
            .with_hint(cause.hint()),
            Self::Away { cause } => {
                ErrorResponse::error(SqlState::UNABLE_TO_CONNECT, "the database is not available")
                    .with_detail(*cause)
            }
            Self::Cancelled => ErrorResponse::error(
                SqlState::QUERY_CANCELED,
                "canceling statement due to user request",
            ),
            Self::TooManyPools => ErrorResponse::error(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                "too many combinations of database and user",
            ),
            Self::NoCredential => ErrorResponse::error(
                SqlState::INVALID_AUTHORIZATION,
                "pgweir has no credentials for this role any more",
            ),
            Self::Shutdown => ErrorResponse::error(
                SqlState::ADMIN_SHUTDOWN,
                "terminating connection due to administrator command",
            ),
        })
    }
}
