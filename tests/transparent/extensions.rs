//! What functions of extensions leave behind is found out, and what they only could do costs nobody anything.

use crate::support::eventually;
use crate::support::messages::frontend::{bind, execute, parse, sync};
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{DATABASE, PgVersion, Postgres};
use crate::{finds_nothing, pinned};

/// A server of its own with these extensions, and pgweir with one connection to it.
fn with(extensions: &[&str]) -> (Postgres, Pgweir) {
    let postgres = Postgres::start(PgVersion::Installed);
    let mut superuser = postgres.superuser_in(DATABASE);
    for extension in extensions {
        superuser.execute(&format!("CREATE EXTENSION {extension} SCHEMA public"));
    }
    let pgweir = Setup::before(&postgres).target("max_connections = 1").start();
    (postgres, pgweir)
}

const LEAVES: [&str; 3] = [
    "set_config(''myapp.tenant'', ''42'', false)",
    "set_config(''work_mem'', ''77MB'', false)",
    "pg_advisory_lock_shared(77)::text",
];

/// What runs a text that is given to it, with something to be run in the place of `{}`.
const RUNS: [&str; 7] = [
    "SELECT * FROM crosstab('SELECT ''a''::text, ''b''::text, {}') AS ct (a text, b text)",
    "SELECT * FROM public.\"crosstab\"('SELECT ''a''::text, ''b''::text, {}', 'SELECT ''b''::text') AS ct (a text, b text)",
    "SELECT * FROM crosstab('SELECT ''a''::text, ''b''::text, ''c''::text', 'SELECT {}') AS ct (a text, b text)",
    "SELECT * FROM crosstab2('SELECT ''a''::text, ''b''::text, {}')",
    "SELECT * FROM connectby('(SELECT 1 AS a, 2 AS b, {}) x', 'a', 'b', '2', 0) AS t (a int, b int, level int)",
    "SELECT * FROM xpath_table('a', 'b', '(SELECT 1 AS a, ''<x/>'' AS b, {}) x', '/x', 'true') AS t (a int, x text)",
    "SELECT * FROM renamed('SELECT ''a''::text, ''b''::text, {}')",
];

const SEE: &str = "SELECT coalesce(current_setting('myapp.tenant', true), ''), current_setting('work_mem'), \
     (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";

fn with_texts() -> (Postgres, Pgweir) {
    let (postgres, pgweir) = with(&["tablefunc", "xml2"]);
    let mut superuser = postgres.superuser_in(DATABASE);
    for sql in [
        "CREATE TABLE public.texts AS SELECT 'SELECT ''a''::text, ''b''::text, \
         set_config(''myapp.tenant'', ''42'', false)'::text AS q",
        "GRANT SELECT ON public.texts TO PUBLIC",
        "ALTER FUNCTION public.crosstab4(text) RENAME TO renamed",
    ] {
        superuser.execute(sql);
    }
    (postgres, pgweir)
}

#[test]
fn what_a_text_leaves_that_an_extension_runs_reaches_nobody_else() {
    let (postgres, pgweir) = with_texts();
    let mut other = pgweir.client();
    for runs in RUNS {
        for leaves in LEAVES {
            let sql = runs.replace("{}", leaves);
            let (mut pooled, mut direct) = (pgweir.client(), postgres.client());
            let (answer, expected) = (pooled.query(&sql), direct.query(&sql));
            assert_eq!(answer, expected, "{sql}");
            assert!(!answer.iter().any(|line| line.starts_with("ErrorResponse")), "{answer:?}");
            assert_eq!(pooled.execute(SEE), direct.execute(SEE), "{sql}");
            drop(pooled);
            finds_nothing(&mut other);
        }
    }
}

