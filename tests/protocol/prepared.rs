//! Prepared statements of clients that share servers: each finds its own, wherever it is served.

use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::shared;
use crate::support::raw::RawClient;

fn pool_of(servers: u32) -> Pgweir {
    Setup::before(shared()).target(&format!("max_connections = {servers}")).start()
}

fn prepare(client: &mut RawClient, name: &str, sql: &str) -> Vec<String> {
    client.batch(&[frontend::parse(name, sql), frontend::sync()])
}

fn run(client: &mut RawClient, name: &str, parameters: &[Option<&str>]) -> Vec<String> {
    client.batch(&[
        frontend::bind("", name, parameters),
        frontend::execute("", 0),
        frontend::sync(),
    ])
}

fn row(value: &str) -> Vec<String> {
    ["BindComplete", &format!("DataRow {value}"), "CommandComplete SELECT 1", "ReadyForQuery I"]
        .map(str::to_owned)
        .to_vec()
}

const PARSED: [&str; 2] = ["ParseComplete", "ReadyForQuery I"];

#[test]
fn clients_with_the_same_names_keep_their_own_statements() {
    for servers in [1, 2] {
        let pgweir = pool_of(servers);
        let mut clients: Vec<_> = (0..3).map(|_| pgweir.client()).collect();
        for (number, client) in clients.iter_mut().enumerate() {
            let sql = format!("SELECT 'client {number} says ' || $1");
            assert_eq!(prepare(client, "s", &sql), PARSED);
            let sql = format!("SELECT 'client {number} unnamed ' || $1");
            assert_eq!(prepare(client, "", &sql), PARSED);
        }
        for round in 0..4 {
            let word = format!("{round}");
            // Some hold a server meanwhile, so that the others get another one.
            let mut holder = pgweir.client();
            let holds = servers > 1 && round % 2 == 1;
            if holds {
                holder.execute("BEGIN");
            }
            for (number, client) in clients.iter_mut().enumerate() {
                let named = run(client, "s", &[Some(&word)]);
                assert_eq!(named, row(&format!("client {number} says {word}")));
                let unnamed = run(client, "", &[Some(&word)]);
                assert_eq!(unnamed, row(&format!("client {number} unnamed {word}")));
            }
            if holds {
                holder.execute("COMMIT");
            }
        }
    }
}

#[test]
fn describing_a_statement_works_on_any_server() {
    let pgweir = pool_of(2);
    let mut client = pgweir.client();
    prepare(&mut client, "s", "SELECT $1::int AS number");
    for _ in 0..3 {
        let mut holder = pgweir.client();
        holder.execute("BEGIN");
        let transcript = client.batch(&[frontend::describe(b'S', "s"), frontend::sync()]);
        let expected = ["ParameterDescription 1", "RowDescription number", "ReadyForQuery I"];
        assert_eq!(transcript, expected);
    }
}

#[test]
fn a_simple_query_ends_the_unnamed_statement() {
    let pgweir = pool_of(1);
    let (mut client, mut direct) = (pgweir.client(), shared().client());
    for client in [&mut client, &mut direct] {
        prepare(client, "", "SELECT 'stale'");
        client.execute("SELECT 1");
    }
    assert_eq!(run(&mut client, "", &[]), run(&mut direct, "", &[]));
}

#[test]
fn a_client_never_sees_anothers_statements() {
    let pgweir = pool_of(1);
    let (mut one, mut other) = (pgweir.client(), pgweir.client());
    prepare(&mut one, "mine", "SELECT 'mine'");
    prepare(&mut one, "", "SELECT 'mine'");
    for name in ["mine", ""] {
        assert_eq!(run(&mut other, name, &[]), ["ErrorResponse ERROR 26000", "ReadyForQuery I"]);
        let describe = other.batch(&[frontend::describe(b'S', name), frontend::sync()]);
        assert_eq!(describe, ["ErrorResponse ERROR 26000", "ReadyForQuery I"]);
    }
    assert_eq!(run(&mut one, "mine", &[]), row("mine"));
}

