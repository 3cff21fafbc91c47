//! Prepared statements: what a client calls them, and which of them a server has.
//!
//! A statement gets a server-side name of its own, never used for another text, so that clients
//! share what they have in common and cannot mistake what they have not.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>

use super::shape::Shape;
use super::statement::{Effects, Options};
use crate::wire::frame::take_cstr;
use hashbrown::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of texts and names kept for one client, beside [`super::session::Limits::statements_max`].
const BYTES_MAX: usize = 32 << 20;

/// What a statement costs beside its text, roughly.
const OVERHEAD: usize = 128;

/// Prefix of the names that statements have on a server.
pub(super) const SERVER_NAME_PREFIX: &[u8] = b"pgweir_";

/// Set in the number of a name that is on a server only to be taken: it stands for the statement of the other bits.
pub(super) const TAKEN: u64 = 1 << 62;

/// The lowest number of a statement that is pgweir's own, and no client's.
pub const OWN_MIN: u64 = u64::MAX - Own::ActAsLogin as u64;

/// The statements that pgweir itself has on servers. What is added goes to the end, and [`OWN_MIN`] with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Own {
    /// What has a client left?
    Question,
    /// Has a sequence given a value?
    AskForValue,
    /// What is put between the statements of a client's text.
    Aside,
    /// A client's statement as it would be parsed now.
    Probe,
    /// Whom does the session act as?
    ActsAs,
    /// Act as the login.
    ActAsLogin,
}

impl Own {
    /// Its number, which no client's statement reaches.
    pub(super) fn id(self) -> u64 {
        u64::MAX - u64::from(self as u8)
    }
}

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

/// Most bytes of an unnamed statement that are part of its client's session, and are not counted.
pub const UNCOUNTED_MAX: usize = 8 << 10;

/// The `Parse` message behind the name, which lasts as long as a statement is made of it, and is counted.
pub struct Tail {
    bytes: Box<[u8]>,
    held: Option<Arc<AtomicUsize>>,
}

impl Tail {
    /// A copy of `bytes`, counted in `held` for as long as it is there.
    #[must_use]
    pub fn new(bytes: &[u8], held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(Self::size_of(bytes), Ordering::Relaxed);
        Self { bytes: bytes.into(), held: Some(Arc::clone(held)) }
    }

    /// A copy of `bytes` that is not counted: there are [`UNCOUNTED_MAX`] of them at most, and one for each client.
    #[must_use]
    pub fn uncounted(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), held: None }
    }

    /// What a statement with these bytes costs, roughly.
    #[must_use]
    pub fn size_of(bytes: &[u8]) -> usize {
        bytes.len() + OVERHEAD
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(held) = &self.held {
            held.fetch_sub(Self::size_of(&self.bytes), Ordering::Relaxed);
        }
    }
}

impl Deref for Tail {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A text with its parameter types, as any number of clients prepared it.
pub struct Prepared {
    /// Number of the text; names it on every server.
    pub id: u64,
    /// Text, zero, parameter types.
    pub tail: Arc<Tail>,
    /// Fingerprint of the settings under which it was parsed.
    pub settings: u64,
    /// What running it does to a session.
    pub effects: Effects,
    /// How its text was read.
    pub options: Options,
    /// [`super::session::Limits::ddl_seen`] when it was first parsed: who parses it after more DDL does not share it.
    pub ddl_seen: u64,
    /// What clients were told of it.
    pub(super) shape: Shape,
}

impl Prepared {
    /// In the place of [`Prepared::settings`] of a statement that is one client's alone.
    pub const APART: u64 = u64::MAX;

