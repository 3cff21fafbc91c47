//! A server's stream, sorted by the ledger: what goes to the client as it came, and what does not.
//!
//! Large messages are passed on in pieces; only those whose content matters are waited for.

use super::pin::PinReason;
use super::pipeline::{Fate, Surprise};
use super::retold::number_in;
use super::session::{ServerSide, Session};
use super::shape::DESCRIPTION_MAX;
use super::transaction::TransactionStatus;
use crate::wire::frame::HEADER_LEN;
use crate::wire::response::ErrorFields;
use crate::wire::{BackendTag, Header, SqlState, backend};
use std::ops::Range;

/// Largest message of a server: PostgreSQL's own limit for one.
const FRAME_MAX: usize = 0x3fff_ffff + HEADER_LEN;

/// A message whose content matters is waited for up to this size.
const WHOLE_MAX: usize = 16 * 1024;

/// What is left of a server's message whose fate is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Passing {
    /// Between messages.
    #[default]
    Nothing,
    /// This many bytes go to the client.
    Forward(usize),
    /// This many bytes go nowhere.
    Swallow(usize),
}

impl Passing {
    fn of(forwards: bool, left: usize) -> Self {
        match left {
            0 => Self::Nothing,
            left if forwards => Self::Forward(left),
            left => Self::Swallow(left),
        }
    }
}

/// What the owner of the connection must know of what passed.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The client was told that it may go on.
    Ready,
    /// The question what the client left is answered, or refused.
    Examined,
    /// The client was told of an error.
    Error {
        /// Its code, if it had one.
        sqlstate: Option<SqlState>,
        /// The server ends the connection.
        fatal: bool,
    },
    /// A prepared statement's result would not be of the type that it was planned for: a table has changed since.
    StalePlan,
    /// The server reported a setting.
    ParameterStatus {
        /// Its name.
        name: &'a str,
        /// Its value.
        value: &'a str,
        /// True if it is the outcome of what pgweir sent ahead.
        ahead: bool,
    },
    /// `DISCARD ALL` or `DEALLOCATE ALL` succeeded.
    Discarded(Discarded),
}

/// What says `cached plan must not change result type`, in whatever language.
///
/// Source: `src/backend/utils/cache/plancache.c`
const STALE_PLAN: &[u8] = b"RevalidateCachedQuery";

/// What a client threw away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discarded {
    /// Everything: `DISCARD ALL`.
    All,
    /// Prepared statements: `DEALLOCATE ALL`.
    Statements,
}

/// Bytes for the client: a range of what came, or a copy where something was put in between.
#[derive(Debug, Default)]
pub struct Outgoing {
    range: Range<usize>,
    spilled: Vec<u8>,
}

impl Outgoing {
    /// What goes to the client, given the input it was made from.
    #[must_use]
    pub fn bytes<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        if self.spilled.is_empty() {
            input.get(self.range.clone()).unwrap_or_default()
        } else {
            &self.spilled
        }
    }

    /// The range of the input that goes to the client as it is, if nothing was put in between.
    #[must_use]
    pub fn into_parts(self) -> (Range<usize>, Vec<u8>) {
        (self.range, self.spilled)
    }

    fn keep(&mut self, input: &[u8], range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        if !self.spilled.is_empty() {
            self.spilled.extend_from_slice(input.get(range).unwrap_or_default());
        } else if self.range.is_empty() {
            self.range = range;
        } else if self.range.end == range.start {
            self.range.end = range.end;
        } else {
            self.spill(input);
            self.spilled.extend_from_slice(input.get(range).unwrap_or_default());
        }
    }

    fn insert(&mut self, input: &[u8], bytes: &[u8]) {
        self.spill(input);
        self.spilled.extend_from_slice(bytes);
    }

    fn spill(&mut self, input: &[u8]) {
        if self.spilled.is_empty() {
            self.spilled.extend_from_slice(input.get(self.range.clone()).unwrap_or_default());
        }
    }
}