#[test]
fn preparing_a_name_twice_is_an_error_until_it_is_closed() {
    let pgweir = pool_of(1);
    let mut client = pgweir.client();
    let mut other = pgweir.client();
    prepare(&mut client, "s", "SELECT 1");
    other.execute("SELECT 1");
    let twice = prepare(&mut client, "s", "SELECT 2");
    assert_eq!(twice, ["ErrorResponse ERROR 42P05", "ReadyForQuery I"]);
    assert_eq!(run(&mut client, "s", &[]), row("1"));
    let closed = client.batch(&[frontend::close(b'S', "s"), frontend::sync()]);
    assert_eq!(closed, ["CloseComplete", "ReadyForQuery I"]);
    assert_eq!(run(&mut client, "s", &[]), ["ErrorResponse ERROR 26000", "ReadyForQuery I"]);
    assert_eq!(prepare(&mut client, "s", "SELECT 3"), PARSED);
    assert_eq!(run(&mut client, "s", &[]), row("3"));
}

#[test]
fn a_statement_that_fails_to_parse_does_not_exist() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for client in [&mut client, &mut other] {
        let failed = prepare(client, "bad", "SELECT no_such_column");
        assert_eq!(failed, ["ErrorResponse ERROR 42703", "ReadyForQuery I"]);
        assert_eq!(run(client, "bad", &[]), ["ErrorResponse ERROR 26000", "ReadyForQuery I"]);
    }
}

/// Skipped by the server, a Parse is taken back; the same text must be parsed for the next.
#[test]
fn a_statement_skipped_after_an_error_does_not_exist() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    let transcript = client.batch(&[
        frontend::parse("", "SELECT 1/0"),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::parse("late", "SELECT 'late'"),
        frontend::sync(),
    ]);
    let expected = ["ParseComplete", "ErrorResponse ERROR 22012", "ReadyForQuery I"];
    assert_eq!(transcript, expected);
    assert_eq!(run(&mut client, "late", &[]), ["ErrorResponse ERROR 26000", "ReadyForQuery I"]);
    assert_eq!(prepare(&mut other, "late", "SELECT 'late'"), PARSED);
    assert_eq!(run(&mut other, "late", &[]), row("late"));
}

#[test]
fn a_statement_outlives_the_transaction_that_was_rolled_back() {
    let pgweir = pool_of(1);
    let mut client = pgweir.client();
    client.execute("BEGIN");
    assert_eq!(prepare(&mut client, "s", "SELECT 5"), ["ParseComplete", "ReadyForQuery T"]);
    client.execute("ROLLBACK");
    pgweir.client().execute("SELECT 1");
    assert_eq!(run(&mut client, "s", &[]), row("5"));
}

/// PostgreSQL plans anew when a table changes, and refuses when the result's type would.
#[test]
fn a_statement_over_a_changed_table_is_as_on_a_connection_of_its_own() {
    let pgweir = pool_of(1);
    let (mut client, mut direct) = (pgweir.client(), shared().client());
    let mut owner = shared().client();
    owner.execute("DROP TABLE IF EXISTS changing; CREATE TABLE changing (a int)");
    for client in [&mut client, &mut direct] {
        prepare(client, "all", "SELECT * FROM changing");
        run(client, "all", &[]);
    }
    owner.execute("ALTER TABLE changing ADD b int");
    assert_eq!(run(&mut client, "all", &[]), run(&mut direct, "all", &[]));
    assert_eq!(prepare(&mut client, "again", "SELECT a FROM changing"), PARSED);
    owner.execute("DROP TABLE changing");
}

#[test]
fn more_statements_than_a_server_keeps_all_work() {
    let pgweir = Setup::before(shared())
        .target("max_connections = 1")
        .target("max_prepared_statements = 5")
        .start();
    let mut clients = [pgweir.client(), pgweir.client()];
    for client in &mut clients {
        for number in 0..20 {
            let name = format!("s{number}");
            assert_eq!(prepare(client, &name, &format!("SELECT {number} + $1::int")), PARSED);
        }
    }
    for round in 0..3 {
        for client in &mut clients {
            for number in 0..20 {
                let got = run(client, &format!("s{number}"), &[Some(&round.to_string())]);
                assert_eq!(got, row(&(number + round).to_string()));
            }
        }
    }
    let kept: u32 =
        clients[0].value("SELECT count(*) FROM pg_prepared_statements").parse().unwrap();
    assert!(kept <= 5 + 4, "{kept} statements on the server");
}

