//! One client's virtual session, and how its messages become those of the server it holds.
//!
//! Pure: bytes of the client in, bytes for the server out, and every reply that will come is put
//! on the server's ledger. Statements that the server lacks are prepared in the same bytes.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html>

use super::pin::PinReason;
use super::pipeline::{Expected, Fate, Miscarriage, Pipeline, Undo};
use super::prepared::{
    ClientStatements, Prepared, SERVER_NAME_PREFIX, ServerName, ServerStatements, Token, Unnamed,
};
use super::settings::Settings;
use super::statement::{self, Effects, Options};
use crate::wire::frame::{self, Frame};
use crate::wire::frontend::{Bind, Object, Parse, query_text};
use crate::wire::{FrameError, FrontendTag, HEADER_LEN, Header, encode};
use std::sync::Arc;

/// Largest statement text (in bytes, with its frame) that is looked at or kept: a larger one is
/// streamed through unseen, and pins.
pub const STATEMENT_MAX: usize = 1 << 20;

/// Most bytes produced for a server in one go: what an expansion can make us buffer.
const OUT_MAX: usize = 1 << 20;

/// A statement beyond what a server keeps is closed at once when this many are over the limit.
const STATEMENTS_SLACK: usize = 4;

/// Where statements with the same text become one; behind a lock in the proxy.
pub trait Intern {
    /// The statement whose `Parse` message has `tail`, as parsed under `settings`.
    fn intern(&mut self, tail: &[u8], effects: Effects, settings: &Settings) -> Arc<Prepared>;
}

/// What a client may have, by configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest message in bytes.
    pub message_max: usize,
    /// Most named statements of a client.
    pub statements_max: usize,
    /// Most statements kept on a server.
    pub server_statements_max: usize,
}

/// A client as PostgreSQL would know it.
pub struct Session {
    /// Tells this client from every other.
    pub id: u64,
    /// The settings it wants.
    pub settings: Arc<Settings>,
    /// Why it keeps its server, if it does.
    pub pin: Option<PinReason>,
    /// Its named statements.
    pub statements: ClientStatements,
    unnamed: Option<Box<Unnamed>>,
    unnamed_count: u64,
    /// What is left of a message that is streamed.
    streaming: Streaming,
    discarding: Discarding,
}

/// How far a `DISCARD` or `DEALLOCATE` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Discarding {
    No,
    /// It is bound, and may be executed next.
    Bound,
    /// What statements there are is not known until it is answered.
    Waits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streaming {
    No,
    Forward(usize),
    Discard(usize),
}

/// Which unnamed statement a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerUnnamed {
    /// None.
    Nothing,
    /// That of the client who made this token.
    Is(Token),
    /// An error came in between.
    Unknown,
}

/// What is known of a server's session.
pub struct ServerSide {
    /// The replies it owes.
    pub pipeline: Pipeline,
    /// The statements it has.
    pub statements: ServerStatements,
    /// Its unnamed statement.
    pub unnamed: ServerUnnamed,
    /// The settings it was told.
    pub applied: Arc<Settings>,
}

impl Default for ServerSide {
    fn default() -> Self {
        Self {
            pipeline: Pipeline::default(),
            statements: ServerStatements::default(),
            unnamed: ServerUnnamed::Nothing,
            applied: Arc::default(),
        }
    }
}

/// What came of a piece of a client's stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// The client said good-bye.
    pub terminate: bool,
    /// Simple queries and executions begun.
    pub requests: Requests,
}

/// Counts of what was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// `Query` and `FunctionCall`.
    pub simple: u32,
    /// `Execute`.
    pub extended: u32,
}

/// Why a client's stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientFault {
    /// A frame is broken.
    #[error("malformed message")]
    Frame(#[from] FrameError),
    /// A message that does not belong here.
    #[error("message of type {tag:#04x} is not expected here")]
    Unexpected {
        /// Its type.
        tag: u8,
    },
    /// More statements than are allowed.
    #[error("too many prepared statements")]
    TooManyStatements,
}

