//! What a client that is logged in may not send.

use crate::support::eventually;
use crate::support::messages::{frame, frontend};
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::shared;

fn start() -> Pgweir {
    Setup::before(shared()).target("max_connections = 1").start()
}

/// An idle client and one inside a transaction send these bytes: both get the same error, and the
/// next client finds the only server clean.
fn refused(pgweir: &Pgweir, bytes: &[u8], expected: &str) {
    for in_transaction in [false, true] {
        let mut client = pgweir.client();
        if in_transaction {
            client.execute("BEGIN");
        }
        client.send(bytes);
        let answer = client.until_closed();
        assert_eq!(answer, [expected], "{bytes:?} in transaction: {in_transaction}");
        assert_eq!(pgweir.client().value("SELECT 'next'"), "next");
    }
}

#[test]
fn lengths_that_cannot_be_end_the_connection() {
    let pgweir = start();
    for tag in [b'Q', b'P', b'B', b'S', b'X', b'd'] {
        for length in [0_u32, 3, 0x8000_0000, u32::MAX] {
            let bytes = [&[tag], length.to_be_bytes().as_slice()].concat();
            let too_large = length > 4;
            let expected =
                if too_large { "ErrorResponse FATAL 54000" } else { "ErrorResponse FATAL 08P01" };
            refused(&pgweir, &bytes, expected);
        }
    }
}

#[test]
fn messages_larger_than_allowed_end_the_connection_before_they_are_read() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("max_message_size = \"1MiB\"")
        .start();
    let expected = "ErrorResponse FATAL 54000";
    refused(&pgweir, &[b"Q".as_slice(), &0x0010_0001_u32.to_be_bytes()].concat(), expected);
    refused(&pgweir, &[b"B".as_slice(), &0x7000_0000_u32.to_be_bytes()].concat(), expected);
    // Names of half a megabyte.
    refused(&pgweir, &[b"D".as_slice(), &0x0008_0000_u32.to_be_bytes()].concat(), expected);
    let mut client = pgweir.client();
    let sql = format!("SELECT length('{}')", "x".repeat(1_000_000));
    assert_eq!(client.value(&sql), "1000000");
}

#[test]
fn unknown_types_end_the_connection() {
    let pgweir = start();
    for tag in [0, 1, b'Z', b'R', b'T', b'p', b'~', 0x80, 0xff] {
        refused(&pgweir, &frame(tag, &[b"\0\0\0\0"]), "ErrorResponse FATAL 08P01");
    }
}

#[test]
fn malformed_bodies_end_the_connection() {
    let pgweir = start();
    let cases = [
        frame(b'Q', &[b"SELECT 1"]),
        frame(b'Q', &[b"SELECT 1\0more\0"]),
        frame(b'P', &[b"no zero"]),
        frame(b'P', &[b"name\0SELECT 1"]),
        frame(b'B', &[b"portal"]),
        frame(b'D', &[b"Sno zero"]),
        frame(b'D', &[b"Zwhat\0"]),
        frame(b'C', &[b""]),
        frame(b'H', &[b"x"]),
    ];
    for case in cases {
        let batch = [case, frontend::sync()].concat();
        refused(&pgweir, &batch, "ErrorResponse FATAL 08P01");
    }
}

/// PostgreSQL ignores copy messages outside of a copy, and so must a client's next query work.
#[test]
fn copy_messages_outside_of_a_copy_are_ignored() {
    let pgweir = start();
    for in_transaction in [false, true] {
        let (mut pooled, mut direct) = (pgweir.client(), shared().client());
        for client in [&mut pooled, &mut direct] {
            if in_transaction {
                client.execute("BEGIN");
            }
            let stray = [
                frontend::copy_data(b"stray\n"),
                frontend::copy_done(),
                frontend::copy_fail("stray"),
            ];
            client.send(&stray.concat());
            assert_eq!(client.value("SELECT 'in step'"), "in step");
        }
    }
}

/// Counts what clients have sent.
const CAME: &str = "pgweir_client_bytes_received_total";

