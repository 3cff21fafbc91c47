//! A client between its login and its end: idle, waiting for a server, or attached to one.
//!
//! One state machine, polled by the one task of the client. Nothing in it is lost when it is not
//! polled to the end: dropping it closes both connections.

use super::backlog::Backlog;
pub use super::end::End;
use super::handshake::Greeted;
use super::registry::{Activity, Entered};
use super::{Shared, Worker};
use crate::net::buffer::Chunk;
use crate::net::stream::Stream;
use crate::pool::listener::Subscription;
use crate::pool::seat::{Kick, Seat};
use crate::pool::{BorrowError, Lease, Patience, Pool};
use crate::server::Reported;
use crate::state::reset_query;
use crate::state::session::{ClientFault, Extent, Limits, STATEMENT_MAX, Session};
use crate::telemetry::clock;
use crate::telemetry::metrics::GaugeGuard;
use crate::wire::FrameError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// What a client may be ahead, in bytes: a batch up to this size goes out in one piece.
pub(super) const PIECE_MAX: usize = 64 * 1024;

/// How a client holds a server.
pub(super) enum Attachment {
    /// Not at all.
    Detached,
    /// It is in the queue.
    Waiting { since: Instant },
    /// For a transaction, or for longer if the session is pinned.
    Attached(Lease),
}

/// A client that is logged in.
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
pub struct Client {
    _presence: Presence,
    pub(super) stream: Stream,
    pub(super) session: Session,
    pub(super) attachment: Attachment,
    /// What came and could not be dealt with yet.
    pub(super) inbound: Vec<u8>,
    pub(super) to_client: Backlog,
    pub(super) to_server: Backlog,
    pub(super) pool: Arc<Pool>,
    pub(super) worker: Arc<Worker>,
    pub(super) entered: Arc<Entered>,
    pub(super) pinned: Option<Box<super::settle::PinnedSince>>,
    /// Its part in the connection that listens, if it listens.
    pub(super) subscription: Option<Box<Subscription>>,
    /// When the batch under way came.
    pub(super) asked: Option<Instant>,
    /// How long it waited for a server.
    pub(super) waited: Duration,
    /// Counts it while it is inside a transaction block.
    pub(super) in_transaction: Option<GaugeGuard>,
    /// Reading was pending, and its waker is there to wake the task.
    pub(super) sleeps: bool,
    /// The same of its server, if it is attached to one.
    pub(super) server_sleeps: bool,
    /// Skip up to the next `Sync`: the batch before it was refused.
    pub(super) skipping: bool,
    /// It sends no more, and its end once what it sent before is carried out.
    pub(super) leaving: Option<End>,
    /// It has got the beginning of a message: nothing can be said to it any more.
    pub(super) cut_short: bool,
    /// What fresh servers report, as of the last look.
    pub(super) baseline: Arc<Reported>,
    /// What it was told at its login, if that could not be foreseen.
    pub(super) learned: Option<Arc<Reported>>,
    pub(super) limits: Limits,
    /// The revision of the configuration that `limits` is of.
    limits_of: Option<u64>,
    _gauge: GaugeGuard,
}

/// What others find a client by, until this is dropped. Beside the client, so that its stream can be taken out of it.
struct Presence {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
    seat: Arc<Seat>,
    process_id: u32,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if self.seat.is_waiting() {
            self.pool.leave(&self.seat, clock::now());
        }
        self.shared.registry.leave(self.process_id);
    }
}