/// How far the front of a client's stream goes that should be sent in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// These bytes end with a message that the server answers.
    Batch(usize),
    /// The bound is reached, or a large message begins: these bytes may go without their end.
    Piece(usize),
    /// More must come first.
    Incomplete,
    /// Only `Terminate`.
    Terminate,
}

impl Session {
    /// A session in which nothing has happened yet.
    #[must_use]
    pub fn new(id: u64, settings: Arc<Settings>) -> Self {
        Self {
            id,
            settings,
            pin: None,
            statements: ClientStatements::default(),
            unnamed: None,
            unnamed_count: 0,
            streaming: Streaming::No,
            discarding: Discarding::No,
        }
    }

    /// True in the middle of a message that is streamed.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.streaming != Streaming::No
    }

    /// How much of `input` should be sent together. Whole batches are, so that a client which
    /// vanishes leaves no half of one on a server; `piece_max` bounds what is gathered for it.
    ///
    /// # Errors
    /// [`ClientFault`] for what can be no client's message.
    pub fn extent(
        &self,
        input: &[u8],
        piece_max: usize,
        limits: &Limits,
    ) -> Result<Extent, ClientFault> {
        if self.is_streaming() {
            return Ok(if input.is_empty() {
                Extent::Incomplete
            } else {
                Extent::Piece(input.len())
            });
        }
        let mut rest = input;
        let mut batch = 0;
        while let Some(header) = read_header(rest, limits)? {
            let tag = FrontendTag(header.tag);
            if header.frame_len > rest.len() {
                let at = input.len() - rest.len();
                if streams(tag, header.frame_len, rest) {
                    return Ok(Extent::Piece(input.len()));
                }
                return Ok(match (batch, at) {
                    (0, at) if at >= piece_max => Extent::Piece(at),
                    (0, _) => Extent::Incomplete,
                    (batch, _) => Extent::Batch(batch),
                });
            }
            if tag == FrontendTag::TERMINATE && rest.len() == input.len() {
                return Ok(Extent::Terminate);
            }
            rest = rest.get(header.frame_len..).unwrap_or_default();
            if ends_batch(tag) {
                batch = input.len() - rest.len();
            }
        }
        let whole = input.len() - rest.len();
        Ok(match batch {
            0 if whole >= piece_max => Extent::Piece(whole),
            0 => Extent::Incomplete,
            batch => Extent::Batch(batch),
        })
    }

    /// Drops the copy messages that a client without a server sends late, after its copy failed.
    ///
    /// PostgreSQL ignores them too. Returns the bytes done with.
    pub fn discard_late_copy(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<usize, ClientFault> {
        let mut rest = input;
        // What was begun on a server that is gone goes the same way.
        if let Streaming::Discard(left) | Streaming::Forward(left) = self.streaming {
            let take = left.min(rest.len());
            rest = rest.get(take..).unwrap_or_default();
            self.streaming =
                if take < left { Streaming::Discard(left - take) } else { Streaming::No };
        }
        while let Some(header) = read_header(rest, limits)? {
            if !is_copy(FrontendTag(header.tag)) {
                break;
            }
            let take = header.frame_len.min(rest.len());
            rest = rest.get(take..).unwrap_or_default();
            if take < header.frame_len {
                self.streaming = Streaming::Discard(header.frame_len - take);
            }
        }
        Ok(input.len() - rest.len())
    }

    /// Drops the messages of a batch that was refused, up to and with the one that ends it.
    ///
    /// Returns the bytes done with, and whether the end was among them: then a `ReadyForQuery`
    /// is owed.
    ///
    /// # Errors
    /// [`ClientFault`] for what can be no client's message.
    pub fn skip_batch(
        &mut self,
        input: &[u8],
        limits: &Limits,
    ) -> Result<(usize, bool), ClientFault> {
        let mut rest = input;
        loop {
            if let Streaming::Discard(left) | Streaming::Forward(left) = self.streaming {
                let take = left.min(rest.len());
                rest = rest.get(take..).unwrap_or_default();
                self.streaming =
                    if take < left { Streaming::Discard(left - take) } else { Streaming::No };
                if rest.is_empty() {
                    return Ok((input.len(), false));
                }
            }
            let Some(header) = read_header(rest, limits)? else {
                return Ok((input.len() - rest.len(), false));
            };
            let tag = FrontendTag(header.tag);
            let take = header.frame_len.min(rest.len());
            let ends =
                matches!(tag, FrontendTag::SYNC | FrontendTag::QUERY | FrontendTag::FUNCTION_CALL);
            if take < header.frame_len {
                if ends {
                    // Its end must be seen to answer in its place.
                    if !streams(tag, header.frame_len, rest) {
                        return Ok((input.len() - rest.len(), false));
                    }
                    self.streaming = Streaming::Discard(header.frame_len - take);
                    return Ok((input.len(), true));
                }
                self.streaming = Streaming::Discard(header.frame_len - take);
                return Ok((input.len(), false));
            }
            if tag == FrontendTag::TERMINATE {
                return Ok((input.len() - rest.len(), true));
            }
            rest = rest.get(take..).unwrap_or_default();
            if ends {
                return Ok((input.len() - rest.len(), true));
            }
        }
    }

    /// Turns the front of the client's stream into what the server is sent.
    ///
    /// Stops at the end of the whole messages, or when enough is in `out`.
    ///
    /// # Errors
    /// [`ClientFault`]: the client is disconnected. What is in `out` must not be sent.
    pub fn translate(
        &mut self,
        server: &mut ServerSide,
        intern: &mut dyn Intern,
        limits: &Limits,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Translated, ClientFault> {
        let mut done = Translated::default();
        let mut rest = input;
        if !self.may_go_on(server) {
            return Ok(done);
        }
        let had_room = server.pipeline.has_room();
        while self.discarding != Discarding::Waits
            && !rest.is_empty()
            && out.len() < OUT_MAX
            && server.pipeline.has_room()
        {
            if self.is_streaming() {
                self.stream(&mut rest, out);
                continue;
            }
            let front = rest;
            match frame::take(&mut rest, limits.message_max)? {
                Some(frame) => {
                    if FrontendTag(frame.tag) == FrontendTag::TERMINATE {
                        // What was said before it is sent first.
                        done.terminate = front.len() == input.len();
                        rest = front;
                        break;
                    }
                    if self.is_in_doubt(frame, server, intern) {
                        rest = front;
                        break;
                    }
                    let mut to = Destination {
                        server: &mut *server,
                        intern: &mut *intern,
                        limits,
                        out: &mut *out,
                    };
                    self.message(frame, &mut to, &mut done.requests)?;
                }
                None => {
                    if !self.begin_stream(server, limits, &mut rest, out, &mut done.requests)? {
                        break;
                    }
                }
            }
        }
        if had_room && !server.pipeline.has_room() {
            nudge(server, out);
            encode::flush(out);
        }
        done.consumed = input.len() - rest.len();
        Ok(done)
    }

    /// True if no `DISCARD` or `DEALLOCATE` of the client is under way: what it leaves is not known.
    fn may_go_on(&mut self, server: &ServerSide) -> bool {
        if self.discarding == Discarding::Waits && server.pipeline.waits_for_client() {
            self.discarding = Discarding::No;
        }
        self.discarding != Discarding::Waits
    }

    /// True if what `frame` means depends on a batch whose outcome is not known yet.
    fn is_in_doubt(&self, frame: Frame<'_>, server: &ServerSide, intern: &mut dyn Intern) -> bool {
        let body = frame.body();
        match FrontendTag(frame.tag) {
            FrontendTag::PARSE => Parse::read(body)
                .is_some_and(|parse| self.parse_in_doubt(&parse, &server.pipeline, intern)),
            FrontendTag::BIND => Bind::read(body)
                .is_some_and(|bind| self.name_in_doubt(bind.statement, &server.pipeline)),
            FrontendTag::DESCRIBE => match Object::read(body) {
                Some(Object::Statement(name)) => self.name_in_doubt(name, &server.pipeline),
                _ => false,
            },
            FrontendTag::CLOSE => match Object::read(body) {
                Some(Object::Statement(name)) if !name.is_empty() => {
                    server.pipeline.is_in_doubt(|undo| undo.is_about(name, None), true)
                }
                _ => false,
            },
            _ => false,
        }
    }

    fn parse_in_doubt(
        &self,
        parse: &Parse<'_>,
        pipeline: &Pipeline,
        intern: &mut dyn Intern,
    ) -> bool {
        if parse.name.is_empty() || pipeline.assumes_nothing() {
            return false;
        }
        let id = self.statements.get(parse.name).map_or_else(
            || {
                let effects = statement::effects(parse.query, Options::default());
                intern.intern(parse.tail, effects, &self.settings).id
            },
            |known| known.id,
        );
        pipeline.is_in_doubt(|undo| undo.is_about(parse.name, Some(id)), true)
    }

    fn name_in_doubt(&self, name: &[u8], pipeline: &Pipeline) -> bool {
        if name.is_empty() {
            return pipeline.is_unnamed_in_doubt();
        }
        let id = self.statements.get(name).map(|statement| statement.id);
        pipeline.is_in_doubt(|undo| undo.is_about(name, id), false)
    }

    fn stream(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) {
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
    fn begin_stream(
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
                self.pin(PinReason::LargeStatement);
                let previous = self.unnamed.take();
                server.unnamed = ServerUnnamed::Unknown;
                server.pipeline.push(Expected::Query, Fate::Forward, Undo::Unnamed(previous));
                requests.simple += 1;
            }
            FrontendTag::PARSE => return self.begin_large_parse(server, header, rest, out),
            FrontendTag::FUNCTION_CALL => {
                server.pipeline.push(Expected::FunctionCall, Fate::Forward, Undo::Nothing);
                requests.simple += 1;
            }
            FrontendTag::BIND => return self.begin_large_bind(server, header, rest, out),
            _ => {}
        }
        self.streaming = Streaming::Forward(header.frame_len);
        Ok(true)
    }

    /// A `Parse` that is too large to be kept. It keeps the client's name for it: the server is the
    /// client's own from here.
    fn begin_large_parse(
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
        if !name.is_empty() && self.name_in_doubt(name, &server.pipeline) {
            return Ok(false);
        }
        self.pin(PinReason::LargeStatement);
        let left = header.body_len().checked_sub(body.len() - text.len()).ok_or(malformed)?;
        let known = self.statements.get(name).map(Arc::clone);
        let (name, undo) = match known {
            _ if name.is_empty() => {
                (Name::Verbatim(name), self.replace_unnamed(server, None, Effects::NONE))
            }
            // The server refuses the second one of a name.
            Some(known) => {
                ensure(server, &known, out);
                (Name::Ours(ServerName::new(known.id)), Undo::Nothing)
            }
            None => (Name::of_client(name), Undo::Nothing),
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

    /// A `Bind` whose values do not fit a buffer: its names are at hand, the rest is streamed.
    fn begin_large_bind(
        &mut self,
        server: &mut ServerSide,
        header: Header,
        rest: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, ClientFault> {
        let malformed = ClientFault::Frame(FrameError::Malformed { tag: header.tag });
        let body = rest.get(HEADER_LEN..).unwrap_or_default();
        let bind = Bind::read(body).ok_or(malformed)?;
        let names = body.len() - bind.rest.len();
        let values = header.body_len().checked_sub(names).ok_or(malformed)?;
        if self.name_in_doubt(bind.statement, &server.pipeline) {
            return Ok(false);
        }
        let name = self.resolve(server, bind.statement, out);
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

    fn message(
        &mut self,
        frame: Frame<'_>,
        to: &mut Destination<'_>,
        requests: &mut Requests,
    ) -> Result<(), ClientFault> {
        let tag = FrontendTag(frame.tag);
        check_frontend_tag(tag)?;
        if to.server.pipeline.is_skipping() && tag != FrontendTag::SYNC {
            // The server would skip it: it says nothing to it, so it need not see it.
            return Ok(());
        }
        let malformed = ClientFault::Frame(FrameError::Malformed { tag: frame.tag });
        match tag {
            FrontendTag::QUERY => {
                let text = query_text(frame.body()).ok_or(malformed)?;
                let effects = statement::effects(text, Options::default());
                self.pin_for(effects);
                if discards(effects) {
                    self.discarding = Discarding::Waits;
                }
                let previous = self.unnamed.take();
                to.server.unnamed = ServerUnnamed::Nothing;
                requests.simple += 1;
                to.forward(frame, Expected::Query, Undo::Unnamed(previous));
            }
            FrontendTag::PARSE => {
                let parse = Parse::read(frame.body()).ok_or(malformed)?;
                self.parse(frame, &parse, to)?;
            }
            FrontendTag::BIND => {
                let bind = Bind::read(frame.body()).ok_or(malformed)?;
                self.bind(frame, &bind, to);
            }
            FrontendTag::DESCRIBE => match Object::read(frame.body()).ok_or(malformed)? {
                Object::Statement(name) => self.describe(frame, name, to),
                Object::Portal(_) => to.forward(frame, Expected::Description, Undo::Nothing),
            },
            FrontendTag::CLOSE => match Object::read(frame.body()).ok_or(malformed)? {
                Object::Statement(name) => self.close(frame, name, to),
                Object::Portal(_) => to.forward(frame, Expected::CloseComplete, Undo::Nothing),
            },
            FrontendTag::EXECUTE => {
                requests.extended += 1;
                to.forward(frame, Expected::Execution, Undo::Nothing);
                if self.discarding == Discarding::Bound {
                    encode::flush(to.out);
                    self.discarding = Discarding::Waits;
                }
            }
            FrontendTag::SYNC => to.forward(frame, Expected::ReadyForQuery, Undo::Nothing),
            FrontendTag::FLUSH => {
                nudge(to.server, to.out);
                to.out.extend_from_slice(frame.bytes);
            }
            FrontendTag::FUNCTION_CALL => {
                requests.simple += 1;
                to.forward(frame, Expected::FunctionCall, Undo::Nothing);
            }
            FrontendTag::COPY_DONE | FrontendTag::COPY_FAIL => {
                to.out.extend_from_slice(frame.bytes);
                to.server.pipeline.push_copy_end();
            }
            _ => to.out.extend_from_slice(frame.bytes),
        }
        Ok(())
    }

    fn parse(
        &mut self,
        frame: Frame<'_>,
        parse: &Parse<'_>,
        to: &mut Destination<'_>,
    ) -> Result<(), ClientFault> {
        let effects = statement::effects(parse.query, Options::default());
        if parse.name.is_empty() {
            let undo = self.replace_unnamed(to.server, Some(parse.tail.into()), effects);
            to.forward(frame, Expected::ParseComplete, undo);
            return Ok(());
        }
        if let Some(existing) = self.statements.get(parse.name) {
            // The server refuses the second one of a name, if it has the first one.
            let existing = Arc::clone(existing);
            to.ensure(&existing);
            to.parse_as(&existing, parse.tail, Fate::Forward, Undo::Nothing);
            return Ok(());
        }
        if self.statements.len() >= to.limits.statements_max {
            return Err(ClientFault::TooManyStatements);
        }
        let statement = to.intern.intern(parse.tail, effects, &self.settings);
        let name: Box<[u8]> = parse.name.into();
        self.statements.insert(name.clone(), Arc::clone(&statement));
        let id = statement.id;
        if to.server.statements.touch(id) {
            let undo = Undo::Named { name, id };
            to.server.pipeline.push_synthesized(&encode::PARSE_COMPLETE, undo);
        } else {
            to.make_room();
            to.server.statements.insert(id);
            to.parse_as(&statement, parse.tail, Fate::Forward, Undo::Parsed { name, id });
        }
        Ok(())
    }

    fn replace_unnamed(
        &mut self,
        server: &mut ServerSide,
        tail: Option<Box<[u8]>>,
        effects: Effects,
    ) -> Undo {
        self.unnamed_count += 1;
        let token = Token { client: self.id, count: self.unnamed_count };
        server.unnamed = ServerUnnamed::Is(token);
        Undo::Unnamed(self.unnamed.replace(Box::new(Unnamed { token, tail, effects })))
    }

    fn bind(&mut self, frame: Frame<'_>, bind: &Bind<'_>, to: &mut Destination<'_>) {
        self.discarding = Discarding::No;
        let name = self.resolve(to.server, bind.statement, to.out);
        if let Name::Verbatim(_) = name {
            return to.forward(frame, Expected::BindComplete, Undo::Nothing);
        }
        encode::message(to.out, FrontendTag::BIND.0, |out| {
            encode::cstr(out, bind.portal);
            encode::cstr(out, &name);
            out.extend_from_slice(bind.rest);
        });
        to.server.pipeline.push(Expected::BindComplete, Fate::Forward, Undo::Nothing);
    }

    fn describe(&mut self, frame: Frame<'_>, name: &[u8], to: &mut Destination<'_>) {
        let server_name = self.resolve(to.server, name, to.out);
        if let Name::Verbatim(_) = server_name {
            return to.forward(frame, Expected::Description, Undo::Nothing);
        }
        encode::message(to.out, FrontendTag::DESCRIBE.0, |out| {
            out.push(b'S');
            encode::cstr(out, &server_name);
        });
        to.server.pipeline.push(Expected::Description, Fate::Forward, Undo::Nothing);
    }

    fn close(&mut self, frame: Frame<'_>, name: &[u8], to: &mut Destination<'_>) {
        if name.is_empty() {
            let previous = self.unnamed.take();
            to.server.unnamed = ServerUnnamed::Nothing;
            return to.forward(frame, Expected::CloseComplete, Undo::Unnamed(previous));
        }
        if let Some(statement) = self.statements.remove(name) {
            // The server keeps it, for whoever prepares the same text next.
            let undo = Undo::Closed { name: name.into(), statement };
            to.server.pipeline.push_synthesized(&encode::CLOSE_COMPLETE, undo);
        } else {
            encode::close_statement(to.out, &Name::of_client(name));
            to.server.pipeline.push(Expected::CloseComplete, Fate::Forward, Undo::Nothing);
        }
    }

    /// The name by which the server knows the client's statement `name`; sees to it that it does.
    fn resolve<'a>(
        &mut self,
        server: &mut ServerSide,
        name: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Name<'a> {
        if name.is_empty() {
            self.ensure_unnamed(server, out);
            return Name::Verbatim(name);
        }
        let Some(statement) = self.statements.get(name) else {
            // The server has no statement of any client's name, and says so in its own words.
            return Name::of_client(name);
        };
        let statement = Arc::clone(statement);
        self.pin_for(statement.effects);
        ensure(server, &statement, out);
        Name::Ours(ServerName::new(statement.id))
    }

    fn ensure_unnamed(&mut self, server: &mut ServerSide, out: &mut Vec<u8>) {
        let Some(unnamed) = &self.unnamed else {
            if server.unnamed != ServerUnnamed::Nothing {
                encode::close_statement(out, b"");
                let undo = Undo::ServerUnnamed;
                server.pipeline.push(Expected::CloseComplete, Fate::Swallow, undo);
                server.unnamed = ServerUnnamed::Nothing;
            }
            return;
        };
        let effects = unnamed.effects;
        if server.unnamed != ServerUnnamed::Is(unnamed.token)
            && let Some(tail) = &unnamed.tail
        {
            encode::parse(out, b"", tail);
            let undo = Undo::ServerUnnamed;
            server.pipeline.push(Expected::ParseComplete, Fate::Swallow, undo);
            server.unnamed = ServerUnnamed::Is(unnamed.token);
        }
        self.pin_for(effects);
    }

    fn pin_for(&mut self, effects: Effects) {
        if discards(effects) && self.discarding == Discarding::No {
            self.discarding = Discarding::Bound;
        }
        if let Some(reason) = PinReason::of(effects) {
            self.pin(reason);
        }
    }

    fn pin(&mut self, reason: PinReason) {
        // A server that must be closed in the end stays so, whatever else comes.
        if self.pin.is_none_or(|current| reason.survives_discard_all() && current != reason) {
            self.pin = Some(reason);
        }
    }

    /// Takes back what was assumed of a message that failed or was skipped.
    pub fn undo(&mut self, server: &mut ServerSide, undo: Undo, how: Miscarriage) {
        match undo {
            Undo::Nothing => {}
            Undo::Parsed { name, id } => {
                self.statements.remove(&name);
                server.statements.remove(id);
            }
            Undo::Named { name, .. } => {
                self.statements.remove(&name);
            }
            Undo::Injected(id) => server.statements.remove(id),
            Undo::Evicted(id) => server.statements.insert(id),
            Undo::Closed { name, statement } => self.statements.insert(name, statement),
            Undo::Unnamed(previous) => {
                // PostgreSQL drops the old unnamed statement before it looks at the new one.
                let previous = if how == Miscarriage::Failed { None } else { previous };
                // A batch behind this one may have replaced it again.
                if let Some(found) = server.pipeline.next_unnamed() {
                    *found = previous;
                } else {
                    self.unnamed = previous;
                    server.unnamed = ServerUnnamed::Unknown;
                }
            }
            Undo::ServerUnnamed => {
                if server.pipeline.next_unnamed().is_none() {
                    server.unnamed = ServerUnnamed::Unknown;
                }
            }
        }
    }

    /// The client's `DISCARD ALL` or `DEALLOCATE ALL` succeeded.
    pub fn deallocated_all(&mut self) {
        self.statements.clear();
    }
}

/// True if the server may forget statements of the client.
fn discards(effects: Effects) -> bool {
    effects.intersects(Effects::DISCARD_ALL) || effects.intersects(Effects::DEALLOCATE)
}

/// A statement's name on a server.
enum Name<'a> {
    /// As the client sent it.
    Verbatim(&'a [u8]),
    /// As the client sent it, but so that it is none of ours.
    Escaped(Vec<u8>),
    /// One of ours.
    Ours(ServerName),
}

impl<'a> Name<'a> {
    /// The name of what only the client knows by it. Ours can be guessed, and lead to statements of
    /// other clients.
    fn of_client(name: &'a [u8]) -> Self {
        match name.strip_prefix(SERVER_NAME_PREFIX) {
            // No number begins like this.
            Some(end) => Self::Escaped([SERVER_NAME_PREFIX, b"_", end].concat()),
            None => Self::Verbatim(name),
        }
    }
}

impl std::ops::Deref for Name<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Verbatim(name) => name,
            Self::Escaped(name) => name,
            Self::Ours(name) => name.as_bytes(),
        }
    }
}