/// A server has nothing to answer it, so nothing would end the client's hold.
#[test]
fn a_flush_of_an_idle_client_takes_no_server() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .target("connection_borrow_timeout = \"5s\"");
    let pgweir = pgweir.start();
    let mut idle = pgweir.client_with(&[("application_name", "idle")]);
    assert_eq!(idle.value("SELECT 'first'"), "first");
    for _ in 0..2 {
        let before = pgweir.metric(CAME, "");
        let nothing = [frontend::flush(), frontend::flush(), frontend::copy_done()].concat();
        idle.send(&nothing);
        let after = before + f64::from(u16::try_from(nothing.len()).unwrap());
        eventually("the messages came", || pgweir.metric(CAME, "") >= after);
        assert_eq!(pgweir.client().value("SELECT 'free'"), "free");
        assert_eq!(idle.value("SELECT 'next'"), "next");
    }
    idle.execute("BEGIN");
    idle.send(&frontend::flush());
    assert_eq!(idle.value("SELECT 'in step'"), "in step");
    idle.execute("COMMIT");
}

/// PostgreSQL fails the copy or ends the connection; so may pgweir, and nobody else notices.
#[test]
fn anything_but_copy_data_inside_a_copy_ends_it() {
    let pgweir = start();
    shared().client().execute("DROP TABLE IF EXISTS copy_state; CREATE TABLE copy_state (id int)");
    let wrong =
        [frontend::query("SELECT 1"), frontend::bind("", "", &[]), frontend::parse("", "SELECT 1")];
    for wrong in wrong {
        let mut client = pgweir.client();
        client.send(&frontend::query("COPY copy_state FROM STDIN"));
        assert_eq!(client.read_message().line(), "CopyInResponse");
        client.send(&[frontend::copy_data(b"1\n"), wrong, frontend::sync()].concat());
        let answer = client.until_ready_or_closed();
        assert!(answer[0].starts_with("ErrorResponse"), "{answer:?}");
        drop(client);
        assert_eq!(pgweir.client().value("SELECT count(*) FROM copy_state"), "0");
    }
}

/// The server is not held for a client that does not go on: it is another's before long.
#[test]
fn half_a_message_and_silence_free_the_server() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("client_stall_timeout = \"1s\"")
        .proxy("idle_in_transaction_timeout = \"1s\"")
        .start();
    let large = frontend::bind("", "", &[Some(&"x".repeat(1_000_000))]);
    shared().client().execute("DROP TABLE IF EXISTS copy_half; CREATE TABLE copy_half (id int)");
    let halves = [
        // Begun outside of a transaction: no server is held for it at all.
        ("", frontend::query("SELECT 1")[..9].to_vec()),
        ("", [frontend::parse("", "SELECT $1::text"), large[..500_000].to_vec()].concat()),
        ("", [frontend::parse("", "SELECT 1"), frontend::flush()].concat()),
        ("", frontend::query(&"-".repeat(2_000_000))[..1_500_000].to_vec()),
        (
            "",
            [
                frontend::query("COPY copy_half FROM STDIN"),
                frontend::copy_data(&vec![b'1'; 100_000])[..50_000].to_vec(),
            ]
            .concat(),
        ),
        ("BEGIN", frontend::query("SELECT 1")[..9].to_vec()),
        ("BEGIN", large[..500_000].to_vec()),
    ];
    for (first, half) in halves {
        let mut client = pgweir.client();
        if !first.is_empty() {
            client.execute(first);
        }
        client.send(&half);
        // The pool has one server only: this waits until it is free.
        let mut next = pgweir.client();
        assert_eq!(next.value("SELECT 'free'"), "free", "after {} bytes", half.len());
        drop(client);
    }
}

#[test]
fn an_unfinished_message_of_an_idle_client_is_bounded_in_memory() {
    let pgweir = start();
    let before = pgweir.resident_kib();
    let mut clients: Vec<_> = (0..20).map(|_| pgweir.client()).collect();
    let half = frontend::query(&format!("SELECT length('{}')", "x".repeat(1_000_000)));
    for client in &mut clients {
        client.send(&half[..900_000]);
    }
    assert_eq!(pgweir.client().value("SELECT 1"), "1");
    eventually("pgweir reads what is sent", || {
        pgweir.metric("pgweir_client_bytes_received_total", "") >= 20.0 * 900_000.0
    });
    // As much as was sent, in buffers that double.
    let after = pgweir.resident_kib();
    assert!(after < before + 64 * 1024, "{before} KiB before, {after} KiB after");
    for client in &mut clients {
        client.send(&half[900_000..]);
        assert!(client.until_ready().contains(&"DataRow 1000000".to_owned()));
    }
}
