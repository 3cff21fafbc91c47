//! Statements of pgweir's own in the middle of a client's batch.

use super::pipeline::{Expected, Fate, Undo};
use super::prepared::{Own, ServerName};
use super::server_side::ServerSide;
use crate::wire::{FrontendTag, encode};

/// Runs `text` with these values as part of the client's batch. The unnamed statement and portal are the client's.
///
/// `undo` is for the execution, `others` for what it takes beside that.
pub(super) fn run(
    server: &mut ServerSide,
    text: &[u8],
    values: &[&str],
    undo: Undo,
    others: impl Fn() -> Undo,
    out: &mut Vec<u8>,
) {
    let name = ServerName::new(Own::Aside.id());
    let name = name.as_bytes();
    let close = |out: &mut Vec<u8>, kind: u8| {
        encode::message(out, FrontendTag::CLOSE.0, |out| {
            out.push(kind);
            encode::cstr(out, name);
        });
    };
    // One that failed may have left it.
    close(out, b'S');
    encode::message(out, FrontendTag::PARSE.0, |out| {
        encode::cstr(out, name);
        encode::cstr(out, text);
        out.extend_from_slice(&[0; 2]);
    });
    encode::message(out, FrontendTag::BIND.0, |out| {
        encode::cstr(out, name);
        encode::cstr(out, name);
        encode::text_values(out, values);
    });
    encode::message(out, FrontendTag::EXECUTE.0, |out| {
        encode::cstr(out, name);
        out.extend_from_slice(&[0; 4]);
    });
    close(out, b'P');
    close(out, b'S');
    for expected in [Expected::CloseComplete, Expected::ParseComplete, Expected::BindComplete] {
        server.pipeline.push(expected, Fate::Swallow, others());
    }
    server.pipeline.push(Expected::Execution, Fate::Swallow, undo);
    for expected in [Expected::CloseComplete, Expected::CloseComplete] {
        server.pipeline.push(expected, Fate::Swallow, others());
    }
}
