//! What a text of SQL does to the session: the question that decides on pins, replays and resets.
//!
//! One pass over the text, without allocation: [`effects`] for a whole text, [`statements`] for one statement after
//! the other. The answers are about the text; what it means on a server (which function a name stands for, what a
//! SET came to) is left to the server. Where the text does not say it, [`Effects::UNCERTAIN`] does.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-commands.html>

use super::sql::classify::{Found, Scan};
pub use super::sql::digest::digest;
use super::sql::{name, plain};
use std::borrow::Cow;
use std::fmt;
use std::ops::{BitAnd, BitOr, Range};

/// How the server will read a text. The proxy knows all of it from its `ParameterStatus` messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Options {
    /// `standard_conforming_strings`: if off, a backslash escapes in plain strings too.
    pub standard_conforming_strings: bool,
    /// Whether each byte below 0x80 stands for itself in `client_encoding`. Not so in SJIS, `SHIFT_JIS_2004`, BIG5,
    /// GBK, UHC, GB18030 and JOHAB; a text with bytes above is then [`Effects::UNCERTAIN`].
    pub ascii_safe_encoding: bool,
    /// Major version of the server (15), or 0: which functions are PostgreSQL's own.
    pub server_major: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { standard_conforming_strings: true, ascii_safe_encoding: true, server_major: 0 }
    }
}

macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident = $bit:literal;)*) => {
        impl Effects {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*
            const NAMES: &[(Self, &str)] = &[$((Self::$name, stringify!($name)),)*];
        }
    };
}

/// A set of things that a statement does, or may do.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Effects(u64);

effects! {
    /// SET, SET SESSION, RESET of one setting, SET SESSION CHARACTERISTICS.
    SET_SESSION = 0;
    /// SET LOCAL, or `set_config(…, true)`: nothing is left after the transaction.
    SET_LOCAL = 1;
    /// SET ROLE or RESET ROLE.
    SET_ROLE = 2;
    /// SET SESSION AUTHORIZATION or its RESET.
    SET_SESSION_AUTHORIZATION = 3;
    /// RESET ALL.
    RESET_ALL = 4;
    /// `set_config`, or an UPDATE of `pg_settings`.
    SET_CONFIG = 5;
    /// PREPARE of a statement; what is in it does not count until it is executed.
    PREPARE = 6;
    /// EXECUTE, also within EXPLAIN and CREATE TABLE AS.
    EXECUTE = 7;
    /// DEALLOCATE of one or all.
    DEALLOCATE = 8;
    /// LISTEN.
    LISTEN = 9;
    /// UNLISTEN of one or all.
    UNLISTEN = 10;
    /// NOTIFY or `pg_notify`: no state.
    NOTIFY = 11;
    /// DECLARE of a cursor.
    DECLARE_CURSOR = 12;
    /// DECLARE of a cursor that outlives the transaction.
    DECLARE_HOLD = 13;
    /// CLOSE of one cursor.
    CLOSE = 14;
    /// CLOSE ALL.
    CLOSE_ALL = 15;
    /// FETCH or MOVE.
    FETCH = 16;
    /// A temporary object is made, or the schema of such is named.
    TEMP_OBJECT = 17;
    /// An advisory lock of the session may be taken.
    ADVISORY_LOCK = 18;
    /// An advisory lock of the session is given back.
    ADVISORY_UNLOCK = 19;
    /// All of them are given back.
    ADVISORY_UNLOCK_ALL = 20;
    /// LOAD of a library.
    LOAD = 21;
    /// DISCARD ALL.
    DISCARD_ALL = 22;
    /// DISCARD TEMP.
    DISCARD_TEMP = 23;
    /// DISCARD PLANS.
    DISCARD_PLANS = 24;
    /// DISCARD SEQUENCES.
    DISCARD_SEQUENCES = 25;
    /// `nextval` or `setval`.
    SEQUENCE_NEXT = 26;
    /// `currval` or `lastval`.
    SEQUENCE_READ = 27;
    /// DO.
    DO = 28;
    /// CALL.
    CALL = 29;
    /// A function that is not one of PostgreSQL's known ones is called, or the script of an extension runs.
    USER_FUNCTION = 30;
    /// CREATE, ALTER, DROP and the like: plans may change, event triggers may run.
    DDL = 31;
    /// INSERT, UPDATE, DELETE, MERGE, COPY FROM, TRUNCATE: triggers may run. VACUUM, ANALYZE: expressions may.
    WRITE = 32;
    /// A transaction block begins.
    TRANSACTION_BEGIN = 33;
    /// A transaction block ends.
    TRANSACTION_END = 34;
    /// SAVEPOINT, RELEASE or ROLLBACK TO.
    SAVEPOINT = 35;
    /// COPY in either direction.
    COPY = 36;
    /// EXPLAIN.
    EXPLAIN = 37;
    /// SHOW.
    SHOW = 38;
    /// Something is asked that only this connection can answer: its process, channels, statements, cursors.
    SESSION_READ = 39;
    /// A function that leaves what cannot be asked for or moved (`setseed`, an open backup, a temporary slot).
    SESSION_FUNCTION = 40;
    /// The text was not understood: something is unterminated, or the first word is no known command.
    UNCERTAIN = 41;
}

