//! When a server is asked what its client has left there.
//!
//! After a transaction of which the statements speak of something that may outlive it, and, as long
//! as the client keeps its server for what was found, after some of the later ones.

use super::cause::Cause;
use super::channels::{By, Verdict};
use super::code_question::ToldOfCode;
use super::examination::Findings;
use super::memo;
use super::mentioned::Mentioned;
use super::naming::Destination;
use super::pin::PinReason;
use super::preparing::{ABOUT_NAMES, Send};
use super::reading::read_by;
use super::restore::leaves_role;
use super::seeds::may_seed;
use super::sequences::TAKES;
use super::server_side::ServerSide;
use super::session::{ClientFault, Limits, Moment, SequenceCare, Session, discards};
use super::sql::functions::may_leave_traces;
use super::statement::Effects;
use super::suspects::Suspects;
use crate::wire::frame;
use crate::wire::frontend::Bind;
use memchr::memmem;
use std::sync::Arc;

/// Most transactions of a pinned client between two questions.
const PAUSE_MAX: u16 = 64;

/// What is not known of a session, and what is known to keep it.
#[derive(Default)]
pub(super) struct Audit {
    /// What its statements may have left since it got its server.
    pub(super) doubts: Option<Box<Doubts>>,
    /// The answer, as far as it came.
    pub(super) findings: Option<Box<Findings>>,
    /// What it has said so far of the code in the database.
    pub(super) code: Option<Box<ToldOfCode>>,
    /// Why it may come to be pinned.
    pub(super) cause: Option<Box<Cause>>,
    /// It is pinned for something that a server cannot be asked for.
    pub(super) for_good: bool,
    /// Names by which its server may have statements that were too large to be kept.
    pub(super) large: Vec<Box<[u8]>>,
    /// Transactions until a pinned client's server is asked again.
    wait: u16,
    /// How many they were the last time.
    pause: u16,
}

/// What statements may have left.
#[derive(Default)]
pub(super) struct Doubts {
    pub(super) effects: Effects,
    pub(super) mentioned: Mentioned,
    /// Code of users ran that may leave what cannot be asked for.
    pub(super) ran_code: bool,
    /// A value of a sequence that the client may ask for later.
    pub(super) value: Value,
    /// It was said last that the client has no role, rather than that of its startup.
    pub(super) leaves_role: Option<bool>,
    /// There is a reason to ask now.
    due: bool,
}

/// Whether a client has a value of a sequence.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    #[default]
    None,
    /// The server can tell.
    Perhaps,
    /// It was taken by name, be it by `setval`, of which the server tells nothing.
    Certainly,
}

/// What may outlive a transaction and can be asked for.
const LEAVES: Effects = Effects::SET_SESSION
    .and(Effects::SET_ROLE)
    .and(Effects::SET_SESSION_AUTHORIZATION)
    .and(Effects::RESET_ALL)
    .and(Effects::SET_CONFIG)
    .and(Effects::PREPARE)
    .and(Effects::LISTEN)
    .and(Effects::DECLARE_HOLD)
    .and(Effects::TEMP_OBJECT)
    .and(Effects::ADVISORY_LOCK)
    .and(Effects::UNCERTAIN)
    .and(Effects::DO);

/// What may end such a thing: worth a question at once, if the client is pinned.
const ENDS: Effects = Effects::ADVISORY_UNLOCK
    .and(Effects::ADVISORY_UNLOCK_ALL)
    .and(Effects::CLOSE)
    .and(Effects::CLOSE_ALL)
    .and(Effects::UNLISTEN)
    .and(Effects::DEALLOCATE)
    .and(Effects::DISCARD_TEMP)
    .and(Effects::DISCARD_SEQUENCES)
    .and(Effects::SET_ROLE)
    .and(Effects::SET_SESSION_AUTHORIZATION)
    .and(Effects::RESET_ALL)
    .and(Effects::DDL);

/// What no answer of a server tells: its client stays to the end, or to its `DISCARD ALL`.
const UNANSWERABLE: Effects = Effects::LOAD.and(Effects::SESSION_FUNCTION);

/// True if the statements with these effects cannot have taken an advisory lock. To ask for locks is
/// not cheap: PostgreSQL then copies its table of all of them.
pub(super) fn says_nothing_of_locks(effects: Effects) -> bool {
    let may = Effects::ADVISORY_LOCK
        .and(Effects::CODE)
        .and(Effects::HIDDEN_CODE)
        .and(Effects::PREPARE)
        .and(Effects::UNCERTAIN);
    !effects.intersects(may)
}

impl Doubts {
    /// The reason to stay that is told while nothing better is known.
    pub(super) fn reason(&self) -> PinReason {
        PinReason::of(self.effects).unwrap_or(PinReason::Hidden)
    }

