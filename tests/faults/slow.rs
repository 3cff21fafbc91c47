//! Clients that do not read, or read slowly, or leave transactions open.

use crate::support::eventually;
use crate::support::messages::{backend, frame, frontend};
use crate::support::pgweir::Setup;
use crate::support::postgres::{PASSWORD, USER, shared};
use crate::support::scripted::{ScriptedServer, mentions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

const LARGE: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 100000) /* slow */";

#[test]
fn a_client_that_never_reads_is_cut_off_and_its_server_freed() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("client_stall_timeout = \"1s\"")
        .start();
    let before = pgweir.resident_kib();
    let mut deaf = pgweir.client();
    deaf.send(&frontend::query(LARGE));
    // The only server: whoever gets it, gets it after the deaf one.
    let mut next = pgweir.client();
    assert_eq!(next.value("SELECT 'free'"), "free");
    let after = pgweir.resident_kib();
    assert!(after < before + 8 * 1024, "{before} KiB before, {after} KiB after");
    let read = deaf.until_closed();
    assert!(!read.contains(&"ReadyForQuery I".to_owned()));
}

/// Only those are cut off that hold a server up; who read everything may think as long as it likes.
#[test]
fn a_client_that_read_late_is_not_cut_off_afterwards() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("client_stall_timeout = \"1s\"")
        .start();
    // Sizes at which the end of the result waits in pgweir while the server is free again.
    for rows in [2_000, 2_500, 3_000, 3_500, 4_000, 5_000, 6_000] {
        let mut late = pgweir.client();
        let sql = format!("SELECT repeat('x', 1000) FROM generate_series(1, {rows})");
        late.send(&frontend::query(&sql));
        let mut other = pgweir.client();
        // Answered when the server is done with the first, or after the first was cut off.
        other.value("SELECT 1");
        let read = late.until_ready_or_closed();
        if read.last().map(String::as_str) != Some("ReadyForQuery I") {
            // It stalled the server: rightly cut off.
            continue;
        }
        let begun = std::time::Instant::now();
        eventually("longer than the stall timeout", || begun.elapsed().as_secs() >= 3);
        assert_eq!(late.value("SELECT 'still here'"), "still here", "{rows} rows");
    }
}

#[test]
fn a_transaction_left_open_is_ended() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("idle_in_transaction_timeout = \"1s\"")
        .start();
    for begin in ["BEGIN", "BEGIN; SELECT 1/0"] {
        let mut idle = pgweir.client();
        idle.query(begin);
        assert_eq!(pgweir.client().value("SELECT 'free'"), "free");
        assert_eq!(idle.until_closed(), ["ErrorResponse FATAL 25P03"]);
    }
}

/// What is sent at once with getting a server counts as what is sent later does.
#[test]
fn a_batch_left_unfinished_is_ended() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("idle_in_transaction_timeout = \"1s\"")
        .proxy("client_stall_timeout = \"1s\"")
        .start();
    let long = "x".repeat(200_000);
    let bind = frontend::bind("", "", &[Some(&long)]);
    let cases = [
        (frontend::parse("", &format!("SELECT 1 /* {long} */")), "ErrorResponse FATAL 25P03"),
        (
            [frontend::parse("", "SELECT $1"), bind[..100_000].to_vec()].concat(),
            "ErrorResponse FATAL 08P01",
        ),
        (bind[..100_000].to_vec(), "ErrorResponse FATAL 08P01"),
    ];
    for (bytes, expected) in cases {
        let mut client = pgweir.client();
        client.send(&bytes);
        assert_eq!(client.until_closed().last().unwrap(), expected);
        assert_eq!(pgweir.client().value("SELECT 'free'"), "free");
    }
}

#[test]
fn a_transaction_that_works_is_not_idle() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("idle_in_transaction_timeout = \"1s\"")
        .proxy("client_stall_timeout = \"1s\"")
        .start();
    let mut client = pgweir.client();
    client.execute("BEGIN");
    client.execute("SELECT pg_sleep(3.5)");
    let statement = [
        frontend::parse("", "SELECT pg_sleep(3.5)"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::sync(),
    ];
    assert_eq!(client.batch(&statement).last().unwrap(), "ReadyForQuery T");
    client.execute("COMMIT");
}

