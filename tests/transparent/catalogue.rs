//! Code in the database that could leave something is found in the catalogue, wherever it stands there, and by
//! whatever server can be asked.

use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{DATABASE, PgVersion, Postgres, all_newest};
use crate::support::raw::RawClient;
use crate::{finds_nothing, pinned};

/// Runs what must succeed.
fn define(client: &mut RawClient, definitions: &[&str]) {
    for sql in definitions {
        let answer = client.query(sql);
        assert!(!answer.iter().any(|line| line.starts_with("ErrorResponse")), "{sql}: {answer:?}");
    }
}

/// A pool of one server in front of a database with these definitions. Everybody may use what is in it.
fn with(definitions: &[&str]) -> (Postgres, Pgweir) {
    let postgres = Postgres::start(PgVersion::Installed);
    let mut owner = postgres.superuser_in(DATABASE);
    define(&mut owner, &["GRANT ALL ON SCHEMA public TO PUBLIC"]);
    define(&mut owner, definitions);
    define(&mut owner, &["GRANT ALL ON ALL TABLES IN SCHEMA public TO PUBLIC"]);
    let pgweir = Setup::before(&postgres).target("max_connections = 1").start();
    (postgres, pgweir)
}

const ENTER: &str = "CREATE FUNCTION public.enter(tenant text) RETURNS void LANGUAGE plpgsql AS \
     $$ BEGIN PERFORM set_config('myapp.tenant', tenant, false); END $$";

const NOTHING: &str =
    "CREATE FUNCTION public.nothing() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$";

