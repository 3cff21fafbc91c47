//! Identifiers as PostgreSQL understands them: folded, unquoted, cut to the length of a name.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS>

use super::lexer::{Kind, Lexer};
use std::borrow::Cow;

/// Longest identifier in bytes (`NAMEDATALEN` less one); PostgreSQL drops the rest, and says so in a NOTICE.
const NAME_MAX: usize = 63;

/// The value of `raw`, an identifier or several with dots between them (`"My app".Tenant`).
///
/// Only ASCII letters are folded, as PostgreSQL does unless the database has a single-byte encoding. A cut does not
/// split a character, which is taken to be UTF-8.
pub(in crate::state) fn value(raw: &[u8]) -> Cow<'_, [u8]> {
    let is_plain = |&byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if raw.len() <= NAME_MAX && raw.iter().all(is_plain) {
        return Cow::Borrowed(raw);
    }
    let mut value = Vec::with_capacity(raw.len());
    let mut lexer = Lexer::new(raw, false);
    loop {
        let token = lexer.next();
        let text = lexer.text_of(token);
        match token.kind {
            Kind::Word => value.extend_from_slice(&cut(text.to_ascii_lowercase())),
            Kind::QuotedName => value.extend_from_slice(&cut(undouble(text))),
            Kind::Dot => value.push(b'.'),
            _ => return Cow::Owned(value),
        }
    }
}

fn undouble(quoted: &[u8]) -> Vec<u8> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut after_quote = false;
    let keep = |&byte: &u8| {
        after_quote = byte == b'"' && !after_quote;
        !(byte == b'"' && after_quote)
    };
    inner.iter().copied().filter(keep).collect()
}

fn cut(mut name: Vec<u8>) -> Vec<u8> {
    const CONTINUES: std::ops::RangeInclusive<u8> = 0x80..=0xbf;
    if name.len() > NAME_MAX {
        let mut len = NAME_MAX;
        while len > 0 && name.get(len).is_some_and(|byte| CONTINUES.contains(byte)) {
            len -= 1;
        }
        name.truncate(len);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_folded_unless_quoted_and_cut_to_63_bytes() {
        let long = "n".repeat(70);
        for (raw, expected) in [
            ("users", "users"),
            ("Users", "users"),
            ("\"Users\"", "Users"),
            ("\"a\"\"b\"", "a\"b"),
            ("\"a\"\"\"\"b\"", "a\"\"b"),
            ("MyApp.\"Tenant.Id\"", "myapp.Tenant.Id"),
            ("MyApp . /* x */ tenant", "myapp.tenant"),
            ("\u{c9}t\u{e9}", "\u{c9}t\u{e9}"),
            (&long, &long[..63]),
            (&format!("{}\u{e9}\u{e9}", "n".repeat(62)), &"n".repeat(62)),
        ] {
            assert_eq!(value(raw.as_bytes()), expected.as_bytes(), "{raw}");
        }
    }
}
