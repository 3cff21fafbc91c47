//! `PREPARE`, `EXECUTE` and `DEALLOCATE`: a text that uses names goes to a server that knows them.
//!
//! What the server lacks is prepared there ahead of the text, as a part of its batch, so that an
//! error in it is the text's. Names are shared with the protocol's statements, which have other
//! names on a server: one that a text names is prepared there a second time, under its own.
//!
//! Whether a `PREPARE` or `DEALLOCATE` came to anything is told by its tag: neither is taken back
//! by a ROLLBACK.

use super::aside;
use super::naming::{Destination, evict};
use super::pin::PinReason;
use super::pipeline::{Expected, Fate, Undo};
use super::prelude;
use super::prepared::{Prepared, SERVER_NAME_PREFIX};
use super::reading::read_as;
use super::session::{ClientFault, Limits, Moment, ServerSide, Session, discards};
use super::sql_statements::{Change, OwnNames, SqlStatement};
use super::statement::{self, Command, Effects};
use super::transaction::TransactionStatus;
use crate::wire::encode;
use crate::wire::frontend::Bind;
use hashbrown::HashSet;

/// Statements that name prepared ones.
pub(super) const ABOUT_NAMES: Effects =
    Effects::PREPARE.and(Effects::EXECUTE).and(Effects::DEALLOCATE);

/// Most names of a client that a server keeps before it is told to close them all.
const OWN_NAMES_MAX: usize = 1024;

/// Most bytes that are put ahead of one text.
const AHEAD_MAX: usize = 4 << 20;

/// A `Parse` behind its name: an empty text without parameters.
pub(super) const NO_STATEMENT: &[u8] = &[0; 3];

/// Tells what the protocol prepared from what SQL did.
const BY_PROTOCOL: u64 = 1 << 63;

/// What a `Query` needs around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Send {
    /// It is not sent yet.
    NotYet,
    /// Nothing.
    Alone,
    /// Each of its statements by itself: something is put between them.
    InParts,
    /// A `Sync` behind it: what stands before it may fail, and PostgreSQL would skip it then.
    WithSync,
}

/// What a message needs of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it is refused in any case, or what stood ahead of it would be.
    Nothing,
    /// That there is a statement of this name, whatever it is. It cannot fail to be prepared. It is what it means to the
    /// client where a portal may execute it later: the text that needs it may fail.
    Presence,
    /// What it means to the client.
    Meaning,
}

/// What a text that is about names comes to.
struct Named {
    changes: Vec<Change>,
    /// Every `PREPARE` in it can be followed.
    followed: bool,
    /// How many statements were prepared ahead of it.
    prepares: usize,
}

