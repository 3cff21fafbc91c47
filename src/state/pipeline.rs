//! The ledger: every reply a server owes, in order, and what is done with each.
//!
//! A reply is forwarded, swallowed (it answers something pgweir sent) or synthesised (pgweir
//! answers in the server's place). Whatever is not on the ledger is a surprise, and a surprise
//! closes the server: nobody can say any more which reply belongs to whom.
//!
//! Sources: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>,
//! <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY>

use super::prepared::{Prepared, Unnamed};
use super::transaction::TransactionStatus;
use crate::wire::BackendTag;
use std::collections::VecDeque;
use std::sync::Arc;

/// What answers a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// `ParseComplete`, for `Parse`.
    ParseComplete,
    /// `BindComplete`, for `Bind`.
    BindComplete,
    /// `RowDescription` or `NoData`, perhaps after `ParameterDescription`, for `Describe`.
    Description,
    /// Rows or a copy, then the end of the command, for `Execute`.
    Execution,
    /// `CloseComplete`, for `Close`.
    CloseComplete,
    /// `ReadyForQuery`, for `Sync`.
    ReadyForQuery,
    /// Anything up to `ReadyForQuery`, for `Query`.
    Query,
    /// `FunctionCallResponse` and `ReadyForQuery`, for `FunctionCall`.
    FunctionCall,
}

/// What is done with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is the client's.
    Forward,
    /// It answers what pgweir put between the client's messages; an error in it is the client's.
    Swallow,
    /// It answers what pgweir sent ahead; an error in it means the server is not as wanted.
    Prelude,
}

/// How to take back what was assumed when a message was sent, should it fail or be skipped.
pub enum Undo {
    /// Nothing was assumed.
    Nothing,
    /// The client has no statement of this name, and the server none of this number.
    Parsed {
        /// The client's name for it.
        name: Box<[u8]>,
        /// Its number.
        id: u64,
    },
    /// The server has no statement of this number.
    Injected(u64),
    /// The client still has the statement.
    Closed {
        /// The client's name for it.
        name: Box<[u8]>,
        /// What it means.
        statement: Arc<Prepared>,
    },
    /// The client's unnamed statement is what it was, unless replacing it failed halfway.
    Unnamed(Option<Box<Unnamed>>),
}

/// How a message came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miscarriage {
    /// The server refused it.
    Failed,
    /// The server skipped it, because one before it failed.
    Skipped,
}

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

/// A message that nothing on the ledger explains. The server is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Surprise {
    /// A reply of a kind that was not due.
    #[error("server sent a message of type {tag:#04x} that nobody asked for")]
    NotDue {
        /// Its type.
        tag: u8,
    },
    /// A message that cannot be read.
    #[error("server sent a malformed message of type {tag:#04x}")]
    Malformed {
        /// Its type.
        tag: u8,
    },
    /// What was sent ahead of the client's message was refused.
    #[error("server refused the client's settings")]
    Prelude,
}

/// Replies due from one server.
pub struct Pipeline {
    due: VecDeque<Due>,
    status: TransactionStatus,
    /// The server skips everything up to the next `Sync`.
    skipping: bool,
    /// The server reads copy data and eats every `Sync` and `Flush`.
    copy_in: bool,
    /// `Sync`s that were, or were not, eaten by a copy that failed.
    stray_syncs: u32,
    batch: Batch,
}

/// How far a batch of the extended protocol has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Batch {
    /// None has begun since the last `Sync`.
    None,
    /// It has begun, and nothing makes the server answer yet.
    Silent,
    /// The server was asked to answer by a `Flush`. Its transaction is still open.
    Flushed,
}

