//! Several pgweir over the connections of one PostgreSQL.
//!
//! How long it takes until all shares are in use is printed:
//! `TEST_CONNECTIONS=82 tests/run --test fleet -- --nocapture --test-threads 1`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::print_stdout,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::eventually;
use support::messages::frontend;
use support::pgweir::{Pgweir, Setup, check};
use support::postgres::{OTHER_USER, PASSWORD, PgVersion, Postgres, PostgresOptions, USER};
use support::raw::RawClient;

/// `superuser_reserved_connections` as it comes.
const RESERVED: u32 = 3;

/// Everybody but the superuser who watches, as the database sees them.
const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE backend_type = 'client backend' AND usename <> 'postgres'";

/// The control connections of the fleet.
const CONTROLS: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE application_name LIKE 'pgweir:orders:%'";

fn database(max_connections: u32) -> Postgres {
    Postgres::start_with(&PostgresOptions {
        version: PgVersion::Installed,
        max_connections,
        ..PostgresOptions::default()
    })
}

/// A member of the fleet, with all of the database as the fleet's budget.
fn member(postgres: &Postgres) -> Setup {
    Setup::before(postgres)
        .target("max_connections_percent = 100")
        .without_target("max_connections")
        .environment("PGWEIR_FLEET_NAME", "orders")
}

/// A member of a fleet whose budget is this many connections.
fn member_within(postgres: &Postgres, budget: u32) -> Setup {
    member(postgres)
        .without_target("max_connections_percent")
        .target(&format!("max_connections = {budget}"))
}

/// Clients that keep a member busy until they are told to leave.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<u32>>,
}

impl Load {
    fn on(pgweir: &Pgweir, clients: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let port = pgweir.port();
        let client = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || keep_busy(port, &stop))
        };
        Self { clients: (0..clients).map(client).collect(), stop }
    }

    /// Has the clients leave, and yields how many transactions they had.
    ///
    /// # Panics
    /// When one of them saw an error.
    fn end(self) -> u32 {
        self.stop.store(true, Ordering::Release);
        self.clients.into_iter().map(|client| client.join().expect("no client sees an error")).sum()
    }
}

fn keep_busy(port: u16, stop: &AtomicBool) -> u32 {
    let mut client = RawClient::connect(port);
    client.log_in(USER, PASSWORD, support::postgres::DATABASE);
    let mut transactions = 0;
    while !stop.load(Ordering::Acquire) {
        client.execute("SELECT pg_sleep(0.1)");
        transactions += 1;
    }
    client.send(&frontend::terminate());
    transactions
}

