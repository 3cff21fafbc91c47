//! What the texts that clients send again and again do, so that they are not scanned again.
//!
//! A text is the same whoever sends it, so each thread has one memo for all of its clients. Only a
//! text that comes twice gets a place: those with literals in them mostly come once.

use super::statement::{self, Effects, Options};
use hashbrown::DefaultHashBuilder;
use std::cell::RefCell;
use std::hash::BuildHasher;

/// Places for texts, of each thread: one for each value of a byte.
const PLACES: usize = 1 << u8::BITS;

/// Longest text that is remembered, in bytes.
const TEXT_MAX: usize = 1024;

struct Entry {
    options: Options,
    text: Box<[u8]>,
    effects: Effects,
}

#[derive(Default)]
struct Memo {
    hasher: DefaultHashBuilder,
    /// Hashes of texts that came once.
    seen: Vec<u64>,
    entries: Vec<Option<Entry>>,
}

impl Memo {
    fn recall(&mut self, text: &[u8], options: Options) -> Effects {
        if self.entries.is_empty() {
            self.seen.resize(PLACES, 0);
            self.entries.resize_with(PLACES, || None);
        }
        let hash = self.hasher.hash_one(text);
        let [.., place] = hash.to_le_bytes();
        let place = usize::from(place);
        let (Some(seen), Some(entry)) = (self.seen.get_mut(place), self.entries.get_mut(place))
        else {
            return statement::effects(text, options);
        };
        if let Some(known) = entry
            && *known.text == *text
            && known.options == options
        {
            return known.effects;
        }
        let effects = statement::effects(text, options);
        if *seen == hash {
            *entry = Some(Entry { options, text: text.into(), effects });
        } else {
            *seen = hash;
        }
        effects
    }
}

thread_local! {
    static MEMO: RefCell<Memo> = RefCell::default();
}

/// [`statement::effects`], from memory where that is possible.
pub(super) fn effects(text: &[u8], options: Options) -> Effects {
    if text.len() > TEXT_MAX {
        return statement::effects(text, options);
    }
    // An error means that the thread is ending.
    MEMO.try_with(|memo| memo.borrow_mut().recall(text, options))
        .unwrap_or_else(|_| statement::effects(text, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Options =
        Options { standard_conforming_strings: true, ascii_safe_encoding: true, server_major: 15 };

    #[test]
    fn a_text_means_the_same_however_often_it_comes() {
        let texts = ["SELECT 1", "SET a.b = 1", "SELECT f(1)", "SELECT 'a\\' set_config('"];
        let lax = Options { standard_conforming_strings: false, ..STRICT };
        for _ in 0..4 {
            for text in texts {
                for options in [STRICT, lax] {
                    let expected = statement::effects(text.as_bytes(), options);
                    assert_eq!(effects(text.as_bytes(), options), expected, "{text}");
                }
            }
        }
    }

    #[test]
    fn only_what_comes_twice_gets_a_place() {
        let mut memo = Memo::default();
        let taken = |memo: &Memo| memo.entries.iter().flatten().count();
        for n in 0..10_000 {
            memo.recall(format!("SELECT {n}").as_bytes(), STRICT);
        }
        assert_eq!(taken(&memo), 0);
        for _ in 0..2 {
            memo.recall(b"SELECT $1", STRICT);
        }
        assert_eq!(taken(&memo), 1);
        for n in 0..10_000 {
            for _ in 0..2 {
                memo.recall(format!("SELECT {n}").as_bytes(), STRICT);
            }
        }
        assert!(taken(&memo) <= PLACES);
    }
}
