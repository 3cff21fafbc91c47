//! The ledger: every reply a server owes, in order, and what is done with each.
//!
//! A reply is forwarded, swallowed (it answers something pgweir sent) or synthesised (pgweir
//! answers in the server's place). Whatever is not on the ledger is a surprise, and a surprise
//! closes the server: nobody can say any more which reply belongs to whom.
//!
//! Sources: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>,
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY>

pub use super::due::{Expected, Fate, Miscarriage, Surprise, Undo};
use super::prepared::Unnamed;
use super::transaction::TransactionStatus;
use crate::wire::BackendTag;
use std::collections::VecDeque;

enum Due {
    Reply {
        expected: Expected,
        fate: Fate,
        undo: Undo,
    },
    Synthesize {
        bytes: &'static [u8],
        undo: Undo,
    },
    /// The client ended its copy here: a `Sync` before it was eaten by the copy.
    CopyEnd,
}

impl Due {
    fn undo(&self) -> Option<&Undo> {
        match self {
            Self::Reply { undo, .. } | Self::Synthesize { undo, .. } => Some(undo),
            Self::CopyEnd => None,
        }
    }

    fn ends_batch(&self) -> bool {
        matches!(self, Self::Reply { expected, .. } if expected.ends_batch())
    }

    fn is_sync(&self) -> bool {
        matches!(self, Self::Reply { expected: Expected::ReadyForQuery, .. })
    }
}

/// Replies due from one server.
#[expect(clippy::struct_excessive_bools, reason = "facts that are true or not, each by itself")]
pub struct Pipeline {
    due: VecDeque<Due>,
    /// Bytes held in `due`.
    held: usize,
    /// How many in `due` are about named statements.
    assumed: usize,
    /// How many in `due` answer a `Sync`.
    syncs: usize,
    /// How many in `due` end a batch, be it by a `Sync`.
    ends: usize,
    status: TransactionStatus,
    /// The server skips everything up to the next `Sync`.
    skipping: bool,
    /// The server reads copy data and eats every `Sync` and `Flush`.
    copy_in: bool,
    /// `Sync`s that were, or were not, eaten by a copy that failed.
    stray_syncs: u32,
    /// A batch was begun, and its `Sync` was not sent: its implicit transaction is open.
    unsynced: bool,
    /// Nothing yet makes the server answer what was sent: it waits for more.
    silent: bool,
    /// A portal was executed in this batch that may not have come to its end.
    suspends: bool,
    /// The client was told of an error, and not yet that it may go on.
    refused: bool,
}

/// Most replies that may be due: a client further ahead waits.
pub const REPLIES_DUE_MAX: usize = 4096;

/// Most bytes held for what may have to be taken back: a client further ahead waits.
const HELD_MAX: usize = 16 << 20;

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            due: VecDeque::new(),
            held: 0,
            assumed: 0,
            syncs: 0,
            ends: 0,
            status: TransactionStatus::Idle,
            skipping: false,
            copy_in: false,
            stray_syncs: 0,
            unsynced: false,
            silent: false,
            suspends: false,
            refused: false,
        }
    }
}

