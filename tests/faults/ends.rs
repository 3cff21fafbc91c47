//! Clients that stop sending with batches still to be run: PostgreSQL reads all that came before the end, in order,
//! and finds out by a write that fails that nobody is there.

use super::vanishing::next_client_finds_a_clean_server;
use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::shared;
use crate::support::raw::RawClient;

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

fn log_in(port: u16) -> RawClient {
    use crate::support::postgres::{DATABASE, PASSWORD, USER};
    let mut client = RawClient::connect(port);
    client.log_in(USER, PASSWORD, DATABASE);
    client
}