#[test]
fn a_client_has_a_bounded_number_of_statements() {
    let pgweir = Setup::before(shared()).proxy("max_prepared_statements = 3").start();
    let mut client = pgweir.client();
    for number in 0..3 {
        assert_eq!(prepare(&mut client, &format!("s{number}"), "SELECT 1"), PARSED);
    }
    client.send(&[frontend::parse("s4", "SELECT 1"), frontend::sync()].concat());
    assert_eq!(client.until_closed(), ["ErrorResponse FATAL 53400"]);
    assert_eq!(pgweir.client().value("SELECT 1"), "1");
}

/// However few they are. What it closes makes room.
#[test]
fn the_statements_of_a_client_have_a_bounded_size() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    let filler = "x".repeat((1 << 20) - 1024);
    let text = |number: u32| format!("SELECT {number} /* {filler} */");
    for number in 0..40 {
        assert_eq!(prepare(&mut client, "again", &text(number)), PARSED);
        client.batch(&[frontend::close(b'S', "again"), frontend::sync()]);
    }
    for number in 0..31 {
        assert_eq!(prepare(&mut client, &format!("s{number}"), &text(number)), PARSED);
    }
    client.execute("DEALLOCATE ALL");
    for number in 0..32 {
        assert_eq!(prepare(&mut client, &format!("s{number}"), &text(number)), PARSED);
    }
    client.send(&[frontend::parse("s", &text(32)), frontend::sync()].concat());
    let refusal = client.read_message();
    assert_eq!((refusal.field('S'), refusal.field('C')), ("FATAL".into(), "53400".into()));
    assert!(refusal.field('H').contains("Close statements"));
    assert_eq!(prepare(&mut other, "s", &text(32)), PARSED);
    assert_eq!(run(&mut other, "s", &[]), row("32"));
}

#[test]
fn discarding_all_ends_a_clients_own_statements_only() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    prepare(&mut client, "s", "SELECT 1");
    prepare(&mut other, "s", "SELECT 2");
    client.execute("DISCARD ALL");
    assert_eq!(run(&mut client, "s", &[]), ["ErrorResponse ERROR 26000", "ReadyForQuery I"]);
    assert_eq!(run(&mut other, "s", &[]), row("2"));
}

/// The message, where the server knows the statement by another name.
#[test]
fn errors_about_a_statement_tell_the_clients_name_for_it() {
    let pgweir = pool_of(1);
    let (mut pooled, mut direct) = (pgweir.client(), shared().client());
    let two_values = frontend::bind("", "my statement", &[Some("1"), Some("2")]);
    let steps = [
        frontend::parse("my statement", "SELECT $1::int"),
        two_values.clone(),
        [frontend::bind("", "my statement", &[Some("1")]), frontend::execute("", 0), two_values]
            .concat(),
        frontend::parse("my statement", "SELECT 2"),
        frontend::describe(b'S', "pgweir_1"),
        frontend::bind("", "pgweir__1", &[]),
        frontend::query("SELECT 'pgweir_1'::int"),
    ];
    for (at, step) in steps.into_iter().enumerate() {
        let step = [step, frontend::sync()].concat();
        let mut answers = Vec::new();
        for client in [&mut pooled, &mut direct] {
            client.send(&step);
            answers.push(
                client
                    .messages_until_ready()
                    .iter()
                    .filter(|message| message.tag == b'E')
                    .map(crate::support::messages::Message::strings)
                    .collect::<Vec<_>>(),
            );
            if at == 6 {
                client.messages_until_ready();
            }
        }
        assert_eq!(answers[0].len(), usize::from(at > 0), "step {at}");
        assert_eq!(answers[0], answers[1], "step {at}");
    }
}
