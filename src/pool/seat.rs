//! A client's seat: where it waits for a server, is told to stop, and can be cancelled.
//!
//! There is one per client for as long as it is connected, so that waiting allocates nothing.
//! Everything in it is decided under its own short lock: a server is handed over, a wait is given
//! up, or a cancel finds its target, but never two of them at once.

use super::BorrowError;
use crate::server::Server;
use crate::server::cancel::{CancelTarget, Fence};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};

/// Reasons to look up from a wait, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kick(u32);

impl Kick {
    /// Nothing happened.
    pub const NONE: Self = Self(0);
    /// A cancel request came while the client waited for a server.
    pub const CANCEL: Self = Self(1);
    /// pgweir stops: finish the transaction and go.
    pub const DRAIN: Self = Self(2);
    /// pgweir stops now.
    pub const STOP: Self = Self(4);
    /// The client has been idle for longer than allowed, or connected for longer.
    pub const IDLE: Self = Self(8);
    /// The client holds a server and does nothing with it.
    pub const HOLDING: Self = Self(16);
    /// The client does not read what it asked for.
    pub const STALLED: Self = Self(32);
    /// The client should live on another thread.
    pub const MOVE: Self = Self(64);
    /// Notifications came, or the listening connection is ready.
    pub const NOTIFIED: Self = Self(128);
    /// The server that is kept for the client is one too many.
    pub const SURPLUS: Self = Self(256);

    /// True if any bit of `other` is set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

#[derive(Default)]
enum Hand {
    #[default]
    Empty,
    Waiting,
    Given(Box<Server>),
    Refused(BorrowError),
}

#[derive(Default)]
struct Inner {
    waker: Option<Waker>,
    hand: Hand,
    /// How often the client has waited.
    waits: u64,
    running: Option<Arc<CancelTarget>>,
}

/// A client's seat.
#[derive(Default)]
pub struct Seat {
    inner: Mutex<Inner>,
    kicks: AtomicU32,
}

/// A client's place in the queue, for one wait: whoever comes with it too late does not meddle with the next.
pub struct Turn {
    seat: Arc<Seat>,
    number: u64,
}

impl Turn {
    /// True if it is of the client in `seat`.
    #[must_use]
    pub fn is_of(&self, seat: &Arc<Seat>) -> bool {
        Arc::ptr_eq(&self.seat, seat)
    }

    /// Gives the client a server, if it still waits.
    ///
    /// # Errors
    /// The server itself, for somebody else.
    pub fn give(&self, server: Box<Server>) -> Result<(), Box<Server>> {
        let mut inner = self.seat.inner.lock();
        if !self.is_due(&inner) {
            return Err(server);
        }
        inner.take(Hand::Given(server));
        Ok(())
    }

    /// Tells the client that no server will come, if it still waits.
    pub fn refuse(&self, error: BorrowError) {
        let mut inner = self.seat.inner.lock();
        if self.is_due(&inner) {
            inner.take(Hand::Refused(error));
        }
    }

    fn is_due(&self, inner: &Inner) -> bool {
        inner.waits == self.number && matches!(inner.hand, Hand::Waiting)
    }
}

impl Inner {
    fn take(&mut self, hand: Hand) {
        self.hand = hand;
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

/// What a cancel request found.
pub enum CancelOutcome {
    /// The client's statement runs on this server, which is now fenced.
    Running(Fence),
    /// The client waited for a server, and was told.
    Waiting,
    /// The client does nothing.
    Nothing,
}

impl Seat {
    /// Remembers the task that must wake up. A task's waker stays the same for its life.
    pub fn settle(&self, waker: &Waker) {
        self.inner.lock().waker = Some(waker.clone());
    }

    /// Tells the client of `kick`.
    pub fn kick(&self, kick: Kick) {
        self.kicks.fetch_or(kick.0, Ordering::AcqRel);
        let inner = self.inner.lock();
        if let Some(waker) = &inner.waker {
            waker.wake_by_ref();
        }
    }

    /// What the client was told and has not taken.
    #[must_use]
    pub fn kicks(&self) -> Kick {
        Kick(self.kicks.load(Ordering::Acquire))
    }

    /// Takes back `kick`.
    pub fn clear(&self, kick: Kick) {
        self.kicks.fetch_and(!kick.0, Ordering::AcqRel);
    }

    /// The client waits from now on.
    pub fn wait(self: &Arc<Self>) -> Turn {
        let mut inner = self.inner.lock();
        inner.hand = Hand::Waiting;
        inner.waits += 1;
        Turn { seat: Arc::clone(self), number: inner.waits }
    }

    /// True if the client waits, or has not taken what came of it.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !matches!(self.inner.lock().hand, Hand::Empty)
    }

    /// The outcome of the wait.
    pub fn poll_hand(&self, _cx: &mut Context<'_>) -> Poll<Result<Box<Server>, BorrowError>> {
        let mut inner = self.inner.lock();
        match std::mem::take(&mut inner.hand) {
            Hand::Given(server) => Poll::Ready(Ok(server)),
            Hand::Refused(error) => Poll::Ready(Err(error)),
            waiting @ (Hand::Waiting | Hand::Empty) => {
                inner.hand = waiting;
                Poll::Pending
            }
        }
    }

    /// The client waits no longer. Yields the server that came meanwhile.
    pub fn stop_waiting(&self) -> Option<Box<Server>> {
        match std::mem::take(&mut self.inner.lock().hand) {
            Hand::Given(server) => Some(server),
            Hand::Empty | Hand::Waiting | Hand::Refused(_) => None,
        }
    }

    /// From now on, the client's statements run on `target`.
    pub fn begin(&self, target: &Arc<CancelTarget>) {
        self.inner.lock().running = Some(Arc::clone(target));
    }

    /// From now on, the client runs nothing. A cancel that found the server has fenced it.
    pub fn end(&self) {
        self.inner.lock().running = None;
    }

    /// Finds what a cancel request is to hit.
    pub fn cancel(&self) -> CancelOutcome {
        let inner = self.inner.lock();
        if let Some(target) = &inner.running {
            return CancelOutcome::Running(target.fence());
        }
        if matches!(inner.hand, Hand::Waiting | Hand::Given(_)) {
            drop(inner);
            self.kick(Kick::CANCEL);
            return CancelOutcome::Waiting;
        }
        CancelOutcome::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_comes_late_does_not_end_the_next_wait() {
        let seat: Arc<Seat> = Arc::default();
        let mut cx = Context::from_waker(Waker::noop());
        let late = seat.wait();
        assert!(seat.stop_waiting().is_none());
        let turn = seat.wait();
        late.refuse(BorrowError::Cancelled);
        assert!(seat.poll_hand(&mut cx).is_pending());
        turn.refuse(BorrowError::Shutdown);
        let told = seat.poll_hand(&mut cx);
        assert!(matches!(told, Poll::Ready(Err(BorrowError::Shutdown))));
    }
}