/// Where translated messages go.
struct Destination<'a> {
    server: &'a mut ServerSide,
    intern: &'a mut dyn Intern,
    limits: &'a Limits,
    out: &'a mut Vec<u8>,
}

impl Destination<'_> {
    fn forward(&mut self, frame: Frame<'_>, expected: Expected, undo: Undo) {
        self.out.extend_from_slice(frame.bytes);
        self.server.pipeline.push(expected, Fate::Forward, undo);
    }

    fn parse_as(&mut self, statement: &Prepared, tail: &[u8], fate: Fate, undo: Undo) {
        parse_as(self.server, statement, tail, fate, undo, self.out);
    }

    fn ensure(&mut self, statement: &Prepared) {
        ensure(self.server, statement, self.out);
    }

    /// Closes statements far beyond the limit, which a transaction without end could gather.
    fn make_room(&mut self) {
        let max = self.limits.server_statements_max;
        if self.server.statements.len() >= max.saturating_mul(STATEMENTS_SLACK) {
            evict(self.server, max, Fate::Swallow, self.out);
        }
    }
}

fn ensure(server: &mut ServerSide, statement: &Prepared, out: &mut Vec<u8>) {
    if !server.statements.touch(statement.id) {
        server.statements.insert(statement.id);
        parse_as(
            server,
            statement,
            &statement.tail,
            Fate::Swallow,
            Undo::Injected(statement.id),
            out,
        );
    }
}

