//! What a client gives at its connect are its defaults, to which a RESET leads: at once, and with no word more than on
//! a connection of its own.

use crate::support::messages::frontend;
use crate::{direct_with, pinned, pool_of, same_alone};

const STARTUP: [(&str, &str); 7] = [
    ("timezone", "Asia/Tokyo"),
    ("datestyle", "German, DMY"),
    ("work_mem", "5MB"),
    ("search_path", "pg_catalog, public"),
    ("myapp.tenant", "it's \"7\" \\ of é"),
    ("application_name", "it's \"me\" \\x41 $1"),
    ("options", "-c statement_timeout=1h"),
];

const SHOW: &str = "SELECT current_setting('timezone'), current_setting('datestyle'), current_setting('work_mem'), \
     current_setting('search_path'), current_setting('myapp.tenant'), current_setting('application_name'), \
     current_setting('statement_timeout'), current_setting('lock_timeout')";

const CHANGE: &str = "SET timezone = 'Europe/Paris'; SET datestyle = 'SQL'; SET work_mem = '6MB'; \
     SET search_path = public; SET myapp.tenant = '8'; SET application_name = 'other'; SET lock_timeout = '1h'";

const RESETS: [&str; 15] = [
    "RESET ALL",
    "RESET timezone",
    "reset DateStyle ;",
    "RESET search_path",
    "RESET myapp.tenant -- of the client",
    "SET timezone TO DEFAULT",
    "SET TIME ZONE DEFAULT",
    "SET TIME ZONE LOCAL",
    "SET SESSION work_mem = DEFAULT",
    "RESET lock_timeout",
    "RESET application_name",
    "RESET ROLE",
    "RESET no_such_setting",
    "RESET timezone datestyle",
    "SET datestyle = 'default'",
];

#[test]
fn a_reset_of_a_setting_of_the_startup_is_as_on_a_connection_of_ones_own() {
    for reset in RESETS {
        same_alone(
            &STARTUP,
            &[
                reset,
                SHOW,
                CHANGE,
                reset,
                SHOW,
                "BEGIN",
                reset,
                SHOW,
                CHANGE,
                reset,
                SHOW,
                "ROLLBACK",
                SHOW,
                "BEGIN",
                "SAVEPOINT a",
                reset,
                SHOW,
                "ROLLBACK TO a",
                SHOW,
                reset,
                "COMMIT",
                SHOW,
            ],
        );
    }
}

#[test]
fn a_reset_for_a_transaction_ends_with_it() {
    let mut queries = vec![CHANGE];
    for reset in [
        "SET LOCAL timezone TO DEFAULT",
        "SET LOCAL work_mem = DEFAULT",
        "SET LOCAL search_path TO DEFAULT",
    ] {
        queries.extend(["BEGIN", reset, SHOW, "COMMIT", SHOW]);
    }
    same_alone(&STARTUP, &queries);
}

#[test]
fn a_reset_takes_no_snapshot() {
    same_alone(
        &STARTUP,
        &[
            "BEGIN",
            "RESET timezone",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SHOW transaction_isolation",
            "COMMIT",
        ],
    );
}

