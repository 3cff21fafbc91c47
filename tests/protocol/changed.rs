//! Statements over tables that change: a client is never given rows of another shape than it was told.

use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{DATABASE, MD5_USER, USER, shared};
use crate::support::raw::RawClient;

fn pool_of(servers: u32) -> Pgweir {
    Setup::before(shared()).target(&format!("max_connections = {servers}")).start()
}

fn prepare(client: &mut RawClient, sql: &str) -> Vec<String> {
    client.batch(&[frontend::parse("s", sql), frontend::sync()])
}

/// The client is told the columns, as most drivers are.
fn prepare_described(client: &mut RawClient, sql: &str) -> Vec<String> {
    let messages = [frontend::parse("s", sql), frontend::describe(b'S', "s"), frontend::sync()];
    client.batch(&messages)
}

/// The client is told the columns by the first portal alone, as those of JDBC are.
fn prepare_and_run_described(client: &mut RawClient, sql: &str) -> Vec<String> {
    client.batch(&[
        frontend::parse("s", sql),
        frontend::bind("", "s", &[]),
        frontend::describe(b'P', ""),
        frontend::execute("", 0),
        frontend::sync(),
    ])
}

fn use_it() -> Vec<u8> {
    [frontend::bind("", "s", &[]), frontend::execute("", 0)].concat()
}

fn run(client: &mut RawClient) -> Vec<String> {
    client.batch(&[use_it(), frontend::sync()])
}

fn close(client: &mut RawClient) {
    let closed = client.batch(&[frontend::close(b'S', "s"), frontend::sync()]);
    assert_eq!(closed, ["CloseComplete", "ReadyForQuery I"]);
}

const REFUSED: [&str; 2] = ["ErrorResponse ERROR 0A000", "ReadyForQuery I"];

fn table(owner: &mut RawClient, name: &str) {
    owner.execute(&format!("DROP TABLE IF EXISTS {name}"));
    owner.execute(&format!("CREATE TABLE {name} (a int, b int)"));
    owner.execute(&format!("INSERT INTO {name} VALUES (1, 2)"));
    owner.execute(&format!("GRANT ALL ON {name} TO PUBLIC"));
}

/// Sees to it that the next client gets another server, if there is another.
fn busy(pgweir: &Pgweir, servers: u32) -> Option<RawClient> {
    (servers > 1).then(|| {
        let mut holder = pgweir.client();
        holder.execute("BEGIN");
        holder
    })
}

/// A client through pgweir and one on a connection of its own.
fn both(pgweir: &Pgweir) -> [RawClient; 2] {
    [pgweir.client(), shared().client()]
}

/// What both get, which must be the same.
fn same(clients: &mut [RawClient; 2], act: impl Fn(&mut RawClient) -> Vec<String>) -> Vec<String> {
    let [pooled, direct] = clients;
    let expected = act(direct);
    assert_eq!(act(pooled), expected);
    expected
}

#[test]
fn who_was_told_other_columns_is_refused_and_can_prepare_anew() {
    let changes = ["ALTER b TYPE text", "ADD c int DEFAULT 3", "DROP b", "RENAME b TO d"];
    for (servers, owner) in [(1, USER), (1, MD5_USER), (3, USER), (3, MD5_USER)] {
        let pgweir = pool_of(servers);
        let mut owner = pgweir.client_as(owner, DATABASE);
        let name = "told";
        let sql = "SELECT * FROM told";
        for change in changes {
            for prepare in [prepare_described, prepare_and_run_described] {
                table(&mut owner, name);
                let mut clients = both(&pgweir);
                same(&mut clients, |client| prepare(client, sql));
                same(&mut clients, run);
                owner.execute(&format!("ALTER TABLE {name} {change}"));
                let holder = busy(&pgweir, servers);
                for _ in 0..2 {
                    assert_eq!(same(&mut clients, run), REFUSED, "{change}, {servers} servers");
                }
                clients.iter_mut().for_each(close);
                drop(holder);
                let again = same(&mut clients, |client| prepare(client, sql));
                assert_eq!(again[0], "ParseComplete");
                assert_eq!(same(&mut clients, run)[0], "BindComplete");
            }
        }
        owner.execute(&format!("DROP TABLE {name}"));
    }
}

