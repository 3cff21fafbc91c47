//! Clients that stop sending with batches still to be run: PostgreSQL reads all that came before the end, in order,
//! and finds out by a write that fails that nobody is there.

use super::vanishing::next_client_finds_a_clean_server;
use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{DATABASE, PASSWORD, USER, shared};
use crate::support::raw::RawClient;
use std::time::{Duration, Instant};

fn start() -> Pgweir {
    Setup::before(shared()).target("max_connections = 1").start()
}

/// A table that is empty.
fn table(name: &str) {
    shared()
        .client()
        .execute(&format!("DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (id int)"));
}

/// What is in a table.
fn ids(table: &str) -> String {
    let sql = format!("SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM {table}");
    shared().client().value(&sql)
}

fn extended(sql: &str) -> Vec<u8> {
    let messages =
        [frontend::parse("", sql), frontend::bind("", "", &[]), frontend::execute("", 0)];
    messages.concat()
}

fn insert(table: &str, id: u32) -> Vec<u8> {
    frontend::query(&format!("INSERT INTO {table} VALUES ({id})"))
}

/// Whole batches of which some are held, each set with an insert at its end, and that it is held behind.
fn held(table: &str) -> Vec<(&'static str, Vec<u8>)> {
    let query = frontend::query;
    let many = [extended("SELECT 1"), frontend::sync()].concat().repeat(2500);
    let large = query(&format!("SELECT length('{}')", "x".repeat(600_000)));
    let data = frontend::copy_data(b"7\n");
    let copied = [&query(&format!("COPY {table} FROM STDIN"))[..], &data, &frontend::copy_done()];
    let sets = [
        ("a running one", vec![query("SELECT pg_sleep(0.2)")]),
        ("a block", vec![query("BEGIN"), query("SELECT pg_sleep(0.2)"), query("COMMIT")]),
        ("DEALLOCATE", vec![query("DEALLOCATE ALL"), query("SELECT pg_sleep(0.2)")]),
        ("DISCARD", vec![query("BEGIN"), query("COMMIT"), query("DISCARD ALL")]),
        ("PREPARE", vec![query("PREPARE held AS SELECT pg_sleep(0.2)"), query("EXECUTE held")]),
        ("LISTEN", vec![query("LISTEN held"), query("SELECT 1"), query("LISTEN held_too")]),
        ("an error", vec![query("DEALLOCATE missing"), extended("SELECT 1/0"), frontend::sync()]),
        ("many", vec![many]),
        ("large ones", vec![large.repeat(4)]),
        ("a copy", vec![copied.concat()]),
        ("a temporary table", vec![query("CREATE TEMP TABLE mine ()"), query("LISTEN held")]),
    ];
    sets.map(|(what, batches)| (what, [&batches.concat()[..], &insert(table, 1)].concat())).into()
}

/// Sends it all, says that there will be no more, and reads to the end.
fn outcome(client: &mut RawClient, bytes: &[u8]) -> Vec<String> {
    let mut writer = client.try_clone();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.send(bytes);
            writer.shut_down_writing();
        });
        client.until_closed()
    })
}

#[test]
fn whole_batches_are_run_when_the_client_stops_sending() {
    let pgweir = start();
    table("ends");
    for (what, bytes) in held("ends") {
        let mut told = Vec::new();
        for client in [&mut shared().client(), &mut pgweir.client()] {
            let said = outcome(client, &bytes);
            told.push((said, ids("ends")));
            shared().client().execute("TRUNCATE ends");
        }
        assert!(told[0].1.starts_with('1'), "{what}");
        assert!(told[0] == told[1], "{what}: {:?}, not {:?}", told[1], told[0]);
        next_client_finds_a_clean_server(&pgweir);
    }
}

