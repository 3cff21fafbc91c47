//! The rest of a statement behind its header, at memory speed.
//!
//! Nearly every token means nothing but that it was there. [`Scan::body`] passes over those with all it needs in local
//! variables, and hands the few others to [`Scan::token`], which knows what each of them means.

use super::bytes::Class;
use super::classify::Scan;
use super::lexer::{Kind, Token};
use crate::state::statement::Effects;

/// The tokens just before the one that is looked at.
#[derive(Clone, Copy)]
pub(super) struct Near {
    /// The last one.
    pub(super) last: Token,
    /// The one before the name that `last` belongs to: before `a` in `a.b`.
    pub(super) before: Token,
    /// `a` in `a.b`; [`Kind::Start`] when there is none.
    pub(super) qualifier: Token,
}

impl Near {
    pub(super) const START: Self =
        Self { last: Token::START, before: Token::START, qualifier: Token::START };

    #[inline]
    pub(super) fn name_begins(&mut self) {
        if self.last.kind != Kind::Dot {
            self.before = self.last;
            self.qualifier.kind = Kind::Start;
        }
    }

    #[inline]
    pub(super) fn dot(&mut self) {
        if self.last.is_name() {
            self.qualifier = self.last;
        }
    }
}

/// Words that [`Scan::token`] has to see. Those that begin with a p are names in the catalogue, seen from 7 bytes on.
pub(super) const NOTABLE: [&[u8]; 16] = [
    b"end",
    b"case",
    b"into",
    b"temp",
    b"with",
    b"merge",
    b"table",
    b"atomic",
    b"delete",
    b"insert",
    b"select",
    b"update",
    b"values",
    b"execute",
    b"temporary",
    b"pg_temp",
];

/// For each first letter (its lower five bits) the lengths of the notable words, as bits; those of 31 bytes and more
/// share one.
static NOTABLE_LENGTHS: [u32; 32] = notable_lengths();

impl Scan<'_> {
    pub(super) fn body(&mut self) {
        let mut lexer = self.lexer;
        let mut near = self.near;
        loop {
            let start = lexer.at();
            let (byte, class) = lexer.advance();
            let kind = match class {
                Class::Space => continue,
                Class::Comma => Kind::Comma,
                Class::Operator => Kind::Operator,
                Class::Digit => {
                    lexer.skip_digits();
                    Kind::Number
                }
                Class::Letter if !is_notable(byte, lexer.plain_word(start)) => {
                    near.name_begins();
                    Kind::Word
                }
                Class::Dot => {
                    near.dot();
                    Kind::Dot
                }
                Class::Dollar if lexer.parameter() => Kind::Parameter,
                Class::Quote if lexer.simple_string() => Kind::Text,
                Class::Open if near.last.is_name() => {
                    self.lexer = lexer;
                    self.near = near;
                    self.open();
                    Kind::Open
                }
                Class::Open => {
                    self.push(false);
                    Kind::Open
                }
                Class::Close => {
                    self.close();
                    Kind::Close
                }
                Class::End => break,
                _ => {
                    lexer.go_back_to(start);
                    self.lexer = lexer;
                    self.near = near;
                    if !self.token() {
                        return;
                    }
                    lexer = self.lexer;
                    near = self.near;
                    continue;
                }
            };
            near.last = Token { kind, start, end: lexer.at() };
        }
        self.lexer = lexer;
        self.near = near;
    }

    /// Reads any token; false when it ends the statement.
    fn token(&mut self) -> bool {
        let token = self.lexer.next();
        match token.kind {
            Kind::Word => {
                self.near.name_begins();
                self.word(token);
            }
            Kind::QuotedName => {
                self.near.name_begins();
                self.quoted_name(token);
            }
            Kind::UnicodeName => {
                // What it means may be changed by an UESCAPE behind it. Nobody writes this.
                self.near.name_begins();
                self.add(Effects::UNCERTAIN);
            }
            Kind::Open => self.open(),
            Kind::Close => self.close(),
            Kind::Dot => self.near.dot(),
            Kind::Semicolon if self.statement_may_end() => return false,
            Kind::End => return false,
            Kind::Broken => self.add(Effects::UNCERTAIN),
            _ => {}
        }
        self.near.last = token;
        true
    }
}

/// Whether a word of `len` bytes that begins with `first` has to be looked at. With a length of 0, always.
#[inline]
pub(super) fn is_notable(first: u8, len: usize) -> bool {
    let lengths = NOTABLE_LENGTHS.get(usize::from(first & 31)).copied().unwrap_or(u32::MAX);
    lengths >> len.min(31) & 1 == 1
}

#[expect(
    clippy::indexing_slicing,
    reason = "runs at compile time, where an index out of range is a compile error"
)]
const fn notable_lengths() -> [u32; 32] {
    let mut lengths = [1; 32];
    let mut words: &[&[u8]] = &NOTABLE;
    while let Some((word, rest)) = words.split_first() {
        lengths[(word[0] & 31) as usize] |= 1 << word.len();
        words = rest;
    }
    lengths[(b'p' & 31) as usize] |= u32::MAX << b"pg_temp".len();
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notable_words_are_seen_in_any_case_and_most_others_are_not() {
        let seen = |word: &str| is_notable(word.as_bytes()[0], word.len());
        for word in NOTABLE {
            let word = std::str::from_utf8(word).unwrap();
            assert!(seen(word) && seen(&word.to_ascii_uppercase()));
        }
        for word in ["pg_settings", "PG_CURSORS", "pg_prepared_statements", &"pg_temp".repeat(9)] {
            assert!(seen(word), "{word}");
        }
        for word in
            ["id", "from", "where", "and", "name", "customer", "created_at", "orders", "null"]
        {
            assert!(!seen(word), "{word}");
        }
    }
}
