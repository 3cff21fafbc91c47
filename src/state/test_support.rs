//! Messages by name for the tests of this layer: written from words, and read back as words.

use super::prepared::{Prepared, Tail};
use super::reply::{self, Event, Outgoing, Passing};
use super::session::{ClientFault, Intern, Limits, SequenceCare, ServerSide, Session, Translated};
use super::settings::Settings;
use super::statement::{Effects, Options};
use crate::wire::frame::{self, Frame, take_cstr};
use crate::wire::{BackendTag, FrontendTag, encode};
use std::sync::Arc;

pub const LIMITS: Limits = Limits {
    message_max: 1 << 30,
    statements_max: 100,
    server_statements_max: 50,
    hidden_code: false,
    code_in_reads: false,
    opaque_code: false,
    ddl_seen: 0,
    sequences: SequenceCare::None,
};

/// Statements by their text, numbered from 1.
#[derive(Default)]
pub struct Table {
    statements: Vec<Arc<Prepared>>,
    /// [`Limits::ddl_seen`] of those to come.
    pub ddl_seen: u64,
    /// There is no room for a statement without a name.
    pub full: bool,
}

impl Table {
    fn add(
        &mut self,
        tail: &[u8],
        settings: u64,
        effects: Effects,
        options: Options,
    ) -> Arc<Prepared> {
        let id = self.statements.len() as u64 + 1;
        let tail = Arc::new(Tail::new(tail, &Arc::default()));
        let statement =
            Arc::new(Prepared::new(id, tail, settings, effects, options, self.ddl_seen));
        self.statements.push(Arc::clone(&statement));
        statement
    }
}

impl Intern for Table {
    fn apart(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
    ) -> Result<Arc<Prepared>, ClientFault> {
        Ok(self.add(tail, Prepared::APART, effects, options))
    }

    fn intern(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
        settings: &Settings,
    ) -> Result<Arc<Prepared>, ClientFault> {
        let known = self.statements.iter().find(|known| {
            **known.tail == *tail
                && known.options == options
                && known.settings == settings.fingerprint()
                && known.ddl_seen == self.ddl_seen
        });
        match known {
            Some(known) => Ok(Arc::clone(known)),
            None => Ok(self.add(tail, settings.fingerprint(), effects, options)),
        }
    }

    fn hold(&mut self, tail: &[u8]) -> Result<Tail, ClientFault> {
        if self.full { Err(ClientFault::StatementsFull) } else { Ok(Tail::uncounted(tail)) }
    }
}

/// The settings with these names and values.
pub fn settings(pairs: &[(&str, &str)]) -> Arc<Settings> {
    Arc::new(Settings::new(pairs.iter().copied()).expect("valid names"))
}

/// A client without settings.
pub fn client(id: u64) -> Session {
    Session::new(id, Arc::default())
}

/// What is behind the name in a `Parse` of `text` without parameter types.
pub fn tail(text: &str) -> Vec<u8> {
    let mut tail = text.as_bytes().to_vec();
    tail.extend_from_slice(&[0, 0, 0]);
    tail
}

/// A client's messages: `Parse s=SELECT 1, Bind s, Describe s, Execute, Close s, Sync`. The unnamed
/// statement has no name, and `Describe portal` is about the unnamed portal.
pub fn frontend(words: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for message in words.split(',').map(str::trim).filter(|message| !message.is_empty()) {
        let (name, argument) = message.split_once(' ').unwrap_or((message, ""));
        one_frontend(&mut out, name, argument.trim());
    }
    out
}

