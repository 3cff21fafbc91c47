//! Statements of SQL's PREPARE follow their client from server to server, and are nobody else's.

use crate::support::messages::frontend;
use crate::support::pgweir::Setup;
use crate::support::postgres::{PgVersion, Postgres, shared};
use crate::{pinned, pool_of, same_alone};

#[test]
fn statements_of_sql_follow_their_client() {
    same_alone(
        &[],
        &[
            "PREPARE q (int) AS SELECT $1 + 1",
            "EXECUTE q(1)",
            "EXECUTE q('word')",
            "EXECUTE q",
            "PREPARE q AS SELECT 2",
            "EXPLAIN (COSTS OFF) EXECUTE q(7)",
            "PREPARE \"Quoted \"\"name\" AS VALUES ('quoted')",
            "EXECUTE \"Quoted \"\"name\"",
            "EXECUTE quoted",
            "BEGIN",
            "PREPARE kept AS SELECT 'kept'",
            "ROLLBACK",
            "EXECUTE kept",
            "SELECT 1/0; PREPARE never AS SELECT 1",
            "EXECUTE never",
            "PREPARE early AS SELECT 'early'; SELECT 1/0",
            "EXECUTE early",
            "BEGIN; EXECUTE kept; COMMIT; EXECUTE early",
            "DEALLOCATE kept",
            "EXECUTE kept",
            "DEALLOCATE kept",
            "PREPARE kept AS SELECT 'another'",
            "EXECUTE kept; DEALLOCATE PREPARE kept; EXECUTE kept",
            "EXECUTE kept",
            "PREPARE bad AS SELECT no_such_column",
            "EXECUTE bad",
            "PREPARE sets AS SELECT set_config('work_mem', '77MB', false)",
            "EXECUTE sets",
            "SHOW work_mem",
            "RESET work_mem",
            "DEALLOCATE ALL",
            "EXECUTE q(1)",
            "PREPARE q AS SELECT 3; EXECUTE q; DEALLOCATE q; PREPARE q AS SELECT 4; EXECUTE q",
            "EXECUTE q",
            "DISCARD ALL",
            "EXECUTE q",
        ],
    );
}

