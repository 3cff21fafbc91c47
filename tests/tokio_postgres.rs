//! tokio-postgres, which pipelines what is awaited together and prepares everything, directly and
//! through pgweir.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use support::pgweir::Setup;
use support::postgres::{DATABASE, PASSWORD, USER, shared};
use tokio::task::JoinSet;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};

const CLIENTS: i32 = 20;
const ROUNDS: i32 = 10;
const SERVERS_MAX: usize = 3;
/// In bytes.
const BIG: usize = 5 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_directly() {
    all(shared().port(), "tokio_directly", 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_through_pgweir() {
    let pgweir = Setup::before(shared()).start();
    all(pgweir.port(), "tokio_through_pgweir", SERVERS_MAX).await;
    let pins = pgweir.metric("pgweir_session_pins_total", "");
    assert!(pins == 0.0, "{}", pgweir.log());
}

async fn all(port: u16, table: &str, servers_max: usize) {
    let mut client = connect(port).await;
    let create = format!("DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (id int PRIMARY KEY)");
    client.batch_execute(&create).await.unwrap();
    prepared_statements(&mut client).await;
    transactions(&mut client, table).await;
    failures(&client).await;
    let client = Arc::new(client);
    pipelines(&client).await;
    copies(&client, table).await;
    big_values(&client).await;
    cancels(&client).await;
    many_clients(port, servers_max).await;
}

async fn connect(port: u16) -> Client {
    let (client, connection) = tokio_postgres::Config::new()
        .host("127.0.0.1")
        .port(port)
        .user(USER)
        .password(PASSWORD)
        .dbname(DATABASE)
        .connect(NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

async fn prepared_statements(client: &mut Client) {
    let statement = client.prepare("SELECT $1::int4 * 2").await.unwrap();
    for number in 0..10 {
        let transaction = client.transaction().await.unwrap();
        let row = transaction.query_one(&statement, &[&number]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), number * 2);
        transaction.commit().await.unwrap();
    }
    for number in 0..50 {
        // Dropping the statement closes it on the server.
        let text = format!("SELECT $1::int4 + {number}");
        let row = client.query_one(&text, &[&1_i32]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 1 + number);
    }
}

async fn transactions(client: &mut Client, table: &str) {
    let kept = format!("INSERT INTO {table} VALUES (1)");
    let lost = format!("INSERT INTO {table} VALUES (2)");
    let mut transaction = client.transaction().await.unwrap();
    transaction.execute(&kept, &[]).await.unwrap();
    let savepoint = transaction.savepoint("here").await.unwrap();
    savepoint.execute(&lost, &[]).await.unwrap();
    savepoint.rollback().await.unwrap();
    transaction.commit().await.unwrap();

    let transaction = client.transaction().await.unwrap();
    transaction.execute(&lost, &[]).await.unwrap();
    transaction.rollback().await.unwrap();
    let rows = client.query(&format!("SELECT id FROM {table}"), &[]).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.get(0)).collect::<Vec<i32>>(), [1]);

    let transaction = client.transaction().await.unwrap();
    let series = "SELECT n FROM generate_series(1, 100) n";
    let portal = transaction.bind(series, &[]).await.unwrap();
    let mut sum = 0;
    loop {
        let rows = transaction.query_portal(&portal, 10).await.unwrap();
        if rows.is_empty() {
            break;
        }
        sum += rows.iter().map(|row| row.get::<_, i32>(0)).sum::<i32>();
    }
    assert_eq!(sum, 5050);
    transaction.commit().await.unwrap();
}

async fn failures(client: &Client) {
    for _ in 0..3 {
        let error = client.query("SELECT * FROM missing_table", &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::UNDEFINED_TABLE));
        let error = client.query("SELECT 1 / $1::int4", &[&0_i32]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
        let error = client.batch_execute("SELECT 1; SELECT 1 / 0").await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));
        let row = client.query_one("SELECT $1::int4", &[&5_i32]).await.unwrap();
        assert_eq!(row.get::<_, i32>(0), 5);
    }
}

/// Every seventh of two hundred requests fails, and only that.
async fn pipelines(client: &Arc<Client>) {
    let statement = client.prepare("SELECT 100 / $1::int4").await.unwrap();
    let mut requests = JoinSet::new();
    for number in 0..200 {
        let (client, statement) = (client.clone(), statement.clone());
        let divisor = if number % 7 == 0 { 0 } else { number };
        requests.spawn(async move { (divisor, client.query_one(&statement, &[&divisor]).await) });
    }
    while let Some(request) = requests.join_next().await {
        match request.unwrap() {
            (0, outcome) => {
                assert_eq!(outcome.unwrap_err().code(), Some(&SqlState::DIVISION_BY_ZERO));
            }
            (divisor, outcome) => assert_eq!(outcome.unwrap().get::<_, i32>(0), 100 / divisor),
        }
    }
}

async fn copies(client: &Client, table: &str) {
    let statement = format!("COPY {table} FROM STDIN (FORMAT binary)");
    let sink = client.copy_in(&statement).await.unwrap();
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::INT4]));
    for number in 20_000_i32..30_000 {
        writer.as_mut().write(&[&number]).await.unwrap();
    }
    assert_eq!(writer.finish().await.unwrap(), 10_000);

    let sink = client.copy_in(&statement).await.unwrap();
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &[Type::INT8]));
    writer.as_mut().write(&[&1_i64]).await.unwrap();
    let error = writer.finish().await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_BINARY_REPRESENTATION));
    client.batch_execute("SELECT 1").await.unwrap();
}

async fn big_values(client: &Client) {
    let text: String = ('a'..='z').cycle().take(BIG).collect();
    let row = client.query_one("SELECT $1::text", &[&text]).await.unwrap();
    assert!(row.get::<_, &str>(0) == text, "the text came back changed");
}

async fn cancels(client: &Client) {
    for _ in 0..3 {
        let token = client.cancel_token();
        let cancel = async {
            // The query has no sign of its own that it runs.
            tokio::time::sleep(Duration::from_millis(300)).await;
            token.cancel_query(NoTls).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), cancel);
        assert_eq!(outcome.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
        client.batch_execute("SELECT 1").await.unwrap();
    }
}

async fn many_clients(port: u16, servers_max: usize) {
    let tasks: Vec<_> = (0..CLIENTS)
        .map(|number| {
            tokio::spawn(async move {
                let mut client = connect(port).await;
                let mut servers = HashSet::new();
                for _ in 0..ROUNDS {
                    let transaction = client.transaction().await.unwrap();
                    let who = "SELECT $1::int4, pg_backend_pid()";
                    let row = transaction.query_one(who, &[&number]).await.unwrap();
                    assert_eq!(row.get::<_, i32>(0), number);
                    let again =
                        transaction.query_one("SELECT pg_backend_pid()", &[]).await.unwrap();
                    assert_eq!(row.get::<_, i32>(1), again.get::<_, i32>(0));
                    servers.insert(again.get::<_, i32>(0));
                    transaction.commit().await.unwrap();
                }
                servers
            })
        })
        .collect();
    let mut servers = HashSet::new();
    for task in tasks {
        servers.extend(task.await.unwrap());
    }
    assert!(servers.len() <= servers_max, "{} servers, {servers_max} allowed", servers.len());
}
