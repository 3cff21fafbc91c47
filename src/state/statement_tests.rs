//! Tests of what a statement is said to do.

use super::*;
use proptest::prelude::*;

fn of(sql: &str) -> Effects {
    effects(sql.as_bytes(), Options::default())
}

fn only(sql: &str) -> Statement<'_> {
    let mut found = statements(sql.as_bytes(), Options::default());
    let statement = found.next().expect("a statement");
    assert!(found.next().is_none(), "more than one statement in {sql}");
    statement
}

/// The file holds texts behind lines such as `= DDL | TEMP_OBJECT`, which say what these do, in sections that say
/// why. A backslash and an `n` stand for a line end.
#[test]
fn each_text_of_the_table_has_its_effects() {
    let (mut section, mut expected, mut compared) = ("", Effects::NONE, 0);
    for line in include_str!("../../tests/data/lexer/effects.txt").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading;
        } else if let Some(names) = line.strip_prefix("= ") {
            expected = names.split(" | ").filter(|name| *name != "NONE").fold(
                Effects::NONE,
                |sum, name| {
                    let named = Effects::NAMES.iter().find(|(_, other)| *other == name);
                    sum | named.unwrap_or_else(|| panic!("{name} is no effect")).0
                },
            );
        } else {
            assert_eq!(of(&line.replace("\\n", "\n")), expected, "{section}: {line}");
            compared += 1;
        }
    }
    assert!(compared > 200, "{compared} texts");
}

#[test]
fn explain_runs_what_is_in_it_only_with_analyze() {
    let inner = "SELECT nextval('s'), set_config('a', 'b', false)";
    let runs = Effects::SEQUENCE_NEXT | Effects::SET_CONFIG;
    for (options, effects) in [
        ("", Effects::NONE),
        ("VERBOSE", Effects::NONE),
        ("(VERBOSE, FORMAT json)", Effects::NONE),
        ("ANALYZE", runs),
        ("ANALYSE VERBOSE", runs),
        ("(VERBOSE, ANALYZE)", runs),
        ("(ANALYZE on, COSTS off)", runs),
    ] {
        assert_eq!(
            of(&format!("EXPLAIN {options} {inner}")),
            effects | Effects::EXPLAIN,
            "{options}"
        );
    }
    assert_eq!(of("EXPLAIN (SELECT f(1))"), Effects::EXPLAIN | Effects::USER_FUNCTION);
    assert_eq!(of("EXPLAIN INSERT INTO t (a) VALUES (1)"), Effects::EXPLAIN);
    assert_eq!(
        of("EXPLAIN ANALYZE INSERT INTO t (a) VALUES (1)"),
        Effects::EXPLAIN | Effects::WRITE
    );
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
        (
            "select $$;$$; select $a$;$b$;$a$ ; select \";\"",
            &["select $$;$$", "select $a$;$b$;$a$", "select \";\""],
        ),
        ("select 1 -- ;\n; select 2 /* ; /* ; */ ; */", &["select 1", "select 2"]),
        ("select 1 +-- ;\n2; select 1 @/* ; */ 2", &["select 1 +-- ;\n2", "select 1 @/* ; */ 2"]),
        ("select E'\\';'; select 'a\\'; select 2", &["select E'\\';'", "select 'a\\'", "select 2"]),
        ("select E'a' -- ;\n 'b\\';'; select 2", &["select E'a' -- ;\n 'b\\';'", "select 2"]),
        ("select a$b$; select c$b$", &["select a$b$", "select c$b$"]),
        ("select 1$$;$$; select $1$$;$$", &["select 1$$;$$", "select $1$$;$$"]),
        (
            "create rule r as on insert to t do (a; b); c",
            &["create rule r as on insert to t do (a; b)", "c"],
        ),
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

/// Texts, what each is, and what it is about.
const ABOUT: &[(&str, Command, Option<&str>)] = &[
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
    ("WITH update AS (SELECT 1), delete AS (SELECT 2) SELECT 3", Command::Select, None),
];

#[test]
fn a_statement_says_what_it_is_about() {
    for &(text, command, name) in ABOUT {
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
        (
            "COMMIT WORK AND CHAIN",
            Command::Commit,
            Effects::TRANSACTION_END | Effects::TRANSACTION_BEGIN,
        ),
        ("ABORT", Command::Rollback, Effects::TRANSACTION_END),
        ("ROLLBACK TRANSACTION", Command::Rollback, Effects::TRANSACTION_END),
        ("ROLLBACK TO x", Command::RollbackTo, Effects::SAVEPOINT),
        ("PREPARE TRANSACTION 'x'", Command::PrepareTransaction, Effects::TRANSACTION_END),
        ("COMMIT PREPARED 'x'", Command::CommitPrepared, Effects::DDL),
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

/// Pieces of SQL that mean the same whatever stands between them.
fn pieces() -> impl Strategy<Value = Vec<&'static str>> {
    const PIECES: [&str; 60] = [
        "SELECT",
        "SET",
        "SESSION",
        "LOCAL",
        "RESET",
        "ALL",
        "ROLE",
        "TO",
        "=",
        "TIME",
        "ZONE",
        "x",
        "\"Y\"",
        "f",
        "lower",
        "(",
        ")",
        ",",
        ".",
        ";",
        "'a'",
        "$$b;$$",
        "1",
        "$1",
        "::",
        "+",
        "*",
        "WITH",
        "AS",
        "INSERT",
        "INTO",
        "VALUES",
        "CREATE",
        "TEMP",
        "TABLE",
        "FUNCTION",
        "BEGIN",
        "ATOMIC",
        "CASE",
        "END",
        "EXPLAIN",
        "ANALYZE",
        "EXECUTE",
        "PREPARE",
        "DECLARE",
        "CURSOR",
        "HOLD",
        "FOR",
        "set_config",
        "nextval",
        "true",
        "pg_temp",
        "ON",
        "DISCARD",
        "LISTEN",
        "FROM",
        "COPY",
        "ROLLBACK",
        "SAVEPOINT",
        "DEALLOCATE",
    ];
    proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..24)
}

fn gaps() -> impl Strategy<Value = Vec<&'static str>> {
    const GAPS: [&str; 7] =
        [" ", "\n\t ", "\x0c", "/* ' ; */", "/* /* $$ */ \" */", "-- ' SET x = 1;\n", " --\r\n"];
    proptest::collection::vec(proptest::sample::select(&GAPS[..]), 25)
}

