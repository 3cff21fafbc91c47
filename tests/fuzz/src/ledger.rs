//! Clients and servers that say anything in any order.

use pgweir::state::prelude;
use pgweir::state::prepared::{OWN_MIN, Prepared, Tail};
use pgweir::state::reply::{self, Outgoing, Passing};
use pgweir::state::session::{
    ClientFault, Extent, Intern, Limits, SequenceCare, ServerSide, Session,
};
use pgweir::state::settings::Settings;
use pgweir::state::statement::{Effects, Options};
use pgweir::wire::{BackendTag, FrontendTag, encode, frame};
use std::sync::Arc;

const LIMITS: Limits = Limits {
    message_max: 1 << 20,
    statements_max: 8,
    server_statements_max: 2,
    hidden_code: false,
    code_in_reads: false,
    opaque_code: false,
    ddl_seen: 0,
    sequences: SequenceCare::Keep,
};

/// A message of a server may be held up to this many bytes.
const HELD_MAX: usize = 16 * 1024;

const NAMES: [&[u8]; 4] = [b"", b"s", b"t", b"pgweir_1"];
const TEXTS: [&str; 6] =
    ["SELECT 1", "SELECT $1", "BEGIN", "DISCARD ALL", "COPY t FROM STDIN", "SET a = 1"];
const BODIES: [&[u8]; 6] =
    [b"", b"I", b"T", b"DISCARD ALL\0", b"SERROR\0C42601\0\0", b"TimeZone\0UTC\0"];
const FRONTEND: &[u8] = b"PBDECHSQFdcfX";
const BACKEND: &[u8] = b"123CDdcEGHINnSstTVZAKRW";

#[derive(Default)]
struct Table(Vec<Arc<Prepared>>);

fn tail_of(bytes: &[u8]) -> Arc<Tail> {
    Arc::new(Tail::new(bytes, &Arc::default()))
}

impl Intern for Table {
    fn apart(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
    ) -> Result<Arc<Prepared>, ClientFault> {
        let id = self.0.len() as u64 + 1;
        // No settings have this fingerprint: nobody finds it.
        let statement = Arc::new(Prepared::new(id, tail_of(tail), u64::MAX, effects, options, 0));
        self.0.push(Arc::clone(&statement));
        Ok(statement)
    }

    fn intern(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
        settings: &Settings,
    ) -> Result<Arc<Prepared>, ClientFault> {
        let known = self.0.iter().find(|known| **known.tail == *tail && known.options == options);
        if let Some(known) = known {
            return Ok(Arc::clone(known));
        }
        let (id, settings) = (self.0.len() as u64 + 1, settings.fingerprint());
        let statement = Arc::new(Prepared::new(id, tail_of(tail), settings, effects, options, 0));
        self.0.push(Arc::clone(&statement));
        Ok(statement)
    }

    fn hold(&mut self, tail: &[u8]) -> Result<Tail, ClientFault> {
        Ok(Tail::uncounted(tail))
    }
}

struct Client {
    session: Session,
    inbound: Vec<u8>,
}

#[derive(Default)]
struct Server {
    side: ServerSide,
    held: Vec<u8>,
    passing: Passing,
}

/// No interleaving of what clients and servers say makes the ledger panic, hold much, or name a
/// statement that nobody prepared.
pub fn ledger(input: &[u8]) {
    let mut world = World::default();
    let mut rest = input;
    while let Some(([what, a, b], behind)) = rest.split_first_chunk() {
        rest = behind;
        match what % 8 {
            0 | 1 => world.client_says(&frontend(*a, *b)),
            2 | 3 => world.server_says(&backend(*a, *b)),
            4 => {
                let (raw, behind) = rest.split_at(usize::from(*a).min(rest.len()));
                rest = behind;
                world.client_says(raw);
            }
            5 => {
                let (raw, behind) = rest.split_at(usize::from(*a).min(rest.len()));
                rest = behind;
                world.server_says(raw);
            }
            6 => world.change(usize::from(*a), usize::from(*b)),
            _ => {
                // Half a message.
                let message = frontend(*a, *b);
                world.client_says(message.get(..message.len() / 2).unwrap_or_default());
            }
        }
    }
}

struct World {
    clients: Vec<Client>,
    servers: Vec<Server>,
    table: Table,
    client: usize,
    server: usize,
    next_client: u64,
}

impl Default for World {
    fn default() -> Self {
        let mut world = Self {
            clients: Vec::new(),
            servers: vec![Server::default(), Server::default()],
            table: Table::default(),
            client: 0,
            server: 0,
            next_client: 0,
        };
        world.clients = vec![world.new_client(), world.new_client()];
        world
    }
}

impl World {
    fn new_client(&mut self) -> Client {
        self.next_client += 1;
        let settings = if self.next_client.is_multiple_of(2) {
            Settings::new([("a", "b")]).expect("valid names")
        } else {
            Settings::default()
        };
        let session = Session::new(self.next_client, Arc::new(settings));
        Client { session, inbound: Vec::new() }
    }

    /// Another client or server, if this server can be given back.
    fn change(&mut self, client: usize, server: usize) {
        let current = self.servers.get_mut(self.server).expect("a server");
        let session = &self.clients.get(self.client).expect("a client").session;
        if !current.side.pipeline.is_settled() || current.passing != Passing::Nothing {
            *current = Server::default();
        } else if session.pin.is_some() || session.is_streaming() {
            return;
        }
        self.client = client % self.clients.len();
        self.server = server % self.servers.len();
        let client = self.clients.get_mut(self.client).expect("a client");
        match client.session.discard_idle(&client.inbound, &LIMITS) {
            Ok(late) => drop(client.inbound.drain(..late)),
            Err(_) => self.lose_client(),
        }
    }

