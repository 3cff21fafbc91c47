//! Watching the target, and what is told of it: readiness and the numbers of a scrape.

use super::fleet::Fleet;
use crate::admin::{AdminSource, Check, Readiness};
use crate::client::Shared;
use crate::config::{Config, MaxConnections};
use crate::pool::open::Silence;
use crate::pool::prove::Slot;
use crate::server::connect::ConnectError;
use crate::target::{self, PROBE_DATABASE, ProbeError};
use crate::telemetry::clock;
use crate::telemetry::metrics::{PoolRow, PoolSnapshot};
use parking_lot::Mutex;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Pause between two probes while the target answers.
const HEALTHY_PAUSE: Duration = Duration::from_secs(30);

/// Pause while it does not, at first and at most.
pub(super) const AWAY_PAUSE_MIN: Duration = Duration::from_millis(200);
pub(super) const AWAY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long the target is not asked where all connections of the budget are in use.
const UNASKED_MAX: Duration = Duration::from_secs(120);

/// How long a connection of the budget is waited for then.
const SLOT_PATIENCE: Duration = Duration::from_secs(5);

/// What is watched.
pub(super) struct Health {
    pub(super) shared: Arc<Shared>,
    budget: Mutex<MaxConnections>,
    /// When it was asked last, and what the budget was configured to be then.
    asked: Mutex<Option<(Instant, MaxConnections)>>,
    reconfigured: Notify,
    fleet: Option<Fleet>,
    probes: AtomicU64,
    answered: AtomicU64,
    writable: AtomicBool,
}

impl Health {
    pub(super) fn new(shared: Arc<Shared>, config: &Config) -> Arc<Self> {
        Arc::new(Self {
            shared,
            budget: Mutex::new(config.target.max_connections),
            asked: Mutex::new(None),
            reconfigured: Notify::new(),
            fleet: Fleet::of(&config.fleet),
            probes: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            writable: AtomicBool::new(false),
        })
    }

    /// Takes over what has changed of the budget: in force after the next probe, but an absolute
    /// budget that belongs to this one alone is in force now.
    pub(super) fn reconfigure(&self, config: &Config) {
        let budget = config.target.max_connections;
        *self.budget.lock() = budget;
        self.reconfigured.notify_one();
        match (&self.fleet, budget) {
            (Some(fleet), _) => fleet.set_share(config.fleet.share),
            (None, MaxConnections::Absolute(connections)) => {
                self.shared.pools.set_budget(connections.get());
            }
            (None, MaxConnections::Percent(_)) => {}
        }
    }

    /// The budget as it is configured.
    pub(super) fn configured(&self) -> MaxConnections {
        *self.budget.lock()
    }

    /// Watches until dropped.
    pub(super) async fn watch(self: Arc<Self>) {
        match &self.fleet {
            Some(fleet) => self.watch_as_member(fleet).await,
            None => self.watch_alone().await,
        }
    }

    async fn watch_alone(&self) {
        if let MaxConnections::Absolute(connections) = self.configured() {
            self.shared.pools.set_budget(connections.get());
        }
        let mut pause = AWAY_PAUSE_MIN;
        loop {
            let wait = if self.probe().await {
                pause = AWAY_PAUSE_MIN;
                HEALTHY_PAUSE
            } else {
                let wait = pause;
                pause = (pause * 2).min(AWAY_PAUSE_MAX);
                wait
            };
            // Until it is time, or there is another budget to be had.
            let _ = tokio::time::timeout(wait, self.reconfigured.notified()).await;
        }
    }

    /// Asks the target once. False if it is away.
    async fn probe(&self) -> bool {
        let pools = &self.shared.pools;
        // The probe's connection counts like any other.
        let slot = if pools.budget() > 0 {
            match self.slot().await {
                // Where none is free, the target is busy, which is as good as an answer, for some time.
                None => return true,
                slot => slot,
            }
        } else {
            None
        };
        let mut outcome = self.ask().await;
        if let Some(slot) = slot {
            slot.vacate_after(outcome.as_mut().err().and_then(ProbeError::take_overdue));
        }
        *self.asked.lock() = Some((clock::now(), self.configured()));
        match outcome {
            Ok(capacity) => {
                self.reached(!capacity.in_recovery);
                let budget = capacity.budget(self.configured());
                if budget != pools.budget() {
                    tracing::info!(
                        max_connections = capacity.max_connections,
                        reserved = capacity.reserved,
                        budget,
                        "connection budget"
                    );
                    pools.set_budget(budget);
                }
                true
            }
            Err(error) => {
                self.missed(&error);
                false
            }
        }
    }

    /// A slot of the budget to ask the target by. A server makes room for it if it has not been asked for long, or not
    /// since the budget was configured.
    async fn slot(&self) -> Option<Slot> {
        let (pools, now) = (&self.shared.pools, clock::now());
        let due = self.asked.lock().is_none_or(|(at, configured)| {
            configured != self.configured() || now.saturating_duration_since(at) >= UNASKED_MAX
        });
        if due { pools.slot_by(now + SLOT_PATIENCE, 0).await.ok() } else { pools.free_slot(0) }
    }

