//! The messages of a client whose fields pgweir looks at.
//!
//! Only the front of a message is needed (the names), so a message of any size can be streamed.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>

use super::frame::take_cstr;

/// `Parse`.
#[derive(Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Name of the statement; empty for the unnamed one.
    pub name: &'a [u8],
    /// Text of the statement, without its zero.
    pub query: &'a [u8],
    /// Everything behind the name: the text, its zero, and the parameters' types.
    pub tail: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads a whole body.
    #[must_use]
    pub fn read(mut body: &'a [u8]) -> Option<Self> {
        let name = take_cstr(&mut body)?;
        let tail = body;
        let query = take_cstr(&mut body)?;
        let (count, types) = body.split_first_chunk::<2>()?;
        let whole = usize::from(u16::from_be_bytes(*count)) * 4 == types.len();
        whole.then_some(Self { name, query, tail })
    }
}

/// `Bind`, as far as its names.
#[derive(Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Name of the portal, as sent.
    pub portal: &'a [u8],
    /// Name of the statement; empty for the unnamed one.
    pub statement: &'a [u8],
    /// What follows the names, as far as it is at hand.
    pub rest: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Reads the names off the front of a body.
    #[must_use]
    pub fn read(mut body: &'a [u8]) -> Option<Self> {
        let portal = take_cstr(&mut body)?;
        let statement = take_cstr(&mut body)?;
        Some(Self { portal, statement, rest: body })
    }
}

/// What `Describe` and `Close` are about.
#[derive(Debug, PartialEq, Eq)]
pub enum Object<'a> {
    /// A prepared statement, by name.
    Statement(&'a [u8]),
    /// A portal, by name.
    Portal(&'a [u8]),
}

impl<'a> Object<'a> {
    /// Reads a whole body of `Describe` or `Close`.
    #[must_use]
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let (&kind, mut rest) = body.split_first()?;
        let name = take_cstr(&mut rest)?;
        match (kind, rest.is_empty()) {
            (b'S', true) => Some(Self::Statement(name)),
            (b'P', true) => Some(Self::Portal(name)),
            _ => None,
        }
    }
}

/// The text of a `Query`, without its zero.
#[must_use]
pub fn query_text(mut body: &[u8]) -> Option<&[u8]> {
    let text = take_cstr(&mut body)?;
    body.is_empty().then_some(text)
}

/// `SASLInitialResponse`: the mechanism and the first message.
#[must_use]
pub fn sasl_initial_response(mut body: &[u8]) -> Option<(&str, &[u8])> {
    let mechanism = std::str::from_utf8(take_cstr(&mut body)?).ok()?;
    let (length, data) = body.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == data.len()).then_some((mechanism, data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parse_keeps_the_tail_as_it_came() {
        let body = b"s1\0select $1\0\0\x01\0\0\0\x17";
        assert_eq!(
            Parse::read(body),
            Some(Parse { name: b"s1", query: b"select $1", tail: &body[3..] })
        );
        assert_eq!(Parse::read(b"s1\0select\0\0\x01"), None);
        assert_eq!(Parse::read(b"s1\0select"), None);
    }

    #[test]
    fn bind_needs_only_its_names() {
        assert_eq!(
            Bind::read(b"p\0s\0more"),
            Some(Bind { portal: b"p", statement: b"s", rest: b"more" })
        );
        assert_eq!(Bind::read(b"p\0s"), None);
    }

    #[test]
    fn objects_are_statements_or_portals() {
        assert_eq!(Object::read(b"Sx\0"), Some(Object::Statement(b"x")));
        assert_eq!(Object::read(b"P\0"), Some(Object::Portal(b"")));
        assert_eq!(Object::read(b"Qx\0"), None);
        assert_eq!(Object::read(b"Sx\0y"), None);
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Parse::read(&body);
            let _ = Bind::read(&body);
            let _ = Object::read(&body);
            let _ = query_text(&body);
            let _ = sasl_initial_response(&body);
        }
    }
}
