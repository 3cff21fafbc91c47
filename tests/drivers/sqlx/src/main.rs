//! sqlx, as programs use it: pools, prepared statements, transactions, pipelines of simple queries, COPY, LISTEN,
//! advisory locks and migrations.

use sqlx::migrate::Migrator;
use sqlx::postgres::{
    PgAdvisoryLock, PgConnectOptions, PgListener, PgPool, PgPoolCopyExt, PgPoolOptions,
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqlSafeStr};
use std::collections::HashSet;
use std::time::Duration;
use tokio::task::JoinSet;

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

const CLIENTS: i32 = 10;
const ROUNDS: i32 = 10;
/// More than the 100 that a connection keeps prepared.
const TEXTS: i32 = 150;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome {
    let pool = pool(4).await?;
    sqlx::raw_sql(
        "DROP TABLE IF EXISTS sqlx_kept, sqlx_migrated, _sqlx_migrations;
         CREATE TABLE sqlx_kept (id int PRIMARY KEY, name text)",
    )
    .execute(&pool)
    .await?;
    prepared(&pool).await?;
    transactions(&pool).await?;
    failures(&pool).await?;
    simple_queries(&pool).await?;
    copies(&pool).await?;
    cancelled(&pool).await?;
    locks(&pool).await?;
    migrations(&pool).await?;
    many_clients().await?;
    // With a single server, whoever listens keeps it.
    if servers_max() > 1 {
        listeners(&pool).await?;
    }
    pool.close().await;
    println!("all passed");
    Ok(())
}

fn servers_max() -> usize {
    std::env::var("TEST_SERVERS_MAX").ok().and_then(|number| number.parse().ok()).unwrap_or(100)
}

/// Told where by libpq's environment variables. Each connection is pinged before it is handed out, and has its name
/// set anew, as many do.
async fn pool(size: u32) -> sqlx::Result<PgPool> {
    let options = PgConnectOptions::new()
        .password(&std::env::var("PGPASSWORD").unwrap_or_default())
        .application_name("sqlx");
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(Duration::from_secs(60))
        .test_before_acquire(true)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute("SET statement_timeout = '55s'").await?;
                Ok(())
            })
        })
        .before_acquire(|connection, _| {
            Box::pin(async move { connection.ping().await.map(|()| true) })
        })
        .connect_with(options)
        .await
}

async fn prepared(pool: &PgPool) -> Outcome {
    for number in 0..20 {
        let doubled: i32 =
            sqlx::query_scalar("SELECT $1::int4 * 2").bind(number).fetch_one(pool).await?;
        assert_eq!(doubled, number * 2);
    }
    let mut connection = pool.acquire().await?;
    for round in 0..2 {
        for number in 0..TEXTS {
            let text = AssertSqlSafe(format!("SELECT $1::int4 + {number}"));
            let sum: i32 = sqlx::query_scalar(text).bind(round).fetch_one(&mut *connection).await?;
            assert_eq!(sum, round + number);
        }
    }
    connection.clear_cached_statements().await?;
    let timeout: String = sqlx::query_scalar("SELECT current_setting('statement_timeout')")
        .fetch_one(&mut *connection)
        .await?;
    assert_eq!(timeout, "55s");
    let described = (&mut *connection)
        .prepare(AssertSqlSafe("SELECT $1::text, 1".to_owned()).into_sql_str())
        .await?;
    assert_eq!(sqlx::Statement::columns(&described).len(), 2);
    Ok(())
}

async fn transactions(pool: &PgPool) -> Outcome {
    let insert = "INSERT INTO sqlx_kept VALUES ($1, 'kept')";
    let mut transaction = pool.begin().await?;
    sqlx::query(insert).bind(1).execute(&mut *transaction).await?;
    let mut savepoint = transaction.begin().await?;
    sqlx::query(insert).bind(2).execute(&mut *savepoint).await?;
    savepoint.rollback().await?;
    let mut savepoint = transaction.begin().await?;
    sqlx::query(insert).bind(3).execute(&mut *savepoint).await?;
    savepoint.commit().await?;
    transaction.commit().await?;
    // Dropped, it is rolled back when its connection is used next.
    let mut dropped = pool.begin().await?;
    sqlx::query(insert).bind(4).execute(&mut *dropped).await?;
    drop(dropped);
    let mut serializable = pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY").await?;
    let ids: Vec<i32> = sqlx::query_scalar("SELECT id FROM sqlx_kept ORDER BY id")
        .fetch_all(&mut *serializable)
        .await?;
    assert_eq!(ids, [1, 3]);
    serializable.commit().await?;
    Ok(())
}

