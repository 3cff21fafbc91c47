//! Layer 5. The PostgreSQL instance behind pgweir: is it there, and how many connections may be had.
//!
//! Source: <https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-MAX-CONNECTIONS>

pub mod control;
pub mod share;

use crate::config::MaxConnections;
use crate::credentials::Credentials;
use crate::server::connect::{ConnectError, Endpoint, Outlook};
use crate::server::login::log_in;
use crate::server::overdue::Overdue;
use crate::server::query::QueryError;
use std::sync::Arc;
use std::time::Duration;

/// The database that is asked, as RDS Proxy does.
pub const PROBE_DATABASE: &str = "postgres";

/// Longest a probe may take after it is logged in.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the probe's own connection may take to end.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// What [`read_capacity`] reads.
const CAPACITY_COLUMNS: &str = "current_setting('max_connections'), \
    current_setting('superuser_reserved_connections'), \
    coalesce(current_setting('reserved_connections', true), '0'), \
    coalesce(nullif(current_setting('rds.rds_superuser_reserved_connections', true), ''), '0'), \
    pg_catalog.pg_is_in_recovery()::text, \
    current_setting('server_version_num')";

/// What a target says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// `max_connections`.
    pub max_connections: u32,
    /// Slots kept for superusers and other privileged roles.
    pub reserved: u32,
    /// True for a standby.
    pub in_recovery: bool,
    /// As in `server_version_num`: 150020 for 15.20.
    pub version: u32,
}

impl Capacity {
    /// Connections that anybody may have.
    #[must_use]
    pub fn usable(self) -> u32 {
        self.max_connections.saturating_sub(self.reserved)
    }

    /// What is configured, in connections: at least one.
    #[must_use]
    pub fn budget(self, configured: MaxConnections) -> u32 {
        match configured {
            MaxConnections::Absolute(connections) => connections.get(),
            MaxConnections::Percent(percent) => {
                let share = u64::from(self.usable()) * u64::from(percent) / 100;
                u32::try_from(share).unwrap_or(u32::MAX).max(1)
            }
        }
    }
}

/// Why a target could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No answer.
    #[error("the target did not answer")]
    Query(#[from] QueryError),
    /// Too slow.
    #[error("the target took too long to answer")]
    Timeout,
    /// An answer that is none.
    #[error("the target's answer makes no sense")]
    Answer,
}

impl ProbeError {
    /// True if another user or database would fare no better.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let of_one_user = matches!(self, Self::Connect(ConnectError::NoCredential));
        !of_one_user && (!self.reached_target() || self.is_full())
    }

    /// True if the target let us in, and refused what each server runs first.
    #[must_use]
    pub fn is_init_query(&self) -> bool {
        matches!(self, Self::Connect(ConnectError::InitQuery(_)))
    }

    /// What to say of two logins that failed: the one that got further tells more, else the `later` one.
    #[must_use]
    pub fn or_later(self, later: Self) -> Self {
        if self.is_init_query() { self } else { later }
    }

    /// The login that may still go on, once.
    pub fn take_overdue(&mut self) -> Option<Overdue> {
        match self {
            Self::Connect(error) => error.take_overdue(),
            _ => None,
        }
    }

    /// True if the target has no free connection.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Connect(error) if error.outlook() == Outlook::Full)
    }

    /// True if there is a target, although it refuses us.
    #[must_use]
    pub fn reached_target(&self) -> bool {
        match self {
            Self::Connect(error) => error.reached_target() == Some(true),
            Self::Query(_) | Self::Answer => true,
            Self::Timeout => false,
        }
    }
}

/// Connects, asks and leaves.
///
/// # Errors
/// [`ProbeError`].
///
/// # Cancel safety
/// A dropped call closes its connection.
pub async fn probe(
    endpoint: &Endpoint,
    database: &str,
    credentials: &Arc<Credentials>,
    user: &str,
) -> Result<Capacity, ProbeError> {
    let (mut server, _) = log_in(endpoint, database, credentials, user).await?;
    let sql = format!("SELECT {CAPACITY_COLUMNS}");
    let asked = tokio::time::timeout(ASK_TIMEOUT, server.query(&sql)).await;
    server.close(CLOSE_PATIENCE).await;
    let rows = asked.map_err(|_| ProbeError::Timeout)??;
    read_answer(&rows).ok_or(ProbeError::Answer)
}

fn read_answer(rows: &[Vec<Option<String>>]) -> Option<Capacity> {
    let [row] = rows else { return None };
    read_capacity(row)
}

fn read_capacity(row: &[Option<String>]) -> Option<Capacity> {
    let [max, superuser, reserved, rds, recovery, version] = row else { return None };
    let number = |text: &Option<String>| text.as_deref()?.parse::<u32>().ok();
    Some(Capacity {
        max_connections: number(max)?,
        reserved: number(superuser)?.saturating_add(number(reserved)?).saturating_add(number(rds)?),
        in_recovery: recovery.as_deref() == Some("true"),
        version: number(version)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: [&str; 6]) -> Vec<Vec<Option<String>>> {
        vec![values.iter().map(|value| Some((*value).to_owned())).collect()]
    }

    #[test]
    fn reserved_slots_are_taken_off_before_the_share() {
        let capacity =
            read_answer(&row(["87", "3", "2", "2", "false", "160001"])).expect("an answer");
        assert_eq!(capacity.usable(), 80);
        assert_eq!(capacity.budget(MaxConnections::Percent(50)), 40);
        assert_eq!(capacity.budget(MaxConnections::Percent(1)), 1);
    }

    #[test]
    fn a_user_without_a_secret_says_nothing_of_the_others() {
        assert!(!ProbeError::from(ConnectError::NoCredential).is_final());
        assert!(ProbeError::from(ConnectError::Timeout(None)).is_final());
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        assert_eq!(read_answer(&[]), None);
        assert_eq!(read_answer(&row(["many", "3", "0", "0", "false", "150000"])), None);
    }
}
