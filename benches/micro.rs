//! What a transaction costs here, without system calls: `cargo bench --bench micro`.
//!
//! The scan of frames, a client's message through translation and ledger and its reply back, and the
//! rules of the pool. Nothing in it should allocate for each message but the output itself.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use pgweir::pool::core::{Core, Idle, Limits as PoolLimits};
use pgweir::state::TransactionStatus;
use pgweir::state::pipeline::{Expected, Fate, Pipeline, Undo};
use pgweir::state::prepared::{Prepared, Tail};
use pgweir::state::reply::{self, Outgoing, Passing};
use pgweir::state::session::{ClientFault, Intern, Limits, SequenceCare, ServerSide, Session};
use pgweir::state::settings::Settings;
use pgweir::state::statement::{Effects, Options};
use pgweir::wire::{BackendTag, Header, encode, frame};
use std::sync::Arc;
use std::time::Instant;

fn main() {
    divan::main();
}

const SELECT: &str = "SELECT id, name, email FROM users WHERE id = $1 AND org = $2";

const LIMITS: Limits = Limits {
    message_max: 1 << 30,
    statements_max: 1000,
    server_statements_max: 500,
    hidden_code: false,
    code_in_reads: false,
    opaque_code: false,
    ddl_seen: 0,
    sequences: SequenceCare::None,
};

/// A result of `rows` rows of 60 bytes.
fn result(rows: usize) -> Vec<u8> {
    let mut out = Vec::new();
    encode::message(&mut out, BackendTag::BIND_COMPLETE.0, |_| ());
    for _ in 0..rows {
        encode::message(&mut out, BackendTag::DATA_ROW.0, |out| out.extend_from_slice(&[7; 60]));
    }
    encode::command_complete(&mut out, "SELECT 1");
    encode::ready_for_query(&mut out, b'I');
    out
}

#[divan::bench(args = [1, 100, 1000])]
fn scan_of_rows(bencher: Bencher<'_, '_>, rows: usize) {
    let input = result(rows);
    bencher.counter(BytesCount::new(input.len())).bench_local(|| {
        let (mut rest, mut frames) = (black_box(input.as_slice()), 0);
        while let Ok(Some(frame)) = frame::take(&mut rest, 1 << 20) {
            frames += usize::from(frame.tag);
        }
        frames
    });
}

#[divan::bench]
fn one_header() -> Option<Header> {
    Header::read(black_box(b"D\0\0\0\x40"), 1 << 20).ok().flatten()
}

#[divan::bench]
fn ledger_of_an_extended_batch(bencher: Bencher<'_, '_>) {
    let mut pipeline = Pipeline::default();
    bencher.bench_local(|| {
        for expected in [Expected::BindComplete, Expected::Execution, Expected::ReadyForQuery] {
            pipeline.push(black_box(expected), Fate::Forward, Undo::Nothing);
        }
        for tag in [BackendTag::BIND_COMPLETE, BackendTag::DATA_ROW, BackendTag::COMMAND_COMPLETE] {
            let _ = black_box(pipeline.on_reply(tag));
        }
        pipeline.on_ready(TransactionStatus::Idle).is_ok()
    });
}

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
        Ok(Arc::new(Prepared::new(u64::MAX, tail_of(tail), u64::MAX, effects, options, 0)))
    }

    fn intern(
        &mut self,
        tail: &[u8],
        effects: Effects,
        options: Options,
        settings: &Settings,
    ) -> Result<Arc<Prepared>, ClientFault> {
        if let Some(known) =
            self.0.iter().find(|known| **known.tail == *tail && known.options == options)
        {
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

/// A client and its server, on which a statement is prepared.
struct Pair {
    client: Session,
    server: ServerSide,
    table: Table,
    out: Vec<u8>,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            client: Session::new(1, Arc::default()),
            server: ServerSide::default(),
            table: Table::default(),
            out: Vec::with_capacity(4096),
        };
        let mut tail = SELECT.as_bytes().to_vec();
        tail.extend_from_slice(&[0, 0, 0]);
        let mut input = Vec::new();
        encode::parse(&mut input, b"s", &tail);
        input.extend_from_slice(&encode::SYNC);
        let mut replies = encode::PARSE_COMPLETE.to_vec();
        replies.extend_from_slice(&encode::READY_IDLE);
        pair.transaction(&input, &replies);
        pair
    }

    fn transaction(&mut self, input: &[u8], replies: &[u8]) -> usize {
        self.out.clear();
        let done =
            self.client.translate(&mut self.server, &mut self.table, &LIMITS, input, &mut self.out);
        let mut out = Outgoing::default();
        let sorted = reply::sort(
            &mut self.client,
            &mut self.server,
            &mut Passing::Nothing,
            replies,
            &mut out,
            |event| {
                black_box(event);
            },
        );
        assert!(done.is_ok() && sorted.is_ok() && self.server.pipeline.is_settled());
        out.bytes(replies).len()
    }
}

