//! What opening and closing a server counts, whoever it is for: a pool, a listener, or the proof of a token.
//!
//! Servers that were set up less those that were closed are those that are there.

use super::Pools;
use crate::server::{CloseReason, Server};
use crate::telemetry::metrics::{GaugeKind, Label as _};
use crate::telemetry::{Shard, clock};
use std::sync::Arc;
use std::time::Instant;

/// A server on its way: it has failed unless [`Attempt::succeeded`] says otherwise.
#[must_use = "dropping it counts a failure"]
pub(super) struct Attempt {
    shard: Arc<Shard>,
    begun: Instant,
    succeeded: bool,
}

impl Attempt {
    /// Begins now, on the thread `worker`.
    pub(super) fn begin(pools: &Pools, worker: usize) -> Self {
        let shard = Arc::clone(pools.metrics.shard(worker));
        shard.count.database_connection_requests.one();
        if pools.endpoint().connector.wants_tls() {
            shard.count.database_connection_requests_with_tls.one();
        }
        Self { shard, begun: clock::now(), succeeded: false }
    }

    /// The server can be used. Its end is told by [`closed`].
    pub(super) fn succeeded(mut self, server: &mut Server) {
        self.succeeded = true;
        if server.stream.is_tls() {
            server.tls_gauge = Some(self.shard.enter(GaugeKind::DatabaseConnectionsWithTls));
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (count, took) = (&self.shard.count, clock::now().saturating_duration_since(self.begun));
        self.shard.time.database_connection_setup.observe(took);
        if self.succeeded {
            count.database_connections_setup_succeeded.one();
        } else {
            count.database_connections_setup_failed.one();
        }
    }
}

/// A server that was set up is closed.
pub(super) fn closed(pools: &Pools, server: &Server, names: (&str, &str), reason: CloseReason) {
    lost(pools, server.worker, reason);
    let (database, user) = names;
    let reason = reason.as_label();
    tracing::debug!(server = server.id, database, user, reason, "server closed");
}

/// The same for one that is gone already.
pub(super) fn lost(pools: &Pools, worker: usize, reason: CloseReason) {
    pools.metrics.shard(worker).server_closes.of(reason).one();
}
