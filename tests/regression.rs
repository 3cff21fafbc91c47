//! PostgreSQL's own regression scripts about session state, and some of our own in their spirit, by psql: what it
//! prints through pgweir, with few servers and other clients between its statements, is what it prints directly.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use support::driver::{Endpoint, client_program};
use support::pgweir::{Pgweir, Setup};
use support::postgres::{PgVersion, Postgres, USER};
use support::raw::RawClient;
use support::{absent, repository, run, tools_dir};

/// Those of PostgreSQL that are about sessions, or change their settings on the way. Not `prepare` and `psql`, which
/// list the session's prepared statements, and with them pgweir's own; and not `temp`, which finds out that its
/// server had temporary tables before, nor `sequence`. One part for each size of the pool, to take less time.
const THEIRS: [&[&str]; 2] = [
    &[
        "advisory_lock",
        "async",
        "copy2",
        "domain",
        "guc",
        "namespace",
        "plpgsql",
        "portals",
        "transactions",
    ],
    &[
        "combocid",
        "copydml",
        "lock",
        "plancache",
        "polymorphism",
        "portals_p2",
        "privileges",
        "rowsecurity",
    ],
];

const OURS: [&str; 3] = ["kept", "settings", "tenants"];

/// Two servers that begin alike; pgweir is before the second.
struct World {
    direct: Postgres,
    pooled: Postgres,
    /// The scripts of one pool run after those of another.
    turn: Mutex<()>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let [direct, pooled] = [(), ()].map(|()| Postgres::start(PgVersion::Installed));
        for postgres in [&direct, &pooled] {
            let mut superuser = postgres.superuser();
            superuser.execute(&format!("ALTER ROLE {USER} SUPERUSER"));
            superuser.execute("CREATE DATABASE regress_template");
            // It makes tables without their rows, which are in files.
            let setup = script_of("test_setup");
            if setup.is_file() {
                psql(postgres.port(), "regress_template", &setup);
            }
        }
        World { direct, pooled, turn: Mutex::new(()) }
    })
}

fn script_of(name: &str) -> PathBuf {
    tools_dir().join("corpus").join(name).with_extension("sql")
}

/// What psql prints of a script, errors in their places.
fn psql(port: u16, database: &str, script: &Path) -> Option<String> {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec psql --no-psqlrc --quiet --echo-all --file "$0" 2>&1"#]).arg(script);
    client_program("psql", &Endpoint::plain(port))?;
    Endpoint::plain(port).describe_to(&mut shell);
    shell
        .stdin(Stdio::null())
        .env("PGDATABASE", database)
        .env("PGTZ", "America/Los_Angeles")
        .env("PGDATESTYLE", "Postgres, MDY")
        .env("PGOPTIONS", "-c intervalstyle=postgres_verbose");
    for missing in ["PG_ABS_SRCDIR", "PG_ABS_BUILDDIR", "PG_LIBDIR", "PG_DLSUFFIX"] {
        shell.env(missing, "/absent");
    }
    Some(run(&mut shell))
}

/// Ends what watches it when it is dropped, by a panic too.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Another client: it changes settings, prepares, fails and resets, and sees nothing of anybody else.
fn disturb(pgweir: &Pgweir, database: &str, ends: &AtomicBool) -> u32 {
    let mut client = pgweir.client_as(USER, database);
    let mut rounds = 0;
    while !ends.load(Ordering::Relaxed) {
        let seen = client.execute(
            "SELECT current_setting('work_mem'), current_setting('datestyle'), current_setting('timezone') LIKE '%Los%', \
             current_setting('role'), current_setting('search_path'), coalesce(current_setting('app.tenant', true), ''), \
             (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_prepared_statements WHERE from_sql)",
        );
        let expected = ["4MB", "ISO, MDY", "f", "none", "\"$user\", public", "", "0", "0"];
        assert_eq!(seen, [expected.map(str::to_owned)]);
        client.execute(
            "SET work_mem = '77MB'; SET app.tenant = 'disturbing'; SET search_path = pg_catalog",
        );
        client.execute("SET datestyle = 'German'; SET timezone = 'Asia/Tokyo'");
        client.query("SELECT no_such_function()");
        client.execute("BEGIN");
        client.execute("SET LOCAL role = 'pg_monitor'; SAVEPOINT s1");
        client.execute("ROLLBACK");
        client.execute("DISCARD ALL");
        rounds += 1;
    }
    rounds
}

fn same_output(servers: u32, theirs: &[&str]) {
    let world = world();
    let _turn = world.turn.lock().unwrap_or_else(PoisonError::into_inner);
    let pgweir =
        Setup::before(&world.pooled).target(&format!("max_connections = {servers}")).start();
    let theirs = theirs.iter().map(|name| script_of(name));
    if !tools_dir().join("corpus").is_dir() {
        absent("PostgreSQL's regression scripts");
    }
    let ours = repository().join("tests/regression");
    let ours = OURS.iter().map(|name| ours.join(name).with_extension("sql"));
    let mut superusers = [world.direct.superuser(), world.pooled.superuser()];
    let mut rounds = 0;
    for script in theirs.chain(ours).filter(|script| script.is_file()) {
        let name = script.file_stem().unwrap().to_str().unwrap();
        let database = format!("r{servers}_{name}");
        for superuser in &mut superusers {
            superuser.execute(&format!("CREATE DATABASE {database} TEMPLATE regress_template"));
        }
        let ends = AtomicBool::new(false);
        let (direct, pooled) = std::thread::scope(|scope| {
            let disturbing = scope.spawn(|| disturb(&pgweir, &database, &ends));
            let end = Ends(&ends);
            let direct = psql(world.direct.port(), &database, &script);
            let pooled = psql(pgweir.port(), &database, &script);
            drop(end);
            rounds += disturbing.join().unwrap();
            (direct, pooled)
        });
        let (Some(direct), Some(pooled)) = (direct, pooled) else { return };
        assert!(direct.lines().count() > 30, "{name}: {direct}");
        assert_eq!(differences(&direct, &pooled), "", "{name} through {servers} servers");
        for superuser in &mut superusers {
            drop_database(superuser, &database);
        }
    }
    assert!(rounds > 50, "others had {rounds} turns");
}

fn drop_database(superuser: &mut RawClient, database: &str) {
    superuser.execute(&format!("DROP DATABASE {database} WITH (FORCE)"));
}

/// The lines that differ, by `diff`.
fn differences(direct: &str, pooled: &str) -> String {
    if direct == pooled {
        return String::new();
    }
    let dir = tempfile::TempDir::new().unwrap();
    let files = [("direct", direct), ("pooled", pooled)].map(|(name, text)| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    });
    let output = Command::new("diff").arg("-u").args(files).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn psql_prints_the_same_through_one_server() {
    same_output(1, THEIRS[0]);
}

#[test]
fn psql_prints_the_same_through_three_servers() {
    same_output(3, THEIRS[1]);
}