#[test]
fn a_reset_of_a_pinned_client_is_as_on_a_connection_of_ones_own() {
    const ASYNCPG: &str = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
    const NPGSQL: &str = "SET SESSION AUTHORIZATION DEFAULT;RESET ALL;CLOSE ALL;UNLISTEN *;\
         SELECT pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP";
    let pgweir = pool_of(1);
    for reset in RESETS.into_iter().chain([ASYNCPG, NPGSQL, "DISCARD ALL", "discard all;"]) {
        let (mut client, mut direct) = (pgweir.client_with(&STARTUP), direct_with(&STARTUP));
        for sql in [
            "CREATE TEMP TABLE left_over (id int)",
            CHANGE,
            reset,
            SHOW,
            "BEGIN",
            CHANGE,
            reset,
            SHOW,
            "COMMIT",
            SHOW,
            "DISCARD ALL",
            SHOW,
        ] {
            assert_eq!(client.query(sql), direct.query(sql), "{sql} with {reset}");
        }
        crate::finds_nothing(&mut pgweir.client());
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn a_reset_in_a_batch_is_as_on_a_connection_of_ones_own() {
    let pgweir = pool_of(1);
    let mut other = pgweir.client();
    for reset in RESETS {
        let (mut client, mut direct) = (pgweir.client_with(&STARTUP), direct_with(&STARTUP));
        let run = |portal: &str, statement: &str| {
            [frontend::bind(portal, statement, &[]), frontend::execute(portal, 0)].concat()
        };
        let batches = [
            vec![
                frontend::parse("show", SHOW),
                frontend::parse("", reset),
                run("", ""),
                run("", "show"),
                frontend::sync(),
            ],
            vec![frontend::query(CHANGE)],
            vec![
                frontend::parse("again", SHOW),
                frontend::parse("r", reset),
                run("p", "r"),
                run("", "again"),
                frontend::sync(),
            ],
            vec![
                frontend::parse("", "SELECT 7"),
                frontend::parse("r2", reset),
                run("p", "r2"),
                run("", ""),
                frontend::sync(),
            ],
            vec![frontend::query(CHANGE)],
            // Bound, and not executed.
            vec![
                frontend::parse("r3", reset),
                frontend::bind("", "r3", &[]),
                frontend::parse("", SHOW),
                run("", ""),
                frontend::sync(),
            ],
            vec![frontend::query(SHOW)],
        ];
        for batch in batches {
            let (answer, expected) = (client.batch(&batch), direct.batch(&batch));
            assert_eq!(answer, expected, "{reset}");
            crate::finds_nothing(&mut other);
        }
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

/// What follows a reset is told without a word to the client's own portals.
#[test]
fn a_reset_leaves_the_unnamed_portal_as_it_is() {
    let pgweir = pool_of(1);
    let (mut client, mut direct) = (pgweir.client_with(&STARTUP), direct_with(&STARTUP));
    for reset in ["RESET timezone", "RESET search_path", "SET LOCAL timezone TO DEFAULT"] {
        let batch = [
            frontend::parse("", "SELECT generate_series(1, 9)"),
            frontend::bind("", "", &[]),
            frontend::execute("", 1),
            frontend::parse("r", reset),
            frontend::bind("p", "r", &[]),
            frontend::execute("p", 0),
            frontend::execute("", 2),
            frontend::close(b'S', "r"),
            frontend::bind("", "", &[]),
            frontend::execute("", 3),
            frontend::sync(),
        ];
        for sql in ["BEGIN", CHANGE] {
            assert_eq!(client.query(sql), direct.query(sql), "{reset}");
        }
        assert_eq!(client.batch(&batch), direct.batch(&batch), "{reset}");
        for sql in [SHOW, "COMMIT", SHOW] {
            assert_eq!(client.query(sql), direct.query(sql), "{reset}");
        }
    }
}

#[test]
fn resets_that_are_pipelined_are_answered_in_order() {
    let pgweir = pool_of(1);
    let (mut client, mut direct) = (pgweir.client_with(&STARTUP), direct_with(&STARTUP));
    let all = [
        CHANGE,
        "RESET ALL",
        SHOW,
        "SELECT 1/0",
        "RESET timezone",
        "BEGIN",
        "RESET datestyle",
        SHOW,
        "COMMIT",
    ];
    for one in [&mut client, &mut direct] {
        one.send(&all.map(frontend::query).concat());
    }
    for sql in all {
        assert_eq!(client.until_ready(), direct.until_ready(), "{sql}");
    }
    crate::finds_nothing(&mut pgweir.client());
}

#[test]
fn a_discard_in_a_batch_leaves_the_settings_of_the_startup() {
    let pgweir = pool_of(1);
    let mut other = pgweir.client();
    let discard =
        [frontend::parse("", "DISCARD ALL"), frontend::bind("", "", &[]), frontend::execute("", 0)]
            .concat();
    let show =
        [frontend::parse("", SHOW), frontend::bind("", "", &[]), frontend::execute("", 0)].concat();
    let fails = frontend::bind("", "no_such_statement", &[]);
    for behind in [vec![], vec![show], vec![fails]] {
        let (mut client, mut direct) = (pgweir.client_with(&STARTUP), direct_with(&STARTUP));
        let batch = [vec![discard.clone()], behind, vec![frontend::sync()]].concat();
        for before in ["SELECT 1", CHANGE, "CREATE TEMP TABLE left_over (id int)", "BEGIN"] {
            assert_eq!(client.query(before), direct.query(before), "{before}");
            assert_eq!(client.batch(&batch), direct.batch(&batch), "after {before}");
            assert_eq!(client.query("ROLLBACK").last(), direct.query("ROLLBACK").last());
            crate::finds_nothing(&mut other);
            assert_eq!(client.execute(SHOW), direct.execute(SHOW), "after {before}");
        }
    }
    assert_eq!(pinned(&pgweir), 0.0);
}
