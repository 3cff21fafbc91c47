//! The reset queries of drivers leave their clients unpinned, and as they were when they came.

use crate::support::messages::{frame, frontend};
use crate::{direct_with, finds_nothing, pinned, pool_of, same_alone};

/// As asyncpg sends it.
const ASYNCPG: &str = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";

#[test]
fn a_reset_query_is_answered_as_by_postgresql_and_does_not_pin() {
    for reset in [
        ASYNCPG,
        "DISCARD ALL",
        "DISCARD ALL;",
        "RESET ALL",
        "UNLISTEN *",
        "CLOSE ALL",
        "DEALLOCATE ALL",
        "RESET SESSION AUTHORIZATION",
        "SELECT pg_advisory_unlock_all()",
    ] {
        same_alone(
            &[],
            &[
                reset,
                "SET work_mem = '77MB'; SET timezone = 'Asia/Tokyo'",
                reset,
                "SELECT current_setting('work_mem'), current_setting('timezone')",
                "RESET ALL",
                reset,
            ],
        );
    }
}

#[test]
fn a_reset_query_lets_a_pinned_client_go() {
    for (makes, reset) in [
        ("SELECT pg_advisory_lock(1)", ASYNCPG),
        ("BEGIN; DECLARE left_over CURSOR WITH HOLD FOR SELECT 1; COMMIT", ASYNCPG),
        ("CREATE TEMP TABLE left_over (id int)", "DISCARD ALL"),
        ("PREPARE left_over AS SELECT 1", "DEALLOCATE ALL"),
    ] {
        let pgweir = pool_of(1);
        let mut client = pgweir.client();
        client.execute(makes);
        client.execute(reset);
        finds_nothing(&mut pgweir.client());
        assert_eq!(pinned(&pgweir), 0.0, "{makes}");
    }
}

#[test]
fn statements_of_the_protocol_go_with_a_discard() {
    let pgweir = pool_of(1);
    for reset in ["DISCARD ALL", "DEALLOCATE ALL"] {
        let mut client = pgweir.client();
        client.batch(&[frontend::parse("s", "SELECT 1"), frontend::sync()]);
        client.execute(reset);
        let answer = client.batch(&[frontend::bind("", "s", &[]), frontend::sync()]);
        assert_eq!(answer, ["ErrorResponse ERROR 26000", "ReadyForQuery I"], "{reset}");
    }
}

/// As Npgsql sends it ahead of the first query on a connection taken from its pool.
const NPGSQL: &str = "SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;\
     SELECT pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP";

#[test]
fn a_client_without_a_server_is_answered_without_one() {
    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[], "SELECT 1"),
        (&[], "SET work_mem = '77MB'; SET statement_timeout = '1h'"),
        (&[], "SET timezone = 'Asia/Tokyo'"),
        (&[], "SET timezone = 'Etc/UTC'; SET work_mem = '77MB'"),
        (&[("timezone", "asia/tokyo"), ("application_name", "it")], "SELECT 1"),
        (&[("timezone", "asia/tokyo"), ("work_mem", "5MB")], "SET timezone = 'Europe/Paris'"),
        (&[("myapp.tenant", "7")], "SET myapp.tenant = '8'; SET application_name = 'other'"),
    ];
    for (startup, before) in cases {
        let pgweir = pool_of(1);
        let mut other = pgweir.client();
        for reset in [
            ASYNCPG,
            NPGSQL,
            "DISCARD ALL",
            "discard  all;",
            "RESET ALL",
            "UNLISTEN *",
            "CLOSE ALL;",
            "DEALLOCATE ALL",
            "SELECT pg_advisory_unlock_all()",
            "SELECT pg_catalog.pg_advisory_unlock_all();",
        ] {
            let (mut client, mut direct) = (pgweir.client_with(startup), direct_with(startup));
            for one in [&mut client, &mut direct] {
                one.execute(before);
            }
            // Nobody else gets a server now.
            other.execute("BEGIN");
            for one in [&mut client, &mut direct] {
                one.send(&frontend::query(reset));
            }
            let expected = direct.messages_until_ready();
            assert_eq!(client.messages_until_ready(), expected, "{reset} after {before}");
            other.execute("COMMIT");
            for show in ["work_mem", "timezone", "application_name", "statement_timeout"] {
                let show = format!("SHOW {show}");
                assert_eq!(client.query(&show), direct.query(&show), "{show} after {reset}");
            }
            let tenant = "SELECT current_setting('myapp.tenant', true)";
            assert_eq!(client.query(tenant), direct.query(tenant), "{tenant} after {reset}");
            assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
        }
    }
}

