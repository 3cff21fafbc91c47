//! Layer 0. Metrics and logging set-up. Shards of atomic counters, handed down, never global.
//!
//! - [`clock`]: the only place where a clock is read.
//! - [`metrics`]: what is counted and measured, and its Prometheus text.
//! - [`log`]: how events become lines on stderr.

pub mod clock;
pub mod log;
pub mod metrics;

pub use log::{Log, LogControl, LogFormat, LogLevel};
pub use metrics::{
    GaugeGuard, GaugeKind, Label, LabelSet, Labels, Metrics, PoolRow, PoolSnapshot, QueryProtocol,
    Shard,
};
