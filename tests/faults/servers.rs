//! Servers that die, refuse, or talk nonsense, and targets that are not there.

use crate::support::messages::{backend, frame, frontend};
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{DATABASE, PASSWORD, PgVersion, Postgres, USER, shared};
use crate::support::raw::RawClient;
use crate::support::scripted::{Scripted, ScriptedServer, mentions};
use crate::support::{eventually, free_port, signal};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// In front of a scripted server with a pool of one.
fn before(server: &ScriptedServer) -> Setup {
    Setup::before_port(server.port())
        .user(USER, PASSWORD)
        .target("tls = \"disable\"")
        .target("max_connections = 1")
}

/// A server that behaves until a statement has `'fault'` in it, and then does what is told.
fn faulty(
    fault: impl Fn(&mut Scripted) -> io::Result<()> + Send + Sync + 'static,
) -> (ScriptedServer, Pgweir) {
    let server = ScriptedServer::start(move |connection| {
        connection.accept_login()?;
        loop {
            connection.behave_until(|message| mentions(message, "'fault'"))?;
            fault(connection)?;
        }
    });
    let pgweir = before(&server).start();
    (server, pgweir)
}

/// What a client reads to the end of its connection; another then finds a server that works.
fn told(pgweir: &Pgweir) -> Vec<String> {
    let mut client = pgweir.client();
    client.send(&frontend::query("SELECT 'fault'"));
    let said = client.until_closed();
    let transcript = pgweir.client().query("SELECT 1");
    assert_eq!(transcript, ["CommandComplete SELECT 0", "ReadyForQuery I"]);
    said
}

const LOST: &str = "ErrorResponse FATAL 08006";

#[test]
fn a_server_that_dies_before_inside_and_after_its_reply() {
    let gone = || Err(io::ErrorKind::ConnectionAborted.into());
    let (_server, pgweir) = faulty(move |_| gone());
    assert_eq!(told(&pgweir), [LOST]);

    let (_server, pgweir) = faulty(move |connection| {
        connection.send(&backend::row_description(&["a"]))?;
        connection.send(&backend::data_row(&["1"])[..6])?;
        gone()
    });
    // A message that was begun cannot be taken back: nothing can be said behind its half.
    let said = told(&pgweir);
    assert_eq!(said[0], "RowDescription a");
    assert!(!said.iter().any(|line| line.starts_with("DataRow")), "{said:?}");

    let (_server, pgweir) = faulty(move |connection| {
        connection.send(&backend::command_complete("SELECT 0"))?;
        gone()
    });
    assert_eq!(told(&pgweir), ["CommandComplete SELECT 0", LOST]);

    let (_server, pgweir) = faulty(move |connection| {
        let end = [backend::command_complete("SELECT 0"), backend::ready_for_query(b'I')];
        connection.send(&end.concat())?;
        gone()
    });
    let mut client = pgweir.client();
    for _ in 0..3 {
        // The client is not bound to the server that died behind its back.
        assert_eq!(client.query("SELECT 'fault'"), ["CommandComplete SELECT 0", "ReadyForQuery I"]);
    }
}

#[test]
fn a_server_that_is_shut_down_says_so_to_its_client() {
    let (_server, pgweir) = faulty(|connection| {
        connection.send(&backend::error("FATAL", "57P01", "terminating connection"))?;
        Err(io::ErrorKind::ConnectionAborted.into())
    });
    assert_eq!(told(&pgweir), ["ErrorResponse FATAL 57P01"]);
}

/// The client takes its time, so that the last words have to wait for it.
#[test]
fn the_last_words_of_a_server_reach_a_slow_client_once() {
    let (_server, pgweir) = faulty(|connection| {
        let row = backend::data_row(&[&"x".repeat(10_000)]);
        for _ in 0..300 {
            connection.send(&row)?;
        }
        connection.send(&backend::error("FATAL", "57P01", "terminating connection"))?;
        Err(io::ErrorKind::ConnectionAborted.into())
    });
    for _ in 0..5 {
        let mut client = RawClient::connect_with_small_buffer(pgweir.port());
        client.log_in(USER, PASSWORD, DATABASE);
        client.send(&frontend::query("SELECT 'fault'"));
        let said = client.until_closed();
        let (rows, words) = said.split_at(300.min(said.len()));
        assert!(rows.iter().all(|line| line.starts_with("DataRow")));
        assert_eq!(words, ["ErrorResponse FATAL 57P01"]);
    }
}

