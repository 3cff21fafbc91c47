//! What must stay on its server keeps the client there until the server says that nothing is left.

use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::Setup;
use crate::support::postgres::shared;
use crate::{finds_nothing, pinned, pool_of};

/// What makes something, its reason to pin, and what takes it away.
const KEPT: [(&str, &str, &str); 9] = [
    ("CREATE TEMP TABLE left_over (id int)", "temporary_object", "DROP TABLE left_over"),
    ("CREATE TEMP TABLE left_over (id int)", "temporary_object", "DISCARD TEMP"),
    ("CREATE TEMP VIEW left_over AS SELECT 1", "temporary_object", "DROP VIEW left_over"),
    ("CREATE TEMP SEQUENCE left_over", "temporary_object", "DROP SEQUENCE left_over"),
    ("SELECT pg_advisory_lock(4711)", "advisory_lock", "SELECT pg_advisory_unlock(4711)"),
    ("SELECT pg_advisory_lock(4711)", "advisory_lock", "SELECT pg_advisory_unlock_all()"),
    (
        "BEGIN; DECLARE left_over CURSOR WITH HOLD FOR SELECT 1; COMMIT",
        "hold_cursor",
        "CLOSE left_over",
    ),
    ("BEGIN; DECLARE left_over CURSOR WITH HOLD FOR SELECT 1; COMMIT", "hold_cursor", "CLOSE ALL"),
    ("CREATE TEMP TABLE left_over (id int)", "temporary_object", "DISCARD ALL"),
];

#[test]
fn a_client_is_pinned_for_as_long_as_something_is_left() {
    for (makes, reason, ends) in KEPT {
        let pgweir = pool_of(2);
        let mut client = pgweir.client();
        client.execute(makes);
        eventually(makes, || pinned(&pgweir) == 1.0);
        assert_eq!(pgweir.metric("pgweir_session_pins_total", reason), 1.0, "{makes}");
        let own = client.value("SELECT pg_backend_pid()");
        for _ in 0..3 {
            let mut other = pgweir.client();
            assert_ne!(other.value("SELECT pg_backend_pid()"), own, "{makes}");
            assert_eq!(client.value("SELECT pg_backend_pid()"), own, "{makes}");
        }
        client.execute(ends);
        eventually(ends, || pinned(&pgweir) == 0.0);
        // Both servers are there for others again.
        let mut others = [pgweir.client(), pgweir.client()];
        for other in &mut others {
            other.execute("BEGIN");
            finds_nothing(other);
        }
    }
}

#[test]
fn what_a_rollback_took_back_does_not_pin() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for sql in [
        "BEGIN; CREATE TEMP TABLE left_over (id int); ROLLBACK",
        "CREATE TEMP TABLE left_over (id int); SELECT 1/0",
        "BEGIN; CREATE TEMP TABLE left_over (id int) ON COMMIT DROP; COMMIT",
        "BEGIN; DECLARE left_over CURSOR WITH HOLD FOR SELECT 1; ROLLBACK",
        "SELECT pg_advisory_lock(1), pg_advisory_unlock(1)",
        "no sql at all",
        "SELECT pg_try_advisory_lock(1) WHERE false",
    ] {
        client.query(sql);
        finds_nothing(&mut other);
    }
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

#[test]
fn a_migration_that_brings_no_code_pins_nobody() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for sql in [
        "BEGIN; CREATE TABLE migrated (id serial PRIMARY KEY, at timestamptz DEFAULT now(), \
         n int CONSTRAINT positive CHECK (n > 0)); INSERT INTO migrated (n) VALUES (1); COMMIT",
        "ALTER TABLE migrated ADD COLUMN twice int GENERATED ALWAYS AS (n * 2) STORED",
        "INSERT INTO migrated (n) VALUES (2); SELECT no_such_function()",
        "CREATE POLICY own ON migrated USING (n < 10); ALTER TABLE migrated ENABLE ROW LEVEL SECURITY",
        "INSERT INTO migrated (n) VALUES (3)",
        "ALTER TABLE migrated ALTER at SET DEFAULT clock_timestamp(); DROP TABLE migrated",
    ] {
        client.query(sql);
        finds_nothing(&mut other);
    }
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

