//! Password preparation exactly as PostgreSQL does it, so that both sides derive the same keys.
//!
//! PostgreSQL departs from RFC 4013 in ways that change the outcome: pure ASCII is taken as it is, control
//! characters included; the prohibited, unassigned and bidirectional checks look at the mapped text *before*
//! it is normalised; and what fails a check, or maps to nothing at all, is used as the raw bytes instead of
//! being refused. `stringprep::saslprep` checks the normalised text, so only its tables are used here.
//!
//! Source: `pg_saslprep` in PostgreSQL's `src/common/saslprep.c`;
//! <https://www.postgresql.org/docs/current/sasl-authentication.html#SASL-SCRAM-SHA-256>

use stringprep::tables;
use zeroize::Zeroizing;

/// The bytes of `password` that go into the key derivation.
pub(super) fn prepare(password: &str) -> Zeroizing<Vec<u8>> {
    let prepared = if password.is_ascii() { None } else { normalise(password) };
    match prepared {
        Some(text) => Zeroizing::new(text.as_bytes().to_vec()),
        None => Zeroizing::new(password.as_bytes().to_vec()),
    }
}

/// `None` when PostgreSQL would answer `SASLPREP_PROHIBITED`.
fn normalise(password: &str) -> Option<Zeroizing<String>> {
    let mapped: Zeroizing<String> = Zeroizing::new(password.chars().filter_map(map).collect());
    if mapped.is_empty() || mapped.chars().any(is_prohibited) || !is_bidi_allowed(&mapped) {
        return None;
    }
    nfkc(&mapped)
}

/// A character of table C.1.2 becomes a space; one of table B.1 disappears. U+200B is in both, and
/// PostgreSQL asks C.1.2 first.
fn map(c: char) -> Option<char> {
    if tables::non_ascii_space_character(c) {
        Some(' ')
    } else if tables::commonly_mapped_to_nothing(c) {
        None
    } else {
        Some(c)
    }
}

/// Tables C.2 to C.9 of RFC 3454, and A.1 (unassigned in Unicode 3.2).
fn is_prohibited(c: char) -> bool {
    tables::ascii_control_character(c)
        || tables::non_ascii_control_character(c)
        || tables::private_use(c)
        || tables::non_character_code_point(c)
        || tables::inappropriate_for_plain_text(c)
        || tables::inappropriate_for_canonical_representation(c)
        || tables::change_display_properties_or_deprecated(c)
        || tables::tagging_character(c)
        || tables::unassigned_code_point(c)
}

/// RFC 3454, section 6: right-to-left text holds no left-to-right character, and begins and ends with a
/// right-to-left one.
fn is_bidi_allowed(text: &str) -> bool {
    if !text.contains(tables::bidi_r_or_al) {
        return true;
    }
    !text.contains(tables::bidi_l)
        && text.starts_with(tables::bidi_r_or_al)
        && text.ends_with(tables::bidi_r_or_al)
}

/// Unicode normalisation form KC of text that passed the checks above.
///
/// `x520prep` normalises, and what it does beside that touches nothing that [`is_prohibited`] lets through
/// (a test asks it about every character), but for one thing: it refuses a combining character at the
/// start. A space goes before, which no character composes with, and comes off again.
fn nfkc(text: &str) -> Option<Zeroizing<String>> {
    let spaced = Zeroizing::new(format!(" {text}"));
    let normalised = Zeroizing::new(stringprep::x520prep(&spaced, false).ok()?.into_owned());
    normalised.strip_prefix(' ').map(|text| Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(password: &str) -> String {
        String::from_utf8(prepare(password).to_vec()).unwrap()
    }

    /// RFC 4013, section 3, where PostgreSQL agrees with it.
    #[test]
    fn text_is_mapped_and_normalised() {
        assert_eq!(prepared("I\u{AD}X"), "IX");
        assert_eq!(prepared("user"), "user");
        assert_eq!(prepared("\u{AA}"), "a");
        assert_eq!(prepared("\u{2168}"), "IX");
        assert_eq!(prepared("a\u{3000}b\u{A0}c\u{200B}d"), "a b c d");
    }

    #[test]
    fn ascii_is_left_alone_control_characters_included() {
        assert_eq!(prepared("a\u{7}\tb\u{7F}"), "a\u{7}\tb\u{7F}");
        assert_eq!(prepared(""), "");
    }

    #[test]
    fn what_may_not_be_prepared_is_used_as_it_is() {
        for raw in [
            "\u{AA}\u{7}",          // a control character
            "\u{AA}\u{E000}",       // private use
            "\u{AA}\u{221}",        // unassigned in Unicode 3.2
            "\u{627}1",             // right-to-left text that ends otherwise
            "\u{5D0}\u{AA}\u{5D0}", // left-to-right within right-to-left
            "\u{AD}",               // nothing would be left of it
            "\u{340}\u{AA}",        // prohibited, though its normal form is not
        ] {
            assert_eq!(prepared(raw), raw, "{raw:?}");
        }
    }

    /// U+2122 is neutral but its normal form "TM" is left-to-right: only the former is looked at.
    #[test]
    fn direction_is_judged_before_normalisation() {
        assert_eq!(prepared("\u{5D0}\u{2122}\u{5D0}"), "\u{5D0}TM\u{5D0}");
    }

    #[test]
    fn a_leading_combining_character_is_no_obstacle() {
        assert_eq!(prepared("\u{301}\u{2168}"), "\u{301}IX");
        assert_eq!(prepared("e\u{301}"), "\u{E9}");
    }

    /// The normaliser has rules of its own; none of them may concern text that was found allowed.
    #[test]
    fn every_allowed_character_can_be_normalised() {
        for c in ('\0'..=char::MAX).filter(|c| !c.is_ascii()) {
            let allowed = map(c).is_some_and(|c| !is_prohibited(c));
            assert_eq!(normalise(&format!("{c}")).is_some(), allowed, "{c:?}");
        }
    }
}
