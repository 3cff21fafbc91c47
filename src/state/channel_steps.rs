//! What statements do to the channels of a transaction, as read from their texts.

use super::channels::Name;
use super::statement::{self, Command, Options};

/// Most statements about channels in one transaction, and most savepoints behind them, that are
/// followed. With more of the former the client is pinned; more of the latter are taken to hold
/// nothing that is worth keeping.
pub(super) const STEPS_MAX: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Listen(Name),
    Unlisten(Name),
    UnlistenAll,
}

/// A statement that matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Do(Action),
    Savepoint(Name),
    Release(Name),
    RollbackTo(Name),
    /// COMMIT or ROLLBACK of the whole; the server's tag tells which it was.
    End,
}

/// The statements of `text` that matter.
pub(super) fn steps(text: &[u8], options: Options) -> Vec<Step> {
    let step = |statement: statement::Statement<'_>| {
        let name = || statement.name().map(|name| Name::from(&*name)).unwrap_or_default();
        Some(match statement.command() {
            Command::Listen => Step::Do(Action::Listen(name())),
            Command::Unlisten => Step::Do(Action::Unlisten(name())),
            Command::UnlistenAll => Step::Do(Action::UnlistenAll),
            Command::Savepoint => Step::Savepoint(name()),
            Command::Release => Step::Release(name()),
            Command::RollbackTo => Step::RollbackTo(name()),
            Command::Commit | Command::Rollback => Step::End,
            _ => return None,
        })
    };
    statement::statements(text, options).filter_map(step).take(STEPS_MAX).collect()
}