fn one_frontend(out: &mut Vec<u8>, name: &str, argument: &str) {
    let object = |out: &mut Vec<u8>, tag: FrontendTag| {
        encode::message(out, tag.0, |out| {
            out.push(if argument == "portal" { b'P' } else { b'S' });
            encode::cstr(out, if argument == "portal" { b"" } else { argument.as_bytes() });
        });
    };
    match name {
        "Parse" => {
            let (name, text) = argument.split_once('=').expect("a text");
            encode::parse(out, name.as_bytes(), &tail(text));
        }
        "Bind" => encode::bind_text(out, argument.as_bytes(), &[]),
        "Describe" => object(out, FrontendTag::DESCRIBE),
        "Close" => object(out, FrontendTag::CLOSE),
        "Execute" => encode::execute(out),
        "Query" => encode::query(out, argument),
        "CopyData" => encode::message(out, FrontendTag::COPY_DATA.0, |out| {
            out.extend_from_slice(argument.as_bytes());
        }),
        "CopyFail" => {
            encode::message(out, FrontendTag::COPY_FAIL.0, |out| encode::cstr(out, b"no"));
        }
        "CopyDone" => encode::message(out, FrontendTag::COPY_DONE.0, |_| ()),
        "Flush" => encode::message(out, FrontendTag::FLUSH.0, |_| ()),
        "FunctionCall" => {
            encode::message(out, FrontendTag::FUNCTION_CALL.0, |out| {
                out.extend_from_slice(argument.as_bytes());
            });
        }
        "Sync" => out.extend_from_slice(&encode::SYNC),
        "Terminate" => out.extend_from_slice(&encode::TERMINATE),
        other => panic!("no such message: {other}"),
    }
}

/// Every frame of `bytes`, which holds whole ones only.
pub fn frames(mut bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Some(frame) = frame::take(&mut bytes, usize::MAX).expect("frames") {
        frames.push(frame);
    }
    assert!(bytes.is_empty(), "half a frame at the end: {bytes:?}");
    frames
}

/// The words of a client's messages, as [`frontend`] takes them.
pub fn frontend_words(bytes: &[u8]) -> String {
    let words: Vec<String> = frames(bytes).into_iter().map(one_frontend_word).collect();
    words.join(", ")
}

fn one_frontend_word(frame: Frame<'_>) -> String {
    let mut body = frame.body();
    let mut text = || {
        let text = take_cstr(&mut body).expect("a string");
        String::from_utf8_lossy(text).into_owned()
    };
    let words = match FrontendTag(frame.tag) {
        FrontendTag::PARSE => format!("Parse {}={}", text(), text()),
        FrontendTag::BIND => {
            text();
            format!("Bind {}", text())
        }
        FrontendTag::DESCRIBE | FrontendTag::CLOSE => {
            let object = text();
            let what = if frame.tag == b'C' { "Close" } else { "Describe" };
            match object.strip_prefix('S') {
                Some(name) => format!("{what} {name}"),
                None => format!("{what} portal"),
            }
        }
        FrontendTag::EXECUTE => "Execute".into(),
        FrontendTag::QUERY => format!("Query {}", text()),
        FrontendTag::COPY_DATA => format!("CopyData {}", String::from_utf8_lossy(frame.body())),
        FrontendTag::COPY_FAIL => "CopyFail".into(),
        FrontendTag::COPY_DONE => "CopyDone".into(),
        FrontendTag::FLUSH => "Flush".into(),
        FrontendTag::FUNCTION_CALL => "FunctionCall".into(),
        FrontendTag::SYNC => "Sync".into(),
        other => panic!("not expected here: {other:?}"),
    };
    words.trim_end().into()
}

const REPLIES: [(&str, BackendTag, &[u8]); 22] = [
    ("ParseComplete", BackendTag::PARSE_COMPLETE, b""),
    ("BindComplete", BackendTag::BIND_COMPLETE, b""),
    ("CloseComplete", BackendTag::CLOSE_COMPLETE, b""),
    ("NoData", BackendTag::NO_DATA, b""),
    ("ParameterDescription", BackendTag::PARAMETER_DESCRIPTION, b"\0\0"),
    ("RowDescription", BackendTag::ROW_DESCRIPTION, b"\0\0"),
    ("DataRow", BackendTag::DATA_ROW, b"\0\x01\0\0\0\x01x"),
    ("CommandComplete", BackendTag::COMMAND_COMPLETE, b"SELECT 1\0"),
    ("Discarded", BackendTag::COMMAND_COMPLETE, b"DISCARD ALL\0"),
    ("Deallocated", BackendTag::COMMAND_COMPLETE, b"DEALLOCATE ALL\0"),
    ("EmptyQueryResponse", BackendTag::EMPTY_QUERY_RESPONSE, b""),
    ("PortalSuspended", BackendTag::PORTAL_SUSPENDED, b""),
    ("CopyInResponse", BackendTag::COPY_IN_RESPONSE, b"\0\0\0"),
    ("CopyOutResponse", BackendTag::COPY_OUT_RESPONSE, b"\0\0\0"),
    ("CopyDone", BackendTag::COPY_DONE, b""),
    ("ErrorResponse", BackendTag::ERROR_RESPONSE, b"SERROR\0C42601\0\0"),
    ("Fatal", BackendTag::ERROR_RESPONSE, b"SFATAL\0C57P01\0\0"),
    ("NoticeResponse", BackendTag::NOTICE_RESPONSE, b"SNOTICE\0\0"),
    ("ParameterStatus", BackendTag::PARAMETER_STATUS, b"TimeZone\0UTC\0"),
    ("ReadyForQuery", BackendTag::READY_FOR_QUERY, b"I"),
    ("ReadyInBlock", BackendTag::READY_FOR_QUERY, b"T"),
    ("ReadyInFailed", BackendTag::READY_FOR_QUERY, b"E"),
];

