//! LISTEN, NOTIFY and UNLISTEN of clients that share their servers, against a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

mod support;

#[path = "listen/waits.rs"]
mod waits;

use support::messages::frontend;
use support::pgweir::{Pgweir, Setup};
use support::postgres::{DATABASE, PASSWORD, PgVersion, Postgres, PostgresOptions, USER, shared};
use support::raw::RawClient;
use support::{eventually, signal};

use std::sync::atomic::{AtomicU32, Ordering};

/// The next line of an idle client.
fn next(client: &mut RawClient) -> String {
    client.read_message().line()
}

/// What a client has got unasked, up to the answer of a statement that proves that no more is due.
fn unasked(client: &mut RawClient) -> Vec<String> {
    // Whatever was committed before is delivered before this one, on a channel that nobody else has.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let last = format!("last_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut lines = client.query(&format!("LISTEN {last}"));
    client.send(&frontend::query(&format!("NOTIFY {last}")));
    // Its own may come before or behind the answer.
    let (mut heard, mut complete, mut answered) = (false, false, false);
    while !(heard && answered) {
        let line = next(client);
        complete |= line == "CommandComplete NOTIFY";
        answered |= complete && line == "ReadyForQuery I";
        if line == format!("NotificationResponse {last} ") {
            heard = true;
        } else {
            lines.push(line);
        }
    }
    lines.retain(|line| line.starts_with("Not"));
    lines
}

fn notified(channel: &str, payload: &str) -> String {
    format!("NotificationResponse {channel} {payload}")
}

fn listen(client: &mut RawClient, channel: &str) {
    let lines = client.query(&format!("LISTEN {channel}"));
    assert_eq!(lines, ["CommandComplete LISTEN", "ReadyForQuery I"]);
}

/// Process id of the connection that listens for all.
fn line_of(postgres: &Postgres) -> u32 {
    let listening = "pg_stat_activity WHERE query LIKE 'LISTEN%' AND usename = 'app'";
    let mut superuser = postgres.superuser();
    eventually("one connection listens for all", || {
        superuser.value(&format!("SELECT count(*) FROM {listening}")) == "1"
    });
    superuser.value(&format!("SELECT pid FROM {listening}")).parse().unwrap()
}

fn pinned(pgweir: &Pgweir) -> f64 {
    pgweir.metric("pgweir_database_connections_currently_session_pinned", "")
}

#[test]
fn many_clients_listen_over_few_servers_and_nobody_is_pinned() {
    let postgres = Postgres::start_with(&PostgresOptions {
        max_connections: 10,
        ..PostgresOptions::default()
    });
    let pgweir = Setup::before(&postgres).start();
    let mut clients: Vec<RawClient> = (0..40).map(|_| pgweir.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        listen(client, "everybody");
        listen(client, &format!("of_{}", number % 2));
    }
    assert_eq!(pinned(&pgweir), 0.0);
    assert_eq!(pgweir.metric("pgweir_client_connections_listening", ""), 40.0);
    assert_eq!(pgweir.metric("pgweir_database_connections_listening", ""), 1.0);
    // It is counted from its request on as any other.
    let count = |name: &str| pgweir.metric(&format!("pgweir_database_connection{name}_total"), "");
    eventually("none is being opened", || count("_requests") == count("s_setup_succeeded"));
    assert_eq!(count("_requests"), count("_requests_with_tls"));

    let mut notifier = pgweir.client();
    for number in 0..50 {
        notifier.execute(&format!("NOTIFY everybody, '{number}'"));
        notifier.execute(&format!("NOTIFY of_{}, '{number}'", number % 2));
    }
    for (at, client) in clients.iter_mut().enumerate() {
        for number in 0..50 {
            assert_eq!(next(client), notified("everybody", &number.to_string()));
            if number % 2 == at % 2 {
                assert_eq!(next(client), notified(&format!("of_{}", at % 2), &number.to_string()));
            }
        }
        assert_eq!(client.value("SELECT 'still in step'"), "still in step");
    }
    assert_eq!(pinned(&pgweir), 0.0);
    assert!(pgweir.metric("pgweir_notifications_delivered_total", "") >= 40.0 * 75.0);
    let mut superuser = postgres.superuser();
    let servers = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
    assert!(superuser.value(servers).parse::<u32>().unwrap() <= 3);
    drop(clients);
    eventually("those who are gone listen no more", || {
        pgweir.metric("pgweir_client_connections_listening", "") == 0.0
    });
}

