//! A client attached to a server: bytes both ways, each direction with its own bounded backlog.
//!
//! Neither side is read while what it sent before is still to be written, so a slow reader slows
//! its writer and nothing piles up. Four system calls make a transaction: receive, send, receive,
//! send.

use super::backlog::{Backlog, give_buffer, take_buffer};
use super::registry::Activity;
use super::serve::{Attachment, Client, End, PIECE_MAX};
use crate::net::buffer::Chunk;
use crate::pool::Lease;
use crate::pool::seat::Kick;
use crate::server::Server;
use crate::state::pipeline::Surprise;
use crate::state::prelude;
use crate::state::reply::{self, Discarded, Event, Outgoing};
use crate::state::session::{CHANGES_PLANS, Extent, Limits, Requests, STATEMENT_MAX};
use crate::state::statement::Effects;
use crate::telemetry::clock;
use crate::telemetry::metrics::QueryProtocol;
use std::task::{Context, Poll, ready};

impl Client {
    pub(super) fn poll_to_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        match self.to_client.poll_write(cx, &mut self.stream) {
            Poll::Ready(Ok(written)) => {
                self.worker.shard.count.client_bytes_sent.add(written as u64);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(self.reads_no_more()),
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
        let wrote = self.poll_backlogs(cx)?;
        // Notifications that came while it did not read are behind what is now out.
        let mut moved = wrote && self.subscription.is_some();
        let mut client_waits = false;
        if self.to_server.is_empty() {
            if !self.inbound.is_empty() {
                let before = self.inbound.len();
                self.take_in_held()?;
                // Perhaps only what goes ahead of it can be sent by now.
                moved |= self.inbound.len() < before || !self.to_server.is_empty();
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
        if let Some(end) = self.leaving {
            if !moved && self.is_done_with(lease) {
                return Poll::Ready(Err(end));
            }
            self.turn_to_leaving(moved || wrote);
        } else {
            // Nothing else may wake the task that has only written: a server may owe nothing for it.
            self.turn_to(if moved { Activity::Busy } else { self.activity(lease) });
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
    /// next message, and nobody has told it anything. (What it was notified of while its server
    /// was still asked is not told a second time.)
    fn is_at_rest(&self) -> bool {
        matches!(self.attachment, Attachment::Detached)
            && self.inbound.is_empty()
            && self.to_client.is_empty()
            && self.leaving.is_none()
            && self.entered.seat.kicks() == Kick::NONE
            && self.subscription.as_ref().is_none_or(|channels| channels.mailbox().is_empty())
    }

    /// What is waited for while nothing moves.
    fn activity(&self, lease: &Lease) -> Activity {
        let pipeline = &lease.server.side.pipeline;
        if !self.to_client.is_empty() {
            Activity::DoesNotRead
        } else if self.asks_for_batch() {
            Activity::Busy
        } else if self.session.is_streaming() && self.to_server.is_empty() {
            // Whatever is due, the server cannot come to it.
            Activity::Unfinished
        } else if !self.to_server.is_empty() || !pipeline.waits_for_client() {
            Activity::Busy
        } else if !self.inbound.is_empty() {
            Activity::Unfinished
        } else if pipeline.is_settled() && self.session.keeps_server() {
            Activity::IdlePinned
        } else {
            Activity::HoldsServer
        }
    }

    fn may_read_client(&self) -> bool {
        let Attachment::Attached(lease) = &self.attachment else { return false };
        self.to_server.is_empty()
            && self.leaving.is_none()
            && self.inbound.len() <= STATEMENT_MAX + PIECE_MAX
            && (lease.server.side.pipeline.has_room() || self.session.is_streaming())
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
        let limits = self.limits();
        match self.session.extent(bytes, PIECE_MAX, &limits).map_err(End::Fault)? {
            Extent::Incomplete => return Ok(0),
            Extent::Terminate => {
                // PostgreSQL, too, comes to it after what was sent before.
                self.leaving = Some(End::Terminated);
                return Ok(bytes.len());
            }
            Extent::Batch(_) | Extent::Piece(_) => {}
        }
        self.send_batch(bytes, limits)
    }

    /// Translates the front of `bytes`, of which some can be sent.
    pub(super) fn send_batch(&mut self, bytes: &[u8], limits: Limits) -> Result<usize, End> {
        let code_seen = self.pool.code_seen();
        if self.session.code_seen != code_seen {
            self.learn_of_pool(code_seen);
        }
        let limits = Limits {
            hidden_code: self.pool.has_hidden_code(),
            code_in_reads: self.pool.has_code_in_reads(),
            opaque_code: self.pool.has_opaque_code(),
            ddl_seen: self.pool.ddl_seen(),
            sequences: self.pool.sequence_care(),
            ..limits
        };
        let Attachment::Attached(lease) = &mut self.attachment else { return Ok(0) };
        let side = &mut lease.server.side;
        if !side.pipeline.has_room() && !self.session.is_streaming() {
            // The server's replies make room, and wake us. Until then there is nothing to write,
            // and a backlog of nothing would count as work done.
            return Ok(0);
        }
        let mut out = take_buffer();
        if side.pipeline.is_settled() {
            prelude::free(side, &self.session.settings, &mut out);
            self.session.close_foreign(side, &mut out);
            if self.session.separate_sequences(side, &limits, &mut out) {
                self.pool.note_separation();
            }
            prelude::write(side, &self.session.settings, &limits, &mut out);
            self.asked.get_or_insert_with(clock::now);
        }
        let mut intern = self.pool.statements(limits.ddl_seen);
        let done = self
            .session
            .translate(side, &mut intern, &limits, bytes, &mut out)
            .map_err(End::Fault)?;
        if side.pipeline.ends_ahead() {
            prelude::end(side, &mut out);
        }
        let seen = self.session.take_seen();
        if seen.intersects(CHANGES_PLANS) {
            self.pool.note_ddl(seen);
        }
        if self.session.take_changes_code() {
            self.pool.note_code();
        }
        if seen.intersects(Effects::SEQUENCE_READ) {
            self.pool.note_sequence_read(self.session.take_reads_later());
        }
        let reparsed = std::mem::take(&mut side.reparsed);
        self.count(&done.requests, reparsed);
        if out.is_empty() {
            give_buffer(out);
        } else {
            self.to_server = Backlog::Bytes(out, 0);
        }
        self.listen_before_more(self.to_server.is_empty());
        self.pin_if_due();
        if done.terminate {
            self.leaving = Some(End::Terminated);
            return Ok(bytes.len());
        }
        Ok(done.consumed)
    }

    /// Adds only what is not zero: most is.
    pub(super) fn count(&self, requests: &Requests, reparsed: u32) {
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

    fn poll_from_server(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        let Attachment::Attached(lease) = &mut self.attachment else { return Poll::Pending };
        let server = &mut *lease.server;
        if self.server_sleeps && !server.stream.may_be_readable() {
            return Poll::Pending;
        }
        let mut chunk = Chunk::take();
        let kept = server.held.len();
        let read = poll_read_behind(server, cx, &mut chunk);
        self.server_sleeps = self.worker.is_woken_after(&read);
        let read = match ready!(read) {
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
            Err(Surprise::Cancelled) if !self.session.keeps_server() => {
                self.cancelled_ahead();
                return Poll::Ready(Ok(()));
            }
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
            return Poll::Ready(Err(End::ServerFatal));
        }
        if news.stale_plan {
            self.pool.note_ddl(Effects::DDL);
        }
        if let Some(Discarded::All) = news.discarded {
            self.unpin_if_free();
        }
        let mut read_at = None;
        if news.ready > 0 {
            self.retell();
            let now = *read_at.insert(clock::now());
            if let Some(asked) = self.asked.take() {
                let took = now.saturating_duration_since(asked);
                let time = &self.worker.shard.time;
                time.query_response.observe(took);
                let waited = std::mem::take(&mut self.waited);
                time.query_database_response.observe(took.saturating_sub(waited));
            }
            self.settle(now)?;
            self.tell_of_pin();
            self.notify_at_ready();
        }
        if news.examined {
            self.conclude()?;
        }
        if let Attachment::Attached(lease) = &self.attachment
            && lease.server.side.pipeline.waits_for_client()
            && self.entered.does(Activity::Busy)
        {
            self.mark(Activity::HoldsServer, read_at.unwrap_or_else(clock::now));
        }
        if !self.to_client.is_empty() {
            let _ = self.poll_to_client(cx)?;
        }
        Poll::Ready(Ok(()))
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
    stale_plan: bool,
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
            Event::StalePlan => self.stale_plan = true,
            Event::ParameterStatus { .. } => {}
            Event::Discarded(discarded) => self.discarded = Some(*discarded),
        }
    }
}
