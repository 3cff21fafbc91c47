//! Messages too large to be waited for, passed on as they come.

use super::batch::{NAMES_MAX, read_header, streams};
use super::naming::{Name, take};
use super::pin::PinReason;
use super::pipeline::{Expected, Fate, Undo};
use super::preparing::Need;
use super::sequences::{READS, TAKES};
use super::session::{
    ClientFault, Limits, Moment, Requests, ServerSide, ServerUnnamed, Session, Streaming,
};
use super::shape::{Standing, refuse};
use super::statement::Effects;
use crate::wire::frame;
use crate::wire::frontend::Bind;
use crate::wire::{FrameError, FrontendTag, HEADER_LEN, Header, encode};

/// Most names of statements that were too large to be kept.
const LARGE_MAX: usize = 1000;

impl Session {
    pub(super) fn stream(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) {
        let (Streaming::Forward(left) | Streaming::Discard(left)) = self.streaming else { return };
        let (piece, behind) = rest.split_at(left.min(rest.len()));
        *rest = behind;
        let left = left - piece.len();
        if let Streaming::Forward(_) = self.streaming {
            out.extend_from_slice(piece);
            self.streaming = if left > 0 { Streaming::Forward(left) } else { Streaming::No };
        } else {
            self.streaming = if left > 0 { Streaming::Discard(left) } else { Streaming::No };
        }
    }

    /// Begins a message that is too large to wait for. False if it should be waited for.
    pub(super) fn begin_stream(
        &mut self,
        server: &mut ServerSide,
        limits: &Limits,
        rest: &mut &[u8],
        out: &mut Vec<u8>,
        requests: &mut Requests,
    ) -> Result<bool, ClientFault> {
        let Some(header) = read_header(rest, limits)? else {
            return Ok(false);
        };
        let tag = FrontendTag(header.tag);
        if !streams(tag, header.frame_len, rest) {
            return Ok(false);
        }
        if server.pipeline.is_skipping() {
            self.streaming = Streaming::Discard(header.frame_len);
            return Ok(true);
        }
        match tag {
            FrontendTag::QUERY => {
                self.pin_for_good(PinReason::LargeStatement);
                let may = READS.and(TAKES);
                self.observe_sequences(may, server, Moment::BetweenBatches, out)?;
                // Nobody sees what is in it.
                self.discarding = true;
                let previous = self.unnamed.take();
                server.unnamed = ServerUnnamed::Unknown;
                server.pipeline.push(Expected::Query, Fate::Forward, Undo::Unnamed(previous));
                requests.simple += 1;
            }
            FrontendTag::PARSE => return self.begin_large_parse(server, header, rest, out),
            FrontendTag::FUNCTION_CALL => {
                let body = rest.get(HEADER_LEN..).unwrap_or_default();
                if !self.observe_function_call(body, server, out)? {
                    self.channels.take_wait();
                    return Ok(false);
                }
                server.pipeline.push(Expected::FunctionCall, Fate::Forward, Undo::Nothing);
                requests.simple += 1;
            }
            FrontendTag::BIND => return self.begin_large_bind(server, header, limits, rest, out),
            _ => {}
        }
        self.streaming = Streaming::Forward(header.frame_len);
        Ok(true)
    }

