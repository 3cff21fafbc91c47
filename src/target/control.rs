//! The one connection that a member of a fleet keeps to its target: it says who it is, and sees who
//! else is there, how much is taken, and whether the target can be written to.
//!
//! `usename`, `application_name` and `datid` of everybody's row in `pg_stat_activity` are shown to
//! every user of the database; what is shown to its owner only is not needed.
//!
//! Anybody may give any name to a connection of theirs, but not another user's. Those of users for
//! whom pgweir has no secret are none of its fleet's; nor, where the fleet has a user of its own, are
//! those of any other. A user whom a secret had until its latest change counts: other members may not
//! have heard of the change yet, and what they hold must not be taken.
//!
//! Source: <https://www.postgresql.org/docs/current/monitoring-stats.html#MONITORING-PG-STAT-ACTIVITY-VIEW>

use super::share::{self, Announcement};
use super::{ASK_TIMEOUT, CAPACITY_COLUMNS, CLOSE_PATIENCE, Capacity, ProbeError, read_capacity};
use crate::credentials::Credentials;
use crate::server::Server;
use crate::server::connect::Endpoint;
use crate::server::login::log_in;
use std::sync::Arc;

/// Once, after the login: a member whose machine is gone should not count for hours.
const SETUP: &str =
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";

/// Everybody who holds one of `max_connections`. Helpers of a query and replication hold none; of
/// the former, other users' are not told from clients and are counted, which errs on the safe side.
const CONNECTIONS: &str = "(SELECT count(*) FROM pg_catalog.pg_stat_activity \
    WHERE datid IS NOT NULL AND usesysid IS NOT NULL \
    AND coalesce(backend_type, 'client backend') = 'client backend')";

/// A control connection that is logged in.
pub struct Control {
    server: Server,
    user: String,
    credentials: Arc<Credentials>,
}

/// What is seen in one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// What the target has.
    pub capacity: Capacity,
    /// False for a standby, and where all transactions are read-only.
    pub writable: bool,
    /// Connections that anybody may still have.
    pub free: u32,
    /// What the members of the fleet announce, this one included.
    pub announcements: Vec<Announcement>,
}

impl Control {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`ProbeError`].
    ///
    /// # Cancel safety
    /// A dropped call closes its connection.
    pub async fn open(
        endpoint: &Endpoint,
        database: &str,
        credentials: &Arc<Credentials>,
        user: &str,
    ) -> Result<Self, ProbeError> {
        let (mut server, _) = log_in(endpoint, database, credentials, user).await?;
        tokio::time::timeout(ASK_TIMEOUT, server.query(SETUP))
            .await
            .map_err(|_| ProbeError::Timeout)??;
        Ok(Self { server, user: user.to_owned(), credentials: Arc::clone(credentials) })
    }

    /// As whom it is logged in.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Announces, and then looks around. Members are users for whom there is a secret, or `only` this one.
    ///
    /// # Errors
    /// [`ProbeError`]; the connection must not be used any more then.
    ///
    /// # Cancel safety
    /// None: the connection of a dropped call must not be used any more.
    pub async fn look(
        &mut self,
        fleet: &str,
        only: Option<&str>,
        own: &Announcement,
    ) -> Result<View, ProbeError> {
        let sql = question(fleet, own);
        let rows = tokio::time::timeout(ASK_TIMEOUT, self.server.query(&sql))
            .await
            .map_err(|_| ProbeError::Timeout)??;
        // Not every member asks as the same user: in one, a secret may be newer than in another.
        let is_ours = |user: &str| match only {
            Some(only) => user == only,
            None => user == self.user || self.credentials.knows(user),
        };
        read_view(&rows, fleet, is_ours).ok_or(ProbeError::Answer)
    }

    /// Says good-bye.
    pub async fn close(self) {
        self.server.close(CLOSE_PATIENCE).await;
    }
}