#[divan::bench(args = [1, 100])]
fn prepared_transaction(bencher: Bencher<'_, '_>, rows: usize) {
    let mut pair = Pair::new();
    let mut input = Vec::new();
    encode::bind_text(&mut input, b"s", &["1000042", "7"]);
    encode::execute(&mut input);
    input.extend_from_slice(&encode::SYNC);
    let replies = result(rows);
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench_local(|| pair.transaction(black_box(&input), black_box(&replies)));
}

#[divan::bench]
fn simple_transaction(bencher: Bencher<'_, '_>) {
    let mut pair = Pair::new();
    let mut input = Vec::new();
    encode::query(&mut input, SELECT);
    let mut replies = Vec::new();
    encode::message(&mut replies, BackendTag::ROW_DESCRIPTION.0, |out| out.extend([0; 60]));
    encode::message(&mut replies, BackendTag::DATA_ROW.0, |out| out.extend([7; 60]));
    encode::command_complete(&mut replies, "SELECT 1");
    encode::ready_for_query(&mut replies, b'I');
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench_local(|| pair.transaction(black_box(&input), black_box(&replies)));
}

/// Batches sent without waiting: what is looked for on the ledger must not grow with its length.
#[divan::bench(args = [1, 100, 1000])]
fn pipeline_of_prepared_batches(bencher: Bencher<'_, '_>, batches: usize) {
    let mut pair = Pair::new();
    let mut batch = Vec::new();
    encode::bind_text(&mut batch, b"s", &["1000042", "7"]);
    encode::execute(&mut batch);
    batch.extend_from_slice(&encode::SYNC);
    let (input, replies) = (batch.repeat(batches), result(1).repeat(batches));
    bencher
        .counter(ItemsCount::new(batches))
        .bench_local(|| pair.transaction(black_box(&input), black_box(&replies)));
}

#[divan::bench(args = [1, 50, 500])]
fn borrow_and_give_back(bencher: Bencher<'_, '_>, servers: u32) {
    let mut core: Core<u32, u32> = Core::new(PoolLimits { budget: 1000, opening_max: 4 }, 2);
    let pool = core.add_pool();
    let since = Instant::now();
    for server in 0..servers {
        core.reserve(pool);
        core.opened(pool);
        core.give_back(pool, Idle { server, fingerprint: 0, worker: 0, since });
    }
    bencher.bench_local(|| {
        let Some(idle) = core.borrow(pool, 0, black_box(0)) else { return false };
        core.give_back(pool, idle);
        true
    });
}

#[divan::bench(args = [1, 1000, 10_000])]
fn hand_over_to_the_oldest_waiter(bencher: Bencher<'_, '_>, waiters: u32) {
    let mut core: Core<u32, u32> = Core::new(PoolLimits { budget: 1, opening_max: 1 }, 2);
    let pool = core.add_pool();
    let since = Instant::now();
    core.reserve(pool);
    core.opened(pool);
    for waiter in 0..waiters {
        core.enqueue(pool, (waiter % 2) as usize, waiter, since);
    }
    bencher.bench_local(|| {
        // The one who is served queues again behind the others.
        core.enqueue(pool, 0, 0, since);
        core.give_back(pool, Idle { server: 0, fingerprint: 0, worker: 0, since })
    });
}