/// What a server says between two batches comes whole or not at all, as the next answer is another server's.
#[test]
fn half_a_message_behind_an_answer_does_not_reach_a_client_that_goes_on() {
    for size in [300, 10_000, 30_000] {
        let told = Arc::new(AtomicBool::new(false));
        let is_told = Arc::clone(&told);
        let (_server, pgweir) = faulty(move |connection| {
            let notice =
                frame(b'N', &[b"SWARNING\0VWARNING\0C57P02\0M", &vec![b'x'; size], b"\0\0"]);
            let answer = [backend::command_complete("SELECT 0"), backend::ready_for_query(b'I')];
            let (half, rest) = notice.split_at(size / 2);
            connection.send(&[&answer.concat()[..], half].concat())?;
            eventually("the client was told", || is_told.load(Ordering::Acquire));
            connection.send(rest)
        });
        let mut client = pgweir.client();
        client.send(&frontend::query("SELECT 'fault'"));
        let mut said = client.until_ready();
        assert_eq!(said, ["CommandComplete SELECT 0", "ReadyForQuery I"]);
        client.send(&frontend::query("SELECT 1"));
        told.store(true, Ordering::Release);
        said.extend(client.until_ready_or_closed());
        let (before, behind) = said.split_at(2);
        // Too large to be waited for: the connection ends there.
        let lost = size == 30_000 && behind.is_empty();
        assert!(lost || behind == before, "{size}: {behind:?}");
    }
}

#[test]
fn a_server_that_dies_inside_a_transaction_takes_its_client_along() {
    let (_server, pgweir) = faulty(|connection| {
        connection.send(&backend::command_complete("BEGIN"))?;
        connection.send(&backend::ready_for_query(b'T'))?;
        Err(io::ErrorKind::ConnectionAborted.into())
    });
    let mut client = pgweir.client();
    assert_eq!(client.query("SELECT 'fault'"), ["CommandComplete BEGIN", "ReadyForQuery T"]);
    assert_eq!(client.until_closed(), [LOST]);
    assert_eq!(pgweir.client().query("SELECT 1").len(), 2);
}

#[test]
fn nonsense_from_a_server_closes_it_and_reaches_nobody_else() {
    let nonsense: [Vec<u8>; 9] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        b"D\0\0\0\0".to_vec(),
        b"D\xff\xff\xff\xff".to_vec(),
        b"Z\0\0\0\x05X".to_vec(),
        b"Z\0\0\0\x04".to_vec(),
        backend::parse_complete(),
        backend::close_complete(),
        frame(b'~', &[b"what"]),
        [
            backend::command_complete("SELECT 0"),
            backend::ready_for_query(b'I'),
            backend::data_row(&["not asked for"]),
        ]
        .concat(),
    ];
    for bytes in nonsense {
        let sent = bytes.clone();
        let (_server, pgweir) = faulty(move |connection| {
            connection.send(&sent)?;
            connection.hang()
        });
        let mut client = pgweir.client();
        client.send(&frontend::query("SELECT 'fault'"));
        let said = client.until_ready_or_closed();
        assert!(!said.iter().any(|line| line.starts_with("DataRow")), "{bytes:?}: {said:?}");
        let mut next = pgweir.client();
        let transcript = next.query("SELECT 1");
        assert_eq!(transcript, ["CommandComplete SELECT 0", "ReadyForQuery I"], "{bytes:?}");
    }
}