/// What its `Sync` did not reach is rolled back.
#[test]
fn half_a_batch_behind_whole_ones_leaves_nothing() {
    let pgweir = start();
    table("ends_half");
    let halves = [
        extended("INSERT INTO ends_half VALUES (8)"),
        insert("ends_half", 8)[..20].to_vec(),
        [&frontend::query("BEGIN")[..], &insert("ends_half", 8)].concat(),
        extended(&format!("SELECT length('{}')", "x".repeat(100_000))),
        frontend::query(&"x".repeat(2_000_000))[..1_500_000].to_vec(),
    ];
    for half in halves {
        let front = [frontend::query("DEALLOCATE ALL"), insert("ends_half", 1)].concat();
        for goodbye in [Vec::new(), frontend::terminate()] {
            let bytes = [&front[..], &half, &goodbye].concat();
            let mut told = Vec::new();
            for client in [&mut shared().client(), &mut pgweir.client()] {
                let said = outcome(client, &bytes);
                eventually("its transaction is over", || {
                    let sql =
                        "SELECT count(*) FROM pg_locks WHERE relation = 'ends_half'::regclass";
                    shared().superuser_in("app").value(sql) == "0"
                });
                told.push((said, ids("ends_half")));
                shared().client().execute("TRUNCATE ends_half");
            }
            assert_eq!(told[0].1, "1");
            assert_eq!(told[0], told[1]);
            next_client_finds_a_clean_server(&pgweir);
        }
    }
}

#[test]
fn whole_batches_keep_their_place_in_the_queue() {
    let pgweir = start();
    table("ends_queued");
    let batches = [
        insert("ends_queued", 1),
        [extended("INSERT INTO ends_queued VALUES (2)"), frontend::sync()].concat(),
        frontend::query("SELECT 'last'"),
        extended("INSERT INTO ends_queued VALUES (8)"),
    ];
    let direct = outcome(&mut shared().client(), &batches.concat());
    shared().client().execute("TRUNCATE ends_queued");
    let mut holder = pgweir.client();
    holder.execute("BEGIN");
    let mut stops = pgweir.client();
    stops.send(&batches.concat());
    stops.shut_down_writing();
    let mut goes = pgweir.client();
    goes.send(&insert("ends_queued", 3));
    let mut is_reset = pgweir.client();
    is_reset.send(&insert("ends_queued", 4));
    let waiting = || pgweir.metric("pgweir_waiting_clients", "");
    eventually("all wait", || waiting() >= 3.0);
    drop(goes);
    is_reset.reset();
    holder.execute("COMMIT");
    assert_eq!(stops.until_closed(), direct);
    eventually("all is done", || ids("ends_queued") == "1,2,3,4");
    next_client_finds_a_clean_server(&pgweir);
}

#[test]
fn the_queue_is_no_longer_for_those_who_send_no_more() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .target("connection_borrow_timeout = \"1s\"")
        .start();
    table("ends_late");
    let mut holder = pgweir.client();
    holder.execute("BEGIN");
    let batches = [
        insert("ends_late", 8),
        [extended("INSERT INTO ends_late VALUES (8)"), frontend::sync()].concat(),
        extended("INSERT INTO ends_late VALUES (8)"),
    ];
    let mut stops = pgweir.client();
    let said = outcome(&mut stops, &batches.concat());
    let refused = ["ErrorResponse ERROR 08000", "ReadyForQuery I"];
    assert_eq!(said, [refused, refused].concat());
    assert_eq!(pgweir.metric("pgweir_waiting_clients", ""), 0.0);
    holder.execute("COMMIT");
    next_client_finds_a_clean_server(&pgweir);
    assert_eq!(ids("ends_late"), "");
}

/// Who sends and is gone at once: PostgreSQL has the first answer taken from it, and runs one more.
#[test]
fn a_client_that_is_gone_has_its_batches_run_until_it_can_be_told_nothing() {
    let pgweir = start();
    table("ends_gone");
    let rows = frontend::query("SELECT repeat('x', 1000) FROM generate_series(1, 20000)");
    let unseen = [rows, frontend::query("DEALLOCATE ALL"), insert("ends_gone", 8)].concat();
    for (port, ends) in [(shared().port(), "directly"), (pgweir.port(), "through pgweir")] {
        for bytes in [insert("ends_gone", 1), insert("ends_gone", 1).repeat(2)] {
            let mut client = log_in(port);
            client.send(&bytes);
            drop(client);
            let inserted = if bytes.len() > insert("ends_gone", 1).len() { "1,1" } else { "1" };
            eventually(ends, || ids("ends_gone") == inserted);
            shared().client().execute("TRUNCATE ends_gone");
        }
        let mut client = log_in(port);
        client.execute("SET application_name = 'unseen'");
        client.send(&unseen);
        drop(client);
        eventually("it is over", || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'unseen' AND state <> 'idle'";
            let clients = pgweir.metric("pgweir_client_connections", "");
            shared().superuser().value(sql) == "0" && clients == 0.0
        });
        assert_eq!(ids("ends_gone"), "", "{ends}");
    }
    next_client_finds_a_clean_server(&pgweir);
}