/// One message, so that nothing comes between the two: the name is changed before anything is read,
/// and both answers come from one snapshot of the activity. (A function changes it rather than `SET`,
/// so that to `pg_stat_statements` it is always the same statement.)
fn question(fleet: &str, own: &Announcement) -> String {
    // Neither text has a quote in it: the configuration admits none in the name of a fleet.
    let (prefix, text) = (share::prefix(fleet), own.text(fleet));
    format!(
        "SELECT pg_catalog.set_config('application_name', '{text}', false); \
         SELECT {CAPACITY_COLUMNS}, current_setting('transaction_read_only'), {CONNECTIONS}; \
         SELECT usename, application_name FROM pg_catalog.pg_stat_activity \
         WHERE left(application_name, {}) = '{prefix}'",
        prefix.len()
    )
}

/// `is_ours` tells the users who may be members.
fn read_view(
    rows: &[Vec<Option<String>>],
    fleet: &str,
    is_ours: impl Fn(&str) -> bool,
) -> Option<View> {
    let [_announced, target, members @ ..] = rows else { return None };
    let (capacity, [read_only, connections]) =
        target.split_at_checked(target.len().checked_sub(2)?)?
    else {
        return None;
    };
    let capacity = read_capacity(capacity)?;
    let taken: u32 = connections.as_deref()?.parse().ok()?;
    let name = |row: &Vec<Option<String>>| {
        let [Some(user), Some(name)] = row.as_slice() else { return None };
        if is_ours(user) { Announcement::read(name, fleet) } else { None }
    };
    Some(View {
        writable: !capacity.in_recovery && read_only.as_deref() == Some("off"),
        free: capacity.usable().saturating_sub(taken),
        announcements: members.iter().filter_map(name).collect(),
        capacity,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&str]) -> Vec<Option<String>> {
        values.iter().map(|value| Some((*value).to_owned())).collect()
    }

    #[test]
    fn the_name_is_announced_before_anything_is_read() {
        let own = Announcement { id: 0xab, held: 12, fixed: None };
        let sql = question("orders", &own);
        let first = "SELECT pg_catalog.set_config('application_name', 'pgweir:orders:000000ab:12', false); SELECT ";
        assert!(sql.starts_with(first), "{sql}");
        assert!(sql.ends_with("WHERE left(application_name, 14) = 'pgweir:orders:'"));
    }

    fn read(rows: &[Vec<Option<String>>]) -> Option<View> {
        read_view(rows, "orders", |user| ["app", "clone"].contains(&user))
    }

    #[test]
    fn a_view_is_read_and_strangers_are_passed_over() {
        let rows = [
            row(&["pgweir:orders:000000ab:12"]),
            row(&["30", "3", "0", "0", "false", "160001", "off", "20"]),
            row(&["app", "pgweir:orders:000000ab:12"]),
            row(&["app", "pgweir:orders:somebody"]),
            vec![None, None],
            vec![None, Some("pgweir:orders:000000ad:1".to_owned())],
            row(&["clone", "pgweir:orders:000000ac:1/5"]),
            row(&["stranger", "pgweir:orders:00000001:0/262143"]),
        ];
        let view = read(&rows).expect("an answer");
        assert_eq!((view.free, view.writable, view.capacity.max_connections), (7, true, 30));
        assert_eq!(
            view.announcements,
            [
                Announcement { id: 0xab, held: 12, fixed: None },
                Announcement { id: 0xac, held: 1, fixed: Some(5) },
            ]
        );
    }

    #[test]
    fn a_standby_and_a_read_only_target_are_not_writable() {
        for (recovery, read_only) in [("true", "on"), ("true", "off"), ("false", "on")] {
            let target = row(&["30", "3", "0", "0", recovery, "160001", read_only, "40"]);
            let rows = [row(&["announced"]), target];
            let view = read(&rows).expect("an answer");
            assert!(!view.writable);
            assert_eq!(view.free, 0, "more are connected than usual ones may be");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_refused() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[row(&["announced"])]), None);
        for target in [
            vec![],
            row(&["30"]),
            row(&["30", "3", "0", "0", "false", "160001", "off", "many"]),
            row(&["30", "3", "0", "0", "false", "160001", "off"]),
        ] {
            let rows = [row(&["announced"]), target];
            assert_eq!(read(&rows), None, "{rows:?}");
        }
    }
}
