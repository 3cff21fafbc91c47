//! Statements that any number of clients prepared with the same text, kept once.

use crate::state::prepared::Prepared;
use crate::state::session::Intern;
use crate::state::settings::Settings;
use crate::state::statement::{Effects, Options};
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// Most bytes of statement texts kept for clients that may come again.
const BYTES_MAX: usize = 64 << 20;

/// What a statement costs beside its text, roughly.
const OVERHEAD: usize = 128;

/// All statements of a target.
#[derive(Default)]
pub struct Statements {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// By a hash of text, how it was read, and settings: an entry is compared before it is believed.
    entries: HashMap<u64, Arc<Prepared>>,
    hasher: hashbrown::DefaultHashBuilder,
    bytes: usize,
    next_id: u64,
}

impl Statements {
    /// The statement whose `Parse` message has `tail`, as parsed under `settings`.
    ///
    /// Settings are part of it: a literal such as a timestamp takes its meaning from them when
    /// the statement is parsed.
    pub fn intern(
        &self,
        tail: &[u8],
        effects: Effects,
        options: Options,
        settings: &Settings,
    ) -> Arc<Prepared> {
        let mut table = self.table.lock();
        let mut hasher = table.hasher.build_hasher();
        tail.hash(&mut hasher);
        options.hash(&mut hasher);
        hasher.write_u64(settings.fingerprint());
        let hash = hasher.finish();
        if let Some(known) = table.entries.get(&hash)
            && *known.tail == *tail
            && known.options == options
            && known.settings == settings.fingerprint()
        {
            return Arc::clone(known);
        }
        table.next_id += 1;
        let statement = Arc::new(Prepared {
            id: table.next_id,
            tail: tail.into(),
            settings: settings.fingerprint(),
            effects,
            options,
        });
        table.make_room(tail.len() + OVERHEAD);
        if let Some(old) = table.entries.insert(hash, Arc::clone(&statement)) {
            table.bytes -= old.tail.len() + OVERHEAD;
        }
        table.bytes += tail.len() + OVERHEAD;
        statement
    }

    /// Number of statements and their bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let table = self.table.lock();
        (table.entries.len(), table.bytes)
    }
}

impl Table {
    /// Forgets what no client uses, once the bound is reached, and everything if that is not
    /// enough: clients keep theirs, they just share no longer.
    fn make_room(&mut self, wanted: usize) {
        if self.bytes + wanted <= BYTES_MAX {
            return;
        }
        self.entries.retain(|_, statement| Arc::strong_count(statement) > 1);
        self.bytes = self.entries.values().map(|known| known.tail.len() + OVERHEAD).sum();
        if self.bytes + wanted > BYTES_MAX {
            self.entries.clear();
            self.bytes = 0;
        }
    }
}

impl Statements {
    /// A statement that nobody shares.
    pub fn apart(&self, tail: &[u8], effects: Effects, options: Options) -> Arc<Prepared> {
        let mut table = self.table.lock();
        table.next_id += 1;
        Arc::new(Prepared { id: table.next_id, tail: tail.into(), settings: 0, effects, options })
    }
}

impl Intern for &Statements {
    fn apart(&mut self, tail: &[u8], effects: Effects, options: Options) -> Arc<Prepared> {
        Statements::apart(self, tail, effects, options)
    }

    fn intern(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
        settings: &Settings,
    ) -> Arc<Prepared> {
        Statements::intern(self, tail, effects, options, settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(value: &str) -> Settings {
        Settings::new([("timezone", value)]).expect("a valid name")
    }

    #[test]
    fn equal_texts_are_one_statement_and_others_are_not() {
        let statements = Statements::default();
        let utc = settings("UTC");
        let (read, none) = (Options::default(), Effects::NONE);
        let id = |tail: &[u8], options: Options, settings: &Settings| {
            statements.intern(tail, none, options, settings).id
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
            held.push(statements.intern(
                &tail,
                Effects::NONE,
                Options::default(),
                &Settings::default(),
            ));
            assert!(statements.size().1 <= BYTES_MAX);
        }
    }
}
