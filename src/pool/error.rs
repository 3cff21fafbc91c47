//! Why a client got no server, and how it is told.

use crate::server::connect::Refusal;
use crate::wire::response::{Severity, with_severity};
use crate::wire::{BackendTag, ErrorResponse, HEADER_LEN, SqlState, encode};
use std::time::Duration;

/// Why a client got no server.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BorrowError {
    /// None came free in time.
    #[error("no server became free within {waited:?}")]
    Timeout {
        /// How long was waited.
        waited: Duration,
        /// What stands in the way.
        cause: &'static str,
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

impl BorrowError {
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
            .with_hint(
                "Shorten transactions, raise max_connections_percent, or look at pinned sessions.",
            ),
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
