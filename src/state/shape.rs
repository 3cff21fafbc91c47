//! What clients were told that a statement takes and yields, and whether that still holds where it is parsed anew.
//!
//! PostgreSQL refuses to run a statement whose result a changed table gives another type than its client may have been
//! told (`cached plan must not change result type`). A server that lacks the statement, and parses it behind the change,
//! knows of no such thing: so the statement is described there first, and compared.
//!
//! Sources: `RevalidateCachedQuery` in `src/backend/utils/cache/plancache.c`,
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-ROWDESCRIPTION>

use super::naming::{Destination, Name};
use super::pipeline::{Expected, Fate, Pipeline, Undo};
use super::prepared::{Own, Prepared, SERVER_NAME_PREFIX, ServerName};
use super::reading::read_as;
use super::server_side::ServerSide;
use super::session::{CHANGES_PLANS, ClientFault, Limits, Session};
use super::statement::Effects;
use super::transaction::TransactionStatus;
use crate::wire::frame::{Frame, take_cstr};
use crate::wire::{BackendTag, HEADER_LEN, SqlState, encode};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most bytes of a description that are looked at. Of a longer one, the length counts too.
pub(super) const DESCRIPTION_MAX: usize = 16 * 1024 - HEADER_LEN;

/// Nobody was told.
const UNTOLD: u64 = 0;

/// Clients were told different things, so that nothing can be compared.
const MIXED: u64 = 1;

/// What a server says to a message that it is made to refuse.
pub(super) const MISSING: SqlState = SqlState::INVALID_SQL_STATEMENT_NAME;

/// No count of DDL comes to this.
const NEVER: u64 = u64::MAX;

/// What clients were told of a statement.
pub struct Shape {
    /// Types of its parameters, as a hash.
    parameters: AtomicU64,
    /// Names and types of its columns, as a hash.
    columns: AtomicU64,
    /// The last count of DDL as of which they were still so.
    verified: AtomicU64,
    /// The last as of which they were not.
    changed: AtomicU64,
}

impl Shape {
    /// Nobody was told anything of a statement that was first parsed as of this count of DDL.
    pub(super) fn new(ddl_seen: u64) -> Self {
        Self {
            parameters: AtomicU64::new(UNTOLD),
            columns: AtomicU64::new(UNTOLD),
            verified: AtomicU64::new(ddl_seen),
            changed: AtomicU64::new(NEVER),
        }
    }

    /// True if a client was told its columns.
    fn is_told(&self) -> bool {
        self.columns.load(Ordering::Relaxed) != UNTOLD
    }

    fn is_comparable(&self) -> bool {
        [&self.parameters, &self.columns]
            .iter()
            .any(|told| !matches!(told.load(Ordering::Relaxed), UNTOLD | MIXED))
    }

    /// True unless it is known, or does not matter, how a server that parses the statement now would describe it.
    fn is_in_question(&self, ddl_seen: u64) -> bool {
        self.verified.load(Ordering::Relaxed) != ddl_seen && self.is_comparable()
    }

    fn is_changed(&self, ddl_seen: u64) -> bool {
        self.changed.load(Ordering::Relaxed) == ddl_seen
    }

    fn note_told(&self, described: Described) {
        for (told, now) in
            [(&self.parameters, described.parameters), (&self.columns, described.columns)]
        {
            let Some(now) = now else { continue };
            let first = told.compare_exchange(UNTOLD, now, Ordering::Relaxed, Ordering::Relaxed);
            if first.is_err_and(|before| before != now) {
                told.store(MIXED, Ordering::Relaxed);
            }
        }
    }

    /// True if what a server says now is what clients were told.
    fn is_as_told(&self, described: Described) -> bool {
        let is_same = |told: &AtomicU64, now: Option<u64>| {
            let told = told.load(Ordering::Relaxed);
            matches!(told, UNTOLD | MIXED) || now.is_none_or(|now| now == told)
        };
        is_same(&self.parameters, described.parameters) && is_same(&self.columns, described.columns)
    }

    fn note_compared(&self, as_told: bool, ddl_seen: u64) {
        let known = if as_told { &self.verified } else { &self.changed };
        known.store(ddl_seen, Ordering::Relaxed);
    }
}

/// What a server has said of a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Described {
    parameters: Option<u64>,
    columns: Option<u64>,
}