/// The fields by which drivers tell that preparing anew helps.
#[test]
fn the_refusal_is_that_of_postgresql() {
    let pgweir = pool_of(3);
    let mut clients = both(&pgweir);
    table(&mut clients[0], "refusal");
    same(&mut clients, |client| prepare_described(client, "SELECT * FROM refusal"));
    clients[0].execute("ALTER TABLE refusal ADD c int");
    let _holder = busy(&pgweir, 3);
    let answers = clients.each_mut().map(|client| {
        client.send(&[use_it(), frontend::sync()].concat());
        let refusal = client.messages_until_ready().swap_remove(0);
        ['S', 'V', 'C', 'M', 'F', 'R'].map(|field| refusal.field(field))
    });
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0][3], "cached plan must not change result type");
    clients[0].execute("DROP TABLE refusal");
}

#[test]
fn who_was_told_nothing_or_the_same_is_not_refused() {
    for (servers, owner) in [(1, USER), (1, MD5_USER), (3, USER), (3, MD5_USER)] {
        let pgweir = pool_of(servers);
        let mut owner = pgweir.client_as(owner, DATABASE);
        table(&mut owner, "untold");
        let (mut told, mut untold) = (both(&pgweir), pgweir.client());
        same(&mut told, |client| prepare_described(client, "SELECT a, b FROM untold"));
        assert_eq!(prepare(&mut untold, "SELECT * FROM untold")[0], "ParseComplete");
        let row = ["BindComplete", "DataRow 1|2", "CommandComplete SELECT 1", "ReadyForQuery I"];
        for change in [
            "CREATE INDEX ON untold (a)",
            "ALTER TABLE untold ADD c int DEFAULT 3",
            "ANALYZE untold",
        ] {
            owner.execute(change);
            let _holder = busy(&pgweir, servers);
            for _ in 0..2 {
                assert_eq!(same(&mut told, run)[0], "BindComplete");
            }
        }
        let new = run(&mut untold);
        assert!(new[1] != row[1] || new == REFUSED, "{new:?}");
        // Whoever comes now is told what is now.
        let mut late = both(&pgweir);
        for act in [prepare_described, prepare_and_run_described] {
            assert_eq!(
                same(&mut late, |client| act(client, "SELECT * FROM untold"))[0],
                "ParseComplete"
            );
            assert_eq!(same(&mut late, run)[0], "BindComplete");
            late.iter_mut().for_each(close);
        }
        owner.execute("DROP TABLE untold");
    }
}

/// It parses values as it was told to write them.
#[test]
fn who_was_told_other_parameters_is_refused() {
    let pgweir = pool_of(3);
    let (mut client, mut owner) = (pgweir.client(), pgweir.client());
    table(&mut owner, "valued");
    prepare_described(&mut client, "SELECT a FROM valued WHERE b = $1");
    let bound = [frontend::bind("", "s", &[Some("2")]), frontend::execute("", 0), frontend::sync()];
    assert_eq!(client.batch(&bound)[1], "DataRow 1");
    owner.execute("ALTER TABLE valued ALTER b TYPE text");
    let _holder = busy(&pgweir, 3);
    assert_eq!(client.batch(&bound), REFUSED);
    close(&mut client);
    prepare_described(&mut client, "SELECT a FROM valued WHERE b = $1");
    assert_eq!(client.batch(&bound)[1], "DataRow 1");
    owner.execute("DROP TABLE valued");
}

