//! Several clients share a few servers, and none of them can tell: whatever they say, and however it is
//! interleaved and cut, each sees byte for byte what it would have seen on a connection of its own.
//!
//! The server is a model of PostgreSQL's message loop, small enough to be believed. In a failed block it
//! refuses to describe what returns no rows, too.

use super::pipeline::Surprise;
use super::prelude;
use super::reply::{self, Event, Outgoing, Passing};
use super::session::{Extent, Limits, ServerSide, Session};
use super::test_support::{LIMITS, Table, frontend, settings};
use crate::wire::frame::{self, Frame};
use crate::wire::frontend::{Bind, Object, Parse, query_text};
use crate::wire::{BackendTag, FrontendTag, encode};
use proptest::prelude::*;
use scripts::some_script;
use std::collections::BTreeMap;

#[path = "model_scripts.rs"]
mod scripts;

/// What PostgreSQL does with messages, as far as it shows.
struct Model {
    named: BTreeMap<Vec<u8>, String>,
    unnamed: Option<String>,
    portal: Option<String>,
    skipping: bool,
    /// The status byte of `ReadyForQuery`.
    status: u8,
    /// Reading copy data; true if for an `Execute`.
    copy_in: Option<bool>,
    out: Vec<u8>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            named: BTreeMap::new(),
            unnamed: None,
            portal: None,
            skipping: false,
            status: b'I',
            copy_in: None,
            out: Vec::new(),
        }
    }
}

impl Model {
    fn say(&mut self, tag: BackendTag, body: &[u8]) {
        encode::message(&mut self.out, tag.0, |out| out.extend_from_slice(body));
    }

    fn ready(&mut self) {
        if self.status == b'I' {
            self.portal = None;
        }
        let status = self.status;
        encode::ready_for_query(&mut self.out, status);
    }

    fn error(&mut self, code: &str, extended: bool) {
        let fields = format!("SERROR\0C{code}\0\0");
        self.say(BackendTag::ERROR_RESPONSE, fields.as_bytes());
        self.portal = None;
        if self.status == b'T' {
            self.status = b'E';
        }
        if extended {
            self.skipping = true;
        } else {
            self.ready();
        }
    }

    fn statement(&self, name: &[u8]) -> Option<&String> {
        if name.is_empty() { self.unnamed.as_ref() } else { self.named.get(name) }
    }

    fn message(&mut self, frame: Frame<'_>) {
        let tag = FrontendTag(frame.tag);
        if let Some(extended) = self.copy_in {
            return self.copy_message(tag, frame.body(), extended);
        }
        if self.skipping && tag != FrontendTag::SYNC {
            return;
        }
        match tag {
            FrontendTag::PARSE => self.parse(&Parse::read(frame.body()).expect("a Parse")),
            FrontendTag::BIND => {
                let bind = Bind::read(frame.body()).expect("a Bind");
                match self.statement(bind.statement).cloned() {
                    None => self.error("26000", true),
                    Some(text) if self.is_refused(&text) => self.error("25P02", true),
                    Some(text) => {
                        self.portal = Some(text);
                        self.say(BackendTag::BIND_COMPLETE, b"");
                    }
                }
            }
            FrontendTag::DESCRIBE => self.describe(&Object::read(frame.body()).expect("an object")),
            FrontendTag::CLOSE => {
                match Object::read(frame.body()).expect("an object") {
                    Object::Statement(b"") => self.unnamed = None,
                    Object::Statement(name) => drop(self.named.remove(name)),
                    Object::Portal(_) => self.portal = None,
                }
                self.say(BackendTag::CLOSE_COMPLETE, b"");
            }
            FrontendTag::EXECUTE => match self.portal.clone() {
                None => self.error("34000", true),
                Some(text) => {
                    if !text.starts_with("SELECT") {
                        // It cannot be run again.
                        self.portal = None;
                    }
                    self.run(&text, true);
                }
            },
            FrontendTag::QUERY => {
                let text = query_text(frame.body()).expect("a text");
                let text = String::from_utf8_lossy(text).into_owned();
                self.unnamed = None;
                if text.contains("syntax") {
                    self.error("42601", false);
                } else {
                    self.run(&text, false);
                }
            }
            FrontendTag::SYNC => {
                self.skipping = false;
                self.ready();
            }
            _ => {}
        }
    }

    fn parse(&mut self, parse: &Parse<'_>) {
        if parse.name.is_empty() {
            self.unnamed = None;
        }
        let text = String::from_utf8_lossy(parse.query).into_owned();
        if text.contains("syntax") {
            return self.error("42601", true);
        }
        if self.is_refused(&text) && !text.is_empty() {
            return self.error("25P02", true);
        }
        if parse.name.is_empty() {
            self.unnamed = Some(text);
        } else if self.named.contains_key(parse.name) {
            return self.error("42P05", true);
        } else {
            self.named.insert(parse.name.to_vec(), text);
        }
        self.say(BackendTag::PARSE_COMPLETE, b"");
    }

