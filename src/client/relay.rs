//! A client attached to a server: bytes both ways, each direction with its own bounded backlog.
//!
//! Neither side is read while what it sent before is still to be written, so a slow reader slows
//! its writer and nothing piles up. Four system calls make a transaction: receive, send, receive,
//! send.

use super::backlog::{Backlog, give_buffer, take_buffer};
use super::registry::Activity;
use super::serve::{Attachment, Client, End, PIECE_MAX};
use crate::net::buffer::Chunk;
use crate::pool::seat::Kick;
use crate::pool::{CountedPin, Lease};
use crate::server::{CloseReason, Server};
use crate::state::pipeline::Surprise;
use crate::state::prelude;
use crate::state::reply::{self, Discarded, Event, Outgoing, Passing};
use crate::state::session::{Extent, Limits, Requests, STATEMENT_MAX};
use crate::state::statement::Effects;
use crate::state::{PinReason, TransactionStatus};
use crate::telemetry::clock;
use crate::telemetry::metrics::{GaugeGuard, GaugeKind, Label, QueryProtocol};
use crate::wire::encode;
use std::task::{Context, Poll, ready};
use std::time::Instant;

impl Label for PinReason {
    const ALL: &'static [Self] = &Self::ALL;

    fn as_label(self) -> &'static str {
        Self::as_label(self)
    }

    fn index(self) -> usize {
        Self::index(self)
    }
}

/// Since when, and why, a client keeps its server.
pub(super) struct PinnedSince {
    since: Instant,
    reason: PinReason,
    _gauge: GaugeGuard,
    _counted: CountedPin,
}

