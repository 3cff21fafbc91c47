//! A client that sends no more: whatever it sent whole is carried out, and answered while it reads.
//!
//! PostgreSQL reads what came before it finds the end, and learns that nobody is there from a write that fails.
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-TERMINATION>

use super::backlog::Backlog;
use super::registry::Activity;
use super::serve::{Attachment, Client, End};
use crate::pool::Lease;
use crate::pool::seat::Kick;
use crate::telemetry::clock;

impl Client {
    /// The end of the client's stream was read, or it broke.
    pub(super) fn sends_no_more(&mut self) -> Result<(), End> {
        let limits = self.limits();
        match &self.attachment {
            // A part of a batch is worth no server.
            Attachment::Waiting { .. } if !self.session.has_batch(&self.inbound, &limits) => {
                return Err(End::Gone);
            }
            Attachment::Detached | Attachment::Waiting { .. } => {}
            Attachment::Attached(_) => self.mark(Activity::Leaving, clock::now()),
        }
        self.leaving = Some(End::Gone);
        Ok(())
    }

    /// A write to the client failed.
    pub(super) fn reads_no_more(&mut self) -> Result<(), End> {
        if !self.session.is_examined() {
            return Err(End::Gone);
        }
        // Its server is of use again when it has answered.
        self.leaving = Some(End::Gone);
        self.to_client = Backlog::Empty;
        self.inbound = Vec::new();
        Ok(())
    }

    /// True if the server that the client leaves has nothing more to run or to say for it, as nothing moves.
    pub(super) fn is_done_with(&self, lease: &Lease) -> bool {
        self.to_server.is_empty()
            && self.to_client.is_empty()
            && !self.asks_for_batch()
            && !self.entered.seat.kicks().has(Kick::NOTIFIED)
            && !lease.server.side.pipeline.answers_by_itself(self.session.is_streaming())
    }

    /// The time of a client that has vanished, or seems so, is up when nothing comes for it any more.
    pub(super) fn turn_to_leaving(&self, moved: bool) {
        if !moved && !self.to_client.is_empty() {
            self.turn_to(Activity::DoesNotRead);
        } else if self.leaving == Some(End::Terminated) || self.asks_for_batch() {
            self.turn_to(Activity::Busy);
        } else if moved || !self.entered.does(Activity::Leaving) {
            self.mark(Activity::Leaving, clock::now());
        }
    }
}