    /// True if custom settings may have been changed whose names nobody has seen.
    pub(super) fn may_hide_settings(&self) -> bool {
        self.effects.intersects(Effects::CODE.and(Effects::HIDDEN_CODE).and(Effects::UNCERTAIN))
    }

    /// True if custom settings of the client's startup may be back to nothing.
    pub(super) fn resets_all(&self) -> bool {
        self.effects.intersects(Effects::RESET_ALL)
    }
}

impl Audit {
    /// The client stays for now.
    pub(super) fn keep(&mut self, mut doubts: Box<Doubts>) {
        doubts.due = false;
        self.doubts = Some(doubts);
        self.pause = (self.pause * 2).clamp(1, PAUSE_MAX);
        self.wait = self.pause;
    }

    /// Nothing is left.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Session {
    /// True if the client's server cannot be given back as it is.
    #[must_use]
    pub fn keeps_server(&self) -> bool {
        self.pin.is_some() || self.audit.doubts.is_some()
    }

    /// True if the server is to be asked now that a transaction is over. Counts as that end.
    pub fn is_examination_due(&mut self) -> bool {
        if self.audit.for_good {
            return false;
        }
        let Some(doubts) = &self.audit.doubts else {
            return false;
        };
        if doubts.due || self.pin.is_none() {
            return true;
        }
        self.audit.wait = self.audit.wait.saturating_sub(1);
        self.audit.wait == 0
    }

    /// Something may have been left by what has run.
    pub(super) fn fear(&mut self, effects: Effects) {
        let doubts = self.audit.doubts.get_or_insert_default();
        doubts.effects = doubts.effects | effects;
        doubts.due = true;
    }

    /// Takes note of what a statement that is about to run may leave, if it may leave anything.
    pub(super) fn doubt(
        &mut self,
        effects: Effects,
        limits: &Limits,
        text: &[u8],
        values: Option<&[u8]>,
    ) {
        if effects.intersects(Effects::DDL.and(Effects::DO)) {
            self.changes_code |= speaks_of_code(text)
                || (limits.hidden_code && self.may_lead_to_code(effects, text));
            self.note_defaults(text);
        }
        let changes_reading = self.note_reading(effects, text, values);
        // What a function runs may be bound to it.
        let mut texts = [Some(text), values].into_iter().flatten();
        let traces = (effects.intersects(Effects::DO) && texts.any(may_leave_traces))
            || may_seed(effects, text, values);
        let effects = if traces { effects.and(Effects::SESSION_FUNCTION) } else { effects };
        if effects.intersects(UNANSWERABLE)
            && let Some(reason) = PinReason::of(effects & UNANSWERABLE)
        {
            self.audit.note_cause(effects, text, self.options);
            self.pin_for_good(reason);
        }
        let code = effects.intersects(Effects::CODE.and(Effects::HIDDEN_CODE));
        let hides = code && limits.hidden_code && self.may_hide(effects, text, values);
        let ends = self.pin.is_some() && effects.intersects(ENDS);
        let stays = std::mem::take(&mut self.sequences.stays);
        let sequences =
            stays || (limits.sequences == SequenceCare::Keep && effects.intersects(TAKES));
        let leaves = hides || ends || effects.intersects(LEAVES);
        if !leaves && !sequences {
            return;
        }
        // A text that is read otherwise than it was meant may have done anything.
        let effects = if changes_reading { effects.and(Effects::UNCERTAIN) } else { effects };
        if self.pin.is_none() {
            self.audit.note_cause(effects, text, self.options);
        }
        let known = match (leaves, hides) {
            (false, _) => Effects::NONE,
            (true, true) => effects,
            (true, false) => effects.without(Effects::HIDDEN_CODE),
        };
        let doubts = self.audit.doubts.get_or_insert_default();
        if effects.intersects(Effects::DISCARD_SEQUENCES) {
            doubts.value = doubts.value.min(Value::Perhaps);
        }
        if sequences {
            let by_name = effects.intersects(Effects::SEQUENCE_NEXT);
            let value = if by_name { Value::Certainly } else { Value::Perhaps };
            doubts.value = doubts.value.max(value);
        }
        doubts.effects = doubts.effects | known;
        if self.startup.get("role").is_some() {
            doubts.leaves_role = leaves_role(text, values, self.options).or(doubts.leaves_role);
        }
        doubts.ran_code |= hides && limits.opaque_code;
        // What is given to a routine may be a text that it runs.
        let runs = hides && [text, values.unwrap_or_default()].into_iter().any(speaks_of_settings);
        let run = if runs { effects.and(Effects::DO) } else { effects };
        doubts.mentioned.note(text, values, run, self.options);
        // A pinned client's settings are of no interest before it is let go, but for those of its startup, which a
        // reset has put back to the server's own.
        let resets = !self.startup.is_empty()
            && effects.intersects(Effects::SET_SESSION.and(Effects::RESET_ALL));
        doubts.due |= ends || resets || self.pin.is_none();
    }

