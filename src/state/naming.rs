//! A client's prepared statements on the server it holds: renamed, shared, and prepared there when
//! they are missing.

use super::channels::{By, Verdict};
use super::memo;
use super::pipeline::{Expected, Fate, Pipeline, Undo};
use super::prepared::{
    Prepared, SERVER_NAME_PREFIX, ServerName, TAKEN, Tail, Token, Unnamed, text_of,
};
use super::preparing::{NO_STATEMENT, Need};
use super::reading::read_as;
use super::session::{ClientFault, Intern, Limits, ServerSide, ServerUnnamed, Session};
use super::statement::{Effects, Options};
use crate::wire::frame::Frame;
use crate::wire::frontend::{Bind, Object, Parse};
use crate::wire::{FrontendTag, encode};
use std::sync::Arc;

/// A statement beyond what a server keeps is closed at once when this many are over the limit.
const STATEMENTS_SLACK: usize = 4;

impl Session {
    /// True if what `frame` means depends on a batch whose outcome is not known yet.
    pub(super) fn is_in_doubt(
        &self,
        frame: Frame<'_>,
        server: &ServerSide,
        intern: &mut dyn Intern,
    ) -> bool {
        if !server.pipeline.owes_sync() {
            return false;
        }
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
                    server.pipeline.is_in_doubt(name, None, true)
                }
                _ => false,
            },
            _ => false,
        }
    }

    pub(super) fn parse_in_doubt(
        &self,
        parse: &Parse<'_>,
        pipeline: &Pipeline,
        intern: &mut dyn Intern,
    ) -> bool {
        if parse.name.is_empty() || pipeline.assumes_nothing() {
            return false;
        }
        let id = match self.statements.get(parse.name) {
            Some(known) => Some(known.id),
            None => {
                let effects = memo::effects(parse.query, self.options);
                let interned = intern.intern(parse.tail, effects, self.options, &self.settings);
                interned.ok().map(|statement| statement.id)
            }
        };
        pipeline.is_in_doubt(parse.name, id, true)
    }

    pub(super) fn name_in_doubt(&self, name: &[u8], pipeline: &Pipeline) -> bool {
        if name.is_empty() {
            return pipeline.is_unnamed_in_doubt();
        }
        let id = self.statements.get(name).map(|statement| statement.id);
        pipeline.is_in_doubt(name, id, false)
    }

    pub(super) fn parse(
        &mut self,
        frame: Frame<'_>,
        parse: &Parse<'_>,
        to: &mut Destination<'_>,
    ) -> Result<(), ClientFault> {
        if self.awaits_reading(parse.query, to.server) {
            return Ok(());
        }
        let effects = memo::effects(parse.query, self.options);
        if self.listen_first(effects, parse.query, By::Parse, to.server) == Verdict::Wait {
            return Ok(());
        }
        if effects.intersects(Effects::EXECUTE) && self.parse_names(parse.query, to)? {
            return Ok(());
        }
        if effects.intersects(Effects::DO) {
            if self.awaits_sequences(effects, to.server) {
                return Ok(());
            }
            self.before_do(to.server, to.out)?;
        }
        // Read soon, if not now.
        self.seen = self.seen | (effects & Effects::SEQUENCE_READ);
        if parse.name.is_empty() {
            return self.parse_unnamed(frame, parse, effects, to);
        }
        if let Some(existing) = self.statements.get(parse.name) {
            to.parse_taken(existing.id, parse.tail);
            return Ok(());
        }
        if self.sql.get(parse.name).is_some() {
            // The server refuses it.
            if !self.awaits_names(parse.name, Effects::NONE, to.server) {
                let refused = self.is_refused(parse.query, to.server);
                let need = if refused { Need::Nothing } else { Need::Presence };
                self.settle_name(parse.name, need, to.server, to.out);
                to.forward(frame, Expected::ParseComplete, Undo::Nothing);
            }
            return Ok(());
        }
        if self.is_large(parse.name) {
            encode::parse(to.out, &Name::of_client(parse.name), parse.tail);
            to.server.pipeline.push(Expected::ParseComplete, Fate::Forward, Undo::Nothing);
            return Ok(());
        }
        if self.statements.len() >= to.limits.statements_max {
            return Err(ClientFault::TooManyStatements);
        }
        if !self.statements.has_room_for(parse.name, parse.tail) {
            return Err(ClientFault::TooLargeStatements);
        }
        // What a name in it means is the client's own affair.
        let apart = self.settings_touched || effects.intersects(Effects::EXECUTE);
        let statement = if apart {
            to.intern.apart(parse.tail, effects, self.options)?
        } else {
            to.intern.intern(parse.tail, effects, self.options, &self.settings)?
        };
        self.protocol_changes(parse.name, to.server, to.out);
        let name: Box<[u8]> = parse.name.into();
        self.statements.insert(name.clone(), Arc::clone(&statement));
        let id = statement.id;
        if to.server.statements.touch(id) {
            if !to.server.pipeline.parse_matters() {
                let undo = Undo::Named { name, id };
                to.server.pipeline.push_synthesized(&encode::PARSE_COMPLETE, undo);
                return Ok(());
            }
            // What it has under this name makes room for what is parsed, if it is.
            encode::close_statement(to.out, ServerName::new(id).as_bytes());
            to.server.pipeline.push(Expected::CloseComplete, Fate::Swallow, Undo::Evicted(id));
        } else {
            to.make_room();
        }
        to.server.statements.insert(id);
        to.parse_as(&statement, parse.tail, Fate::Forward, Undo::Parsed { name, id });
        Ok(())
    }

    fn parse_unnamed(
        &mut self,
        frame: Frame<'_>,
        parse: &Parse<'_>,
        effects: Effects,
        to: &mut Destination<'_>,
    ) -> Result<(), ClientFault> {
        let tail = to.intern.hold(parse.tail)?;
        let undo = self.replace_unnamed(to.server, Some(tail), effects);
        to.forward(frame, Expected::ParseComplete, undo);
        Ok(())
    }

    pub(super) fn replace_unnamed(
        &mut self,
        server: &mut ServerSide,
        tail: Option<Tail>,
        effects: Effects,
    ) -> Undo {
        self.unnamed_count += 1;
        let token = Token { client: self.id, count: self.unnamed_count };
        server.unnamed = ServerUnnamed::Is(token);
        let unnamed = Unnamed { token, tail, effects, options: self.options };
        Undo::Unnamed(self.unnamed.replace(Box::new(unnamed)))
    }

    pub(super) fn bind(
        &mut self,
        frame: Frame<'_>,
        bind: &Bind<'_>,
        to: &mut Destination<'_>,
    ) -> Result<(), ClientFault> {
        let Verdict::Send(effects) = self.listen_before_bind(bind.statement, to.server) else {
            return Ok(());
        };
        if self.awaits_names(bind.statement, effects, to.server)
            || self.awaits_sequences(effects, to.server)
        {
            return Ok(());
        }
        if !self.is_usable(bind.statement, to.server, to.limits, to.out)? {
            return Ok(());
        }
        self.observe_bind(bind, effects, to.server, to.limits, to.out)?;
        let name = self.resolve(to.server, bind.statement, to.out)?;
        self.note_bound(bind.portal, &name);
        if let Name::Verbatim(_) = name {
            to.forward(frame, Expected::BindComplete, Undo::Nothing);
            return Ok(());
        }
        encode::message(to.out, FrontendTag::BIND.0, |out| {
            encode::cstr(out, bind.portal);
            encode::cstr(out, &name);
            out.extend_from_slice(bind.rest);
        });
        to.server.pipeline.push(Expected::BindComplete, Fate::Forward, Undo::Nothing);
        Ok(())
    }

    /// True if the text of the client's statement `name`, if there is one, was too large to be looked at.
    pub(super) fn is_unseen(&self, name: &[u8]) -> bool {
        if !self.audit.for_good {
            return false;
        }
        if name.is_empty() {
            return self.unnamed.as_ref().is_some_and(|unnamed| unnamed.tail.is_none());
        }
        self.statements.get(name).is_none() && self.sql.get(name).is_none()
    }

    /// What running the client's statement `name` does.
    pub(super) fn effects_of(&self, name: &[u8]) -> Effects {
        if name.is_empty() {
            return self.unnamed.as_ref().map_or(Effects::NONE, |unnamed| {
                let text = text_of(unnamed.tail.as_deref().unwrap_or_default());
                self.as_read_now(unnamed.effects, unnamed.options, text)
            });
        }
        if let Some(known) = self.statements.get(name) {
            return self.as_read_now(known.effects, known.options, known.text());
        }
        self.sql.get(name).map_or(Effects::NONE, |known| {
            self.as_read_now(known.effects, known.options, &known.text)
        })
    }

    pub(super) fn describe(
        &mut self,
        frame: Frame<'_>,
        name: &[u8],
        to: &mut Destination<'_>,
    ) -> Result<(), ClientFault> {
        if self.awaits_names(name, self.effects_of(name), to.server) {
            return Ok(());
        }
        if !self.is_usable(name, to.server, to.limits, to.out)? {
            return Ok(());
        }
        let server_name = self.resolve(to.server, name, to.out)?;
        if let Name::Verbatim(_) = server_name {
            to.forward(frame, Expected::Description, Undo::Nothing);
            return Ok(());
        }
        encode::describe_statement(to.out, &server_name);
        let undo = match server_name {
            Name::Shared(_, statement) => Undo::Describes(statement),
            _ => Undo::Nothing,
        };
        to.server.pipeline.push(Expected::Description, Fate::Forward, undo);
        Ok(())
    }

    pub(super) fn close(&mut self, frame: Frame<'_>, name: &[u8], to: &mut Destination<'_>) {
        if name.is_empty() {
            let previous = self.unnamed.take();
            to.server.unnamed = ServerUnnamed::Nothing;
            return to.forward(frame, Expected::CloseComplete, Undo::Unnamed(previous));
        }
        self.protocol_changes(name, to.server, to.out);
        match self.statements.remove(name) {
            // The server keeps it, for whoever prepares the same text next.
            Some(statement) => to.server.pipeline.push_synthesized(
                &encode::CLOSE_COMPLETE,
                Undo::Closed { name: name.into(), statement },
            ),
            None => {
                encode::close_statement(to.out, &Name::of_client(name));
                let undo = self.close_sql(name, to.server);
                to.server.pipeline.push(Expected::CloseComplete, Fate::Forward, undo);
            }
        }
    }

    /// The name by which the server knows the client's statement `name`; sees to it that it does.
    pub(super) fn resolve<'a>(
        &mut self,
        server: &mut ServerSide,
        name: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<Name<'a>, ClientFault> {
        if name.is_empty() {
            self.ensure_unnamed(server, out);
            return Ok(Name::Verbatim(name));
        }
        let Some(statement) = self.statements.get(name) else {
            // If SQL has not prepared it, the server says so in its own words.
            if server.own.is_some() || self.sql.get(name).is_some() {
                self.settle_name(name, Need::Meaning, server, out);
            }
            return Ok(Name::of_client(name));
        };
        let statement = Arc::clone(statement);
        if statement.effects.intersects(Effects::EXECUTE) {
            self.names_of(&statement, server, out)?;
        }
        ensure(server, &statement, self.reading(), out);
        Ok(Name::Shared(ServerName::new(statement.id), statement))
    }

    pub(super) fn ensure_unnamed(&mut self, server: &mut ServerSide, out: &mut Vec<u8>) {
        let Some(unnamed) = &self.unnamed else {
            if server.unnamed != ServerUnnamed::Nothing {
                encode::close_statement(out, b"");
                let undo = Undo::ServerUnnamed;
                server.pipeline.push(Expected::CloseComplete, Fate::Swallow, undo);
                server.unnamed = ServerUnnamed::Nothing;
            }
            return;
        };
        if server.unnamed != ServerUnnamed::Is(unnamed.token)
            && let Some(tail) = &unnamed.tail
        {
            let now = self.reading();
            read_as(unnamed.options, now, text_of(tail), server, out, |server, out| {
                encode::parse(out, b"", tail);
                let undo = Undo::ServerUnnamed;
                server.pipeline.push(Expected::ParseComplete, Fate::Swallow, undo);
            });
            server.reparsed += 1;
            server.unnamed = ServerUnnamed::Is(unnamed.token);
        }
    }
}