/// What both prepare is in one room of names.
#[test]
fn statements_of_the_protocol_and_of_sql_have_the_same_names() {
    let pgweir = pool_of(1);
    let (mut pooled, mut direct, mut other) =
        (pgweir.client(), crate::direct_with(&[]), pgweir.client());
    let use_it = |name: &str| {
        [frontend::bind("", name, &[]), frontend::execute("", 0), frontend::sync()].concat()
    };
    let parse = |name: &str, sql: &str| [frontend::parse(name, sql), frontend::sync()].concat();
    let close = |name: &str| [frontend::close(b'S', name), frontend::sync()].concat();
    let describe = |name: &str| [frontend::describe(b'S', name), frontend::sync()].concat();
    let text = frontend::query;
    let steps = [
        parse("x", "SELECT 'by protocol'"),
        text("EXECUTE x"),
        text("PREPARE x AS SELECT 1"),
        use_it("x"),
        text("DEALLOCATE x"),
        use_it("x"),
        text("EXECUTE x"),
        text("PREPARE x AS SELECT 'by sql'"),
        use_it("x"),
        describe("x"),
        parse("x", "SELECT 2"),
        text("EXECUTE x"),
        close("x"),
        text("EXECUTE x"),
        use_it("x"),
        parse("x", "SELECT 'again'"),
        use_it("x"),
        text("EXECUTE x"),
        close("x"),
        text("EXECUTE x"),
        parse("p", "PREPARE y AS SELECT 'in two steps'"),
        use_it("p"),
        text("EXECUTE y"),
        parse("e", "EXECUTE y"),
        describe("e"),
        use_it("e"),
        parse("d", "DEALLOCATE y"),
        use_it("d"),
        use_it("e"),
        use_it("d"),
        use_it("p"),
        use_it("e"),
        text("DEALLOCATE ALL"),
        use_it("p"),
        text("EXECUTE y"),
    ];
    for (at, step) in steps.iter().enumerate() {
        pooled.send(step);
        direct.send(step);
        assert_eq!(pooled.until_ready(), direct.until_ready(), "step {at}");
        assert_eq!(other.value("SELECT count(*) FROM pg_prepared_statements WHERE from_sql"), "0");
        assert_eq!(other.query("EXECUTE y"), ["ErrorResponse ERROR 26000", "ReadyForQuery I"]);
        other.send(&use_it("x"));
        assert_eq!(other.until_ready(), ["ErrorResponse ERROR 26000", "ReadyForQuery I"]);
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

/// In the middle of a pipeline, PostgreSQL 18 would answer the text and keep its transaction open.
#[test]
fn what_a_statement_that_is_prepared_again_writes_is_committed() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    client.execute("CREATE TABLE prepared_writes (id int)");
    client.execute("PREPARE ins(int) AS INSERT INTO prepared_writes VALUES ($1)");
    let process = "SELECT pg_backend_pid()";
    let only = other.value(process);
    for number in 1..4 {
        assert_eq!(other.value(process), only, "the server stays");
        let answer = client.query("EXECUTE ins(1)");
        assert_eq!(answer, ["CommandComplete INSERT 0 1", "ReadyForQuery I"]);
        let mut direct = shared().client();
        let count = "SELECT count(*) FROM prepared_writes";
        assert_eq!(direct.value(count), number.to_string());
        assert_eq!(other.value(count), number.to_string());
    }
    client.execute("DROP TABLE prepared_writes");
}

/// PostgreSQL 18 leaves a transaction open behind a simple query in the middle of a batch.
#[test]
fn a_query_in_the_middle_of_a_batch_harms_nobody_else() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    let batch = [
        frontend::parse("", "SELECT 1"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::query("SELECT 2"),
        frontend::sync(),
    ];
    for _ in 0..3 {
        client.send(&batch.concat());
        let answers = [client.until_ready(), client.until_ready()];
        assert_eq!(answers[1], ["ReadyForQuery I"], "{answers:?}");
        assert_eq!(other.value("SELECT 3"), "3");
    }
}

/// An error of the statement that is prepared again is the one that the text gets.
#[test]
fn what_cannot_be_prepared_again_is_told() {
    let pgweir = pool_of(1);
    let mut client = pgweir.client();
    let mut other = pgweir.client();
    client.execute("CREATE TABLE prepared_gone (id int)");
    client.execute("PREPARE q AS SELECT * FROM prepared_gone");
    client.execute("PREPARE r AS SELECT 1");
    assert_eq!(other.value("SELECT 1"), "1");
    client.execute("DROP TABLE prepared_gone");
    assert_eq!(other.value("SELECT 1"), "1");
    let gone = ["ErrorResponse ERROR 42P01", "ReadyForQuery I"];
    assert_eq!(client.query("EXECUTE q"), gone);
    assert_eq!(client.query("EXECUTE q"), gone);
    assert_eq!(client.value("EXECUTE r"), "1");
    client.execute("BEGIN");
    assert_eq!(client.query("EXECUTE q"), ["ErrorResponse ERROR 42P01", "ReadyForQuery E"]);
    assert_eq!(client.query("EXECUTE r"), ["ErrorResponse ERROR 25P02", "ReadyForQuery E"]);
    client.execute("ROLLBACK");
    assert_eq!(client.value("EXECUTE r"), "1");
}

/// More than pgweir remembers of one client.
#[test]
fn more_statements_than_are_remembered_pin() {
    let pgweir = pool_of(2);
    let mut client = pgweir.client();
    let long = "x".repeat(100_000);
    for at in 0..4 {
        client.execute(&format!("PREPARE q{at} AS SELECT '{long}', {at}"));
    }
    crate::support::eventually("it is pinned", || pinned(&pgweir) == 1.0);
    for at in 0..4 {
        let mut other = pgweir.client();
        other.execute("SELECT 1");
        assert_eq!(client.value(&format!("EXECUTE q{at}")), at.to_string());
    }
    client.execute("DEALLOCATE ALL");
    crate::support::eventually("it is let go", || pinned(&pgweir) == 0.0);
}

/// The end of what is sent ahead is not the end of the client's own batch.
#[test]
fn a_statement_that_is_prepared_in_two_steps_behind_settings_is_remembered() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    client.execute("SET work_mem = '77MB'");
    for at in 0..10 {
        assert_eq!(other.value("SHOW work_mem"), "4MB");
        let sql = format!("PREPARE q{at} AS SELECT {at}");
        let answer = client.batch(&[
            frontend::parse("", &sql),
            frontend::bind("", "", &[]),
            frontend::execute("", 0),
            frontend::sync(),
        ]);
        assert_eq!(answer.last().unwrap(), "ReadyForQuery I");
        assert_eq!(other.value("SHOW work_mem"), "4MB");
        assert_eq!(client.value(&format!("EXECUTE q{at}")), at.to_string());
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn code_that_deallocates_takes_nothing_from_others_for_long() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).target("max_connections = 2").start();
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    let use_it = [frontend::bind("", "s", &[]), frontend::execute("", 0), frontend::sync()];
    other.batch(&[frontend::parse("s", "SELECT 'shared'"), frontend::sync()]);
    client.execute("DO $$BEGIN DEALLOCATE ALL; END$$");
    for _ in 0..3 {
        assert_eq!(other.batch(&use_it)[0], "BindComplete");
    }
    client.execute("DISCARD ALL");
    assert_eq!(other.batch(&use_it)[0], "BindComplete");
    // Of this, pgweir does not know what it does.
    postgres.client().execute(
        "CREATE FUNCTION public.forget() RETURNS void LANGUAGE plpgsql AS $$BEGIN DEALLOCATE ALL; END$$",
    );
    client.execute("SELECT forget()");
    let answers: Vec<_> = (0..3).map(|_| other.batch(&use_it)).collect();
    let missing = answers.iter().filter(|answer| answer[0].contains("26000")).count();
    assert!(missing <= 1 && answers[2][0] == "BindComplete", "{answers:?}");
    // Another text does not get to its place.
    client.batch(&[frontend::parse("s", "SELECT 'shared'"), frontend::sync()]);
    client.execute("SELECT forget()");
    let answer = client.batch(&[frontend::parse("s", "SELECT 'another'"), frontend::sync()]);
    assert_eq!(answer, ["ErrorResponse ERROR 42P05", "ReadyForQuery I"]);
    for _ in 0..3 {
        let answer = other.batch(&use_it);
        assert!(answer[0].contains("26000") || answer[1] == "DataRow shared", "{answer:?}");
    }
}

