//! Statements that any number of clients prepared with the same text, kept once.

use super::Pool;
use super::core::PoolId;
use crate::state::prepared::{Prepared, Tail, UNCOUNTED_MAX};
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

/// Most bytes of the statements of all clients together, and of those kept: a text that clients share counts once. Of
/// those without a name the long ones count.
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
    /// By a hash of pool, text, how it was read, and settings: an entry is compared before it is believed.
    entries: HashMap<u64, Entry>,
    hasher: hashbrown::DefaultHashBuilder,
    bytes: usize,
    next_id: u64,
}

/// The last statement of a pool with its text.
struct Entry {
    pool: PoolId,
    statement: Arc<Prepared>,
}

impl Entry {
    fn size(&self) -> usize {
        Tail::size_of(&self.statement.tail)
    }
}

/// What the clients of a pool prepare statements with.
pub struct Preparer<'a> {
    statements: &'a Statements,
    pool: PoolId,
    ddl_seen: u64,
}

impl Pool {
    /// What statements are prepared with as of this count of DDL.
    pub fn statements(&self, ddl_seen: u64) -> Preparer<'_> {
        Preparer { statements: &self.pools.statements, pool: self.id, ddl_seen }
    }
}

impl Intern for Preparer<'_> {
    fn apart(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
    ) -> Result<Arc<Prepared>, ClientFault> {
        let mut table = self.statements.table.lock();
        let tail = Arc::new(self.statements.hold(tail, &mut table)?);
        Ok(table.number(tail, Prepared::APART, effects, options, self.ddl_seen))
    }

    /// Settings are part of it: a literal such as a timestamp takes its meaning from them when the statement is parsed.
    /// So are database and user, by whom a name is looked up, and what DDL was seen: who prepares a text behind it gets
    /// another statement than those who did before, which its servers may have as it was.
    fn intern(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
        settings: &Settings,
    ) -> Result<Arc<Prepared>, ClientFault> {
        let mut table = self.statements.table.lock();
        let mut hasher = table.hasher.build_hasher();
        tail.hash(&mut hasher);
        options.hash(&mut hasher);
        self.pool.hash(&mut hasher);
        hasher.write_u64(settings.fingerprint());
        let hash = hasher.finish();
        let known = table.entries.get(&hash).filter(|Entry { pool, statement }| {
            *pool == self.pool
                && **statement.tail == *tail
                && statement.options == options
                && statement.settings == settings.fingerprint()
        });
        let tail = match known {
            Some(Entry { statement, .. }) if statement.ddl_seen == self.ddl_seen => {
                return Ok(Arc::clone(statement));
            }
            Some(Entry { statement, .. }) => Arc::clone(&statement.tail),
            None => Arc::new(self.statements.hold(tail, &mut table)?),
        };
        let settings = settings.fingerprint();
        let statement = table.number(tail, settings, effects, options, self.ddl_seen);
        table.keep(hash, Entry { pool: self.pool, statement: Arc::clone(&statement) });
        Ok(statement)
    }

    fn hold(&mut self, tail: &[u8]) -> Result<Tail, ClientFault> {
        if tail.len() <= UNCOUNTED_MAX {
            return Ok(Tail::uncounted(tail));
        }
        self.statements.hold(tail, &mut self.statements.table.lock())
    }
}

impl Statements {
    /// A copy of `tail`, if there is room for it.
    fn hold(&self, tail: &[u8], table: &mut Table) -> Result<Tail, ClientFault> {
        // Others only make room meanwhile: what is added, is under the lock.
        let is_full = || self.held.load(Ordering::Relaxed) + Tail::size_of(tail) > self.held_max;
        if is_full() {
            table.forget_unused();
        }
        if is_full() {
            return Err(ClientFault::StatementsFull);
        }
        Ok(Tail::new(tail, &self.held))
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
        ddl_seen: u64,
    ) -> Arc<Prepared> {
        self.next_id += 1;
        Arc::new(Prepared::new(self.next_id, tail, settings, effects, options, ddl_seen))
    }