async fn failures(pool: &PgPool) -> Outcome {
    let code = |outcome: sqlx::Result<_>| -> String {
        let error: sqlx::Error = Result::<sqlx::postgres::PgQueryResult, _>::unwrap_err(outcome);
        error.as_database_error().and_then(|error| error.code().map(Into::into)).unwrap_or_default()
    };
    for _ in 0..3 {
        let outcome =
            sqlx::query("INSERT INTO sqlx_kept VALUES ($1, 'twice')").bind(1).execute(pool).await;
        assert_eq!(code(outcome), "23505");
        assert_eq!(code(sqlx::query("SELECT * FROM sqlx_missing").execute(pool).await), "42P01");
        assert_eq!(code(sqlx::query("SELECT 1 / $1::int4").bind(0).execute(pool).await), "22012");
    }
    let mut transaction = pool.begin().await?;
    assert_eq!(
        code(sqlx::query("SELECT 1 / $1::int4").bind(0).execute(&mut *transaction).await),
        "22012"
    );
    assert_eq!(code(sqlx::query("SELECT 1").execute(&mut *transaction).await), "25P02");
    transaction.rollback().await?;
    Ok(())
}

async fn simple_queries(pool: &PgPool) -> Outcome {
    let done = sqlx::raw_sql("BEGIN; INSERT INTO sqlx_kept VALUES (5, 'simple'); COMMIT; SELECT 1")
        .execute(pool)
        .await?;
    assert_eq!(done.rows_affected(), 2);
    sqlx::raw_sql("SELECT 1; SELECT 1 / 0; SELECT 2").execute(pool).await.unwrap_err();
    // Rows that nobody reads are read by whoever gets the connection next.
    let mut connection = pool.acquire().await?;
    {
        let mut rows =
            sqlx::query("SELECT n FROM generate_series(1, 5000) n").fetch(&mut *connection);
        assert!(
            std::future::poll_fn(|cx| rows.as_mut().poll_next(cx)).await.transpose()?.is_some()
        );
    }
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut *connection).await?;
    assert_eq!(one, 1);
    Ok(())
}

async fn copies(pool: &PgPool) -> Outcome {
    let mut copy = pool.copy_in_raw("COPY sqlx_kept FROM STDIN").await?;
    for id in 100..1100 {
        copy.send(format!("{id}\tcopied\n").into_bytes()).await?;
    }
    assert_eq!(copy.finish().await?, 1000);
    let copy = pool.copy_in_raw("COPY sqlx_kept FROM STDIN").await?;
    copy.abort("changed my mind").await?;
    let mut copy =
        pool.copy_out_raw("COPY (SELECT id FROM sqlx_kept WHERE id >= 100) TO STDOUT").await?;
    let mut lines = 0;
    while let Some(chunk) =
        std::future::poll_fn(|cx| copy.as_mut().poll_next(cx)).await.transpose()?
    {
        lines += chunk.iter().filter(|&&byte| byte == b'\n').count();
    }
    assert_eq!(lines, 1000);
    Ok(())
}

/// Its future is dropped: sqlx goes on with the connection, or closes it.
async fn cancelled(pool: &PgPool) -> Outcome {
    for _ in 0..3 {
        let asleep = sqlx::query("SELECT pg_sleep(0.2)").execute(pool);
        tokio::time::timeout(Duration::from_millis(20), asleep).await.unwrap_err();
        let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(pool).await?;
        assert_eq!(one, 1);
    }
    Ok(())
}

/// One at a time has it, on whatever connection.
async fn locks(pool: &PgPool) -> Outcome {
    let mut takers = JoinSet::<sqlx::Result<()>>::new();
    sqlx::query("INSERT INTO sqlx_kept VALUES (50, '0')").execute(pool).await?;
    for _ in 0..4 {
        let pool = pool.clone();
        takers.spawn(async move {
            let lock = PgAdvisoryLock::new("sqlx's own");
            let mut guard = lock.acquire(pool.acquire().await?).await?;
            let name: String = sqlx::query_scalar("SELECT name FROM sqlx_kept WHERE id = 50")
                .fetch_one(guard.as_mut())
                .await?;
            let more = (name.parse::<i32>().unwrap() + 1).to_string();
            sqlx::query("UPDATE sqlx_kept SET name = $1 WHERE id = 50")
                .bind(more)
                .execute(guard.as_mut())
                .await?;
            guard.release_now().await?;
            Ok(())
        });
    }
    while let Some(taker) = takers.join_next().await {
        taker??;
    }
    let name: String =
        sqlx::query_scalar("SELECT name FROM sqlx_kept WHERE id = 50").fetch_one(pool).await?;
    assert_eq!(name, "4");
    Ok(())
}

