//! What was assumed when a message was sent, and how it is taken back if the message comes to nothing.

use super::prepared::{Prepared, Unnamed};
use std::sync::Arc;

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
    /// Nobody knows which unnamed statement the server has.
    ServerUnnamed,
}

impl Undo {
    /// True if it is about the client's statement `name`, or the server's of number `id`.
    #[must_use]
    pub fn is_about(&self, wanted: &[u8], number: Option<u64>) -> bool {
        match self {
            Self::Parsed { name, id } | Self::Named { name, id } => {
                **name == *wanted || Some(*id) == number
            }
            Self::Closed { name, .. } => **name == *wanted,
            Self::Injected(id) | Self::Evicted(id) => Some(*id) == number,
            Self::Nothing | Self::Unnamed(_) | Self::ServerUnnamed => false,
        }
    }

    pub(super) fn is_about_named(&self) -> bool {
        !matches!(self, Self::Nothing | Self::Unnamed(_) | Self::ServerUnnamed)
    }

    /// Bytes that are held for it.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Unnamed(Some(unnamed)) => unnamed.tail.as_ref().map_or(0, |tail| tail.len()),
            Self::Parsed { name, .. } | Self::Named { name, .. } => name.len(),
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