#[test]
fn what_stands_in_place_of_a_name_is_none() {
    for text in ["RESET . WITH", "; RESET . WITH", "SELECT 1; SHOW . a", ";SET . a = 1"] {
        let last = statements(text.as_bytes(), Options::default()).last().unwrap();
        assert_eq!(last.name(), None, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_lexer_fail_and_statements_do_not_overlap(
        text in proptest::collection::vec(any::<u8>(), 0..200),
        standard_conforming_strings: bool,
    ) {
        let options = Options { standard_conforming_strings, ..Options::default() };
        let mut end = 0;
        for statement in statements(&text, options) {
            let span = statement.span();
            prop_assert!(end <= span.start && span.start < span.end && span.end <= text.len());
            end = span.end;
            let _ = (statement.name(), statement.body());
        }
    }

    #[test]
    fn a_summary_is_the_sum_of_the_statements(pieces in pieces()) {
        let text = pieces.join(" ");
        let summary = summarize(text.as_bytes(), Options::default());
        let mut effects = Effects::NONE;
        let mut count = 0;
        for statement in statements(text.as_bytes(), Options::default()) {
            effects = effects | statement.effects();
            count += 1;
        }
        prop_assert_eq!((summary.effects, summary.statements), (effects, count));
    }

    #[test]
    fn blanks_and_comments_between_the_tokens_change_nothing(pieces in pieces(), gaps in gaps()) {
        let plain = pieces.join(" ");
        let spread: String = gaps.iter().zip(&pieces).flat_map(|(gap, piece)| [*gap, *piece]).collect();
        let of = |text: &str| -> Vec<_> {
            statements(text.as_bytes(), Options::default())
                .map(|found| (found.command(), found.effects(), found.name().map(Cow::into_owned)))
                .collect()
        };
        prop_assert_eq!(of(&plain), of(&spread));
    }

    #[test]
    fn a_statement_read_on_its_own_is_what_it_is_among_others(pieces in pieces()) {
        let text = pieces.join(" ");
        for statement in statements(text.as_bytes(), Options::default()) {
            let alone: Vec<_> = statements(statement.text(), Options::default()).collect();
            prop_assert_eq!(alone.len(), 1);
            prop_assert_eq!(alone[0].effects(), statement.effects());
            prop_assert_eq!(alone[0].name(), statement.name());
        }
    }
}
