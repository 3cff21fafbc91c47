//! Looking at the next tokens of a header, and taking them.

use super::classify::Scan;
use super::lexer::{Kind, Token};
use crate::state::statement::Effects;
use std::ops::Range;

impl Scan<'_> {
    pub(super) fn peek(&self) -> Token {
        self.lexer.clone().next()
    }

    pub(super) fn peek_second(&self) -> Token {
        let mut ahead = self.lexer;
        ahead.next();
        ahead.next()
    }

    pub(super) fn second_is_name(&self) -> bool {
        self.peek_second().is_name()
    }

    pub(super) fn word_is(&self, token: Token, word: &[u8]) -> bool {
        token.kind == Kind::Word && self.lexer.text_of(token).eq_ignore_ascii_case(word)
    }

    pub(super) fn peek_is(&self, word: &[u8]) -> bool {
        self.word_is(self.peek(), word)
    }

    pub(super) fn accept(&mut self, word: &[u8]) -> bool {
        let accepted = self.peek_is(word);
        if accepted {
            self.consume();
        }
        accepted
    }

    /// Like `accept`, unless the word is itself the name of a setting: `SET local.x = 1`, `SET role TO x`.
    pub(super) fn accept_unless_assigned(&mut self, word: &[u8]) -> bool {
        if !self.peek_is(word) {
            return false;
        }
        let assigned = self.is_assigned();
        if !assigned {
            self.consume();
        }
        !assigned
    }

    /// Whether behind the next word stands what makes it the name of a setting.
    pub(super) fn is_assigned(&self) -> bool {
        let second = self.peek_second();
        match second.kind {
            Kind::Dot => true,
            Kind::Operator => self.lexer.text_of(second) == b"=",
            _ => self.word_is(second, b"to"),
        }
    }

    /// Like `accept_unless_assigned`, if another word follows: `SHOW time` names a setting.
    pub(super) fn accept_if_two_words(&mut self, word: &[u8]) -> bool {
        self.peek_second().kind == Kind::Word && self.accept_unless_assigned(word)
    }

    pub(super) fn peek_name(&self) -> Range<usize> {
        let token = self.peek();
        if token.is_name() { token.start..token.end } else { 0..0 }
    }

    pub(super) fn found_name(&self) -> &[u8] {
        let found = &self.found.name;
        self.lexer.text_of(Token { kind: Kind::Word, start: found.start, end: found.end })
    }

    /// Takes the name that has to follow.
    pub(super) fn take_name(&mut self) {
        self.found.name = self.peek_name();
        if self.found.name.is_empty() {
            self.add(Effects::UNCERTAIN);
        } else {
            self.consume();
        }
    }

    pub(super) fn skip_then_name(&mut self, word: &[u8]) {
        if self.peek_is(word) && self.second_is_name() {
            self.consume();
        }
        self.take_name();
    }
}