    fn keep(&mut self, hash: u64, entry: Entry) {
        let size = entry.size();
        self.make_room(size);
        if let Some(old) = self.entries.insert(hash, entry) {
            self.bytes -= old.size();
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
        self.entries.retain(|_, entry| Arc::strong_count(&entry.statement) > 1);
        self.bytes = self.entries.values().map(Entry::size).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(value: &str) -> Settings {
        Settings::new([("timezone", value)]).expect("a valid name")
    }

    fn of(statements: &Statements, pool: usize, ddl_seen: u64) -> Preparer<'_> {
        Preparer { statements, pool: PoolId(pool), ddl_seen }
    }

    fn prepare(preparer: &mut Preparer<'_>, tail: &[u8]) -> Result<Arc<Prepared>, ClientFault> {
        preparer.intern(tail, Effects::NONE, Options::default(), &Settings::default())
    }

    #[test]
    fn equal_texts_are_one_statement_and_others_are_not() {
        let statements = Statements::default();
        let utc = settings("UTC");
        let (read, none) = (Options::default(), Effects::NONE);
        let id = |tail: &[u8], options: Options, settings: &Settings| {
            let interned = of(&statements, 1, 0).intern(tail, none, options, settings);
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
    fn a_text_is_another_statement_behind_ddl_and_to_others_and_is_held_once() {
        let statements = Statements::default();
        let prepared = |pool, ddl_seen| {
            prepare(&mut of(&statements, pool, ddl_seen), b"select 1").expect("there is room")
        };
        let (before, behind, others) = (prepared(1, 0), prepared(1, 1), prepared(2, 0));
        assert_eq!(behind.id, prepared(1, 1).id);
        assert!(before.id != behind.id && before.id != others.id && behind.id != others.id);
        assert!(Arc::ptr_eq(&before.tail, &behind.tail));
        assert_eq!(statements.held.load(Ordering::Relaxed), 2 * Tail::size_of(b"select 1"));
    }

    #[test]
    fn the_bytes_kept_have_a_bound() {
        let statements = Statements::default();
        let tail = vec![b'x'; 1 << 20];
        let mut held = Vec::new();
        for n in 0..100_u8 {
            let mut tail = tail.clone();
            tail[0] = n;
            held.push(prepare(&mut of(&statements, 1, 0), &tail));
            assert!(statements.size().1 <= KEPT_MAX);
        }
    }

    #[test]
    fn the_bytes_of_all_clients_have_a_bound_and_come_back() {
        let statements = Statements { held_max: 10_000, ..Statements::default() };
        let mut preparer = of(&statements, 1, 0);
        let mut fill = |mark: u8| {
            let mut held = Vec::new();
            loop {
                let tail = [mark, u8::try_from(held.len()).expect("few")].repeat(500);
                match prepare(&mut preparer, &tail) {
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
        let again = prepare(&mut of(&statements, 1, 0), &first[0].tail).expect("it is there");
        assert!(Arc::ptr_eq(&again, &first[0]));
        assert!(fill(2).is_empty());
        drop((first, again));
        assert_eq!(fill(3).len(), 8);
        statements.table.lock().forget_unused();
        assert_eq!(statements.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn long_statements_without_a_name_are_part_of_the_bound() {
        let statements = Statements { held_max: 3 * UNCOUNTED_MAX, ..Statements::default() };
        let mut preparer = of(&statements, 1, 0);
        let (long, short) = (vec![b'x'; UNCOUNTED_MAX + 1], vec![b'x'; UNCOUNTED_MAX]);
        let held: Vec<Tail> =
            (0..2).map(|_| preparer.hold(&long).expect("there is room")).collect();
        assert_eq!(preparer.hold(&long).err(), Some(ClientFault::StatementsFull));
        assert!(preparer.hold(&short).is_ok());
        assert_eq!(prepare(&mut preparer, &long).err(), Some(ClientFault::StatementsFull));
        drop(held);
        assert!(prepare(&mut preparer, &long).is_ok());
    }
}