#[test]
fn a_pinned_client_between_transactions_is_idle_and_not_in_a_transaction() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("idle_in_transaction_timeout = \"1s\"")
        .proxy("client_stall_timeout = \"1s\"")
        .start();
    let mut client = pgweir.client();
    client.execute("CREATE TEMP TABLE mine (id int)");
    let begun = std::time::Instant::now();
    eventually("longer than the limits", || begun.elapsed().as_secs() >= 3);
    assert_eq!(client.value("SELECT count(*) FROM mine"), "0");
}

#[test]
fn a_pinned_client_that_is_idle_for_too_long_is_sent_away() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy("idle_client_timeout = \"1s\"")
        .start();
    let mut client = pgweir.client();
    client.execute("CREATE TEMP TABLE mine (id int)");
    assert_eq!(pgweir.client().value("SELECT 'free'"), "free");
    assert_eq!(client.until_closed(), ["ErrorResponse FATAL 57P05"]);
}

/// What is left of a copy, when the server that read it too slowly has given it up, is not the
/// beginning of what the next server gets.
#[test]
fn the_rest_of_a_copy_that_failed_goes_to_no_other_server() {
    let (full, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let server = ScriptedServer::start({
        let (full, told) = (full.clone(), told.clone());
        move |connection| {
            connection.accept_login()?;
            // There is no code that could make anybody keep this server.
            connection.behave_until(|message| mentions(message, "pg_proc"))?;
            let columns = ["reached", "opaque", "names", "reads", "suspects", "read"];
            connection.send(&backend::row_description(&columns))?;
            connection.send(&backend::data_row(&["f", "f", "", "f", "", "f"]))?;
            connection.send(&backend::command_complete("SELECT 1"))?;
            connection.send(&backend::ready_for_query(b'I'))?;
            connection.behave_until(|message| mentions(message, "COPY"))?;
            connection.send(&frame(b'G', &[&[0], &0_u16.to_be_bytes()]))?;
            eventually("nothing more can be sent", || full.load(Ordering::Acquire));
            connection.send(&backend::error("ERROR", "P0001", "no"))?;
            connection.send(&backend::ready_for_query(b'I'))?;
            // Reads nothing meanwhile: what waits for it goes on waiting.
            eventually("the client was told", || told.load(Ordering::Acquire));
            Ok(())
        }
    });
    let pgweir = Setup::before_port(server.port())
        .user(USER, PASSWORD)
        .target("tls = \"disable\"")
        .target("max_connections = 2")
        .start();
    let mut client = pgweir.client();
    client.send(&frontend::query("COPY t FROM STDIN"));
    assert_eq!(client.read_message().tag, b'G');
    let sent = Arc::new(AtomicUsize::new(0));
    let writer = thread::spawn({
        let (mut client, sent) = (client.try_clone(), sent.clone());
        move || {
            let data = frontend::copy_data(&[b'z'; 10_000]);
            for _ in 0..6_000 {
                client.send(&data);
                sent.fetch_add(data.len(), Ordering::AcqRel);
            }
            client.send(&frontend::copy_done());
        }
    });
    let (mut before, mut same) = (0, 0);
    eventually("nothing more can be sent", || {
        let now = sent.load(Ordering::Acquire);
        same = if now > 0 && now == before { same + 1 } else { 0 };
        before = now;
        same > 20
    });
    full.store(true, Ordering::Release);
    assert_eq!(client.until_ready(), ["ErrorResponse ERROR P0001", "ReadyForQuery I"]);
    writer.join().unwrap();
    assert_eq!(client.query("SELECT 1"), ["CommandComplete SELECT 0", "ReadyForQuery I"]);
    told.store(true, Ordering::Release);
}