/// Said between two clients, it belongs to neither.
#[test]
fn what_an_idle_server_says_reaches_no_client() {
    for unasked in [
        backend::data_row(&["unasked"]),
        backend::ready_for_query(b'I'),
        backend::error("FATAL", "57P01", "terminating connection"),
        frame(b'A', &[b"\0\0\0\x01channel\0payload\0"]),
    ] {
        let (may, said) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (speak, spoken) = (Arc::clone(&may), Arc::clone(&said));
        let (server, pgweir) = faulty(move |connection| {
            connection
                .send(&[backend::command_complete("X"), backend::ready_for_query(b'I')].concat())?;
            eventually("the server may speak", || speak.load(Ordering::Acquire));
            connection.send(&unasked)?;
            spoken.store(true, Ordering::Release);
            connection.behave()
        });
        let mut client = pgweir.client();
        assert_eq!(client.query("SELECT 'fault'"), ["CommandComplete X", "ReadyForQuery I"]);
        let opened = server.connections();
        may.store(true, Ordering::Release);
        eventually("the server has spoken", || said.load(Ordering::Acquire));
        // Noticed by itself, or when it is lent.
        eventually("another server is used", || {
            assert_eq!(client.query("SELECT 1"), ["CommandComplete SELECT 0", "ReadyForQuery I"]);
            server.connections() > opened
        });
    }
}

/// An implicit transaction is open until Sync: its server is nobody else's, however its replies
/// are cut.
#[test]
fn a_batch_that_was_flushed_keeps_its_server() {
    let server = ScriptedServer::start(|connection| {
        connection.accept_login()?;
        connection.behave_until(|message| mentions(message, "first"))?;
        // Read, but answered together with what comes behind it.
        let reply = [
            backend::command_complete("SELECT 0"),
            backend::ready_for_query(b'I'),
            backend::parse_complete(),
            backend::bind_complete(),
            backend::command_complete("SELECT 1"),
        ];
        for _ in 0..4 {
            connection.read_message()?;
        }
        connection.send(&reply.concat())?;
        connection.behave_until(|message| {
            assert!(!mentions(message, "other"), "another client inside the batch");
            message.tag == b'S'
        })?;
        connection.send(&backend::ready_for_query(b'I'))?;
        connection.behave()
    });
    let pgweir = before(&server).start();
    let mut client = pgweir.client();
    let batch = [
        frontend::query("SELECT 'first'"),
        frontend::parse("", "SELECT 2"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::flush(),
    ];
    client.send(&batch.concat());
    client.until_ready();
    for expected in ["ParseComplete", "BindComplete", "CommandComplete SELECT 1"] {
        assert_eq!(client.read_message().line(), expected);
    }
    let mut other = pgweir.client();
    other.send(&frontend::query("SELECT 'other'"));
    eventually("the other one waits", || pgweir.metric("pgweir_waiting_clients", "") >= 1.0);
    client.send(&frontend::sync());
    assert_eq!(client.until_ready(), ["ReadyForQuery I"]);
    assert_eq!(other.until_ready(), ["CommandComplete SELECT 0", "ReadyForQuery I"]);
}

#[test]
fn a_target_that_is_full_makes_clients_wait() {
    let full = Arc::new(AtomicBool::new(true));
    let refused = Arc::new(AtomicUsize::new(0));
    let (is_full, count) = (Arc::clone(&full), Arc::clone(&refused));
    let server = ScriptedServer::start(move |connection| {
        if is_full.load(Ordering::Acquire) {
            connection.read_first()?;
            count.fetch_add(1, Ordering::AcqRel);
            return connection.send(&backend::error(
                "FATAL",
                "53300",
                "sorry, too many clients already",
            ));
        }
        connection.accept_login()?;
        connection.behave()
    });
    let pgweir = before(&server).target("fail_fast_after = \"0s\"").launch();
    eventually("pgweir listens", || pgweir.http_status("/healthz") == Some(200));
    let waiting = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut client = pgweir.client();
            client.query("SELECT 1")
        });
        eventually("several tries", || refused.load(Ordering::Acquire) >= 3);
        full.store(false, Ordering::Release);
        client.join().unwrap()
    });
    assert_eq!(waiting, ["CommandComplete SELECT 0", "ReadyForQuery I"]);
}