/// Its time to read begins anew whenever it reads.
#[test]
fn a_client_that_stops_sending_and_reads_slowly_reads_it_all() {
    const ROWS: usize = 20_000;
    let stall_timeout = Duration::from_secs(1);
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .proxy(&format!("client_stall_timeout = \"{}s\"", stall_timeout.as_secs()))
        .start();
    let mut client = RawClient::connect_with_small_buffer(pgweir.port());
    client.log_in(USER, PASSWORD, DATABASE);
    let sql = format!("SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})");
    client.send(&frontend::query(&sql));
    client.shut_down_writing();
    let begun = Instant::now();
    let mut rows = 0;
    while let Ok(Some(message)) = client.try_read_message() {
        rows += usize::from(message.tag == b'D');
        // It takes several times the limit for all of them.
        let due = stall_timeout * 4 * u32::try_from(rows).unwrap() / u32::try_from(ROWS).unwrap();
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    assert_eq!(rows, ROWS);
    next_client_finds_a_clean_server(&pgweir);
}

/// What clients send ahead, each of it in one piece.
fn pieces() -> Vec<Vec<u8>> {
    let queries = [
        "",
        "SELECT 1",
        "SELECT 1; SELECT 2",
        "SELECT 1/0",
        "SELECT pg_sleep(0.01)",
        "INSERT INTO ends_random VALUES (1)",
        "BEGIN",
        "SAVEPOINT here",
        "ROLLBACK TO here",
        "COMMIT",
        "ROLLBACK",
        "SET work_mem = '5MB'",
        "SHOW work_mem",
        "PREPARE one AS SELECT 1",
        "EXECUTE one",
        "DEALLOCATE one",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "LISTEN ends",
        "UNLISTEN ends",
        "CREATE TEMP TABLE mine (id int)",
        "DROP TABLE mine",
    ];
    let execute = [frontend::bind("", "two", &[]), frontend::execute("", 0)].concat();
    let copy = [frontend::query("COPY ends_random FROM STDIN"), frontend::copy_data(b"2\n")];
    let mut pieces: Vec<Vec<u8>> = queries.map(frontend::query).into();
    pieces.extend([
        frontend::sync(),
        extended("INSERT INTO ends_random VALUES (3)"),
        [extended("SELECT 1/0"), frontend::sync()].concat(),
        [extended("SELECT 1"), frontend::flush()].concat(),
        [frontend::parse("two", "SELECT 2"), frontend::sync()].concat(),
        [&execute[..], &frontend::sync()].concat(),
        execute,
        [frontend::close(b'S', "two"), frontend::sync()].concat(),
        [&copy.concat()[..], &frontend::copy_done()].concat(),
        [&copy.concat()[..], &frontend::copy_fail("no")].concat(),
    ]);
    pieces
}

#[test]
fn whatever_is_sent_ahead_of_an_end_comes_to_the_same() {
    let pgweir = Setup::before(shared()).start();
    table("ends_random");
    let taken_out = "WITH gone AS (DELETE FROM ends_random RETURNING id) SELECT count(*) FROM gone";
    let counter = std::cell::RefCell::new(shared().client());
    let scripts = proptest::collection::vec(proptest::sample::select(pieces()), 1..12);
    let config = proptest::test_runner::Config {
        cases: 150,
        failure_persistence: None,
        ..Default::default()
    };
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(config, rng);
    let outcome = runner.run(&scripts, |script| {
        let told = [shared().port(), pgweir.port()].map(|port| {
            // What has no Sync, PostgreSQL begins to answer if it fails.
            let bytes = [&script.concat()[..], &frontend::sync()].concat();
            let said = outcome(&mut log_in(port), &bytes);
            (said, counter.borrow_mut().value(taken_out))
        });
        let script: Vec<_> = script.iter().map(|piece| piece.escape_ascii().to_string()).collect();
        proptest::prop_assert_eq!(&told[0], &told[1], "{:#?}", script);
        Ok(())
    });
    outcome.unwrap();
    next_client_finds_a_clean_server(&pgweir);
}

fn log_in(port: u16) -> RawClient {
    let mut client = RawClient::connect(port);
    client.log_in(USER, PASSWORD, DATABASE);
    client
}