/// Most replies that may be due: a client further ahead waits.
pub const REPLIES_DUE_MAX: usize = 4096;

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            due: VecDeque::new(),
            status: TransactionStatus::Idle,
            skipping: false,
            copy_in: false,
            stray_syncs: 0,
            batch: Batch::None,
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
            && self.stray_syncs == 0
            && self.batch == Batch::None
    }

    /// True if nothing is due and no message is half way: the server waits for a command.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.due.is_empty() && !self.skipping && !self.copy_in && self.stray_syncs == 0
    }

    /// True if the client has what it asked for, but the server may yet say something: a copy
    /// that failed may or may not have eaten a `Sync`. Such a server is closed.
    #[must_use]
    pub fn is_tainted(&self) -> bool {
        self.due.is_empty()
            && self.status == TransactionStatus::Idle
            && !self.skipping
            && !self.copy_in
            && self.stray_syncs > 0
    }

    /// True if no reply is due and no copy runs: whoever waits, waits for the client.
    #[must_use]
    pub fn waits_for_client(&self) -> bool {
        self.due.is_empty() || self.copy_in || self.batch == Batch::Silent
    }

    /// The client sent `Flush`.
    pub fn note_flush(&mut self) {
        if self.batch == Batch::Silent {
            self.batch = Batch::Flushed;
        }
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
        self.due.len() < REPLIES_DUE_MAX
    }

    /// A message was sent that will be answered by `expected`.
    pub fn push(&mut self, expected: Expected, fate: Fate, undo: Undo) {
        if expected == Expected::ReadyForQuery {
            if self.copy_in {
                self.stray_syncs += 1;
                return;
            }
            self.skipping = false;
        }
        self.batch = match expected {
            // A transaction that a batch began implicitly ends with these.
            Expected::ReadyForQuery | Expected::Query | Expected::FunctionCall => Batch::None,
            Expected::ParseComplete
            | Expected::BindComplete
            | Expected::Description
            | Expected::Execution
            | Expected::CloseComplete => Batch::Silent,
        };
        self.due.push_back(Due::Reply { expected, fate, undo });
    }

    /// A message was not sent, but answered by `bytes` when its turn comes.
    pub fn push_synthesized(&mut self, bytes: &'static [u8], undo: Undo) {
        self.due.push_back(Due::Synthesize { bytes, undo });
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
                    self.due.pop_front();
                    return Some(bytes);
                }
                Due::CopyEnd => {
                    self.due.pop_front();
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
            self.due.pop_front();
        }
        Ok(fate)
    }

    fn begin_copy_in(&mut self) {
        // What the client sent behind the command is read by the copy, up to its end.
        let mut at = 1;
        while let Some(due) = self.due.get(at) {
            match due {
                Due::CopyEnd => {
                    self.due.remove(at);
                    return;
                }
                Due::Reply { expected: Expected::ReadyForQuery, .. } => {
                    self.due.remove(at);
                    self.stray_syncs += 1;
                }
                Due::Reply { .. } | Due::Synthesize { .. } => at += 1,
            }
        }
        self.copy_in = true;
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
            // Nobody asked: the server is going away, and its last word is the client's.
            return Ok(Fate::Forward);
        };
        if *fate == Fate::Prelude {
            return Err(Surprise::Prelude);
        }
        // A Query, a FunctionCall and a Sync are still followed by their ReadyForQuery.
        if !matches!(expected, Expected::Query | Expected::FunctionCall | Expected::ReadyForQuery) {
            self.skip_to_sync(&mut undo);
        }
        Ok(Fate::Forward)
    }

    fn skip_to_sync(&mut self, undo: &mut impl FnMut(Undo, Miscarriage)) {
        self.skipping = true;
        let mut skipped = Vec::new();
        while let Some(due) = self.due.front() {
            if matches!(due, Due::Reply { expected: Expected::ReadyForQuery, .. }) {
                self.skipping = false;
                break;
            }
            if let Some(Due::Reply { undo, .. } | Due::Synthesize { undo, .. }) =
                self.due.pop_front()
            {
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
                self.due.pop_front();
                self.copy_in = false;
                self.status = status;
                Ok(fate)
            }
            None if self.stray_syncs > 0 => {
                // A Sync that a failed copy did not eat after all.
                self.stray_syncs -= 1;
                self.skipping = false;
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
            Some(Due::Reply { fate: Fate::Prelude, .. }) => Fate::Prelude,
            _ => Fate::Forward,
        }
    }
}

#[cfg(test)]
#[path = "pipeline_tests.rs"]
mod tests;
