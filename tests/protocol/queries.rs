//! Simple and extended queries, pipelines, function calls, and what a server says unasked.

use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::shared;
use crate::support::raw::RawClient;

fn pool_of(servers: u32) -> Pgweir {
    Setup::before(shared()).target(&format!("max_connections = {servers}")).start()
}

/// What PostgreSQL says to it is what pgweir must say to it.
fn same_answers(batches: &[Vec<Vec<u8>>], ready: usize) {
    let pgweir = pool_of(1);
    let (mut pooled, mut direct) = (pgweir.client(), shared().client());
    let mut other = pgweir.client();
    for batch in batches {
        for client in [&mut pooled, &mut direct] {
            client.send(&batch.concat());
        }
        for _ in 0..ready {
            assert_eq!(pooled.until_ready(), direct.until_ready());
        }
        assert_eq!(other.value("SELECT 'free'"), "free");
    }
}

fn extended(sql: &str, parameters: &[Option<&str>]) -> Vec<u8> {
    [
        frontend::parse("", sql),
        frontend::bind("", "", parameters),
        frontend::describe(b'P', ""),
        frontend::execute("", 0),
    ]
    .concat()
}

#[test]
fn simple_queries_are_answered_as_by_postgresql() {
    let queries = [
        "SELECT 1 AS one, NULL AS nothing",
        "SELECT 1; SELECT 2; SELECT 3",
        "SELECT 1; SELECT 1/0; SELECT 3",
        "",
        ";",
        "no sql at all",
        "SELECT generate_series(1, 5)",
        "BEGIN; SELECT 1; COMMIT",
        "DO $$ BEGIN RAISE NOTICE 'hear'; RAISE WARNING 'hear'; END $$",
        "ROLLBACK",
        "VALUES (1), (2)",
    ];
    let batches: Vec<_> = queries.iter().map(|sql| vec![frontend::query(sql)]).collect();
    // What may leave state behind, and what is not understood, keeps the only server: it comes alone.
    let (pins, rest): (Vec<_>, Vec<_>) = batches
        .into_iter()
        .partition(|batch| batch.concat().windows(2).any(|at| at == b"DO" || at == b"no"));
    same_answers(&rest, 1);
    let (pgweir, mut direct) = (pool_of(1), shared().client());
    let mut pooled = pgweir.client();
    for batch in pins {
        assert_eq!(pooled.batch(&batch), direct.batch(&batch));
    }
}

#[test]
fn an_error_inside_a_batch_skips_to_its_sync() {
    same_answers(
        &[
            vec![extended("SELECT $1::int", &[Some("1")]), frontend::sync()],
            vec![extended("SELECT $1::int", &[Some("no")]), frontend::sync()],
            vec![
                extended("SELECT 1", &[]),
                extended("SELECT 1/0", &[]),
                extended("SELECT 3", &[]),
                frontend::sync(),
            ],
            vec![extended("SELECT no_such_column", &[]), frontend::flush(), frontend::sync()],
            vec![frontend::bind("", "no_such_statement", &[]), frontend::sync()],
            vec![frontend::describe(b'P', "no_such_portal"), frontend::sync()],
            vec![frontend::execute("no_such_portal", 0), frontend::sync()],
            vec![frontend::close(b'P', "no_such"), frontend::close(b'S', "no"), frontend::sync()],
            vec![extended("", &[]), frontend::sync()],
            vec![frontend::sync()],
            vec![frontend::flush(), frontend::sync()],
        ],
        1,
    );
}

#[test]
fn batches_sent_at_once_are_answered_each_by_itself() {
    same_answers(
        &[vec![
            extended("SELECT 1", &[]),
            frontend::sync(),
            extended("SELECT 1/0", &[]),
            extended("SELECT 'skipped'", &[]),
            frontend::sync(),
            frontend::query("SELECT 2"),
            frontend::query("SELECT 1/0"),
            extended("SELECT 3", &[]),
            frontend::sync(),
        ]],
        5,
    );
}

#[test]
fn a_transaction_over_pipelined_batches_is_one_servers() {
    let pgweir = pool_of(2);
    let mut client = pgweir.client();
    client.send(
        &[
            frontend::query("BEGIN"),
            frontend::query("SELECT pg_backend_pid()"),
            frontend::query("SELECT 1/0"),
            frontend::query("SELECT 'refused'"),
            frontend::query("ROLLBACK"),
        ]
        .concat(),
    );
    let transcript: Vec<String> = (0..5).flat_map(|_| client.until_ready()).collect();
    assert_eq!(transcript.iter().filter(|line| line.as_str() == "ReadyForQuery E").count(), 2);
    assert!(transcript.contains(&"ErrorResponse ERROR 25P02".to_owned()));
    assert_eq!(transcript.last().unwrap(), "ReadyForQuery I");
}

