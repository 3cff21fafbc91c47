//! Framing of protocol 3 messages: where one ends and the next begins.
//!
//! A frame is a tag byte, a 4-byte length that counts itself but not the tag, and the body.
//! The first packet of a connection has no tag; that one is read by [`super::startup`].
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-overview.html#PROTOCOL-MESSAGE-CONCEPTS>

/// Bytes before a frame's body: the tag and the length.
pub const HEADER_LEN: usize = 5;

/// Bytes of the length field, which counts itself.
const LENGTH_LEN: usize = 4;

/// A frame's first five bytes, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type of the message; which one depends on the direction.
    pub tag: u8,
    /// Bytes of the whole frame, the header included: at least [`HEADER_LEN`].
    pub frame_len: usize,
}

impl Header {
    /// Reads the header at the front of `input`; `None` means that more bytes are needed.
    ///
    /// `frame_max` is in bytes, the header included: what one peer may send in a message.
    ///
    /// # Errors
    /// The stream cannot be resynchronised after an error, so the caller closes the connection.
    #[inline]
    pub fn read(input: &[u8], frame_max: usize) -> Result<Option<Self>, FrameError> {
        let Some(&[tag, a, b, c, d]) = input.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        // Lengths are signed in the protocol: a set top bit is a negative length.
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length < LENGTH_LEN {
            return Err(FrameError::LengthTooSmall { tag });
        }
        let frame_len = length + 1;
        if frame_len > frame_max || length > i32::MAX as usize {
            return Err(FrameError::TooLarge { tag, frame_len });
        }
        Ok(Some(Self { tag, frame_len }))
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_len(self) -> usize {
        self.frame_len - HEADER_LEN
    }
}

/// Takes the first whole frame off `input`: its header and body, and advances behind it.
///
/// `None` means that the frame is not complete (`input` stays as it was).
///
/// # Errors
/// As [`Header::read`].
#[inline]
pub fn take<'a>(input: &mut &'a [u8], frame_max: usize) -> Result<Option<Frame<'a>>, FrameError> {
    let Some(header) = Header::read(input, frame_max)? else {
        return Ok(None);
    };
    let Some((bytes, rest)) = input.split_at_checked(header.frame_len) else {
        return Ok(None);
    };
    *input = rest;
    Ok(Some(Frame { tag: header.tag, bytes }))
}

/// A whole message, in the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type of the message; which one depends on the direction.
    pub tag: u8,
    /// The frame with its header.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// What follows the header.
    #[must_use]
    pub fn body(self) -> &'a [u8] {
        self.bytes.get(HEADER_LEN..).unwrap_or_default()
    }
}

/// Why a stream of frames is broken for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length does not even count itself.
    #[error("message of type {tag:#04x} has a length below 4")]
    LengthTooSmall {
        /// Type byte of the offending message.
        tag: u8,
    },
    /// The message is larger than its receiver allows.
    #[error("message of type {tag:#04x} has {frame_len} bytes, more than is allowed")]
    TooLarge {
        /// Type byte of the offending message.
        tag: u8,
        /// Bytes the sender announced, the header included.
        frame_len: usize,
    },
    /// The body does not have the fields its type demands.
    #[error("message of type {tag:#04x} is malformed")]
    Malformed {
        /// Type byte of the offending message.
        tag: u8,
    },
}

/// Splits a zero-terminated string off the front of `body`, without its zero.
#[must_use]
pub fn take_cstr<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    // Most names are empty.
    let end = if body.first() == Some(&0) { 0 } else { memchr::memchr(0, body)? };
    let (text, rest) = body.split_at_checked(end)?;
    *body = rest.get(1..)?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1 << 20;

    #[test]
    fn a_header_needs_five_bytes() {
        assert_eq!(Header::read(b"Q\0\0\0", MAX), Ok(None));
        assert_eq!(Header::read(b"Q\0\0\0\x04", MAX), Ok(Some(Header { tag: b'Q', frame_len: 5 })));
    }

    #[test]
    fn lengths_that_are_too_small_or_negative_are_refused() {
        assert_eq!(
            Header::read(b"Q\0\0\0\x03", MAX),
            Err(FrameError::LengthTooSmall { tag: b'Q' })
        );
        assert!(matches!(
            Header::read(b"Q\xff\xff\xff\xff", usize::MAX),
            Err(FrameError::TooLarge { tag: b'Q', .. })
        ));
    }

    #[test]
    fn a_frame_of_exactly_the_limit_is_taken() {
        assert!(Header::read(b"Q\0\0\0\x09", 10).is_ok());
        assert!(Header::read(b"Q\0\0\0\x0a", 10).is_err());
    }

    #[test]
    fn an_incomplete_frame_leaves_the_input_alone() {
        let mut input: &[u8] = b"Q\0\0\0\x06a";
        assert_eq!(take(&mut input, MAX), Ok(None));
        assert_eq!(input, b"Q\0\0\0\x06a");
    }

    #[test]
    fn strings_end_at_their_zero() {
        let mut body: &[u8] = b"one\0\0rest";
        assert_eq!(take_cstr(&mut body), Some(&b"one"[..]));
        assert_eq!(take_cstr(&mut body), Some(&b""[..]));
        assert_eq!(take_cstr(&mut body), None);
    }

    proptest! {
        #[test]
        fn no_input_panics(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut rest = input.as_slice();
            while let Ok(Some(frame)) = take(&mut rest, MAX) {
                prop_assert!(frame.bytes.len() >= HEADER_LEN);
            }
        }
    }
}
