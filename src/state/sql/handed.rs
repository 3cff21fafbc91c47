//! The texts that a statement hands to functions of extensions to be run: are they all to be seen?
//!
//! Where they are strings, parameters, or put together of these, whoever looks for a name in the statement and in the
//! values of its parameters finds it. Not where they come from a table, or from another function.

use super::functions::runs_text;
use super::lexer::{Kind, Lexer, Token};
use crate::state::statement::Options;
use memchr::memmem;

/// Most bodies within each other that are looked into.
const DEPTH_MAX: u32 = 4;

/// What puts a text together of others, or is a constant.
const PLAIN: [&[u8]; 9] = [
    b"format",
    b"concat",
    b"concat_ws",
    b"quote_literal",
    b"quote_ident",
    b"quote_nullable",
    b"true",
    b"false",
    b"null",
];

/// True if a text may be run that is not to be seen in `text`, nor in the values of its parameters.
pub(in crate::state) fn hands_on_unseen_text(text: &[u8], options: Options) -> bool {
    may_run_text(text) && hands_on(text, !options.standard_conforming_strings, DEPTH_MAX)
}

/// True if `text` speaks of a function that runs texts.
pub(in crate::state) fn may_run_text(text: &[u8]) -> bool {
    const PARTS: [&[u8]; 3] = [b"crosstab", b"connectby", b"xpath_table"];
    let folded = text.to_ascii_lowercase();
    PARTS.iter().any(|part| memmem::find(&folded, part).is_some())
}

fn hands_on(text: &[u8], backslashes: bool, depth: u32) -> bool {
    let mut lexer = Lexer::new(text, backslashes);
    let mut before = Token::START;
    loop {
        let token = lexer.next();
        let bytes = lexer.text_of(token);
        let calls = token.kind == Kind::Open && before.is_name();
        if calls && runs_text(bare(lexer.text_of(before))) && !takes_what_is_seen(&mut lexer) {
            return true;
        }
        match token.kind {
            Kind::End => return false,
            Kind::Broken => return true,
            Kind::Text if may_run_text(bytes) => match inside(bytes) {
                Some(body) if depth > 0 && !hands_on(body, backslashes, depth - 1) => {}
                _ => return true,
            },
            Kind::UnicodeName => return true,
            _ => {}
        }
        before = token;
    }
}

/// The name without its quotes.
fn bare(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\"")).unwrap_or(name)
}

/// Whether the arguments, up to their closing parenthesis, have nothing else than strings and parameters.
fn takes_what_is_seen(arguments: &mut Lexer<'_>) -> bool {
    let mut depth = 1_u32;
    let mut before = Kind::Open;
    loop {
        let token = arguments.next();
        let bytes = arguments.text_of(token);
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close if depth == 1 => return true,
            Kind::Close => depth -= 1,
            Kind::Text if may_run_text(bytes) => return false,
            Kind::Text
            | Kind::Parameter
            | Kind::Number
            | Kind::Comma
            | Kind::Cast
            | Kind::Operator => {}
            Kind::Word if before == Kind::Cast => {}
            Kind::Word if PLAIN.iter().any(|word| bytes.eq_ignore_ascii_case(word)) => {}
            _ => return false,
        }
        before = token.kind;
    }
}

/// What is between the two `$tag$` of a string in dollars.
fn inside(string: &[u8]) -> Option<&[u8]> {
    let tag = string.strip_prefix(b"$")?.iter().position(|&byte| byte == b'$')? + 2;
    string.get(tag..string.len().checked_sub(tag)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_strings_and_parameters_is_seen() {
        for text in [
            "SELECT * FROM crosstab('SELECT 1')",
            "SELECT * FROM public.crosstab2($1), \"crosstab\"($$ SELECT 'a' $$::text, $2)",
            "SELECT crosstab(format('SELECT %L', $1) || concat('x', quote_literal($2)), 3)",
            "DO $$ BEGIN PERFORM * FROM crosstab('SELECT 1') AS t (a int); END $$",
            "SELECT crosstab FROM t WHERE a = lower(b)",
            "SELECT lower(q) FROM t",
        ] {
            assert!(!hands_on_unseen_text(text.as_bytes(), Options::default()), "{text}");
        }
    }

    #[test]
    fn a_text_from_elsewhere_is_not_seen() {
        for text in [
            "SELECT * FROM texts, CrossTab(q)",
            "SELECT * FROM crosstab((SELECT q FROM texts))",
            "SELECT * FROM \"connectby\"/**/(lower('a'), 'b', 'c', 'd', 0)",
            "SELECT * FROM crosstab('SELECT 1', current_setting('a.b'))",
            "DO $$ BEGIN PERFORM * FROM xpath_table(a, b, c, d, e); END $$",
            "DO 'BEGIN PERFORM * FROM crosstab(''SELECT 1''); END'",
            "SELECT * FROM crosstab('SELECT * FROM crosstab(''a'' || b)')",
            "SELECT U&\"\\0063rosstab\"(q), 'crosstab' FROM texts",
            "SELECT * FROM crosstab('SELECT 1",
        ] {
            assert!(hands_on_unseen_text(text.as_bytes(), Options::default()), "{text}");
        }
    }
}