    async fn ask(&self) -> Result<target::Capacity, ProbeError> {
        let endpoint = self.shared.pools.endpoint();
        let credentials = &self.shared.credentials;
        let mut last = ProbeError::from(ConnectError::NoCredential);
        for (database, user) in self.logins() {
            match target::probe(&endpoint, &database, credentials, &user).await {
                Ok(capacity) => return Ok(capacity),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => last = last.or_later(error),
            }
        }
        Err(last)
    }

    /// The database and the user of each login by which the target may be asked, best first.
    pub(super) fn logins(&self) -> impl Iterator<Item = (String, String)> {
        let only = self.fleet.as_ref().and_then(Fleet::user);
        let users = self.shared.credentials.usernames().into_iter();
        let users = users.filter(move |user| only.is_none_or(|only| user == only));
        users.flat_map(|user| [(PROBE_DATABASE.to_owned(), user.clone()), (user.clone(), user)])
    }

    /// The target has answered.
    pub(super) fn reached(&self, writable: bool) {
        self.probes.fetch_add(1, Ordering::Relaxed);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.writable.store(writable, Ordering::Relaxed);
        let now = clock::now();
        self.shared.pools.target_health(|health| health.reached(now));
    }

    /// The target has not answered, or has refused.
    pub(super) fn missed(&self, error: &ProbeError) {
        self.probes.fetch_add(1, Ordering::Relaxed);
        // A target without a free connection is there, at work for others.
        self.answered.fetch_add(u64::from(error.is_full()), Ordering::Relaxed);
        let now = clock::now();
        let reached = error.reached_target();
        let pools = &self.shared.pools;
        pools.target_health(|health| {
            if reached {
                health.reached(now);
                let silence =
                    if error.is_init_query() { Silence::InitQuery } else { Silence::Refusal };
                health.silence = Some(silence);
            } else {
                health.missed(now);
            }
        });
        pools.give_up_without_budget(now);
        tracing::warn!(error = error as &dyn std::error::Error, "cannot ask the target");
    }
}

impl Health {
    /// What the pools and the target are like now.
    pub(super) fn snapshot(&self) -> PoolSnapshot {
        let pools = &self.shared.pools;
        let rows = pools.counts().into_iter().map(|(pool, counts)| {
            let others = counts.open.saturating_sub(counts.idle + counts.opening);
            let closing = pool.unlent().min(others);
            let held = others - closing;
            let pinned = pool.pinned().min(held);
            PoolRow {
                database: pool.database.to_string(),
                user: pool.user.to_string(),
                idle: u64::from(counts.idle),
                borrowed: u64::from(held - pinned),
                pinned: u64::from(pinned),
                opening: u64::from(counts.opening),
                closing: u64::from(closing),
                waiting: u64::from(counts.waiting),
            }
        });
        let probes = self.probes.load(Ordering::Relaxed);
        let answered = self.answered.load(Ordering::Relaxed);
        PoolSnapshot {
            rows: rows.collect(),
            max_database_connections_allowed: u64::from(self.servers_max()),
            #[allow(clippy::cast_precision_loss, reason = "a share of few probes")]
            availability_percentage: 100.0 * answered as f64 / probes.max(1) as f64,
            probes,
            probes_answered: answered,
            secrets: super::secrets::numbers(&self.shared.credentials.status()),
            target_writable: self.writable.load(Ordering::Relaxed),
            fleet: self.fleet.as_ref().map(Fleet::numbers),
        }
    }

    /// Most servers: the budget, without the control connection that only a fleet's member keeps.
    fn servers_max(&self) -> u32 {
        let pools = &self.shared.pools;
        if self.fleet.is_some() { pools.servers_max() } else { pools.budget() }
    }

    fn describe_target(&self) -> String {
        let budget = self.shared.pools.budget();
        let mut text = format!("reachable, budget of {budget} connections");
        if let Some(fleet) = &self.fleet {
            let _ = write!(text, ", one of {} in fleet {}", fleet.numbers().tasks, fleet.name());
        }
        if budget > 0 && !self.writable.load(Ordering::Relaxed) {
            text.push_str(", read-only");
        }
        text
    }
}

impl AdminSource for Health {
    fn metrics_text(&self) -> String {
        self.shared.metrics.render(&self.snapshot())
    }

    fn alive(&self) -> bool {
        true
    }

    fn readiness(&self) -> Readiness {
        let pools = &self.shared.pools;
        let (last, away, silence) =
            pools.target_health(|health| (health.last_success, health.away_since, health.silence));
        let target = last.is_some() && away.is_none();
        let draining = self.shared.draining.load(Ordering::Relaxed);
        let detail = match (last, away) {
            (None, _) => "not reached yet".to_owned(),
            (Some(_), Some(since)) => {
                format!("away for {} s", clock::now().saturating_duration_since(since).as_secs())
            }
            (Some(_), None) if silence == Some(Silence::InitQuery) => {
                "reachable, but init_query failed: see the log".to_owned()
            }
            (Some(_), None) if pools.budget() == 0 => {
                "reachable, but it does not let pgweir ask its limits: see the log".to_owned()
            }
            (Some(_), None) => self.describe_target(),
        };
        Readiness::of(vec![
            Check { name: "target", ok: target && self.servers_max() > 0, detail },
            super::secrets::check(&self.shared.credentials.status()),
            Check {
                name: "accepting",
                ok: !draining,
                detail: if draining { "draining".to_owned() } else { "yes".to_owned() },
            },
        ])
    }
}
