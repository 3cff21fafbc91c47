//! Who connects gets the defaults of the moment (`ALTER ROLE ... SET` and the like), whatever servers are open already;
//! and who was there before keeps those that it was told of.

use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{PASSWORD, PgVersion, Postgres, shared};
use crate::support::raw::RawClient;

const SHOW: &str = "SELECT current_setting('work_mem'), current_setting('timezone'), current_setting('datestyle'), \
     current_setting('statement_timeout'), current_setting('search_path'), current_setting('myapp.tenant', true), \
     date '2026-11-25'";

/// A user with a database of the same name, and pgweir before it with some idle servers.
struct World {
    name: String,
    postgres: &'static Postgres,
    pgweir: Pgweir,
}

impl World {
    fn new(name: &str) -> Self {
        Self::before(shared(), name)
    }

    fn before(postgres: &'static Postgres, name: &str) -> Self {
        let mut superuser = postgres.superuser();
        superuser.execute(&format!("CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'"));
        superuser.execute(&format!("CREATE DATABASE {name} OWNER {name}"));
        let pgweir =
            Setup::before(postgres).user(name, PASSWORD).target("max_connections = 6").start();
        let world = Self { name: name.to_owned(), postgres, pgweir };
        world.use_all_servers();
        world
    }

    fn client(&self) -> RawClient {
        self.pgweir.client_as(&self.name, &self.name)
    }

    fn direct(&self) -> RawClient {
        let mut client = RawClient::connect(self.postgres.port());
        client.log_in(&self.name, PASSWORD, &self.name);
        client
    }

    fn use_all_servers(&self) {
        let mut clients: Vec<_> = (0..3).map(|_| self.client()).collect();
        for sql in ["BEGIN", "COMMIT"] {
            for client in &mut clients {
                client.execute(sql);
            }
        }
    }

    /// Clients that come now are told and shown what they would be on connections of their own.
    fn welcomes_as_postgresql(&self, why: &str) {
        let mut direct = self.direct();
        let mut clients: Vec<_> = (0..3).map(|_| self.client()).collect();
        for client in &mut clients {
            assert_eq!(client.parameters, direct.parameters, "{why}");
            client.execute("BEGIN");
        }
        let expected = direct.query(SHOW);
        for client in &mut clients {
            assert_eq!(client.execute(SHOW), direct.execute(SHOW), "{why}");
            client.execute("COMMIT");
            assert_eq!(client.query(SHOW), expected, "{why}");
        }
    }
}

#[test]
fn defaults_changed_by_a_client_are_those_of_who_comes_next() {
    let name = "defaults_by_client";
    let world = World::new(name);
    let mut admin = world.client();
    for sql in [
        &format!("ALTER ROLE {name} SET work_mem = '7MB'"),
        &format!("ALTER USER {name} IN DATABASE {name} SET timezone TO 'Asia/Tokyo'"),
        &format!("alter database {name} set statement_timeout = '1h'"),
        "BEGIN",
        "ALTER ROLE CURRENT_USER SET datestyle = 'German'; SAVEPOINT a",
        &format!("ALTER ROLE {name} SET search_path = pg_catalog, public"),
        "ROLLBACK TO a",
        "COMMIT",
        &format!("ALTER ROLE {name} SET myapp.tenant = '7'"),
        &format!("DO $$ BEGIN EXECUTE 'ALTER ROLE {name} SET ' || 'work_mem = ''8MB'''; END $$"),
        &format!("ALTER ROLE {name} RESET datestyle"),
        &format!("ALTER ROLE {name} RESET ALL"),
        &format!("ALTER DATABASE {name} RESET ALL"),
    ] {
        if admin.query(sql).last().unwrap() == "ReadyForQuery I" {
            world.welcomes_as_postgresql(sql);
        }
    }
    let sql = format!("ALTER ROLE {name} SET work_mem = '9MB'");
    admin.batch(&[
        frontend::parse("", &sql),
        frontend::bind("", "", &[]),
        frontend::execute("", 0),
        frontend::sync(),
    ]);
    world.welcomes_as_postgresql(&sql);
}

#[test]
fn who_was_there_before_keeps_what_it_was_told() {
    let name = "defaults_before";
    let world = World::new(name);
    let mut admin = world.client();
    let (mut pooled, mut direct) = (world.client(), world.direct());
    let (mut told, mut told_direct) = (world.client(), world.direct());
    for sql in ["SET datestyle = 'SQL'", "RESET datestyle", "SET timezone = 'Europe/Paris'"] {
        assert_eq!(told.query(sql), told_direct.query(sql), "{sql}");
    }
    for change in ["SET timezone = 'Asia/Tokyo'", "SET datestyle = 'German'", "RESET ALL"] {
        admin.execute(&format!("ALTER ROLE {name} {change}"));
        world.welcomes_as_postgresql(change);
        for (client, direct) in [(&mut pooled, &mut direct), (&mut told, &mut told_direct)] {
            for sql in [
                SHOW,
                "SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY'",
                SHOW,
                "RESET timezone",
                SHOW,
                "DISCARD ALL",
                SHOW,
                "SET timezone = 'Europe/Paris'",
            ] {
                let rows = |client: &mut RawClient| {
                    let mut lines = client.query(sql);
                    lines.retain(|line| !line.starts_with("ParameterStatus"));
                    lines
                };
                assert_eq!(rows(client), rows(direct), "{sql} after {change}");
            }
        }
    }
    assert_eq!(crate::pinned(&world.pgweir), 0.0);
}

