//! The routines of a database that may leave something in a session, by name: a statement that names none of
//! them, in a database where nothing else leads to them, leaves nothing unseen.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>

use hashbrown::HashSet;

/// Longest name in PostgreSQL, in bytes; what is longer in a text is cut.
const NAME_MAX: usize = 63;

/// Names of routines.
#[derive(Debug, Default)]
pub struct Suspects {
    names: HashSet<Box<[u8]>>,
}

impl Suspects {
    /// The names; `None` if one of them could be written in a text so that it is not found there.
    #[must_use]
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let names: HashSet<Box<[u8]>> =
            names.into_iter().map(|name| name.to_ascii_lowercase().into_bytes().into()).collect();
        let plain = |name: &[u8]| {
            name.len() <= NAME_MAX
                && !name.is_empty()
                && name.is_ascii()
                && name.iter().all(|byte| in_name(*byte))
        };
        names.iter().all(|name| plain(name)).then_some(Self { names })
    }

    /// True if `text` may run one of them.
    pub(super) fn may_run_by(&self, text: &[u8]) -> bool {
        // A name with Unicode escapes could be anything.
        let escapes = |before: &[u8]| before.ends_with(b"&\"");
        let is_one = |word: &[u8]| {
            let mut folded = [0; NAME_MAX];
            let word = word.get(..NAME_MAX).unwrap_or(word);
            let Some(folded) = folded.get_mut(..word.len()) else { return false };
            folded.copy_from_slice(word);
            folded.make_ascii_lowercase();
            !word.is_empty() && self.names.contains(&*folded)
        };
        let mut at = 0;
        for word in text.split(|byte| !in_name(*byte)) {
            let end = at + word.len();
            if word.eq_ignore_ascii_case(b"u") && text.get(end..end + 2).is_some_and(escapes) {
                return true;
            }
            at = end + 1;
            // A string in dollars may begin with it, or end.
            if is_one(word)
                || (word.contains(&b'$') && word.split(|byte| *byte == b'$').any(is_one))
            {
                return true;
            }
        }
        false
    }
}

fn in_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_$".contains(&byte) || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routine_is_found_however_its_name_is_written() {
        let suspects = Suspects::of(["enter", "Leave"]).expect("plain");
        let long = format!("SELECT {}()", "x".repeat(80));
        let cut = Suspects::of([&*"x".repeat(63)]).expect("plain");
        assert!(cut.may_run_by(long.as_bytes()));
        for text in [
            "SELECT enter(1)",
            "select public.ENTER ('x')",
            "SELECT \"Leave\"()",
            "CALL enter()",
            "SELECT 1+enter(1)",
            "SELECT U&\"\\0065nter\"(1)",
            "SELECT u&\"x\" FROM t",
            "DO $x$enter$x$",
        ] {
            assert!(suspects.may_run_by(text.as_bytes()), "{text}");
        }
        for text in ["SELECT 1", "SELECT re_enter(1)", "SELECT entered, u & \"x\"", "", "enter1"] {
            assert!(!suspects.may_run_by(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn names_that_can_be_written_in_other_ways_are_not_looked_for() {
        for name in ["two words", "na\u{ef}ve", "a.b", "", "\"", &"x".repeat(64)] {
            assert!(Suspects::of([name]).is_none(), "{name}");
        }
    }
}