#[test]
fn a_target_that_refuses_the_password_is_reported_and_tried_again() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).start();
    let mut client = pgweir.client();
    postgres.superuser().execute("ALTER ROLE app PASSWORD 'changed'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
    eventually("the server is gone", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        postgres.superuser().value(sql) == "0"
    });
    eventually("the client is told", || {
        let said = client.query("SELECT 1");
        said == ["ErrorResponse ERROR 28P01", "ReadyForQuery I"]
    });
    // Only who logs in now is told that it is the end.
    let login =
        RawClient::connect(pgweir.port()).try_log_in(USER, PASSWORD, &[("database", "postgres")]);
    assert_eq!(login.unwrap_err().line(), "ErrorResponse FATAL 28P01");
    postgres.superuser().execute(&format!("ALTER ROLE app PASSWORD '{PASSWORD}'"));
    eventually("clients are served again", || {
        let mut client = RawClient::connect(pgweir.port());
        client.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).is_ok()
            && client.query("SELECT 1").len() == 4
    });
}

#[test]
fn a_target_that_comes_late_serves_those_who_waited() {
    let postgres = Postgres::start(PgVersion::Installed);
    postgres.stop();
    let pgweir = Setup::before(&postgres).launch();
    eventually("pgweir listens", || pgweir.http_status("/healthz") == Some(200));
    assert_eq!(pgweir.http_status("/readyz"), Some(503));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| pgweir.client().value("SELECT 'late'"));
        eventually("it was tried", || {
            pgweir.metric("pgweir_database_connections_setup_failed_total", "") >= 1.0
        });
        postgres.start_again();
        assert_eq!(client.join().unwrap(), "late");
    });
    eventually("it is ready", || pgweir.http_status("/readyz") == Some(200));
}

#[test]
fn a_target_that_crashes_and_comes_back_is_used_again() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).start();
    let mut idle = pgweir.client();
    idle.execute("SELECT 1");
    let mut busy = pgweir.client();
    busy.execute("BEGIN");
    postgres.crash();
    assert_eq!(busy.until_closed(), [LOST]);
    eventually("it is not ready", || {
        let _ = RawClient::connect(pgweir.port()).try_send(&[]);
        let mut client = pgweir.client();
        client.send(&frontend::query("SELECT 1"));
        pgweir.http_status("/readyz") == Some(503)
    });
    postgres.start_again();
    assert_eq!(idle.value("SELECT 'again'"), "again");
    eventually("it is ready", || pgweir.http_status("/readyz") == Some(200));
}

#[test]
fn after_fail_fast_clients_are_refused_at_once() {
    let pgweir = Setup::before_port(free_port())
        .user(USER, PASSWORD)
        .target("fail_fast_after = \"1s\"")
        .target("max_connections = 1")
        .launch();
    eventually("pgweir listens", || pgweir.http_status("/healthz") == Some(200));
    for _ in 0..3 {
        let mut client = RawClient::connect(pgweir.port());
        let refusal = client.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).unwrap_err();
        assert_eq!(refusal.line(), "ErrorResponse FATAL 08001");
        assert!(!refusal.field('D').contains("127.0.0.1"), "{}", refusal.field('D'));
    }
}

/// Logging in takes a server only for the first of its kind, and that one is told what is wrong.
#[test]
fn a_login_that_waits_for_too_long_is_told_why() {
    let pgweir = Setup::before_port(free_port())
        .user(USER, PASSWORD)
        .proxy("client_login_timeout = \"1s\"")
        .target("max_connections = 1")
        .launch();
    eventually("pgweir listens", || pgweir.http_status("/healthz") == Some(200));
    let mut client = RawClient::connect(pgweir.port());
    let refusal = client.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).unwrap_err();
    assert!(refusal.line().starts_with("ErrorResponse FATAL 08"), "{}", refusal.line());
}

#[test]
fn a_server_terminated_by_its_administrator_is_replaced() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let mut client = pgweir.client();
    for _ in 0..3 {
        let pid = client.value("SELECT pg_backend_pid()");
        let mut superuser = shared().superuser();
        superuser.execute(&format!("SELECT pg_terminate_backend({pid})"));
        let gone = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
        eventually("it is gone", || superuser.value(&gone) == "0");
        // Between transactions nobody notices.
        assert_ne!(client.value("SELECT pg_backend_pid()"), pid);
    }
}

