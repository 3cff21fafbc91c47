//! What pgweir counts and measures. The names are RDS Proxy's in snake case, under `pgweir_`.
//!
//! Each worker thread writes to its own [`Shard`], memory that no other worker writes to, so an
//! update costs a few nanoseconds; [`Metrics::render`] adds the shards up when somebody asks.
//! What the pool knows under its lock is not counted again: it comes as a [`PoolSnapshot`].
//!
//! Source of the names:
//! <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy.monitoring.html>

mod emf;
mod exposition;
mod label;
mod process;
mod render;
mod shard;
mod snapshot;
mod sqlstate;
#[cfg(test)]
mod tests;
mod value;

pub use emf::{CloudWatch, CloudWatchNames};
pub use label::{Label, LabelSet, Labels, QueryProtocol};
pub use shard::{Counters, GaugeGuard, GaugeKind, Shard, Timings};
pub use snapshot::{FleetNumbers, PoolRow, PoolSnapshot, SecretNumbers};
pub use sqlstate::SqlStateClasses;
pub use value::{Counter, Family, Histogram};

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// All metrics of the process. Made once and handed down.
#[derive(Debug)]
pub struct Metrics {
    first: Arc<Shard>,
    rest: Vec<Arc<Shard>>,
    labels: Labels,
    /// Since the Unix epoch.
    started: Duration,
}

impl Metrics {
    /// Metrics with one shard per worker thread (at least one).
    #[must_use]
    pub fn new(shards: usize, labels: Labels) -> Arc<Self> {
        let shard = || Arc::new(Shard::new(&labels));
        let started = super::clock::wall().duration_since(SystemTime::UNIX_EPOCH);
        Arc::new(Self {
            first: shard(),
            rest: (1..shards).map(|_| shard()).collect(),
            started: started.unwrap_or_default(),
            labels,
        })
    }

    /// The shard of worker `index`; more workers than shards share them.
    #[must_use]
    pub fn shard(&self, index: usize) -> &Arc<Shard> {
        let others = (index % (self.rest.len() + 1)).checked_sub(1);
        others.and_then(|other| self.rest.get(other)).unwrap_or(&self.first)
    }

    /// The Prometheus text (format 0.0.4), in an order that never changes.
    ///
    /// Reads `/proc`, so it belongs on a thread that serves no clients.
    #[must_use]
    pub fn render(&self, pools: &PoolSnapshot) -> String {
        render::render(self, pools)
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        std::iter::once(&self.first).chain(&self.rest).map(AsRef::as_ref)
    }

    /// The sum of one number over all shards.
    fn sum(&self, of: impl Fn(&Shard) -> u64) -> u64 {
        self.shards().map(of).fold(0, u64::wrapping_add)
    }
}
