//! A client on its way from one thread to another, while it is idle.

use super::Worker;
use super::serve::Client;
use crate::telemetry::Shard;
use std::io;
use std::sync::Arc;
use tokio::runtime::Handle;

impl Client {
    /// Where it is counted.
    pub(super) fn shard(&self) -> Arc<Shard> {
        Arc::clone(&self.worker.shard)
    }

    /// The thread of this number.
    pub(super) fn thread(&self, number: usize) -> Option<(Handle, Arc<Worker>)> {
        self.worker.shared.threads.get()?.get(number).cloned()
    }

    /// Settles on the thread that calls this, which is `worker`'s.
    ///
    /// # Errors
    /// The system's; the client's connection is then closed.
    pub(super) fn settle_on(mut self: Box<Self>, worker: Arc<Worker>) -> io::Result<Box<Self>> {
        self.stream = self.stream.detach()?.attach()?;
        self.sleeps = false;
        self.entered.moved(worker.index);
        self.worker = worker;
        Ok(self)
    }
}
