//! The commonest statements, told by a shorter look.
//!
//! A SELECT, INSERT, UPDATE or DELETE without a string, a quoted name, a comment, a second statement, or a parenthesis
//! where a call could have one, calls no function by name and cannot be misread, whatever its words mean, unless one
//! of them is notable. [`Scan`](super::classify::Scan) comes to the same for all that is found here, at several times
//! the price.

use super::body::{NOTABLE, is_notable};
use super::bytes::{Class, class, list_len, word_len};
use crate::state::statement::{Command, Effects, Summary};

const VERBS: [(&[u8; 6], Command, Effects); 4] = [
    (b"select", Command::Select, Effects::NONE),
    (b"update", Command::Update, Effects::WRITE),
    (b"insert", Command::Insert, Effects::WRITE),
    (b"delete", Command::Delete, Effects::WRITE),
];

/// The summary of `text`, if a short look is enough.
pub(in crate::state) fn summarize(text: &[u8]) -> Option<Summary> {
    let (first, mut rest) = text.split_first_chunk::<6>()?;
    let (_, command, effects) =
        VERBS.iter().find(|(verb, ..)| first.eq_ignore_ascii_case(*verb))?;
    // More of a word, or a prefix of a string, is not of this kind.
    if class(*rest.first()?) != Class::Space {
        return None;
    }
    let inserts = *command == Command::Insert;
    // Parentheses that are open.
    let mut depth = 0_usize;
    if inserts {
        (rest, depth) = behind_target(rest)?;
    }
    // The word just before, where a parenthesis could make it a call; and whether it may be a name of any kind.
    let mut word: &[u8] = b"";
    let mut dotted = false;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = match class(byte) {
            Class::Space => behind,
            Class::Operator => {
                (word, dotted) = (b"in", false);
                behind
            }
            Class::Comma => {
                (word, dotted) = (b"in", false);
                behind.get(list_len(behind).0..)?
            }
            Class::Digit => {
                let (len, comma) = list_len(behind);
                if comma {
                    (word, dotted) = (b"in", false);
                }
                behind.get(len..)?
            }
            Class::Dot => {
                (word, dotted) = (b"", true);
                behind
            }
            Class::Letter => {
                let len = 1 + word_len(behind);
                let whole = rest.get(..len)?;
                let values = inserts && whole.eq_ignore_ascii_case(b"values");
                if !values && may_matter(whole) {
                    return None;
                }
                word = if std::mem::take(&mut dotted) { b"" } else { whole };
                behind.get(len - 1..)?
            }
            Class::Dollar if behind.first().is_some_and(u8::is_ascii_digit) => behind,
            Class::Minus if behind.first() != Some(&b'-') => behind,
            Class::Open if opens_no_call(word) => {
                depth += 1;
                behind
            }
            Class::Close => {
                depth = depth.checked_sub(1)?;
                word = b"";
                // Most often, the next row: `), (`.
                match behind {
                    [b',', b' ', b'(', behind @ ..] | [b',', b'(', behind @ ..] => {
                        (word, dotted) = (b"in", false);
                        depth += 1;
                        behind
                    }
                    _ => behind,
                }
            }
            Class::Semicolon if behind.iter().all(|&byte| class(byte) == Class::Space) => break,
            _ => return None,
        };
    }
    (depth == 0).then_some(Summary { statements: 1, effects: *effects, first: *command })
}

/// What follows ` INTO table (`, or without the parenthesis, and how many of these there are.
fn behind_target(text: &[u8]) -> Option<(&[u8], usize)> {
    let (into, mut rest) = text.trim_ascii_start().split_first_chunk::<4>()?;
    if !into.eq_ignore_ascii_case(b"into") || class(*rest.first()?) != Class::Space {
        return None;
    }
    loop {
        rest = rest.trim_ascii_start();
        let (&byte, behind) = rest.split_first()?;
        let len = 1 + word_len(behind);
        if class(byte) != Class::Letter || may_matter(rest.get(..len)?) {
            return None;
        }
        rest = rest.get(len..)?.trim_ascii_start();
        match rest.split_first() {
            Some((b'.', behind)) => rest = behind,
            Some((b'(', behind)) => return Some((behind, 1)),
            _ => return Some((rest, 0)),
        }
    }
}