fn parse_as(
    server: &mut ServerSide,
    statement: &Prepared,
    tail: &[u8],
    fate: Fate,
    undo: Undo,
    out: &mut Vec<u8>,
) {
    encode::parse(out, ServerName::new(statement.id).as_bytes(), tail);
    server.pipeline.push(Expected::ParseComplete, fate, undo);
}

/// Closes the statements that a server has beyond `max`, least recently used first.
pub fn evict(server: &mut ServerSide, max: usize, fate: Fate, out: &mut Vec<u8>) {
    for id in server.statements.evict(max) {
        encode::close_statement(out, ServerName::new(id).as_bytes());
        server.pipeline.push(Expected::CloseComplete, fate, Undo::Evicted(id));
    }
}

/// Gives the server something to answer, where all that is due is answered here: replies of ours
/// come in their turn with those of the server.
fn nudge(server: &mut ServerSide, out: &mut Vec<u8>) {
    if server.pipeline.ends_with_synthesized() {
        encode::close_statement(out, SERVER_NAME_PREFIX);
        server.pipeline.push(Expected::CloseComplete, Fate::Swallow, Undo::Nothing);
    }
}

/// True if a message of this size is passed on in pieces instead of being waited for.
fn streams(tag: FrontendTag, frame_len: usize, have: &[u8]) -> bool {
    /// A message up to this size is waited for, whatever it is.
    const WAIT_MAX: usize = 32 * 1024;
    match tag {
        FrontendTag::COPY_DATA => true,
        FrontendTag::QUERY | FrontendTag::PARSE => frame_len > STATEMENT_MAX,
        // The names must be at hand.
        FrontendTag::BIND => frame_len > WAIT_MAX && have.len() >= WAIT_MAX / 2,
        FrontendTag::FUNCTION_CALL => frame_len > WAIT_MAX,
        _ => false,
    }
}

