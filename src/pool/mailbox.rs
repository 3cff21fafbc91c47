//! Where notifications wait for a client: a queue with a bound, and what it must be told of.

use super::seat::{Kick, Seat};
use crate::wire::{ErrorResponse, SqlState};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of notifications that wait for one client.
const BYTES_MAX: usize = 1 << 20;

/// A notification as it came, for however many clients.
pub struct Notification {
    /// Its channel.
    pub channel: Box<[u8]>,
    /// The whole `NotificationResponse`.
    pub message: Box<[u8]>,
}

/// A client's queue.
pub struct Mailbox {
    seat: Arc<Seat>,
    queued_max: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Arc<Notification>>,
    bytes: usize,
    /// How many at the front of the queue are the client's, whatever it listens on by now.
    due: usize,
    /// Some were dropped since the client was last told.
    overflowed: bool,
    /// The connection that listens was lost, and is back.
    interrupted: bool,
}

/// What is handed to a client.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// Messages, as they go to the client.
    pub bytes: Vec<u8>,
    /// How many notifications are among them.
    pub notifications: u64,
}

impl Mailbox {
    /// An empty one of the client in `seat`.
    #[must_use]
    pub fn new(seat: &Arc<Seat>, queued_max: usize) -> Arc<Self> {
        Arc::new(Self {
            seat: Arc::clone(seat),
            queued_max: AtomicUsize::new(queued_max),
            inner: Mutex::default(),
        })
    }

    /// Changes the bound.
    pub fn set_bound(&self, queued_max: usize) {
        self.queued_max.store(queued_max, Ordering::Relaxed);
    }

    /// Puts `notification` behind the others. Yields how many were dropped for it, which are none
    /// or all: a client that missed some cannot tell which.
    pub(super) fn push(&self, notification: &Arc<Notification>) -> u64 {
        let dropped = {
            let mut inner = self.inner.lock();
            let full = inner.queue.len() >= self.queued_max.load(Ordering::Relaxed)
                || inner.bytes + notification.message.len() > BYTES_MAX;
            let dropped = if full {
                inner.overflowed = true;
                inner.bytes = 0;
                inner.due = 0;
                let dropped = inner.queue.len();
                inner.queue = VecDeque::new();
                dropped
            } else {
                0
            };
            inner.bytes += notification.message.len();
            inner.queue.push_back(Arc::clone(notification));
            u64::try_from(dropped).unwrap_or(u64::MAX)
        };
        self.wake();
        dropped
    }

    /// The connection that listens was lost, and listens again.
    pub(super) fn interrupted(&self) {
        self.inner.lock().interrupted = true;
        self.wake();
    }

    /// The client should look up.
    pub(super) fn wake(&self) {
        self.seat.kick(Kick::NOTIFIED);
    }

    /// Drops what `is_wanted` does not want.
    pub fn retain(&self, is_wanted: impl Fn(&[u8]) -> bool) {
        self.inner.lock().retain(is_wanted);
    }

    /// Drops what `is_wanted` does not want; all the rest is the client's, even if it stops to want it before it can
    /// take it.
    pub fn settle(&self, is_wanted: impl Fn(&[u8]) -> bool) {
        let mut inner = self.inner.lock();
        inner.retain(is_wanted);
        inner.due = inner.queue.len();
    }

    /// True if there is nothing to hand over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let inner = self.inner.lock();
        inner.queue.is_empty() && !inner.overflowed && !inner.interrupted
    }

    /// Takes out everything, in order, but for what `is_wanted` does not want and is not settled.
    pub fn take(&self, is_wanted: impl Fn(&[u8]) -> bool) -> Mail {
        let mut inner = std::mem::take(&mut *self.inner.lock());
        inner.retain(is_wanted);
        let mut mail = Mail::default();
        if inner.interrupted {
            ErrorResponse::warning(SqlState::WARNING, "notifications may have been missed")
                .with_detail(
                    "The connection to the database that listens was lost. It listens again.",
                )
                .encode(&mut mail.bytes);
        }
        if inner.overflowed {
            ErrorResponse::warning(SqlState::WARNING, "notifications were lost")
                .with_detail(
                    "More of them came than are kept for a client that does not take them.",
                )
                .with_hint(
                    "Read more often, keep transactions short, or raise max_notifications_queued.",
                )
                .encode(&mut mail.bytes);
        }
        for notification in &inner.queue {
            mail.bytes.extend_from_slice(&notification.message);
            mail.notifications += 1;
        }
        mail
    }
}

impl Inner {
    fn retain(&mut self, is_wanted: impl Fn(&[u8]) -> bool) {
        let mut due = self.due;
        self.queue.retain(|notification| {
            let is_due = due > 0;
            due = due.saturating_sub(1);
            is_due || is_wanted(&notification.channel)
        });
        self.bytes = self.queue.iter().map(|notification| notification.message.len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notification(channel: &str, len: usize) -> Arc<Notification> {
        let message = vec![b'A'; len].into();
        Arc::new(Notification { channel: channel.as_bytes().into(), message })
    }

    #[test]
    fn notifications_are_taken_in_order_and_only_those_of_the_clients_channels() {
        let mailbox = Mailbox::new(&Arc::default(), 10);
        for (channel, len) in [("a", 1), ("b", 2), ("a", 4)] {
            assert_eq!(mailbox.push(&notification(channel, len)), 0);
        }
        let mail = mailbox.take(|channel| channel == b"a");
        assert_eq!(mail, Mail { bytes: vec![b'A'; 5], notifications: 2 });
        assert!(mailbox.is_empty());
    }

    #[test]
    fn what_is_settled_is_taken_whatever_is_wanted_by_then() {
        let mailbox = Mailbox::new(&Arc::default(), 10);
        for (channel, len) in [("a", 1), ("b", 2), ("a", 4)] {
            mailbox.push(&notification(channel, len));
        }
        mailbox.settle(|channel| channel == b"a");
        mailbox.push(&notification("a", 8));
        mailbox.retain(|channel| channel == b"b");
        let mail = mailbox.take(|_| false);
        assert_eq!(mail, Mail { bytes: vec![b'A'; 5], notifications: 2 });
        mailbox.push(&notification("a", 1));
        assert_eq!(mailbox.take(|_| false), Mail::default(), "that was once");
    }

    #[test]
    fn beyond_the_bound_all_are_dropped_and_the_client_is_told_once() {
        let mailbox = Mailbox::new(&Arc::default(), 3);
        let dropped: u64 = (0..7).map(|_| mailbox.push(&notification("a", 1))).sum();
        assert_eq!(dropped, 6);
        let mail = mailbox.take(|_| true);
        assert_eq!(mail.notifications, 1);
        assert_eq!(mail.bytes[0], b'N');
        assert!(mailbox.is_empty());
    }

    #[test]
    fn the_bytes_have_a_bound_too() {
        let mailbox = Mailbox::new(&Arc::default(), 1_000_000);
        let size = 8000;
        let dropped: u64 =
            (0..=BYTES_MAX / size).map(|_| mailbox.push(&notification("a", size))).sum();
        assert_eq!(dropped, (BYTES_MAX / size) as u64);
    }

    #[test]
    fn an_interruption_is_told_before_what_came_after_it() {
        let mailbox = Mailbox::new(&Arc::default(), 3);
        mailbox.interrupted();
        mailbox.push(&notification("a", 1));
        let bytes = mailbox.take(|_| true).bytes;
        assert_eq!((bytes[0], bytes[bytes.len() - 1]), (b'N', b'A'));
    }
}
