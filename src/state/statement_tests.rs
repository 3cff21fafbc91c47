use super::*;

fn of(sql: &str) -> Effects {
    effects(sql.as_bytes(), Options::default())
}

fn only(sql: &str) -> Statement<'_> {
    let mut found = statements(sql.as_bytes(), Options::default());
    let statement = found.next().expect("a statement");
    assert!(found.next().is_none(), "more than one statement in {sql}");
    statement
}

/// Each line is the effects of the texts that follow it, one text per line.
fn table(rows: &[(Effects, &[&str])]) {
    for (expected, texts) in rows {
        for text in *texts {
            assert_eq!(of(text), *expected, "{text}");
        }
    }
}

const E: Effects = Effects::NONE;

#[test]
fn ordinary_queries_touch_nothing() {
    table(&[(
        E,
        &[
            "",
            ";",
            " ; -- nothing\n ; /* ; */",
            "SELECT 1",
            "select id, name, email from users where id = $1 and org = 42",
            "SELECT count(*), max(x), lower(y), now(), coalesce(a, b), pg_catalog.upper(z) FROM t",
            "SELECT x FROM t WHERE x IN (1, 2) AND (y OR z) ORDER BY (a), b LIMIT (1) OFFSET (2)",
            "SELECT row_number() OVER (PARTITION BY (a) ORDER BY (b)), sum(x) FILTER (WHERE y) OVER (w) FROM t",
            "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM t GROUP BY GROUPING SETS ((a), (b))",
            "SELECT a FROM t GROUP BY ROLLUP (a) UNION (SELECT b FROM u) EXCEPT ALL (SELECT 1)",
            "SELECT * FROM (VALUES (1, 2)) v(a, b) JOIN LATERAL (SELECT 1) AS w(c) ON (true)",
            "SELECT * FROM t u(a, b) LEFT JOIN x y(c) USING (a) WHERE EXISTS (SELECT 1) AND a = ANY ($1)",
            "WITH a(x, y) AS (SELECT 1, 2), b (z) AS MATERIALIZED (SELECT 3) SELECT * FROM a, b",
            "WITH RECURSIVE a(x) AS (SELECT 1), b(z) AS NOT MATERIALIZED (SELECT 3) TABLE a",
            "SELECT CAST(x AS varchar(10)), y::numeric(10, 2), z::geometry(Point, 4326), timestamp(3) '2020-01-01'",
            "SELECT x::character varying(3), y::timestamp(0) with time zone, CAST(z AS bit varying(3))",
            "SELECT * FROM t FOR UPDATE OF t SKIP LOCKED",
            "SELECT * FROM t FOR NO KEY UPDATE",
            "SELECT temp, temporary, t.update, t.into FROM weather",
            "SELECT 'set_config(', \"set_config\", $$ nextval('x') $$ -- setval('y', 1)",
            "SELECT extract(epoch FROM now()), substring(a FROM 1), trim(both from b), position(c in d)",
            "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(1, 2), txid_current()",
            "SELECT information_schema._pg_expandarray(i.indkey) FROM pg_index i",
            "VALUES (1), (2)",
            "TABLE t",
            "(SELECT 1)",
            "LOCK TABLE t IN ACCESS EXCLUSIVE MODE",
            "CHECKPOINT",
            "VACUUM (ANALYZE, VERBOSE) t",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET LOCAL TRANSACTION READ ONLY",
            "SET CONSTRAINTS ALL DEFERRED",
        ],
    )]);
}

