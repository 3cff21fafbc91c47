//! What the ledger tells of assumptions that may not come true.

use super::{Due, Expected, Pipeline, Undo};

impl Due {
    /// True if pgweir put it before the client's messages, to make again what the client has already: it may be
    /// refused where the client's own would find nothing to refuse.
    fn is_put_before(&self) -> bool {
        matches!(
            self,
            Self::Reply {
                expected: Expected::ParseComplete,
                undo: Undo::Injected(_) | Undo::ServerUnnamed,
                ..
            }
        )
    }

    /// True if the client's statement `name` is what the message has made: if it fails, there is none for PostgreSQL
    /// either. One of another name may be the same to the server, and is there for PostgreSQL.
    fn makes(&self, name: &[u8]) -> bool {
        !self.is_put_before()
            && match self.undo() {
                Some(Undo::Parsed { name: made, .. } | Undo::Named { name: made, .. }) => {
                    **made == *name
                }
                _ => true,
            }
    }
}

impl Pipeline {
    /// True if what the client's statement `name`, the server's of this number, is to the next message depends on the
    /// outcome of a batch whose `Sync` was sent: what comes behind that is not skipped with it.
    ///
    /// The first message of a batch cannot be skipped; it counts only if `may_fail`, or if it has not made `name`.
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
                && (may_fail || !self.begins_batch(at) || !due.makes(name))
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
                return ended && (!self.begins_batch(at) || due.is_put_before());
            }
        }
        false
    }

    fn begins_batch(&self, at: usize) -> bool {
        at.checked_sub(1).is_none_or(|before| self.due.get(before).is_some_and(Due::is_sync))
    }
}