    /// A statement of which nobody was told anything.
    #[must_use]
    pub fn new(
        id: u64,
        tail: Arc<Tail>,
        settings: u64,
        effects: Effects,
        options: Options,
        ddl_seen: u64,
    ) -> Self {
        Self { id, tail, settings, effects, options, ddl_seen, shape: Shape::new(ddl_seen) }
    }

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
    pub tail: Option<Tail>,
    /// What running it does to a session.
    pub effects: Effects,
    /// How its text was read.
    pub options: Options,
}

/// A client's named statements.
#[derive(Default)]
pub struct ClientStatements {
    // Most clients have none: one word while idle.
    named: Option<Box<Named>>,
}

#[derive(Default)]
struct Named {
    by_name: HashMap<Box<[u8]>, Arc<Prepared>>,
    /// Those of texts, whoever else has them, and of names.
    bytes: usize,
}

fn size_of(name: &[u8], tail: &[u8]) -> usize {
    name.len() + Tail::size_of(tail)
}

impl ClientStatements {
    /// The statement that the client calls `name`.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Prepared>> {
        self.named.as_ref()?.by_name.get(name)
    }

    /// What the client calls the statement of this number, if it is one of its own.
    #[must_use]
    pub fn name_of(&self, id: u64) -> Option<&[u8]> {
        let named = self.named.as_ref()?;
        named.by_name.iter().find(|(_, statement)| statement.id == id).map(|(name, _)| &**name)
    }

    /// Number of statements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.as_ref().map_or(0, |named| named.by_name.len())
    }

    /// True if the client has no named statement.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of texts and names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.named.as_ref().map_or(0, |named| named.bytes)
    }

    /// True if a statement of this name, which is a new one, and text may be added.
    #[must_use]
    pub fn has_room_for(&self, name: &[u8], tail: &[u8]) -> bool {
        self.bytes() + size_of(name, tail) <= BYTES_MAX
    }

    /// From now on, `name` means `statement`.
    pub fn insert(&mut self, name: Box<[u8]>, statement: Arc<Prepared>) {
        let named = self.named.get_or_insert_default();
        let name_len = name.len();
        named.bytes += size_of(&name, &statement.tail);
        if let Some(old) = named.by_name.insert(name, statement) {
            named.bytes -= name_len + Tail::size_of(&old.tail);
        }
    }

    /// From now on, `name` means nothing.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Prepared>> {
        let named = self.named.as_mut()?;
        let removed = named.by_name.remove(name)?;
        named.bytes -= size_of(name, &removed.tail);
        if self.is_empty() {
            self.named = None;
        }
        Some(removed)
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

    /// True if the server has statement `id`.
    #[must_use]
    pub fn has(&self, id: u64) -> bool {
        self.last_use.contains_key(&id)
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
    fn the_bytes_of_a_client_are_those_of_what_it_has() {
        let held = Arc::default();
        let of = |tail: &[u8]| {
            let tail = Arc::new(Tail::new(tail, &held));
            Arc::new(Prepared::new(1, tail, 0, Effects::NONE, Options::default(), 0))
        };
        let mut statements = ClientStatements::default();
        statements.insert((*b"one").into(), of(b"SELECT 1"));
        statements.insert((*b"two").into(), of(b"SELECT 22"));
        assert_eq!(statements.bytes(), 3 + 8 + 3 + 9 + 2 * OVERHEAD);
        assert_eq!(held.load(Ordering::Relaxed), 8 + 9 + 2 * OVERHEAD);
        statements.insert((*b"one").into(), of(b"SELECT"));
        assert_eq!(statements.bytes(), 3 + 6 + 3 + 9 + 2 * OVERHEAD);
        assert!(statements.remove(b"three").is_none());
        assert!(statements.remove(b"two").is_some());
        assert_eq!(statements.bytes(), 3 + 6 + OVERHEAD);
        let most = vec![b'x'; BYTES_MAX - 3 - 6 - OVERHEAD - OVERHEAD];
        assert!(statements.has_room_for(b"", &most));
        assert!(!statements.has_room_for(b"x", &most));
        statements.clear();
        assert_eq!((statements.bytes(), held.load(Ordering::Relaxed)), (0, 0));
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
