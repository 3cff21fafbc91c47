//! What is sent ahead of a client's statement may fail: then the statement must not run without it.

use crate::pool_of;
use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::Pgweir;
use crate::support::postgres::{DATABASE, USER, shared};
use crate::support::raw::{RawClient, cancel};

/// A client with settings that its next server has not got: another client holds the one it had.
fn moves(pgweir: &Pgweir, database: &str, settings: &str) -> (RawClient, RawClient) {
    let client = || pgweir.client_as(USER, database);
    let (mut client, mut other) = (client(), client());
    client.execute(settings);
    let had = client.value("SELECT pg_backend_pid()");
    eventually("the other has its server", || {
        other.execute("BEGIN");
        let taken = other.value("SELECT pg_backend_pid()") == had;
        if !taken {
            other.execute("ROLLBACK");
        }
        taken
    });
    (client, other)
}

/// Statements that would leave a row, as a client may send them: one, and several at once.
fn writes(table: &str) -> [Vec<u8>; 3] {
    let insert = format!("INSERT INTO {table} VALUES (1)");
    let batch = [
        frontend::parse("", &insert),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::sync(),
    ]
    .concat();
    [frontend::query(&insert), batch.clone(), [batch, frontend::query(&insert)].concat()]
}

#[test]
fn a_cancel_of_what_is_sent_ahead_is_one_of_the_statement() {
    // A lock of the catalogue is in nobody's way here.
    const OWN: &str = "ahead_of_others";
    shared().superuser().execute(&format!("CREATE DATABASE {OWN}"));
    let superuser = || shared().superuser_in(OWN);
    superuser().execute("CREATE TABLE ahead_cancelled (id int)");
    superuser().execute(&format!("GRANT ALL ON ahead_cancelled TO {USER}"));
    for (at, statement) in writes("ahead_cancelled").into_iter().enumerate() {
        let pgweir = pool_of(2);
        let (mut client, _other) =
            moves(&pgweir, OWN, "SET default_text_search_config = 'pg_catalog.simple'");
        let mut locker = superuser();
        locker.execute("BEGIN; LOCK TABLE pg_catalog.pg_ts_config IN ACCESS EXCLUSIVE MODE");
        client.send(&statement);
        eventually("the setting waits for the lock", || {
            shared().superuser().value(
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                 AND query LIKE '%set_config%'",
            ) == "1"
        });
        cancel(pgweir.port(), client.process_id, &client.key);
        let answer = client.until_ready();
        locker.execute("ROLLBACK");
        assert_eq!(answer, ["ErrorResponse ERROR 57014", "ReadyForQuery I"]);
        // What came behind it was not cancelled.
        let others = u32::from(at == 2);
        if others > 0 {
            assert_eq!(client.until_ready(), ["CommandComplete INSERT 0 1", "ReadyForQuery I"]);
        }
        let rows = client.value("SELECT count(*) FROM ahead_cancelled");
        assert_eq!(rows, others.to_string());
        assert_eq!(client.value("SHOW default_text_search_config"), "pg_catalog.simple");
    }
}

#[test]
fn a_statement_does_not_run_without_its_role() {
    let mut superuser = shared().superuser_in(DATABASE);
    superuser.execute("CREATE TABLE ahead_refused (id int); CREATE ROLE ahead_role");
    superuser.execute(&format!("GRANT ALL ON ahead_refused TO {USER}, ahead_role"));
    for statement in writes("ahead_refused") {
        let pgweir = pool_of(2);
        superuser.execute(&format!("GRANT ahead_role TO {USER}"));
        let (mut client, _other) = moves(&pgweir, DATABASE, "SET ROLE ahead_role");
        superuser.execute(&format!("REVOKE ahead_role FROM {USER}"));
        client.send(&statement);
        assert_eq!(client.until_closed(), ["ErrorResponse FATAL 08006"]);
        eventually("its server is gone", || {
            superuser.value(
                "SELECT count(*) FROM pg_stat_activity \
                 WHERE query LIKE 'INSERT INTO ahead_refused%' OR query LIKE '%set_config%'",
            ) == "1"
        });
        assert_eq!(superuser.value("SELECT count(*) FROM ahead_refused"), "0");
    }
    superuser.execute("DROP TABLE ahead_refused; DROP ROLE ahead_role");
}

/// What was prepared before DDL is closed ahead of the next batch. One that prepares it again waits for
/// that; if it was held before, nothing more comes from its client.
#[test]
fn a_batch_that_was_held_goes_on_when_its_statements_are_closed_ahead_of_it() {
    for ddl in ["CREATE TEMP VIEW held AS SELECT 1", "CREATE TABLE held (); DROP TABLE held"] {
        let pgweir = pool_of(1);
        let mut client = pgweir.client();
        let uses = [
            frontend::parse("s", "SELECT 'held'"),
            frontend::bind("", "s", &[]),
            frontend::execute("", 0),
            frontend::close(b'S', "s"),
            frontend::sync(),
        ];
        let answer = client.batch(&uses);
        // What is behind a PREPARE is held until it is answered.
        let prepares = format!("{ddl}; PREPARE q AS SELECT 1");
        client.send(&[frontend::query(&prepares), uses.concat()].concat());
        assert_eq!(client.until_ready().last().unwrap(), "ReadyForQuery I");
        assert_eq!(client.until_ready(), answer, "{ddl}");
    }
}
