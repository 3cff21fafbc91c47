//! A client that gets no server: its batch is refused, and the rest of it skipped.

use super::backlog::{Backlog, take_buffer};
use super::registry::Activity;
use super::serve::{Attachment, Client, End};
use crate::pool::BorrowError;
use crate::telemetry::clock;
use crate::wire::encode;
use crate::wire::response::Severity;

impl Client {
    /// Answers a batch of which nothing was sent to a server.
    pub(super) fn refuse_batch(&mut self, error: &BorrowError) {
        let message = error.to_message(Severity::Error);
        self.worker.count_error(&message);
        let mut out = take_buffer();
        out.extend_from_slice(&message);
        self.to_client = Backlog::Bytes(out, 0);
        self.skipping = true;
        // It may never send the rest.
        self.mark(Activity::Idle, clock::now());
    }

    pub(super) fn give_up_waiting(&mut self, error: &BorrowError) {
        self.pool.leave(&self.entered.seat, clock::now());
        self.attachment = Attachment::Detached;
        self.refuse_batch(error);
    }

    /// Drops the messages of a refused batch up to the one that ends it, and answers that.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> Result<usize, End> {
        let limits = self.limits();
        let (used, ended) = self.session.skip_batch(bytes, &limits).map_err(End::Fault)?;
        if ended {
            self.end_refused_batch();
        }
        Ok(used)
    }

    pub(super) fn end_refused_batch(&mut self) {
        self.skipping = false;
        let mut out = take_buffer();
        out.extend_from_slice(&encode::READY_IDLE);
        self.to_client.push(out);
        self.leave_channels();
        self.mark(Activity::Idle, clock::now());
    }
}