#[test]
fn writes_and_definitions_may_run_triggers() {
    table(&[
        (
            Effects::WRITE,
            &[
                "INSERT INTO users (id, name) VALUES ($1, now()) ON CONFLICT (id) DO UPDATE SET (a, b) = (1, 2)",
                "insert into s.users(id) select 1 returning id",
                "UPDATE t SET (a, b) = (1, lower('X')) WHERE id IN (1)",
                "DELETE FROM t USING u WHERE t.id = u.id",
                "MERGE INTO t USING u ON (a = b) WHEN MATCHED THEN DELETE",
                "WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
                "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
                "TRUNCATE t",
            ],
        ),
        (Effects::COPY, &["COPY t TO STDOUT", "COPY (SELECT a FROM t) TO STDOUT", "COPY t (a, b) TO STDOUT"]),
        (
            Effects::COPY | Effects::WRITE,
            &["COPY t FROM STDIN", "copy s.t (a, b) from stdin (format csv)", "COPY (DELETE FROM t RETURNING a) TO STDOUT"],
        ),
        (
            Effects::DDL,
            &[
                "CREATE TABLE IF NOT EXISTS t (id int PRIMARY KEY, g geometry(Point), FOREIGN KEY (a) REFERENCES u (b))",
                "CREATE OR REPLACE FUNCTION f(a int) RETURNS int LANGUAGE sql AS 'SELECT nextval(1)'",
                "CREATE OR REPLACE VIEW v AS SELECT f(x), set_config('a', 'b', false) FROM t",
                "CREATE TRIGGER t BEFORE INSERT ON u FOR EACH ROW EXECUTE FUNCTION f()",
                "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v)",
                "DROP FUNCTION f(int)",
                "ALTER FUNCTION f(int) OWNER TO x",
                "ALTER ROLE x SET search_path = y",
                "ALTER SYSTEM SET work_mem = '1MB'",
                "GRANT EXECUTE ON FUNCTION f(int) TO x",
                "COMMENT ON FUNCTION f(int) IS 'set_config('",
                "SELECT * INTO t FROM u",
            ],
        ),
        (Effects::DDL | Effects::USER_FUNCTION, &["CREATE EXTENSION postgis", "CREATE TABLE t AS SELECT f(1)"]),
    ]);
}

#[test]
fn settings_are_told_from_what_ends_with_the_transaction() {
    table(&[
        (
            Effects::SET_SESSION,
            &[
                "SET search_path TO a, b",
                "SET SESSION work_mem = '1MB'",
                "SET myapp.tenant = 'x'",
                "SET local.x = 1",
                "SET session.x = 1",
                "SET transaction.x = 1",
                "SET TIME ZONE 'UTC'",
                "SET TIME ZONE INTERVAL '1' HOUR",
                "SET SESSION TIME ZONE LOCAL",
                "SET NAMES 'utf8'",
                "SET SCHEMA 's'",
                "SET XML OPTION DOCUMENT",
                "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                "SET default_transaction_isolation TO DEFAULT",
                "RESET work_mem",
                "RESET TIME ZONE",
                "RESET myapp.tenant",
            ],
        ),
        (
            Effects::SET_LOCAL,
            &[
                "SET LOCAL work_mem = '1MB'",
                "SET LOCAL ROLE x",
                "SET LOCAL role = x",
                "SET LOCAL SESSION AUTHORIZATION x",
                "SET LOCAL TIME ZONE 'UTC'",
                "SELECT set_config('a.b', $1, true)",
                "SELECT pg_catalog.set_config('a.b', f.x || (',' || 'x'), /* local */ TRUE) FROM t f",
            ],
        ),
        (
            Effects::SET_CONFIG,
            &[
                "SELECT set_config('a.b', $1, false)",
                "SELECT set_config('a.b', $1, $2)",
                "SELECT set_config('a.b', $1, true AND false)",
                "SELECT set_config('a.b', $1, is_local => true)",
                "SELECT SET_CONFIG ('a.b', 'c', not true)",
                "SELECT \"pg_catalog\" . \"set_config\" ('a.b', 'c', false)",
                "SELECT pg_catalog/* */.set_config('search_path', '', false)",
                "SELECT DISTINCT ON (a) set_config('a.b', 'c', false)",
            ],
        ),
        (Effects::SET_CONFIG | Effects::WRITE, &["UPDATE pg_settings SET setting = 'x' WHERE name = 'y'"]),
        (
            Effects::SET_ROLE,
            &["SET ROLE x", "SET SESSION ROLE 'x'", "SET ROLE NONE", "SET role TO x", "SET \"role\" = x", "RESET ROLE"],
        ),
        (
            Effects::SET_SESSION_AUTHORIZATION,
            &[
                "SET SESSION AUTHORIZATION x",
                "SET SESSION SESSION AUTHORIZATION DEFAULT",
                "SET session_authorization TO 'x'",
                "RESET SESSION AUTHORIZATION",
            ],
        ),
        (Effects::SET_SESSION | Effects::SESSION_FUNCTION, &["SET seed TO 0.5"]),
        (Effects::SESSION_FUNCTION, &["SELECT setseed(0.5)", "SELECT pg_create_logical_replication_slot('a', 'b', true)"]),
        (Effects::RESET_ALL, &["RESET ALL", "reset all;"]),
        (Effects::SHOW, &["SHOW ALL", "SHOW work_mem", "SHOW TIME ZONE", "SHOW SESSION AUTHORIZATION", "SHOW a.b"]),
    ]);
}