#[test]
fn listen_of_a_transaction_that_rolls_back_is_not_in_force() {
    let pgweir = Setup::before(shared()).start();
    let mut client = pgweir.client();
    client.execute("BEGIN");
    client.execute("LISTEN rolled_back");
    client.execute("ROLLBACK");
    client.execute("BEGIN; LISTEN kept; SAVEPOINT s; LISTEN lost; ROLLBACK TO s; COMMIT");
    let failed = client.query("LISTEN failed; SELECT 1/0");
    assert_eq!(failed.last().unwrap(), "ReadyForQuery I");
    pgweir
        .client()
        .execute("NOTIFY rolled_back; NOTIFY lost; NOTIFY failed; NOTIFY kept, 'this one'");
    assert_eq!(unasked(&mut client), [notified("kept", "this one")]);
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn who_begins_to_listen_hears_nothing_of_what_was_before() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).start();
    let (mut first, mut late, mut notifier) = (pgweir.client(), pgweir.client(), pgweir.client());
    listen(&mut first, "long_known");
    let line = line_of(&postgres);
    signal(line, "STOP");
    notifier.execute("NOTIFY long_known, 'before'");
    late.send(&frontend::query("LISTEN long_known"));
    // Time enough for a LISTEN that does not care for what is on its way.
    for _ in 0..50 {
        notifier.execute("SELECT 1");
    }
    signal(line, "CONT");
    assert_eq!(next(&mut late), "CommandComplete LISTEN");
    assert_eq!(next(&mut late), "ReadyForQuery I");
    notifier.execute("NOTIFY long_known, 'after'");
    assert_eq!(next(&mut late), notified("long_known", "after"));
    assert_eq!(next(&mut first), notified("long_known", "before"));
    assert_eq!(next(&mut first), notified("long_known", "after"));
}

#[test]
fn who_begins_while_another_waits_for_its_answer_gets_one_too() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).start();
    let mut first = pgweir.client();
    listen(&mut first, "known");
    let line = line_of(&postgres);
    signal(line, "STOP");
    let mut late: Vec<RawClient> = (0..3).map(|_| pgweir.client()).collect();
    for client in &mut late {
        client.send(&frontend::query("LISTEN known"));
        // Time enough for the question that the connection is asked for it.
        for _ in 0..50 {
            first.execute("SELECT 1");
        }
    }
    signal(line, "CONT");
    for client in &mut late {
        assert_eq!(client.until_ready(), ["CommandComplete LISTEN", "ReadyForQuery I"]);
    }
}

#[test]
fn unlisten_ends_it_for_this_client_only() {
    let pgweir = Setup::before(shared()).start();
    let (mut one, mut other) = (pgweir.client(), pgweir.client());
    for client in [&mut one, &mut other] {
        listen(client, "unlisten_a");
        listen(client, "unlisten_b");
    }
    one.execute("UNLISTEN unlisten_a");
    other.execute("UNLISTEN *");
    pgweir.client().execute("NOTIFY unlisten_a; NOTIFY unlisten_b");
    assert_eq!(unasked(&mut one), [notified("unlisten_b", "")]);
    assert!(unasked(&mut other).is_empty());
    one.execute("DISCARD ALL");
    pgweir.client().execute("NOTIFY unlisten_b");
    assert_eq!(unasked(&mut one), [""; 0]);
    assert_eq!(pinned(&pgweir), 0.0);
}

