//! Cancelling what runs on a server, and the fence that keeps a cancel from hitting anybody else.
//!
//! A cancel request travels on a connection of its own and may arrive late. While one is on its
//! way to a server, the server is fenced: it is lent to nobody until the request's connection is
//! closed by PostgreSQL, which does so after it has signalled the backend.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>

use crate::wire::encode;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// Where a server's cancel requests go.
pub struct CancelTarget {
    process_id: u32,
    secret: Box<[u8]>,
    /// Where the server itself is: its host's name may mean another one by now.
    address: Option<SocketAddr>,
    in_flight: AtomicU32,
    /// A cancel was sent and its arrival never confirmed: it may come at any time.
    lost: AtomicU32,
    landed: Notify,
}

impl std::fmt::Debug for CancelTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CancelTarget").field("process_id", &self.process_id).finish_non_exhaustive()
    }
}

/// A cancel on its way. The server stays fenced until this is dropped.
#[must_use = "dropping it lifts the fence"]
pub struct Fence(Arc<CancelTarget>);

impl Drop for Fence {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.landed.notify_waiters();
        }
    }
}

impl Fence {
    /// Where the server is that the cancel is for; `None` if that could not be told.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.address
    }
}

impl CancelTarget {
    /// The target named by a `BackendKeyData` of the server at `address`.
    #[must_use]
    pub fn new(process_id: u32, secret: &[u8], address: Option<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            process_id,
            secret: secret.into(),
            address,
            in_flight: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            landed: Notify::new(),
        })
    }

    /// The server's process id, as in `pg_stat_activity`.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.process_id
    }

    /// Announces a cancel. The caller holds a lock under which the server cannot change hands.
    pub fn fence(self: &Arc<Self>) -> Fence {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Fence(Arc::clone(self))
    }

    /// True while a cancel is on its way.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    /// True if a cancel may still come although nobody waits for it: the server is closed.
    #[must_use]
    pub fn may_strike(&self) -> bool {
        self.lost.load(Ordering::Acquire) > 0
    }

    /// Returns when no cancel is on its way any more.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn wait_until_landed(&self) {
        loop {
            let landed = self.landed.notified();
            if !self.is_fenced() {
                return;
            }
            landed.await;
        }
    }
}

/// Sends the cancel that `fence` announced, and waits until PostgreSQL has dealt with it.
///
/// Goes without TLS like libpq's before version 17: the request holds a key, so it is sent only
/// to where the server itself is, and `connect` decides how.
pub async fn send<C>(fence: Fence, connect: C, patience: Duration)
where
    C: Future<Output = std::io::Result<crate::net::stream::Stream>>,
{
    let request = async {
        let mut stream = connect.await?;
        let mut bytes = Vec::with_capacity(16);
        encode::cancel_request(&mut bytes, fence.0.process_id, &fence.0.secret);
        // From here on it may arrive, unless PostgreSQL is seen to be done with it.
        fence.0.lost.fetch_add(1, Ordering::AcqRel);
        stream.write_all(&bytes).await?;
        let mut sink = Vec::new();
        while stream.read_append(&mut sink).await? > 0 {
            sink.clear();
        }
        fence.0.lost.fetch_sub(1, Ordering::AcqRel);
        std::io::Result::Ok(())
    };
    // A cancel that cannot be delivered is no error of anybody's: the statement just goes on.
    let _ = tokio::time::timeout(patience, request).await;
}