#[test]
fn statements_cursors_channels_and_discards_have_their_own_effect() {
    table(&[
        (
            Effects::PREPARE,
            &[
                "PREPARE p AS SELECT f(1), set_config('a', 'b', false)",
                "PREPARE p (int, numeric(10, 2)) AS INSERT INTO t VALUES ($1)",
                "PREPARE transaction AS SELECT 1",
            ],
        ),
        (Effects::EXECUTE, &["EXECUTE p", "EXECUTE p(1, 'x')", "EXECUTE lower (now())"]),
        (Effects::EXECUTE | Effects::USER_FUNCTION, &["EXECUTE p(f(1))"]),
        (Effects::EXECUTE | Effects::EXPLAIN, &["EXPLAIN EXECUTE p(1)", "EXPLAIN (ANALYZE, TIMING OFF) EXECUTE p (1)"]),
        (Effects::EXECUTE | Effects::DDL, &["CREATE TABLE t AS EXECUTE p", "CREATE TABLE t (a, b) AS EXECUTE p WITH NO DATA"]),
        (Effects::DEALLOCATE, &["DEALLOCATE p", "DEALLOCATE PREPARE p", "DEALLOCATE ALL", "DEALLOCATE prepare"]),
        (Effects::DECLARE_CURSOR, &["DECLARE c CURSOR FOR SELECT 1", "DECLARE c NO SCROLL CURSOR WITHOUT HOLD FOR SELECT 1"]),
        (
            Effects::DECLARE_CURSOR | Effects::DECLARE_HOLD,
            &["DECLARE c CURSOR WITH HOLD FOR SELECT 1", "declare \"c\" binary insensitive cursor with hold for table t"],
        ),
        (Effects::DECLARE_CURSOR | Effects::USER_FUNCTION, &["DECLARE c CURSOR FOR SELECT f(1)"]),
        (Effects::FETCH, &["FETCH c", "FETCH FORWARD 5 FROM c", "MOVE BACKWARD ALL IN c", "FETCH -1 FROM c"]),
        (Effects::CLOSE, &["CLOSE c", "CLOSE \"all\""]),
        (Effects::CLOSE_ALL, &["CLOSE ALL"]),
        (Effects::LISTEN, &["LISTEN c"]),
        (Effects::UNLISTEN, &["UNLISTEN c", "UNLISTEN *"]),
        (Effects::NOTIFY, &["NOTIFY c", "NOTIFY c, 'payload'", "SELECT pg_notify('c', 'x')"]),
        (Effects::DISCARD_ALL, &["DISCARD ALL"]),
        (Effects::DISCARD_TEMP, &["DISCARD TEMP", "DISCARD TEMPORARY"]),
        (Effects::DISCARD_PLANS, &["DISCARD PLANS"]),
        (Effects::DISCARD_SEQUENCES, &["DISCARD SEQUENCES"]),
        (Effects::LOAD, &["LOAD 'auto_explain'"]),
        (Effects::DO, &["DO $$ BEGIN PERFORM f(); END $$", "DO LANGUAGE plpgsql $x$ ; $x$"]),
        (Effects::CALL | Effects::USER_FUNCTION, &["CALL f(1)", "CALL s.f(now())"]),
        (Effects::SEQUENCE_NEXT, &["SELECT nextval('s')", "SELECT setval('s', 1)"]),
        (Effects::SEQUENCE_READ, &["SELECT currval('s')", "SELECT LASTVAL()"]),
        (Effects::SESSION_READ, &["SELECT pg_backend_pid()", "SELECT * FROM pg_prepared_statements", "TABLE pg_cursors"]),
    ]);
}

