//! What sessions of a pool begin with, by `ALTER ROLE ... SET`, `ALTER DATABASE ... SET` and the configuration file.
//!
//! PostgreSQL reads it once, at the login. When it has changed, servers opened before are for nobody any more: the
//! idle ones are closed, those lent are closed when they are given back. That it has changed is known when a client's
//! statement has done it, and by asking the catalogue now and then.
//!
//! Source: <https://www.postgresql.org/docs/current/catalog-pg-db-role-setting.html>

use super::{Pool, Pools};
use crate::server::{CloseReason, Reported, Server};
use crate::state::defaults::ChangedDefaults;
use crate::state::settings::Settings;
use crate::telemetry::clock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A number for the defaults of the session that asks: what the catalogue has for it, and what it would report after
/// a `RESET ALL`, which is the configuration file's where the catalogue has nothing.
///
/// They are those of the login, whoever the session acts as: an idle server has the settings of its last client.
pub(super) const DIGEST: &str = "
SELECT pg_catalog.hashtextextended(pg_catalog.concat(
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.setdatabase, s.setrole, s.setconfig), E'\\n'
    ORDER BY s.setdatabase, s.setrole)
  FROM pg_catalog.pg_db_role_setting s
  WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
    WHERE d.datname = pg_catalog.current_database()))
  AND s.setrole IN (0, (SELECT a.usesysid FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a))),
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws('=', p.name, p.reset_val), E'\\n' ORDER BY p.name)
  FROM pg_catalog.pg_settings p WHERE p.name IN ('DateStyle', 'IntervalStyle', 'TimeZone', 'application_name',
    'client_encoding', 'default_transaction_read_only', 'search_path', 'standard_conforming_strings'))), 0)";

/// Most sets of startup settings whose outcome is remembered per pool.
const LEARNED_MAX: usize = 1000;

/// How long apart changes are followed. Each costs the pool its servers.
const PACE: Duration = Duration::from_secs(1);

/// By how much that may be exceeded for a while: so many changes are followed at once.
const BURST: Duration = Duration::from_secs(20);

/// What is known of a pool's defaults.
#[derive(Default)]
pub(super) struct Defaults {
    /// How often they are known to have changed.
    changes: AtomicU64,
    /// The answer to [`DIGEST`], since the last change.
    digest: Mutex<Option<String>>,
    /// They have changed, and it is not yet time to follow.
    overdue: AtomicBool,
    /// When changes could have been followed at their pace.
    paced: Mutex<Option<Instant>>,
}

impl Defaults {
    /// True if one more change can be followed now.
    fn may_follow(&self, now: Instant) -> bool {
        let mut paced = self.paced.lock();
        let due = paced.map_or(now, |due| due.max(now));
        let soon = due.saturating_duration_since(now) < BURST;
        if soon {
            *paced = Some(due + PACE);
        }
        soon
    }
}

impl Pool {
    /// How often the defaults were seen to change: a server has those as of before its login.
    pub(super) fn defaults_changes(&self) -> u64 {
        self.defaults.changes.load(Ordering::Acquire)
    }

    /// True if a server began with other defaults than a fresh one.
    pub(super) fn has_old_defaults(&self, server: &Server) -> bool {
        server.defaults != self.defaults_changes()
    }

    /// Takes note of what a fresh server reports, if that is what a fresh one reports now.
    pub(super) fn note_baseline(&self, server: &Server, reported: Reported) {
        let mut baseline = self.baseline.write();
        if self.has_old_defaults(server) || baseline.as_deref() == Some(&reported) {
            return;
        }
        // Defaults have changed: what was learned on top of the old ones is void.
        self.learned.lock().clear();
        *baseline = Some(Arc::new(reported));
        // Clients compare it with what they were told.
        self.profile.note_seen();
    }

    /// What a server that is fresh as of `baseline` reported when it was told these settings, if that is known.
    #[must_use]
    pub fn learned(&self, baseline: &Arc<Reported>, settings: &Settings) -> Option<Arc<Reported>> {
        let now = self.baseline.read();
        let learned = self.learned.lock().get(settings).map(Arc::clone);
        learned.filter(|_| is_same(now.as_ref(), baseline))
    }

    /// Remembers what a server reported. False if fresh ones are other than `baseline` by now: so might be its answer.
    #[must_use]
    pub fn learn(
        &self,
        baseline: &Arc<Reported>,
        settings: &Settings,
        reported: Arc<Reported>,
    ) -> bool {
        let now = self.baseline.read();
        if !is_same(now.as_ref(), baseline) {
            return false;
        }
        let mut learned = self.learned.lock();
        if learned.len() >= LEARNED_MAX {
            learned.clear();
        }
        learned.insert(settings.clone(), reported);
        true
    }

    /// The catalogue's answer to [`DIGEST`].
    pub(super) fn note_digest(self: &Arc<Self>, digest: &str) {
        let changed = {
            let mut known = self.defaults.digest.lock();
            let changed = known.as_deref().is_some_and(|known| known != digest);
            *known = Some(digest.to_owned());
            changed
        };
        if changed {
            self.replace_servers();
        }
    }

    /// The defaults have changed, to what is not known yet.
    fn void_defaults(self: &Arc<Self>) {
        *self.defaults.digest.lock() = None;
        self.replace_servers();
    }

    /// Follows a change for which it was not time yet.
    pub(super) fn follow_overdue_defaults(self: &Arc<Self>) {
        if self.defaults.overdue.swap(false, Ordering::AcqRel) {
            self.void_defaults();
        }
    }

    /// At once, unless a storm of changes would leave the pool no time for anything else.
    fn replace_servers(self: &Arc<Self>) {
        if !self.defaults.may_follow(clock::now()) {
            return self.defaults.overdue.store(true, Ordering::Release);
        }
        {
            let mut baseline = self.baseline.write();
            self.defaults.changes.fetch_add(1, Ordering::AcqRel);
            *baseline = None;
        }
        tracing::info!(
            database = %self.database,
            user = %self.user,
            "defaults of the user or the database have changed: servers are replaced"
        );
        let taken = self
            .pools
            .core
            .lock()
            .take_idle(|id, idle| id == self.id && self.has_old_defaults(&idle.server));
        for (_, server) in taken {
            self.close(server, CloseReason::DefaultsChanged);
        }
    }
}

fn is_same(now: Option<&Arc<Reported>>, baseline: &Arc<Reported>) -> bool {
    now.is_some_and(|now| Arc::ptr_eq(now, baseline))
}

impl Pools {
    /// A client's transaction has changed defaults.
    pub fn note_changed_defaults(&self, changed: &ChangedDefaults) {
        let pools: Vec<Arc<Pool>> = self.by_name.read().values().map(Arc::clone).collect();
        for pool in pools {
            if changed.concerns(&pool.database, &pool.user) {
                pool.void_defaults();
            }
        }
    }
}
