//! Bounds: waiting, clients, file descriptors, and connections of the target.

use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup, check};
use crate::support::postgres::{
    DATABASE, OTHER_DATABASE, OTHER_USER, PASSWORD, Postgres, PostgresOptions, USER, shared,
};
use crate::support::raw::{RawClient, cancel};
use crate::support::{eventually, run};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn lets_in_again(pgweir: &Pgweir) {
    eventually("there is room again", || {
        let mut client = RawClient::connect(pgweir.port());
        client.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).is_ok()
    });
}

#[test]
fn waiting_for_a_server_ends_with_the_words_of_rds_proxy() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .target("connection_borrow_timeout = \"500ms\"")
        .start();
    let mut holder = pgweir.client();
    holder.execute("BEGIN");
    let mut client = pgweir.client();
    let begun = Instant::now();
    client.send(&frontend::query("SELECT 1"));
    let error = client.read_message();
    let waited = begun.elapsed();
    assert_eq!(error.line(), "ErrorResponse ERROR 08000");
    assert_eq!(error.field('M'), "Timed-out waiting to acquire database connection.");
    assert!(error.field('D').contains("all connections of the budget are in use"));
    assert!(waited >= Duration::from_millis(500) && waited < Duration::from_secs(3), "{waited:?}");
    assert_eq!(client.until_ready(), ["ReadyForQuery I"]);
    // A batch is refused as a whole.
    let transcript = client.batch(&[
        frontend::parse("", "SELECT 1"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::sync(),
    ]);
    assert_eq!(transcript, ["ErrorResponse ERROR 08000", "ReadyForQuery I"]);
    holder.execute("COMMIT");
    assert_eq!(client.value("SELECT 'alive'"), "alive");
}

#[test]
fn a_borrow_timeout_of_zero_fails_at_once() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .target("connection_borrow_timeout = \"0s\"")
        .start();
    let mut holder = loop {
        // Before the first server is open there is none that could be idle.
        let mut client = RawClient::connect(pgweir.port());
        if client.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).is_ok() {
            break client;
        }
    };
    holder.execute("BEGIN");
    let mut client = pgweir.client();
    let begun = Instant::now();
    assert_eq!(client.query("SELECT 1"), ["ErrorResponse ERROR 08000", "ReadyForQuery I"]);
    assert!(begun.elapsed() < Duration::from_secs(1));
    holder.execute("COMMIT");
    assert_eq!(client.value("SELECT 'alive'"), "alive");
}

#[test]
fn waiters_are_served_in_their_order() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").proxy("workers = 1").start();
    let mut holder = pgweir.client();
    holder.execute("CREATE TEMP TABLE hold (id int)");
    let mut superuser = shared().superuser_in(DATABASE);
    superuser.execute("DROP TABLE IF EXISTS arrivals; CREATE TABLE arrivals (at serial, who int); GRANT ALL ON arrivals, arrivals_at_seq TO app");
    let mut waiting = Vec::new();
    for who in 0..10 {
        let mut client = pgweir.client();
        client.send(&frontend::query(&format!("INSERT INTO arrivals (who) VALUES ({who})")));
        eventually("it waits", || {
            pgweir.metric("pgweir_waiting_clients", "") >= f64::from(who + 1)
        });
        waiting.push(client);
    }
    drop(holder);
    for client in &mut waiting {
        client.until_ready();
        client.send(&frontend::terminate());
    }
    let order = superuser.value("SELECT string_agg(who::text, ' ' ORDER BY at) FROM arrivals");
    assert_eq!(order, "0 1 2 3 4 5 6 7 8 9");
}

