//! The commonest statements, told by a shorter look.
//!
//! A SELECT, UPDATE or DELETE without a parenthesis, a string, a quoted name, a comment or a second
//! statement calls no function by name and cannot be misread, whatever its words mean, unless one
//! of them is notable. [`Scan`](super::classify::Scan) comes to the same for all that is found here,
//! at several times the price.

use super::body::is_notable;
use super::bytes::{Class, class, word_len};
use crate::state::statement::{Command, Effects, Summary};

const VERBS: [(&[u8; 6], Command, Effects); 3] = [
    (b"select", Command::Select, Effects::NONE),
    (b"update", Command::Update, Effects::WRITE),
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
    while let Some((&byte, behind)) = rest.split_first() {
        rest = match class(byte) {
            Class::Space | Class::Comma | Class::Operator | Class::Dot => behind,
            Class::Letter => {
                let len = 1 + word_len(behind);
                let looks_like_catalogue =
                    matches!(byte, b'p' | b'P') && !matches!(behind, [b'g' | b'G', b'_', ..]);
                if is_notable(byte, len) && !looks_like_catalogue {
                    return None;
                }
                behind.get(len - 1..)?
            }
            Class::Digit => behind,
            Class::Dollar if behind.first().is_some_and(u8::is_ascii_digit) => behind,
            Class::Minus if behind.first() != Some(&b'-') => behind,
            Class::Semicolon if behind.iter().all(|&byte| class(byte) == Class::Space) => break,
            _ => return None,
        };
    }
    Some(Summary { statements: 1, effects: *effects, first: *command })
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
            "INSERT INTO t VALUES 1",
            "SELECT a::text",
        ] {
            assert_eq!(summarize(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_short_look_finds_what_the_scan_finds(
            verb in prop::sample::select(vec!["select ", "UPDATE\t", "delete\n", "SELECT\r", "with "]),
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "a", "b.c", " ", "from", "for", "update", "into", "insert", "temp", "pg_temp",
                    "pg_settings", "pg_x", "pgbench_accounts", "set", "=", "-", "--", "1", "1e5",
                    "$1", "$", "E", "U&", "1into", ";", "case", "end", "table", "values", "as",
                    "execute", "atomic", "begin", "x\u{e9}", ".", ",", "*", "[", "]", "\\", "@",
                    "(", ")", "'", "\"", "/", ":", "::", "current_user", "with", "merge",
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