#[test]
fn thousands_of_statements_in_one_batch_are_all_answered() {
    const STATEMENTS: usize = 10_000;
    let pgweir = pool_of(1);
    let mut client = pgweir.client();
    let mut batch = frontend::parse("", "SELECT $1::int");
    for number in 0..STATEMENTS {
        batch.extend(frontend::bind("", "", &[Some(&number.to_string())]));
        batch.extend(frontend::execute("", 0));
    }
    batch.extend(frontend::sync());
    let mut rows = 0;
    let transcript = std::thread::scope(|scope| {
        // Nobody could take all answers before the whole batch is sent.
        let mut writer = client.try_clone();
        scope.spawn(move || writer.send(&batch));
        client.until_ready()
    });
    for line in &transcript {
        if let Some(value) = line.strip_prefix("DataRow ") {
            assert_eq!(value, rows.to_string());
            rows += 1;
        }
    }
    assert_eq!(rows, STATEMENTS);
    assert_eq!(client.value("SELECT 1"), "1");
}

#[test]
fn flush_brings_the_replies_before_the_sync() {
    let pgweir = pool_of(1);
    let mut client = pgweir.client();
    client.send(&[frontend::parse("", "SELECT $1::int"), frontend::flush()].concat());
    assert_eq!(client.read_message().line(), "ParseComplete");
    client.send(&[frontend::describe(b'S', ""), frontend::flush()].concat());
    assert_eq!(client.read_message().line(), "ParameterDescription 1");
    assert_eq!(client.read_message().line(), "RowDescription int4");
    let bind = frontend::bind("", "", &[Some("5")]);
    client.send(&[bind, frontend::execute("", 0), frontend::flush()].concat());
    assert_eq!(client.read_message().line(), "BindComplete");
    assert_eq!(client.read_message().line(), "DataRow 5");
    assert_eq!(client.read_message().line(), "CommandComplete SELECT 1");
    client.send(&frontend::sync());
    assert_eq!(client.until_ready(), ["ReadyForQuery I"]);
    assert_eq!(pgweir.client().value("SELECT 1"), "1");
}

#[test]
fn a_portal_is_suspended_and_goes_on() {
    let pgweir = pool_of(1);
    let mut client = pgweir.client();
    client.execute("BEGIN");
    let first = client.batch(&[
        frontend::parse("", "SELECT generate_series(1, 5)"),
        frontend::bind("cursor", "", &[]),
        frontend::execute("cursor", 2),
        frontend::sync(),
    ]);
    let expected = [
        "ParseComplete",
        "BindComplete",
        "DataRow 1",
        "DataRow 2",
        "PortalSuspended",
        "ReadyForQuery T",
    ];
    assert_eq!(first, expected);
    let second = client.batch(&[frontend::execute("cursor", 2), frontend::sync()]);
    assert_eq!(second, ["DataRow 3", "DataRow 4", "PortalSuspended", "ReadyForQuery T"]);
    let third = client.batch(&[
        frontend::execute("cursor", 0),
        frontend::close(b'P', "cursor"),
        frontend::sync(),
    ]);
    assert_eq!(
        third,
        ["DataRow 5", "CommandComplete SELECT 1", "CloseComplete", "ReadyForQuery T"]
    );
    client.execute("COMMIT");
    assert_eq!(pgweir.client().value("SELECT 1"), "1");
}

#[test]
fn function_calls_are_answered_as_by_postgresql() {
    let oid = shared().client().value("SELECT 'int4pl'::regproc::oid").parse().unwrap();
    let fails = shared().client().value("SELECT 'int4div'::regproc::oid").parse().unwrap();
    let pgweir = pool_of(1);
    let (mut pooled, mut direct) = (pgweir.client(), shared().client());
    for call in [
        frontend::function_call(oid, &["40", "2"]),
        frontend::function_call(fails, &["1", "0"]),
        frontend::function_call(0, &[]),
    ] {
        let calls = [call];
        assert_eq!(pooled.batch(&calls), direct.batch(&calls));
    }
    let answer = pooled.batch(&[frontend::function_call(oid, &["40", "2"])]);
    assert_eq!(answer, ["FunctionCallResponse 42", "ReadyForQuery I"]);
    // Whatever the function is: nobody else meets what it left.
    drop(pooled);
    assert_eq!(pgweir.client().value("SELECT 'free'"), "free");
}

#[test]
fn changes_of_settings_by_a_function_are_reported() {
    let pgweir = pool_of(1);
    let mut client: RawClient = pgweir.client();
    let transcript = client.query("SELECT set_config('application_name', 'renamed', false)");
    assert!(transcript.contains(&"ParameterStatus application_name=renamed".to_owned()));
    client.execute("BEGIN");
    let transcript = client.query("SET LOCAL timezone = 'Asia/Tokyo'");
    assert!(transcript.contains(&"ParameterStatus TimeZone=Asia/Tokyo".to_owned()));
    let transcript = client.query("ROLLBACK");
    assert!(transcript.iter().any(|line| line.starts_with("ParameterStatus TimeZone=")));
}
