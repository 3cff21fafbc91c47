//! One client's virtual session, and how its messages become those of the server it holds.
//!
//! Pure: bytes of the client in, bytes for the server out, and every reply that will come is put
//! on the server's ledger. Statements that the server lacks are prepared in the same bytes.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html>

use super::audit::Audit;
use super::batch::check_frontend_tag;
use super::channels::Channels;
use super::defaults::{ChangedDefaults, Told};
pub use super::fault::ClientFault;
pub use super::intern::Intern;
use super::naming::{Destination, nudge};
use super::pin::PinReason;
use super::pipeline::{Expected, Fate, Undo};
use super::prepared::{ClientStatements, Unnamed};
use super::preparing::Send;
use super::reading::{Reading, read_by};
use super::restore::Restores;
pub use super::sequences::SequenceCare;
use super::sequences::{OwnSequences, READS, TAKES};
pub use super::server_side::{Sequences, ServerSide, ServerUnnamed};
use super::settings::Settings;
use super::shape::Descriptions;
use super::sql_statements::SqlStatements;
use super::statement::{Effects, Options};
use super::suspects::Suspects;
use super::undo::Undone;
use crate::wire::frame::{self, Frame};
use crate::wire::frontend::{Bind, Object, Parse, query_text};
use crate::wire::{FrameError, FrontendTag, encode};
use std::sync::Arc;

/// Largest statement text (in bytes, with its frame) that is looked at or kept: a larger one is
/// streamed through unseen, and pins.
pub const STATEMENT_MAX: usize = 1 << 20;

/// Most bytes produced for a server in one go: what an expansion can make us buffer.
const OUT_MAX: usize = 1 << 20;

/// What a client may have, by configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest message in bytes.
    pub message_max: usize,
    /// Most named statements of a client.
    pub statements_max: usize,
    /// Most statements kept on a server.
    pub server_statements_max: usize,
    /// The database has functions, triggers and the like of which it is not known that they leave
    /// nothing behind: the server is asked after whoever may have run them.
    pub hidden_code: bool,
    /// Reading may run some of it: views, policies and operators lead there.
    pub code_in_reads: bool,
    /// What these leave cannot be asked for.
    pub opaque_code: bool,
    /// How often DDL was seen: a server that has statements from before parses them anew.
    pub ddl_seen: u64,
    /// What the clients of this pool ask of sequences.
    pub sequences: SequenceCare,
}

/// What may change the tables and the rest that plans are made for.
pub const CHANGES_PLANS: Effects = Effects::DDL.and(Effects::DO).and(Effects::DISCARD_TEMP);