/// What was notified of before is on its way when a client sends each of these.
#[test]
fn what_is_notified_of_before_an_unlisten_is_delivered() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).start();
    let (mut client, mut notifier) = (pgweir.client(), pgweir.client());
    listen(&mut client, "ends");
    let line = line_of(&postgres);
    let pipeline = [
        frontend::parse("", "UNLISTEN ends"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::sync(),
    ];
    let messages = [
        frontend::query("UNLISTEN ends"),
        frontend::query("UNLISTEN *"),
        frontend::query("SELECT 1; UNLISTEN ends; LISTEN another"),
        frontend::query("DISCARD ALL"),
        pipeline.concat(),
        [frontend::query("SELECT 1"), frontend::query("BEGIN; UNLISTEN ends; COMMIT")].concat(),
    ];
    for message in messages {
        listen(&mut client, "ends");
        signal(line, "STOP");
        notifier.execute("NOTIFY ends, 'before'");
        client.send(&message);
        // Time enough for an UNLISTEN that does not care for what is on its way.
        for _ in 0..50 {
            notifier.execute("SELECT 1");
        }
        signal(line, "CONT");
        assert_eq!(unasked(&mut client), [notified("ends", "before")]);
        notifier.execute("NOTIFY ends, 'after'");
        assert_eq!(unasked(&mut client), [""; 0]);
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn unlisten_that_rolls_back_comes_to_nothing() {
    let pgweir = Setup::before(shared()).start();
    let mut client = pgweir.client();
    listen(&mut client, "stays");
    client.execute("BEGIN; UNLISTEN *");
    client.execute("ROLLBACK");
    pgweir.client().execute("NOTIFY stays");
    assert_eq!(unasked(&mut client), [notified("stays", "")]);
}

#[test]
fn in_a_transaction_notifications_wait_for_its_end() {
    let pgweir = Setup::before(shared()).start();
    let mut client = pgweir.client();
    listen(&mut client, "waits");
    client.execute("BEGIN");
    let mut notifier = pgweir.client();
    let mut witness = pgweir.client();
    listen(&mut witness, "waits");
    for number in 0..3 {
        notifier.execute(&format!("NOTIFY waits, '{number}'"));
        assert_eq!(next(&mut witness), notified("waits", &number.to_string()));
    }
    assert_eq!(client.query("SELECT 1").last().unwrap(), "ReadyForQuery T");
    let lines = client.query("COMMIT");
    let expected = [
        "CommandComplete COMMIT".to_owned(),
        notified("waits", "0"),
        notified("waits", "1"),
        notified("waits", "2"),
        "ReadyForQuery I".to_owned(),
    ];
    assert_eq!(lines, expected);
}

/// One that comes while the server is asked what the client left waits for no further message.
#[test]
fn notifications_that_come_at_the_end_of_a_transaction_are_delivered() {
    let pgweir = Setup::before(shared()).start();
    let (mut client, mut notifier) = (pgweir.client(), pgweir.client());
    listen(&mut client, "at_the_end");
    for round in 0..300 {
        notifier.send(&frontend::query(&format!("NOTIFY at_the_end, '{round}'")));
        client.send(&frontend::query(&format!("SET statement_timeout = {}", 10_000 + round)));
        let expected = notified("at_the_end", &round.to_string());
        let (mut ready, mut told) = (false, false);
        while !ready || !told {
            let line = next(&mut client);
            ready |= line == "ReadyForQuery I";
            told |= line == expected;
        }
        notifier.until_ready();
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn ones_own_notification_comes_once() {
    let pgweir = Setup::before(shared()).start();
    let mut client = pgweir.client();
    client.execute("BEGIN; NOTIFY own, 'first'; LISTEN own; NOTIFY own, 'second'");
    client.send(&frontend::query("COMMIT"));
    let mut lines = client.until_ready();
    lines.extend(unasked(&mut client));
    lines.retain(|line| line.starts_with("Notification"));
    assert_eq!(lines, [notified("own", "first"), notified("own", "second")]);
}

#[test]
fn a_pipeline_listens_before_it_notifies() {
    let pgweir = Setup::before(shared()).start();
    let mut client = pgweir.client();
    let statement = |sql: &str| {
        [
            frontend::parse("", sql),
            frontend::bind("", "", &[]),
            frontend::execute("", 0),
            frontend::sync(),
        ]
        .concat()
    };
    client.send(&[statement("LISTEN pipelined"), statement("NOTIFY pipelined, 'x'")].concat());
    let mut lines = client.until_ready();
    assert_eq!(
        lines,
        ["ParseComplete", "BindComplete", "CommandComplete LISTEN", "ReadyForQuery I"]
    );
    lines = client.until_ready();
    lines.extend(unasked(&mut client));
    lines.retain(|line| line.starts_with("Notification"));
    assert_eq!(lines, [notified("pipelined", "x")]);
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn a_server_given_back_listens_on_nothing() {
    let pgweir = Setup::before(shared()).target("max_connections = 2").start();
    let mut client = pgweir.client();
    listen(&mut client, "given_back");
    let mut other = pgweir.client();
    assert_eq!(other.value("SELECT count(*) FROM pg_listening_channels()"), "0");
    other.execute("NOTIFY given_back");
    assert_eq!(next(&mut client), notified("given_back", ""));
}

#[test]
fn a_client_that_takes_nothing_loses_them_and_is_told() {
    let pgweir = Setup::before(shared()).proxy("max_notifications_queued = 5").start();
    let (mut client, mut witness) = (pgweir.client(), pgweir.client());
    listen(&mut client, "overflow");
    listen(&mut witness, "overflow");
    client.execute("BEGIN");
    let mut notifier = pgweir.client();
    for number in 0..12 {
        notifier.execute(&format!("NOTIFY overflow, '{number}'"));
        assert_eq!(next(&mut witness), notified("overflow", &number.to_string()));
    }
    let messages = {
        client.send(&frontend::query("COMMIT"));
        client.messages_until_ready()
    };
    let told: Vec<String> = messages.iter().map(support::messages::Message::line).collect();
    let expected = [
        "CommandComplete COMMIT".to_owned(),
        "NoticeResponse WARNING 01000".to_owned(),
        notified("overflow", "10"),
        notified("overflow", "11"),
        "ReadyForQuery I".to_owned(),
    ];
    assert_eq!(told, expected);
    assert_eq!(messages[1].field('M'), "notifications were lost");
    assert_eq!(pgweir.metric("pgweir_notifications_dropped_total", ""), 10.0);
    notifier.execute("NOTIFY overflow, 'after'");
    assert_eq!(next(&mut client), notified("overflow", "after"));
}

/// Whatever comes while it does not read, it gets as soon as it does.
#[test]
fn a_client_that_reads_late_gets_them_all() {
    let pgweir = Setup::before(shared()).start();
    for pins in [false, true] {
        let mut client = RawClient::connect_with_small_buffer(pgweir.port());
        client.log_in(USER, PASSWORD, DATABASE);
        let (mut witness, mut notifier) = (pgweir.client(), pgweir.client());
        listen(&mut client, "late");
        listen(&mut witness, "late");
        if pins {
            client.execute("CREATE TEMP TABLE pins ()");
        }
        let delivered = || pgweir.metric("pgweir_notifications_delivered_total", "");
        let (before, mut sent) = (delivered(), 0_i32);
        let payload = |number: i32| format!("{number}{}", "x".repeat(7000));
        while delivered() - before > f64::from(2 * sent - 3) {
            notifier.execute(&format!("NOTIFY late, '{}'", payload(sent)));
            assert_eq!(next(&mut witness), notified("late", &payload(sent)));
            sent += 1;
        }
        for number in 0..sent {
            assert_eq!(next(&mut client), notified("late", &payload(number)), "of {sent}");
        }
    }
}

#[test]
fn when_the_listening_connection_is_lost_clients_are_told_and_listen_again() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).start();
    let mut clients: Vec<RawClient> = (0..3).map(|_| pgweir.client()).collect();
    for client in &mut clients {
        listen(client, "lost_a");
        listen(client, "lost_b");
    }
    let mut superuser = postgres.superuser_in(DATABASE);
    let listening = "pg_stat_activity WHERE query LIKE 'LISTEN%' AND usename = 'app'";
    for _ in 0..2 {
        // The clients' own servers are told to stop, in the background.
        eventually("one connection listens for all", || {
            superuser.value(&format!("SELECT count(*) FROM {listening}")) == "1"
        });
        let ended =
            superuser.value(&format!("SELECT count(pg_terminate_backend(pid)) FROM {listening}"));
        assert_eq!(ended, "1");
        for client in &mut clients {
            let message = client.read_message();
            assert_eq!(message.line(), "NoticeResponse WARNING 01000");
            assert_eq!(message.field('M'), "notifications may have been missed");
        }
        superuser.execute("NOTIFY lost_a, 'x'; NOTIFY lost_b, 'y'");
        for client in &mut clients {
            assert_eq!(next(client), notified("lost_a", "x"));
            assert_eq!(next(client), notified("lost_b", "y"));
        }
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn with_a_budget_of_one_the_client_is_pinned() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let mut client = pgweir.client();
    listen(&mut client, "budget_of_one");
    eventually("its server was asked", || {
        pgweir.metric("pgweir_database_connections_currently_session_pinned", "listen") == 1.0
    });
    assert_eq!(
        client.query("NOTIFY budget_of_one, 'x'"),
        ["CommandComplete NOTIFY", &notified("budget_of_one", "x"), "ReadyForQuery I"]
    );
}

#[test]
fn a_client_with_another_encoding_is_pinned() {
    let pgweir = Setup::before(shared()).start();
    let mut client = pgweir.client_with(&[("client_encoding", "LATIN1")]);
    listen(&mut client, "another_encoding");
    eventually("its server was asked", || pinned(&pgweir) == 1.0);
    let mut notifier = pgweir.client();
    notifier.execute("NOTIFY another_encoding, 'é'");
    assert_eq!(client.read_message().body[4..], *b"another_encoding\0\xe9\0");
}

#[test]
fn a_connection_that_nobody_listens_by_makes_room_for_who_waits() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 2")
        .target("connection_borrow_timeout = \"5s\"")
        .start();
    let mut listener = pgweir.client();
    listen(&mut listener, "makes_room");
    listener.execute("UNLISTEN *");
    let (mut holder, mut other) = (pgweir.client(), pgweir.client());
    holder.execute("BEGIN");
    assert_eq!(other.value("SELECT 'in time'"), "in time");
}

#[test]
fn the_connections_that_listen_are_counted_when_they_end_too() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).target("max_connections = 2").start();
    let count = |name: &str| pgweir.metric(&format!("pgweir_database_connections_{name}"), "");
    let mut superuser = postgres.superuser_in(DATABASE);
    let mut all_are_accounted_for = || {
        eventually("those opened less those closed are those that are there", || {
            let there = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
            let there: f64 = superuser.value(there).parse().unwrap();
            count("setup_succeeded_total") - count("closed_total") == there
        });
        assert_eq!(count("setup_latency_seconds_count"), count("setup_succeeded_total"));
    };
    let mut listener = pgweir.client();
    listen(&mut listener, "accounted");
    all_are_accounted_for();
    let mut ended = postgres.superuser_in(DATABASE);
    let pid = line_of(&postgres);
    ended.execute(&format!("SELECT pg_terminate_backend({pid})"));
    assert_eq!(next(&mut listener), "NoticeResponse WARNING 01000");
    assert_eq!(pgweir.metric("pgweir_database_connections_closed_total", "closed_by_server"), 1.0);
    all_are_accounted_for();
    drop(listener);
    // Its connection makes room for who waits.
    let (mut holder, mut other) = (pgweir.client(), pgweir.client());
    holder.execute("BEGIN");
    assert_eq!(other.value("SELECT 'in time'"), "in time");
    assert_eq!(pgweir.metric("pgweir_database_connections_closed_total", "make_room"), 1.0);
    all_are_accounted_for();
}

#[test]
fn while_all_servers_are_taken_a_listener_gets_the_next_one() {
    let pgweir = Setup::before(shared()).start();
    let mut busy: Vec<RawClient> = (0..3).map(|_| pgweir.client()).collect();
    for client in &mut busy {
        client.execute("BEGIN");
    }
    let mut client = pgweir.client();
    client.send(&frontend::query("LISTEN next_one"));
    eventually("it waits for a server", || pgweir.metric("pgweir_waiting_clients", "") == 1.0);
    for client in &mut busy {
        client.execute("COMMIT");
    }
    assert_eq!(client.until_ready(), ["CommandComplete LISTEN", "ReadyForQuery I"]);
    busy[0].execute("NOTIFY next_one");
    assert_eq!(next(&mut client), notified("next_one", ""));
    assert_eq!(pinned(&pgweir), 0.0);
}