impl Effects {
    /// Nothing that the session could notice.
    pub const NONE: Self = Self(0);
    /// Whatever opens or ends a block, or is about a savepoint.
    pub const TRANSACTION_CONTROL: Self =
        Self(Self::TRANSACTION_BEGIN.0 | Self::TRANSACTION_END.0 | Self::SAVEPOINT.0);
    /// Code of the user runs by name; what it does cannot be read from the text.
    pub const CODE: Self =
        Self(Self::DO.0 | Self::CALL.0 | Self::EXECUTE.0 | Self::USER_FUNCTION.0);
    /// Code of the user may run without being named: triggers, event triggers, defaults.
    pub const HIDDEN_CODE: Self = Self(Self::WRITE.0 | Self::DDL.0);
    /// Settings may change, if only for the transaction.
    pub const SETTINGS: Self = Self(
        Self::SET_SESSION.0
            | Self::SET_LOCAL.0
            | Self::SET_CONFIG.0
            | Self::RESET_ALL.0
            | Self::SET_ROLE.0
            | Self::SET_SESSION_AUTHORIZATION.0
            | Self::UNCERTAIN.0,
    );
    /// What has no part in the state of a session, now or later.
    const HARMLESS: Self = Self(
        Self::SET_LOCAL.0
            | Self::NOTIFY.0
            | Self::FETCH.0
            | Self::COPY.0
            | Self::EXPLAIN.0
            | Self::TRANSACTION_CONTROL.0
            | Self::HIDDEN_CODE.0,
    );

    /// Both of these, where an operator cannot stand.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether none is set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether one of `other` is set.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Effects {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Effects {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Self::NAMES
            .iter()
            .filter(|(effect, _)| self.contains(*effect))
            .map(|(_, name)| *name)
            .collect();
        write!(f, "Effects({})", names.join(" | "))
    }
}

/// What a statement is, by its first words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named after the SQL command")]
pub enum Command {
    /// No statement at all: the text is empty, or comments and semicolons only.
    Empty,
    /// No command that we know.
    Unknown,
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Values,
    Table,
    Copy,
    Truncate,
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT or END.
    Commit,
    /// ROLLBACK or ABORT, of the whole block.
    Rollback,
    RollbackTo,
    Savepoint,
    Release,
    PrepareTransaction,
    CommitPrepared,
    RollbackPrepared,
    /// SET of a setting in any form, SET ROLE and SET SESSION AUTHORIZATION among them.
    Set,
    SetTransaction,
    SetConstraints,
    /// SET SESSION CHARACTERISTICS: sets `default_transaction_isolation`, `_read_only`, `_deferrable`.
    SetCharacteristics,
    Reset,
    ResetAll,
    Show,
    Discard,
    Prepare,
    Execute,
    Deallocate,
    DeallocateAll,
    Listen,
    Unlisten,
    UnlistenAll,
    Notify,
    Declare,
    Fetch,
    Move,
    Close,
    CloseAll,
    Load,
    Do,
    Call,
    Create,
    Alter,
    Drop,
    /// COMMENT, GRANT, REVOKE, SECURITY LABEL, REASSIGN, IMPORT.
    OtherDefinition,
    Refresh,
    Explain,
    Lock,
    /// VACUUM, ANALYZE, CLUSTER, REINDEX.
    Maintenance,
    Checkpoint,
}