/// What PostgreSQL then says once makes everybody prepare anew.
#[test]
fn a_change_past_pgweir_is_healed_by_preparing_anew() {
    for servers in [1, 3] {
        let pgweir = pool_of(servers);
        let mut owner = shared().client();
        table(&mut owner, "past");
        let sql = "SELECT * FROM past";
        let mut clients: Vec<_> = (0..4).map(|_| pgweir.client()).collect();
        for client in &mut clients {
            prepare_described(client, sql);
            assert_eq!(run(client)[1], "DataRow 1|2");
        }
        owner.execute("ALTER TABLE past ADD c int DEFAULT 3");
        let mut refused = 0;
        for client in &mut clients {
            if run(client) == REFUSED {
                refused += 1;
                close(client);
                let _holder = busy(&pgweir, servers);
                assert_eq!(prepare_described(client, sql)[2], "RowDescription a|b|c");
                for _ in 0..3 {
                    assert_eq!(run(client)[1], "DataRow 1|2|3");
                }
            }
        }
        assert_eq!(refused, clients.len(), "of {servers} servers");
        owner.execute("DROP TABLE past");
    }
}

#[test]
fn a_refusal_fails_what_postgresqls_would() {
    for servers in [1, 3] {
        let pgweir = pool_of(servers);
        let mut clients = both(&pgweir);
        let mut owner = pgweir.client();
        table(&mut owner, "failing");
        same(&mut clients, |client| prepare_described(client, "SELECT * FROM failing"));
        owner.execute("ALTER TABLE failing ADD c int");
        let _holder = busy(&pgweir, servers);
        let other = |sql: &str| {
            [frontend::parse("", sql), frontend::bind("", "", &[]), frontend::execute("", 0)]
                .concat()
        };
        // What is before it in its batch is answered, what is behind it is not, the next batch is.
        let step = [other("SELECT 1"), use_it(), other("SELECT 2"), frontend::sync()].concat();
        let answer = same(&mut clients, |client| client.batch(std::slice::from_ref(&step)));
        assert_eq!(answer[4..], REFUSED);
        let describe = [frontend::describe(b'S', "s"), use_it(), frontend::sync()].concat();
        for client in &mut clients {
            // PostgreSQL tells the parameters before it refuses, which pgweir knows no more.
            let answer = client.batch(std::slice::from_ref(&describe));
            assert!(answer.ends_with(&REFUSED.map(str::to_owned)), "{answer:?}");
        }
        let pipeline = [
            [other("SELECT 1"), frontend::sync()].concat(),
            [use_it(), frontend::sync()].concat(),
            [other("SELECT 2"), frontend::sync()].concat(),
        ];
        same(&mut clients, |client| {
            client.send(&pipeline.concat());
            (0..3).flat_map(|_| client.until_ready()).collect()
        });
        for sql in ["BEGIN", "SAVEPOINT v"] {
            same(&mut clients, |client| client.query(sql));
        }
        for refusal in ["0A000", "25P02"] {
            let answer = same(&mut clients, run);
            assert_eq!(answer, [&format!("ErrorResponse ERROR {refusal}"), "ReadyForQuery E"]);
        }
        for sql in ["ROLLBACK TO v", "SELECT count(*) FROM failing", "COMMIT"] {
            same(&mut clients, |client| client.query(sql));
        }
        owner.execute("DROP TABLE failing");
        // Of what is not there any more, PostgreSQL says that.
        assert_eq!(same(&mut clients, run)[0], "ErrorResponse ERROR 42P01");
    }
}

#[test]
fn values_that_are_streamed_are_refused_as_well() {
    let pgweir = pool_of(3);
    let mut clients = both(&pgweir);
    table(&mut clients[0], "streamed");
    let large = "x".repeat(400_000);
    same(&mut clients, |client| prepare_described(client, "SELECT *, length($1) FROM streamed"));
    let bound =
        [frontend::bind("", "s", &[Some(&large)]), frontend::execute("", 0), frontend::sync()];
    same(&mut clients, |client| client.batch(&bound));
    clients[0].execute("CREATE INDEX ON streamed (a)");
    let holder = busy(&pgweir, 3);
    assert_eq!(same(&mut clients, |client| client.batch(&bound))[0], "BindComplete");
    drop(holder);
    clients[0].execute("ALTER TABLE streamed DROP b");
    let _holder = busy(&pgweir, 3);
    assert_eq!(same(&mut clients, |client| client.batch(&bound)), REFUSED);
    clients[0].execute("DROP TABLE streamed");
}

