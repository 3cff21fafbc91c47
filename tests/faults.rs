//! Bad input and faults: each gets a clear error or a closed connection, and harms nobody else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

mod support;

#[path = "faults/before_login.rs"]
mod before_login;
#[path = "faults/ends.rs"]
mod ends;
#[path = "faults/isolation.rs"]
mod isolation;
#[path = "faults/limits.rs"]
mod limits;
#[path = "faults/messages.rs"]
mod messages;
#[path = "faults/servers.rs"]
mod servers;
#[path = "faults/slow.rs"]
mod slow;
#[path = "faults/vanishing.rs"]
mod vanishing;