/// A statement's name on a server.
pub(super) enum Name<'a> {
    /// As the client sent it.
    Verbatim(&'a [u8]),
    /// As the client sent it, but so that it is none of ours.
    Escaped(Vec<u8>),
    /// One of ours.
    Ours(ServerName),
    /// One of ours, and what it means.
    Shared(ServerName, Arc<Prepared>),
}

impl<'a> Name<'a> {
    /// The name of what only the client knows by it. Ours can be guessed, and lead to statements of
    /// other clients.
    pub(super) fn of_client(name: &'a [u8]) -> Self {
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
            Self::Ours(name) | Self::Shared(name, _) => name.as_bytes(),
        }
    }
}

/// Where translated messages go.
pub(super) struct Destination<'a> {
    pub(super) server: &'a mut ServerSide,
    pub(super) intern: &'a mut dyn Intern,
    pub(super) limits: &'a Limits,
    pub(super) out: &'a mut Vec<u8>,
}

impl Destination<'_> {
    pub(super) fn forward(&mut self, frame: Frame<'_>, expected: Expected, undo: Undo) {
        self.out.extend_from_slice(frame.bytes);
        self.server.pipeline.push(expected, Fate::Forward, undo);
    }

    pub(super) fn parse_as(&mut self, statement: &Prepared, tail: &[u8], fate: Fate, undo: Undo) {
        parse_as(self.server, statement, tail, fate, undo, self.out);
    }

    /// A `Parse` of a name by which the client has statement `id`: the server refuses it.
    fn parse_taken(&mut self, id: u64, tail: &[u8]) {
        self.make_room();
        let name = take(self.server, id, self.out);
        encode::parse(self.out, name.as_bytes(), tail);
        self.server.pipeline.push(Expected::ParseComplete, Fate::Forward, Undo::Nothing);
    }

    /// Closes statements far beyond the limit, which a transaction without end could gather.
    pub(super) fn make_room(&mut self) {
        let max = self.limits.server_statements_max;
        if self.server.statements.len() >= max.saturating_mul(STATEMENTS_SLACK) {
            evict(self.server, max, Fate::Swallow, self.out);
        }
    }
}

