//! What the ledger tells of assumptions that may not come true.

use super::{Due, Expected, Pipeline, Undo};

impl Due {
    /// True if the client has its statement `name` for PostgreSQL even if this message fails, though not for pgweir:
    /// it is put before the client's messages to make the statement again, or makes it by another name.
    fn may_lose(&self, name: &[u8]) -> bool {
        let Self::Reply { expected: Expected::ParseComplete, undo, .. } = self else {
            return false;
        };
        match undo {
            Undo::Injected(_) | Undo::ServerUnnamed => true,
            Undo::Parsed { name: made, .. } => **made != *name,
            _ => false,
        }
    }
}

impl Pipeline {
    /// True if what the client's statement `name`, the server's of this number, is to the next message depends on the
    /// outcome of a batch whose `Sync` was sent: what comes behind that is not skipped with it.
    ///
    /// The first message of a batch cannot be skipped; it counts only if `may_fail`, or if it may lose `name`.
    #[must_use]
    pub fn is_in_doubt(&self, name: &[u8], number: Option<u64>, may_fail: bool) -> bool {
        if self.assumes_nothing() {
            return false;
        }
        let mut ended = false;
        for (at, due) in self.due.iter().enumerate().rev() {
            if due.is_sync() {
                ended = true;
            } else if ended
                && due.undo().is_some_and(|undo| undo.is_about(name, number))
                && (may_fail || !self.begins_batch(at) || due.may_lose(name))
            {
                return true;
            }
        }
        false
    }

    /// The same for the unnamed statement, of which only the last change counts.
    #[must_use]
    pub fn is_unnamed_in_doubt(&self) -> bool {
        let mut ended = false;
        for (at, due) in self.due.iter().enumerate().rev() {
            if due.is_sync() {
                ended = true;
            } else if let Some(Undo::Unnamed(_) | Undo::ServerUnnamed) = due.undo() {
                return ended && (!self.begins_batch(at) || due.may_lose(b""));
            }
        }
        false
    }

    fn begins_batch(&self, at: usize) -> bool {
        at.checked_sub(1).is_none_or(|before| self.due.get(before).is_some_and(Due::is_sync))
    }
}