/// Sorts what came from the server. Returns the bytes done with; the rest must be given again
/// with more behind it.
///
/// # Errors
/// [`Surprise`]: the server is closed.
pub fn sort(
    client: &mut Session,
    server: &mut ServerSide,
    passing: &mut Passing,
    input: &[u8],
    out: &mut Outgoing,
    mut seen: impl FnMut(Event<'_>),
) -> Result<usize, Surprise> {
    let mut at = 0;
    loop {
        // Not into the middle of a message that passes in pieces.
        while *passing == Passing::Nothing
            && let Some(bytes) = server.pipeline.next_synthesized()
        {
            out.insert(input, bytes);
        }
        let rest = input.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(at);
        }
        match *passing {
            Passing::Nothing => {}
            Passing::Forward(left) | Passing::Swallow(left) => {
                let take = left.min(rest.len());
                let forwards = matches!(*passing, Passing::Forward(_));
                if forwards {
                    out.keep(input, at..at + take);
                }
                *passing = Passing::of(forwards, left - take);
                at += take;
                continue;
            }
        }
        let malformed = |_| Surprise::Malformed { tag: rest.first().copied().unwrap_or_default() };
        let Some(header) = Header::read(rest, FRAME_MAX).map_err(malformed)? else {
            return Ok(at);
        };
        let tag = BackendTag(header.tag);
        let examines = tag == BackendTag::DATA_ROW && client.is_examined();
        let describes = is_description(tag) && server.pipeline.describes();
        let fate = if describes {
            let Some(body) = beginning(&header, rest) else { return Ok(at) };
            client.described(&server.pipeline, tag, body, header.frame_len);
            server.pipeline.on_reply(tag)?
        } else if examines || needs_content(tag) {
            let body = match rest.get(HEADER_LEN..header.frame_len) {
                Some(body) => body,
                None if header.frame_len <= WHOLE_MAX => return Ok(at),
                // Too large to wait for: what is there must do.
                None => rest.get(HEADER_LEN..).unwrap_or_default(),
            };
            let fate = look_at(tag, body, client, server, &mut seen)?;
            if tag == BackendTag::ERROR_RESPONSE
                && fate == Fate::Forward
                && header.frame_len <= rest.len()
                && let Some(retold) = client.retold(body)
            {
                out.insert(input, &retold);
                at += header.frame_len;
                continue;
            }
            fate
        } else if matches!(tag, BackendTag::NOTICE_RESPONSE | BackendTag::NOTIFICATION_RESPONSE) {
            match unasked(&header, rest, client, server) {
                Some(fate) => fate,
                None => return Ok(at),
            }
        } else {
            server.pipeline.on_reply(tag)?
        };
        let take = header.frame_len.min(rest.len());
        let forwards = fate == Fate::Forward;
        if forwards {
            out.keep(input, at..at + take);
        }
        *passing = Passing::of(forwards, header.frame_len - take);
        at += take;
    }
}

/// What is done with a notice or a notification; `None` if more of it must come first.
fn unasked(header: &Header, rest: &[u8], client: &Session, server: &ServerSide) -> Option<Fate> {
    let notification = header.tag == BackendTag::NOTIFICATION_RESPONSE.0;
    let heard_twice = notification && server.may_listen;
    // Who lets go of the server between two batches must not have half a message of it.
    let between = header.frame_len <= WHOLE_MAX && server.pipeline.owes_nothing();
    if heard_twice || between {
        let body = rest.get(HEADER_LEN..header.frame_len)?;
        // Where pgweir listens itself, this would be the second time.
        if heard_twice && backend::channel(body).is_some_and(|name| client.channels.is_heard(name))
        {
            return Some(Fate::Swallow);
        }
    }
    Some(match server.pipeline.on_asynchronous() {
        // The client does not know that its server is asked.
        Fate::Examination if notification => Fate::Forward,
        fate => fate,
    })
}

fn is_description(tag: BackendTag) -> bool {
    matches!(
        tag,
        BackendTag::ROW_DESCRIPTION | BackendTag::NO_DATA | BackendTag::PARAMETER_DESCRIPTION
    )
}

/// The body at the front of `rest`, or as much of it as is looked at; `None` if more of it must come first.
fn beginning<'a>(header: &Header, rest: &'a [u8]) -> Option<&'a [u8]> {
    rest.get(HEADER_LEN..header.frame_len.min(HEADER_LEN + DESCRIPTION_MAX))
}

/// Messages of which more than the type matters.
fn needs_content(tag: BackendTag) -> bool {
    matches!(
        tag,
        BackendTag::READY_FOR_QUERY
            | BackendTag::ERROR_RESPONSE
            | BackendTag::PARAMETER_STATUS
            | BackendTag::COMMAND_COMPLETE
    )
}