    fn describe(&mut self, object: &Object<'_>) {
        let text = match object {
            Object::Statement(name) => match self.statement(name).cloned() {
                Some(text) if self.is_refused(&text) => return self.error("25P02", true),
                Some(text) => {
                    self.say(BackendTag::PARAMETER_DESCRIPTION, b"\0\0");
                    text
                }
                None => return self.error("26000", true),
            },
            Object::Portal(_) => {
                let Some(text) = self.portal.clone() else { return self.error("34000", true) };
                text
            }
        };
        let rows = text.starts_with("SELECT").then_some(BackendTag::ROW_DESCRIPTION);
        self.say(rows.unwrap_or(BackendTag::NO_DATA), text.as_bytes());
    }

    fn is_refused(&self, text: &str) -> bool {
        self.status == b'E' && text != "COMMIT"
    }

    fn run(&mut self, text: &str, extended: bool) {
        if self.is_refused(text) {
            return self.error("25P02", extended);
        }
        if text.contains("fails") || (text == "DISCARD ALL" && self.status != b'I') {
            return self.error("22012", extended);
        }
        if text.starts_with("COPY") {
            self.copy_in = Some(extended);
            return self.say(BackendTag::COPY_IN_RESPONSE, b"\0\0\0");
        }
        match text {
            "BEGIN" => self.status = b'T',
            "COMMIT" => self.status = b'I',
            "DEALLOCATE ALL" | "DISCARD ALL" => self.named.clear(),
            _ => self.say(BackendTag::DATA_ROW, text.as_bytes()),
        }
        self.finish(text, extended);
    }

    fn finish(&mut self, text: &str, extended: bool) {
        self.say(BackendTag::COMMAND_COMPLETE, &[text.as_bytes(), b"\0"].concat());
        if !extended {
            self.ready();
        }
    }

    fn copy_message(&mut self, tag: FrontendTag, body: &[u8], extended: bool) {
        match tag {
            FrontendTag::COPY_DATA if body != b"wrong" => {}
            FrontendTag::COPY_DONE => {
                self.copy_in = None;
                self.finish("COPY 1", extended);
            }
            FrontendTag::COPY_DATA | FrontendTag::COPY_FAIL => {
                self.copy_in = None;
                self.error("22P04", extended);
            }
            FrontendTag::SYNC | FrontendTag::FLUSH => {}
            other => panic!("{other:?} in a copy: the connection would be lost"),
        }
    }

    /// Reads the whole messages of `input` and says what of it is used.
    fn read(&mut self, input: &[u8], messages_max: usize) -> usize {
        let mut rest = input;
        for _ in 0..messages_max {
            let Some(frame) = frame::take(&mut rest, usize::MAX).expect("frames") else { break };
            self.message(frame);
        }
        input.len() - rest.len()
    }
}

struct Client {
    session: Session,
    /// Writes still to come, the last one first.
    writes: Vec<Vec<u8>>,
    inbound: Vec<u8>,
    received: Vec<u8>,
    server: Option<usize>,
}

#[derive(Default)]
struct Server {
    side: ServerSide,
    model: Model,
    input: Vec<u8>,
    held: Vec<u8>,
    passing: Passing,
    client: Option<usize>,
}

struct Proxy {
    clients: Vec<Client>,
    servers: Vec<Server>,
    table: Table,
}

impl Proxy {
    fn new(scripts: &[Vec<String>], servers: usize) -> Self {
        let clients = scripts
            .iter()
            .enumerate()
            .map(|(at, script)| Client {
                session: Session::new(at as u64, settings(&[("role_of", &(at / 2).to_string())])),
                writes: script.iter().rev().map(|words| frontend(words)).collect(),
                inbound: Vec::new(),
                received: Vec::new(),
                server: None,
            })
            .collect();
        let servers = (0..servers).map(|_| Server::default()).collect();
        Self { clients, servers, table: Table::default() }
    }

    /// Lets a client write, as far as `count` bytes of its next write.
    fn write(&mut self, at: usize, count: usize) -> bool {
        let client = &mut self.clients[at];
        let Some(mut next) = client.writes.pop() else { return false };
        let later = next.split_off(count.min(next.len()));
        client.inbound.extend(next);
        if !later.is_empty() {
            client.writes.push(later);
        }
        true
    }

    /// What a client's task does with what came, as in `client::serve` and `client::relay`.
    fn take_in(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        let before = client.inbound.len();
        if client.server.is_none() {
            let late = client.session.discard_idle(&client.inbound, &LIMITS);
            client.inbound.drain(..late.expect("messages"));
        }
        let extent = client.session.extent(&client.inbound, 256, &LIMITS).expect("messages");
        if matches!(extent, Extent::Incomplete) {
            return client.inbound.len() < before;
        }
        if client.server.is_none() {
            let Some(free) = self.servers.iter().position(|server| server.client.is_none()) else {
                return client.inbound.len() < before;
            };
            self.servers[free].client = Some(at);
            client.server = Some(free);
            // So that the next one gets another server.
            self.servers.rotate_left(1);
            let count = self.servers.len();
            for client in &mut self.clients {
                client.server = client.server.map(|server| (server + count - 1) % count);
            }
        }
        self.translate(at);
        self.clients[at].inbound.len() < before
    }

