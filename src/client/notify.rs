//! A client that listens: its channels are heard by a connection that all clients of its database
//! share, and its notifications reach it when it is between transactions.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-notify.html>

use super::registry::Activity;
use super::serve::{Attachment, Client};
use crate::pool::listener::{Heard, Subscription};
use crate::pool::seat::Kick;
use crate::state::reply::Passing;
use crate::telemetry::clock;
use crate::wire::encode;

impl Client {
    /// Asks the listener for what the client's next message needs. True if that has to wait.
    pub(super) fn waits_for_listener(&mut self) -> bool {
        let channels = &mut self.session.channels;
        if !channels.is_asking() {
            return false;
        }
        let queued_max = self.worker.shared.live().max_notifications_queued;
        let (pool, seat) = (&self.pool, &self.entered.seat);
        let index = self.worker.index;
        let subscription = self
            .subscription
            .get_or_insert_with(|| Box::new(Subscription::new(pool, seat, index, queued_max)));
        subscription.mailbox().set_bound(queued_max);
        let takes_leave = channels.begins_to_take_leave();
        let heard = subscription.listen(channels.wanted(), takes_leave, index);
        if heard != Heard::NotYet && channels.is_taking_leave() {
            subscription.mailbox().settle(|channel| channels.is_in_force(channel));
        }
        match heard {
            Heard::NotYet => return true,
            Heard::Yes => channels.grant(),
            Heard::No => channels.refuse(),
        }
        self.end_subscription_if_over();
        false
    }

    /// True if the listener is to do something before a batch that the client has sent whole.
    pub(super) fn asks_for_batch(&self) -> bool {
        self.session.channels.is_asking() && self.session.has_batch(&self.inbound, &self.limits)
    }

    /// Sees to the channels after a piece of the client's stream was translated, of which perhaps
    /// nothing was sent.
    pub(super) fn listen_before_more(&mut self, nothing_sent: bool) {
        if !self.session.channels.is_asking() {
            if let Some(subscription) = &self.subscription
                && !nothing_sent
                && self.session.channels.is_followed()
            {
                // What came before the transaction ends is not for those who begin to listen by it.
                let channels = &self.session.channels;
                subscription.mailbox().retain(|channel| channels.is_in_force(channel));
            }
            return;
        }
        if !self.waits_for_listener() {
            // It goes on at once with what is held.
            return self.entered.seat.kick(Kick::NOTIFIED);
        }
        let Attachment::Attached(lease) = &self.attachment else { return };
        let idle = lease.server.side.pipeline.is_settled()
            && lease.server.passing == Passing::Nothing
            && self.to_server.is_empty()
            && !self.session.is_streaming();
        if !nothing_sent || !idle || self.session.keeps_server() {
            return;
        }
        // The listener may need its place.
        let attachment = std::mem::replace(&mut self.attachment, Attachment::Detached);
        let Attachment::Attached(lease) = attachment else { return };
        let now = clock::now();
        self.entered.seat.end();
        self.session.released();
        self.entered.mark_busy();
        lease.give_back(now);
    }

    /// The client was told that it may go on: leaves the channels that it has left, and hands over
    /// what came for it, before it is told if it can be.
    pub(super) fn notify_at_ready(&mut self) {
        if self.subscription.is_none() {
            return;
        }
        self.leave_channels();
        self.deliver(true);
    }

    /// Hands over what came for a client that is idle.
    pub(super) fn notify(&mut self) {
        if self.subscription.is_some() && self.to_client.is_empty() {
            self.deliver(false);
        }
    }

    /// Listens no more on what the client has left, or was refused before it could begin to.
    pub(super) fn leave_channels(&mut self) {
        let unwanted = self.session.channels.take_unwanted();
        let Some(subscription) = &mut self.subscription else { return };
        if !unwanted.is_empty() {
            subscription.unlisten(&unwanted);
        }
        self.end_subscription_if_over();
    }

    /// One that is for no channel any more is kept for what it still has for the client.
    fn end_subscription_if_over(&mut self) {
        if self.subscription.as_ref().is_some_and(|one| one.is_empty() && one.mailbox().is_empty())
        {
            self.subscription = None;
        }
    }

    fn deliver(&mut self, at_ready: bool) {
        let Some(subscription) = &self.subscription else { return };
        if subscription.mailbox().is_empty() || !self.is_idle() {
            return;
        }
        let channels = &self.session.channels;
        let mail = subscription.mailbox().take(|channel| channels.is_in_force(channel));
        self.end_subscription_if_over();
        self.worker.shard.count.notifications_delivered.add(mail.notifications);
        if mail.bytes.is_empty() {
            return;
        }
        if at_ready {
            self.to_client.insert_before(mail.bytes, &encode::READY_IDLE);
        } else {
            self.to_client.push(mail.bytes);
            self.mark(Activity::Idle, clock::now());
        }
    }

    /// True if PostgreSQL would hand over notifications now: outside of a transaction, with nothing
    /// due and no message half way.
    fn is_idle(&self) -> bool {
        let between = match &self.attachment {
            Attachment::Detached => !self.skipping,
            Attachment::Waiting { .. } => false,
            Attachment::Attached(lease) => {
                let server = &lease.server;
                server.side.pipeline.is_settled()
                    && server.passing == Passing::Nothing
                    && self.to_server.is_empty()
            }
        };
        between && !self.session.is_streaming() && !self.session.channels.is_followed()
    }
}
