//! Statements of SQL's `PREPARE`: which a client has, and which of its names a server knows.
//!
//! They follow their client as their texts: where a server lacks one that is named, it is told the
//! `PREPARE` again. A name is the client's own, and so no other client may find it there.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-prepare.html>

use super::statement::{Effects, Options};
use super::transaction::TransactionStatus;
use hashbrown::HashMap;
use std::collections::VecDeque;

/// Most bytes of texts and names kept for one client. With more, it is pinned.
const BYTES_MAX: usize = 256 * 1024;

/// What a statement costs beside its text, roughly.
const OVERHEAD: usize = 128;

/// Most portals that are bound to `PREPARE` and `DEALLOCATE` and may be executed later.
const BOUND_MAX: usize = 16;

pub(super) type StatementName = Box<[u8]>;

/// A statement as SQL prepared it.
pub struct SqlStatement {
    /// Tells it from every other of the client.
    pub(super) number: u64,
    /// The whole `PREPARE`.
    pub(super) text: Box<[u8]>,
    /// What executing it does.
    pub(super) effects: Effects,
    /// How its text was read.
    pub(super) options: Options,
}

/// What a client's statement makes of its names, if it succeeds.
pub(super) enum Change {
    Prepare(StatementName, Box<SqlStatement>),
    Deallocate(StatementName),
    /// A `PREPARE` or `DEALLOCATE` that cannot be followed.
    Unknown,
}

/// A client's statements. One that has none costs no more than a word.
#[derive(Default)]
pub struct SqlStatements {
    state: Option<Box<State>>,
}

#[derive(Default)]
struct State {
    by_name: HashMap<StatementName, Box<SqlStatement>>,
    bytes: usize,
    count: u64,
    /// How often a name has got another meaning.
    version: u64,
    /// What each portal that was bound is about to do.
    bound: Vec<(Box<[u8]>, Vec<Change>)>,
    /// A portal was bound that executes a statement by its name.
    executes: bool,
    /// What was sent, in order, and is not answered.
    sent: VecDeque<Change>,
}

impl SqlStatements {
    pub(super) fn get(&self, name: &[u8]) -> Option<&SqlStatement> {
        self.state.as_ref()?.by_name.get(name).map(|statement| &**statement)
    }

    /// The next statement's number.
    pub(super) fn number(&mut self) -> u64 {
        let state = self.state.get_or_insert_default();
        state.count += 1;
        state.count
    }