/// A client's part in this.
#[derive(Default)]
pub(super) struct Descriptions {
    /// The portal that was bound last, if its statement is one that nobody was told the columns of.
    untold: Option<(Box<[u8]>, Arc<Prepared>)>,
    /// The parameters that were described last, if their columns are still to come.
    parameters: Option<u64>,
    /// A server was asked, and has not answered.
    asks: bool,
    /// Of which statement the client's server was asked last, as of which count of DDL, and whether it is as told.
    answer: Option<(u64, u64, bool)>,
    /// The server has refused what it was told to refuse.
    refused: bool,
}

/// Whether a statement can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It can.
    Good,
    /// That is not known yet: the message is given again.
    InQuestion,
    /// It is not what the client was told.
    Changed,
}

impl Session {
    /// Whether the client's statement `name` can be used on `server`. Asks there, where it would be parsed anew and DDL
    /// has been seen since it was known last.
    pub(super) fn standing_of(
        &mut self,
        name: &[u8],
        server: &mut ServerSide,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<Standing, ClientFault> {
        let Some(statement) = self.statements.get(name) else { return Ok(Standing::Good) };
        let own = self.seen.intersects(CHANGES_PLANS);
        let in_question = statement.shape.is_in_question(limits.ddl_seen)
            || (own && statement.shape.is_comparable());
        if !in_question
            || server.statements.has(statement.id)
            || server.pipeline.status() == TransactionStatus::Failed
            || server.pipeline.is_copy_in()
        {
            return Ok(Standing::Good);
        }
        // Behind DDL of its own, which is not counted yet.
        if own || self.descriptions.asks {
            self.channels.wait();
            return Ok(Standing::InQuestion);
        }
        let shared = self.shares_the_answer(statement);
        match self.descriptions.answer {
            Some((id, ddl_seen, as_told)) if (id, ddl_seen) == (statement.id, limits.ddl_seen) => {
                return Ok(if as_told { Standing::Good } else { Standing::Changed });
            }
            _ if shared && statement.shape.is_changed(limits.ddl_seen) => {
                return Ok(Standing::Changed);
            }
            _ => {}
        }
        let statement = Arc::clone(statement);
        if statement.effects.intersects(Effects::EXECUTE) {
            self.names_of(&statement, server, out)?;
        }
        self.ask(&statement, shared, server, limits, out);
        Ok(Standing::InQuestion)
    }

    /// True if the client's statement `name` can be used now. Otherwise the message that does is given again, or done
    /// with: the server refuses it.
    pub(super) fn is_usable(
        &mut self,
        name: &[u8],
        server: &mut ServerSide,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> Result<bool, ClientFault> {
        let standing = self.standing_of(name, server, limits, out)?;
        if standing == Standing::Changed {
            refuse(server, out);
        }
        Ok(standing == Standing::Good)
    }

    /// True if a server describes the statement to this client as to all who have it: under other settings, such as a
    /// `search_path`, it may be another one.
    fn shares_the_answer(&self, statement: &Prepared) -> bool {
        let same = statement.settings == self.settings.fingerprint() && !self.settings_touched;
        same || statement.settings == Prepared::APART
    }

    /// Has the server describe what it would make of `statement` now.
    fn ask(
        &mut self,
        statement: &Arc<Prepared>,
        shared: bool,
        server: &mut ServerSide,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) {
        let name = ServerName::new(Own::Probe.id());
        let name = name.as_bytes();
        let close = |server: &mut ServerSide, out: &mut Vec<u8>| {
            encode::close_statement(out, name);
            server.pipeline.push(Expected::CloseComplete, Fate::Swallow, Undo::Nothing);
        };
        // One that failed may have left it.
        close(server, out);
        let now = self.reading();
        read_as(statement.options, now, statement.text(), server, out, |server, out| {
            encode::parse(out, name, &statement.tail);
            server.pipeline.push(Expected::ParseComplete, Fate::Swallow, Undo::Nothing);
        });
        encode::describe_statement(out, name);
        let (statement, ddl_seen) = (Arc::clone(statement), limits.ddl_seen);
        let verifies = Undo::Verifies { statement, ddl_seen, shared };
        server.pipeline.push(Expected::Description, Fate::Swallow, verifies);
        close(server, out);
        encode::flush(out);
        server.pipeline.note_flush();
        self.descriptions.asks = true;
        self.channels.wait();
    }

    /// `portal` is bound to `name`.
    pub(super) fn note_bound(&mut self, portal: &[u8], name: &Name<'_>) {
        self.descriptions.untold = match name {
            Name::Shared(_, statement) if !statement.shape.is_told() => {
                Some((portal.into(), Arc::clone(statement)))
            }
            _ => None,
        };
    }

    pub(super) fn describe_portal(
        &self,
        frame: Frame<'_>,
        portal: &[u8],
        to: &mut Destination<'_>,
    ) {
        let undo = match &self.descriptions.untold {
            Some((bound, statement)) if **bound == *portal => {
                Undo::Describes(Arc::clone(statement))
            }
            _ => Undo::Nothing,
        };
        to.forward(frame, Expected::Description, undo);
    }

    /// A description that matters has come: its body, or the beginning of it, and how long it is in all.
    pub(super) fn described(
        &mut self,
        pipeline: &Pipeline,
        tag: BackendTag,
        body: &[u8],
        body_len: usize,
    ) {
        let descriptions = &mut self.descriptions;
        if tag == BackendTag::PARAMETER_DESCRIPTION {
            descriptions.parameters = Some(parameters_in(body, body_len));
            return;
        }
        let described = Described {
            parameters: descriptions.parameters.take(),
            columns: Some(columns_in(body, body_len)),
        };
        match pipeline.next_undo() {
            Some(Undo::Describes(statement)) => statement.shape.note_told(described),
            Some(Undo::Verifies { statement, ddl_seen, shared }) => {
                let as_told = statement.shape.is_as_told(described);
                if *shared {
                    statement.shape.note_compared(as_told, *ddl_seen);
                }
                descriptions.answer = Some((statement.id, *ddl_seen, as_told));
                descriptions.asks = false;
            }
            _ => {}
        }
    }

    /// The answer does not come.
    pub(super) fn not_described(&mut self) {
        self.descriptions.asks = false;
    }

    /// An error has come in between: what was bound is perhaps not.
    pub(super) fn forget_descriptions(&mut self) {
        self.descriptions.untold = None;
        self.descriptions.parameters = None;
    }

    /// What was to be refused is.
    pub(super) fn note_refused(&mut self) {
        self.descriptions.refused = true;
    }

    /// What the client is told, where the server says this.
    pub(super) fn as_told(&self, sqlstate: Option<SqlState>) -> Option<SqlState> {
        let refused = self.descriptions.refused && sqlstate == Some(MISSING);
        if refused { Some(SqlState::FEATURE_NOT_SUPPORTED) } else { sqlstate }
    }

    /// True if the client is told [`stale_plan`], should the server have said [`MISSING`].
    pub(super) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.descriptions.refused)
    }
}

