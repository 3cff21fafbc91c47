//! Why a client keeps its server after its transaction, and what that depends on.

use super::statement::Effects;

/// What a client did that only its own server knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PinReason {
    /// `SET`, `RESET`, `set_config`: a setting outlives the transaction.
    Setting,
    /// `SET ROLE` or `SET SESSION AUTHORIZATION`, where another server would refuse it.
    Role,
    /// `PREPARE` as SQL.
    Prepare,
    /// A temporary table, view or sequence.
    TemporaryObject,
    /// A session-level advisory lock.
    AdvisoryLock,
    /// `DECLARE … WITH HOLD`.
    HoldCursor,
    /// `LISTEN`.
    Listen,
    /// `LOAD`.
    Load,
    /// `DISCARD`.
    Discard,
    /// A value of a sequence, in a pool whose clients ask for one after the transaction that took it.
    Sequence,
    /// State that a function, procedure, `DO` block or trigger left behind.
    Hidden,
    /// A text that could not be understood for certain.
    Uncertain,
    /// A statement too large to be looked at or kept.
    LargeStatement,
}

impl PinReason {
    /// Every reason, in the order of [`PinReason::index`].
    pub const ALL: [Self; 13] = [
        Self::Setting,
        Self::Role,
        Self::Prepare,
        Self::TemporaryObject,
        Self::AdvisoryLock,
        Self::HoldCursor,
        Self::Listen,
        Self::Load,
        Self::Discard,
        Self::Sequence,
        Self::Hidden,
        Self::Uncertain,
        Self::LargeStatement,
    ];

    /// Why a client that ran statements with these effects must keep its server; `None` if it
    /// need not. The first reason in this list is the one that is told.
    #[must_use]
    pub fn of(effects: Effects) -> Option<Self> {
        const REASONS: [(Effects, PinReason); 13] = [
            (Effects::LOAD, PinReason::Load),
            (Effects::SESSION_FUNCTION, PinReason::Hidden),
            (Effects::UNCERTAIN, PinReason::Uncertain),
            (Effects::SET_SESSION_AUTHORIZATION, PinReason::Role),
            (Effects::SET_ROLE, PinReason::Role),
            (Effects::TEMP_OBJECT, PinReason::TemporaryObject),
            (Effects::ADVISORY_LOCK, PinReason::AdvisoryLock),
            (Effects::DECLARE_HOLD, PinReason::HoldCursor),
            (Effects::LISTEN, PinReason::Listen),
            (Effects::SET_SESSION, PinReason::Setting),
            (Effects::SET_CONFIG, PinReason::Setting),
            (Effects::RESET_ALL, PinReason::Setting),
            (Effects::PREPARE, PinReason::Prepare),
        ];
        REASONS.iter().find(|(effect, _)| effects.intersects(*effect)).map(|(_, reason)| *reason)
    }

    /// Position in [`PinReason::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The reason as a label of metrics and logs.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Setting => "setting",
            Self::Role => "role",
            Self::Prepare => "prepare",
            Self::TemporaryObject => "temporary_object",
            Self::AdvisoryLock => "advisory_lock",
            Self::HoldCursor => "hold_cursor",
            Self::Listen => "listen",
            Self::Load => "load",
            Self::Discard => "discard",
            Self::Sequence => "sequence",
            Self::Hidden => "hidden",
            Self::Uncertain => "uncertain",
            Self::LargeStatement => "large_statement",
        }
    }

    /// What whoever reads the log can do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Setting => "give the setting at connect (options=-c name=value) or use SET LOCAL",
            Self::Role => "log in as the role, or see that the session's user may take it on",
            Self::Prepare => "use the extended protocol's prepared statements",
            Self::TemporaryObject => "drop the temporary object, or end the connection when done",
            Self::AdvisoryLock => "use pg_advisory_xact_lock",
            Self::HoldCursor => "declare the cursor WITHOUT HOLD inside a transaction",
            Self::Listen => "give the listener a connection of its own",
            Self::Load => "load the library with session_preload_libraries",
            Self::Discard => "leave out the reset query: pgweir cleans servers itself",
            Self::Sequence => "use INSERT ... RETURNING",
            Self::Hidden => "look at what the function or trigger leaves in the session",
            Self::Uncertain => "write the statement so that its end is plain",
            Self::LargeStatement => "send large values as parameters",
        }
    }

    /// True if `DISCARD ALL` cannot take the state back, so that the client stays where it is.
    #[must_use]
    pub fn survives_discard_all(self) -> bool {
        matches!(self, Self::Load)
    }

    /// True if `DISCARD ALL` perhaps leaves some of it, such as a seed or a connection of `dblink`: the client may go,
    /// but nobody else gets its server.
    #[must_use]
    pub fn leaves_traces(self) -> bool {
        matches!(self, Self::Load | Self::Hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_indices() {
        for (at, reason) in PinReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
    }
}