/// Several programs migrate at their start: each step is taken once, under sqlx's lock.
async fn migrations(pool: &PgPool) -> Outcome {
    let directory = std::env::temp_dir().join(format!("sqlx-driver-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let steps = [
        (
            "1_create.sql",
            "CREATE TABLE sqlx_migrated (id int PRIMARY KEY);\nINSERT INTO sqlx_migrated VALUES (1);",
        ),
        ("2_alter.sql", "ALTER TABLE sqlx_migrated ADD COLUMN name text DEFAULT 'new';"),
        ("3_index.sql", "-- no-transaction\nCREATE INDEX sqlx_index ON sqlx_migrated (name);"),
    ];
    for (name, text) in steps {
        std::fs::write(directory.join(name), text)?;
    }
    let mut programs = JoinSet::new();
    for _ in 0..3 {
        let (pool, directory) = (pool.clone(), directory.clone());
        programs.spawn(async move { Migrator::new(directory).await?.run(&pool).await });
    }
    while let Some(program) = programs.join_next().await {
        program??;
    }
    std::fs::remove_dir_all(&directory)?;
    let name: String = sqlx::query_scalar("SELECT name FROM sqlx_migrated").fetch_one(pool).await?;
    assert_eq!(name, "new");
    let steps: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations WHERE success")
        .fetch_one(pool)
        .await?;
    assert_eq!(steps, 3);
    Ok(())
}

/// Programs with a pool each: a transaction stays on its server, and all have the servers that there are.
async fn many_clients() -> Outcome {
    let mut clients = JoinSet::<sqlx::Result<HashSet<i32>>>::new();
    for number in 0..CLIENTS {
        clients.spawn(async move {
            let pool = pool(2).await?;
            let mut servers = HashSet::new();
            for round in 0..ROUNDS {
                let mut transaction = pool.begin().await?;
                let name = format!("'client{number}_{round}'");
                let set = AssertSqlSafe(format!("SET LOCAL application_name = {name}"));
                transaction.execute(set).await?;
                servers.insert(where_am_i(&mut transaction, number, round).await?);
                transaction.commit().await?;
            }
            pool.close().await;
            Ok(servers)
        });
    }
    let mut servers = HashSet::new();
    while let Some(client) = clients.join_next().await {
        servers.extend(client??);
    }
    assert!(servers.len() <= servers_max(), "{} servers", servers.len());
    Ok(())
}

async fn where_am_i(connection: &mut PgConnection, number: i32, round: i32) -> sqlx::Result<i32> {
    let (name, server): (String, i32) =
        sqlx::query_as("SELECT current_setting('application_name'), pg_backend_pid()")
            .fetch_one(&mut *connection)
            .await?;
    assert_eq!(name, format!("client{number}_{round}"));
    let again: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await?;
    assert_eq!(server, again);
    Ok(server)
}

async fn listeners(pool: &PgPool) -> Outcome {
    let mut one = PgListener::connect_with(pool).await?;
    one.listen_all(["sqlx_one", "sqlx_both"]).await?;
    let mut other = PgListener::connect_with(pool).await?;
    other.listen("sqlx_both").await?;
    for round in 0..3 {
        let payload = format!("{round}");
        for channel in ["sqlx_one", "sqlx_both"] {
            sqlx::query("SELECT pg_notify($1, $2)")
                .bind(channel)
                .bind(&payload)
                .execute(pool)
                .await?;
            let heard = one.recv().await?;
            assert_eq!((heard.channel(), heard.payload()), (channel, &*payload));
        }
        assert_eq!(other.recv().await?.payload(), payload);
    }
    one.unlisten("sqlx_one").await?;
    sqlx::raw_sql("NOTIFY sqlx_one, 'unheard'; NOTIFY sqlx_both, 'heard'").execute(pool).await?;
    assert_eq!(one.recv().await?.payload(), "heard");
    // A listener can ask too.
    let answer: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut one).await?;
    assert_eq!(answer, 1);
    one.unlisten_all().await?;
    Ok(())
}