#[test]
fn temporary_objects_are_found_however_they_are_made() {
    let made = Effects::TEMP_OBJECT | Effects::DDL;
    table(&[
        (
            made,
            &[
                "CREATE TEMP TABLE t (a int)",
                "CREATE TEMPORARY SEQUENCE s",
                "create or replace temp view v as select 1",
                "CREATE LOCAL TEMPORARY TABLE t AS SELECT 1",
                "CREATE GLOBAL TEMP TABLE t (a int)",
                "CREATE TEMP RECURSIVE VIEW v (a) AS SELECT 1",
                "CREATE TABLE pg_temp.t (a int)",
                "CREATE TABLE \"pg_temp\".t (a int)",
                "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "SELECT * INTO TEMP t FROM u",
                "SELECT * INTO LOCAL TEMPORARY TABLE t FROM u",
                "SELECT 1 INTO pg_temp.t",
                "WITH x AS (SELECT 1) SELECT * INTO TEMP t FROM x",
            ],
        ),
        (made | Effects::EXECUTE, &["CREATE TEMP TABLE t AS EXECUTE p(1)"]),
        (Effects::TEMP_OBJECT | Effects::WRITE, &["INSERT INTO pg_temp_3.t VALUES (1)"]),
        (Effects::TEMP_OBJECT | Effects::SET_SESSION, &["SET search_path TO 'pg_temp', public"]),
        (Effects::TEMP_OBJECT | Effects::SET_LOCAL, &["SET LOCAL search_path = PG_TEMP"]),
        (Effects::TEMP_OBJECT | Effects::SET_CONFIG, &["SELECT set_config('search_path', 'pg_temp', false)"]),
        (Effects::WRITE, &["INSERT INTO temp VALUES (1)", "INSERT INTO temporary (a) VALUES (1)"]),
    ]);
}

#[test]
fn advisory_locks_of_the_session_are_told_from_those_of_the_transaction() {
    table(&[
        (
            Effects::ADVISORY_LOCK,
            &[
                "SELECT pg_advisory_lock(1)",
                "SELECT pg_catalog.pg_advisory_lock_shared(1, 2)",
                "select pg_try_advisory_lock (1) from t where x in (1)",
                "SELECT PG_TRY_ADVISORY_LOCK_SHARED(1)",
            ],
        ),
        (Effects::ADVISORY_UNLOCK, &["SELECT pg_advisory_unlock(1)", "SELECT pg_advisory_unlock_shared(1)"]),
        (Effects::ADVISORY_UNLOCK_ALL, &["SELECT pg_advisory_unlock_all()"]),
    ]);
}

#[test]
fn a_call_is_of_the_user_unless_postgresql_has_that_function() {
    table(&[(
        Effects::USER_FUNCTION,
        &[
            "SELECT f(1)",
            "SELECT public.lower('x')",
            "SELECT \"Lower\"('x')",
            "SELECT \"coalesce\"(1)",
            "SELECT a, f (1) FROM t",
            "SELECT * FROM f(1)",
            "SELECT * FROM t JOIN f(1) g(a) ON f(2)",
            "SELECT * FROM t, LATERAL s.f(t.a) AS x(b)",
            "SELECT DISTINCT ON (a) f(x) FROM t",
            "SELECT DISTINCT ON ((a), (b)) s.f(x) FROM t",
            "SELECT a OPERATOR(pg_catalog.+) f(1)",
            "SELECT -f(1), a||f(2), [f(3)]",
            "SELECT CASE WHEN f(1) THEN 1 END",
            "SELECT x WHERE a BETWEEN SYMMETRIC f(1) AND 2",
            "SELECT * FROM t ORDER BY f(a)",
            "SELECT lower(f(x))",
            "SELECT ARRAY[f(1)]",
            "SELECT query_to_xml('SELECT 1', true, true, '')",
            "SELECT * FROM a() WITH ORDINALITY, f(x)",
            "SELECT key(1)",
            "WITH x AS (SELECT 1) SELECT 1, f(2)",
            "SELECT f/* */(1)",
            "SELECT f -- x\n (1)",
        ],
    )]);
}