/// Whether a word has to be looked at.
fn may_matter(word: &[u8]) -> bool {
    let Some((&byte, behind)) = word.split_first() else { return true };
    is_notable(byte, word.len())
        && (matches!(behind, [b'g' | b'G', b'_', ..])
            || NOTABLE.iter().any(|notable| word.eq_ignore_ascii_case(notable)))
}

/// Whether a parenthesis behind `word` is a list of values: both are words that no function can have for a name, unless
/// that of its schema stands before it.
fn opens_no_call(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"in") || word.eq_ignore_ascii_case(b"values")
}

#[cfg(test)]
mod tests {
    use super::super::classify::Scan;
    use super::*;
    use crate::state::statement::Options;
    use proptest::prelude::*;

    fn whole(text: &str) -> Summary {
        let (statements, effects, first) = Scan::new(text.as_bytes(), Options::default()).all();
        Summary { statements, effects, first }
    }

    #[test]
    fn common_statements_are_told_at_once() {
        for text in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = 12345;",
            "select a.*, b.c from a, b where a.id = b.id and b.d = $1 -1 ; ",
            "UPDATE pgbench_accounts SET abalance = abalance + -17 WHERE aid = 1;",
            "DELETE FROM t WHERE id = 7",
            "INSERT INTO h (tid, bid, mtime) VALUES (1, -2, CURRENT_TIMESTAMP);",
            "insert into public . h(a) values($1, $2), (3, 4)",
            "SELECT a FROM t WHERE b IN (1, 2)",
        ] {
            assert_eq!(summarize(text.as_bytes()), Some(whole(text)), "{text}");
        }
    }

    #[test]
    fn others_are_left_to_the_scan() {
        for text in [
            "",
            "select",
            "selects",
            "SELECT f(1)",
            "SELECT 1; SELECT 2",
            "SELECT * INTO t FROM u",
            "SELECT 1into t",
            "SELECT 'a'",
            "SELECT \"f\"",
            "SELECT 1 -- x",
            "SELECT 1 /* x */",
            "SELECT $$a$$",
            "SELECT name FROM pg_cursors",
            "SELECT * FROM pg_temp.t",
            "UPDATE pg_settings SET setting = 1",
            "INSERT INTO t VALUES (f (1))",
            "SELECT s.in(1)",
            "SELECT s . in (1)",
            "INSERT INTO t VALUES (s.values(1))",
            "UPDATE t SET a = s.\nIN\n(1)",
            "INSERT INTO t (a) SELECT a FROM u",
            "INSERT INTO pg_temp.t (a) VALUES (1)",
            "INSERT INTO t (a) VALUES ('a')",
            "INSERT INTO t AS v (a) VALUES (1)",
            "SELECT (f)(1)",
            "SELECT VALUES (1)",
            "SELECT a::text",
        ] {
            assert_eq!(summarize(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn a_short_look_finds_what_the_scan_finds(
            verb in prop::sample::select(vec![
                "select ", "UPDATE\t", "delete\n", "SELECT\r", "with ", "insert into t", "INSERT\nINTO a.b (",
            ]),
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "a", "b.c", " ", "from", "for", "update", "into", "insert", "temp", "pg_temp",
                    "pg_settings", "pg_x", "pgbench_accounts", "set", "=", "-", "--", "1", "1e5",
                    "$1", "$", "E", "U&", "1into", ";", "case", "end", "table", "values", "as",
                    "execute", "atomic", "s.in(", "s.values (", "a .", "begin", "x\u{e9}", ".", ",", "*", "[", "]", "\\", "@",
                    "(", ")", "in", "values", "values (", "(", ")", ", (", "'", "\"", "/", ":", "::", "current_user", "with", "merge",
                ]),
                0..12,
            ),
            joint in prop::sample::select(vec![" ", "", "\n"]),
        ) {
            let text = verb.to_owned() + &words.join(joint);
            if let Some(summary) = summarize(text.as_bytes()) {
                prop_assert_eq!(summary, whole(&text), "{}", text);
            }
        }
    }
}