#[test]
fn settings_of_a_pinned_client_follow_it_when_it_is_let_go() {
    let pgweir = pool_of(1);
    let mut client = pgweir.client();
    client.execute("CREATE TEMP TABLE left_over (id int)");
    client.execute("SET work_mem = '77MB'; SET myapp.tenant = '1'");
    client.execute("INSERT INTO left_over VALUES (1)");
    client.execute("DROP TABLE left_over");
    let mut other = pgweir.client();
    finds_nothing(&mut other);
    assert_eq!(client.value("SHOW work_mem"), "77MB");
    assert_eq!(client.value("SHOW myapp.tenant"), "1");
    finds_nothing(&mut other);
}

#[test]
fn a_client_that_vanishes_leaves_nothing() {
    let pgweir = pool_of(1);
    for (makes, ..) in KEPT {
        for waits in [true, false] {
            let mut client = pgweir.client();
            client.execute("SET work_mem = '77MB'; SET myapp.tenant = '1'");
            client.execute(makes);
            if waits {
                eventually(makes, || pinned(&pgweir) == 1.0);
            }
            drop(client);
            finds_nothing(&mut pgweir.client());
        }
    }
}

#[test]
fn a_pin_is_told_to_those_who_want_to_know() {
    let pgweir =
        Setup::before(shared()).proxy("pin_notice = true").target("max_connections = 2").start();
    let mut client = pgweir.client();
    client.execute("SET work_mem = '77MB'");
    let sql = "CREATE TEMP TABLE left_over AS SELECT 's3cr3t'::text AS word";
    client.send(&frontend::query(sql));
    let mut messages = client.messages_until_ready();
    messages.push(client.read_message());
    let notice = messages.pop().unwrap();
    assert_eq!(notice.line(), "NoticeResponse NOTICE 00000");
    let told = "session is pinned to its server connection: temporary_object";
    assert_eq!(notice.field('M'), told);
    assert!(notice.field('H').contains("drop the temporary object"));
    // Once is enough.
    assert_eq!(client.value("SELECT count(*) FROM left_over"), "1");
    eventually("it is logged", || pgweir.log().contains("client pinned"));
    let log = pgweir.log();
    let line = log.lines().find(|line| line.contains("client pinned")).unwrap();
    let digest = "statement=\"create temp table left_over as select $1::text as word\"";
    assert!(line.contains(digest) && line.contains("reason=temporary_object"), "{line}");
    assert!(!log.contains("s3cr3t"));
    drop(client);
    eventually("the pin is over", || {
        pgweir.metric("pgweir_session_pin_duration_seconds_count", "") == 1.0
    });
}

#[test]
fn a_pin_that_is_known_at_once_is_told_before_the_client_may_go_on() {
    let pgweir =
        Setup::before(shared()).proxy("pin_notice = true").target("max_connections = 2").start();
    let answer = pgweir.client().query("SELECT setseed(0.5)");
    let end = ["CommandComplete SELECT 1", "NoticeResponse NOTICE 00000", "ReadyForQuery I"];
    assert_eq!(answer[answer.len() - 3..], end);
}

/// What nobody can ask a server for.
#[test]
fn a_seed_that_is_set_by_a_statement_of_its_own_text_pins() {
    let pgweir = pool_of(2);
    let mut client = pgweir.client();
    client.execute("PREPARE seeds AS SELECT setseed(0.5); EXECUTE seeds");
    eventually("it is pinned", || pinned(&pgweir) == 1.0);
    assert_eq!(pgweir.metric("pgweir_session_pins_total", "hidden"), 1.0);
}