    /// True unless a definition leads to none of the code that could leave something behind: a view, a default or
    /// a policy that calls it is looked out for as that is.
    fn may_lead_to_code(&self, effects: Effects, text: &[u8]) -> bool {
        let may_call = || match &self.suspects {
            Some(suspects) => suspects.may_run_by(text),
            // Any code is suspected. What is temporary is only for who is pinned by it.
            None => !effects.intersects(Effects::TEMP_OBJECT),
        };
        has_any(&text.to_ascii_lowercase(), &DEFINES) && may_call()
    }

    /// True unless `text` runs no code that could leave something behind.
    fn may_hide(&self, effects: Effects, text: &[u8], values: Option<&[u8]>) -> bool {
        let unseen = Effects::EXECUTE.and(Effects::UNCERTAIN);
        if effects.intersects(unseen) || text.is_empty() {
            return true;
        }
        let runs_texts = effects.intersects(Effects::DO);
        let may_run = |suspects: &Arc<Suspects>| {
            let bound = values.filter(|_| runs_texts);
            suspects.may_run_by(text) || bound.is_some_and(|bound| suspects.may_run_by(bound))
        };
        // A text that is put together has names that are in none of its parts.
        (runs_texts && puts_together(text)) || self.suspects.as_ref().is_none_or(may_run)
    }

    /// The code in the database is as of `seen`, and these are the routines to look out for.
    pub fn learn_of_code(&mut self, seen: u32, suspects: Option<Arc<Suspects>>) {
        self.code_seen = seen;
        self.suspects = suspects;
    }

    /// Takes note of what a simple query, which is about to be sent, means.
    pub(super) fn observe_query(
        &mut self,
        text: &[u8],
        to: &mut Destination<'_>,
    ) -> Result<Send, ClientFault> {
        if self.awaits_reading(text, to.server) {
            return Ok(Send::NotYet);
        }
        // PostgreSQL 18 forgets to end the transaction of a pipeline with this in its middle.
        to.server.stained |= to.server.pipeline.is_mid_batch();
        let effects = may_read(memo::effects(text, self.options), to.limits);
        if self.awaits_sequences(effects, to.server) {
            return Ok(Send::NotYet);
        }
        let in_parts = self.is_sent_in_parts(effects, text, to.server);
        if in_parts && self.parts_wait(to.server, to.out) {
            return Ok(Send::NotYet);
        }
        let effects = match self.listen_first(effects, text, By::Query, to.server) {
            Verdict::Send(effects) => effects,
            Verdict::Wait => return Ok(Send::NotYet),
            Verdict::Refuse => return Err(ClientFault::TooManyChannels),
        };
        if effects.intersects(ABOUT_NAMES) {
            return self.observe_names(effects, text, to.server, to.limits, to.out);
        }
        self.observe(effects, to.server, Moment::BetweenBatches, to.out)?;
        if !effects.is_empty() {
            self.doubt(effects, to.limits, text, None);
        }
        if discards(effects) {
            self.discarding = true;
        }
        Ok(if in_parts { Send::InParts } else { Send::Alone })
    }