#[test]
fn a_pinned_client_keeps_its_server_and_its_defaults() {
    let name = "defaults_pinned";
    let world = World::new(name);
    let (mut admin, mut pinned) = (world.client(), world.client());
    pinned.execute("CREATE TEMP TABLE left_over (id int)");
    pinned.execute("SET datestyle = 'SQL'; SET timezone = 'Europe/Paris'");
    let before = pinned.execute(SHOW);
    admin.execute(&format!("ALTER ROLE {name} SET work_mem = '7MB'"));
    admin.execute(&format!("ALTER ROLE {name} SET timezone = 'Asia/Tokyo'"));
    for _ in 0..2 {
        assert_eq!(pinned.execute(SHOW), before);
        assert_eq!(pinned.value("SELECT count(*) FROM left_over"), "0");
    }
    has_the_catalogue_asked(&world);
    assert_eq!(pinned.execute(SHOW), before);
    let began_with = pinned.parameters.clone();
    pinned.execute("DISCARD ALL");
    for name in ["TimeZone", "DateStyle"] {
        let now = format!("{name}={}", pinned.value(&format!("SHOW {name}")));
        assert!(began_with.contains(&now), "{now} is none of {began_with:?}");
    }
    world.welcomes_as_postgresql("a pinned client was let go");
}

#[test]
fn servers_of_others_stay() {
    let name = "defaults_others";
    let world = World::new(name);
    let (mut admin, mut other) = (world.client(), world.pgweir.client());
    let mut server = || other.value("SELECT pg_backend_pid()");
    let before = server();
    admin.execute(&format!("ALTER ROLE {name} SET work_mem = '7MB'"));
    world.welcomes_as_postgresql("the user's own");
    assert_eq!(server(), before);
    let closed = |reason| world.pgweir.metric("pgweir_database_connections_closed_total", reason);
    assert!(closed("defaults_changed") >= 1.0);
}

/// The catalogue is asked each minute, and at once when a client has brought code.
fn has_the_catalogue_asked(world: &World) {
    world.client().execute(
        "CREATE OR REPLACE FUNCTION brought() RETURNS int LANGUAGE sql AS 'SELECT 1'; DROP FUNCTION brought",
    );
}

#[test]
fn defaults_changed_elsewhere_are_found_out() {
    let name = "defaults_elsewhere";
    let world = World::new(name);
    let mut superuser = world.postgres.superuser();
    for sql in [
        format!("ALTER ROLE {name} SET work_mem = '7MB'"),
        format!("ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'"),
        format!("ALTER ROLE {name} IN DATABASE {name} SET datestyle = 'German'"),
        format!("ALTER ROLE {name} IN DATABASE {name} RESET ALL"),
    ] {
        superuser.execute(&sql);
        let expected = world.direct().execute(SHOW);
        has_the_catalogue_asked(&world);
        eventually("new clients have the new defaults", || {
            world.client().execute(SHOW) == expected
        });
        world.welcomes_as_postgresql(&sql);
    }
}

const VALUES: &str =
    "SELECT concat_ws(' ', current_setting('timezone'), current_setting('work_mem'))";

#[test]
fn a_configuration_that_was_read_again_is_told_to_who_comes_next() {
    let postgres: &'static Postgres = Box::leak(Box::new(Postgres::start(PgVersion::Installed)));
    let world = World::before(postgres, "defaults_of_file");
    let mut superuser = postgres.superuser();
    let before = world.direct().value(VALUES);
    for (sql, expected) in [
        ("ALTER SYSTEM SET timezone = 'Asia/Tokyo'", "Asia/Tokyo 4MB"),
        ("ALTER SYSTEM SET work_mem = '7MB'", "Asia/Tokyo 7MB"),
        ("ALTER SYSTEM RESET ALL", &*before),
    ] {
        superuser.execute(sql);
        superuser.execute("SELECT pg_reload_conf()");
        eventually("the configuration is read again", || world.direct().value(VALUES) == expected);
        has_the_catalogue_asked(&world);
        eventually("new clients are told of it", || {
            world.client().parameters == world.direct().parameters
        });
        world.welcomes_as_postgresql(sql);
    }
}

/// What the client was told last of a setting.
fn told<'a>(client: &'a RawClient, lines: &'a [String], name: &str) -> Option<&'a str> {
    let reports = lines.iter().filter_map(|line| line.strip_prefix("ParameterStatus "));
    let at_login = client.parameters.iter().map(String::as_str);
    let mut of_it = at_login
        .chain(reports)
        .rev()
        .filter_map(|report| report.strip_prefix(name)?.strip_prefix('='));
    of_it.next()
}

