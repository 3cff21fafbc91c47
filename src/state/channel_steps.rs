//! What statements do to the channels of a transaction, as read from their texts.

use super::channels::Name;
use super::statement::{self, Command, Options};
use std::collections::BTreeSet;

/// Most statements about channels in one text or transaction, and most savepoints behind them, that are
/// followed. With more of the former the client is pinned, or a text refused; more of the latter are taken to hold
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

/// The statements of `text` that matter; of more than [`STEPS_MAX`] one more than these.
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
    statement::statements(text, options).filter_map(step).take(STEPS_MAX + 1).collect()
}

/// What an open transaction has done to channels.
#[derive(Default)]
pub(super) struct Done {
    /// What made a difference. As pgweir is asked for channels one by one, that is bounded by these.
    actions: Vec<Action>,
    /// Savepoints, each with the number of actions before it.
    savepoints: Vec<(Name, usize)>,
}

impl Done {
    pub(super) fn len(&self) -> usize {
        self.actions.len()
    }

    /// Takes note of a statement that has succeeded, in a transaction that began with the channels `in_force`.
    pub(super) fn note(&mut self, step: Step, in_force: &BTreeSet<Name>) {
        match step {
            Step::Do(action) => {
                if self.changes(&action, in_force) {
                    self.actions.push(action);
                }
            }
            Step::Savepoint(name) => {
                if self.savepoints.len() < STEPS_MAX {
                    self.savepoints.push((name, self.actions.len()));
                }
            }
            // One from before the first action is not known, and all that are known lie within it.
            Step::Release(name) => {
                self.savepoints.truncate(self.position(&name).unwrap_or(0));
            }
            Step::RollbackTo(name) => match self.position(&name) {
                Some(at) => {
                    let actions = self.savepoints.get(at).map_or(0, |(_, actions)| *actions);
                    self.actions.truncate(actions);
                    self.savepoints.truncate(at + 1);
                }
                None => {
                    self.actions.clear();
                    self.savepoints.clear();
                }
            },
            Step::End => {}
        }
    }

    /// The transaction is over.
    pub(super) fn end(self, committed: bool, in_force: &mut BTreeSet<Name>) {
        for action in self.actions.into_iter().filter(|_| committed) {
            match action {
                Action::Listen(name) => {
                    in_force.insert(name);
                }
                Action::Unlisten(name) => {
                    in_force.remove(&name);
                }
                Action::UnlistenAll => in_force.clear(),
            }
        }
    }

    /// Whether an action changes what those before it have come to. If not it need not be known: a savepoint that takes
    /// those back takes it back too.
    fn changes(&self, action: &Action, in_force: &BTreeSet<Name>) -> bool {
        match action {
            Action::Listen(name) => !self.listens(name, in_force),
            Action::Unlisten(name) => self.listens(name, in_force),
            Action::UnlistenAll => match self.actions.last() {
                Some(last) => *last != Action::UnlistenAll,
                None => !in_force.is_empty(),
            },
        }
    }

    fn listens(&self, name: &Name, in_force: &BTreeSet<Name>) -> bool {
        for action in self.actions.iter().rev() {
            match action {
                Action::Listen(other) if other == name => return true,
                Action::Unlisten(other) if other == name => return false,
                Action::UnlistenAll => return false,
                Action::Listen(_) | Action::Unlisten(_) => {}
            }
        }
        in_force.contains(name)
    }

    fn position(&self, savepoint: &[u8]) -> Option<usize> {
        self.savepoints.iter().rposition(|(name, _)| **name == *savepoint)
    }
}
