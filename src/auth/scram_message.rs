//! The syntax of SCRAM messages: comma-separated attributes, `x=value`.
//!
//! Source: RFC 5802, section 7, in the strict reading of PostgreSQL: fixed order, nothing after the last
//! attribute, no zero byte.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hash::SHA256_LEN;
use super::scram::ScramError;

/// Refuses what no honest peer sends before any of it is looked at.
pub(super) fn check(message: &[u8], max: usize) -> Result<(), ScramError> {
    if message.is_empty() {
        return Err(ScramError::Empty);
    }
    if message.len() > max {
        return Err(ScramError::TooLong { len: message.len(), max });
    }
    if message.contains(&0) {
        return Err(ScramError::Nul);
    }
    Ok(())
}

/// One `name=value`, with its text for those who need to cut it off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attribute<'a> {
    pub(super) name: u8,
    pub(super) value: &'a [u8],
    pub(super) text: &'a [u8],
}

/// Takes a message apart from its front.
pub(super) struct Attributes<'a> {
    /// What follows the last comma that was passed; `None` once there is no further comma.
    rest: Option<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: Some(message) }
    }

    /// The next attribute, whatever it is called.
    pub(super) fn any(&mut self) -> Result<Attribute<'a>, ScramError> {
        let rest = self.rest.take().ok_or(ScramError::NotAnAttribute)?;
        let (text, after) = split_at_comma(rest);
        self.rest = after;
        match text {
            [name, b'=', value @ ..] if name.is_ascii_alphabetic() => {
                Ok(Attribute { name: *name, value, text })
            }
            _ => Err(ScramError::NotAnAttribute),
        }
    }

    /// The value of the next attribute, which has to be `name`.
    pub(super) fn expect(&mut self, name: u8) -> Result<&'a [u8], ScramError> {
        match self.any() {
            Ok(attribute) if attribute.name == name => Ok(attribute.value),
            Ok(_) | Err(_) => Err(ScramError::AttributeExpected(char::from(name))),
        }
    }

    /// Whether the next attribute is a mandatory extension, all of which are unknown.
    pub(super) fn refuse_mandatory_extension(&self) -> Result<(), ScramError> {
        match self.rest {
            Some([b'm', ..]) => Err(ScramError::MandatoryExtension),
            Some(_) | None => Ok(()),
        }
    }

    /// Nothing may follow.
    pub(super) fn finish(self) -> Result<(), ScramError> {
        if self.rest.is_some() { Err(ScramError::Garbage) } else { Ok(()) }
    }

    /// Attributes that nobody knows may follow; they are optional extensions.
    pub(super) fn finish_extensions(mut self) -> Result<(), ScramError> {
        while self.rest.is_some() {
            self.any()?;
        }
        Ok(())
    }
}

/// What stands before the first comma, and what after it if there is one.
pub(super) fn split_at_comma(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let mut parts = text.splitn(2, |byte| *byte == b',');
    (parts.next().unwrap_or_default(), parts.next())
}

/// Whether `value` can be a nonce: printable ASCII without commas, not empty.
pub(super) fn is_nonce(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|byte| matches!(byte, 0x21..=0x7e if *byte != b','))
}

/// The 32 bytes that `value` is the base64 of; `name` is for the error.
pub(super) fn decode_key(name: u8, value: &[u8]) -> Result<[u8; SHA256_LEN], ScramError> {
    decode(name, value)?.try_into().map_err(|_| ScramError::MalformedValue(char::from(name)))
}

/// Base64 with padding and without spare bits: one text per value, so that no altered byte goes unnoticed.
pub(super) fn decode(name: u8, value: &[u8]) -> Result<Vec<u8>, ScramError> {
    STANDARD.decode(value).map_err(|_| ScramError::MalformedValue(char::from(name)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn attributes_are_taken_in_order() {
        let mut attributes = Attributes::new(b"r=a=b,s=,i=1");
        assert_eq!(attributes.expect(b'r'), Ok(b"a=b".as_slice()));
        assert_eq!(attributes.expect(b's'), Ok(b"".as_slice()));
        let last = attributes.any().unwrap();
        assert_eq!((last.name, last.value, last.text), (b'i', b"1".as_slice(), b"i=1".as_slice()));
        assert_eq!(attributes.finish(), Ok(()));
    }

    #[test]
    fn what_is_no_attribute_is_refused() {
        for text in ["", "r", "r ", "=r", "1=r", "rr=1", ",r=1"] {
            let refused = Attributes::new(text.as_bytes()).any();
            assert_eq!(refused, Err(ScramError::NotAnAttribute), "{text}");
            let expected = Attributes::new(text.as_bytes()).expect(b'r');
            assert_eq!(expected, Err(ScramError::AttributeExpected('r')), "{text}");
        }
    }

    #[test]
    fn a_trailing_comma_is_garbage() {
        let mut attributes = Attributes::new(b"r=a,");
        attributes.expect(b'r').unwrap();
        assert_eq!(attributes.finish(), Err(ScramError::Garbage));
    }

    #[test]
    fn nonces_are_printable_ascii_without_commas() {
        for nonce in ["!", "~", "fyko+d2lbbFgONRv9qkxdawL", "=,"] {
            assert_eq!(is_nonce(nonce.as_bytes()), !nonce.contains(','), "{nonce}");
        }
        for nonce in [b"".as_slice(), b" ", b"a b", b"\x7f", b"\xc3\xa9", b"\n"] {
            assert!(!is_nonce(nonce), "{nonce:?}");
        }
    }

    #[test]
    fn each_key_has_one_base64_text() {
        let text = STANDARD.encode([7; SHA256_LEN]);
        assert_eq!(decode_key(b'p', text.as_bytes()), Ok([7; SHA256_LEN]));
        // The last digit but the padding has two spare bits.
        let spare_bits = text.replace("c=", "d=");
        assert_ne!(spare_bits, text);
        for wrong in [spare_bits.as_str(), text.trim_end_matches('='), "", "BwcH", "B w="] {
            assert_eq!(decode_key(b'p', wrong.as_bytes()), Err(ScramError::MalformedValue('p')));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_to_an_end(message in proptest::collection::vec(any::<u8>(), 0..100)) {
            let commas = message.split(|byte| *byte == b',').count() - 1;
            let mut attributes = Attributes::new(&message);
            let mut taken = 0;
            while attributes.rest.is_some() {
                let _ = attributes.any();
                taken += 1;
            }
            prop_assert_eq!(taken, commas + 1);
        }
    }
}
