//! Prepared statements: what a client calls them, and which of them a server has.
//!
//! A statement gets a server-side name of its own, never used for another text, so that clients
//! share what they have in common and cannot mistake what they have not.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>

use super::statement::{Effects, Options};
use crate::wire::frame::take_cstr;
use hashbrown::HashMap;
use std::sync::Arc;

/// Prefix of the names that statements have on a server.
pub(super) const SERVER_NAME_PREFIX: &[u8] = b"pgweir_";

/// Set in the number of a name that is on a server only to be taken: it stands for the statement of the other bits.
pub(super) const TAKEN: u64 = 1 << 62;

/// A statement's name on a server: the prefix and its number in hexadecimal.
#[derive(Clone, Copy, Debug)]
pub struct ServerName {
    bytes: [u8; SERVER_NAME_PREFIX.len() + 16],
    len: usize,
}

impl ServerName {
    /// The name of statement `id`.
    #[must_use]
    pub fn new(id: u64) -> Self {
        let mut name = Self { bytes: [0; SERVER_NAME_PREFIX.len() + 16], len: 0 };
        for &byte in SERVER_NAME_PREFIX {
            name.push(byte);
        }
        let digits = (u64::BITS - id.leading_zeros()).div_ceil(4).max(1);
        for at in (0..digits).rev() {
            let digit = ((id >> (at * 4)) & 0xf) as u8;
            name.push(if digit < 10 { b'0' + digit } else { b'a' + digit - 10 });
        }
        name
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(self.len) {
            *place = byte;
            self.len += 1;
        }
    }

    /// The name's bytes, without a zero.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A text with its parameter types, as any number of clients prepared it.
pub struct Prepared {
    /// Number of the text; names it on every server.
    pub id: u64,
    /// The `Parse` message behind the name: text, zero, parameter types.
    pub tail: Box<[u8]>,
    /// Fingerprint of the settings under which it was parsed.
    pub settings: u64,
    /// What running it does to a session.
    pub effects: Effects,
    /// How its text was read.
    pub options: Options,
}

impl Prepared {
    /// The text alone.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        text_of(&self.tail)
    }
}

/// The text in a `Parse` message behind the name.
pub(super) fn text_of(mut tail: &[u8]) -> &[u8] {
    take_cstr(&mut tail).unwrap_or_default()
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Tells an unnamed statement from every other of any client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Number of the client; never used again.
    pub client: u64,
    /// How many unnamed statements the client had made.
    pub count: u64,
}

/// The statement a client prepared without a name.
pub struct Unnamed {
    /// Which one it is.
    pub token: Token,
    /// The `Parse` message behind the (empty) name; `None` if it was too large to keep.
    pub tail: Option<Box<[u8]>>,
    /// What running it does to a session.
    pub effects: Effects,
    /// How its text was read.
    pub options: Options,
}

type ByName = HashMap<Box<[u8]>, Arc<Prepared>>;

/// A client's named statements.
#[derive(Default)]
pub struct ClientStatements {
    // Most clients have none: one word while idle.
    named: Option<Box<ByName>>,
}

impl ClientStatements {
    /// The statement that the client calls `name`.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        self.named.as_ref()?.get(name)
    }

    /// What the client calls the statement of this number, if it is one of its own.
    #[must_use]
    pub fn name_of(&self, id: u64) -> Option<&[u8]> {
        let named = self.named.as_ref()?;
        named.iter().find(|(_, statement)| statement.id == id).map(|(name, _)| &**name)
    }

    /// Number of statements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.as_ref().map_or(0, |named| named.len())
    }

    /// True if the client has no named statement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// From now on, `name` means `statement`.
    pub fn insert(&mut self, name: Box<[u8]>, statement: Arc<Prepared>) {
        self.named.get_or_insert_default().insert(name, statement);
    }

    /// From now on, `name` means nothing.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Prepared>> {
        let removed = self.named.as_mut()?.remove(name);
        if self.is_empty() {
            self.named = None;
        }
        removed
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.named = None;
    }
}

/// Which statements a server has, and which of them it can do without.
#[derive(Debug, Default)]
pub struct ServerStatements {
    last_use: HashMap<u64, u64>,
    clock: u64,
}

impl ServerStatements {
    /// True if the server has statement `id`; counts as a use of it.
    pub fn touch(&mut self, id: u64) -> bool {
        self.clock += 1;
        match self.last_use.get_mut(&id) {
            Some(last) => {
                *last = self.clock;
                true
            }
            None => false,
        }
    }

    /// The server has been told to prepare statement `id`.
    pub fn insert(&mut self, id: u64) {
        self.clock += 1;
        self.last_use.insert(id, self.clock);
    }

    /// The server does not have statement `id` (any more).
    pub fn remove(&mut self, id: u64) {
        self.last_use.remove(&id);
    }

    /// The server has none: after `DEALLOCATE ALL` or `DISCARD ALL`.
    pub fn clear(&mut self) {
        self.last_use.clear();
    }

    /// Number of statements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.last_use.len()
    }

    /// True if the server has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.last_use.is_empty()
    }

    /// Takes out the least recently used ones beyond `max`, a share at a time, to be closed.
    ///
    /// The share makes the search for the oldest cost little per statement.
    pub fn evict(&mut self, max: usize) -> Vec<u64> {
        if self.last_use.len() <= max {
            return Vec::new();
        }
        let surplus = self.last_use.len() - max + max / 8;
        let mut by_use: Vec<(u64, u64)> = self.last_use.iter().map(|(&id, &at)| (at, id)).collect();
        by_use.sort_unstable();
        by_use.truncate(surplus);
        for (_, id) in &by_use {
            self.last_use.remove(id);
        }
        by_use.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names_are_short_hexadecimal_numbers() {
        for (id, name) in
            [(0, "pgweir_0"), (0x1f, "pgweir_1f"), (u64::MAX, "pgweir_ffffffffffffffff")]
        {
            assert_eq!(ServerName::new(id).as_bytes(), name.as_bytes());
        }
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let mut statements = ServerStatements::default();
        for id in 0..10 {
            statements.insert(id);
        }
        assert!(statements.touch(0));
        assert_eq!(statements.evict(8), vec![1, 2, 3]);
        assert!(statements.touch(0));
        assert!(!statements.touch(1));
        assert!(statements.evict(8).is_empty());
    }
}