    fn lose_client(&mut self) {
        let client = self.new_client();
        *self.clients.get_mut(self.client).expect("a client") = client;
        *self.servers.get_mut(self.server).expect("a server") = Server::default();
    }

    fn client_says(&mut self, bytes: &[u8]) {
        let client = self.clients.get_mut(self.client).expect("a client");
        let server = self.servers.get_mut(self.server).expect("a server");
        client.inbound.extend_from_slice(bytes);
        match client.session.extent(&client.inbound, 64, &LIMITS) {
            Ok(Extent::Batch(end) | Extent::Piece(end)) => assert!(end <= client.inbound.len()),
            Ok(Extent::Incomplete) => return,
            Ok(Extent::Terminate) | Err(_) => return self.lose_client(),
        }
        let mut out = Vec::new();
        let streamed = client.session.is_streaming();
        if server.side.pipeline.is_settled() && !client.session.is_streaming() {
            prelude::write(&mut server.side, &client.session.settings, &LIMITS, &mut out);
        }
        let done = client.session.translate(
            &mut server.side,
            &mut self.table,
            &LIMITS,
            &client.inbound,
            &mut out,
        );
        let Ok(done) = done else { return self.lose_client() };
        assert!(out.len() <= client.inbound.len() * 64 + 4096, "{} bytes for a server", out.len());
        assert!(client.session.statements.len() <= LIMITS.statements_max + 8);
        client.inbound.drain(..done.consumed);
        if !streamed {
            self.names_are_ours(&out);
        }
    }

    /// No name of ours is sent that is not a number of the table, or one of pgweir's own.
    fn names_are_ours(&self, out: &[u8]) {
        let mut rest = out;
        while let Ok(Some(frame)) = frame::take(&mut rest, 1 << 20) {
            if FrontendTag(frame.tag) != FrontendTag::BIND {
                continue;
            }
            let Some(bind) = pgweir::wire::frontend::Bind::read(frame.body()) else { return };
            let Some(number) = bind.statement.strip_prefix(b"pgweir_") else { continue };
            if number.first() == Some(&b'_') || number.is_empty() {
                continue;
            }
            let number = std::str::from_utf8(number).ok();
            let number = number.and_then(|number| u64::from_str_radix(number, 16).ok());
            let known = |number| number <= self.table.0.len() as u64 || number >= OWN_MIN;
            assert!(number.is_some_and(known));
        }
    }

    fn server_says(&mut self, bytes: &[u8]) {
        let client = self.clients.get_mut(self.client).expect("a client");
        let server = self.servers.get_mut(self.server).expect("a server");
        server.held.extend_from_slice(bytes);
        let mut out = Outgoing::default();
        let sorted = reply::sort(
            &mut client.session,
            &mut server.side,
            &mut server.passing,
            &server.held,
            &mut out,
            |_| (),
        );
        match sorted {
            Ok(used) => {
                assert!(used <= server.held.len());
                server.held.drain(..used);
                assert!(server.held.len() <= HELD_MAX, "{} bytes are held", server.held.len());
            }
            // The server is closed, and the client with it.
            Err(_) => self.lose_client(),
        }
    }
}

fn frontend(tag: u8, content: u8) -> Vec<u8> {
    let pick = |from: usize| usize::from(content) % from;
    let name = NAMES.get(pick(NAMES.len())).copied().unwrap_or_default();
    let text = TEXTS.get(usize::from(content / 4) % TEXTS.len()).copied().unwrap_or_default();
    let tag = FRONTEND.get(usize::from(tag) % FRONTEND.len()).copied().unwrap_or_default();
    let mut out = Vec::new();
    match FrontendTag(tag) {
        FrontendTag::PARSE => {
            let mut tail = text.as_bytes().to_vec();
            tail.extend_from_slice(&[0, 0, 0]);
            encode::parse(&mut out, name, &tail);
        }
        FrontendTag::BIND => encode::bind_text(&mut out, name, &[]),
        FrontendTag::DESCRIBE | FrontendTag::CLOSE => encode::message(&mut out, tag, |out| {
            out.push(if content & 0x80 == 0 { b'S' } else { b'P' });
            encode::cstr(out, name);
        }),
        FrontendTag::EXECUTE => encode::execute(&mut out),
        FrontendTag::QUERY => encode::query(&mut out, text),
        FrontendTag::COPY_DATA => {
            let data = vec![b'd'; usize::from(content)];
            encode::message(&mut out, tag, |out| out.extend_from_slice(&data));
        }
        _ => encode::message(&mut out, tag, |_| ()),
    }
    out
}

fn backend(tag: u8, content: u8) -> Vec<u8> {
    let tag = BACKEND.get(usize::from(tag) % BACKEND.len()).copied().unwrap_or_default();
    let body = BODIES.get(usize::from(content) % BODIES.len()).copied().unwrap_or_default();
    let body: &[u8] = match BackendTag(tag) {
        BackendTag::READY_FOR_QUERY if content % 4 != 3 => b"I",
        BackendTag::PARAMETER_STATUS => b"TimeZone\0UTC\0",
        _ => body,
    };
    let mut out = Vec::new();
    encode::message(&mut out, tag, |out| out.extend_from_slice(body));
    out
}
