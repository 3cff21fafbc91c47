//! What functions, procedures and blocks leave behind is found out.

use crate::support::eventually;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{DATABASE, MD5_USER, PgVersion, Postgres, PostgresOptions};
use crate::support::raw::RawClient;
use crate::{finds_nothing, pinned};

/// Functions that leave something, in a database of their own server.
fn with_functions() -> (Postgres, Pgweir) {
    with_code(&[])
}

/// The same, and these definitions.
fn with_code(definitions: &[&str]) -> (Postgres, Pgweir) {
    let postgres = Postgres::start(PgVersion::Installed);
    let mut owner = postgres.client();
    let functions = [
        "CREATE FUNCTION public.enter(tenant text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('myapp.tenant', tenant, false); SET work_mem = '77MB'; END $$",
        "CREATE FUNCTION public.keep() RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN CREATE TEMP TABLE left_over (id int); END $$",
        "CREATE FUNCTION public.lock() RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_advisory_lock(1); END $$",
        "CREATE FUNCTION public.nothing() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE PROCEDURE public.proceed() LANGUAGE plpgsql AS \
         $$ BEGIN SET timezone = 'Asia/Tokyo'; END $$",
    ];
    for sql in functions.iter().chain(definitions) {
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

/// How often a server was asked what a client has left, by its log of statements.
fn questions(postgres: &Postgres) -> usize {
    postgres.log().lines().filter(|line| line.contains("SELECT 's', s.name")).count()
}

#[test]
fn only_who_may_have_run_code_that_leaves_something_is_asked_for_it() {
    let options = PostgresOptions {
        settings: vec!["log_statement = 'all'".to_owned()],
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start_with(&options);
    let mut owner = postgres.client();
    for sql in [
        "CREATE TABLE public.plain (id int)",
        "CREATE FUNCTION public.enter(tenant text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('myapp.tenant', tenant, false); END $$",
        "CREATE FUNCTION public.indirect() RETURNS void LANGUAGE sql AS 'SELECT enter(''8'')'",
        "CREATE FUNCTION public.nothing() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE FUNCTION public.writes() RETURNS int LANGUAGE plpgsql AS \
         $$ BEGIN INSERT INTO plain VALUES (nothing()); RETURN 1; END $$",
    ] {
        owner.execute(sql);
    }
    let pgweir = Setup::before(&postgres).target("max_connections = 1").start();
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for _ in 0..5 {
        for sql in [
            "SELECT nothing()",
            "SELECT writes()",
            "INSERT INTO plain VALUES (1)",
            "DELETE FROM plain",
        ] {
            client.execute(sql);
            finds_nothing(&mut other);
        }
    }
    assert_eq!(questions(&postgres), 0);
    for (sql, tenant) in [
        ("SELECT enter('7')", "7"),
        ("SELECT indirect()", "8"),
        ("INSERT INTO plain SELECT 1 FROM public.\"enter\"('9')", "9"),
    ] {
        let before = questions(&postgres);
        client.execute(sql);
        finds_nothing(&mut other);
        assert_eq!(client.value("SHOW myapp.tenant"), tenant, "{sql}");
        eventually(sql, || questions(&postgres) == before + 1);
    }
    assert_eq!(pinned(&pgweir), 0.0);
    // Once a trigger leads there, a table that is written may, too. Who changes code may have run it.
    let mut client = postgres.client();
    client.execute(
        "CREATE FUNCTION public.on_write() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM enter('10'); RETURN NEW; END $$; \
         CREATE TRIGGER t BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION on_write()",
    );
    drop((client, other, pgweir));
    let pgweir = Setup::before(&postgres).target("max_connections = 1").start();
    let mut client = pgweir.client();
    let before = questions(&postgres);
    client.execute("INSERT INTO plain VALUES (1)");
    eventually("whoever writes is asked", || questions(&postgres) == before + 1);
    assert_eq!(client.value("SHOW myapp.tenant"), "10");
}

#[test]
fn what_only_reading_leaves_behind_is_found_out() {
    let (postgres, pgweir) = with_code(&[
        "CREATE VIEW public.entered AS SELECT public.enter('1')::text",
        "CREATE FUNCTION public.compare(int, int) RETURNS bool LANGUAGE plpgsql AS \
         $$ BEGIN SET timezone = 'Asia/Tokyo'; RETURN true; END $$",
        "CREATE OPERATOR public.=== (FUNCTION = public.compare, LEFTARG = int, RIGHTARG = int)",
        "CREATE TABLE public.guarded (id int)",
        "INSERT INTO public.guarded VALUES (1)",
        "CREATE POLICY own ON public.guarded USING (public.compare(id, 1))",
        "ALTER TABLE public.guarded ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE public.guarded FORCE ROW LEVEL SECURITY",
    ]);
    let mut other = pgweir.client();
    for sql in [
        "SELECT * FROM entered",
        "SELECT 1 WHERE 1 === 2",
        "SELECT * FROM guarded",
        "COPY guarded TO STDOUT",
    ] {
        let (mut pooled, mut direct) = (pgweir.client(), postgres.client());
        assert_eq!(pooled.query(sql), direct.query(sql), "{sql}");
        finds_nothing(&mut other);
        // Empty, and not NULL, where anybody had it before.
        let read = "SELECT coalesce(current_setting('myapp.tenant', true), ''), current_setting('timezone')";
        assert_eq!(pooled.execute(read), direct.execute(read), "{sql}");
    }
}

#[test]
fn a_function_is_looked_out_for_as_soon_as_its_definition_is_committed() {
    let postgres = Postgres::start(PgVersion::Installed);
    let pgweir = Setup::before(&postgres).target("max_connections = 2").start();
    let (mut owner, mut client, mut other) = (pgweir.client(), pgweir.client(), pgweir.client());
    owner.execute("BEGIN");
    owner.execute(
        "CREATE FUNCTION public.enter(tenant text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('myapp.tenant', tenant, false); END $$",
    );
    // The catalogue may be asked while nobody else sees the function.
    other.execute("SELECT 1");
    eventually("the catalogue is asked", || pinned(&pgweir) == 0.0);
    owner.execute("COMMIT");
    client.execute("SELECT enter('7')");
    assert_eq!(client.value("SELECT current_setting('myapp.tenant')"), "7");
    finds_nothing(&mut other);
    finds_nothing(&mut owner);
}

/// As a migration does that has a user of its own.
#[test]
fn a_function_of_another_user_is_looked_out_for() {
    let postgres = Postgres::start(PgVersion::Installed);
    postgres.superuser_in(DATABASE).execute("GRANT ALL ON SCHEMA public TO app_md5");
    let setup = Setup::before(&postgres).target("max_connections = 4");
    let pgweir = setup.start();
    let mut owner = pgweir.client_as(MD5_USER, DATABASE);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for client in [&mut owner, &mut client, &mut other] {
        client.execute("SELECT 1");
    }
    owner.execute(
        "CREATE FUNCTION public.enter(tenant text) RETURNS void LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM set_config('myapp.tenant', tenant, false); END $$",
    );
    client.execute("SELECT enter('7')");
    finds_nothing(&mut other);
    assert_eq!(client.value("SELECT current_setting('myapp.tenant')"), "7");
}

#[test]
fn what_leads_to_known_code_is_looked_out_for_at_once() {
    let (postgres, pgweir) = with_code(&[]);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for (definition, use_of) in [
        ("CREATE VIEW public.entered AS SELECT public.enter('1')::text", "SELECT * FROM entered"),
        (
            "CREATE TABLE public.entering (id int, x text DEFAULT public.enter('2')::text)",
            "INSERT INTO entering VALUES (1)",
        ),
    ] {
        client.execute("SELECT 1");
        client.execute(definition);
        client.execute(use_of);
        finds_nothing(&mut other);
        assert_ne!(client.value("SELECT current_setting('myapp.tenant', true)"), "");
        client.execute("RESET ALL");
    }
    drop(postgres);
}
