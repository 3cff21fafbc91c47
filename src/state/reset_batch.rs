//! A statement of the extended protocol as drivers send one without parameters: all messages up to the `Sync`, on the
//! unnamed statement and the unnamed portal.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>

use crate::wire::frame::{self, Frame};
use crate::wire::frontend::Parse;
use crate::wire::{BackendTag, FrontendTag, encode};

/// Longest message of one that is looked at.
const MESSAGE_MAX: usize = 256;

/// `BindComplete`.
const BIND_COMPLETE: [u8; 5] = *b"2\0\0\0\x04";

/// `NoData`.
const NO_DATA: [u8; 5] = *b"n\0\0\0\x04";

/// The messages, as far as they differ from driver to driver.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch<'a> {
    pub(super) parse: Parse<'a>,
    describes_statement: bool,
    describes_portal: bool,
    /// The columns are wanted in binary.
    binary: bool,
    /// Most rows that are wanted; 0 for all.
    rows_max: u32,
    /// Bytes of all messages.
    pub(super) len: usize,
}

impl<'a> Batch<'a> {
    /// Reads one off the front of `input`. `None` if it is anything else, or not all there.
    pub(super) fn read(input: &'a [u8]) -> Option<Self> {
        let mut rest = input;
        let parse = Parse::read(body_of(FrontendTag::PARSE, next(&mut rest)?)?)?;
        // Behind the text stand its zero and the number of the parameters' types.
        let has_types = parse.tail.len() > parse.query.len() + 3;
        if has_types || !parse.name.is_empty() {
            return None;
        }
        let mut frame = next(&mut rest)?;
        let describes_statement = body_of(FrontendTag::DESCRIBE, frame) == Some(b"S\0");
        if describes_statement {
            frame = next(&mut rest)?;
        }
        let binary = match body_of(FrontendTag::BIND, frame)? {
            b"\0\0\0\0\0\0\0\0" | b"\0\0\0\0\0\0\0\x01\0\0" => false,
            b"\0\0\0\0\0\0\0\x01\0\x01" => true,
            _ => return None,
        };
        frame = next(&mut rest)?;
        let describes_portal = body_of(FrontendTag::DESCRIBE, frame) == Some(b"P\0");
        if describes_portal {
            frame = next(&mut rest)?;
        }
        let [0, rows @ ..] = body_of(FrontendTag::EXECUTE, frame)? else { return None };
        let rows_max = u32::from_be_bytes(rows.try_into().ok()?);
        let sync = body_of(FrontendTag::SYNC, next(&mut rest)?)?;
        let len = input.len() - rest.len();
        sync.is_empty().then_some(Self {
            parse,
            describes_statement,
            describes_portal,
            binary,
            rows_max,
            len,
        })
    }

    /// True if the one row of a statement ends it: a portal that has got as many rows as it was to does not know that
    /// there are no more.
    pub(super) fn ends_after_a_row(&self) -> bool {
        self.rows_max != 1
    }

    /// Answers what stands before the `Execute`. `columns` describes the rows, in text format, if there are any.
    pub(super) fn answer(&self, columns: Option<&[u8]>, out: &mut Vec<u8>) {
        out.extend_from_slice(&encode::PARSE_COMPLETE);
        if self.describes_statement {
            encode::message(out, BackendTag::PARAMETER_DESCRIPTION.0, |out| out.extend([0, 0]));
            out.extend_from_slice(columns.unwrap_or(&NO_DATA));
        }
        out.extend_from_slice(&BIND_COMPLETE);
        if self.describes_portal {
            out.extend_from_slice(columns.unwrap_or(&NO_DATA));
            // The format of its one column stands at the end.
            if let (true, Some(_), Some(format)) = (self.binary, columns, out.last_mut()) {
                *format = 1;
            }
        }
    }
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<Frame<'a>> {
    frame::take(rest, MESSAGE_MAX).ok().flatten()
}