/// What a whole text does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many statements there are; 65535 stands for that many or more.
    pub statements: u16,
    /// What they do, taken together.
    pub effects: Effects,
    /// What the first one is.
    pub first: Command,
}

/// One statement of a text.
#[derive(Clone, Debug)]
pub struct Statement<'a> {
    text: &'a [u8],
    found: Found,
}

impl<'a> Statement<'a> {
    /// What it is.
    #[must_use]
    pub fn command(&self) -> Command {
        self.found.command
    }

    /// What it does.
    #[must_use]
    pub fn effects(&self) -> Effects {
        self.found.effects
    }

    /// Where it stands in the text, in bytes, without its semicolon and what surrounds it.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.found.span.clone()
    }

    /// Its own text.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.text.get(self.span()).unwrap_or_default()
    }

    /// The setting, channel, prepared statement, cursor or savepoint that it is about, as PostgreSQL understands it.
    ///
    /// A setting is given as `SET` spells it, in lower case unless quoted (`myapp.tenant`), or as it is called where
    /// SQL has words of its own for it (`timezone` for SET TIME ZONE). `None` where there is no name: `RESET ALL`,
    /// `UNLISTEN *`, `SHOW ALL`. For EXPLAIN EXECUTE and CREATE TABLE AS EXECUTE it is the prepared statement.
    #[must_use]
    pub fn name(&self) -> Option<Cow<'a, [u8]>> {
        if let Some(setting) = self.found.setting {
            return Some(Cow::Borrowed(setting.as_bytes()));
        }
        self.name_span().and_then(|span| self.text.get(span)).map(name::value)
    }

    /// Where that name stands in the text, if it is written there.
    #[must_use]
    pub fn name_span(&self) -> Option<Range<usize>> {
        Some(self.found.name.clone()).filter(|span| !span.is_empty())
    }

    /// The statement within: behind the AS of PREPARE, the FOR of DECLARE, the options of EXPLAIN.
    #[must_use]
    pub fn body(&self) -> Option<&'a [u8]> {
        let body = self.text.get(self.found.body..self.found.span.end)?;
        (self.found.body > self.found.span.start && !body.is_empty()).then_some(body)
    }
}

/// Iterator over the statements of a text, made by [`statements`].
pub struct Statements<'a> {
    text: &'a [u8],
    scan: Scan<'a>,
    uncertain: Effects,
}

impl<'a> Iterator for Statements<'a> {
    type Item = Statement<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.scan.step() {
            return None;
        }
        let mut found = self.scan.found().clone();
        found.effects = found.effects | self.uncertain;
        Some(Statement { text: self.text, found })
    }
}

/// The statements of `text`, the text of a Query or Parse message without its final zero byte.
#[must_use]
pub fn statements(text: &[u8], options: Options) -> Statements<'_> {
    Statements { text, scan: Scan::new(text, options), uncertain: of_encoding(text, options) }
}

/// What all statements of `text` do, taken together.
#[must_use]
pub fn summarize(text: &[u8], options: Options) -> Summary {
    let mut summary = plain::summarize(text).unwrap_or_else(|| {
        let (statements, effects, first) = Scan::new(text, options).all();
        Summary { statements, effects, first }
    });
    summary.effects = summary.effects | of_encoding(text, options);
    summary
}

/// What `text` may do.
#[must_use]
pub fn effects(text: &[u8], options: Options) -> Effects {
    summarize(text, options).effects
}

/// Whether `text` may change or read the state of the session by what stands in it.
///
/// Triggers of writes and event triggers ([`Effects::HIDDEN_CODE`]) are not counted.
#[must_use]
pub fn may_touch_session(text: &[u8], options: Options) -> bool {
    !effects(text, options).without(Effects::HARMLESS).is_empty()
}

fn of_encoding(text: &[u8], options: Options) -> Effects {
    if options.ascii_safe_encoding || text.is_ascii() { Effects::NONE } else { Effects::UNCERTAIN }
}

#[cfg(test)]
#[path = "statement_tests.rs"]
mod tests;
