//! A statement without its literals, for the log of a pin.
//!
//! RDS Proxy logs the same: `set search_path to $1,$2,$3`.

use super::lexer::{Kind, Lexer, Token};
use crate::state::statement::Options;
use std::fmt::Write;

/// Longest digest in bytes.
const DIGEST_MAX: usize = 256;

/// Appends `text` to `out` in lower case, without comments, and with `$1`, `$2`, … for its literals.
///
/// At most 256 bytes are added. What SET assigns counts as a literal even without quotes (a role, a schema, a
/// tenant). Names stay, be they quoted or not; a byte that is not UTF-8 becomes U+FFFD.
pub fn digest(text: &[u8], options: Options, out: &mut String) {
    let mut digest = Digest { out: String::new(), literals: 0, value_of_set: false };
    if options.ascii_safe_encoding || text.is_ascii() {
        digest.write(Lexer::new(text, !options.standard_conforming_strings));
    }
    let mut len = DIGEST_MAX.min(digest.out.len());
    while !digest.out.is_char_boundary(len) {
        len -= 1;
    }
    out.push_str(digest.out.get(..len).unwrap_or_default().trim_end());
}

struct Digest {
    out: String,
    literals: u32,
    /// Between the TO of a SET and its end.
    value_of_set: bool,
}

impl Digest {
    fn write(&mut self, mut lexer: Lexer<'_>) {
        let mut last = Token::START;
        let mut set = false;
        while self.out.len() <= DIGEST_MAX {
            let token = lexer.next();
            let bytes = lexer.text_of(token);
            if token.kind == Kind::End {
                return;
            }
            if token.start > last.end && !self.out.is_empty() {
                self.out.push(' ');
            }
            let begins = matches!(last.kind, Kind::Start | Kind::Semicolon);
            match token.kind {
                // A word that sticks to a number is a part of it: 0x1f, 1_000.
                Kind::Word
                    if last.end == token.start
                        && matches!(last.kind, Kind::Number | Kind::Parameter) =>
                {
                    last.end = token.end;
                    continue;
                }
                Kind::Text | Kind::Number | Kind::Parameter | Kind::Broken => self.literal(),
                Kind::Word if self.value_of_set && !bytes.eq_ignore_ascii_case(b"default") => {
                    self.literal();
                }
                Kind::QuotedName | Kind::UnicodeName if self.value_of_set => self.literal(),
                Kind::Semicolon => {
                    self.value_of_set = false;
                    set = false;
                    self.out.push(';');
                }
                _ => self.verbatim(bytes),
            }
            set |= begins && bytes.eq_ignore_ascii_case(b"set");
            self.value_of_set |= set && begins_value(token.kind, bytes);
            last = token;
        }
    }

    fn verbatim(&mut self, bytes: &[u8]) {
        let shown = bytes.get(..DIGEST_MAX).unwrap_or(bytes);
        self.out.push_str(&String::from_utf8_lossy(shown).to_ascii_lowercase());
    }

    fn literal(&mut self) {
        self.literals = self.literals.saturating_add(1);
        // Writing to a String cannot fail.
        let _ = write!(self.out, "${}", self.literals);
    }
}

/// The word or sign behind which a SET has its value.
fn begins_value(kind: Kind, bytes: &[u8]) -> bool {
    const WORDS: [&[u8]; 7] =
        [b"to", b"zone", b"names", b"role", b"authorization", b"schema", b"catalog"];
    match kind {
        Kind::Word => WORDS.iter().any(|word| bytes.eq_ignore_ascii_case(word)),
        Kind::Operator => bytes == b"=",
        _ => false,
    }
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
