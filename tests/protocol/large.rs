//! What is large passes through in pieces: pgweir's memory does not follow it.

use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::shared;
use crate::support::raw::RawClient;

/// Growth allowed for what passes through, in KiB.
const GROWTH_MAX: u64 = 6 * 1024;

/// A pgweir with a client, where buffers have had their size: each thread keeps a few.
fn warm() -> (Pgweir, RawClient) {
    let pgweir = Setup::before(shared()).target("max_connections = 4").start();
    // So many that each thread has served one.
    let mut clients: Vec<_> = (0..8).map(|_| pgweir.client()).collect();
    let value = "v".repeat(4 << 20);
    for client in &mut clients {
        client.execute("SELECT repeat('x', 100000) FROM generate_series(1, 20)");
        client.batch(&[
            frontend::parse("", "SELECT length($1::text)"),
            frontend::bind("", "", &[Some(&value)]),
            frontend::execute("", 0),
            frontend::sync(),
        ]);
    }
    (pgweir, clients.pop().unwrap())
}

fn grows_little(pgweir: &Pgweir, before: u64) {
    let after = pgweir.resident_kib();
    assert!(after < before + GROWTH_MAX, "{before} KiB before, {after} KiB after");
}

#[test]
fn a_result_of_100_mb_of_small_rows_is_streamed() {
    let (pgweir, mut client) = warm();
    let before = pgweir.resident_kib();
    client.send(&frontend::query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)"));
    let (bytes, _) = count_until_ready(&mut client, || {});
    assert!(bytes > 100_000_000, "{bytes}");
    grows_little(&pgweir, before);
}

#[test]
fn a_single_row_of_100_mb_is_streamed_to_a_slow_reader() {
    let (pgweir, mut client) = warm();
    let before = pgweir.resident_kib();
    client.send(&frontend::query("SELECT repeat('x', 100000000)"));
    // Until the first message is read, everything on the way is full.
    assert_eq!(client.read_message().line(), "RowDescription repeat");
    grows_little(&pgweir, before);
    let (bytes, _) = count_until_ready(&mut client, || {});
    assert!(bytes > 100_000_000, "{bytes}");
    grows_little(&pgweir, before);
    assert_eq!(client.value("SELECT 1"), "1");
}

/// Bytes of all bodies up to `ReadyForQuery`, and the number of messages.
fn count_until_ready(client: &mut RawClient, mut each: impl FnMut()) -> (usize, usize) {
    let (mut bytes, mut messages) = (0, 0);
    loop {
        let message = client.read_message();
        bytes += message.body.len();
        messages += 1;
        each();
        assert_ne!(message.tag, b'E', "{}", message.line());
        if message.tag == b'Z' {
            return (bytes, messages);
        }
    }
}

#[test]
fn a_parameter_of_64_mib_is_streamed() {
    const SIZE: usize = 64 << 20;
    let (pgweir, mut client) = warm();
    client.batch(&[frontend::parse("long", "SELECT length($1::text)"), frontend::sync()]);
    // A named statement on a server that has to be told of it in the same write.
    let mut holder = pgweir.client();
    holder.execute("BEGIN");
    let mut send = |value: &str| {
        client.batch(&[
            frontend::bind("", "long", &[Some(value)]),
            frontend::execute("", 0),
            frontend::sync(),
        ])
    };
    // What does not fit the buffers needs some memory; how much must not depend on its size.
    send(&"v".repeat(SIZE / 8));
    let before = pgweir.resident_kib();
    let transcript = send(&"v".repeat(SIZE));
    let row = format!("DataRow {SIZE}");
    assert_eq!(transcript, ["BindComplete", &row, "CommandComplete SELECT 1", "ReadyForQuery I"]);
    grows_little(&pgweir, before);
}

#[test]
fn a_query_of_20_mb_is_streamed() {
    let (pgweir, mut client) = warm();
    let before = pgweir.resident_kib();
    let sql = format!("SELECT length('{}')", "q".repeat(20_000_000));
    assert_eq!(client.value(&sql), "20000000");
    grows_little(&pgweir, before);
    // Nobody looked at it, so nobody knows what it did: its server is not another's.
    assert!(pgweir.metric("pgweir_session_pins_total", "large_statement") >= 1.0);
}

#[test]
fn a_streamed_statement_takes_the_name_of_one_that_failed() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let large = format!("SELECT 42 /* {} */", "x".repeat(1_200_000));
    let batches = [
        [frontend::parse("s", "SELEC 1"), frontend::sync()].concat(),
        [frontend::parse("s", &large), frontend::sync()].concat(),
        [frontend::bind("", "s", &[]), frontend::execute("", 0), frontend::sync()].concat(),
    ]
    .concat();
    let answers = [pgweir.client(), shared().client()].map(|mut client| {
        client.send(&batches);
        (0..3).flat_map(|_| client.until_ready()).collect::<Vec<_>>()
    });
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].contains(&"DataRow 42".to_owned()), "{:?}", answers[0]);
}