    /// A `Parse` that is too large to be kept. It keeps the client's name for it: the server is the
    /// client's own from here.
    pub(super) fn begin_large_parse(
        &mut self,
        server: &mut ServerSide,
        header: Header,
        rest: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, ClientFault> {
        let malformed = ClientFault::Frame(FrameError::Malformed { tag: header.tag });
        let body = rest.get(HEADER_LEN..).unwrap_or_default();
        let mut text = body;
        let Some(name) = frame::take_cstr(&mut text) else {
            return if body.len() > NAMES_MAX { Err(malformed) } else { Ok(false) };
        };
        let known = self.statements.get(name).map(|known| known.id);
        if !name.is_empty()
            && (server.pipeline.is_in_doubt(name, known, true)
                || self.awaits_names(name, Effects::NONE, server))
        {
            self.channels.take_wait();
            return Ok(false);
        }
        self.pin_for_good(PinReason::LargeStatement);
        self.observe_sequences(READS.and(TAKES), server, Moment::InBatch, out)?;
        let left = header.body_len().checked_sub(body.len() - text.len()).ok_or(malformed)?;
        let (name, undo) = match known {
            _ if name.is_empty() => {
                (Name::Verbatim(name), self.replace_unnamed(server, None, Effects::NONE))
            }
            // The server refuses the second one of a name.
            Some(id) => (Name::Ours(take(server, id, out)), Undo::Nothing),
            None => {
                // It refuses it as well if SQL has prepared the first one.
                if server.own.is_some() || self.sql.get(name).is_some() {
                    self.settle_name(name, Need::Presence, server, out);
                }
                self.note_large(name)?;
                (Name::of_client(name), Undo::Nothing)
            }
        };
        let length = u32::try_from(4 + name.len() + 1 + left).map_err(|_| malformed)?;
        out.push(FrontendTag::PARSE.0);
        out.extend_from_slice(&length.to_be_bytes());
        encode::cstr(out, &name);
        server.pipeline.push(Expected::ParseComplete, Fate::Forward, undo);
        *rest = text;
        self.streaming = if left > 0 { Streaming::Forward(left) } else { Streaming::No };
        Ok(true)
    }

    fn note_large(&mut self, name: &[u8]) -> Result<(), ClientFault> {
        let large = &mut self.audit.large;
        if self.sql.get(name).is_some() || large.iter().any(|known| **known == *name) {
            return Ok(());
        }
        let bytes: usize = large.iter().map(|known| known.len()).sum();
        if large.len() >= LARGE_MAX || bytes + name.len() > NAMES_MAX {
            return Err(ClientFault::TooManyStatements);
        }
        large.push(name.into());
        Ok(())
    }

    /// True if `name` is left to the server, which is the client's own: it may have a statement by it that was too
    /// large to be kept, and says whether it does.
    pub(super) fn is_large(&self, name: &[u8]) -> bool {
        self.audit.large.iter().any(|large| **large == *name)
            && self.statements.get(name).is_none()
            && self.sql.get(name).is_none()
    }

    /// A `Bind` whose values do not fit a buffer: its names are at hand, the rest is streamed.
    pub(super) fn begin_large_bind(
        &mut self,
        server: &mut ServerSide,
        header: Header,
        limits: &Limits,
        rest: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, ClientFault> {
        let malformed = ClientFault::Frame(FrameError::Malformed { tag: header.tag });
        let body = rest.get(HEADER_LEN..).unwrap_or_default();
        let bind = Bind::read(body).ok_or(malformed)?;
        let names = body.len() - bind.rest.len();
        let values = header.body_len().checked_sub(names).ok_or(malformed)?;
        let effects = self.effects_of(bind.statement);
        if self.name_in_doubt(bind.statement, &server.pipeline)
            || self.awaits_names(bind.statement, effects, server)
        {
            self.channels.take_wait();
            return Ok(false);
        }
        match self.standing_of(bind.statement, server, limits, out)? {
            Standing::Good => {}
            Standing::InQuestion => {
                self.channels.take_wait();
                return Ok(false);
            }
            Standing::Changed => {
                refuse(server, out);
                self.streaming = Streaming::Discard(header.frame_len);
                return Ok(true);
            }
        }
        // Its values are not all at hand.
        let names = Bind { rest: &[], ..bind };
        self.observe_bind(&names, effects, server, limits, out)?;
        let name = self.resolve(server, bind.statement, out)?;
        self.note_bound(bind.portal, &name);
        let length = u32::try_from(4 + bind.portal.len() + 1 + name.len() + 1 + values)
            .map_err(|_| malformed)?;
        out.push(FrontendTag::BIND.0);
        out.extend_from_slice(&length.to_be_bytes());
        encode::cstr(out, bind.portal);
        encode::cstr(out, &name);
        server.pipeline.push(Expected::BindComplete, Fate::Forward, Undo::Nothing);
        *rest = bind.rest;
        self.streaming = if values > 0 { Streaming::Forward(values) } else { Streaming::No };
        Ok(true)
    }
}