fn body_of(tag: FrontendTag, frame: Frame<'_>) -> Option<&[u8]> {
    (frame.tag == tag.0).then(|| frame.body())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a `Bind` without parameters, wanting these formats.
    fn bind(formats: &[u8]) -> Vec<u8> {
        let count = u8::try_from(formats.len()).expect("few");
        let codes = formats.iter().flat_map(|format| [0, *format]);
        [0, 0, 0, 0, 0, 0, 0, count].into_iter().chain(codes).collect()
    }

    fn batch(messages: &[(FrontendTag, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (tag, body) in messages {
            encode::message(&mut out, tag.0, |out| out.extend_from_slice(body));
        }
        out
    }

    const PARSE: (FrontendTag, &[u8]) = (FrontendTag::PARSE, b"\0RESET ALL\0\0\0");
    const EXECUTE: (FrontendTag, &[u8]) = (FrontendTag::EXECUTE, b"\0\0\0\0\0");
    const SYNC: (FrontendTag, &[u8]) = (FrontendTag::SYNC, b"");

    #[test]
    fn what_drivers_send_is_read_to_its_sync() {
        let (statement, portal) =
            ((FrontendTag::DESCRIBE, b"S\0"), (FrontendTag::DESCRIBE, b"P\0"));
        for formats in [&[][..], &[0], &[1]] {
            let bind = bind(formats);
            let bind = (FrontendTag::BIND, &bind[..]);
            for (messages, describes) in [
                (vec![PARSE, bind, EXECUTE, SYNC], (false, false)),
                (vec![PARSE, bind, (portal.0, &portal.1[..]), EXECUTE, SYNC], (false, true)),
                (vec![PARSE, (statement.0, &statement.1[..]), bind, EXECUTE, SYNC], (true, false)),
            ] {
                let whole = batch(&messages);
                let more = [&whole[..], b"Q\0\0\0\x04"].concat();
                let read = Batch::read(&more).expect("all is there");
                assert_eq!(read.len, whole.len());
                assert_eq!(read.parse.query, b"RESET ALL");
                assert_eq!((read.describes_statement, read.describes_portal), describes);
                assert_eq!(read.binary, formats == [1]);
                for end in 0..whole.len() {
                    assert_eq!(Batch::read(&whole[..end]), None);
                }
            }
        }
    }

    #[test]
    fn anything_else_is_none() {
        let bind_of = |formats| bind(formats);
        let (plain, two, odd) = (bind_of(&[]), bind_of(&[0, 0]), bind_of(&[2]));
        let bind = (FrontendTag::BIND, &plain[..]);
        let others: [&[(FrontendTag, &[u8])]; 12] = [
            &[(FrontendTag::PARSE, b"s\0RESET ALL\0\0\0"), bind, EXECUTE, SYNC],
            &[(FrontendTag::PARSE, b"\0RESET ALL\0\0\x01\0\0\0\x17"), bind, EXECUTE, SYNC],
            &[(FrontendTag::PARSE, b"\0RESET ALL\0\0"), bind, EXECUTE, SYNC],
            &[PARSE, (FrontendTag::BIND, &two), EXECUTE, SYNC],
            &[PARSE, (FrontendTag::BIND, &odd), EXECUTE, SYNC],
            &[PARSE, (FrontendTag::BIND, b"p\0\0\0\0\0\0\0\0"), EXECUTE, SYNC],
            &[PARSE, bind, (FrontendTag::EXECUTE, b"p\0\0\0\0\0"), SYNC],
            &[PARSE, bind, (FrontendTag::EXECUTE, b"\0\0\0\0"), SYNC],
            &[PARSE, bind, EXECUTE, EXECUTE, SYNC],
            &[PARSE, bind, EXECUTE, (FrontendTag::FLUSH, b"")],
            &[PARSE, bind, SYNC],
            &[PARSE, bind, EXECUTE, (FrontendTag::SYNC, b"\0")],
        ];
        for messages in others {
            assert_eq!(Batch::read(&batch(messages)), None, "{messages:?}");
        }
    }
}
