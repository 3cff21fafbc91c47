//! pgweir as its operator meets it: cancels, signals, reloads, secrets, limits in time, checks,
//! metrics and the log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

mod support;

#[path = "operations/cancels.rs"]
mod cancels;
#[path = "operations/configured.rs"]
mod configured;
#[path = "operations/observed.rs"]
mod observed;
#[path = "operations/signals.rs"]
mod signals;
#[path = "operations/times.rs"]
mod times;