/// The server answers, or the copy goes on: what came so far can be sent.
fn ends_batch(tag: FrontendTag) -> bool {
    matches!(
        tag,
        FrontendTag::SYNC
            | FrontendTag::QUERY
            | FrontendTag::FLUSH
            | FrontendTag::FUNCTION_CALL
            | FrontendTag::TERMINATE
    ) || is_copy(tag)
}

fn is_copy(tag: FrontendTag) -> bool {
    matches!(tag, FrontendTag::COPY_DATA | FrontendTag::COPY_DONE | FrontendTag::COPY_FAIL)
}

/// Reads a client's header: its type must be one that belongs here, its size one it may have.
fn read_header(input: &[u8], limits: &Limits) -> Result<Option<Header>, ClientFault> {
    let Some(header) = Header::read(input, limits.message_max)? else {
        return Ok(None);
    };
    let tag = FrontendTag(header.tag);
    check_frontend_tag(tag)?;
    if waits(tag) && header.frame_len > NAMES_MAX {
        return Err(FrameError::TooLarge { tag: header.tag, frame_len: header.frame_len }.into());
    }
    Ok(Some(header))
}

/// Largest message that holds nothing but names.
const NAMES_MAX: usize = 32 * 1024;

/// True for messages that are never streamed, however large.
fn waits(tag: FrontendTag) -> bool {
    !matches!(
        tag,
        FrontendTag::COPY_DATA
            | FrontendTag::QUERY
            | FrontendTag::PARSE
            | FrontendTag::BIND
            | FrontendTag::FUNCTION_CALL
    )
}

fn check_frontend_tag(tag: FrontendTag) -> Result<(), ClientFault> {
    match tag {
        FrontendTag::PARSE
        | FrontendTag::BIND
        | FrontendTag::DESCRIBE
        | FrontendTag::EXECUTE
        | FrontendTag::CLOSE => Ok(()),
        tag if ends_batch(tag) => Ok(()),
        FrontendTag(tag) => Err(ClientFault::Unexpected { tag }),
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "session_extent_tests.rs"]
mod extent_tests;

#[cfg(test)]
#[path = "session_limit_tests.rs"]
mod limit_tests;