impl Client {
    pub(super) fn new(
        greeted: Greeted,
        pool: Arc<Pool>,
        baseline: Arc<Reported>,
        worker: Arc<Worker>,
        process_id: u32,
        entered: Arc<Entered>,
        gauge: GaugeGuard,
    ) -> Self {
        let id = worker.shared.next_client();
        Self {
            _presence: Presence {
                shared: Arc::clone(&worker.shared),
                pool: Arc::clone(&pool),
                seat: Arc::clone(&entered.seat),
                process_id,
            },
            stream: greeted.stream,
            session: Session::new(id, greeted.settings),
            attachment: Attachment::Detached,
            inbound: greeted.buffer,
            to_client: Backlog::Empty,
            to_server: Backlog::Empty,
            pool,
            entered,
            pinned: None,
            subscription: None,
            asked: None,
            waited: Duration::ZERO,
            in_transaction: None,
            sleeps: false,
            server_sleeps: false,
            skipping: false,
            leaving: None,
            cut_short: false,
            baseline,
            learned: None,
            limits: worker.shared.live().limits,
            limits_of: None,
            worker,
            _gauge: gauge,
        }
    }

    /// Takes note of the settings that the client was told at its login.
    pub(super) fn learn_of_server<'a>(
        &mut self,
        reported: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        self.session.learn_of_server(reported);
    }

    /// Its number in the log.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.session.id
    }

    /// True if its connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    /// Sizes and numbers, as of the last change of the configuration.
    pub(super) fn limits(&mut self) -> Limits {
        let revision = self.worker.shared.revision.load(Ordering::Acquire);
        if self.limits_of != Some(revision) {
            self.limits = self.worker.shared.live().limits;
            self.limits_of = Some(revision);
        }
        self.limits
    }

    pub(super) fn mark(&self, activity: Activity, now: Instant) {
        self.entered.mark(activity, self.worker.shared.registry.millis(now));
    }

    /// The client does `activity` from now on, if it did not before.
    pub(super) fn turn_to(&self, activity: Activity) {
        if activity == Activity::Busy {
            self.entered.mark_busy();
        } else if !self.entered.does(activity) {
            self.mark(activity, clock::now());
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if let Some(end) = self.heed() {
                return Poll::Ready(end);
            }
            self.notify();
            let step = match self.attachment {
                Attachment::Detached => self.poll_idle(cx),
                Attachment::Waiting { since } => self.poll_waiting(cx, since),
                Attachment::Attached(_) => self.poll_attached(cx),
            };
            match ready!(step) {
                Ok(()) => {}
                Err(end) => return Poll::Ready(end),
            }
        }
    }

    /// Looks at what the client was told by others.
    fn heed(&mut self) -> Option<End> {
        let seat = &self.entered.seat;
        let kicks = seat.kicks();
        if kicks == Kick::NONE {
            return None;
        }
        seat.clear(Kick::NOTIFIED);
        if kicks.has(Kick::STOP) {
            return Some(End::Shutdown);
        }
        // What it was told of may have ended since.
        if kicks.has(Kick::STALLED) {
            if self.entered.does(Activity::DoesNotRead) {
                return Some(End::Stalled);
            }
            if self.entered.does(Activity::Unfinished) {
                return Some(End::Unfinished);
            }
            if self.entered.does(Activity::Leaving) {
                return Some(End::Gone);
            }
            seat.clear(Kick::STALLED);
        }
        if kicks.has(Kick::HOLDING) {
            if self.entered.does(Activity::HoldsServer) {
                return Some(End::IdleInTransaction);
            }
            seat.clear(Kick::HOLDING);
        }
        if kicks.has(Kick::IDLE) {
            if self.entered.is_idle() {
                return Some(End::IdleTimeout);
            }
            seat.clear(Kick::IDLE);
        }
        if kicks.has(Kick::SURPLUS) {
            if self.entered.does(Activity::IdlePinned) {
                return Some(End::Surplus);
            }
            seat.clear(Kick::SURPLUS);
        }
        match &self.attachment {
            Attachment::Detached => {
                seat.clear(Kick::CANCEL);
                if kicks.has(Kick::DRAIN) && self.inbound.is_empty() {
                    return Some(End::Shutdown);
                }
                if kicks.has(Kick::MOVE) {
                    seat.clear(Kick::MOVE);
                    let quiet = self.inbound.is_empty() && self.to_client.is_empty();
                    if quiet && self.entered.destination() != self.worker.index {
                        return Some(End::Moves);
                    }
                }
            }
            Attachment::Waiting { .. } if kicks.has(Kick::CANCEL) => {
                seat.clear(Kick::CANCEL);
                self.give_up_waiting(&BorrowError::Cancelled);
            }
            Attachment::Waiting { .. } => {}
            Attachment::Attached(lease) => {
                seat.clear(Kick::CANCEL);
                let between = lease.server.side.pipeline.is_settled() && self.to_server.is_empty();
                if kicks.has(Kick::DRAIN) && between && self.inbound.is_empty() {
                    return Some(End::Shutdown);
                }
            }
        }
        None
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if !self.to_client.is_empty() {
            ready!(self.poll_to_client(cx))?;
            // It read late, with nobody waiting for it.
            if self.entered.does(Activity::DoesNotRead) {
                self.mark(Activity::Idle, clock::now());
            }
            if self.subscription.is_some() {
                return Poll::Ready(Ok(()));
            }
        }
        if !self.inbound.is_empty() && self.begin()? {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = self.leaving {
            return if self.asks_for_batch() { Poll::Pending } else { Poll::Ready(Err(end)) };
        }
        if self.inbound.len() > STATEMENT_MAX + PIECE_MAX {
            if self.session.channels.is_asking() {
                // What it waited for may have come since it was looked at.
                return if self.waits_for_listener() { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            return Poll::Ready(Err(End::Fault(ClientFault::Frame(FrameError::TooLarge {
                tag: 0,
                frame_len: self.inbound.len(),
            }))));
        }
        ready!(self.poll_from_client(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Reads what the client sends behind what is already there.
    pub(super) fn poll_from_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.sleeps && !self.stream.may_be_readable() {
            return Poll::Pending;
        }
        let mut chunk = Chunk::take();
        let read = self.stream.poll_read(cx, &mut chunk);
        self.sleeps = self.worker.is_woken_after(&read);
        let read = match ready!(read) {
            Ok(0) | Err(_) => return Poll::Ready(self.sends_no_more()),
            Ok(read) => read,
        };
        self.worker.shard.count.client_bytes_received.add(read as u64);
        let bytes = chunk.get(..read).unwrap_or_default();
        if self.inbound.is_empty() {
            let used = self.take_in(bytes)?;
            self.inbound.extend_from_slice(bytes.get(used..).unwrap_or_default());
        } else {
            self.inbound.extend_from_slice(bytes);
            self.take_in_held()?;
        }
        Poll::Ready(Ok(()))
    }

    /// Deals with what is held, as far as that can be done. Yields whether anything was.
    fn begin(&mut self) -> Result<bool, End> {
        let before = self.inbound.len();
        self.take_in_held()?;
        // With a server, or in the queue for one, something else is to be waited for.
        let idle = matches!(self.attachment, Attachment::Detached);
        Ok(!idle || !self.to_client.is_empty() || self.inbound.len() < before)
    }

    pub(super) fn take_in_held(&mut self) -> Result<(), End> {
        let mut held = std::mem::take(&mut self.inbound);
        let used = self.take_in(&held)?;
        held.drain(..used);
        // An idle client holds no buffer.
        self.inbound = if held.is_empty() { Vec::new() } else { held };
        Ok(())
    }

    /// Deals with the front of `bytes`. Yields how much of it is done with.
    fn take_in(&mut self, bytes: &[u8]) -> Result<usize, End> {
        if let Attachment::Attached(_) = self.attachment {
            return self.send_to_server(bytes);
        }
        let limits = self.limits();
        if self.skipping {
            return self.skip(bytes);
        }
        let late = self.session.discard_idle(bytes, &limits).map_err(End::Fault)?;
        let rest = bytes.get(late..).unwrap_or_default();
        if reset_query::may_be_first(rest)
            && let Attachment::Detached = self.attachment
            && let Some(used) = self.answer_reset(rest)
        {
            // What is behind it is taken in when the answer is out.
            return Ok(late + used);
        }
        match self.session.extent(rest, PIECE_MAX, &limits).map_err(End::Fault)? {
            Extent::Incomplete => Ok(late),
            Extent::Terminate => Err(End::Terminated),
            Extent::Batch(_) | Extent::Piece(_) => {
                if let Attachment::Waiting { .. } = self.attachment {
                    return Ok(late);
                }
                // Before it has a place in the queue, which it would have to take a second time.
                while self.session.asks_first(rest, &limits, || self.pool.is_listening()) {
                    if self.waits_for_listener() {
                        return Ok(late);
                    }
                }
                if !self.acquire() {
                    return Ok(late);
                }
                Ok(late + self.send_batch(rest, limits)?)
            }
        }
    }

    /// Gets a server at once, or a place in the queue.
    fn acquire(&mut self) -> bool {
        let now = clock::now();
        self.asked = Some(now);
        self.waited = Duration::ZERO;
        let shard = &self.worker.shard;
        shard.count.database_connections_borrow_requests.one();
        let seat = &self.entered.seat;
        let patience = Patience::AsConfigured;
        match self.pool.borrow(seat, self.worker.index, &self.session.settings, patience, now) {
            Ok(Some(lease)) => {
                shard.time.borrow.observe(Duration::ZERO);
                self.attach(lease);
                true
            }
            Ok(None) => {
                self.entered.mark_busy();
                self.attachment = Attachment::Waiting { since: now };
                false
            }
            Err(error) => {
                self.refuse_batch(&error);
                false
            }
        }
    }

    fn attach(&mut self, lease: Lease) {
        self.entered.seat.begin(&lease.server.cancel);
        self.entered.mark_busy();
        // Whatever waker its socket has is another client's.
        self.server_sleeps = false;
        self.attachment = Attachment::Attached(lease);
        if self.leaving.is_some() {
            self.mark(Activity::Leaving, clock::now());
        }
    }

    fn poll_waiting(&mut self, cx: &mut Context<'_>, since: Instant) -> Poll<Result<(), End>> {
        let came = self.pool.poll_wait(cx, &self.entered.seat, self.worker.index);
        match came {
            Poll::Ready(Ok(Some(lease))) => {
                let now = clock::now();
                self.waited = now.saturating_duration_since(since);
                self.worker.shard.time.borrow.observe(self.waited);
                self.attach(lease);
                self.take_in_held()?;
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Ok(None)) => {
                self.attachment = Attachment::Detached;
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(error)) => {
                if let BorrowError::Timeout { .. } = error {
                    self.worker.shard.count.database_connections_borrow_timeouts.one();
                }
                self.attachment = Attachment::Detached;
                self.refuse_batch(&error);
                return Poll::Ready(Ok(()));
            }
            Poll::Pending => {}
        }
        if self.leaving.is_some() || self.inbound.len() > STATEMENT_MAX + PIECE_MAX {
            return Poll::Pending;
        }
        match ready!(self.poll_from_client(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(end) => {
                self.worker.shard.count.database_connections_borrow_requests_aborted.one();
                Poll::Ready(Err(end))
            }
        }
    }
}

/// How serving a client on this thread came to an end.
pub enum Served {
    /// Its connection ended.
    Ended(End),
    /// It goes on, on the thread of this number.
    Moves(Box<Client>, usize),
}

/// Serves a client to its end, or until it is to move to another thread.
pub async fn serve(mut client: Box<Client>) -> Served {
    let end = std::future::poll_fn({
        let mut settled = false;
        let client = &mut client;
        move |cx| {
            if !settled {
                client.entered.seat.settle(cx.waker());
                settled = true;
            }
            client.poll(cx)
        }
    })
    .await;
    if end == End::Moves {
        let to = client.entered.destination();
        return Served::Moves(client, to);
    }
    client.release(end);
    // Boxed: only a client that ends needs the room.
    Box::pin(client.say_goodbye(end)).await;
    Served::Ended(end)
}