/// `seed` is a setting that no `RESET` takes back, not even the end of its transaction.
#[test]
fn the_seed_of_a_setting_reaches_nobody_else() {
    let mut direct = crate::direct_with(&[]);
    direct.execute("SET seed = 0.5");
    let seeded = direct.value("SELECT random()");
    let bound = |sql: &str, values: &[&str]| {
        let values: Vec<_> = values.iter().map(|value| Some(*value)).collect();
        [
            frontend::parse("", sql),
            frontend::bind("", "", &values),
            frontend::execute("", 0),
            frontend::sync(),
        ]
        .concat()
    };
    let local = "SELECT set_config(key, value, true) FROM json_each_text($1::json)";
    for sets in [
        frontend::query("SET seed = 0.5"),
        frontend::query("SET LOCAL \"Seed\" TO 0.5"),
        frontend::query(
            "BEGIN; SET LOCAL SESSION AUTHORIZATION DEFAULT; SET LOCAL seed = 0.5; COMMIT",
        ),
        frontend::query("SELECT set_config('seed', '0.5', false)"),
        frontend::query("SELECT pg_catalog.set_config('Seed'::text, '0.5', true)"),
        frontend::query(r"SELECT set_config(E'\x73eed', '0.5', true)"),
        frontend::query("SELECT set_config('se' || 'ed', '0.5', false)"),
        frontend::query("DO $$BEGIN SET seed = 0.5; END$$"),
        frontend::query("DO $$BEGIN IF true THEN SET LOCAL seed TO 0.5; END IF; END$$"),
        frontend::query("DO $$BEGIN EXECUTE 'SET SESSION seed = 0.5'; END$$"),
        frontend::query("DO $$BEGIN PERFORM set_config('seed', '0.5', true); END$$"),
        frontend::query("DO $$BEGIN EXECUTE 'SELECT set_config(''seed'', ''0.5'', true)'; END$$"),
        frontend::query("PREPARE p(text) AS SELECT set_config($1, '0.5', true); EXECUTE p('seed')"),
        frontend::query("PREPARE p AS SELECT set_config('seed', '0.5', true); EXECUTE p"),
        bound("SELECT set_config($1, $2, false)", &["seed", "0.5"]),
        bound("SELECT set_config($2, $1, true)", &["0.5", "SEED"]),
        bound(local, &[r#"{"seed": 0.5}"#]),
    ] {
        for discards in [false, true] {
            let pgweir = pool_of(1);
            let mut client = pgweir.client();
            client.send(&sets);
            let told = client.until_ready();
            assert!(!told.iter().any(|line| line.starts_with("Error")), "{told:?}");
            let what = String::from_utf8_lossy(&sets);
            eventually(&what, || pinned(&pgweir) == 1.0);
            assert_eq!(client.value("SELECT random()"), seeded, "{what}");
            client.send(&sets);
            client.until_ready();
            if discards {
                client.execute("DISCARD ALL");
            } else {
                client.send(&frontend::terminate());
            }
            assert_ne!(pgweir.client().value("SELECT random()"), seeded, "{what}");
        }
    }
}

#[test]
fn settings_that_are_no_seed_pin_nobody() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for (sql, values) in [
        ("SELECT set_config('myapp.tenant', 'seed', false)", &[][..]),
        ("SELECT set_config('myapp.seed', '7', true)", &[]),
        ("SET LOCAL myapp.seed = 'seed'", &[]),
        ("SET geqo_seed = 0.5", &[]),
        ("SELECT set_config($1, $2, false)", &["myapp.tenant", "seed"]),
        ("SELECT set_config($1, $2, true), 1 AS seed", &["work_mem", "5MB"]),
        (
            "SELECT set_config(el->>0, el->>1, true) FROM json_array_elements($1::json) AS el",
            &[r#"[["myapp.tenant", "Seed Ltd"], ["role", "none"], ["myapp.seed", "1"]]"#],
        ),
        ("DO $$BEGIN PERFORM set_config('myapp.tenant', 'seed', false); END$$", &[]),
    ] {
        let values: Vec<_> = values.iter().map(|value| Some(*value)).collect();
        let told = client.batch(&[
            frontend::parse("", sql),
            frontend::bind("", "", &values),
            frontend::execute("", 0),
            frontend::sync(),
        ]);
        assert!(!told.iter().any(|line| line.starts_with("Error")), "{sql}: {told:?}");
        finds_nothing(&mut other);
        client.execute("RESET ALL");
    }
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

#[test]
fn settings_that_cannot_follow_are_lost_where_the_operator_wants_it() {
    let filter = "session_pinning_filters = [\"EXCLUDE_VARIABLE_SETS\"]";
    let blind = "SELECT set_config('my' || 'app.tenant', '7', false)";
    for (line, pins) in [("session_pinning_filters = []", 1.0), (filter, 0.0)] {
        let pgweir = Setup::before(shared()).target("max_connections = 2").target(line).start();
        let mut client = pgweir.client();
        client.execute(blind);
        eventually(line, || pinned(&pgweir) == pins);
        client.execute("SELECT 1");
        let mut others = [pgweir.client(), pgweir.client()];
        for other in &mut others {
            finds_nothing(other);
        }
        assert_eq!(pgweir.metric("pgweir_session_pins_total", "setting"), pins);
    }
}