    fn translate(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let server = &mut self.servers[client.server.expect("a server")];
        let mut out = Vec::new();
        if server.side.pipeline.is_settled() {
            let limits = Limits { server_statements_max: 3, ..LIMITS };
            prelude::write(&mut server.side, &client.session.settings, &limits, &mut out);
        }
        let done = client
            .session
            .translate(&mut server.side, &mut self.table, &LIMITS, &client.inbound, &mut out)
            .expect("messages");
        client.inbound.drain(..done.consumed);
        server.input.extend(out);
    }

    fn serve(&mut self, at: usize, messages: usize) -> bool {
        let server = &mut self.servers[at];
        let used = server.model.read(&server.input, messages);
        server.input.drain(..used);
        used > 0
    }

    /// Brings `count` bytes from a server to its client.
    fn deliver(&mut self, at: usize, count: usize) -> Result<bool, Surprise> {
        let server = &mut self.servers[at];
        let Some(holder) = server.client else { return Ok(false) };
        let client = &mut self.clients[holder];
        let count = count.min(server.model.out.len());
        server.held.extend(server.model.out.drain(..count));
        let (mut out, mut ready) = (Outgoing::default(), false);
        let used = reply::sort(
            &mut client.session,
            &mut server.side,
            &mut server.passing,
            &server.held,
            &mut out,
            |event| ready |= event == Event::Ready,
        )?;
        client.received.extend_from_slice(out.bytes(&server.held));
        server.held.drain(..used);
        let tainted = server.side.pipeline.is_tainted();
        if ready && (tainted || server.side.pipeline.is_settled() && !client.session.keeps_server())
        {
            let clean = server.passing == Passing::Nothing && !client.session.is_streaming();
            client.server = None;
            server.client = None;
            if tainted || !clean {
                *server = Server::default();
            } else {
                assert!(server.model.out.is_empty() && server.held.is_empty(), "it still speaks");
            }
        }
        Ok(count > 0)
    }

    fn step(&mut self, (what, which, count): (u8, usize, usize)) -> Result<bool, Surprise> {
        let (client, server) = (which % self.clients.len(), which % self.servers.len());
        Ok(match what {
            0 => self.write(client, count * 8),
            1 => self.take_in(client),
            2 => self.serve(server, count),
            _ => return self.deliver(server, count),
        })
    }

    /// Goes on until nothing moves.
    fn finish(&mut self) -> Result<(), Surprise> {
        let mut moved = true;
        while moved {
            moved = false;
            for at in 0..self.clients.len() {
                moved |= self.write(at, usize::MAX);
                moved |= self.take_in(at);
            }
            for at in 0..self.servers.len() {
                moved |= self.serve(at, usize::MAX);
                moved |= self.deliver(at, usize::MAX)?;
            }
        }
        Ok(())
    }
}

/// What a client sees on a connection of its own.
fn alone(script: &[String]) -> Vec<u8> {
    let mut model = Model::default();
    let input: Vec<u8> = script.iter().flat_map(|words| frontend(words)).collect();
    assert_eq!(model.read(&input, usize::MAX), input.len());
    model.out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_client_sees_what_it_would_see_alone(
        scripts in proptest::collection::vec(some_script(), 2..4),
        servers in 1..3_usize,
        steps in proptest::collection::vec((0..4_u8, 0..6_usize, 1..30_usize), 0..200),
    ) {
        let mut proxy = Proxy::new(&scripts, servers);
        for step in steps {
            let outcome = proxy.step(step);
            prop_assert!(outcome.is_ok(), "{:?}", outcome);
        }
        let outcome = proxy.finish();
        prop_assert!(outcome.is_ok(), "{:?}", outcome);
        for (client, script) in proxy.clients.iter().zip(&scripts) {
            prop_assert!(client.inbound.is_empty() && client.writes.is_empty(), "client {} waits", client.session.id);
            let (seen, expected) = (printable(&client.received), printable(&alone(script)));
            prop_assert_eq!(seen, expected, "client {}", client.session.id);
        }
    }
}

fn printable(bytes: &[u8]) -> String {
    let word = |frame: Frame<'_>| {
        let body = String::from_utf8_lossy(frame.body()).replace('\0', ".");
        format!("{}({body})", char::from(frame.tag))
    };
    super::test_support::frames(bytes).into_iter().map(word).collect::<Vec<_>>().join(" ")
}

/// What is sent at once behind a failed batch is not sent as if it could be made again there.
#[test]
fn a_statement_that_cannot_be_made_again_is_not_missing() {
    let batch = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let failed = "Parse =SELECT 1, Bind s, Query SELECT 1, Sync";
    let scripts = [
        batch(&["Query BEGIN", failed, "Bind , Sync", "Bind , Sync", "Sync, Query COMMIT"]),
        batch(&["Sync, Query COMMIT"]),
    ];
    let mut proxy = Proxy::new(&scripts, 1);
    proxy.write(0, usize::MAX);
    proxy.finish().unwrap();
    assert_eq!(printable(&proxy.clients[0].received), printable(&alone(&scripts[0])));
}