/// A client as PostgreSQL would know it.
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
pub struct Session {
    /// Tells this client from every other.
    pub id: u64,
    /// The settings it wants.
    pub settings: Arc<Settings>,
    /// Those of its startup, which are its defaults.
    pub startup: Arc<Settings>,
    /// It was told of defaults that are not its own: it must hear of what is put right.
    pub(super) retell: bool,
    pub(super) audit: Audit,
    pub(super) changes_code: bool,
    pub(super) changed_code: bool,
    pub(super) changed_plans: Effects,
    pub(super) changed_defaults: Option<Box<ChangedDefaults>>,
    /// What it was told of its settings since its login.
    pub(super) told: Option<Box<Told>>,
    /// The part of its startup settings that were its defaults at its login.
    pub(super) kept: Option<Box<Settings>>,
    /// The routines to look out for, where they are known; and as of when.
    pub(super) suspects: Option<Arc<Suspects>>,
    /// What counts the changes of the code in the database, as of the last look.
    pub code_seen: u32,
    /// Why it keeps its server, if it does.
    pub pin: Option<PinReason>,
    /// The channels it listens on.
    pub channels: Channels,
    /// Its named statements.
    pub statements: ClientStatements,
    /// Those of SQL's PREPARE.
    pub(super) sql: SqlStatements,
    /// Those that came to nothing, while what was sent with them is not answered.
    pub(super) undone: Undone,
    pub(super) unnamed: Option<Box<Unnamed>>,
    pub(super) unnamed_count: u64,
    pub(super) seen: Effects,
    pub(super) sequences: OwnSequences,
    pub(super) descriptions: Descriptions,
    /// Portals that reset settings of its startup.
    pub(super) restores: Restores,
    /// It has changed settings since it got its server: what it parses is for itself alone.
    pub(super) settings_touched: bool,
    pub(super) options: Options,
    pub(super) reading: Reading,
    /// What is left of a message that is streamed.
    pub(super) streaming: Streaming,
    /// More portals are bound that may take statements away than are known: each that is executed may be one.
    pub(super) may_discard: bool,
    /// What statements there are is not known until what was sent is answered.
    pub(super) discarding: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Streaming {
    No,
    Forward(usize),
    Discard(usize),
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
    /// `Parse`.
    pub prepared: u32,
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
            startup: Arc::clone(&settings),
            settings,
            retell: false,
            audit: Audit::default(),
            changes_code: false,
            changed_code: false,
            changed_plans: Effects::NONE,
            changed_defaults: None,
            told: None,
            kept: None,
            suspects: None,
            code_seen: 0,
            pin: None,
            channels: Channels::default(),
            statements: ClientStatements::default(),
            sql: SqlStatements::default(),
            undone: Undone::default(),
            unnamed: None,
            unnamed_count: 0,
            seen: Effects::NONE,
            sequences: OwnSequences::default(),
            descriptions: Descriptions::default(),
            restores: Restores::new(),
            settings_touched: false,
            options: Options::default(),
            reading: Reading::Known,
            streaming: Streaming::No,
            may_discard: false,
            discarding: false,
        }
    }

    /// How the server reads this client's texts, from what it reported to it.
    pub fn learn_of_server<'a>(&mut self, reported: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (name, value) in reported {
            self.options = read_by(self.options, name, value);
            if name == "client_encoding" {
                self.channels.set_encoding(value);
            }
        }
        if let Some(reason) = self.keeps_by_itself() {
            self.pin_for_good(reason);
        }
    }

    /// The client has given its server back.
    pub fn released(&mut self) {
        self.settings_touched = false;
        self.restores = Restores::new();
        self.descriptions = Descriptions::default();
        self.sequences.released();
        self.audit.forget();
        self.reading = Reading::Known;
        if let Streaming::Forward(left) = self.streaming {
            self.streaming = Streaming::Discard(left);
        }
    }

    /// True in the middle of a message that is streamed.
    #[must_use]
    pub fn is_streaming(&self) -> bool {
        self.streaming != Streaming::No
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
        let flushes = server.pipeline.has_room() || self.is_streaming();
        // Only one batch is skipped if what was sent ahead fails.
        let ahead = server.pipeline.is_ahead();
        let guards = server.guards;
        while (!self.discarding || self.is_streaming())
            && !rest.is_empty()
            && out.len() < OUT_MAX
            // What is begun goes on: nothing may come between its pieces, and nothing is answered before its last one.
            && (self.is_streaming()
                || server.pipeline.has_room()
                    && !((ahead || server.guards != guards) && server.pipeline.owes_the_client()))
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
                    if self.is_in_doubt(frame, server, intern) || self.must_wait(frame, server) {
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
                    if self.channels.take_wait() {
                        rest = front;
                        break;
                    }
                }
                None => {
                    if !self.begin_stream(server, limits, &mut rest, out, &mut done.requests)? {
                        break;
                    }
                }
            }
        }
        if flushes && !server.pipeline.has_room() && !self.is_streaming() {
            nudge(server, out);
            server.pipeline.note_flush();
            encode::flush(out);
        }
        done.consumed = input.len() - rest.len();
        Ok(done)
    }

    /// True if no `DISCARD` or `DEALLOCATE` of the client is under way: what it leaves is not known.
    fn may_go_on(&mut self, server: &ServerSide) -> bool {
        let midway = self.is_streaming();
        self.discarding &= midway || !server.pipeline.waits_for_client();
        midway || !self.discarding
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
            // The server would skip it, and need not see it; a LISTEN in it has not to be waited for.
            self.channels.give_up();
            return Ok(());
        }
        let malformed = ClientFault::Frame(FrameError::Malformed { tag: frame.tag });
        match tag {
            FrontendTag::QUERY => {
                let text = query_text(frame.body()).ok_or(malformed)?;
                let send = self.observe_query(text, to)?;
                if send == Send::NotYet {
                    return Ok(());
                }
                requests.simple += 1;
                if send == Send::InParts {
                    self.send_in_parts(text, to);
                    return Ok(());
                }
                let previous = self.unnamed.take();
                to.server.unnamed = ServerUnnamed::Nothing;
                to.forward(frame, Expected::Query, Undo::Unnamed(previous));
                if send == Send::WithSync {
                    to.out.extend_from_slice(&encode::SYNC);
                    let ready = Expected::ReadyForQuery;
                    to.server.pipeline.push(ready, Fate::Instead, Undo::Nothing);
                }
            }
            FrontendTag::PARSE => {
                let parse = Parse::read(frame.body()).ok_or(malformed)?;
                requests.prepared += 1;
                self.parse(frame, &parse, to)?;
            }
            FrontendTag::BIND => {
                let bind = Bind::read(frame.body()).ok_or(malformed)?;
                self.bind(frame, &bind, to)?;
            }
            FrontendTag::DESCRIBE => match Object::read(frame.body()).ok_or(malformed)? {
                Object::Statement(name) => self.describe(frame, name, to)?,
                Object::Portal(name) => self.describe_portal(frame, name, to),
            },
            FrontendTag::CLOSE => match Object::read(frame.body()).ok_or(malformed)? {
                Object::Statement(name) => self.close(frame, name, to),
                Object::Portal(_) => to.forward(frame, Expected::CloseComplete, Undo::Nothing),
            },
            FrontendTag::EXECUTE => {
                requests.extended += 1;
                self.execute(frame, to);
            }
            FrontendTag::SYNC => to.forward(frame, Expected::ReadyForQuery, Undo::Nothing),
            FrontendTag::FLUSH if !frame.body().is_empty() => return Err(malformed),
            FrontendTag::FLUSH => {
                nudge(to.server, to.out);
                to.server.pipeline.note_flush();
                to.out.extend_from_slice(frame.bytes);
            }
            FrontendTag::FUNCTION_CALL => {
                if self.observe_function_call(frame.body(), to.server, to.out)? {
                    requests.simple += 1;
                    to.forward(frame, Expected::FunctionCall, Undo::Nothing);
                }
            }
            FrontendTag::COPY_DONE | FrontendTag::COPY_FAIL => {
                to.out.extend_from_slice(frame.bytes);
                to.server.pipeline.push_copy_end();
            }
            _ => to.out.extend_from_slice(frame.bytes),
        }
        Ok(())
    }

    fn execute(&mut self, frame: Frame<'_>, to: &mut Destination<'_>) {
        self.channels.executed(frame.body());
        if !frame.bytes.ends_with(&[0; 4]) {
            to.server.pipeline.note_row_limit();
        }
        let changes = self.sql.is_bound() && self.execute_names(portal_of(frame.body()), to);
        to.forward(frame, Expected::Execution, Undo::Nothing);
        if !self.restores.is_empty() {
            self.restore_behind(portal_of(frame.body()), to);
        }
        if changes || self.may_discard {
            encode::flush(to.out);
            to.server.pipeline.note_flush();
            self.discarding = true;
        }
    }

    /// Takes note of what a statement with these effects, which is about to run, means.
    pub(super) fn observe(
        &mut self,
        effects: Effects,
        server: &mut ServerSide,
        moment: Moment,
        out: &mut Vec<u8>,
    ) -> Result<(), ClientFault> {
        if effects.is_empty() {
            return Ok(());
        }
        if effects.intersects(READS.and(TAKES)) {
            self.observe_sequences(effects, server, moment, out)?;
        }
        if effects.intersects(Effects::TRANSACTION_END.and(Effects::SAVEPOINT)) {
            self.note_revival();
            self.reading.may_revert();
        }
        self.settings_touched |= effects.intersects(Effects::SETTINGS);
        self.seen = self.seen | effects;
        Ok(())
    }

    /// What all statements since the last call did, taken together.
    pub fn take_seen(&mut self) -> Effects {
        let seen = std::mem::take(&mut self.seen);
        if seen.intersects(CHANGES_PLANS) {
            self.changed_plans = self.changed_plans | seen;
        }
        seen
    }

    /// What a transaction that is over did, if plans of others may depend on it: only now they see it. Once.
    pub fn take_changed_plans(&mut self) -> Option<Effects> {
        let seen = std::mem::take(&mut self.changed_plans);
        (seen != Effects::NONE).then_some(seen)
    }

    pub(super) fn pin(&mut self, reason: PinReason) {
        // A server that must be closed in the end stays so, whatever else comes.
        let rank = |reason: PinReason| (reason.survives_discard_all(), reason.leaves_traces());
        if self.pin.is_none_or(|current| rank(reason) > rank(current)) {
            self.pin = Some(reason);
        }
    }
}

/// The portal that an `Execute` is about.
fn portal_of(mut body: &[u8]) -> &[u8] {
    frame::take_cstr(&mut body).unwrap_or_default()
}

/// True if the server may forget statements of the client.
pub(super) fn discards(effects: Effects) -> bool {
    effects.intersects(Effects::DISCARD_ALL) || effects.intersects(Effects::DEALLOCATE)
}

/// Where in a client's stream a statement begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// A simple query: a batch of its own may go before it.
    BetweenBatches,
    /// A statement of the extended protocol: what goes before it is part of its batch.
    InBatch,
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
