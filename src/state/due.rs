//! The words of the ledger: what is due, what is done with it, and what is taken back with it.

use super::prepared::{Prepared, Unnamed};
use super::sql_statements::SqlStatement;
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

impl Expected {
    /// True if a `ReadyForQuery` comes with it, and the end of an implicit transaction.
    pub(super) fn ends_batch(self) -> bool {
        matches!(self, Self::ReadyForQuery | Self::Query | Self::FunctionCall)
    }
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
    /// It answers pgweir's question whether what it put before the client's messages has come to be; an error in it
    /// is the client's, unless it has heard of one.
    Guard,
    /// It answers a `Sync` that pgweir sent behind a `Query`, and is the client's in the place of
    /// what ends the answer to that.
    Instead,
    /// It answers pgweir's question what a client left; an error in it is pgweir's.
    Examination,
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
    /// The client has no statement of this name; that of the server was there before.
    Named {
        /// The client's name for it.
        name: Box<[u8]>,
        /// Its number.
        id: u64,
    },
    /// The server has no statement of this number.
    Injected(u64),
    /// The server still knows the values of sequences.
    Sequences,
    /// The server still has the statement of this number.
    Evicted(u64),
    /// The client still has the statement.
    Closed {
        /// The client's name for it.
        name: Box<[u8]>,
        /// What it means.
        statement: Arc<Prepared>,
    },
    /// The client's unnamed statement is what it was, unless replacing it failed halfway.
    Unnamed(Option<Box<Unnamed>>),
    /// Nobody knows whether the server knows this name of the client.
    OwnName(Box<[u8]>),
    /// The client still has the statement of SQL.
    SqlClosed {
        /// Its name.
        name: Box<[u8]>,
        /// What it means.
        statement: Box<SqlStatement>,
    },
    /// Nobody knows which unnamed statement the server has.
    ServerUnnamed,
    /// A server that was reset has not all of the settings that it was told then.
    Settings,
    /// Nothing was assumed, but the reply tells the client what the statement takes and yields.
    Describes(Arc<Prepared>),
    /// The reply tells pgweir that, and nothing is known without it.
    Verifies {
        /// The statement.
        statement: Arc<Prepared>,
        /// [`super::session::Limits::ddl_seen`] as of which it is asked for.
        ddl_seen: u64,
        /// The answer is that of all who have the statement.
        shared: bool,
    },
    /// Nothing was assumed: the server was made to refuse this, and the client is told why.
    Refuses,
}

impl Undo {
    /// True if it is about the client's statement `name`, or the server's of number `id`.
    #[must_use]
    pub fn is_about(&self, wanted: &[u8], number: Option<u64>) -> bool {
        match self {
            Self::Parsed { name, id } | Self::Named { name, id } => {
                **name == *wanted || Some(*id) == number
            }
            Self::Closed { name, .. } | Self::SqlClosed { name, .. } => **name == *wanted,
            Self::Injected(id) | Self::Evicted(id) => Some(*id) == number,
            _ => false,
        }
    }

    /// True if there is anything to take back, or to learn. Of most messages there is not.
    pub(super) fn is_something(&self) -> bool {
        !matches!(self, Self::Nothing)
    }

    pub(super) fn is_about_named(&self) -> bool {
        matches!(
            self,
            Self::Parsed { .. }
                | Self::Named { .. }
                | Self::Closed { .. }
                | Self::SqlClosed { .. }
                | Self::Injected(_)
                | Self::Evicted(_)
        )
    }

    /// Bytes that are held for it.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Unnamed(Some(unnamed)) => unnamed.tail.as_ref().map_or(0, |tail| tail.len()),
            Self::Parsed { name, .. } | Self::Named { name, .. } => name.len(),
            Self::OwnName(name) => name.len(),
            Self::SqlClosed { name, statement } => name.len() + statement.text.len(),
            Self::Closed { name, statement } => name.len() + statement.tail.len(),
            _ => 0,
        }
    }
}

/// How a message came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miscarriage {
    /// The server refused it.
    Failed,
    /// The server skipped it, because one before it failed.
    Skipped,
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
    /// It was cancelled: nothing of the client's batch has run.
    #[error("the client's settings were cancelled")]
    Cancelled,
}