#[test]
fn clients_beyond_the_maximum_are_told_and_cancel_requests_still_work() {
    let pgweir = Setup::before(shared()).proxy("max_client_connections = 3").start();
    let mut clients: Vec<_> = (0..3).map(|_| pgweir.client()).collect();
    clients[0].send(&frontend::query("SELECT pg_sleep(60) /* beyond */"));
    let mut superuser = shared().superuser();
    eventually("the query runs", || {
        superuser.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%/* beyond%'") == "1"
    });
    let mut fourth = RawClient::connect(pgweir.port());
    let refusal = fourth.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).unwrap_err();
    assert_eq!(refusal.line(), "ErrorResponse FATAL 53300");
    assert_eq!(fourth.until_closed(), Vec::<String>::new());
    cancel(pgweir.port(), clients[0].process_id, &clients[0].key);
    assert!(clients[0].until_ready().contains(&"ErrorResponse ERROR 57014".to_owned()));
    clients.pop();
    lets_in_again(&pgweir);
}

#[test]
fn without_file_descriptors_accepting_pauses_and_goes_on() {
    let pgweir = Setup::before(shared()).target("max_connections = 2").start();
    let mut first = pgweir.client();
    first.execute("SELECT 1");
    let open = std::fs::read_dir(format!("/proc/{}/fd", pgweir.pid())).unwrap().count();
    run(Command::new("prlimit").arg(format!("--pid={}", pgweir.pid())).arg(format!(
        "--nofile={}:{}",
        open + 5,
        open + 5
    )));
    // More than fit: the rest waits in the kernel's queue.
    let idle: Vec<_> = (0..20).map(|_| RawClient::connect(pgweir.port())).collect();
    eventually("it is noticed", || pgweir.log().contains("cannot accept a client"));
    assert_eq!(first.value("SELECT 'served'"), "served");
    drop(idle);
    assert_eq!(pgweir.client().value("SELECT 'accepted'"), "accepted");
    let complaints = pgweir.log().matches("cannot accept a client").count();
    assert_eq!(complaints, 1, "it is said once");
}

#[test]
fn clients_leave_descriptors_for_servers_health_checks_and_refusals() {
    const BUDGET: usize = 5;
    let setup = || {
        Setup::before(shared())
            .target(&format!("max_connections = {BUDGET}"))
            .proxy("workers = 2")
            .descriptors("60:60")
    };
    let said = check(&setup());
    assert!(
        said.contains("file descriptors: limit of 60 (ulimit -n, nofile), enough for "),
        "{said}"
    );
    let pgweir = setup().start();
    eventually("it is warned of", || {
        pgweir.log().contains("is too low for max_client_connections")
    });
    let mut clients = Vec::new();
    let refusal = loop {
        let mut client = RawClient::connect(pgweir.port());
        match client.try_log_in(USER, PASSWORD, &[("database", DATABASE)]) {
            Ok(()) => clients.push(client),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal.line(), "ErrorResponse FATAL 53300");
    assert!(
        refusal.field('H').contains("(ulimit -n, nofile), which is 60"),
        "{}",
        refusal.field('H')
    );
    assert!(clients.len() > BUDGET, "{} clients", clients.len());
    // These take the places of those that are told.
    let silent: Vec<_> = (0..5).map(|_| RawClient::connect(pgweir.port())).collect();
    for client in &mut clients[..BUDGET] {
        client.execute("BEGIN");
    }
    let open = "pgweir_database_connections_currently_borrowed";
    assert_eq!(pgweir.metric(open, ""), 5.0, "the whole budget is open");
    assert_eq!(pgweir.http_status("/healthz"), Some(200));
    assert!(!pgweir.log().contains("cannot accept a client"));
    drop(silent);
    clients.pop();
    lets_in_again(&pgweir);
}

#[test]
fn a_low_soft_limit_of_descriptors_is_raised() {
    let pgweir = Setup::before(shared()).descriptors("64:512").start();
    assert_eq!(pgweir.metric("process_max_fds", ""), 512.0);
}

/// Counts the servers of pgweir's users while `work` runs.
fn most_servers(postgres: &Postgres, work: impl FnOnce() + Send) -> u32 {
    let (done, most) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut superuser = postgres.superuser();
            while !done.load(Ordering::Acquire) {
                let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename IN ('app', 'other')";
                most.fetch_max(superuser.value(sql).parse().unwrap(), Ordering::AcqRel);
            }
        });
        work();
        done.store(true, Ordering::Release);
    });
    most.into_inner()
}

#[test]
fn the_budget_holds_over_two_pools_and_neither_starves() {
    const BUDGET: u32 = 4;
    let postgres = Postgres::start_with(&PostgresOptions::default());
    let pgweir = Setup::before(&postgres).target(&format!("max_connections = {BUDGET}")).start();
    let most = most_servers(&postgres, || {
        std::thread::scope(|scope| {
            for number in 0..16 {
                let pgweir = &pgweir;
                scope.spawn(move || work(pgweir, number));
            }
        });
    });
    assert!((2..=BUDGET).contains(&most), "{most} servers of {BUDGET}");
}

/// Half of the clients work in one pool, half in the other; some vanish inside their transaction.
fn work(pgweir: &Pgweir, number: u32) {
    let (user, database) =
        if number.is_multiple_of(2) { (USER, DATABASE) } else { (OTHER_USER, OTHER_DATABASE) };
    for round in 0..10 {
        let mut client = pgweir.client_as(user, database);
        for _ in 0..5 {
            assert_eq!(client.value("SELECT current_user"), user);
        }
        client.execute("BEGIN");
        client.execute("SELECT pg_sleep(0.01)");
        if !(number + round).is_multiple_of(5) {
            client.execute("COMMIT");
        }
    }
}

#[test]
fn a_pool_that_starves_gets_a_server_of_a_busy_other() {
    let postgres = Postgres::start_with(&PostgresOptions::default());
    // With one for two pools, neither has a share: they take turns.
    for budget in [2, 1] {
        let pgweir =
            Setup::before(&postgres).target(&format!("max_connections = {budget}")).start();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let mut client = pgweir.client();
                    while !done.load(Ordering::Acquire) {
                        client.execute("SELECT pg_sleep(0.005)");
                    }
                });
            }
            eventually("the first pool is busy", || {
                pgweir.metric("pgweir_waiting_clients", "") >= 3.0
            });
            let begun = Instant::now();
            let mut other = RawClient::connect(pgweir.port());
            let outcome = other.try_log_in(OTHER_USER, PASSWORD, &[("database", OTHER_DATABASE)]);
            let said = outcome.map(|()| other.query("SELECT current_user"));
            let took = begun.elapsed();
            done.store(true, Ordering::Release);
            assert_eq!(said.expect("it is let in")[1], format!("DataRow {OTHER_USER}"));
            assert!(took < Duration::from_secs(5), "{took:?} with {budget}");
        });
    }
}

/// Nobody looks after those who wait in time: whoever gives a server back does.
#[test]
fn a_server_given_back_in_one_pool_makes_room_for_another_at_once() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .target("connection_borrow_timeout = \"800ms\"")
        .start();
    let mut clients = [pgweir.client(), pgweir.client_as(OTHER_USER, OTHER_DATABASE)];
    for _ in 0..10 {
        let [holder, other] = &mut clients;
        holder.execute("BEGIN");
        other.send(&frontend::query("SELECT 'served'"));
        eventually("it waits", || pgweir.metric("pgweir_waiting_clients", "") == 1.0);
        holder.execute("COMMIT");
        assert_eq!(other.until_ready()[1], "DataRow served");
        clients.rotate_left(1);
    }
}

#[test]
fn idle_clients_change_threads_without_a_file_descriptor_to_spare() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").proxy("workers = 2").start();
    // As long as these log in on the first thread, others go to the second.
    let mut logins: Vec<_> = (0..4).map(|_| RawClient::connect(pgweir.port())).collect();
    eventually("they are there", || pgweir.metric("pgweir_client_connections_in_setup", "") == 4.0);
    let mut client = pgweir.client();
    client.execute("SELECT 1");
    let taken: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", pgweir.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap().parse::<u32>().unwrap())
        .collect();
    let free = (0..=1000).find(|number| !taken.contains(number)).unwrap();
    run(Command::new("prlimit")
        .arg(format!("--pid={}", pgweir.pid()))
        .arg(format!("--nofile={free}:{free}")));
    // So little to do that the first thread serves all.
    for _ in 0..100 {
        client.execute("SELECT pg_sleep(0.01)");
    }
    logins.clear();
}

#[test]
fn an_idle_server_of_one_pool_makes_room_for_another() {
    let postgres = Postgres::start_with(&PostgresOptions::default());
    let pgweir = Setup::before(&postgres).target("max_connections = 1").start();
    for _ in 0..5 {
        assert_eq!(pgweir.client().value("SELECT current_user"), USER);
        let mut other = pgweir.client_as(OTHER_USER, OTHER_DATABASE);
        assert_eq!(other.value("SELECT current_user"), OTHER_USER);
    }
    assert!(pgweir.metric("pgweir_database_connections_closed_total", "make_room") >= 5.0);
}
