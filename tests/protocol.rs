//! pgweir speaks PostgreSQL's protocol as PostgreSQL does: every kind of message, through a pool
//! that is too small for the clients to keep their servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

mod support;

#[path = "protocol/changed.rs"]
mod changed;
#[path = "protocol/copy.rs"]
mod copy;
#[path = "protocol/large.rs"]
mod large;
#[path = "protocol/prepared.rs"]
mod prepared;
#[path = "protocol/queries.rs"]
mod queries;
#[path = "protocol/settings.rs"]
mod settings;
#[path = "protocol/startup.rs"]
mod startup;
#[path = "protocol/target_tls.rs"]
mod target_tls;
