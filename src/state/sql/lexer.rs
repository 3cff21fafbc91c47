//! Cuts SQL text into tokens as PostgreSQL's `scan.l` does. One pass, no allocation.
//!
//! Tokens that no rule of [`super::classify`] asks for are not told apart: an operator is a run of single bytes.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-syntax-lexical.html> and
//! `src/backend/parser/scan.l`, of which the rules are named in the comments.

use super::bytes::{Class, class, is_in_word, word_len};
use memchr::{memchr, memchr2};

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Before the first token of a statement.
    Start,
    /// A keyword or an identifier without quotes.
    Word,
    /// `"identifier"`.
    QuotedName,
    /// `U&"identifier"`.
    UnicodeName,
    /// A string of any form, with its quotes.
    Text,
    Number,
    /// `$1`.
    Parameter,
    Open,
    Close,
    Dot,
    Comma,
    Semicolon,
    /// `::`
    Cast,
    /// One byte of an operator, or a byte that PostgreSQL refuses.
    Operator,
    /// Something that began and does not end, up to the end of the text.
    Broken,
    End,
}

/// A piece of the text; `start..end` are bytes from the beginning of the text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Token {
    pub(super) const START: Self = Self { kind: Kind::Start, start: 0, end: 0 };

    pub(super) fn is_name(self) -> bool {
        matches!(self.kind, Kind::Word | Kind::QuotedName)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    /// Whether a backslash escapes in a plain string: `standard_conforming_strings` is off.
    backslashes: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8], backslashes: bool) -> Self {
        Self { text, at: 0, backslashes }
    }

    /// The bytes of a token of this text.
    #[inline]
    pub(super) fn text_of(&self, token: Token) -> &'a [u8] {
        self.text.get(token.start..token.end).unwrap_or_default()
    }

    /// The next token; at the end of the text [`Kind::End`], again and again.
    #[inline]
    pub(super) fn next(&mut self) -> Token {
        loop {
            let start = self.at;
            let Some(&byte) = self.text.get(start) else {
                return Token { kind: Kind::End, start, end: start };
            };
            self.at = start + 1;
            let kind = match class(byte) {
                Class::Space => continue,
                Class::Letter => self.word(byte),
                Class::Digit => self.number(byte),
                Class::Quote => self.string(self.backslashes),
                Class::DoubleQuote => self.quoted_name(Kind::QuotedName),
                Class::Dollar => self.dollar(),
                Class::Minus if self.peek() == Some(b'-') => {
                    self.skip_line();
                    continue;
                }
                Class::Slash if self.peek() == Some(b'*') => {
                    if self.skip_comment() {
                        continue;
                    }
                    Kind::Broken
                }
                Class::Dot if self.peek().is_some_and(|next| next.is_ascii_digit()) => {
                    self.number(byte)
                }
                Class::Dot => Kind::Dot,
                Class::Colon if self.peek() == Some(b':') => {
                    self.at += 1;
                    Kind::Cast
                }
                Class::Open => Kind::Open,
                Class::Close => Kind::Close,
                Class::Comma => Kind::Comma,
                Class::Semicolon => Kind::Semicolon,
                Class::Nul | Class::End => Kind::Broken,
                Class::Minus | Class::Slash | Class::Colon | Class::Operator => Kind::Operator,
            };
            return Token { kind, start, end: self.at };
        }
    }

    /// Where the next token or what is before it begins.
    #[inline]
    pub(super) fn at(&self) -> usize {
        self.at
    }

    #[inline]
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    #[inline]
    pub(super) fn go_back_to(&mut self, at: usize) {
        self.at = at;
    }

    /// Goes one byte on, and says what that byte can begin.
    #[inline]
    pub(super) fn advance(&mut self) -> (u8, Class) {
        let Some(byte) = self.peek() else {
            return (0, Class::End);
        };
        self.at += 1;
        (byte, class(byte))
    }

    /// Behind the first letter of a word: passes the word and returns its length, or 0 when it may be the prefix of
    /// a string or a name.
    #[inline]
    pub(super) fn plain_word(&mut self, start: usize) -> usize {
        self.skip_word();
        let len = self.at - start;
        if len == 1 && matches!(self.peek(), Some(b'\'' | b'&')) { 0 } else { len }
    }

    /// Behind a dollar sign: passes the number of a parameter, if that is what it is.
    #[inline]
    pub(super) fn parameter(&mut self) -> bool {
        let start = self.at;
        self.skip_digits();
        self.at > start
    }

    /// Behind a quote: passes a string without escapes and doubled quotes that does not go on behind a line end.
    #[inline]
    pub(super) fn simple_string(&mut self) -> bool {
        if self.backslashes {
            return false;
        }
        let Some(found) = find(b'\'', self.rest()) else {
            return false;
        };
        self.at += found + 1;
        match self.peek() {
            Some(byte) if matches!(class(byte), Class::Space | Class::Quote | Class::Minus) => {
                self.continuation().is_none() && byte != b'\''
            }
            _ => true,
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn broken(&mut self) -> Kind {
        self.at = self.text.len();
        Kind::Broken
    }

    #[inline]
    fn skip_word(&mut self) {
        self.at += word_len(self.rest());
    }

    #[inline]
    fn word(&mut self, first: u8) -> Kind {
        let start = self.at;
        self.skip_word();
        if self.at != start {
            return Kind::Word;
        }
        match (first, self.peek()) {
            (b'e' | b'E', Some(b'\'')) => {
                self.at += 1;
                self.string(true)
            }
            (b'n' | b'N', Some(b'\'')) => {
                self.at += 1;
                self.string(self.backslashes)
            }
            (b'b' | b'B' | b'x' | b'X', Some(b'\'')) => self.bits(),
            (b'u' | b'U', Some(b'&')) => self.unicode(),
            _ => Kind::Word,
        }
    }

    /// `B'…'` and `X'…'` (`xb`, `xh`), in which a doubled quote is an end and a beginning.
    fn bits(&mut self) -> Kind {
        self.at += 1;
        while let Some(found) = memchr(b'\'', self.rest()) {
            self.at += found + 1;
            let Some(behind_quote) = self.continuation() else {
                return Kind::Text;
            };
            self.at += behind_quote;
        }
        self.broken()
    }

    /// `U&'…'` (`xus`, where PostgreSQL refuses the setting that gives backslashes a meaning) or `U&"…"` (`xui`).
    fn unicode(&mut self) -> Kind {
        match self.text.get(self.at + 1) {
            Some(b'\'') => {
                self.at += 2;
                self.string(false)
            }
            Some(b'"') => {
                self.at += 2;
                self.quoted_name(Kind::UnicodeName)
            }
            _ => Kind::Word,
        }
    }

    /// What comes directly after the digits is a token of its own (`1_000` is two): PostgreSQL up to 14 reads
    /// `1E'x'` as a number and a string, and where newer ones refuse it no rule of ours depends on it.
    #[inline]
    fn number(&mut self, first: u8) -> Kind {
        self.skip_digits();
        if first != b'.' && self.peek() == Some(b'.') && self.text.get(self.at + 1) != Some(&b'.') {
            self.at += 1;
            self.skip_digits();
        }
        if let [b'e' | b'E', b'+' | b'-', b'0'..=b'9', ..] = self.rest() {
            self.at += 2;
            self.skip_digits();
        }
        Kind::Number
    }

    #[inline]
    pub(super) fn skip_digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// From behind the opening quote to behind the closing one (`xq`, `xe`, `xus`).
    #[inline]
    fn string(&mut self, backslashes: bool) -> Kind {
        if backslashes {
            return self.escaped_string();
        }
        while self.skip_quoted(b'\'') {
            let Some(behind_quote) = self.continuation() else {
                return Kind::Text;
            };
            self.at += behind_quote;
        }
        self.broken()
    }

    /// The part after a line end (`E'a'` newline `'b'`) has escapes as well, so that it cannot be read on its own.
    fn escaped_string(&mut self) -> Kind {
        loop {
            let Some(found) = memchr2(b'\\', b'\'', self.rest()) else {
                return self.broken();
            };
            self.at += found + 1;
            let escaped = self.text.get(self.at - 1) == Some(&b'\\');
            if escaped || self.peek() == Some(b'\'') {
                self.at += 1;
            } else if let Some(behind_quote) = self.continuation() {
                self.at += behind_quote;
            } else {
                return Kind::Text;
            }
        }
    }

    /// How far behind the quote lies that continues the string which ends here.
    #[inline]
    fn continuation(&self) -> Option<usize> {
        let blank = self.peek().is_some_and(|byte| class(byte) == Class::Space || byte == b'-');
        if blank { continuation(self.rest()) } else { None }
    }

    fn quoted_name(&mut self, kind: Kind) -> Kind {
        if self.skip_quoted(b'"') { kind } else { self.broken() }
    }

    /// To behind the closing quote; a doubled one stands for itself.
    #[inline]
    fn skip_quoted(&mut self, quote: u8) -> bool {
        loop {
            let Some(found) = find(quote, self.rest()) else {
                return false;
            };
            self.at += found + 1;
            if self.peek() != Some(quote) {
                return true;
            }
            self.at += 1;
        }
    }

    /// `$1`, `$$…$$`, `$tag$…$tag$` (`dolqdelim`), or a lone dollar sign, which PostgreSQL refuses.
    fn dollar(&mut self) -> Kind {
        let start = self.at - 1;
        match self.peek() {
            Some(b'0'..=b'9') => {
                self.skip_digits();
                return Kind::Parameter;
            }
            Some(byte) if class(byte) == Class::Letter || byte == b'$' => {}
            _ => return Kind::Operator,
        }
        let tag_len = self
            .rest()
            .iter()
            .take_while(|&&byte| !matches!(byte, b'$') && is_in_word(byte))
            .count();
        if self.text.get(self.at + tag_len) != Some(&b'$') {
            return Kind::Operator;
        }
        let opening = self.at + tag_len + 1;
        let delimiter = self.text.get(start..opening).unwrap_or_default();
        self.at = opening;
        while let Some(found) = memchr(b'$', self.rest()) {
            self.at += found;
            if self.rest().starts_with(delimiter) {
                self.at += delimiter.len();
                return Kind::Text;
            }
            self.at += 1;
        }
        self.broken()
    }

    fn skip_line(&mut self) {
        let rest = self.rest();
        self.at += memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    /// A comment in `/* */`, which may hold others. Returns false when it does not end.
    fn skip_comment(&mut self) -> bool {
        let mut open: usize = 1;
        self.at += 1;
        while let Some(found) = memchr2(b'*', b'/', self.rest()) {
            self.at += found;
            match self.rest() {
                [b'/', b'*', ..] => {
                    open += 1;
                    self.at += 2;
                }
                [b'*', b'/', ..] => {
                    open -= 1;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
            if open == 0 {
                return true;
            }
        }
        self.broken();
        false
    }
}

/// Most strings are short; only for the others is a call of memchr worth its start.
#[inline]
fn find(needle: u8, hay: &[u8]) -> Option<usize> {
    const NEAR: usize = 32;
    const ONES: u64 = 0x0101_0101_0101_0101;
    let pattern = u64::from(needle) * ONES;
    let mut at = 0;
    while at < NEAR
        && let Some(eight) = hay.get(at..).and_then(<[u8]>::first_chunk)
    {
        // The lowest bit that stays is in the first byte that is equal.
        let differs = u64::from_le_bytes(*eight) ^ pattern;
        let equal = differs.wrapping_sub(ONES) & !differs & (ONES << 7);
        if equal != 0 {
            return Some(at + equal.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    Some(at + memchr(needle, hay.get(at..)?)?)
}

/// Only blanks and line comments with a line end among them may lie between (`quotecontinue`).
fn continuation(rest: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut line_ended = false;
    loop {
        match rest.get(at..)? {
            [b'\n' | b'\r', ..] => {
                line_ended = true;
                at += 1;
            }
            [b' ' | b'\t' | b'\x0b' | b'\x0c', ..] => at += 1,
            [b'-', b'-', comment @ ..] => at += 2 + memchr2(b'\n', b'\r', comment)?,
            [b'\'', ..] if line_ended => return Some(at + 1),
            _ => return None,
        }
    }
}

#[cfg(test)]
#[path = "lexer_tests.rs"]
mod tests;
