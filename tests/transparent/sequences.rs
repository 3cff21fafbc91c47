//! Values of sequences: nobody meets another's, and who asks for its own later keeps it.

use crate::pinned;
use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{PgVersion, Postgres};
use crate::support::raw::RawClient;

const UNDEFINED: [&str; 2] = ["ErrorResponse ERROR 55000", "ReadyForQuery I"];

/// A database of its own with two sequences and a table with a serial column.
fn with_sequences(servers: u32) -> (Postgres, Pgweir) {
    let postgres = Postgres::start(PgVersion::Installed);
    postgres.client().execute(
        "CREATE SEQUENCE public.numbers; CREATE SEQUENCE public.others START 500;
         CREATE TABLE public.serials (id serial PRIMARY KEY, word text);
         CREATE TABLE public.plain (id int)",
    );
    let setup = Setup::before(&postgres).target(&format!("max_connections = {servers}"));
    let pgweir = setup.start();
    (postgres, pgweir)
}

/// Whoever wants to know what a session took last, in every way there is.
fn reads_nothing(client: &mut RawClient) {
    for sql in
        ["SELECT lastval()", "SELECT currval('numbers')", "DO $$ BEGIN PERFORM lastval(); END $$"]
    {
        assert_eq!(&client.query(sql)[client_lines(sql)..], UNDEFINED, "{sql}");
    }
    let batch = [
        frontend::parse("", "SELECT lastval()"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::sync(),
    ];
    let answer = client.batch(&batch);
    assert_eq!(answer, ["ParseComplete", "BindComplete", UNDEFINED[0], UNDEFINED[1]]);
    // lastval by its number, as `PQfn` does.
    let answer = client.batch(&[frontend::function_call(2559, &[])]);
    assert_eq!(answer, UNDEFINED);
}

/// A row is described before it fails, where the statement returns one.
fn client_lines(sql: &str) -> usize {
    usize::from(sql.starts_with("SELECT"))
}

/// Both take values more often than a pool has them forgotten ahead of who has never read any.
fn never_read(client: &mut RawClient, other: &mut RawClient) {
    for _ in 0..600 {
        other.execute("SELECT nextval('numbers')");
        client.execute("SELECT setval('numbers', 1)");
    }
}

#[test]
fn nobody_reads_the_value_of_another() {
    let (_postgres, pgweir) = with_sequences(4);
    let mut first = pgweir.client();
    for takes in [
        "SELECT nextval('numbers')",
        "INSERT INTO serials (word) VALUES ('x')",
        "SELECT setval('numbers', 40)",
        "DO $$ BEGIN PERFORM nextval('numbers'); END $$",
        "BEGIN; SELECT nextval('numbers'); ROLLBACK",
    ] {
        first.query(takes);
        reads_nothing(&mut pgweir.client());
    }
    let mut prepares = pgweir.client();
    prepares.execute("PREPARE q AS SELECT lastval()");
    pgweir.client().execute("SELECT nextval('numbers')");
    let answer = prepares.query("EXECUTE q");
    assert_eq!(answer[answer.len() - 2..], UNDEFINED);
}

#[test]
fn taking_values_does_not_pin() {
    let (_postgres, pgweir) = with_sequences(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for sql in [
        "SELECT nextval('numbers')",
        "SELECT setval('numbers', 40)",
        "INSERT INTO serials (word) VALUES ('x')",
        "BEGIN; SELECT nextval('numbers'), currval('numbers'); COMMIT",
        "SELECT nextval('numbers'); SELECT lastval()",
        "SELECT last_value FROM numbers",
    ] {
        client.execute(sql);
        other.execute("SELECT 1");
    }
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

#[test]
fn a_value_can_be_read_in_the_transaction_that_took_it() {
    let (_postgres, pgweir) = with_sequences(1);
    let mut clients: Vec<RawClient> = (0..3).map(|_| pgweir.client()).collect();
    for round in 0..5 {
        for client in &mut clients {
            let id = client.value("INSERT INTO serials (word) VALUES ('x') RETURNING id");
            client.execute("BEGIN; INSERT INTO serials (word) VALUES ('y')");
            let next = (id.parse::<u32>().unwrap() + 1).to_string();
            assert_eq!(client.value("SELECT lastval()"), next, "round {round}");
            let read = "SELECT currval('serials_id_seq')";
            assert_eq!(client.value(read), next, "round {round}");
            client.execute("COMMIT");
        }
    }
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

#[test]
fn clients_that_read_values_later_keep_their_server_and_others_do_not() {
    let (_postgres, pgweir) = with_sequences(3);
    let mut first = pgweir.client();
    let mut other = pgweir.client();
    first.execute("INSERT INTO serials (word) VALUES ('first')");
    other.execute("INSERT INTO plain VALUES (1)");
    // Lost or not, it is not another's; and the pool knows from here on.
    let answer = first.query("SELECT lastval()");
    assert!(
        answer.contains(&"DataRow 1".to_owned()) || answer.ends_with(&UNDEFINED.map(str::to_owned))
    );
    let mut clients = [pgweir.client(), pgweir.client()];
    for round in 0..4 {
        let ids: Vec<String> = clients
            .iter_mut()
            .map(|client| {
                client.execute("INSERT INTO serials (word) VALUES ('x')");
                other.execute("INSERT INTO plain VALUES (1)");
                other.value("SELECT last_value FROM serials_id_seq")
            })
            .collect();
        for (client, id) in clients.iter_mut().zip(&ids) {
            other.execute("SELECT nextval('numbers')");
            other.execute("DISCARD SEQUENCES");
            assert_eq!(client.value("SELECT lastval()"), *id, "round {round}");
            assert_eq!(client.value("SELECT currval('serials_id_seq')"), *id, "round {round}");
        }
    }
    // A server is asked behind the reply, so that the other's pin may end a little later.
    eventually("two are pinned", || pinned(&pgweir) == 2.0);
    assert!(pgweir.metric("pgweir_session_pins_total", "sequence") >= 2.0);
    let [one, two] = &mut clients;
    for (client, reset) in [(one, "DISCARD SEQUENCES"), (two, "DISCARD ALL")] {
        let before = pinned(&pgweir);
        client.execute(reset);
        eventually(reset, || pinned(&pgweir) == before - 1.0);
        let answer = client.query("SELECT lastval()");
        assert_eq!(answer[answer.len() - 2..], UNDEFINED);
    }
}

#[test]
fn setval_is_told_later_where_clients_read_later() {
    let (_postgres, pgweir) = with_sequences(2);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    client.execute("SELECT nextval('numbers')");
    client.query("SELECT currval('numbers')");
    client.execute("SELECT setval('others', 700)");
    other.execute("SELECT nextval('others'), nextval('numbers')");
    assert_eq!(client.value("SELECT currval('others')"), "700");
}

#[test]
fn a_failed_statement_before_a_read_ends_nothing() {
    let (_postgres, pgweir) = with_sequences(2);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for (fails, answers) in
        [("EXECUTE no_such", &UNDEFINED[..]), ("INSERT INTO plain VALUES ('x')", &UNDEFINED)]
    {
        other.execute("SELECT nextval('numbers')");
        client.query(fails);
        let answer = client.query("SELECT lastval()");
        assert_eq!(answer[1..], *answers, "{fails}");
    }
    // In a failed block nothing is told, and behind it nothing of another.
    other.execute("SELECT nextval('numbers')");
    client.execute("BEGIN");
    client.query("SELECT 1/0");
    assert_eq!(client.query("SELECT lastval()"), ["ErrorResponse ERROR 25P02", "ReadyForQuery E"]);
    client.execute("ROLLBACK");
    reads_nothing(&mut client);
}

#[test]
fn functions_read_no_values_of_others() {
    let postgres = Postgres::start(PgVersion::Installed);
    postgres.client().execute(
        "CREATE SEQUENCE public.numbers;
         CREATE FUNCTION public.latest() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN RETURN lastval(); END $$;
         CREATE VIEW public.seen AS SELECT lastval() AS value",
    );
    let pgweir = Setup::before(&postgres).target("max_connections = 1").start();
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for sql in ["SELECT latest()", "SELECT * FROM seen"] {
        never_read(&mut client, &mut other);
        other.execute("SELECT nextval('numbers')");
        let answer = client.query(sql);
        assert_eq!(answer[answer.len() - 2..], UNDEFINED, "{sql}");
    }
}

#[test]
fn a_call_by_number_in_a_block_that_fails_is_answered() {
    let (_postgres, pgweir) = with_sequences(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    never_read(&mut client, &mut other);
    other.execute("SELECT nextval('numbers')");
    let calls = frontend::function_call(2559, &[]);
    let failing = [frontend::query("BEGIN"), frontend::query("SELECT 1/0"), calls].concat();
    client.send(&failing);
    let answers: Vec<_> = (0..3).map(|_| client.until_ready()).collect();
    assert_eq!(answers[2], ["ErrorResponse ERROR 25P02", "ReadyForQuery E"]);
    client.execute("ROLLBACK");
    reads_nothing(&mut client);
}

#[test]
fn what_was_discarded_is_told_on_no_server() {
    let (_postgres, pgweir) = with_sequences(2);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    client.execute("SELECT nextval('numbers')");
    client.execute("DISCARD ALL");
    reads_nothing(&mut client);
    client.execute("SELECT nextval('numbers')");
    // On another server than the one that has the value.
    other.execute("BEGIN");
    client.execute("BEGIN; DISCARD SEQUENCES; COMMIT");
    other.execute("COMMIT");
    reads_nothing(&mut client);
}

/// PostgreSQL forbids it where anything was executed before in the same batch.
#[test]
fn a_do_may_commit_where_a_server_has_values_of_others() {
    let (_postgres, pgweir) = with_sequences(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    never_read(&mut client, &mut other);
    let commits = "DO $$ BEGIN INSERT INTO plain VALUES (1); COMMIT; END $$";
    let run = [frontend::bind("", "", &[]), frontend::execute("", 0), frontend::sync()];
    let parse = frontend::parse("", commits);
    for (messages, answers) in [
        ([parse.clone(), run.concat()].concat(), 1),
        ([parse, frontend::sync(), run.concat()].concat(), 2),
    ] {
        other.execute("SELECT nextval('numbers')");
        client.send(&messages);
        let answers: Vec<String> = (0..answers).flat_map(|_| client.until_ready()).collect();
        assert_eq!(answers[answers.len() - 2..], ["CommandComplete DO", "ReadyForQuery I"]);
    }
    assert_eq!(client.value("SELECT count(*) FROM plain"), "2");
    other.execute("SELECT nextval('numbers')");
    reads_nothing(&mut client);
}

/// Nobody knows yet that the block is open, and has failed.
#[test]
fn what_reads_values_in_a_block_that_fails_is_answered_in_a_pipeline_too() {
    for statement in ["DO $$ BEGIN END $$", "SELECT lastval()"] {
        let batch = [
            frontend::parse("", statement),
            frontend::bind("", "", &[]),
            frontend::execute("", 0),
            frontend::sync(),
        ];
        for messages in [batch.concat(), frontend::query(statement)] {
            let (_postgres, pgweir) = with_sequences(1);
            let (mut client, mut other) = (pgweir.client(), pgweir.client());
            never_read(&mut client, &mut other);
            other.execute("SELECT nextval('numbers')");
            let failing = [frontend::query("BEGIN"), frontend::query("SELECT 1/0"), messages];
            client.send(&failing.concat());
            let answers: Vec<_> = (0..3).map(|_| client.until_ready()).collect();
            assert_eq!(answers[2], ["ErrorResponse ERROR 25P02", "ReadyForQuery E"], "{statement}");
            client.execute("ROLLBACK");
        }
    }
}