/// A server's messages: `ParseComplete BindComplete ReadyForQuery`.
pub fn backend(words: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in words.split_whitespace() {
        let known = REPLIES.iter().find(|(name, ..)| *name == word);
        let (_, tag, body) = known.unwrap_or_else(|| panic!("no such reply: {word}"));
        encode::message(&mut out, tag.0, |out| out.extend_from_slice(body));
    }
    out
}

/// The words of a server's messages, as [`backend`] takes them.
pub fn backend_words(bytes: &[u8]) -> String {
    let word = |frame: Frame<'_>| {
        let same = |(_, tag, body): &&(&str, BackendTag, &[u8])| {
            tag.0 == frame.tag && *body == frame.body()
        };
        let known = REPLIES.iter().find(same).map(|(name, ..)| *name);
        known.unwrap_or_else(|| panic!("no word for {frame:?}"))
    };
    frames(bytes).into_iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Clients and servers that share their statements.
pub struct World {
    pub table: Table,
    pub limits: Limits,
}

impl Default for World {
    fn default() -> Self {
        Self { table: Table::default(), limits: LIMITS }
    }
}

impl World {
    /// What `server` is sent for these bytes of `client`, of which all must be taken.
    pub fn send_bytes(
        &mut self,
        client: &mut Session,
        server: &mut ServerSide,
        input: &[u8],
    ) -> Vec<u8> {
        let (done, out) = self.translate(client, server, input);
        assert_eq!(done.consumed, input.len(), "not all was taken");
        out
    }

    /// What `server` is sent for the front of these bytes.
    pub fn translate(
        &mut self,
        client: &mut Session,
        server: &mut ServerSide,
        input: &[u8],
    ) -> (Translated, Vec<u8>) {
        let mut out = Vec::new();
        let done = client
            .translate(server, &mut self.table, &self.limits, input, &mut out)
            .expect("messages of a client");
        (done, out)
    }

    /// What `server` is sent for these messages, in words.
    pub fn send(&mut self, client: &mut Session, server: &mut ServerSide, words: &str) -> String {
        frontend_words(&self.send_bytes(client, server, &frontend(words)))
    }

    /// Sends a batch and lets the server answer it; what the client sees of that, in words.
    pub fn batch(
        &mut self,
        client: &mut Session,
        server: &mut ServerSide,
        words: &str,
        replies: &str,
    ) -> String {
        self.send(client, server, words);
        answer(client, server, replies)
    }
}

/// What `client` sees of these replies, in words.
pub fn answer(client: &mut Session, server: &mut ServerSide, words: &str) -> String {
    backend_words(&sort(client, server, &backend(words), |_| ()))
}

/// What `client` sees of these bytes, of which all must be taken.
pub fn sort(
    client: &mut Session,
    server: &mut ServerSide,
    input: &[u8],
    seen: impl FnMut(Event<'_>),
) -> Vec<u8> {
    let mut out = Outgoing::default();
    let mut passing = Passing::Nothing;
    let used = reply::sort(client, server, &mut passing, input, &mut out, seen);
    assert_eq!(used, Ok(input.len()), "not all was taken");
    assert_eq!(passing, Passing::Nothing);
    out.bytes(input).to_vec()
}

/// A frame of `tag` of which only the first bytes of the body are there.
pub fn begun(tag: FrontendTag, body_len: usize, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![tag.0];
    let length = u32::try_from(4 + body_len).expect("a length");
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(body);
    frame
}