/// Counts the database's connections for as long as it lives.
struct Watcher {
    most: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watcher {
    fn of(postgres: &Postgres) -> Self {
        let (most, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let mut superuser = postgres.superuser();
        let thread = std::thread::spawn({
            let (most, stop) = (Arc::clone(&most), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Acquire) {
                    let now = superuser.value(CONNECTIONS).parse().unwrap();
                    most.fetch_max(now, Ordering::Relaxed);
                    // Sampling at full speed would take the processor from those who are watched.
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self { most, stop, thread }
    }

    /// The most that were ever seen.
    fn most(self) -> u32 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap();
        self.most.load(Ordering::Relaxed)
    }
}

/// Longest until all shares are in use: twice what it takes, which are waits that are known (3 s of grace for who joins).
const IN_USE_WITHIN: Duration = Duration::from_secs(10);

/// Waits until every member sees all others, their shares use up the room, and so do connections; says how long
/// that is after `changed`, when members were told to come or had left.
fn eventually_all_is_in_use(
    superuser: &mut RawClient,
    members: &[&Pgweir],
    room: u32,
    changed: Instant,
) {
    let number = u32::try_from(members.len()).unwrap();
    eventually("shares are as they should be", || {
        let shares: Vec<f64> =
            members.iter().map(|one| one.metric("pgweir_fleet_share_connections", "")).collect();
        let most = shares.iter().copied().fold(0.0, f64::max);
        let least = shares.iter().copied().fold(f64::MAX, f64::min);
        members.iter().all(|one| one.metric("pgweir_fleet_tasks", "") == f64::from(number))
            && shares.iter().sum::<f64>() == f64::from(room)
            && most - least <= 1.0
    });
    eventually("all of them are in use", || superuser.value(CONNECTIONS) == room.to_string());
    let took = changed.elapsed();
    assert!(took <= IN_USE_WITHIN, "{number} members have the room in use after {took:?}");
    println!(
        "{number} members: all of {room} connections are shared out and in use after {took:?}"
    );
    assert_eq!(superuser.value(CONTROLS), number.to_string());
}

/// What the fleet has of the database: 27 connections, or as many as `TEST_CONNECTIONS` says.
fn usable() -> u32 {
    let requested = std::env::var("TEST_CONNECTIONS").ok();
    requested.map_or(27, |number| number.parse().expect("it is a number"))
}

#[test]
fn four_join_and_two_leave_without_an_error_within_what_the_database_has() {
    // Two of its connections are taken by those who watch, and all of the rest is the budget.
    let usable = usable();
    let postgres = database(usable + 2 + RESERVED);
    let (watcher, mut superuser) = (Watcher::of(&postgres), postgres.superuser());
    let changed = Instant::now();
    let first = member_within(&postgres, usable).start();
    let mut loads = vec![Load::on(&first, usable * 4 / 3)];
    // One connection is left for the next member's way in.
    eventually_all_is_in_use(&mut superuser, &[&first], usable - 1, changed);

    // All at once, while the first one uses all there is.
    let changed = Instant::now();
    let joining: Vec<_> = (0..3)
        .map(|_| {
            let setup = member_within(&postgres, usable);
            std::thread::spawn(move || setup.start())
        })
        .collect();
    let mut joined: Vec<Pgweir> =
        joining.into_iter().map(|starting| starting.join().unwrap()).collect();
    loads.extend(joined.iter().map(|pgweir| Load::on(pgweir, usable * 4 / 9)));
    let all: Vec<&Pgweir> = std::iter::once(&first).chain(&joined).collect();
    eventually_all_is_in_use(&mut superuser, &all, usable - 1, changed);

    // As behind a load balancer: those who are told to stop get no clients any more.
    for _ in 0..2 {
        assert!(loads.pop().unwrap().end() > 0);
        assert_eq!(joined.pop().unwrap().stop().code(), Some(0));
    }
    let changed = Instant::now();
    // The one with fewer clients cannot use half of the database.
    loads.push(Load::on(&joined[0], usable / 6));
    eventually_all_is_in_use(&mut superuser, &[&first, &joined[0]], usable - 1, changed);
    for load in loads {
        assert!(load.end() > 0);
    }
    let most = watcher.most();
    assert!((usable - 1..=usable).contains(&most), "{most} at once, {usable} allowed");
}

/// A server that is opened for it must not take the slot of the control connection.
#[test]
fn clients_that_wait_from_the_start_are_served_within_the_share() {
    let postgres = database(100);
    postgres.stop();
    let pgweir = member_within(&postgres, 8).target("fail_fast_after = \"1m\"").launch();
    eventually("it listens", || pgweir.log().contains("ready for clients"));
    let load = Load::on(&pgweir, 12);
    eventually("they wait", || pgweir.metric("pgweir_waiting_clients", "") > 0.0);
    postgres.start_again();
    let (watcher, mut superuser) = (Watcher::of(&postgres), postgres.superuser());
    eventually_all_is_in_use(&mut superuser, &[&pgweir], 7, Instant::now());
    assert_eq!(pgweir.metric("pgweir_max_database_connections_allowed", ""), 6.0);
    assert!(load.end() > 0);
    assert_eq!(watcher.most(), 7);
}

/// Here the database would let them have more.
#[test]
fn a_budget_in_connections_is_kept_by_all_together() {
    let postgres = database(100);
    let (watcher, mut superuser) = (Watcher::of(&postgres), postgres.superuser());
    let start = || member_within(&postgres, 12).start();
    let first = start();
    let mut loads = vec![Load::on(&first, 14)];
    eventually_all_is_in_use(&mut superuser, &[&first], 11, Instant::now());
    let second = start();
    loads.push(Load::on(&second, 14));
    eventually_all_is_in_use(&mut superuser, &[&first, &second], 11, Instant::now());
    let third = start();
    loads.push(Load::on(&third, 14));
    eventually_all_is_in_use(&mut superuser, &[&first, &second, &third], 11, Instant::now());
    for load in loads {
        assert!(load.end() > 0);
    }
    assert!(watcher.most() <= 12);
}

#[test]
fn what_is_pinned_is_given_back_when_its_client_leaves_and_not_taken_before() {
    let postgres = database(100);
    let start = || member_within(&postgres, 8);
    let first = start().start();
    let mut pinned: Vec<_> = (0..6)
        .map(|_| {
            let mut client = first.client();
            client.execute("CREATE TEMP TABLE mine (id int)");
            client
        })
        .collect();
    let second = start().launch();
    eventually("they see each other", || {
        [&first, &second].iter().all(|one| one.metric("pgweir_fleet_tasks", "") == 2.0)
    });
    // It waits at the door: there is not one connection for its clients.
    assert_eq!(second.http_status("/readyz"), Some(503));
    for client in &mut pinned {
        assert_eq!(client.value("SELECT count(*) FROM mine"), "0");
    }
    pinned.truncate(2);
    eventually("there is room", || second.http_status("/readyz") == Some(200));
    assert_eq!(second.client().value("SELECT 'served'"), "served");
    for client in &mut pinned {
        assert_eq!(client.value("SELECT count(*) FROM mine"), "0");
    }
}

/// Otherwise a member could not join for as long as idle clients keep what is its.
#[test]
fn of_pinned_clients_only_those_idle_for_long_leave_and_no_more_than_must() {
    let postgres = database(100);
    let start = || member_within(&postgres, 8).proxy("idle_pinned_timeout = \"1s\"");
    let first = start().start();
    let mut pinned: Vec<_> = (0..6)
        .map(|_| {
            let mut client = first.client();
            client.execute("CREATE TEMP TABLE mine (id int)");
            client
        })
        .collect();
    let (inside, idle) = pinned.split_at_mut(1);
    inside[0].execute("BEGIN");
    let idle_for = Instant::now();
    eventually("they are idle for longer than that", || {
        assert_eq!(
            first.metric("pgweir_client_connections", ""),
            6.0,
            "nobody needs their servers"
        );
        idle_for.elapsed() > Duration::from_secs(3)
    });

    let second = start().start();
    assert_eq!(second.client().value("SELECT 'served'"), "served");
    // Of seven connections each has its part, of which one is the control connection.
    eventually("their parts are equal", || {
        let share = |one: &Pgweir| one.metric("pgweir_fleet_share_connections", "");
        share(&first) + share(&second) == 7.0 && (share(&first) - share(&second)).abs() == 1.0
    });
    let kept = if first.metric("pgweir_fleet_share_connections", "") == 4.0 { 3 } else { 2 };
    eventually("no more is kept than may be", || {
        ["pgweir_database_connections", "pgweir_client_connections"]
            .iter()
            .all(|name| first.metric(name, "") == f64::from(kept))
    });
    // Of those who became idle within a moment, any may be the first to go.
    let leave = 6 - usize::try_from(kept).unwrap();
    let has_left = |number: usize| first.log().contains(&format!("closed client={number} "));
    eventually("who has left is in the log", || {
        (1..=6).filter(|one| has_left(*one)).count() == leave
    });
    assert_eq!(inside[0].value("SELECT count(*) FROM mine"), "0");
    for (number, client) in (2..).zip(idle) {
        if has_left(number) {
            assert_eq!(client.until_closed(), ["ErrorResponse FATAL 57P01"]);
        } else {
            assert_eq!(client.value("SELECT count(*) FROM mine"), "0");
        }
    }
}

#[test]
fn idle_servers_beyond_the_share_are_given_back() {
    let postgres = database(100);
    let mut superuser = postgres.superuser();
    let start = || member_within(&postgres, 9).start();
    let first = start();
    let load = Load::on(&first, 12);
    eventually_all_is_in_use(&mut superuser, &[&first], 8, Instant::now());
    load.end();
    let second = start();
    let load = Load::on(&second, 12);
    eventually("the second one has its share", || {
        second.metric("pgweir_fleet_share_connections", "") == 4.0
            && second.metric("pgweir_database_connections", "") == 3.0
    });
    eventually("the first one has given back", || {
        first.metric("pgweir_database_connections", "") <= 3.0
    });
    load.end();
}

#[test]
fn a_lost_control_connection_disturbs_nobody_and_comes_back() {
    let postgres = database(30);
    let pgweir = member(&postgres).start();
    let mut superuser = postgres.superuser();
    let controls = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgweir:orders:%'";
    eventually("it has its share", || pgweir.metric("pgweir_fleet_share_connections", "") == 26.0);
    let load = Load::on(&pgweir, 4);
    let before = superuser.value(controls);
    assert_eq!(superuser.value(&format!("SELECT pg_terminate_backend({before})")), "t");
    eventually("there is another one", || {
        let now = superuser.execute(controls).concat();
        !now.is_empty() && now != [before.clone()]
    });
    assert_eq!(pgweir.metric("pgweir_fleet_share_connections", ""), 26.0);
    assert_eq!(pgweir.http_status("/readyz"), Some(200));
    assert!(load.end() > 0);
}

/// The one that is gone would be the first to log in as.
#[test]
fn a_member_goes_on_as_another_user_when_its_own_has_no_secret_any_more() {
    let postgres = database(100);
    let mut superuser = postgres.superuser();
    superuser.execute(&format!("CREATE ROLE renamed LOGIN PASSWORD '{PASSWORD}'"));
    let start = || member_within(&postgres, 12).proxy("secret_overlap = \"1s\"").start();
    let first = start();
    first.rename_user(USER, "renamed");
    let of_user = |user: &str| {
        format!(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgweir:orders:%' AND usename {user}"
        )
    };
    let own = of_user(&format!("= '{USER}'"));
    eventually("it is another user", || superuser.execute(&own).is_empty());
    let other = of_user(&format!("<> '{USER}'"));
    eventually("it is back", || superuser.execute(&other).len() == 1);
    let before = superuser.value(&other);
    superuser.execute(&format!("SELECT pg_terminate_backend({before})"));
    eventually("there is another one", || {
        let now = superuser.execute(&other).concat();
        !now.is_empty() && now != [before.clone()]
    });
    assert_eq!(first.http_status("/readyz"), Some(200));
    // This one hears of it later.
    let second = start();
    second.rename_user(USER, "renamed");
    eventually("they see each other", || {
        let share = |one: &Pgweir| one.metric("pgweir_fleet_share_connections", "");
        let tasks = |one: &Pgweir| one.metric("pgweir_fleet_tasks", "");
        tasks(&first) == 2.0 && tasks(&second) == 2.0 && share(&first) + share(&second) == 11.0
    });
}

#[test]
fn after_a_restart_of_the_database_its_members_find_each_other_again() {
    let postgres = database(100);
    let members = [(); 2].map(|()| member_within(&postgres, 12).start());
    let shared_out = || {
        let share = |one: &Pgweir| one.metric("pgweir_fleet_share_connections", "");
        let tasks = |one: &Pgweir| one.metric("pgweir_fleet_tasks", "");
        members.iter().all(|one| tasks(one) == 2.0)
            && members.iter().map(share).sum::<f64>() == 11.0
    };
    eventually("it is shared out", shared_out);
    postgres.crash();
    eventually("it is noticed", || {
        members.iter().all(|one| one.http_status("/readyz") == Some(503))
    });
    postgres.start_again();
    eventually("they are back", || {
        members.iter().all(|one| one.http_status("/readyz") == Some(200))
    });
    eventually("it is shared out again", shared_out);
    for member in &members {
        assert_eq!(member.client().value("SELECT 'served'"), "served");
    }
}

#[test]
fn a_fixed_share_is_taken_and_the_others_have_the_rest() {
    let postgres = database(100);
    let start =
        |share: &str| member_within(&postgres, 21).environment("PGWEIR_FLEET_SHARE", share).start();
    let fixed = start("25%");
    let equal = start("equal");
    eventually("shares are as configured", || {
        let share = |pgweir: &Pgweir| pgweir.metric("pgweir_fleet_share_connections", "");
        (share(&fixed), share(&equal)) == (5.0, 15.0)
    });
    let detail = equal.http_get("/readyz").unwrap();
    assert!(detail.contains("budget of 15 connections, one of 2 in fleet orders"), "{detail}");
    assert_eq!(equal.metric("pgweir_max_database_connections_allowed", ""), 14.0);
    assert_eq!(equal.metric("pgweir_target_writable", ""), 1.0);
}

#[test]
fn strangers_in_the_database_cannot_pass_for_a_member() {
    let postgres = database(100);
    let mut stranger = postgres.superuser();
    stranger.execute("SET application_name = 'pgweir:orders:00000001:0/262143'");
    let members = [(); 2].map(|()| member_within(&postgres, 12).start());
    eventually("all of it is theirs", || {
        let share = |one: &Pgweir| one.metric("pgweir_fleet_share_connections", "");
        members.iter().all(|one| one.metric("pgweir_fleet_tasks", "") == 2.0)
            && members.iter().map(share).sum::<f64>() == 11.0
    });
    assert_eq!(stranger.value("SHOW application_name"), "pgweir:orders:00000001:0/262143");
}

#[test]
fn with_a_user_of_its_own_a_fleet_takes_no_client_for_a_member() {
    let postgres = database(100);
    let start =
        || member_within(&postgres, 12).environment("PGWEIR_FLEET_USER", OTHER_USER).start();
    let first = start();
    let mut client = first.client_with(&[("application_name", "pgweir:orders:00000001:0/262143")]);
    client.execute("BEGIN");
    assert_eq!(client.value("SHOW application_name"), "pgweir:orders:00000001:0/262143");
    let members = [first, start()];
    eventually("all of it is theirs", || {
        let share = |one: &Pgweir| one.metric("pgweir_fleet_share_connections", "");
        members.iter().all(|one| one.metric("pgweir_fleet_tasks", "") == 2.0)
            && members.iter().map(share).sum::<f64>() == 11.0
    });
    client.execute("COMMIT");

    let said = member(&postgres).environment("PGWEIR_FLEET_USER", "nobody");
    let said = said.command(&["check"]).output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("fleet: its user nobody has no secret that can be used"), "{said}");
}

#[test]
fn the_check_names_the_fleet() {
    let postgres = database(30);
    let said = check(&member(&postgres));
    assert!(said.contains("fleet: orders, which has this budget; share: equal\n"), "{said}");
}
