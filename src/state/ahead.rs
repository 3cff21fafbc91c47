//! What the ledger tells of a client's batch and of what was sent ahead of it.

use super::{Due, Expected, Fate, Pipeline, Undo};
use crate::state::transaction::TransactionStatus;

impl Pipeline {
    /// True if a `Parse` of what the server has already may do something or fail.
    ///
    /// PostgreSQL refuses it in a failed block. And it counts as a command: what a portal that was
    /// not executed to its end has changed is seen by the next statement only behind it.
    #[must_use]
    pub fn parse_matters(&self) -> bool {
        self.suspends || self.status == TransactionStatus::Failed || self.owes_the_client()
    }

    /// True if what was sent ahead of the client's messages is not answered.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        matches!(self.due.front(), Some(Due::Reply { fate: Fate::Prelude, .. }))
    }

    /// True if what is answered next names a prepared statement that must be there.
    #[must_use]
    pub fn answers_a_name(&self) -> bool {
        let Some(Due::Reply { expected, .. }) = self.due.front() else { return false };
        matches!(expected, Expected::BindComplete | Expected::Description)
    }

    /// What is taken back should what is answered next have failed.
    #[must_use]
    pub fn next_undo(&self) -> Option<&Undo> {
        self.due.front()?.undo()
    }

    /// True if what is answered next describes a statement, and somebody takes note of that.
    #[must_use]
    pub fn describes(&self) -> bool {
        matches!(self.next_undo(), Some(Undo::Describes(_) | Undo::Verifies { .. }))
    }

    /// True if nothing of the client's was sent behind the beginning of its batch.
    #[must_use]
    pub fn ends_ahead(&self) -> bool {
        match self.due.back() {
            Some(Due::Reply { fate: Fate::Prelude, expected, .. }) => !expected.ends_batch(),
            _ => false,
        }
    }

    /// True if messages of the client's were sent whose `Sync` was not.
    #[must_use]
    pub fn is_mid_batch(&self) -> bool {
        self.unsynced && !self.ends_ahead()
    }

    /// True if the end of a batch of the client's was sent and is not answered.
    #[must_use]
    pub fn owes_the_client(&self) -> bool {
        self.due.iter().any(|due| match due {
            Due::Reply { fate: Fate::Forward | Fate::Instead, expected, .. } => {
                expected.ends_batch()
            }
            _ => false,
        })
    }

    /// True if the server reads what a copy is made of.
    #[must_use]
    pub fn is_copy_in(&self) -> bool {
        self.copy_in
    }

    /// True if what is answered next tells the server the settings of its client.
    #[must_use]
    pub fn restores_settings(&self) -> bool {
        matches!(self.due.front(), Some(Due::Reply { undo: Undo::Settings, .. }))
    }

    /// True if the outcome of a batch of the client's is not known, and will be without its help.
    #[must_use]
    pub fn awaits_outcome(&self) -> bool {
        !self.copy_in && self.owes_the_client()
    }

    /// True if the server has something to answer although the client sends no more. `midway`: what was sent last is
    /// the beginning of a message.
    #[must_use]
    pub fn answers_by_itself(&self, midway: bool) -> bool {
        let whole = self.due.len().saturating_sub(usize::from(midway));
        let asked = !midway && !self.silent && !self.due.is_empty();
        !self.copy_in && (asked || self.due.iter().take(whole).any(Due::ends_batch))
    }

    /// Takes back all that was assumed: nothing of it has run, and the server is closed.
    pub fn abandon(&mut self, mut undo: impl FnMut(Undo)) {
        while let Some(due) = self.due.pop_back() {
            if let Due::Reply { undo: last, .. } | Due::Synthesize { undo: last, .. } = due {
                undo(last);
            }
        }
        *self = Self::default();
    }
}