/// Has the server refuse the client's message, and skip or fail what PostgreSQL would: the client is told why.
pub(super) fn refuse(server: &mut ServerSide, out: &mut Vec<u8>) {
    // Nothing has this name.
    encode::describe_statement(out, SERVER_NAME_PREFIX);
    server.pipeline.push(Expected::Description, Fate::Forward, Undo::Refuses);
}

fn beginning(body: &[u8]) -> &[u8] {
    body.get(..DESCRIPTION_MAX).unwrap_or(body)
}

/// Stands for the types in a `ParameterDescription`.
fn parameters_in(body: &[u8], body_len: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    body_len.hash(&mut hasher);
    beginning(body).hash(&mut hasher);
    finish(&hasher)
}

/// Stands for the names and types in a `RowDescription`, or for `NoData`. Formats are each portal's own, and from which
/// column of which table one comes is not what PostgreSQL compares.
fn columns_in(body: &[u8], body_len: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    body_len.hash(&mut hasher);
    if let Some((count, mut rest)) = beginning(body).split_first_chunk::<2>() {
        count.hash(&mut hasher);
        while let Some(name) = take_cstr(&mut rest)
            && let Some((fields, behind)) = rest.split_first_chunk::<18>()
        {
            let &[_, _, _, _, _, _, type_oid @ .., _, _, _, _, _, _, _, _] = fields;
            let &[.., a, b, c, d, _, _] = fields;
            (name, type_oid, [a, b, c, d]).hash(&mut hasher);
            rest = behind;
        }
    }
    finish(&hasher)
}

fn finish(hasher: &DefaultHasher) -> u64 {
    hasher.finish().max(MIXED + 1)
}

/// The error of PostgreSQL, with the fields by which drivers know that preparing anew helps.
pub(super) fn stale_plan() -> Vec<u8> {
    const FIELDS: &[u8] = b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0\
        Fplancache.c\0RRevalidateCachedQuery\0\0";
    let mut out = Vec::with_capacity(FIELDS.len() + 5);
    encode::message(&mut out, BackendTag::ERROR_RESPONSE.0, |out| out.extend_from_slice(FIELDS));
    out
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
