//! Statements that any number of clients prepared with the same text, kept once.

use crate::state::prepared::{Prepared, Tail};
use crate::state::session::{ClientFault, Intern};
use crate::state::settings::Settings;
use crate::state::statement::{Effects, Options};
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes of statement texts kept for clients that may come again.
const KEPT_MAX: usize = 64 << 20;

/// Most bytes of the statements of all clients together, and of those kept: a text that clients share counts once.
const HELD_MAX: usize = 512 << 20;

/// All statements of a target.
pub struct Statements {
    table: Mutex<Table>,
    /// Bytes of all that are there, whoever has them.
    held: Arc<AtomicUsize>,
    held_max: usize,
}

impl Default for Statements {
    fn default() -> Self {
        Self { table: Mutex::default(), held: Arc::default(), held_max: HELD_MAX }
    }
}

#[derive(Default)]
struct Table {
    /// By a hash of text, how it was read, and settings: an entry is compared before it is believed.
    entries: HashMap<u64, Arc<Prepared>>,
    hasher: hashbrown::DefaultHashBuilder,
    bytes: usize,
    next_id: u64,
}

impl Intern for &Statements {
    fn apart(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
    ) -> Result<Arc<Prepared>, ClientFault> {
        let mut table = self.table.lock();
        let tail = self.hold(tail, &mut table)?;
        Ok(table.number(tail, Prepared::APART, effects, options))
    }

    /// Settings are part of it: a literal such as a timestamp takes its meaning from them when the statement is parsed.
    fn intern(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
        settings: &Settings,
    ) -> Result<Arc<Prepared>, ClientFault> {
        let mut table = self.table.lock();
        let mut hasher = table.hasher.build_hasher();
        tail.hash(&mut hasher);
        options.hash(&mut hasher);
        hasher.write_u64(settings.fingerprint());
        let hash = hasher.finish();
        if let Some(known) = table.entries.get(&hash)
            && **known.tail == *tail
            && known.options == options
            && known.settings == settings.fingerprint()
        {
            return Ok(Arc::clone(known));
        }
        let tail = self.hold(tail, &mut table)?;
        let settings = settings.fingerprint();
        let statement = table.number(tail, settings, effects, options);
        table.keep(hash, Arc::clone(&statement));
        Ok(statement)
    }
}

impl Statements {
    /// A copy of `tail`, if there is room for it.
    fn hold(&self, tail: &[u8], table: &mut Table) -> Result<Arc<Tail>, ClientFault> {
        // Others only make room meanwhile: what is added, is under the lock.
        let is_full = || self.held.load(Ordering::Relaxed) + Tail::size_of(tail) > self.held_max;
        if is_full() {
            table.forget_unused();
        }
        if is_full() {
            return Err(ClientFault::StatementsFull);
        }
        Ok(Arc::new(Tail::new(tail, &self.held)))
    }

    /// Number of the statements that are shared or kept, and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let table = self.table.lock();
        (table.entries.len(), table.bytes)
    }
}

impl Table {
    fn number(
        &mut self,
        tail: Arc<Tail>,
        settings: u64,
        effects: Effects,
        options: Options,
    ) -> Arc<Prepared> {
        self.next_id += 1;
        Arc::new(Prepared::new(self.next_id, tail, settings, effects, options))
    }

    fn keep(&mut self, hash: u64, statement: Arc<Prepared>) {
        let size = Tail::size_of(&statement.tail);
        self.make_room(size);
        if let Some(old) = self.entries.insert(hash, statement) {
            self.bytes -= Tail::size_of(&old.tail);
        }
        self.bytes += size;
    }

    /// Forgets what no client uses, once the bound is reached, and everything if that is not
    /// enough: clients keep theirs, they just share no longer.
    fn make_room(&mut self, wanted: usize) {
        if self.bytes + wanted <= KEPT_MAX {
            return;
        }
        self.forget_unused();
        if self.bytes + wanted > KEPT_MAX {
            self.entries.clear();
            self.bytes = 0;
        }
    }

    fn forget_unused(&mut self) {
        self.entries.retain(|_, statement| Arc::strong_count(statement) > 1);
        self.bytes = self.entries.values().map(|known| Tail::size_of(&known.tail)).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(value: &str) -> Settings {
        Settings::new([("timezone", value)]).expect("a valid name")
    }

    fn prepare(mut statements: &Statements, tail: &[u8]) -> Result<Arc<Prepared>, ClientFault> {
        statements.intern(tail, Effects::NONE, Options::default(), &Settings::default())
    }

    #[test]
    fn equal_texts_are_one_statement_and_others_are_not() {
        let statements = Statements::default();
        let utc = settings("UTC");
        let (read, none) = (Options::default(), Effects::NONE);
        let id = |tail: &[u8], options: Options, settings: &Settings| {
            let interned = (&statements).intern(tail, none, options, settings);
            interned.expect("there is room").id
        };
        let one = id(b"select 1\0\0\0", read, &utc);
        assert_eq!(one, id(b"select 1\0\0\0", read, &utc));
        assert_ne!(one, id(b"select 2\0\0\0", read, &utc));
        assert_ne!(one, id(b"select 1\0\0\0", read, &settings("Europe/Rome")));
        let other = Options { standard_conforming_strings: false, ..read };
        assert_ne!(one, id(b"select 1\0\0\0", other, &utc));
        assert_eq!(one, id(b"select 1\0\0\0", read, &utc));
    }

    #[test]
    fn the_bytes_kept_have_a_bound() {
        let statements = Statements::default();
        let tail = vec![b'x'; 1 << 20];
        let mut held = Vec::new();
        for n in 0..100_u8 {
            let mut tail = tail.clone();
            tail[0] = n;
            held.push(prepare(&statements, &tail));
            assert!(statements.size().1 <= KEPT_MAX);
        }
    }

    #[test]
    fn the_bytes_of_all_clients_have_a_bound_and_come_back() {
        let statements = Statements { held_max: 10_000, ..Statements::default() };
        let fill = |mark: u8| {
            let mut held = Vec::new();
            loop {
                let tail = [mark, u8::try_from(held.len()).expect("few")].repeat(500);
                match prepare(&statements, &tail) {
                    Ok(statement) => held.push(statement),
                    Err(fault) => {
                        assert_eq!(fault, ClientFault::StatementsFull);
                        return held;
                    }
                }
            }
        };
        let first = fill(1);
        assert_eq!(first.len(), 8);
        // What others have already costs nothing, and harms nobody.
        let again = prepare(&statements, &first[0].tail).expect("it is there");
        assert!(Arc::ptr_eq(&again, &first[0]));
        assert!(fill(2).is_empty());
        drop((first, again));
        assert_eq!(fill(3).len(), 8);
        statements.table.lock().forget_unused();
        assert_eq!(statements.held.load(Ordering::Relaxed), 0);
    }
}
