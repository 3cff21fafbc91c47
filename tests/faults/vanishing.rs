//! Clients that vanish: anywhere in a batch, inside a transaction, while they wait.

use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::shared;

fn start() -> Pgweir {
    Setup::before(shared()).target("max_connections = 1").start()
}

/// What the next client finds on the only server: no block, no settings, no objects, no locks.
pub fn next_client_finds_a_clean_server(pgweir: &Pgweir) {
    let mut next = pgweir.client();
    let transcript = next.query("SELECT 'clean'");
    assert_eq!(transcript.last().unwrap(), "ReadyForQuery I");
    assert!(transcript.contains(&"DataRow clean".to_owned()), "{transcript:?}");
    assert_eq!(next.value("SHOW work_mem"), "4MB");
    assert_eq!(next.value("SELECT current_user"), "app");
    assert_eq!(next.value("SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relnamespace = pg_my_temp_schema()"), "0");
    assert_eq!(
        next.value(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        ),
        "0"
    );
    assert_eq!(next.value("SELECT count(*) FROM pg_listening_channels()"), "0");
    assert_eq!(next.value("SELECT count(*) FROM pg_cursors WHERE is_holdable"), "0");
    assert_eq!(next.value("SELECT count(*) FROM pg_prepared_statements WHERE from_sql"), "0");
    // No write of the vanished one was committed, and nobody's transaction is still open.
    eventually("no transaction is left open", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in trans%' AND datname = 'app' AND query LIKE '%vanish%'";
        shared().superuser().value(sql) == "0"
    });
}

