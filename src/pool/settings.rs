//! What the operator says about the pools.

use std::time::Duration;

/// What the operator can change while pgweir runs.
#[derive(Clone, Debug)]
pub struct PoolSettings {
    /// How long a client waits for a server. Zero: not at all.
    pub connection_borrow_timeout: Duration,
    /// Share of the budget that may stay idle beyond `idle_connection_timeout`, in percent.
    pub max_idle_connections_percent: u8,
    /// A server idle for longer is surplus.
    pub idle_connection_timeout: Duration,
    /// A server older than this is replaced. Zero: never.
    pub connection_lifetime: Duration,
    /// When the target has refused for this long, clients are refused at once.
    pub fail_fast_after: Duration,
    /// For a cancel request to reach its server.
    pub cancel_timeout: Duration,
}

/// Whether a client waits where it is configured that nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As `connection_borrow_timeout` says.
    AsConfigured,
    /// A login needs a server once, however short the patience of transactions is.
    Login,
}