#[test]
fn explain_runs_what_is_in_it_only_with_analyze() {
    let inner = "SELECT nextval('s'), set_config('a', 'b', false)";
    let runs = Effects::SEQUENCE_NEXT | Effects::SET_CONFIG;
    for (options, effects) in [
        ("", E),
        ("VERBOSE", E),
        ("(VERBOSE, FORMAT json)", E),
        ("ANALYZE", runs),
        ("ANALYSE VERBOSE", runs),
        ("(VERBOSE, ANALYZE)", runs),
        ("(ANALYZE on, COSTS off)", runs),
    ] {
        assert_eq!(of(&format!("EXPLAIN {options} {inner}")), effects | Effects::EXPLAIN, "{options}");
    }
    assert_eq!(of("EXPLAIN (SELECT f(1))"), Effects::EXPLAIN | Effects::USER_FUNCTION);
    assert_eq!(of("EXPLAIN INSERT INTO t (a) VALUES (1)"), Effects::EXPLAIN);
    assert_eq!(of("EXPLAIN ANALYZE INSERT INTO t (a) VALUES (1)"), Effects::EXPLAIN | Effects::WRITE);
    assert_eq!(
        of("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1"),
        Effects::EXPLAIN | Effects::DDL | Effects::TEMP_OBJECT
    );
}

#[test]
fn what_cannot_be_understood_is_uncertain() {
    for text in [
        "SELECT 'a",
        "SELECT \"a",
        "SELECT $$a",
        "SELECT $a$ $b$",
        "SELECT /* /* */",
        "SELECT E'a\\'",
        "SELECT (1",
        "SELECT 1)",
        "FROBNICATE",
        "SET",
        "SET = 1",
        "DISCARD NOTHING",
        "LISTEN",
        "EXPLAIN EXPLAIN SELECT 1",
        "SELECT U&\"a\\0062\"(1)",
        "SELECT 1\0; SET a = 1",
        "'a'",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1;",
    ] {
        assert!(of(text).contains(Effects::UNCERTAIN), "{text}: {:?}", of(text));
    }
}