    /// The same for a statement that is bound, and has these effects.
    pub(super) fn observe_bind(
        &mut self,
        bind: &Bind<'_>,
        effects: Effects,
        server: &mut ServerSide,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<(), ClientFault> {
        let effects = may_read(effects, limits);
        self.forget_restore(bind.portal);
        if !self.channels.bind(bind.portal) {
            self.pin_for_good(PinReason::Listen);
        }
        let effects = if effects.intersects(ABOUT_NAMES) {
            self.bind_names(bind, effects, server, limits, out)?
        } else {
            self.observe(effects, server, Moment::InBatch, out)?;
            let discards = discards(effects) || self.is_unseen(bind.statement);
            self.may_discard |= !self.sql.bind(bind.portal, Vec::new(), discards);
            effects
        };
        if !effects.is_empty() {
            let text = self.text_of(bind.statement);
            self.doubt(effects, limits, &text, Some(bind.rest));
            self.bind_restore(bind.portal, effects, &text);
        }
        Ok(())
    }

    /// The text of the client's statement `name`; empty where it was too large to be kept.
    pub(super) fn text_of(&self, name: &[u8]) -> Box<[u8]> {
        if let Some(statement) = self.sql.get(name) {
            return statement.text.clone();
        }
        let tail = if name.is_empty() {
            self.unnamed.as_ref().and_then(|unnamed| unnamed.tail.as_deref())
        } else {
            self.statements.get(name).map(|statement| &**statement.tail)
        };
        let mut tail = tail.unwrap_or_default();
        frame::take_cstr(&mut tail).unwrap_or_default().into()
    }

    /// The client keeps its server to its end, or to its `DISCARD ALL`.
    pub(super) fn pin_for_good(&mut self, reason: PinReason) {
        self.audit.for_good = true;
        self.pin(reason);
    }

    /// True, once, if a statement may have changed the code in the database.
    pub fn take_changes_code(&mut self) -> bool {
        let changes = std::mem::take(&mut self.changes_code);
        self.changed_code |= changes;
        changes
    }

    /// True, once, if a transaction that is over may have changed it: only now others see that.
    pub fn take_changed_code(&mut self) -> bool {
        std::mem::take(&mut self.changed_code)
    }

    /// What the texts of the client are read by, as of a report that it got.
    pub(super) fn reread(&mut self, name: &str, value: &str) {
        self.options = read_by(self.options, name, value);
        self.note_told(name, value);
    }
}

/// Where reading runs code, whatever runs may.
fn may_read(effects: Effects, limits: &Limits) -> Effects {
    if limits.code_in_reads { effects.and(Effects::USER_FUNCTION) } else { effects }
}

/// True if `text` may run another one that it puts together.
fn puts_together(text: &[u8]) -> bool {
    const BY: [&[u8]; 4] = [b"execute", b"||", b"format", b"concat"];
    has_any(&text.to_ascii_lowercase(), &BY)
}

fn speaks_of_settings(text: &[u8]) -> bool {
    has_any(&text.to_ascii_lowercase(), &[b"set_config"])
}

/// What a definition has in it. A DO block, and DDL that takes away, may have neither.
const DEFINES: [&[u8]; 2] = [b"create", b"alter"];

fn has_any(folded: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|word| memmem::find(folded, word).is_some())
}

/// True if a definition may bring code into the database that keeps state: what is known of that is void then.
///
/// Defaults, checks, views, rules and policies only call what is there already, so that they count where they name
/// a function of PostgreSQL's own that keeps state, or may name one in disguise. What `COMMIT PREPARED` brings was
/// said long ago, perhaps by another.
fn speaks_of_code(text: &[u8]) -> bool {
    const BRINGS: [&[u8]; 9] = [
        b"function",
        b"procedure",
        b"routine",
        b"extension",
        b"language",
        b"aggregate",
        b"operator",
        b"execute",
        b"prepared",
    ];
    const CALLS: [&[u8]; 10] = [
        b"set_config",
        b"setseed",
        b"advisory_lock",
        b"dblink",
        b"query_to_xml",
        b"ts_stat",
        b"ts_rewrite",
        b"pg_backup_",
        b"pg_replication_origin_",
        b"u&",
    ];
    let folded = text.to_ascii_lowercase();
    has_any(&folded, &BRINGS) || (has_any(&folded, &CALLS) && has_any(&folded, &DEFINES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_definition_may_lead_to_code_that_is_there() {
        let limits = Limits { hidden_code: true, ..crate::state::test_support::LIMITS };
        for (text, effects, leads) in [
            ("CREATE VIEW v AS SELECT enter()", Effects::DDL, true),
            ("DO $$ BEGIN CREATE VIEW v AS SELECT enter(); END $$", Effects::DO, true),
            ("DO $$ BEGIN PERFORM enter(); END $$", Effects::DO, false),
            ("DROP TABLE t", Effects::DDL, false),
            ("CREATE TEMP TABLE t (a int)", Effects::DDL.and(Effects::TEMP_OBJECT), false),
        ] {
            let mut session = crate::state::test_support::client(1);
            session.doubt(effects, &limits, text.as_bytes(), None);
            assert_eq!(session.take_changes_code(), leads, "{text}");
        }
    }

    #[test]
    fn definitions_that_bring_no_code_change_nothing_of_what_is_known() {
        for text in [
            "CREATE TABLE t (id serial PRIMARY KEY, at timestamptz DEFAULT now(), n int CHECK (n > 0))",
            "ALTER TABLE t ADD n int GENERATED ALWAYS AS IDENTITY",
            "CREATE POLICY own ON t USING (owner = current_user)",
            "CREATE VIEW v AS SELECT 1",
            "DO $$ BEGIN PERFORM set_config('a.b', '1', false); END $$",
        ] {
            assert!(!speaks_of_code(text.as_bytes()), "{text}");
        }
        for text in [
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "create extension dblink",
            "CREATE TABLE t (tenant text DEFAULT set_config('a.b', '1', false))",
            "CREATE VIEW v AS SELECT Pg_Try_Advisory_Lock_Shared(1)",
            r#"CREATE VIEW v AS SELECT U&"\0073etseed"(0)"#,
            "DO $$ BEGIN EXECUTE 'CREATE ' || 'FUNC' || 'TION f()'; END $$",
            "COMMIT PREPARED 'x'",
        ] {
            assert!(speaks_of_code(text.as_bytes()), "{text}");
        }
    }
}
