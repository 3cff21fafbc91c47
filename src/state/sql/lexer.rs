//! Cuts SQL text into tokens as PostgreSQL's `scan.l` does. One pass, no allocation.
//!
//! Tokens that no rule of [`super::classify`] asks for are not told apart: an operator is a run of single bytes.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-syntax-lexical.html> and
//! `src/backend/parser/scan.l`, of which the rules are named in the comments.

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

/// What a byte can begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Space,
    Letter,
    Digit,
    Quote,
    DoubleQuote,
    Dollar,
    Minus,
    Slash,
    Dot,
    Colon,
    Open,
    Close,
    Comma,
    Semicolon,
    Operator,
    Nul,
}

static CLASSES: [Class; 256] = classes();

/// Whether a byte goes on with an identifier (`ident_cont`).
static IN_WORD: [bool; 256] = in_word();

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
                Class::Nul => Kind::Broken,
                Class::Minus | Class::Slash | Class::Colon | Class::Operator => Kind::Operator,
            };
            return Token { kind, start, end: self.at };
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn broken(&mut self) -> Kind {
        self.at = self.text.len();
        Kind::Broken
    }

    #[inline]
    fn skip_word(&mut self) {
        while self.peek().is_some_and(|byte| IN_WORD.get(usize::from(byte)) == Some(&true)) {
            self.at += 1;
        }
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
    fn skip_digits(&mut self) {
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
        let tag_len =
            self.rest().iter().take_while(|&&byte| !matches!(byte, b'$') && is_word(byte)).count();
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
    const NEAR: usize = 16;
    let near = hay.get(..NEAR).unwrap_or(hay);
    match near.iter().position(|&byte| byte == needle) {
        None if hay.len() > NEAR => Some(memchr(needle, hay.get(NEAR..)?)? + NEAR),
        found => found,
    }
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

#[inline]
fn class(byte: u8) -> Class {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Operator)
}

#[inline]
pub(super) fn is_word(byte: u8) -> bool {
    IN_WORD.get(usize::from(byte)) == Some(&true)
}

const fn classes() -> [Class; 256] {
    let mut table = [Class::Operator; 256];
    let mut rest: &mut [Class] = &mut table;
    let mut byte: u8 = 0;
    while let Some((slot, after)) = rest.split_first_mut() {
        *slot = match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c' => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'"' => Class::DoubleQuote,
            b'$' => Class::Dollar,
            b'-' => Class::Minus,
            b'/' => Class::Slash,
            b'.' => Class::Dot,
            b':' => Class::Colon,
            b'(' => Class::Open,
            b')' => Class::Close,
            b',' => Class::Comma,
            b';' => Class::Semicolon,
            0 => Class::Nul,
            _ => Class::Operator,
        };
        rest = after;
        byte = byte.wrapping_add(1);
    }
    table
}

const fn in_word() -> [bool; 256] {
    let mut table = [false; 256];
    let mut rest: &mut [bool] = &mut table;
    let mut byte: u8 = 0;
    while let Some((slot, after)) = rest.split_first_mut() {
        *slot = matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'0'..=b'9' | 0x80..=0xff);
        rest = after;
        byte = byte.wrapping_add(1);
    }
    table
}

#[cfg(test)]
#[path = "lexer_tests.rs"]
mod tests;