#[test]
fn a_text_is_split_where_postgresql_splits_it() {
    for (text, expected) in [
        ("a; b ;c", &["a", "b", "c"][..]),
        (";; select ';' ; ", &["select ';'"]),
        ("select $$;$$; select $a$;$b$;$a$ ; select \";\"", &["select $$;$$", "select $a$;$b$;$a$", "select \";\""]),
        ("select 1 -- ;\n; select 2 /* ; /* ; */ ; */", &["select 1", "select 2"]),
        ("select 1 +-- ;\n2; select 1 @/* ; */ 2", &["select 1 +-- ;\n2", "select 1 @/* ; */ 2"]),
        ("select E'\\';'; select 'a\\'; select 2", &["select E'\\';'", "select 'a\\'", "select 2"]),
        ("select E'a' -- ;\n 'b\\';'; select 2", &["select E'a' -- ;\n 'b\\';'", "select 2"]),
        ("select a$b$; select c$b$", &["select a$b$", "select c$b$"]),
        ("select 1$$;$$; select $1$$;$$", &["select 1$$;$$", "select $1$$;$$"]),
        ("create rule r as on insert to t do (a; b); c", &["create rule r as on insert to t do (a; b)", "c"]),
        (
            "create or replace function f() returns int begin atomic select case when a then (case 1 end) end; \
             select 2; end; select 3",
            &[
                "create or replace function f() returns int begin atomic select case when a then (case 1 end) end; \
                 select 2; end",
                "select 3",
            ],
        ),
        (
            "CREATE PROCEDURE p() BEGIN ATOMIC; INSERT INTO t VALUES (1); END; BEGIN; END",
            &["CREATE PROCEDURE p() BEGIN ATOMIC; INSERT INTO t VALUES (1); END", "BEGIN", "END"],
        ),
    ] {
        let found: Vec<&str> = statements(text.as_bytes(), Options::default())
            .map(|statement| std::str::from_utf8(statement.text()).expect("UTF-8"))
            .collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn without_standard_conforming_strings_a_backslash_escapes_in_a_plain_string() {
    let text = br"SELECT 'a\'; SET x = 1; --'";
    let off = Options { standard_conforming_strings: false, ..Options::default() };
    assert_eq!(effects(text, Options::default()), Effects::SET_SESSION);
    assert_eq!(effects(text, off), Effects::NONE);
    assert_eq!(effects(br"SELECT N'a\'; SET x = 1; --'", off), Effects::NONE);
    assert_eq!(effects(br"SELECT B'a\'; SET x = 1; --'", off), Effects::SET_SESSION);
}

#[test]
fn in_an_encoding_that_reuses_ascii_bytes_only_ascii_texts_are_certain() {
    let unsafe_encoding = Options { ascii_safe_encoding: false, ..Options::default() };
    assert_eq!(effects(b"SELECT 'a'", unsafe_encoding), Effects::NONE);
    assert_eq!(effects(b"SELECT '\x83\x5c'", unsafe_encoding), Effects::UNCERTAIN);
    assert_eq!(effects(b"SELECT '\x83\x5c'", Options::default()), Effects::NONE);
}

#[test]
fn a_statement_says_what_it_is_about() {
    for (text, command, name) in [
        ("SET Search_Path TO a", Command::Set, Some("search_path")),
        ("SET SESSION MyApp.\"Tenant\" = 'x'", Command::Set, Some("myapp.Tenant")),
        ("SET LOCAL work_mem = 1", Command::Set, Some("work_mem")),
        ("SET TIME ZONE 'UTC'", Command::Set, Some("timezone")),
        ("SET NAMES 'utf8'", Command::Set, Some("client_encoding")),
        ("SET ROLE \"X\"", Command::Set, Some("role")),
        ("SET SESSION AUTHORIZATION x", Command::Set, Some("session_authorization")),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Command::SetCharacteristics, None),
        ("SET TRANSACTION READ ONLY", Command::SetTransaction, None),
        ("RESET a.b", Command::Reset, Some("a.b")),
        ("RESET SESSION AUTHORIZATION", Command::Reset, Some("session_authorization")),
        ("RESET TRANSACTION ISOLATION LEVEL", Command::Reset, Some("transaction_isolation")),
        ("RESET ALL", Command::ResetAll, None),
        ("SHOW TRANSACTION ISOLATION LEVEL", Command::Show, Some("transaction_isolation")),
        ("SHOW TimeZone", Command::Show, Some("timezone")),
        ("SHOW ALL", Command::Show, None),
        ("LISTEN \"My Channel\"", Command::Listen, Some("My Channel")),
        ("UNLISTEN c", Command::Unlisten, Some("c")),
        ("UNLISTEN *", Command::UnlistenAll, None),
        ("NOTIFY C, 'x'", Command::Notify, Some("c")),
        ("PREPARE P (int) AS SELECT $1", Command::Prepare, Some("p")),
        ("EXECUTE P(1)", Command::Execute, Some("p")),
        ("EXPLAIN ANALYZE EXECUTE P", Command::Explain, Some("p")),
        ("CREATE TABLE t AS EXECUTE \"P\" (1)", Command::Create, Some("P")),
        ("DEALLOCATE PREPARE p", Command::Deallocate, Some("p")),
        ("DEALLOCATE prepare", Command::Deallocate, Some("prepare")),
        ("DEALLOCATE PREPARE ALL", Command::DeallocateAll, None),
        ("DEALLOCATE \"all\"", Command::Deallocate, Some("all")),
        ("DECLARE c CURSOR FOR SELECT 1", Command::Declare, Some("c")),
        ("FETCH 5 FROM \"C\"", Command::Fetch, Some("C")),
        ("CLOSE c", Command::Close, Some("c")),
        ("CLOSE ALL", Command::CloseAll, None),
        ("SAVEPOINT S", Command::Savepoint, Some("s")),
        ("RELEASE s", Command::Release, Some("s")),
        ("RELEASE SAVEPOINT s", Command::Release, Some("s")),
        ("RELEASE savepoint", Command::Release, Some("savepoint")),
        ("ROLLBACK TO s", Command::RollbackTo, Some("s")),
        ("ROLLBACK WORK TO SAVEPOINT s", Command::RollbackTo, Some("s")),
        ("WITH x AS (SELECT 1) UPDATE t SET a = 1", Command::Update, None),
        ("WITH x AS (DELETE FROM t) SELECT 1", Command::Select, None),
    ] {
        let statement = only(text);
        assert_eq!(statement.command(), command, "{text}");
        assert_eq!(statement.name().as_deref(), name.map(str::as_bytes), "{text}");
        assert!(!statement.effects().contains(Effects::UNCERTAIN), "{text}");
    }
}

#[test]
fn the_name_and_the_inner_statement_can_be_cut_out_of_the_text() {
    let text = " /* x */ PREPARE \"P\" (int) AS SELECT $1 ; EXPLAIN (VERBOSE) SELECT 2; DECLARE c CURSOR FOR TABLE t";
    let found: Vec<_> = statements(text.as_bytes(), Options::default()).collect();
    let [prepare, explain, declare] = &found[..] else { panic!("three statements") };
    assert_eq!(&text[prepare.name_span().expect("a name")], "\"P\"");
    assert_eq!(prepare.text(), b"PREPARE \"P\" (int) AS SELECT $1");
    assert_eq!(prepare.body(), Some(&b"SELECT $1"[..]));
    assert_eq!(explain.body(), Some(&b"SELECT 2"[..]));
    assert_eq!(declare.body(), Some(&b"TABLE t"[..]));
    assert_eq!(only("SELECT 1").body(), None);
    assert_eq!(only("PREPARE p AS").body(), None);
}

#[test]
fn transactions_are_followed() {
    for (text, command, effects) in [
        ("BEGIN", Command::Begin, Effects::TRANSACTION_BEGIN),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", Command::Begin, Effects::TRANSACTION_BEGIN),
        ("START TRANSACTION READ ONLY", Command::Begin, Effects::TRANSACTION_BEGIN),
        ("COMMIT", Command::Commit, Effects::TRANSACTION_END),
        ("END TRANSACTION", Command::Commit, Effects::TRANSACTION_END),
        ("COMMIT AND NO CHAIN", Command::Commit, Effects::TRANSACTION_END),
        ("COMMIT WORK AND CHAIN", Command::Commit, Effects::TRANSACTION_END | Effects::TRANSACTION_BEGIN),
        ("ABORT", Command::Rollback, Effects::TRANSACTION_END),
        ("ROLLBACK TRANSACTION", Command::Rollback, Effects::TRANSACTION_END),
        ("ROLLBACK TO x", Command::RollbackTo, Effects::SAVEPOINT),
        ("PREPARE TRANSACTION 'x'", Command::PrepareTransaction, Effects::TRANSACTION_END),
        ("COMMIT PREPARED 'x'", Command::CommitPrepared, Effects::NONE),
        ("ROLLBACK PREPARED 'x'", Command::RollbackPrepared, Effects::NONE),
    ] {
        let statement = only(text);
        assert_eq!((statement.command(), statement.effects()), (command, effects), "{text}");
        assert!(!may_touch_session(text.as_bytes(), Options::default()), "{text}");
    }
}

#[test]
fn the_reset_query_of_asyncpg_is_understood() {
    let text = b"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
    let summary = summarize(text, Options::default());
    assert_eq!(summary.statements, 4);
    assert_eq!(summary.first, Command::Select);
    assert_eq!(
        summary.effects,
        Effects::ADVISORY_UNLOCK_ALL | Effects::CLOSE_ALL | Effects::UNLISTEN | Effects::RESET_ALL
    );
}

#[test]
fn more_statements_than_can_be_counted_are_uncertain() {
    let text = "SELECT 1;".repeat(70_000);
    let summary = summarize(text.as_bytes(), Options::default());
    assert_eq!((summary.statements, summary.effects), (u16::MAX, Effects::UNCERTAIN));
}
