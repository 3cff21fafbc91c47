//! Logins that take longer than they may.

use super::connect::ConnectError;
use super::{Reported, Server};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longest time that a login which is overdue may go on, and that its connection may take to close.
pub(super) const OVERDUE_PATIENCE: Duration = Duration::from_secs(60);

/// A login that takes longer than it may. The target may have made a process for it, which waits for something, does
/// not notice that nobody wants it any more, and counts until it ends: so the login goes on, and its connection is
/// closed when it is over.
#[derive(Debug)]
pub struct Overdue {
    end: JoinHandle<()>,
}

impl Overdue {
    pub(super) fn begin(
        login: impl Future<Output = Result<(Server, Reported), ConnectError>> + Send + 'static,
    ) -> Self {
        let end = tokio::spawn(async move {
            if let Ok(Ok((server, _))) = tokio::time::timeout(OVERDUE_PATIENCE, login).await {
                server.close(OVERDUE_PATIENCE).await;
            }
        });
        Self { end }
    }

    /// Waits until nothing is left of it, as far as can be told: two minutes at most.
    ///
    /// # Cancel safety
    /// It goes on when the call is dropped.
    pub async fn ended(self) {
        // A task that fails has dropped its connection.
        let _ = self.end.await;
    }
}
