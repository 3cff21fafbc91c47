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
}

impl Pipeline {
    /// True if an assumption that `concerns` the next message depends on the outcome of a batch
    /// whose `Sync` was sent: what comes behind that is not skipped with it.
    ///
    /// The first message of a batch cannot be skipped; it counts only if `may_fail`, or if pgweir put it there.
    #[must_use]
    pub fn is_in_doubt(&self, concerns: impl Fn(&Undo) -> bool, may_fail: bool) -> bool {
        if self.assumes_nothing() {
            return false;
        }
        let mut ended = false;
        for (at, due) in self.due.iter().enumerate().rev() {
            if due.is_sync() {
                ended = true;
            } else if ended
                && due.undo().is_some_and(&concerns)
                && (may_fail || !self.begins_batch(at) || due.is_put_before())
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
