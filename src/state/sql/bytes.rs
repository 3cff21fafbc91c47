//! What each byte can be in SQL text, as tables.

/// What a byte can begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
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
    /// Zero, which no text has.
    Nul,
    /// Behind the last byte.
    End,
}

static CLASSES: [Class; 256] = classes();

static IN_WORD: [bool; 256] = in_word();

#[inline]
pub(super) fn class(byte: u8) -> Class {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(Class::Operator)
}

#[inline]
pub(in crate::state) fn is_in_word(byte: u8) -> bool {
    IN_WORD.get(usize::from(byte)) == Some(&true)
}

/// How many bytes at the front of `bytes` go on with an identifier.
///
/// Eight bytes at a time: a loop over single ones costs a mispredicted branch at the end of nearly each word.
#[inline]
pub(super) fn word_len(bytes: &[u8]) -> usize {
    let mut len = 0;
    while let Some(eight) = bytes.get(len..).and_then(<[u8]>::first_chunk) {
        let others = !word_bytes(u64::from_le_bytes(*eight)) & HIGH;
        if others != 0 {
            return len + others.trailing_zeros() as usize / 8;
        }
        len += 8;
    }
    let rest = bytes.get(len..).unwrap_or_default();
    len + rest.iter().take_while(|&&byte| is_in_word(byte)).count()
}

/// How many bytes at the front of `bytes` are digits, commas, spaces, and dollar signs before a digit, and whether a
/// comma is among them.
///
/// Eight bytes at a time: it may end before a dollar sign that is the last of eight, and before the last seven bytes.
#[inline]
pub(super) fn list_len(bytes: &[u8]) -> (usize, bool) {
    let mut len = 0;
    let mut commas_seen = 0;
    while let Some(eight) = bytes.get(len..).and_then(<[u8]>::first_chunk) {
        let bytes = u64::from_le_bytes(*eight);
        let ascii = bytes & !HIGH;
        let digits = between(ascii, b'0', b'9') & !bytes;
        let commas = between(ascii, b',', b',');
        let parameters = between(ascii, b'$', b'$') & digits >> 8;
        let fits = digits | commas | between(ascii, b' ', b' ') | parameters;
        let others = !(fits & !bytes) & HIGH;
        // All that is below the first of the others.
        commas_seen |= commas & others.wrapping_sub(1) & !others & HIGH;
        if others != 0 {
            len += others.trailing_zeros() as usize / 8;
            break;
        }
        len += 8;
    }
    (len, commas_seen != 0)
}

const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each byte that goes on with an identifier; the other bits mean nothing.
///
/// An underscore is the only one of them that folding turns into 0x7f (the byte 0x7f itself is refused by
/// PostgreSQL, so that it may count as what it likes).
#[inline]
fn word_bytes(bytes: u64) -> u64 {
    let ascii = bytes & !HIGH;
    let folded = ascii | ones(0x20);
    bytes
        | between(folded, b'a', b'z')
        | folded.wrapping_add(ones(1))
        | between(ascii, b'0', b'9')
        | between(ascii, b'$', b'$')
}

/// The high bit of each byte, all of them below 0x80, that is not outside of the two.
#[inline]
const fn between(bytes: u64, low: u8, high: u8) -> u64 {
    bytes.wrapping_add(ones(0x80 - low)) & !bytes.wrapping_add(ones(0x7f - high))
}

const fn ones(byte: u8) -> u64 {
    0x0101_0101_0101_0101 * byte as u64
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
        *slot = matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'$' | b'0'..=b'9' | 0x7f..=0xff);
        rest = after;
        byte = byte.wrapping_add(1);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_word_is_the_same_by_eight_bytes_and_by_one() {
        for byte in 0..=u8::MAX {
            for at in 0..20 {
                let mut bytes = *b"abcdefgh_$019zAZ\x80\xffxy";
                bytes[at] = byte;
                let one_by_one = bytes.iter().take_while(|&&byte| is_in_word(byte)).count();
                assert_eq!(word_len(&bytes), one_by_one, "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn the_length_of_a_list_is_the_same_by_eight_bytes_and_by_one() {
        let is_of_list = |bytes: &[u8]| match bytes {
            [b'$', next, ..] => next.is_ascii_digit(),
            [byte, ..] => matches!(byte, b'0'..=b'9' | b',' | b' '),
            [] => false,
        };
        for byte in 0..=u8::MAX {
            for at in 0..24 {
                let mut bytes = *b"$1, $22,3 4567$8 9012345";
                bytes[at] = byte;
                let (len, comma) = list_len(&bytes);
                let one_by_one =
                    (0..=bytes.len()).take_while(|&at| is_of_list(&bytes[at..])).count();
                let short = one_by_one > len && bytes[len] == b'$' && len % 8 == 7;
                assert!(one_by_one == len || short, "{byte:#x} at {at}");
                assert_eq!(comma, bytes[..len].contains(&b','), "{byte:#x} at {at}");
            }
        }
    }
}
