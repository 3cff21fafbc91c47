//! What functions, procedures and blocks leave behind is found out.

use crate::support::eventually;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{PgVersion, Postgres};
use crate::support::raw::RawClient;
use crate::{finds_nothing, pinned};

/// Functions that leave something, in a database of their own server.
fn with_functions() -> (Postgres, Pgweir) {
    let postgres = Postgres::start(PgVersion::Installed);
    let mut owner = postgres.client();
    for sql in [
        "CREATE FUNCTION public.enter(tenant text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('myapp.tenant', tenant, false); SET work_mem = '77MB'; END $$",
        "CREATE FUNCTION public.keep() RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN CREATE TEMP TABLE left_over (id int); END $$",
        "CREATE FUNCTION public.lock() RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
        "CREATE FUNCTION public.nothing() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE PROCEDURE public.proceed() LANGUAGE plpgsql AS \
         $$ BEGIN SET timezone = 'Asia/Tokyo'; END $$",
    ] {
        let granted = owner.query(sql);
        assert_eq!(granted.last().unwrap(), "ReadyForQuery I");
        assert!(!granted.iter().any(|line| line.starts_with("ErrorResponse")), "{granted:?}");
    }
    let pgweir = Setup::before(&postgres).target("max_connections = 1").start();
    (postgres, pgweir)
}

fn show(client: &mut RawClient) -> Vec<Vec<String>> {
    client.execute(
        "SELECT current_setting('myapp.tenant', true), current_setting('work_mem'), current_setting('timezone')",
    )
}

#[test]
fn settings_changed_by_functions_follow_and_leave_nothing() {
    let (postgres, pgweir) = with_functions();
    let (mut pooled, mut direct) = (pgweir.client(), postgres.client());
    let mut other = pgweir.client();
    for sql in [
        "SELECT enter('7')",
        "SELECT nothing()",
        "CALL proceed()",
        "DO $$ BEGIN PERFORM set_config('myapp.tenant', '8', false); END $$",
        "DO $$ BEGIN SET work_mem = '78MB'; END $$",
        "BEGIN; SELECT enter('9'); ROLLBACK",
        "SELECT enter('10')",
    ] {
        pooled.execute(sql);
        direct.execute(sql);
        finds_nothing(&mut other);
        assert_eq!(show(&mut pooled), show(&mut direct), "{sql}");
        finds_nothing(&mut other);
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn objects_and_locks_made_by_functions_pin() {
    let (_postgres, pgweir) = with_functions();
    for (makes, ends) in [
        ("SELECT keep()", "DROP TABLE left_over"),
        ("SELECT lock()", "SELECT pg_advisory_unlock(1)"),
        ("DO $$ BEGIN CREATE TEMP TABLE left_over (id int); END $$", "DROP TABLE left_over"),
    ] {
        let mut client = pgweir.client();
        client.execute(makes);
        eventually(makes, || pinned(&pgweir) == 1.0);
        client.execute(ends);
        eventually(ends, || pinned(&pgweir) == 0.0);
        finds_nothing(&mut pgweir.client());
        client.execute(makes);
        drop(client);
        finds_nothing(&mut pgweir.client());
    }
}
