//! Writing RDS Proxy's metrics for CloudWatch to the log, now and then.

use super::health::Health;
use crate::config::Config;
use crate::telemetry::clock;
use crate::telemetry::log::LineWriter;
use crate::telemetry::metrics::{CloudWatch, CloudWatchNames};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Where the lines come from and where they go.
pub(super) struct Lines {
    health: Arc<Health>,
    cloudwatch: Mutex<CloudWatch>,
    writer: LineWriter,
    interval: Duration,
}

impl Lines {
    /// `None` where nobody wants them.
    pub(super) fn of(
        config: &Config,
        health: &Arc<Health>,
        writer: LineWriter,
    ) -> Option<Arc<Self>> {
        let metrics = &config.metrics;
        let names = CloudWatchNames {
            namespace: metrics.cloudwatch_namespace.clone(),
            proxy_name: metrics.cloudwatch_proxy_name.clone(),
            target: config.target.host.clone(),
        };
        let lines = || {
            Arc::new(Self {
                health: Arc::clone(health),
                cloudwatch: Mutex::new(CloudWatch::new(names)),
                writer,
                interval: metrics.cloudwatch_interval,
            })
        };
        metrics.cloudwatch_emf.then(lines)
    }

    /// Writes a line in each interval, the first one after it, until dropped.
    pub(super) async fn write_on(self: Arc<Self>) {
        let mut interval = tokio::time::interval(self.interval);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        interval.tick().await;
        loop {
            interval.tick().await;
            self.write();
        }
    }

    /// Writes what came since the last line.
    pub(super) fn write(&self) {
        let since = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let snapshot = self.health.snapshot();
        let metrics = &self.health.shared.metrics;
        let line = self.cloudwatch.lock().line(metrics, &snapshot, now_ms);
        self.writer.write(&line);
    }
}