/// A statement without parameters in one batch, with these messages around its `Bind`; all of its columns in
/// `format`, if one is given.
fn batch_of(sql: &str, describes: [Option<u8>; 2], format: Option<u8>, rows_max: u32) -> Vec<u8> {
    let bind = match format {
        None => frontend::bind("", "", &[]),
        Some(format) => frame(b'B', &[&[0, 0, 0, 0, 0, 0, 0, 1, 0, format]]),
    };
    let describe = |kind: Option<u8>| kind.map_or(Vec::new(), |kind| frontend::describe(kind, ""));
    [
        frontend::parse("", sql),
        describe(describes[0]),
        bind,
        describe(describes[1]),
        frontend::execute("", rows_max),
        frontend::sync(),
    ]
    .concat()
}

#[test]
fn a_client_without_a_server_is_answered_without_one_in_the_extended_protocol_too() {
    let shapes = [
        ([None, None], None, 0),
        ([None, Some(b'P')], None, 0),
        ([None, Some(b'P')], Some(0), 2),
        ([None, Some(b'P')], Some(1), 0),
        ([Some(b'S'), None], Some(1), 0),
        ([Some(b'S'), Some(b'P')], None, 7),
    ];
    for startup in [&[][..], &[("timezone", "asia/tokyo"), ("myapp.tenant", "7")]] {
        let pgweir = pool_of(1);
        let mut other = pgweir.client();
        for (at, reset) in [
            "DISCARD ALL",
            "discard  all;",
            "RESET ALL",
            "UNLISTEN *",
            "CLOSE ALL;",
            "DEALLOCATE ALL",
            "DISCARD SEQUENCES",
            "SET SESSION AUTHORIZATION DEFAULT",
            "SELECT pg_advisory_unlock_all()",
            "SELECT pg_catalog.pg_advisory_unlock_all();",
        ]
        .into_iter()
        .enumerate()
        {
            let (mut client, mut direct) = (pgweir.client_with(startup), direct_with(startup));
            for (shape, (describes, format, rows_max)) in shapes.into_iter().enumerate() {
                // pgjdbc wants one row of what has none.
                let rows_max = if at < 8 && shape == 0 { 1 } else { rows_max };
                let batch = batch_of(reset, describes, format, rows_max);
                for one in [&mut client, &mut direct] {
                    one.execute("SET timezone = 'Europe/Paris'; SET work_mem = '77MB'");
                    one.batch(&[frontend::parse("", "SELECT 1"), frontend::sync()]);
                }
                // Nobody else gets a server now.
                other.execute("BEGIN");
                for one in [&mut client, &mut direct] {
                    one.send(&batch);
                }
                let expected = direct.messages_until_ready();
                assert_eq!(client.messages_until_ready(), expected, "{reset} {describes:?}");
                other.execute("COMMIT");
                // A simple query would take the unnamed statement away.
                for show in ["SHOW work_mem", "SHOW timezone"] {
                    let shows = [batch_of_named(show), vec![frontend::sync()]].concat();
                    assert_eq!(client.batch(&shows), direct.batch(&shows), "after {reset}");
                }
                // A server tells more than one of its own would, where a setting was given at connect.
                if startup.is_empty() {
                    let again = [frontend::describe(b'P', ""), frontend::execute("", 0)].concat();
                    let again = [frontend::bind("", "", &[]), again, frontend::sync()];
                    assert_eq!(client.batch(&again), direct.batch(&again), "{reset} again");
                }
            }
        }
        assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
    }
}

