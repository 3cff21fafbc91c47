//! Settings follow their client, whatever becomes of the transaction in which they were set.

use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::Setup;
use crate::support::postgres::{PgVersion, Postgres, shared};
use crate::{finds_nothing, pinned, pool_of, same_alone};

const SHOW: &str = "SELECT current_setting('work_mem'), current_setting('timezone'), \
     current_setting('search_path'), current_setting('myapp.tenant', true), current_setting('application_name')";

#[test]
fn a_setting_follows_its_client() {
    same_alone(
        &[],
        &[
            "SET work_mem = '77MB'",
            SHOW,
            "SET SESSION timezone TO 'Asia/Tokyo'",
            SHOW,
            "SET myapp.tenant = '42'",
            SHOW,
            "SELECT set_config('search_path', 'pg_catalog, public', false)",
            SHOW,
            "SELECT set_config('myapp.tenant', '43', false)",
            SHOW,
            "SET application_name = 'it''s me'",
            SHOW,
            "SHOW work_mem",
            "RESET work_mem",
            SHOW,
            "SET TIME ZONE DEFAULT",
            SHOW,
        ],
    );
}

#[test]
fn a_setting_is_what_the_transaction_made_of_it() {
    same_alone(
        &[],
        &[
            "BEGIN",
            "SET work_mem = '77MB'",
            "SET myapp.tenant = 'x'",
            "COMMIT",
            SHOW,
            "BEGIN",
            "SET work_mem = '88MB'",
            "ROLLBACK",
            SHOW,
            "BEGIN",
            "SET work_mem = '70MB'",
            "SAVEPOINT a",
            "SET work_mem = '71MB'",
            "SET timezone = 'Asia/Tokyo'",
            "ROLLBACK TO a",
            "SAVEPOINT b",
            "SET search_path = pg_catalog",
            "RELEASE b",
            "COMMIT",
            SHOW,
            "BEGIN",
            "SET work_mem = '1GB'",
            "SELECT 1/0",
            "SET work_mem = '2GB'",
            "COMMIT",
            SHOW,
            "BEGIN",
            "SET LOCAL work_mem = '3MB'",
            "SET LOCAL timezone = 'Asia/Tokyo'",
            "COMMIT",
            SHOW,
        ],
    );
}

#[test]
fn settings_in_a_batch_of_statements_are_those_of_the_batch() {
    same_alone(
        &[],
        &[
            "SET work_mem = '71MB'; SET timezone = 'Asia/Tokyo'; SELECT 1",
            SHOW,
            "SET work_mem = '72MB'; SELECT 1/0",
            SHOW,
            "SET work_mem = '73MB'; COMMIT; SET timezone = 'Europe/Paris'; SELECT 1/0",
            SHOW,
            "SET work_mem = 'many'",
            "SET no_such_setting = 1",
            SHOW,
        ],
    );
}