#[test]
fn a_server_that_dies_while_it_tells_a_login_of_its_settings_is_replaced() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let pid = pgweir.client().value("SELECT pg_backend_pid()").parse().unwrap();
    signal(pid, "STOP");
    shared().superuser().execute(&format!("SELECT pg_terminate_backend({pid})"));
    std::thread::scope(|scope| {
        let client = scope.spawn(|| pgweir.client_with(&[("work_mem", "5MB")]));
        eventually("the login has the server", || {
            pgweir.metric("pgweir_database_connections", "state=\"borrowed\"") == 1.0
        });
        signal(pid, "CONT");
        assert_eq!(client.join().unwrap().value("SHOW work_mem"), "5MB");
    });
}

#[test]
fn a_server_that_a_login_gave_up_keeps_its_place_until_it_is_gone() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .target("connection_borrow_timeout = \"3s\"")
        .proxy("client_login_timeout = \"1s\"")
        .start();
    let mut other = pgweir.client();
    let pid = other.value("SELECT pg_backend_pid()").parse().unwrap();
    signal(pid, "STOP");
    let mut login = RawClient::connect(pgweir.port());
    let outcome = login.try_log_in(USER, PASSWORD, &[("database", DATABASE), ("work_mem", "5MB")]);
    let said = other.query("SELECT 1");
    signal(pid, "CONT");
    assert_eq!(outcome.unwrap_err().line(), "ErrorResponse FATAL 08000");
    assert_eq!(said, ["ErrorResponse ERROR 08000", "ReadyForQuery I"], "two at a time");
    eventually("its place is free", || other.query("SELECT 1").len() == 4);
}

#[test]
fn a_server_that_does_not_say_what_its_database_is_like_keeps_its_place_until_it_is_gone() {
    let (asked, free) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, is_free) = (Arc::clone(&asked), Arc::clone(&free));
    let server = ScriptedServer::start(move |connection| {
        connection.accept_login()?;
        connection.behave_until(|message| mentions(message, "pg_proc"))?;
        if count.fetch_add(1, Ordering::AcqRel) > 0 {
            connection.send(&backend::command_complete("SELECT 0"))?;
            connection.send(&backend::ready_for_query(b'I'))?;
            return connection.behave();
        }
        connection.hang()?;
        eventually("it may go", || is_free.load(Ordering::Acquire));
        Ok(())
    });
    // Longer than the question may take.
    let pgweir = before(&server).proxy("client_login_timeout = \"8s\"").launch();
    eventually("pgweir listens", || pgweir.http_status("/healthz") == Some(200));
    let mut client = RawClient::connect(pgweir.port());
    assert!(client.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).is_err());
    assert_eq!(asked.load(Ordering::Acquire), 1, "two at a time");
    free.store(true, Ordering::Release);
    assert_eq!(pgweir.client().query("SELECT 1").len(), 2);
}

/// PostgreSQL does not notice that nobody waits for a login any more, and counts its process until it ends.
#[test]
fn a_login_that_takes_too_long_keeps_its_place_until_it_is_over() {
    let (begun, free) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, is_free) = (Arc::clone(&begun), Arc::clone(&free));
    let server = ScriptedServer::start(move |connection| {
        connection.accept_login()?;
        let first = count.fetch_add(1, Ordering::AcqRel) == 0;
        let question = connection.behave_until(|message| mentions(message, "'init'"))?;
        if first {
            eventually("it may go on", || is_free.load(Ordering::Acquire));
        }
        connection.answer(&question)?;
        connection.behave()
    });
    let pgweir = before(&server)
        .proxy("client_login_timeout = \"3s\"")
        .target("connect_timeout = \"200ms\"")
        .target("init_query = \"SELECT 'init'\"")
        .launch();
    eventually("pgweir listens", || pgweir.http_status("/healthz") == Some(200));
    let mut client = RawClient::connect(pgweir.port());
    assert!(client.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).is_err());
    assert_eq!(begun.load(Ordering::Acquire), 1, "two at a time");
    free.store(true, Ordering::Release);
    assert_eq!(pgweir.client().query("SELECT 1").len(), 2);
}