#[test]
fn a_client_vanishing_at_any_message_of_a_batch_leaves_nothing() {
    let pgweir = start();
    shared().client().execute("DROP TABLE IF EXISTS vanish; CREATE TABLE vanish (id int)");
    let messages = [
        frontend::parse("named", "INSERT INTO vanish VALUES ($1)"),
        frontend::bind("portal", "named", &[Some("1")]),
        frontend::describe(b'P', "portal"),
        frontend::execute("portal", 0),
        frontend::close(b'P', "portal"),
        frontend::flush(),
        frontend::parse("", "INSERT INTO vanish VALUES (2)"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
    ];
    for begin in [false, true] {
        for count in 1..=messages.len() {
            for cut in [0, 1, 3] {
                let mut client = pgweir.client();
                if begin {
                    client.execute("BEGIN");
                }
                let bytes = messages[..count].concat();
                client.send(&bytes[..bytes.len() - cut]);
                drop(client);
            }
        }
        next_client_finds_a_clean_server(&pgweir);
        assert_eq!(pgweir.client().value("SELECT count(*) FROM vanish"), "0");
    }
}

#[test]
fn a_client_vanishing_inside_a_transaction_is_rolled_back_and_its_server_is_used_again() {
    let pgweir = start();
    shared().client().execute("DROP TABLE IF EXISTS vanish_in; CREATE TABLE vanish_in (id int)");
    let backend = pgweir.client().value("SELECT pg_backend_pid()");
    for statement in
        ["INSERT INTO vanish_in VALUES (1)", "SELECT 1/0", "SET LOCAL work_mem = '9MB'"]
    {
        let mut client = pgweir.client();
        client.execute("BEGIN");
        client.query(statement);
        drop(client);
        next_client_finds_a_clean_server(&pgweir);
    }
    assert_eq!(pgweir.client().value("SELECT count(*) FROM vanish_in"), "0");
    assert_eq!(pgweir.client().value("SELECT pg_backend_pid()"), backend);
}

#[test]
fn a_client_that_says_goodbye_inside_a_transaction_is_rolled_back() {
    let pgweir = start();
    shared().client().execute("DROP TABLE IF EXISTS vanish_bye; CREATE TABLE vanish_bye (id int)");
    let mut client = pgweir.client();
    client.execute("BEGIN; INSERT INTO vanish_bye VALUES (1)");
    client.send(&frontend::terminate());
    assert_eq!(client.until_closed(), Vec::<String>::new());
    next_client_finds_a_clean_server(&pgweir);
    assert_eq!(pgweir.client().value("SELECT count(*) FROM vanish_bye"), "0");
}

/// PostgreSQL reads messages in order: what was sent before the goodbye is done.
#[test]
fn what_was_sent_before_a_goodbye_is_carried_out() {
    let pgweir = start();
    shared().client().execute("DROP TABLE IF EXISTS goodbye; CREATE TABLE goodbye (id int)");
    let insert = |id: u32| frontend::query(&format!("INSERT INTO goodbye VALUES ({id})"));
    // In one write, and in two.
    let mut client = pgweir.client();
    client.send(&[insert(1), frontend::terminate()].concat());
    client.until_closed();
    let mut client = pgweir.client();
    client.send(&insert(2));
    client.send(&frontend::terminate());
    client.until_closed();
    let mut client = pgweir.client();
    let batch = [
        frontend::parse("", "INSERT INTO goodbye VALUES (3)"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::sync(),
        frontend::terminate(),
    ];
    client.send(&batch.concat());
    client.until_closed();
    // While the only server is another's.
    let mut holder = pgweir.client();
    holder.execute("BEGIN");
    let mut client = pgweir.client();
    client.send(&[insert(4), frontend::terminate()].concat());
    eventually("the client waits", || pgweir.metric("pgweir_waiting_clients", "") >= 1.0);
    holder.execute("COMMIT");
    client.until_closed();
    let ids = pgweir.client().value("SELECT string_agg(id::text, ',' ORDER BY id) FROM goodbye");
    assert_eq!(ids, "1,2,3,4");
}

#[test]
fn a_client_vanishing_while_its_query_runs_has_it_cancelled() {
    let pgweir = start();
    let mut client = pgweir.client();
    client.send(&frontend::query("SELECT pg_sleep(60) /* vanish while running */"));
    let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%vanish while running%'";
    let mut superuser = shared().superuser();
    eventually("the query runs", || superuser.value(running) == "1");
    drop(client);
    eventually("the query is cancelled", || superuser.value(running) == "0");
    next_client_finds_a_clean_server(&pgweir);
}

/// With a connection of its own, a client that says that it sends no more still gets its results.
#[test]
fn a_client_that_only_stops_sending_gets_what_it_asked_for() {
    let pgweir = start();
    let rows = "SELECT repeat('x', 1000) FROM generate_series(1, 5000)";
    for sql in ["SELECT pg_sleep(0.3)", "BEGIN; SELECT pg_sleep(0.3)", rows] {
        let mut direct = shared().client();
        let mut pooled = pgweir.client();
        let said = [&mut direct, &mut pooled].map(|client| {
            client.send(&frontend::query(sql));
            client.shut_down_writing();
            client.until_closed()
        });
        assert!(said[0].last().unwrap().starts_with("ReadyForQuery"), "{sql}");
        assert_eq!(said[0], said[1], "{sql}");
        next_client_finds_a_clean_server(&pgweir);
    }
}

/// What it sent whole keeps its place, see `whole_batches_keep_their_place_in_the_queue`.
#[test]
fn a_client_vanishing_in_the_queue_loses_its_place_and_nothing_else() {
    let pgweir = start();
    let mut holder = pgweir.client();
    holder.execute("BEGIN");
    let mut gone: Vec<_> = (0..5).map(|_| pgweir.client()).collect();
    let half = frontend::parse("", &format!("SELECT length('{}')", "x".repeat(200_000)));
    for client in &mut gone {
        client.send(&half);
    }
    let mut stays = pgweir.client();
    stays.send(&frontend::query("SELECT 'stays'"));
    let waiting = || pgweir.metric("pgweir_waiting_clients", "");
    eventually("all wait", || waiting() >= 6.0);
    drop(gone);
    eventually("one waits", || waiting() <= 1.0);
    holder.execute("COMMIT");
    assert!(stays.until_ready().contains(&"DataRow stays".to_owned()));
}

#[test]
fn a_client_vanishing_inside_a_large_message_leaves_nothing() {
    let pgweir = start();
    for (size, sent) in [(100_000, 50_000), (5_000_000, 3_000_000)] {
        let value = "x".repeat(size);
        let batch = [
            frontend::parse("", "SELECT length($1::text)"),
            frontend::bind("", "", &[Some(&value)]),
        ];
        let mut client = pgweir.client();
        client.send(&batch.concat()[..sent]);
        drop(client);
        next_client_finds_a_clean_server(&pgweir);
    }
}

#[test]
fn a_client_vanishing_inside_a_result_frees_its_server() {
    let pgweir = start();
    for _ in 0..3 {
        let mut client = pgweir.client();
        client.send(&frontend::query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)"));
        assert_eq!(client.read_message().line(), "RowDescription repeat");
        drop(client);
        next_client_finds_a_clean_server(&pgweir);
    }
}