#[test]
fn settings_of_pipelined_batches_follow() {
    let pgweir = pool_of(1);
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    let batch = |sql: &str, values: &[Option<&str>]| {
        [
            frontend::parse("", sql),
            frontend::bind("", "", values),
            frontend::execute("", 0),
            frontend::sync(),
        ]
        .concat()
    };
    client.send(
        &[
            batch("SET work_mem = '71MB'", &[]),
            batch("SELECT 1/0", &[]),
            batch("SELECT set_config($1, $2, false)", &[Some("myapp.tenant"), Some("7")]),
            [batch("SET timezone = 'Asia/Tokyo'", &[]), batch("SELECT 1", &[])].concat(),
        ]
        .concat(),
    );
    for _ in 0..5 {
        client.until_ready();
    }
    for _ in 0..3 {
        finds_nothing(&mut other);
        assert_eq!(client.value("SHOW work_mem"), "71MB");
        assert_eq!(client.value("SHOW myapp.tenant"), "7");
        assert_eq!(client.value("SHOW timezone"), "Asia/Tokyo");
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn a_role_follows_its_client() {
    same_alone(
        &[],
        &[
            "SET ROLE app",
            "SELECT current_user, session_user, current_setting('role')",
            "SET work_mem = '77MB'",
            "SELECT current_user, session_user, current_setting('role'), current_setting('work_mem')",
            "BEGIN; SET LOCAL ROLE none; COMMIT",
            "SELECT current_setting('role')",
            "BEGIN; RESET ROLE; ROLLBACK",
            "SELECT current_setting('role')",
            "RESET ROLE",
            "SELECT current_setting('role'), current_setting('work_mem')",
        ],
    );
}

#[test]
fn a_role_of_the_startup_can_be_left() {
    same_alone(
        &[("options", "-c role=app")],
        &[
            "SHOW role",
            "SET ROLE NONE",
            "SHOW role",
            "SET work_mem = '77MB'",
            "SHOW role",
            "SET SESSION AUTHORIZATION DEFAULT",
            "SHOW role",
            "SELECT set_config('role', 'none', false)",
            "SHOW role",
            "RESET ROLE",
            "SHOW role",
            "BEGIN; SET ROLE 'none'; COMMIT",
            "SHOW role",
            "SELECT 1; RESET ROLE",
            "SHOW role",
            "BEGIN; SET LOCAL ROLE NONE; COMMIT",
            "SHOW role",
            "BEGIN; SET ROLE NONE; ROLLBACK",
            "SHOW role",
            "BEGIN; RESET ROLE; SET LOCAL ROLE NONE; COMMIT",
            "SHOW role",
            "DO $$BEGIN SET ROLE NONE; END$$",
            "SHOW role",
            "RESET ALL",
            "SHOW role",
            "SET ROLE NONE; RESET ROLE",
            "SHOW role",
            "RESET ROLE; SET SESSION ROLE NONE",
            "SHOW role",
            "DISCARD ALL",
            "SHOW role",
            "SET role = none",
            "SHOW role",
            "BEGIN; RESET ROLE; ROLLBACK",
            "SHOW role",
            "BEGIN",
            "RESET ROLE",
            "SHOW role",
            "ROLLBACK",
            "SHOW role",
            "BEGIN",
            "SAVEPOINT s",
            "RESET ROLE",
            "ROLLBACK TO s",
            "SET work_mem = '78MB'",
            "COMMIT",
            "SHOW role",
            "SET ROLE TO DEFAULT",
            "SHOW role",
        ],
    );
}

#[test]
fn a_setting_of_the_startup_is_the_default_of_its_session() {
    let startup = [("timezone", "Asia/Tokyo"), ("work_mem", "5MB")];
    let pgweir = pool_of(1);
    let (mut pooled, mut direct) = (pgweir.client_with(&startup), crate::direct_with(&startup));
    let mut other = pgweir.client();
    for sql in [
        "SET work_mem = '6MB'",
        "RESET work_mem",
        "SET timezone = 'Europe/Paris'",
        "RESET timezone",
        "BEGIN; SET timezone = 'Europe/Paris'; RESET ALL; ROLLBACK",
        "SET work_mem = '7MB'; SET statement_timeout = '1h'",
        "RESET ALL",
        "SET work_mem = '7MB'; SET statement_timeout = '1h'",
        "DISCARD ALL",
    ] {
        pooled.execute(sql);
        direct.execute(sql);
        finds_nothing(&mut other);
        for show in ["SHOW timezone", "SHOW work_mem", "SHOW statement_timeout"] {
            assert_eq!(pooled.value(show), direct.value(show), "{show} after {sql}");
        }
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn clients_with_many_settings_share_a_server() {
    let pgweir = pool_of(1);
    let mut clients: Vec<_> = (0..4).map(|_| pgweir.client()).collect();
    for (at, client) in clients.iter_mut().enumerate() {
        client.execute(&format!("SET work_mem = '{}MB'; SET myapp.tenant = '{at}'", 20 + at));
        client.execute("SET statement_timeout = '1h'");
    }
    for _ in 0..3 {
        for (at, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.value("SHOW work_mem"), format!("{}MB", 20 + at));
            assert_eq!(client.value("SHOW myapp.tenant"), at.to_string());
        }
    }
    assert_eq!(pinned(&pgweir), 0.0);
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

#[test]
fn a_reset_of_a_pinned_client_is_to_the_settings_of_its_startup() {
    let pgweir = pool_of(1);
    let mut client =
        pgweir.client_with(&[("datestyle", "German, DMY"), ("options", "-c work_mem=5MB")]);
    client.execute("CREATE TEMP TABLE left_over (id int)");
    for reset in [
        "RESET ALL",
        "RESET datestyle; RESET work_mem",
        "SET datestyle TO DEFAULT; SET work_mem TO DEFAULT",
    ] {
        client.execute("SET datestyle = 'SQL'; SET work_mem = '7MB'");
        client.execute(reset);
        assert_eq!(client.value("SHOW datestyle"), "German, DMY", "{reset}");
        assert_eq!(client.value("SHOW work_mem"), "5MB", "{reset}");
    }
    assert_eq!(pinned(&pgweir), 1.0);
}

/// A transaction that is deferrable waits for those that are not; what is told ahead of a client's is none of it.
#[test]
fn a_client_does_not_wait_for_what_another_wants_of_its_transactions() {
    let postgres = Postgres::start(PgVersion::Installed);
    let mut writer = postgres.client();
    writer.execute("CREATE TABLE public.written (id int)");
    let pgweir = Setup::before(&postgres).target("max_connections = 1").start();
    let (mut patient, mut hasty) = (pgweir.client(), pgweir.client());
    let safe = "TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE";
    patient.execute(&format!("SET SESSION CHARACTERISTICS AS {safe}"));
    hasty.execute("SET application_name = 'hasty'");
    patient.execute("SELECT 1");
    writer.execute("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO written VALUES (1)");
    assert_eq!(hasty.value("SHOW application_name"), "hasty");
    assert_eq!(hasty.value("SELECT count(*) FROM written"), "0");
    writer.execute("COMMIT");
    assert_eq!(patient.value("SHOW transaction_deferrable"), "on");
}

#[test]
fn an_idle_session_timeout_ends_no_server_that_is_lent_to_all() {
    let pgweir = pool_of(1);
    let mut superuser = shared().superuser();
    let (mut client, mut other) = (pgweir.client(), pgweir.client());
    let mut given = pgweir.client_with(&[("options", "-c idle_session_timeout=300")]);
    let pid = other.value("SELECT pg_backend_pid()");
    // As of when the server has been idle for longer than it was told to be.
    let idle = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND state = 'idle' \
         AND state_change < clock_timestamp() - interval '600 ms'"
    );
    client.execute("SET idle_session_timeout = '300ms'");
    for client in [&mut client, &mut given] {
        assert_eq!(client.value("SHOW idle_session_timeout"), "300ms");
        eventually("the server stays", || superuser.value(&idle) == "1");
        assert_eq!(other.value("SHOW idle_session_timeout"), "0");
        assert_eq!(client.value("SHOW idle_session_timeout"), "300ms");
        assert_eq!(other.value("SELECT pg_backend_pid()"), pid);
    }
}