impl Pipeline {
    /// True if the server owes nothing, no block is open and none of its state is in doubt.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.due.is_empty()
            && self.status == TransactionStatus::Idle
            && !self.skipping
            && !self.copy_in
            && !self.unsynced
            && self.stray_syncs == 0
    }

    /// True if nothing is due and no message or batch is half way: the server waits for a command.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.due.is_empty()
            && !self.skipping
            && !self.copy_in
            && !self.unsynced
            && self.stray_syncs == 0
    }

    /// True if the client has what it asked for, but the server may yet say something: a copy
    /// that failed may or may not have eaten a `Sync`. Such a server is closed.
    #[must_use]
    pub fn is_tainted(&self) -> bool {
        self.due.is_empty()
            && self.status == TransactionStatus::Idle
            && !self.skipping
            && !self.copy_in
            && !self.unsynced
            && self.stray_syncs > 0
    }

    /// True if the server has nothing to answer before the client says more: whoever waits, waits for the client.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        self.due.is_empty() || self.copy_in || (self.silent && self.ends == 0)
    }

    /// State of the transaction block as of the last `ReadyForQuery`.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// True if the server skips everything up to the next `Sync`.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// True if the client may go on sending.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.due.len() < REPLIES_DUE_MAX && self.held <= HELD_MAX
    }

    /// True if no reply is due.
    #[must_use]
    pub fn owes_nothing(&self) -> bool {
        self.due.is_empty()
    }

    /// True if the end of a batch was sent and is not answered.
    #[must_use]
    pub fn owes_a_batch(&self) -> bool {
        self.ends > 0
    }

    /// How many ends of batches were sent and are not answered.
    #[must_use]
    pub fn batches_due(&self) -> usize {
        self.ends
    }

    /// True if the last message was answered here, so that the server may have nothing to say.
    #[must_use]
    pub fn ends_with_synthesized(&self) -> bool {
        matches!(self.due.back(), Some(Due::Synthesize { .. }))
    }

    /// True if nothing that is due can change which named statements there are.
    #[must_use]
    pub fn assumes_nothing(&self) -> bool {
        self.assumed == 0
    }

    /// True if the answer to a `Sync` is due: only then can the outcome of a batch be in doubt while
    /// the client goes on with the next one.
    #[must_use]
    pub fn owes_sync(&self) -> bool {
        self.syncs > 0
    }

    /// What the first of the messages still due found as the client's unnamed statement, if one of
    /// them replaces it.
    pub fn next_unnamed(&mut self) -> Option<&mut Option<Box<Unnamed>>> {
        self.due.iter_mut().find_map(|due| match due {
            Due::Reply { undo: Undo::Unnamed(previous), .. } => Some(previous),
            _ => None,
        })
    }

    fn push_due(&mut self, due: Due) {
        if let Some(undo) = due.undo().filter(|undo| undo.is_something()) {
            self.held += undo.size();
            self.assumed += usize::from(undo.is_about_named());
        }
        self.syncs += usize::from(due.is_sync());
        self.ends += usize::from(due.ends_batch());
        self.due.push_back(due);
    }

    fn pop_due(&mut self) -> Option<Due> {
        let due = self.due.pop_front()?;
        if let Some(undo) = due.undo().filter(|undo| undo.is_something()) {
            self.held = self.held.saturating_sub(undo.size());
            self.assumed = self.assumed.saturating_sub(usize::from(undo.is_about_named()));
        }
        self.syncs = self.syncs.saturating_sub(usize::from(due.is_sync()));
        self.ends = self.ends.saturating_sub(usize::from(due.ends_batch()));
        Some(due)
    }

    /// A message was sent that will be answered by `expected`.
    pub fn push(&mut self, expected: Expected, fate: Fate, undo: Undo) {
        if expected == Expected::ReadyForQuery {
            if self.copy_in {
                self.stray_syncs = self.stray_syncs.saturating_add(1);
                return;
            }
            self.skipping = false;
            self.suspends = false;
        }
        self.unsynced =
            !matches!(expected, Expected::ReadyForQuery | Expected::Query | Expected::FunctionCall);
        self.silent = self.unsynced;
        self.push_due(Due::Reply { expected, fate, undo });
    }

    /// A portal was executed for some of its rows.
    pub fn note_row_limit(&mut self) {
        self.suspends = true;
    }

    /// The client asked the server to send what it has.
    pub fn note_flush(&mut self) {
        self.silent = false;
    }

    /// A message was not sent, but answered by `bytes` when its turn comes.
    pub fn push_synthesized(&mut self, bytes: &'static [u8], undo: Undo) {
        self.unsynced = true;
        self.push_due(Due::Synthesize { bytes, undo });
    }

    /// The client sent `CopyDone` or `CopyFail`.
    pub fn push_copy_end(&mut self) {
        if self.copy_in {
            self.copy_in = false;
        } else if !self.due.is_empty() {
            self.due.push_back(Due::CopyEnd);
        }
    }

    /// Takes the next reply that pgweir owes in the server's place, if it is its turn.
    pub fn next_synthesized(&mut self) -> Option<&'static [u8]> {
        loop {
            match self.due.front()? {
                Due::Reply { .. } => return None,
                Due::Synthesize { bytes, .. } => {
                    let bytes = *bytes;
                    self.pop_due();
                    return Some(bytes);
                }
                Due::CopyEnd => {
                    self.pop_due();
                }
            }
        }
    }

    /// What is done with a message of type `tag`, other than those with a function of their own.
    ///
    /// # Errors
    /// [`Surprise::NotDue`].
    #[inline]
    pub fn on_reply(&mut self, tag: BackendTag) -> Result<Fate, Surprise> {
        let surprise = Surprise::NotDue { tag: tag.0 };
        let Some(Due::Reply { expected, fate, .. }) = self.due.front() else {
            return Err(surprise);
        };
        let (expected, fate) = (*expected, *fate);
        let ends = match (tag, expected) {
            (BackendTag::DATA_ROW, Expected::Execution | Expected::Query) => false,
            (BackendTag::BIND_COMPLETE, Expected::BindComplete)
            | (BackendTag::PARSE_COMPLETE, Expected::ParseComplete)
            | (BackendTag::CLOSE_COMPLETE, Expected::CloseComplete)
            | (BackendTag::ROW_DESCRIPTION | BackendTag::NO_DATA, Expected::Description)
            | (BackendTag::PORTAL_SUSPENDED, Expected::Execution) => true,
            (BackendTag::COMMAND_COMPLETE | BackendTag::EMPTY_QUERY_RESPONSE, _) => {
                self.end_copy();
                match expected {
                    Expected::Execution => true,
                    Expected::Query => false,
                    _ => return Err(surprise),
                }
            }
            (BackendTag::COPY_IN_RESPONSE, Expected::Execution | Expected::Query) => {
                self.begin_copy_in();
                false
            }
            (
                BackendTag::COPY_OUT_RESPONSE | BackendTag::COPY_DATA | BackendTag::COPY_DONE,
                Expected::Execution | Expected::Query,
            )
            | (BackendTag::ROW_DESCRIPTION, Expected::Query)
            | (BackendTag::PARAMETER_DESCRIPTION, Expected::Description)
            | (BackendTag::FUNCTION_CALL_RESPONSE, Expected::FunctionCall) => false,
            _ => return Err(surprise),
        };
        if ends {
            self.pop_due();
        }
        Ok(fate)
    }

    /// What the client sent behind the command is read by the copy, up to its end.
    fn begin_copy_in(&mut self) {
        self.copy_in = true;
        let mut at = 1;
        while let Some(due) = self.due.get(at) {
            if let Due::CopyEnd = due {
                self.due.remove(at);
                self.copy_in = false;
                break;
            }
            if due.is_sync() {
                self.due.remove(at);
                self.syncs = self.syncs.saturating_sub(1);
                self.ends = self.ends.saturating_sub(1);
                self.stray_syncs = self.stray_syncs.saturating_add(1);
            } else {
                at += 1;
            }
        }
        if self.stray_syncs > 0 {
            let last = self.due.iter().rev().find(|due| !matches!(due, Due::CopyEnd));
            self.unsynced = last.is_some_and(|due| !due.ends_batch());
        }
    }

    /// A command ended well: if it was a copy, it has eaten what was sent behind it.
    fn end_copy(&mut self) {
        self.copy_in = false;
        self.stray_syncs = 0;
    }

    /// An `ErrorResponse` came: says what is done with it, and takes back what it makes untrue.
    ///
    /// # Errors
    /// [`Surprise::Prelude`] if what was sent ahead was refused.
    pub fn on_error(&mut self, mut undo: impl FnMut(Undo, Miscarriage)) -> Result<Fate, Surprise> {
        self.copy_in = false;
        let Some(Due::Reply { expected, fate, .. }) = self.due.front() else {
            // Nobody asked: the server is going away, and its last word is the client's. Or it could not read
            // something that is not answered otherwise, and skips what is behind it.
            self.skip_to_sync(&mut undo);
            return Ok(Fate::Forward);
        };
        let fate = match *fate {
            Fate::Prelude => return Err(Surprise::Prelude),
            Fate::Examination => Fate::Examination,
            Fate::Guard if self.refused => Fate::Swallow,
            Fate::Forward | Fate::Swallow | Fate::Guard | Fate::Instead => Fate::Forward,
        };
        self.refused |= fate == Fate::Forward;
        // A Query, a FunctionCall and a Sync are still followed by their ReadyForQuery.
        if !expected.ends_batch() {
            self.skip_to_sync(&mut undo);
        }
        Ok(fate)
    }

    fn skip_to_sync(&mut self, undo: &mut impl FnMut(Undo, Miscarriage)) {
        self.skipping = true;
        let mut skipped = Vec::new();
        while let Some(due) = self.due.front() {
            if due.is_sync() {
                self.skipping = false;
                break;
            }
            if let Some(Due::Reply { undo, .. } | Due::Synthesize { undo, .. }) = self.pop_due() {
                skipped.push(undo);
            }
        }
        // The last assumption is taken back first, so that each finds what it left.
        while let Some(last) = skipped.pop() {
            let how = if skipped.is_empty() { Miscarriage::Failed } else { Miscarriage::Skipped };
            undo(last, how);
        }
    }

    /// A `ReadyForQuery` came.
    ///
    /// # Errors
    /// [`Surprise::NotDue`].
    pub fn on_ready(&mut self, status: TransactionStatus) -> Result<Fate, Surprise> {
        let surprise = Surprise::NotDue { tag: BackendTag::READY_FOR_QUERY.0 };
        match self.due.front() {
            Some(Due::Reply {
                expected: Expected::ReadyForQuery | Expected::Query | Expected::FunctionCall,
                fate,
                ..
            }) => {
                let fate = *fate;
                self.pop_due();
                self.copy_in = false;
                self.status = status;
                let fate = match (fate, self.due.front()) {
                    (Fate::Forward, Some(Due::Reply { fate: Fate::Instead, .. })) => Fate::Swallow,
                    (Fate::Instead, _) => Fate::Forward,
                    (fate, _) => fate,
                };
                self.refused &= fate != Fate::Forward;
                Ok(fate)
            }
            None if self.stray_syncs > 0 => {
                // A Sync that a failed copy did not eat after all.
                self.stray_syncs -= 1;
                self.skipping = false;
                self.unsynced = false;
                self.status = status;
                Ok(Fate::Forward)
            }
            _ => Err(surprise),
        }
    }

    /// A message came that answers nothing (`NoticeResponse`, `ParameterStatus`, a notification).
    #[must_use]
    pub fn on_asynchronous(&self) -> Fate {
        match self.due.front() {
            Some(Due::Reply { fate: fate @ (Fate::Prelude | Fate::Examination), .. }) => *fate,
            _ => Fate::Forward,
        }
    }
}

#[path = "ahead.rs"]
mod ahead;
#[path = "doubt.rs"]
mod doubt;

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