impl Client {
    pub(super) fn poll_to_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        match self.to_client.poll_write(cx, &mut self.stream) {
            Poll::Ready(Ok(written)) => {
                self.worker.shard.count.client_bytes_sent.add(written as u64);
                Poll::Ready(Ok(()))
            }
            // Nobody reads any more, but what was sent is still carried out.
            Poll::Ready(Err(_)) if self.leaving => {
                self.to_client = Backlog::Empty;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(End::Gone)),
            Poll::Pending => {
                self.mark_not_reading();
                Poll::Pending
            }
        }
    }

    /// The client's time to read begins when it first stops reading.
    fn mark_not_reading(&self) {
        if !self.entered.does(Activity::DoesNotRead) {
            self.mark(Activity::DoesNotRead, clock::now());
        }
    }

    /// Moves bytes both ways as far as that goes without waiting.
    ///
    /// Ready: look again. Pending: whatever can make a difference wakes the task, and each socket
    /// was asked once and no more often than that.
    pub(super) fn poll_attached(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let (wrote, mut moved) = (self.poll_backlogs(cx)?, false);
        let mut client_waits = false;
        if self.to_server.is_empty() {
            if !self.inbound.is_empty() {
                let before = self.inbound.len();
                self.take_in_held()?;
                moved |= self.inbound.len() < before;
            }
            if self.may_read_client() {
                client_waits = self.poll_from_client(cx)?.is_pending();
                moved |= !client_waits;
            }
        }
        // What the client sent goes out before the server is asked.
        if moved && !self.to_server.is_empty() {
            let _ = self.poll_to_server(cx)?;
        }
        if self.to_client.is_empty()
            && matches!(self.attachment, Attachment::Attached(_))
            && self.poll_from_server(cx)?.is_ready()
        {
            moved = true;
        }
        let Attachment::Attached(lease) = &self.attachment else {
            let at_rest = client_waits && self.is_at_rest();
            return if at_rest { Poll::Pending } else { Poll::Ready(Ok(())) };
        };
        if self.leaving
            && self.to_server.is_empty()
            && self.to_client.is_empty()
            && lease.server.side.pipeline.waits_for_client()
        {
            return Poll::Ready(Err(End::Terminated));
        }
        let activity = if moved || wrote { Activity::Busy } else { self.activity(lease) };
        if !self.entered.does(activity) {
            self.mark(activity, clock::now());
        }
        if moved { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Writes what is there to be written. Yields whether any of it is done with.
    fn poll_backlogs(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut wrote = !self.to_server.is_empty() && done(self.poll_to_server(cx))?;
        wrote |= !self.to_client.is_empty() && done(self.poll_to_client(cx))?;
        Ok(wrote)
    }

    /// True if a client that has just let go of its server has nothing to do but wait for its
    /// next message, and nobody has told it anything.
    fn is_at_rest(&self) -> bool {
        matches!(self.attachment, Attachment::Detached)
            && self.inbound.is_empty()
            && self.to_client.is_empty()
            && !self.leaving
            && self.entered.seat.kicks() == Kick::NONE
    }

    /// What is waited for while nothing moves.
    fn activity(&self, lease: &Lease) -> Activity {
        let pipeline = &lease.server.side.pipeline;
        if !self.to_client.is_empty() {
            Activity::DoesNotRead
        } else if self.session.is_streaming() && self.to_server.is_empty() {
            // Whatever is due, the server cannot come to it.
            Activity::Unfinished
        } else if !self.to_server.is_empty() || !pipeline.waits_for_client() {
            Activity::Busy
        } else if !self.inbound.is_empty() {
            Activity::Unfinished
        } else if pipeline.is_settled() && self.session.keeps_server() {
            Activity::Idle
        } else {
            Activity::HoldsServer
        }
    }

    fn may_read_client(&self) -> bool {
        let Attachment::Attached(lease) = &self.attachment else { return false };
        self.to_server.is_empty()
            && !self.leaving
            && self.inbound.len() <= STATEMENT_MAX + PIECE_MAX
            && lease.server.side.pipeline.has_room()
    }

    fn poll_to_server(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Attachment::Attached(lease) = &mut self.attachment else { return Poll::Pending };
        match ready!(self.to_server.poll_write(cx, &mut lease.server.stream)) {
            Ok(written) => {
                self.worker.shard.count.database_bytes_sent.add(written as u64);
                Poll::Ready(Ok(()))
            }
            // What it said last may still be there to be read, and says why.
            Err(_) => {
                self.to_server = Backlog::Empty;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Translates the front of `bytes` for the server. Yields how much of it is done with.
    pub(super) fn send_to_server(&mut self, bytes: &[u8]) -> Result<usize, End> {
        if !self.to_server.is_empty() || self.session.is_examined() {
            return Ok(0);
        }
        let limits = Limits {
            hidden_code: self.pool.has_hidden_code(),
            opaque_code: self.pool.has_opaque_code(),
            ddl_seen: self.pool.ddl_seen(),
            discard_sequences: self.pool.reads_sequences(),
            ..self.limits()
        };
        match self.session.extent(bytes, PIECE_MAX, &limits).map_err(End::Fault)? {
            Extent::Incomplete => return Ok(0),
            Extent::Terminate => {
                // PostgreSQL, too, comes to it after what was sent before.
                self.leaving = true;
                return Ok(bytes.len());
            }
            Extent::Batch(_) | Extent::Piece(_) => {}
        }
        let Attachment::Attached(lease) = &mut self.attachment else { return Ok(0) };
        let side = &mut lease.server.side;
        if !side.pipeline.has_room() {
            // The server's replies make room, and wake us. Until then there is nothing to write,
            // and a backlog of nothing would count as work done.
            return Ok(0);
        }
        let mut out = take_buffer();
        if side.pipeline.is_settled() {
            prelude::write(side, &self.session.settings, &limits, &mut out);
            self.asked.get_or_insert_with(clock::now);
        }
        let mut intern = &self.pool.pools().statements;
        let done = self
            .session
            .translate(side, &mut intern, &limits, bytes, &mut out)
            .map_err(End::Fault)?;
        let seen = self.session.take_seen();
        if seen.intersects(Effects::DDL | Effects::DO) {
            self.pool.note_ddl();
        }
        if self.session.take_changes_code() {
            self.pool.note_code();
        }
        if seen.intersects(Effects::SEQUENCE_READ) {
            self.pool.note_sequence_read();
        }
        let reparsed = std::mem::take(&mut side.reparsed);
        self.count(&done.requests, reparsed);
        if out.is_empty() {
            give_buffer(out);
        } else {
            self.to_server = Backlog::Bytes(out, 0);
        }
        self.pin_if_due();
        self.leaving |= done.terminate;
        Ok(if done.terminate { bytes.len() } else { done.consumed })
    }

    /// Adds only what is not zero: most is.
    fn count(&self, requests: &Requests, reparsed: u32) {
        let shard = &self.worker.shard;
        let tls = self.stream.is_tls();
        for (counter, number) in [
            (shard.queries(QueryProtocol::Simple, tls), requests.simple),
            (shard.queries(QueryProtocol::Extended, tls), requests.extended),
            (&shard.count.statements_prepared, requests.prepared),
            (&shard.count.statements_reprepared, reparsed),
        ] {
            if number > 0 {
                counter.add(u64::from(number));
            }
        }
    }

    fn pin_if_due(&mut self) {
        let Some(reason) = self.session.pin else { return };
        if self.pinned.is_some() {
            return;
        }
        tracing::info!(
            client = self.session.id,
            database = %self.pool.database,
            user = %self.pool.user,
            reason = reason.as_label(),
            advice = reason.advice(),
            "client pinned"
        );
        self.pinned = Some(Box::new(PinnedSince {
            since: clock::now(),
            reason,
            _gauge: self.worker.shard.enter_pin(reason),
            _counted: CountedPin::of(&self.pool),
        }));
    }

    pub(super) fn unpin(&mut self) {
        if let Some(pinned) = self.pinned.take() {
            let held = clock::now().saturating_duration_since(pinned.since);
            self.worker.shard.time.session_pin.observe(held);
            tracing::debug!(
                client = self.session.id,
                reason = pinned.reason.as_label(),
                held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX),
                "client unpinned"
            );
        }
    }

    fn poll_from_server(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Attachment::Attached(lease) = &mut self.attachment else { return Poll::Pending };
        let mut chunk = Chunk::take();
        let server = &mut *lease.server;
        let kept = server.held.len();
        let read = match ready!(poll_read_behind(server, cx, &mut chunk)) {
            Ok(0) | Err(_) => return Poll::Ready(Err(End::ServerLost)),
            Ok(read) => read,
        };
        self.worker.shard.count.database_bytes_received.add(read as u64);
        let input = chunk.get(..kept + read).unwrap_or_default();
        let mut out = Outgoing::default();
        let mut news = News::default();
        let sorted = reply::sort(
            &mut self.session,
            &mut server.side,
            &mut server.passing,
            input,
            &mut out,
            |event| news.take(&event),
        );
        let used = match sorted {
            Ok(used) => used,
            Err(surprise) => return Poll::Ready(Err(self.surprised(surprise))),
        };
        server.held.clear();
        server.held.extend_from_slice(input.get(used..).unwrap_or_default());
        if server.held.is_empty() {
            server.held = Vec::new();
        }
        let (range, spilled) = out.into_parts();
        self.to_client = if spilled.is_empty() {
            Backlog::Chunk(chunk, range)
        } else {
            Backlog::Bytes(spilled, 0)
        };
        self.after_replies(cx, &news)
    }

    fn surprised(&mut self, surprise: Surprise) -> End {
        tracing::warn!(
            client = self.session.id,
            database = %self.pool.database,
            user = %self.pool.user,
            error = &surprise as &dyn std::error::Error,
            "server closed: its replies do not match what was asked"
        );
        End::ServerLost
    }

    /// Acts on what came, after it was put into the backlog.
    fn after_replies(&mut self, cx: &mut Context<'_>, news: &News) -> Poll<Result<(), End>> {
        for sqlstate in news.errors.iter().flatten() {
            self.worker.shard.errors.of(sqlstate).one();
        }
        if news.fatal {
            // The client reads the server's last words, then the end of the connection.
            if self.poll_to_client(cx)?.is_pending() {
                return Poll::Pending;
            }
            return Poll::Ready(Err(End::ServerFatal));
        }
        if let Some(Discarded::All) = news.discarded {
            self.unpin_if_free();
            self.retell();
        }
        if news.ready > 0 {
            let now = clock::now();
            if let Some(asked) = self.asked.take() {
                let took = now.saturating_duration_since(asked);
                let time = &self.worker.shard.time;
                time.query_response.observe(took);
                let waited = std::mem::take(&mut self.waited);
                time.query_database_response.observe(took.saturating_sub(waited));
            }
            self.settle(now);
        }
        if news.examined {
            self.conclude();
        }
        if let Attachment::Attached(lease) = &self.attachment
            && lease.server.side.pipeline.waits_for_client()
            && self.entered.does(Activity::Busy)
        {
            self.mark(Activity::HoldsServer, clock::now());
        }
        if !self.to_client.is_empty() {
            let _ = self.poll_to_client(cx)?;
        }
        Poll::Ready(Ok(()))
    }

    fn unpin_if_free(&mut self) {
        if self.session.pin.is_none() {
            self.unpin();
        }
    }

    /// Tells the client what its settings are, where a reset has told it of other defaults.
    fn retell(&mut self) {
        if !self.session.take_retell() {
            return;
        }
        let startup = &self.session.startup;
        let reported = super::welcome::reported_at_login(&self.pool, startup);
        let mut out = take_buffer();
        for (name, value) in reported.iter().flatten() {
            if startup.get(&name.to_ascii_lowercase()).is_some() {
                encode::parameter_status(&mut out, name, value);
            }
        }
        if out.is_empty() {
            give_buffer(out);
        } else {
            self.to_client.push(out);
        }
    }

    /// The server has said what the client left there.
    fn conclude(&mut self) {
        let Attachment::Attached(lease) = &mut self.attachment else { return };
        self.session.conclude(&mut lease.server.side, self.pool.has_opaque_code());
        if self.session.pin.is_some() {
            self.entered.seat.begin(&lease.server.cancel);
        }
        self.unpin_if_free();
        self.pin_if_due();
        self.retell();
        self.let_go(clock::now());
    }

    /// Asks what the client has left, or gives the server back, if the transaction is over.
    fn settle(&mut self, now: Instant) {
        let Attachment::Attached(lease) = &mut self.attachment else { return };
        let settled = lease.server.side.pipeline.is_settled();
        if settled {
            self.worker.shard.count.transactions.one();
        }
        if lease.server.side.pipeline.status() == TransactionStatus::Idle {
            self.in_transaction = None;
        } else if self.in_transaction.is_none() {
            let kind = GaugeKind::DatabaseConnectionsInTransaction;
            self.in_transaction = Some(self.worker.shard.enter(kind));
        }
        let quiet = settled && self.to_server.is_empty() && !self.session.is_streaming();
        if quiet && self.session.is_examination_due() {
            // A cancel that comes late is not for the question.
            self.entered.seat.end();
            let mut out = take_buffer();
            let names = self.pool.settings_in_code();
            let names = names.iter().map(|name| &**name);
            self.session.examine(&mut lease.server.side, &self.pool.user, names, &mut out);
            self.to_server = Backlog::Bytes(out, 0);
            return;
        }
        self.let_go(now);
    }

    /// Gives the server back, if the transaction is over and nothing keeps it.
    fn let_go(&mut self, now: Instant) {
        let Attachment::Attached(lease) = &self.attachment else { return };
        let side = &lease.server.side;
        let tainted = side.pipeline.is_tainted();
        if !tainted && (!side.pipeline.is_settled() || self.session.keeps_server()) {
            return;
        }
        let clean = lease.server.passing == Passing::Nothing
            && self.to_server.is_empty()
            && !self.session.is_streaming();
        let attachment = std::mem::replace(&mut self.attachment, Attachment::Detached);
        let Attachment::Attached(lease) = attachment else { return };
        self.entered.seat.end();
        self.session.released();
        self.mark(Activity::Idle, now);
        if tainted || !clean {
            // What is left of a copy that failed is for nobody, least of all for the next server.
            self.to_server = Backlog::Empty;
            lease.close(CloseReason::NotClean);
        } else {
            lease.give_back(now);
        }
    }
}

/// Whether it is ready, or the error it ended with.
fn done(step: Poll<Result<(), End>>) -> Result<bool, End> {
    match step {
        Poll::Ready(Ok(())) => Ok(true),
        Poll::Ready(Err(end)) => Err(end),
        Poll::Pending => Ok(false),
    }
}

/// Reads behind what is held of an incomplete message, so that both are one piece.
fn poll_read_behind(
    server: &mut Server,
    cx: &mut Context<'_>,
    chunk: &mut Chunk,
) -> Poll<std::io::Result<usize>> {
    let kept = server.held.len();
    let Some((front, behind)) = chunk.split_at_mut_checked(kept) else {
        return Poll::Ready(Err(std::io::ErrorKind::InvalidData.into()));
    };
    front.copy_from_slice(&server.held);
    server.stream.poll_read(cx, behind)
}

/// What the replies in one read amounted to.
#[derive(Default)]
struct News {
    ready: u32,
    examined: bool,
    fatal: bool,
    /// The first few are counted; nobody needs the thousandth error of one read.
    errors: [Option<[u8; 5]>; 8],
    discarded: Option<Discarded>,
}

impl News {
    fn take(&mut self, event: &Event<'_>) {
        match event {
            Event::Ready => self.ready += 1,
            Event::Examined => self.examined = true,
            Event::Error { sqlstate, fatal } => {
                self.fatal |= fatal;
                if let Some(free) = self.errors.iter_mut().find(|slot| slot.is_none()) {
                    *free = Some(sqlstate.map_or(*b"XX000", |code| code.0));
                }
            }
            Event::ParameterStatus { .. } => {}
            Event::Discarded(discarded) => self.discarded = Some(*discarded),
        }
    }
}