    /// How often a name has got another meaning: what a server knew before that may be outdated.
    pub(super) fn version(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.version)
    }

    /// The client has had names on servers that mean to it what they mean there.
    pub(super) fn begin(&mut self) {
        self.state.get_or_insert_default();
    }

    /// A name has got another meaning.
    pub(super) fn note_change(&mut self) {
        if let Some(state) = &mut self.state {
            state.version += 1;
        }
    }

    /// From now on, `name` means `statement`. False if there is no room for it.
    pub(super) fn insert(&mut self, name: &[u8], statement: Box<SqlStatement>) -> bool {
        let state = self.state.get_or_insert_default();
        let bytes = name.len() + statement.text.len() + OVERHEAD;
        if state.bytes + bytes > BYTES_MAX {
            return false;
        }
        state.bytes += bytes;
        state.version += 1;
        if let Some(old) = state.by_name.insert(name.into(), statement) {
            state.bytes -= name.len() + old.text.len() + OVERHEAD;
        }
        true
    }

    pub(super) fn remove(&mut self, name: &[u8]) -> Option<Box<SqlStatement>> {
        let state = self.state.as_mut()?;
        let removed = state.by_name.remove(name)?;
        state.version += 1;
        state.bytes -= name.len() + removed.text.len() + OVERHEAD;
        Some(removed)
    }

    /// `DISCARD ALL` or `DEALLOCATE ALL` succeeded.
    pub(super) fn clear(&mut self) {
        if let Some(state) = &mut self.state {
            state.by_name.clear();
            state.bytes = 0;
            state.version += 1;
        }
    }

    /// These are sent.
    pub(super) fn send(&mut self, changes: Vec<Change>) {
        if !changes.is_empty() {
            self.state.get_or_insert_default().sent.extend(changes);
        }
    }

    /// What is executed when `portal` is; `discards` if it may be all that there is that goes. False if that cannot be
    /// remembered.
    pub(super) fn bind(&mut self, portal: &[u8], changes: Vec<Change>, discards: bool) -> bool {
        let matters = discards || !changes.is_empty();
        if !matters && self.state.is_none() {
            return true;
        }
        let state = self.state.get_or_insert_default();
        state.bound.retain(|(bound, _)| **bound != *portal);
        if !matters {
            return true;
        }
        if state.bound.len() >= BOUND_MAX {
            return false;
        }
        state.bound.push((portal.into(), changes));
        true
    }

    /// True if a portal is bound that changes names.
    pub(super) fn is_bound(&self) -> bool {
        self.state.as_ref().is_some_and(|state| !state.bound.is_empty())
    }

    /// What executing the statements does that portals are bound to prepare, and their texts.
    pub(super) fn bound(&self) -> Vec<(Effects, Box<[u8]>)> {
        let changes = self.state.iter().flat_map(|state| &state.bound).flat_map(|(_, all)| all);
        let prepared = changes.filter_map(|change| match change {
            Change::Prepare(_, statement) => Some((statement.effects, statement.text.clone())),
            _ => None,
        });
        prepared.collect()
    }

    /// A portal is bound that executes a statement by its name: by what it means then.
    pub(super) fn note_execute(&mut self) {
        self.state.get_or_insert_default().executes = true;
    }

    /// True if such a portal may be executed.
    pub(super) fn may_execute(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.executes)
    }

    /// `portal` is executed. Yields what that changes, if it changes names.
    pub(super) fn executed(&mut self, portal: &[u8]) -> Option<Vec<Change>> {
        let state = self.state.as_mut()?;
        let at = state.bound.iter().position(|(bound, _)| **bound == *portal)?;
        Some(state.bound.swap_remove(at).1)
    }

    /// The next of what was sent has succeeded.
    pub(super) fn completed(&mut self) -> Option<Change> {
        self.state.as_mut()?.sent.pop_front()
    }

    /// All that was sent is answered: what has not succeeded by now came to nothing. With their
    /// transaction, portals end.
    pub(super) fn ready(&mut self, status: TransactionStatus) {
        if let Some(state) = &mut self.state {
            state.sent.clear();
            if status == TransactionStatus::Idle {
                state.bound.clear();
                state.executes = false;
            }
        }
    }
}

/// Names on a server that are one client's own.
pub struct OwnNames {
    /// Whose they are.
    pub client: u64,
    /// The client's [`SqlStatements::version`] as of its last change here.
    pub(super) version: u64,
    names: HashMap<StatementName, u64>,
}

/// It is not known what the name means there.
const UNSURE: u64 = 0;

impl OwnNames {
    pub(super) fn of(client: u64) -> Self {
        Self { client, version: 0, names: HashMap::new() }
    }

    /// What `name` means, if the server knows it.
    pub(super) fn get(&self, name: &[u8]) -> Option<u64> {
        self.names.get(name).copied()
    }

    pub(super) fn insert(&mut self, name: &[u8], meaning: u64) {
        self.names.insert(name.into(), meaning);
    }

    /// The server may know `name`, or not.
    pub(super) fn unsure(&mut self, name: &[u8]) {
        self.insert(name, UNSURE);
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        self.names.remove(name);
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.keys().map(|name| &**name)
    }

    /// True if it is not known what `name` means on the server.
    pub(super) fn is_unsure(&self, name: &[u8]) -> bool {
        self.get(name) == Some(UNSURE)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }
}