/// Runs a statement under a name, which is gone then.
fn batch_of_named(sql: &str) -> Vec<Vec<u8>> {
    vec![
        frontend::parse("shows", sql),
        frontend::bind("shows", "shows", &[]),
        frontend::execute("shows", 0),
        frontend::close(b'S', "shows"),
    ]
}

#[test]
fn a_batch_that_only_a_server_can_answer_is_left_to_it() {
    let pgweir = pool_of(1);
    let (mut client, mut direct) = (pgweir.client(), direct_with(&[]));
    for batch in [
        batch_of("SELECT pg_advisory_unlock_all()", [None, Some(b'P')], None, 1),
        batch_of("RESET ALL; DISCARD ALL", [None, None], None, 0),
        batch_of("SELECT pg_advisory_unlock_all()", [None, Some(b'P')], Some(2), 0),
        [frontend::parse("s", "DISCARD ALL"), batch_of("RESET ALL", [None, None], None, 0)]
            .concat(),
        [frontend::parse("", "RESET ALL"), frontend::bind("p", "", &[]), frontend::sync()].concat(),
    ] {
        client.execute("SELECT 1");
        for one in [&mut client, &mut direct] {
            one.send(&batch);
        }
        assert_eq!(client.until_ready(), direct.until_ready());
    }
}

#[test]
fn a_reset_query_counts_as_a_query_and_forgets_statements() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    client.batch(&[
        frontend::parse("s", "SELECT 1"),
        frontend::parse("", "SELECT 2"),
        frontend::sync(),
    ]);
    other.execute("BEGIN");
    let count = |name| pgweir.metric(name, "");
    let queries = count("pgweir_query_requests_total");
    let lent = count("pgweir_database_connections_borrow_requests_total");
    // What is pipelined behind it waits for a server.
    client.send(&[frontend::query("DISCARD ALL"), frontend::query("SELECT 3")].concat());
    assert_eq!(client.until_ready(), ["CommandComplete DISCARD ALL", "ReadyForQuery I"]);
    other.execute("COMMIT");
    assert_eq!(client.until_ready()[1], "DataRow 3");
    assert_eq!(count("pgweir_query_requests_total") - queries, 3.0);
    assert_eq!(count("pgweir_database_connections_borrow_requests_total") - lent, 1.0);
    for name in ["s", ""] {
        let answer = client.batch(&[frontend::bind("", name, &[]), frontend::sync()]);
        assert_eq!(answer, ["ErrorResponse ERROR 26000", "ReadyForQuery I"], "{name}");
    }
    let lent = count("pgweir_database_connections_borrow_requests_total");
    let prepared = count("pgweir_statements_prepared_total");
    client.send(&batch_of("DISCARD ALL", [None, Some(b'P')], None, 0));
    client.until_ready();
    assert_eq!(count("pgweir_query_requests_total") - queries, 4.0);
    assert_eq!(count("pgweir_database_connections_borrow_requests_total"), lent);
    assert_eq!(count("pgweir_statements_prepared_total") - prepared, 1.0);
}

#[test]
fn what_only_a_server_can_take_back_is_left_to_it() {
    same_alone(
        &[],
        &["SET ROLE app", "DISCARD ALL", "SELECT current_user", "SET ROLE app", "RESET ALL"],
    );
    same_alone(
        &[],
        &["SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL'", "RESET ALL", "SHOW datestyle"],
    );
    same_alone(&[], &["SET myapp.tenant = '7'", "RESET ALL", "SHOW myapp.tenant"]);
    same_alone(&[], &["BEGIN", "RESET ALL", "DISCARD ALL", "ROLLBACK", "CLOSE ALL; SELECT 1"]);
    same_alone(
        &[("timezone", "Asia/Tokyo")],
        &["BEGIN", "SET LOCAL timezone = 'UTC'", "COMMIT", "RESET ALL"],
    );
}