/// In its own transaction, and in the batch behind it.
#[test]
fn a_client_that_changes_the_table_itself_is_refused_too() {
    for servers in [1, 3] {
        let pgweir = pool_of(servers);
        let mut client = pgweir.client();
        for text in ["BEGIN; ALTER TABLE mine ADD c int", "ALTER TABLE mine ADD c int"] {
            table(&mut client, "mine");
            prepare_described(&mut client, "SELECT * FROM mine");
            let _holder = busy(&pgweir, servers);
            client.send(&[frontend::query(text), use_it(), frontend::sync()].concat());
            client.until_ready();
            assert_eq!(client.until_ready()[0], REFUSED[0], "{text}");
            client.query("ROLLBACK");
            close(&mut client);
        }
        client.execute("DROP TABLE mine");
    }
}

/// What it said before is carried out, although its server is asked first.
#[test]
fn a_client_that_says_goodbye_is_not_waited_for() {
    let pgweir = pool_of(3);
    let (mut client, mut owner) = (pgweir.client(), pgweir.client());
    table(&mut owner, "parting");
    prepare_described(&mut client, "INSERT INTO parting VALUES (3, 4) RETURNING a");
    owner.execute("ALTER TABLE parting ADD c int");
    let _holder = busy(&pgweir, 3);
    client.send(&[use_it(), frontend::sync(), frontend::terminate()].concat());
    assert_eq!(client.until_ready()[1], "DataRow 3");
    assert_eq!(client.until_closed(), Vec::<String>::new());
    assert_eq!(owner.value("SELECT count(*) FROM parting"), "2");
    owner.execute("DROP TABLE parting");
}

/// What it executes by name is prepared there before it is described.
#[test]
fn a_statement_that_executes_another_by_name_is_refused_too() {
    let pgweir = pool_of(3);
    let mut clients = both(&pgweir);
    let mut owner = pgweir.client();
    table(&mut owner, "executed");
    let all = "SELECT * FROM executed";
    same(&mut clients, |client| client.batch(&[frontend::parse("all", all), frontend::sync()]));
    same(&mut clients, |client| prepare_described(client, "EXECUTE \"all\""));
    same(&mut clients, run);
    owner.execute("CREATE INDEX ON executed (a)");
    let holder = busy(&pgweir, 3);
    assert_eq!(same(&mut clients, run)[1], "DataRow 1|2");
    drop(holder);
    owner.execute("ALTER TABLE executed ADD c int");
    let _holder = busy(&pgweir, 3);
    for client in &mut clients {
        let answer = run(client);
        assert!(answer.ends_with(&REFUSED.map(str::to_owned)), "{answer:?}");
    }
    owner.execute("DROP TABLE executed");
}

/// Both what a statement would be and what a client has left is asked by statements of pgweir's own.
#[test]
fn a_client_is_asked_for_what_it_left_before_and_behind_a_statement_is_looked_at() {
    shared().client().execute(
        "CREATE OR REPLACE FUNCTION looked_at_with(memory text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('work_mem', memory, false); END $$",
    );
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    table(&mut other, "looked_at");
    prepare_described(&mut client, "SELECT a FROM looked_at");
    for round in 0..3 {
        other.execute(&format!("ALTER TABLE looked_at ADD c{round} int"));
        for memory in ["5MB", "6MB"] {
            client.execute(&format!("SELECT looked_at_with('{memory}')"));
            other.execute("SELECT 1");
            assert_eq!(run(&mut client)[1], "DataRow 1");
            assert_eq!(client.value("SHOW work_mem"), memory);
            assert_eq!(other.value("SHOW work_mem"), "4MB");
        }
    }
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}
