//! Layer 0. Metrics and logging set-up. Shards of atomic counters, handed down, never global.
//!
//! - [`clock`]: the only place where a clock is read.
//! - [`metrics`]: what is counted and measured, and its Prometheus text.

pub mod clock;
pub mod metrics;

pub use metrics::{
    GaugeGuard, GaugeKind, Label, LabelSet, Labels, Metrics, PoolRow, PoolSnapshot, QueryProtocol,
    Shard,
};