#[test]
fn it_reaches_nobody_else_wherever_the_text_comes_from() {
    let (postgres, pgweir) = with_texts();
    let mut other = pgweir.client();
    let text = "SELECT 'a'::text, 'b'::text, set_config('myapp.tenant', '42', false)";
    let quoted = text.replace('\'', "''");
    for (sql, values) in [
        ("SELECT * FROM crosstab2($1)".to_owned(), &[Some(text)][..]),
        ("SELECT * FROM crosstab2((SELECT q FROM texts))".to_owned(), &[]),
        ("SELECT c.* FROM texts, LATERAL crosstab2(q) c".to_owned(), &[]),
        (format!("SELECT * FROM crosstab2(replace('{quoted}', 'myapp', 'myapp'))"), &[]),
        (
            "SELECT * FROM crosstab2(concat('SELECT 1::text, 2::text, set', $1::text))".to_owned(),
            &[Some("_config('myapp.tenant', '42', false)")],
        ),
    ] {
        let (mut pooled, mut direct) = (pgweir.client(), postgres.client());
        let batch = [parse("", &sql), bind("", "", values), execute("", 0), sync()];
        let (answer, expected) = (pooled.batch(&batch), direct.batch(&batch));
        assert_eq!(answer, expected, "{sql}");
        assert!(!answer.iter().any(|line| line.starts_with("ErrorResponse")), "{answer:?}");
        assert_eq!(pooled.execute(SEE), direct.execute(SEE), "{sql}");
        drop(pooled);
        finds_nothing(&mut other);
    }
    let mut pooled = pgweir.client();
    pooled.execute("PREPARE p (text) AS SELECT * FROM crosstab2($1)");
    pooled.execute(&format!("EXECUTE p('{quoted}')"));
    assert_eq!(pooled.value("SELECT current_setting('myapp.tenant')"), "42");
    drop(pooled);
    finds_nothing(&mut other);
}

#[test]
fn a_text_that_a_function_of_users_hands_on_leaves_nothing() {
    let (postgres, pgweir) = with_texts();
    let mut superuser = postgres.superuser_in(DATABASE);
    superuser.execute(
        "CREATE FUNCTION public.wraps(q text) RETURNS SETOF tablefunc_crosstab_2 LANGUAGE sql AS \
         'SELECT * FROM public.crosstab2(q)'",
    );
    superuser.execute(
        "CREATE VIEW public.wrapped AS SELECT * FROM public.crosstab2('SELECT ''a''::text, ''b''::text, \
         pg_advisory_lock_shared(77)::text'); GRANT SELECT ON public.wrapped TO PUBLIC",
    );
    superuser.execute(
        "CREATE EXTENSION refint SCHEMA public; CREATE TABLE public.checked (id int); \
         GRANT ALL ON public.checked TO PUBLIC; CREATE TRIGGER t BEFORE INSERT ON public.checked FOR EACH ROW \
         EXECUTE FUNCTION public.check_primary_key('id', \
         '(SELECT 1 AS id, pg_advisory_lock_shared(77)::text) p', 'id')",
    );
    drop(pgweir);
    let pgweir = Setup::before(&postgres).target("max_connections = 1").start();
    let mut other = pgweir.client();
    for sql in [
        "SELECT * FROM wraps('SELECT ''a''::text, ''b''::text, set_config(''myapp.tenant'', ''42'', false)')",
        "SELECT * FROM wrapped",
        "INSERT INTO checked VALUES (1)",
    ] {
        let (mut pooled, mut direct) = (pgweir.client(), postgres.client());
        assert_eq!(pooled.query(sql), direct.query(sql), "{sql}");
        assert_eq!(pooled.execute(SEE), direct.execute(SEE), "{sql}");
        drop(pooled);
        finds_nothing(&mut other);
    }
}

#[test]
fn who_runs_a_plain_text_is_not_pinned() {
    let (_postgres, pgweir) = with(&["tablefunc"]);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for sql in [
        "SELECT * FROM crosstab2('SELECT ''a''::text, ''b''::text, ''c''::text')",
        "SELECT * FROM crosstab2($$ SELECT 'a'::text, 'b'::text, 'c'::text $$)",
        "SELECT * FROM crosstab2('SELECT ' || quote_literal('a') || '::text, ''b''::text, ''c''::text')",
        "SELECT * FROM crosstab2(format('SELECT %L::text, ''b''::text, ''c''::text', 'a'))",
    ] {
        assert_eq!(client.execute(sql).len(), 1, "{sql}");
        finds_nothing(&mut other);
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn connections_that_could_be_opened_pin_nobody_and_those_that_are_do() {
    let (_postgres, pgweir) = with(&["dblink"]);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for sql in [
        "SELECT 1",
        "CREATE TABLE plain (id int)",
        "INSERT INTO plain VALUES (1)",
        "SELECT * FROM plain",
    ] {
        client.execute(sql);
        finds_nothing(&mut other);
    }
    assert_eq!(pinned(&pgweir), 0.0);
    client.query("SELECT dblink_connect('left', 'host=127.0.0.1 port=1')");
    eventually("who may have opened one is pinned", || pinned(&pgweir) == 1.0);
}
