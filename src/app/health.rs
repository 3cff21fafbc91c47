//! Watching the target, and what is told of it: readiness and the numbers of a scrape.

use crate::admin::{AdminSource, Check, Readiness};
use crate::client::Shared;
use crate::config::MaxConnections;
use crate::target::{self, PROBE_DATABASE};
use crate::telemetry::clock;
use crate::telemetry::metrics::{PoolRow, PoolSnapshot};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Pause between two probes while the target answers.
const HEALTHY_PAUSE: Duration = Duration::from_secs(30);

/// Pause while it does not, at first and at most.
const AWAY_PAUSE_MIN: Duration = Duration::from_millis(200);
const AWAY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What is watched.
pub(super) struct Health {
    shared: Arc<Shared>,
    budget: Mutex<MaxConnections>,
    probes: AtomicU64,
    answered: AtomicU64,
}

impl Health {
    pub(super) fn new(shared: Arc<Shared>, budget: MaxConnections) -> Arc<Self> {
        Arc::new(Self {
            shared,
            budget: Mutex::new(budget),
            probes: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        })
    }

    /// Takes over a changed `max_connections`; in force after the next probe, an absolute one now.
    pub(super) fn set_budget(&self, budget: MaxConnections) {
        *self.budget.lock() = budget;
        if let MaxConnections::Absolute(connections) = budget {
            self.shared.pools.set_budget(connections.get());
        }
    }

    /// Probes until dropped.
    pub(super) async fn watch(self: Arc<Self>) {
        if let MaxConnections::Absolute(connections) = *self.budget.lock() {
            self.shared.pools.set_budget(connections.get());
        }
        let mut pause = AWAY_PAUSE_MIN;
        loop {
            if self.probe().await {
                pause = AWAY_PAUSE_MIN;
                tokio::time::sleep(HEALTHY_PAUSE).await;
            } else {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(AWAY_PAUSE_MAX);
            }
        }
    }

    /// Asks the target once. False if it is away.
    async fn probe(&self) -> bool {
        let pools = &self.shared.pools;
        let known = pools.budget() > 0;
        // The probe's connection counts like any other: where none is free, the target is busy,
        // which is as good as an answer.
        if known && !pools.reserve_for_probe() {
            return true;
        }
        let outcome = self.ask().await;
        if known {
            pools.release_of_probe();
        }
        self.probes.fetch_add(1, Ordering::Relaxed);
        let now = clock::now();
        match outcome {
            Ok(capacity) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                pools.target_health(|health| health.reached(now));
                let budget = capacity.budget(*self.budget.lock());
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
                let reached = error.reached_target();
                pools.target_health(
                    |health| if reached { health.reached(now) } else { health.missed(now) },
                );
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot ask the target");
                false
            }
        }
    }

    async fn ask(&self) -> Result<target::Capacity, target::ProbeError> {
        let users = self.shared.credentials.usernames();
        let mut last = target::ProbeError::Timeout;
        for user in users {
            for database in [PROBE_DATABASE, user.as_str()] {
                let (endpoint, credentials) =
                    (self.shared.pools.endpoint(), &self.shared.credentials);
                match target::probe(&endpoint, database, credentials, &user).await {
                    Ok(capacity) => return Ok(capacity),
                    Err(error) if !error.reached_target() => return Err(error),
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }
}

impl AdminSource for Health {
    fn metrics_text(&self) -> String {
        let pools = &self.shared.pools;
        let rows = pools.counts().into_iter().map(|(pool, counts)| PoolRow {
            database: pool.database.to_string(),
            user: pool.user.to_string(),
            idle: u64::from(counts.idle),
            borrowed: u64::from(counts.open.saturating_sub(counts.idle + counts.opening)),
            pinned: 0,
            opening: u64::from(counts.opening),
            waiting: u64::from(counts.waiting),
        });
        let probes = self.probes.load(Ordering::Relaxed).max(1);
        let answered = self.answered.load(Ordering::Relaxed);
        let snapshot = PoolSnapshot {
            rows: rows.collect(),
            max_database_connections_allowed: u64::from(pools.budget()),
            #[allow(clippy::cast_precision_loss, reason = "a share of few probes")]
            availability_percentage: 100.0 * answered as f64 / probes as f64,
            secrets: super::secrets::numbers(&self.shared.credentials.status()),
        };
        self.shared.metrics.render(&snapshot)
    }

    fn alive(&self) -> bool {
        true
    }

    fn readiness(&self) -> Readiness {
        let pools = &self.shared.pools;
        let (last, away) = pools.target_health(|health| (health.last_success, health.away_since));
        let target = last.is_some() && away.is_none();
        let draining = self.shared.draining.load(Ordering::Relaxed);
        let detail = match (last, away) {
            (None, _) => "not reached yet".to_owned(),
            (Some(_), Some(since)) => {
                format!("away for {} s", clock::now().saturating_duration_since(since).as_secs())
            }
            (Some(_), None) => format!("reachable, budget of {} connections", pools.budget()),
        };
        Readiness::of(vec![
            Check { name: "target", ok: target && pools.budget() > 0, detail },
            super::secrets::check(&self.shared.credentials.status()),
            Check {
                name: "accepting",
                ok: !draining,
                detail: if draining { "draining".to_owned() } else { "yes".to_owned() },
            },
        ])
    }
}