fn look_at(
    tag: BackendTag,
    body: &[u8],
    client: &mut Session,
    server: &mut ServerSide,
    seen: &mut impl FnMut(Event<'_>),
) -> Result<Fate, Surprise> {
    let malformed = Surprise::Malformed { tag: tag.0 };
    match tag {
        BackendTag::READY_FOR_QUERY => {
            let &[status] = body else { return Err(malformed) };
            let status = TransactionStatus::from_byte(status).ok_or(malformed)?;
            let fate = server.pipeline.on_ready(status)?;
            match fate {
                Fate::Forward | Fate::Instead => {
                    client.ready(&server.pipeline, status);
                    seen(Event::Ready);
                }
                Fate::Examination => seen(Event::Examined),
                Fate::Prelude | Fate::Swallow | Fate::Guard => {}
            }
            Ok(fate)
        }
        BackendTag::DATA_ROW => {
            let fate = server.pipeline.on_reply(tag)?;
            client.examination_row(body);
            Ok(fate)
        }
        BackendTag::ERROR_RESPONSE => on_error(body, client, server, seen),
        BackendTag::PARAMETER_STATUS => {
            let (name, value) = backend::parameter_status(body).ok_or(malformed)?;
            let fate = server.pipeline.on_asynchronous();
            seen(Event::ParameterStatus { name, value, ahead: fate != Fate::Forward });
            if fate == Fate::Forward {
                client.reread(name, value);
            }
            Ok(fate)
        }
        _ => {
            let fate = server.pipeline.on_reply(tag)?;
            if fate == Fate::Forward {
                client.channels.completed(body);
            }
            if matches!(body, b"PREPARE\0" | b"DEALLOCATE\0") && fate == Fate::Forward {
                client.name_changed(server, body == b"PREPARE\0");
            }
            if body == b"DISCARD SEQUENCES\0" && fate == Fate::Forward {
                client.discarded_sequences(server);
            }
            let discarded = match body {
                b"DISCARD ALL\0" => Some(Discarded::All),
                b"DEALLOCATE ALL\0" => Some(Discarded::Statements),
                _ => None,
            };
            if let Some(discarded) = discarded {
                server.altered |= discarded == Discarded::All;
                server.statements.clear();
                server.own = None;
                server.unnamed = super::session::ServerUnnamed::Unknown;
                if discarded == Discarded::All {
                    server.stained |= client.pin.is_some_and(PinReason::leaves_traces);
                    server.sequences = super::server_side::Sequences::default();
                    server.applied = std::sync::Arc::default();
                }
                client.deallocated_all(discarded == Discarded::All);
                if server.pipeline.restores_settings() {
                    server.applied = std::sync::Arc::clone(&client.startup);
                    client.retell = false;
                }
                seen(Event::Discarded(discarded));
            }
            Ok(fate)
        }
    }
}

fn on_error(
    body: &[u8],
    client: &mut Session,
    server: &mut ServerSide,
    seen: &mut impl FnMut(Event<'_>),
) -> Result<Fate, Surprise> {
    let fields = ErrorFields::read(body);
    let cancelled = fields.sqlstate == Some(SqlState::QUERY_CANCELED) && !fields.fatal;
    // The block of a client that is in one is lost with the server, which it must not take for less.
    let alone = server.pipeline.status() == TransactionStatus::Idle;
    if cancelled && alone && server.pipeline.is_ahead() {
        return Err(Surprise::Cancelled);
    }
    if server.pipeline.restores_settings() && !fields.fatal {
        // In its own transaction, which now waits to be rolled back.
        return Err(Surprise::Prelude);
    }
    let by_name = server.pipeline.answers_a_name();
    let mut undone = Vec::new();
    let fate = server.pipeline.on_error(|undo, how| undone.push((undo, how)))?;
    for (undo, how) in undone {
        client.undo(server, undo, how);
    }
    if by_name
        && fields.sqlstate == Some(SqlState::INVALID_SQL_STATEMENT_NAME)
        && let Some(id) = number_in(body)
        && server.statements.touch(id)
    {
        // Some code has thrown it away unseen, and perhaps others.
        server.statements.remove(id);
        server.stained = true;
    }
    if fate == Fate::Examination && !fields.fatal {
        client.examination_failed();
        return Ok(fate);
    }
    if fate == Fate::Swallow {
        // It has heard of the one that this came of.
        return Ok(fate);
    }
    if fields.sqlstate == Some(SqlState::FEATURE_NOT_SUPPORTED) && fields.routine == STALE_PLAN {
        seen(Event::StalePlan);
    }
    client.channels.failed();
    client.forget_descriptions();
    seen(Event::Error { sqlstate: client.as_told(fields.sqlstate), fatal: fields.fatal });
    Ok(Fate::Forward)
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