#[test]
fn the_only_client_that_has_a_server_finds_out_what_new_code_does() {
    let (_postgres, pgweir) = with(&["CREATE TABLE public.plain (id int)"]);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for (definition, runs) in [
        (NOTHING, "SELECT public.nothing()"),
        ("DROP FUNCTION public.nothing()", "INSERT INTO public.plain VALUES (1)"),
        (ENTER, "SELECT public.enter('7')"),
    ] {
        define(&mut client, &["BEGIN", definition, runs, "COMMIT"]);
        finds_nothing(&mut other);
        assert_eq!(pinned(&pgweir), 0.0, "{runs}");
    }
    // A setting of which only the function knows has come with the client.
    assert_eq!(client.value("SHOW myapp.tenant"), "7");
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn all_who_have_a_server_find_out_what_new_code_does() {
    let (postgres, pgweir) = with(&["CREATE TABLE public.plain (id int)"]);
    drop(pgweir);
    let pgweir = Setup::before(&postgres).target("max_connections = 3").start();
    let mut clients: Vec<RawClient> = (0..3).map(|_| pgweir.client()).collect();
    define(&mut clients[0], &["BEGIN", NOTHING]);
    for client in &mut clients[1..] {
        define(client, &["BEGIN", "INSERT INTO public.plain VALUES (1)"]);
    }
    define(&mut clients[0], &["SELECT public.nothing()"]);
    for client in &mut clients {
        client.execute("COMMIT");
    }
    let mut others: Vec<RawClient> = (0..3).map(|_| pgweir.client()).collect();
    for other in &mut others {
        other.execute("BEGIN");
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn new_code_that_cannot_be_seen_through_still_pins() {
    let (_postgres, pgweir) = with(&[]);
    let mut client = pgweir.client();
    let seeds = "CREATE FUNCTION public.seeds() RETURNS void LANGUAGE sql AS 'SELECT setseed(0.5)'";
    define(&mut client, &["BEGIN", seeds, "SELECT public.seeds()", "COMMIT"]);
    eventually("its client is pinned", || pinned(&pgweir) == 1.0);
    let first = client.value("SELECT random()");
    define(&mut client, &["SELECT public.seeds()"]);
    assert_eq!(client.value("SELECT random()"), first, "on the same server, seeded again");
    client.execute("DISCARD ALL");
    eventually("it is let go", || pinned(&pgweir) == 0.0);
}

#[test]
fn a_clients_settings_do_not_change_what_the_catalogue_says() {
    for settings in [
        "SET standard_conforming_strings = off",
        "SET search_path = evil, pg_catalog, public",
        "SET quote_all_identifiers = on",
    ] {
        let (_postgres, pgweir) = with(&[
            "CREATE SCHEMA evil",
            "GRANT ALL ON SCHEMA evil TO PUBLIC",
            "CREATE FUNCTION evil.never(name, name) RETURNS bool LANGUAGE sql AS 'SELECT false'",
            "CREATE OPERATOR evil.= (FUNCTION = evil.never, LEFTARG = name, RIGHTARG = name)",
        ]);
        let (mut client, mut other) = (pgweir.client(), pgweir.client());
        for definition in [ENTER, "COMMENT ON FUNCTION public.enter IS 'idle'"] {
            // The first time on the client's own server, the second on one that was given back.
            define(
                &mut client,
                &[settings, "BEGIN", definition, "SELECT public.enter('7')", "COMMIT"],
            );
            client.execute("RESET ALL");
            define(
                &mut client,
                &[settings, definition.replace("CREATE F", "CREATE OR REPLACE F").as_str()],
            );
            client.execute("RESET ALL");
            for tenant in ["8", "9"] {
                let (mut one, mut two) = (pgweir.client(), pgweir.client());
                one.execute(&format!("SELECT public.enter('{tenant}')"));
                finds_nothing(&mut two);
                finds_nothing(&mut other);
                assert_eq!(one.value("SHOW myapp.tenant"), tenant, "{settings}");
            }
        }
    }
}

/// A place in the catalogue from which code runs, and a statement that makes it run.
type Place = (&'static [&'static str], &'static str);

const SET_BY: [Place; 5] = [
    (
        &[
            "CREATE DOMAIN public.tenant AS text DEFAULT set_config('myapp.tenant', '7', false)",
            "CREATE TABLE public.t (id int, tenant public.tenant)",
        ],
        "INSERT INTO public.t (id) VALUES (1)",
    ),
    (
        &[
            "CREATE TABLE public.t (id int)",
            "CREATE FUNCTION public.go_on() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
            "CREATE TRIGGER t BEFORE INSERT ON public.t FOR EACH ROW \
             WHEN (set_config('myapp.tenant', '7', false) IS NOT NULL) EXECUTE FUNCTION public.go_on()",
        ],
        "INSERT INTO public.t (id) VALUES (1)",
    ),
    (
        &[
            "CREATE FUNCTION public.lazy(tenant text DEFAULT set_config('myapp.tenant', '7', false)) \
           RETURNS text LANGUAGE sql AS 'SELECT $1'",
        ],
        "SELECT public.lazy()",
    ),
    (
        &["CREATE FUNCTION public.quiet() RETURNS void LANGUAGE plpgsql AS \
           $$ BEGIN\n  -- As the others do.\n  SET timezone = 'Asia/Tokyo'; END $$"],
        "SELECT public.quiet()",
    ),
    (
        &["CREATE FUNCTION public.quiet() RETURNS void LANGUAGE plpgsql AS \
           $$ BEGIN /* As the others do. */ SET timezone = 'Asia/Tokyo'; END $$"],
        "SELECT public.quiet()",
    ),
];

#[test]
fn settings_are_found_wherever_the_code_stands_that_changes_them() {
    for (definitions, runs) in SET_BY {
        let (postgres, pgweir) = with(definitions);
        let (mut pooled, mut direct) = (pgweir.client(), postgres.client());
        let mut other = pgweir.client();
        // Not before others have come and gone.
        finds_nothing(&mut other);
        assert_eq!(pooled.query(runs), direct.query(runs), "{definitions:?}");
        finds_nothing(&mut other);
        let read = "SELECT current_setting('myapp.tenant', true), current_setting('timezone')";
        let (seen, expected) = (pooled.execute(read), direct.execute(read));
        assert_eq!(seen[0][1], expected[0][1], "{definitions:?}");
        assert!(
            seen[0][0] == expected[0][0] || expected[0][0] == "NULL",
            "{seen:?} {definitions:?}"
        );
    }
}

const LOCKED_BY: [Place; 5] = [
    (
        &["CREATE OPERATOR public.@@@ (FUNCTION = pg_advisory_lock, RIGHTARG = bigint)"],
        "SELECT @@@ 5::bigint",
    ),
    (
        &["CREATE CAST (bigint AS boolean) WITH FUNCTION pg_try_advisory_lock(bigint)"],
        "SELECT 5::bigint::boolean",
    ),
    (
        &[
            "CREATE TABLE public.t (id int)",
            "INSERT INTO public.t SELECT generate_series(1, 5)",
            "CREATE STATISTICS public.s ON (pg_try_advisory_lock(id)), id FROM public.t",
            "ALTER TABLE public.t OWNER TO app",
        ],
        "ANALYZE public.t",
    ),
    (
        &["CREATE FUNCTION public.told(query text) RETURNS xml LANGUAGE sql AS \
           $$ SELECT query_to_xml(query, true, true, '') $$"],
        "SELECT public.told('SELECT pg_advisory_lock(5)')",
    ),
    (&[], "SELECT query_to_xml('SELECT pg_advisory_lock(5)', true, true, '')"),
];

#[test]
fn locks_are_found_wherever_the_code_stands_that_takes_them() {
    for (definitions, runs) in LOCKED_BY {
        let (postgres, pgweir) = with(definitions);
        let (mut pooled, mut direct) = (pgweir.client(), postgres.client());
        let locks = "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
        define(&mut direct, &[runs]);
        assert_eq!(direct.value(locks), "t", "{runs}");
        drop(direct);
        let mut owner = postgres.superuser();
        let all = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        eventually("its locks are gone", || owner.value(all) == "0");
        define(&mut pooled, &[runs]);
        eventually(runs, || pinned(&pgweir) == 1.0);
        assert_eq!(pooled.value(locks), "t", "{runs}");
        pooled.execute("DISCARD ALL");
        finds_nothing(&mut pgweir.client());
    }
}

#[test]
fn a_setting_whose_name_is_nowhere_keeps_its_client() {
    let (_postgres, pgweir) = with(&["CREATE AGGREGATE public.enters(text, bool) \
         (SFUNC = set_config, STYPE = text, INITCOND = 'myapp.tenant')"]);
    let mut client = pgweir.client();
    define(&mut client, &["SELECT public.enters('7', false)"]);
    eventually("it is pinned", || pinned(&pgweir) == 1.0);
    assert_eq!(client.value("SHOW myapp.tenant"), "7");
    client.execute("DISCARD ALL");
    finds_nothing(&mut pgweir.client());
}

#[test]
fn an_aggregate_of_harmless_functions_pins_nobody() {
    let (_postgres, pgweir) = with(&[
        "CREATE FUNCTION public.plus(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 + $2'",
        "CREATE AGGREGATE public.total(int) (SFUNC = public.plus, STYPE = int, INITCOND = '0')",
        "CREATE AGGREGATE public.product(numeric) (SFUNC = numeric_mul, STYPE = numeric, INITCOND = '1')",
    ]);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    assert_eq!(client.value("SELECT public.total(n) FROM generate_series(1, 4) n"), "10");
    assert_eq!(client.value("SELECT public.product(n) FROM generate_series(1, 4) n"), "24");
    finds_nothing(&mut other);
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

#[test]
fn what_discard_all_does_not_take_back_reaches_nobody_else() {
    let seeds = "CREATE FUNCTION public.seeds() RETURNS void LANGUAGE sql AS 'SELECT setseed(0.5)'";
    let sets = "CREATE FUNCTION public.sets() RETURNS void LANGUAGE plpgsql AS \
         'BEGIN SET LOCAL seed = 0.5; END'";
    let configures = "CREATE FUNCTION public.configures() RETURNS text LANGUAGE sql AS \
         $$SELECT set_config('seed', '0.5', true)$$";
    // PostgreSQL refuses it from version 16 on.
    let seed = if all_newest() { "" } else { "SET seed = 0.5" };
    let has = format!("CREATE FUNCTION public.has() RETURNS void LANGUAGE sql {seed} AS ''");
    let (postgres, pgweir) = with(&[seeds, sets, configures, &has]);
    let mut direct = postgres.client();
    direct.execute("SELECT setseed(0.5)");
    let seeded = direct.value("SELECT random()");
    for leaves in [
        &["SELECT setseed(0.5)"][..],
        &["SELECT public.seeds()"],
        &["SELECT public.sets()"],
        &["SELECT public.configures()"],
        if all_newest() { &["SELECT setseed(0.5)"] } else { &["SELECT public.has()"] },
        &["CREATE TEMP TABLE left_over (id int)", "SELECT public.seeds()"],
        &["CREATE TEMP TABLE left_over (id int)", "SELECT setseed(0.5)"],
        &["DO $$ BEGIN PERFORM pg_catalog.SetSeed(0.5); END $$"],
        &["DO LANGUAGE 'plpgsql' $$ BEGIN EXECUTE 'SELECT setseed(0.5)'; END $$"],
    ] {
        for discards in [true, false] {
            let mut client = pgweir.client();
            define(&mut client, leaves);
            eventually("it is pinned", || pinned(&pgweir) == 1.0);
            if discards {
                client.execute("DISCARD ALL");
            } else {
                drop(client);
            }
            let mut other = pgweir.client();
            assert_ne!(other.value("SELECT random()"), seeded, "{leaves:?} {discards}");
        }
    }
}

#[test]
fn a_column_that_is_called_seed_is_no_seed() {
    let (_postgres, pgweir) = with(&[
        "CREATE TABLE public.games (seed int)",
        "CREATE FUNCTION public.starts() RETURNS void LANGUAGE plpgsql AS \
         $$BEGIN UPDATE public.games SET seed = 1; UPDATE public.games AS g SET seed = 2; END$$",
        ENTER,
    ]);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    define(&mut client, &["SELECT public.enter('7')", "SELECT public.starts()"]);
    finds_nothing(&mut other);
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

#[test]
fn what_a_bound_text_leaves_reaches_nobody_else() {
    let (postgres, pgweir) = with(&[]);
    let mut direct = postgres.client();
    direct.execute("SELECT setseed(0.5)");
    let seeded = direct.value("SELECT random()");
    let mut client = pgweir.client();
    let text = "SELECT setseed(0.5)";
    client.batch(&[
        frontend::parse("", "SELECT query_to_xml($1, true, false, '')"),
        frontend::bind("", "", &[Some(text)]),
        frontend::execute("", 0),
        frontend::sync(),
    ]);
    eventually("it is pinned", || pinned(&pgweir) == 1.0);
    drop(client);
    let mut other = pgweir.client();
    assert_ne!(other.value("SELECT random()"), seeded);
}

#[test]
fn a_function_with_the_name_of_a_keyword_is_found() {
    let text = "SELECT set_config(''myapp.tenant'', ''7'', false)";
    let sets = format!("CREATE FUNCTION public.in(int) RETURNS text LANGUAGE sql AS '{text}'");
    let (_postgres, pgweir) = with(&[&sets]);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    for _ in 0..3 {
        client.execute("SELECT public.in(1)");
        finds_nothing(&mut other);
        assert_eq!(client.value("SELECT current_setting('myapp.tenant')"), "7");
    }
}

/// Names of functions that the client's encoding does not have.
#[test]
fn a_clients_encoding_is_no_matter_for_the_catalogue() {
    let (postgres, pgweir) = with(&[NOTHING, &ENTER.replace("enter", "войти")]);
    drop(pgweir);
    let pgweir = Setup::before(&postgres).target("max_connections = 2").start();
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    client.execute("SET client_encoding = 'LATIN1'");
    let again = NOTHING.replace("nothing", "mine");
    for _ in 0..2 {
        other.execute("BEGIN");
        define(&mut client, &["BEGIN", &again, "SELECT public.mine()", "COMMIT"]);
        define(&mut client, &["DROP FUNCTION public.mine()", "SELECT public.nothing()"]);
        define(&mut other, &["SELECT public.nothing()", "COMMIT"]);
    }
    assert_eq!(client.value("SHOW client_encoding"), "LATIN1");
    assert_eq!(other.value("SHOW client_encoding"), "UTF8");
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

#[test]
fn a_catalogue_that_does_not_answer_in_time_keeps_nobody_out() {
    let (postgres, pgweir) = with(&[NOTHING]);
    drop(pgweir);
    let mut holder = postgres.superuser_in(DATABASE);
    define(&mut holder, &["BEGIN", "LOCK TABLE pg_policy IN ACCESS EXCLUSIVE MODE"]);
    let pgweir = Setup::before(&postgres).target("max_connections = 2").start();
    let mut client = pgweir.client();
    define(&mut client, &["SELECT public.nothing()"]);
    eventually("it is pinned, as nobody knows what it has run", || pinned(&pgweir) == 1.0);
    assert_eq!(pgweir.metric("pgweir_database_connections_setup_failed_total", ""), 0.0);
}