/// What a statement is called on a server is known to pgweir alone.
#[test]
fn a_name_that_is_shared_is_no_name_to_sql() {
    let pgweir = pool_of(1);
    let mut other = pgweir.client();
    other.batch(&[frontend::parse("t", "SELECT 1"), frontend::sync()]);
    let name = "SELECT name FROM pg_prepared_statements WHERE statement = 'SELECT 1'";
    let name = other.value(name);
    let escaped = format!("U&\"{}\"", name.replace('_', "\\005f"));
    let missing = ["ErrorResponse ERROR 26000", "ReadyForQuery I"];
    for name in [name, escaped] {
        let mut client = pgweir.client();
        client.batch(&[frontend::parse("s", "SELECT 1"), frontend::sync()]);
        let answer = client.batch(&[
            frontend::parse("", &format!("DEALLOCATE {name}")),
            frontend::bind("a", "", &[]),
            frontend::bind("", "s", &[]),
            frontend::execute("a", 0),
            frontend::sync(),
        ]);
        assert_eq!(answer[3..], missing, "{name}");
        assert_eq!(client.query(&format!("DEALLOCATE {name}")), missing, "{name}");
        assert_eq!(client.query(&format!("EXECUTE {name}")), missing, "{name}");
        let answer = client.batch(&[frontend::parse("s", "SELECT 2"), frontend::sync()]);
        assert_eq!(answer, ["ErrorResponse ERROR 42P05", "ReadyForQuery I"], "{name}");
        // What an escaped name stands for is not known, and so pins.
        if name.starts_with("U&") {
            drop(client);
        }
        let use_it = [frontend::bind("", "t", &[]), frontend::execute("", 0), frontend::sync()];
        assert_eq!(other.batch(&use_it)[1], "DataRow 1", "{name}");
    }
}

#[test]
fn an_error_about_a_statement_that_came_to_nothing_has_its_name() {
    let pgweir = pool_of(1);
    let mut client = pgweir.client();
    let bad = |name| [frontend::parse(name, &format!("SELECT no_such_{name}")), frontend::sync()];
    let bind = |name| [frontend::bind("", name, &[]), frontend::sync()];
    client.send(&[bad("s"), bad("t"), bind("s"), bind("t")].concat().concat());
    let told = [0; 4].map(|_| client.messages_until_ready()[0].field('M'));
    for (told, name) in told[2..].iter().zip(["s", "t"]) {
        assert_eq!(told, &format!("prepared statement \"{name}\" does not exist"));
    }
}

#[test]
fn a_prepare_of_a_name_that_is_taken_does_not_pin() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    client.batch(&[frontend::parse("q", "SELECT $1::int"), frontend::sync()]);
    // What has changed a setting is looked into.
    let answer = client.query("SET work_mem = '5MB'; PREPARE q AS SELECT 2");
    assert!(answer.contains(&"ErrorResponse ERROR 42P05".to_owned()), "{answer:?}");
    assert_eq!(other.value("SELECT 'has the server'"), "has the server");
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}