#[test]
fn the_name_of_a_streamed_statement_is_taken_until_it_is_free() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let large = format!("SELECT 42 /* {} */", "x".repeat(1_200_000));
    let prepare = |sql: &str| [frontend::parse("s", sql), frontend::sync()].concat();
    let run = [frontend::bind("", "s", &[]), frontend::execute("", 0), frontend::sync()].concat();
    let query = frontend::query;
    let batches = [
        prepare(&large),
        prepare("SELECT 1"),
        run.clone(),
        query("PREPARE s AS SELECT 2"),
        query("EXECUTE s"),
        query("DEALLOCATE s"),
        run.clone(),
        query("PREPARE s AS SELECT 3"),
        prepare("SELECT 4"),
        prepare(&large),
        run.clone(),
        query("DEALLOCATE s"),
        prepare("SELECT 5"),
        query("PREPARE s AS SELECT 6"),
        run.clone(),
        [frontend::close(b'S', "s"), frontend::sync()].concat(),
        prepare(&large),
        query("DISCARD ALL"),
        prepare("SELECT 7"),
        run,
    ];
    let (mut pooled, mut direct) = (pgweir.client(), shared().client());
    for (number, batch) in batches.iter().enumerate() {
        let answers = [&mut pooled, &mut direct].map(|client| {
            client.send(batch);
            client.until_ready()
        });
        assert_eq!(answers[0], answers[1], "{number}");
    }
}

/// They are passed on in pieces, and what was told before them is answered only behind the last one.
#[test]
fn what_is_streamed_goes_on_behind_what_the_server_was_told_first() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("client_stall_timeout = \"5s\"")
        .start();
    let concat = shared().client().value("SELECT 'textcat'::regproc::oid").parse().unwrap();
    let long = "x".repeat(1_200_000);
    let call = frontend::function_call(concat, &[&long[..50_000], "y"]);
    let large = [
        frontend::query(&format!("SELECT 1 /* {long} */")),
        [
            frontend::parse("", &format!("SELECT 1 /* {long} */")),
            frontend::bind("", "", &[]),
            frontend::execute("", 0),
            frontend::sync(),
        ]
        .concat(),
        call.clone(),
    ];
    for (number, bytes) in large.iter().enumerate() {
        for cut in [0, 7, 3_000] {
            // Another one had the server before, with other settings, and has written sequences.
            pgweir
                .client_with(&[("application_name", "before"), ("work_mem", "5MB")])
                .execute("SELECT 1");
            let name = format!("client {number} {cut}");
            let mut client = pgweir.client_with(&[("application_name", &name)]);
            let before = pgweir.metric("pgweir_client_bytes_received_total", "");
            client.send(&bytes[..cut]);
            eventually("the beginning came", || {
                let came = pgweir.metric("pgweir_client_bytes_received_total", "") - before;
                came >= f64::from(u16::try_from(cut).unwrap())
            });
            client.send(&bytes[cut..]);
            let answer = client.until_ready_or_closed();
            assert_eq!(answer.last().unwrap(), "ReadyForQuery I", "{name}: {answer:?}");
            assert_eq!(client.value("SHOW application_name"), name);
        }
    }
}

#[test]
fn copying_100_mb_in_and_out_is_streamed() {
    let (pgweir, mut client) = warm();
    shared().client().execute("DROP TABLE IF EXISTS copy_large; CREATE TABLE copy_large (t text)");
    let before = pgweir.resident_kib();
    client.send(&frontend::query("COPY copy_large FROM STDIN"));
    assert_eq!(client.read_message().line(), "CopyInResponse");
    let rows = format!("{}\n", "c".repeat(999)).repeat(10_000);
    let piece = frontend::copy_data(rows.as_bytes());
    for _ in 0..10 {
        client.send(&piece);
    }
    let end = client.batch(&[frontend::copy_done()]);
    assert_eq!(end, ["CommandComplete COPY 100000", "ReadyForQuery I"]);
    grows_little(&pgweir, before);
    client.send(&frontend::query("COPY copy_large TO STDOUT"));
    let (bytes, messages) = count_until_ready(&mut client, || {});
    assert!(bytes >= 100_000_000 && messages > 100_000, "{bytes} bytes, {messages} messages");
    grows_little(&pgweir, before);
    shared().client().execute("DROP TABLE copy_large");
}