impl Session {
    /// Takes note of a simple query about names, which is about to be sent.
    pub(super) fn observe_names(
        &mut self,
        effects: Effects,
        text: &[u8],
        server: &mut ServerSide,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<Send, ClientFault> {
        if server.pipeline.awaits_outcome() {
            self.channels.wait();
            return Ok(Send::NotYet);
        }
        // There, what fails before the text skips it anyway.
        let has_sync = server.pipeline.is_mid_batch();
        let effects = effects | self.executed(text, limits);
        self.observe(effects, server, Moment::BetweenBatches, out)?;
        let named = self.names_first(text, effects, server, out)?;
        if named.prepares > 0 && !has_sync && server.pipeline.status() == TransactionStatus::Idle {
            // In one batch with that, the text would be the middle of a pipeline, and its transaction open behind it.
            prelude::guard(server, Fate::Swallow, Fate::Guard, out);
        }
        let left = if named.followed { effects.without(Effects::PREPARE) } else { effects };
        self.doubt(left, limits, text, None);
        if discards(effects) || !named.changes.is_empty() {
            self.discarding = true;
        }
        self.sql.send(named.changes);
        Ok(if named.prepares > 0 && !has_sync { Send::WithSync } else { Send::Alone })
    }

    /// The same for a statement that is bound. Yields what is left of its effects to be looked into.
    pub(super) fn bind_names(
        &mut self,
        bind: &Bind<'_>,
        effects: Effects,
        server: &mut ServerSide,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<Effects, ClientFault> {
        let text = self.text_of(bind.statement);
        let effects = effects | self.executed(&text, limits);
        self.observe(effects, server, Moment::InBatch, out)?;
        let named = self.names_first(&text, effects, server, out)?;
        if effects.intersects(Effects::EXECUTE) {
            self.sql.note_execute();
        }
        if !self.sql.bind(bind.portal, named.changes, discards(effects)) {
            self.may_discard = true;
            self.pin_for_good(PinReason::Prepare);
        }
        Ok(if named.followed { effects.without(Effects::PREPARE) } else { effects })
    }

    /// `portal` is executed. True if that changes names.
    pub(super) fn execute_names(&mut self, portal: &[u8], to: &mut Destination<'_>) -> bool {
        let Some(changes) = self.sql.executed(portal) else { return false };
        if changes.iter().any(|change| matches!(change, Change::Unknown)) {
            // It may have one of those that pgweir shares, of which some are back since it was bound.
            evict(to.server, 0, Fate::Swallow, to.out);
        }
        self.sql.send(changes);
        true
    }

    /// Sees to the names in a text that is parsed: what it returns depends on them. True: not yet.
    pub(super) fn parse_names(
        &mut self,
        text: &[u8],
        to: &mut Destination<'_>,
    ) -> Result<bool, ClientFault> {
        if to.server.pipeline.awaits_outcome() {
            self.channels.wait();
            return Ok(true);
        }
        self.names_first(text, Effects::NONE, to.server, to.out)?;
        Ok(false)
    }

    /// The same for a statement that is parsed again.
    pub(super) fn names_of(
        &mut self,
        statement: &Prepared,
        server: &mut ServerSide,
        out: &mut Vec<u8>,
    ) -> Result<(), ClientFault> {
        self.names_first(statement.text(), Effects::NONE, server, out)?;
        Ok(())
    }

    /// True if the client's statement `name` can only be used when what was sent is answered.
    pub(super) fn awaits_names(
        &mut self,
        name: &[u8],
        effects: Effects,
        server: &ServerSide,
    ) -> bool {
        let concerns = effects.intersects(ABOUT_NAMES)
            || discards(effects)
            || (!name.is_empty() && self.sql.get(name).is_some());
        let waits = concerns && server.pipeline.awaits_outcome();
        if waits {
            self.channels.wait();
        }
        waits
    }

    /// What the statements do that `text` executes by name. They are looked into as if they stood in it.
    ///
    /// What is prepared by this text, or by a portal, may be what this or another portal executes then.
    fn executed(&mut self, text: &[u8], limits: &Limits) -> Effects {
        let mut all = Effects::NONE;
        let mut prepared = Effects::NONE;
        let mut executes = false;
        let mut seen = HashSet::new();
        for statement in statement::statements(text, self.options) {
            if let (Command::Prepare, Some(body)) = (statement.command(), statement.body()) {
                prepared = prepared | statement::effects(body, self.options);
            }
            if !statement.effects().intersects(Effects::EXECUTE) {
                continue;
            }
            executes = true;
            let Some(name) = statement.name() else { continue };
            let effects = self.effects_of(&name);
            // Each is looked at once, however often it is named.
            let mut first = || self.meaning_of(&name).is_none_or(|meaning| seen.insert(meaning));
            if !effects.is_empty() && !name.is_empty() && first() {
                let text = self.text_of(&name);
                self.doubt(effects, limits, &text, None);
                all = all | effects;
            }
        }
        if !prepared.is_empty() && (executes || self.sql.may_execute()) {
            self.doubt(prepared, limits, text, None);
            all = all | prepared;
        }
        for (effects, text) in executes.then(|| self.sql.bound()).into_iter().flatten() {
            self.doubt(effects, limits, &text, None);
            all = all | effects;
        }
        all
    }

    /// Sees to it that the names in `text` mean on `server` what they mean to the client.
    fn names_first(
        &mut self,
        text: &[u8],
        effects: Effects,
        server: &mut ServerSide,
        out: &mut Vec<u8>,
    ) -> Result<Named, ClientFault> {
        if server.own.as_ref().is_some_and(|own| own.len() >= OWN_NAMES_MAX) {
            close_own(server, Fate::Swallow, out);
        }
        let readable = !effects.intersects(Effects::UNCERTAIN);
        // What comes behind a COPY is read by it. And in a failed block, the text is refused as it is.
        let may_fail = !effects.intersects(Effects::COPY)
            && server.pipeline.status() != TransactionStatus::Failed;
        let mut named = Named { changes: Vec::new(), followed: true, prepares: 0 };
        let before = out.len();
        let mut told: HashSet<Box<[u8]>> = HashSet::new();
        for statement in statement::statements(text, self.options) {
            let command = statement.command();
            if !statement.effects().intersects(ABOUT_NAMES) || command == Command::DeallocateAll {
                continue;
            }
            let name = statement.name().unwrap_or_default();
            let need = match command {
                _ if !may_fail => Need::Nothing,
                Command::Prepare | Command::Deallocate => Need::Presence,
                _ => Need::Meaning,
            };
            // What the text itself makes of a name is what it means to the rest of it.
            if !told.contains(&*name) {
                named.prepares += usize::from(self.settle_name(&name, need, server, out));
            }
            if named.prepares > OWN_NAMES_MAX || out.len() - before > AHEAD_MAX {
                return Err(ClientFault::TooMuchAhead);
            }
            let change = match command {
                Command::Prepare if readable && can_be_followed(&name) => {
                    let body = statement.body().unwrap_or_default();
                    let prepared = SqlStatement {
                        number: self.sql.number(),
                        text: statement.text().into(),
                        effects: statement::effects(body, self.options),
                        options: self.options,
                    };
                    Change::Prepare((*name).into(), Box::new(prepared))
                }
                Command::Deallocate if readable && can_be_followed(&name) => {
                    Change::Deallocate((*name).into())
                }
                Command::Prepare | Command::Deallocate => {
                    named.followed &= command != Command::Prepare;
                    Change::Unknown
                }
                _ => continue,
            };
            if !matches!(change, Change::Unknown) {
                told.insert((*name).into());
            }
            named.changes.push(change);
        }
        for change in &named.changes {
            if let Change::Prepare(name, _) | Change::Deallocate(name) = change
                && !self.is_large(name)
            {
                self.own(server).unsure(name);
            }
        }
        Ok(named)
    }

    /// True if a `Parse` of `text` is refused before its name is looked at, as in a failed block is all but its end.
    ///
    /// What would be put ahead of it there is refused too, and perhaps with another error.
    pub(super) fn is_refused(&self, text: &[u8], server: &ServerSide) -> bool {
        if server.pipeline.status() != TransactionStatus::Failed {
            return false;
        }
        let mut statements = statement::statements(text, self.options);
        let command = statements.next().map_or(Command::Empty, |first| first.command());
        let ends = matches!(
            command,
            Command::Empty
                | Command::Commit
                | Command::Rollback
                | Command::RollbackTo
                | Command::PrepareTransaction
        );
        !ends || statements.next().is_some()
    }

    /// Sees to it that `name` means on `server` what it means to the client, as far as there is need of it. True if
    /// something was prepared for it.
    pub(super) fn settle_name(
        &mut self,
        name: &[u8],
        need: Need,
        server: &mut ServerSide,
        out: &mut Vec<u8>,
    ) -> bool {
        if name.is_empty() || name.starts_with(SERVER_NAME_PREFIX) {
            // None of those that pgweir shares is the client's. It may have one if it is not known.
            evict(server, 0, Fate::Swallow, out);
        }
        if self.is_large(name) {
            return false;
        }
        let known = server.own.as_ref().and_then(|own| own.get(name));
        let wanted = self.meaning_of(name);
        if known == wanted {
            return false;
        }
        if known.is_some() {
            encode::close_statement(out, name);
            let undo = Undo::OwnName(name.into());
            server.pipeline.push(Expected::CloseComplete, Fate::Swallow, undo);
            self.own(server).remove(name);
        }
        let Some(meaning) = wanted.filter(|_| need != Need::Nothing) else { return false };
        self.sql.begin();
        let undo = Undo::OwnName(name.into());
        if need == Need::Presence && !self.sql.may_execute() {
            self.own(server).unsure(name);
            encode::parse(out, name, NO_STATEMENT);
            server.pipeline.push(Expected::ParseComplete, Fate::Swallow, undo);
            return true;
        }
        self.own(server).insert(name, meaning);
        server.reparsed += 1;
        let now = self.reading();
        if let Some(statement) = self.sql.get(name) {
            let text = &statement.text;
            read_as(statement.options, now, text, server, out, |server, out| {
                aside::run(server, text, &[], undo, || Undo::Nothing, out);
            });
        } else if let Some(statement) = self.statements.get(name) {
            read_as(statement.options, now, statement.text(), server, out, |server, out| {
                encode::parse(out, name, &statement.tail);
                server.pipeline.push(Expected::ParseComplete, Fate::Swallow, undo);
            });
        }
        true
    }

    /// What `name` means to the client, if a server can be told that.
    fn meaning_of(&self, name: &[u8]) -> Option<u64> {
        if let Some(statement) = self.sql.get(name) {
            return Some(statement.number);
        }
        let statement = self.statements.get(name).filter(|_| can_be_followed(name))?;
        Some(BY_PROTOCOL | statement.id)
    }

    /// A `PREPARE` or `DEALLOCATE` of the client has succeeded.
    pub(super) fn name_changed(&mut self, server: &mut ServerSide, prepared: bool) {
        match self.sql.completed() {
            Some(Change::Prepare(name, statement)) if prepared => {
                let number = statement.number;
                if self.sql.insert(&name, statement) {
                    self.own(server).insert(&name, number);
                } else {
                    self.own(server).remove(&name);
                    self.fear(Effects::PREPARE);
                }
            }
            Some(Change::Deallocate(name)) if !prepared => {
                self.statements.remove(&name);
                self.sql.remove(&name);
                self.sql.note_change();
                self.own(server).remove(&name);
            }
            _ => {
                self.fear(Effects::PREPARE);
                // It may have been one that others share.
                server.stained |= !prepared;
            }
        }
    }

    /// Forgets the statement of SQL that the client closes, which the server does too.
    pub(super) fn close_sql(&mut self, name: &[u8], server: &mut ServerSide) -> Undo {
        let Some(statement) = self.sql.remove(name) else { return Undo::Nothing };
        self.own(server).remove(name);
        Undo::SqlClosed { name: name.into(), statement }
    }

    /// The protocol gives `name` another meaning, or none: what the server knows by it goes.
    pub(super) fn protocol_changes(
        &mut self,
        name: &[u8],
        server: &mut ServerSide,
        out: &mut Vec<u8>,
    ) {
        self.sql.note_change();
        if server.own.is_none() {
            return;
        }
        if self.own(server).get(name).is_some() {
            encode::close_statement(out, name);
            let undo = Undo::OwnName(name.into());
            server.pipeline.push(Expected::CloseComplete, Fate::Swallow, undo);
            self.own(server).remove(name);
        }
    }

    /// The names on `server` that mean what they mean to the client, which are up to date.
    pub(super) fn own<'a>(&self, server: &'a mut ServerSide) -> &'a mut OwnNames {
        let own = server.own.get_or_insert_with(|| Box::new(OwnNames::of(self.id)));
        own.version = self.sql.version();
        own
    }

    /// Closes the names on `server` that are not, or no longer, what they mean to this client.
    pub fn close_foreign(&self, server: &mut ServerSide, out: &mut Vec<u8>) {
        let foreign = server
            .own
            .as_ref()
            .is_some_and(|own| own.client != self.id || own.version != self.sql.version());
        if foreign {
            close_own(server, Fate::Prelude, out);
        }
    }
}

/// True if a name is read the same by everybody, and is none of pgweir's own.
pub(super) fn can_be_followed(name: &[u8]) -> bool {
    !name.is_empty() && name.is_ascii() && !name.starts_with(SERVER_NAME_PREFIX)
}

fn close_own(server: &mut ServerSide, fate: Fate, out: &mut Vec<u8>) {
    let Some(own) = server.own.take() else { return };
    for name in own.names() {
        encode::close_statement(out, name);
        let undo = Undo::OwnName(name.into());
        server.pipeline.push(Expected::CloseComplete, fate, undo);
    }
}