/// Prepares `statement`, if the server lacks it. `reading` is how it reads texts, if that is known.
pub(super) fn ensure(
    server: &mut ServerSide,
    statement: &Prepared,
    reading: Option<Options>,
    out: &mut Vec<u8>,
) {
    if !server.statements.touch(statement.id) {
        server.statements.insert(statement.id);
        server.reparsed += 1;
        read_as(statement.options, reading, statement.text(), server, out, |server, out| {
            let undo = Undo::Injected(statement.id);
            parse_as(server, statement, &statement.tail, Fate::Swallow, undo, out);
        });
    }
}

/// Takes a name for a `Parse` that is to be refused, as the client has statement `id` by its name. What others share
/// is never given another text: code may have thrown the first one away unseen.
pub(super) fn take(server: &mut ServerSide, id: u64, out: &mut Vec<u8>) -> ServerName {
    let id = id | TAKEN;
    let name = ServerName::new(id);
    encode::close_statement(out, name.as_bytes());
    encode::parse(out, name.as_bytes(), NO_STATEMENT);
    for expected in [Expected::CloseComplete, Expected::ParseComplete] {
        server.pipeline.push(expected, Fate::Swallow, Undo::Nothing);
    }
    // If it is skipped, there is nothing to be closed later, which does no harm.
    server.statements.insert(id);
    name
}

/// Prepares a statement of pgweir's own, if the server lacks it. Yields its name there.
pub(super) fn ensure_with(
    server: &mut ServerSide,
    id: u64,
    tail: &[u8],
    fate: Fate,
    out: &mut Vec<u8>,
) -> ServerName {
    let name = ServerName::new(id);
    if !server.statements.touch(id) {
        server.statements.insert(id);
        encode::parse(out, name.as_bytes(), tail);
        server.pipeline.push(Expected::ParseComplete, fate, Undo::Injected(id));
    }
    name
}

pub(super) fn parse_as(
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
pub(super) fn nudge(server: &mut ServerSide, out: &mut Vec<u8>) {
    if server.pipeline.ends_with_synthesized() {
        encode::close_statement(out, SERVER_NAME_PREFIX);
        server.pipeline.push(Expected::CloseComplete, Fate::Swallow, Undo::Nothing);
    }
}