/// What it has set itself is not taken for a default, whether its transaction comes to nothing or is long over.
#[test]
fn what_a_client_has_set_does_not_become_its_default() {
    let name = "defaults_not_set";
    let world = World::new(name);
    let mut admin = world.client();
    for (first, then) in [
        (&["BEGIN", "SET timezone = 'Europe/Paris'"][..], &["ROLLBACK"][..]),
        (&["BEGIN", "SET timezone = 'Europe/Paris'"], &["COMMIT", "DISCARD ALL"]),
        (&["BEGIN", "SET LOCAL timezone = 'Europe/Paris'"], &["COMMIT"]),
        (&["CREATE TEMP TABLE mine ()", "SET timezone = 'Europe/Paris'"], &["DISCARD ALL"]),
        (
            &["CREATE TEMP TABLE mine ()", "SET timezone = 'Europe/Paris'"],
            &["RESET ALL", "DROP TABLE mine"],
        ),
    ] {
        let (mut pooled, mut direct) = (world.client(), world.direct());
        for client in [&mut pooled, &mut direct] {
            for sql in first {
                client.execute(sql);
            }
        }
        admin.execute(&format!("ALTER ROLE {name} SET timezone = 'Asia/Tokyo'"));
        world.welcomes_as_postgresql("ALTER ROLE");
        for client in [&mut pooled, &mut direct] {
            client.execute("SELECT 1");
            for sql in then {
                client.execute(sql);
            }
        }
        for _ in 0..2 {
            assert_eq!(pooled.execute(SHOW), direct.execute(SHOW), "{first:?} {then:?}");
        }
        admin.execute(&format!("ALTER ROLE {name} RESET timezone"));
    }
}

#[test]
fn a_client_is_told_of_its_own_defaults_when_it_resets() {
    let name = "defaults_retold";
    let world = World::new(name);
    let mut admin = world.client();
    for reset in ["DISCARD ALL", "RESET ALL", "RESET timezone", "SELECT 1; RESET ALL"] {
        let mut client = world.client();
        let expected = client.value("SHOW timezone");
        client.execute("SET work_mem = '9MB'");
        admin.execute(&format!("ALTER ROLE {name} SET timezone = 'Asia/Tokyo'"));
        world.welcomes_as_postgresql("ALTER ROLE");
        let mut lines = client.query(reset);
        lines.extend(client.query("SHOW timezone"));
        assert_eq!(told(&client, &lines, "TimeZone"), Some(&*expected), "{reset}");
        assert_eq!(client.value("SHOW timezone"), expected, "{reset}");
        admin.execute(&format!("ALTER ROLE {name} RESET timezone"));
    }
}

/// What a server makes of a client's own settings is kept for those who come with the same; not beyond a change.
#[test]
fn what_was_learned_of_startup_settings_is_void_after_a_change_at_the_same_time() {
    let name = "defaults_learned";
    let world = World::new(name);
    let pgweir =
        Setup::before(world.postgres).user(name, PASSWORD).target("max_connections = 1").start();
    let startup = [("database", name), ("timezone", "Europe/Paris")];
    let mut admin = pgweir.client_as(name, name);
    admin.execute("BEGIN");
    admin.execute(&format!("ALTER ROLE {name} SET datestyle = 'German'"));
    let log_in = move |port| {
        let mut client = RawClient::connect(port);
        client.try_log_in(name, PASSWORD, &startup).unwrap();
        client
    };
    let port = pgweir.port();
    let waits = std::thread::spawn(move || log_in(port));
    eventually("it waits", || pgweir.metric("pgweir_waiting_clients", "") == 1.0);
    admin.execute("COMMIT");
    let mut first = waits.join().unwrap();
    let mut direct = log_in(world.postgres.port());
    for client in [&mut first, &mut log_in(port)] {
        assert_eq!(client.parameters, direct.parameters);
        assert_eq!(client.execute(SHOW), direct.execute(SHOW));
    }
}

/// A client may change what concerns itself as often as it likes, and try to change what does not.
#[test]
fn a_storm_of_changes_leaves_others_their_servers() {
    let name = "defaults_storm";
    let world = World::new(name);
    let pgweir =
        Setup::before(world.postgres).user(name, PASSWORD).target("max_connections = 6").start();
    let mut storms = pgweir.client_as(name, name);
    let mut other = pgweir.client();
    for number in 0..200 {
        storms.query("ALTER ROLE ALL SET work_mem = '7MB'");
        storms
            .execute(&format!("ALTER ROLE {name} SET application_name = 'CURRENT_USER {number}'"));
        other.execute("SELECT 1");
    }
    let closed = pgweir.metric("pgweir_database_connections_closed_total", "defaults_changed");
    assert!(closed < 100.0, "{closed}");
    eventually("new clients have the last of them", || {
        pgweir.client_as(name, name).value("SHOW application_name") == "CURRENT_USER 199"
    });
}
