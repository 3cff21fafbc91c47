//! Two databases that begin alike, one of them behind pgweir.

use super::transcript::Describer;
use crate::support::eventually;
use crate::support::messages::Message;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{MD5_USER, PASSWORD, shared};
use crate::support::raw::RawClient;
use std::panic::catch_unwind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Cheap to log in as, thousands of times.
pub const USER: &str = MD5_USER;

/// A role that [`USER`] may become.
pub const ROLE: &str = "diff_role";

/// What both databases hold. Clients write rows with numbers of their own: `a` those from 100, `b` those
/// from 200 and so on, so that nobody waits for another's lock.
const SCHEMA: &str = "
    CREATE TABLE items (id int PRIMARY KEY, owner text, n int, note text);
    CREATE TABLE lines (id int, line text);
    CREATE SEQUENCE numbers;
    CREATE SEQUENCE others START 500;
    CREATE TABLE serials (id serial PRIMARY KEY, word text);
    CREATE SCHEMA side;
    CREATE TABLE side.items (id int PRIMARY KEY, owner text);
    INSERT INTO side.items VALUES (1, 'side');
    GRANT ALL ON SCHEMA public, side TO PUBLIC;
    GRANT ALL ON ALL TABLES IN SCHEMA public, side TO PUBLIC;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO PUBLIC;
";

/// Back to the beginning, whatever a script did.
const RESET: &str = "
    TRUNCATE items, lines, serials RESTART IDENTITY;
    INSERT INTO items SELECT id, 'base', id * 10, CASE WHEN id % 3 > 0 THEN 'note ' || id END
        FROM generate_series(1, 12) AS id;
    INSERT INTO items SELECT id, 'own', id, NULL FROM generate_series(100, 400, 100) AS id;
    INSERT INTO lines VALUES (1, 'one'), (2, NULL), (3, 'three');
    SELECT setval('numbers', 1, false), setval('others', 500, false);
";

/// What is left in a database by clients that may be gone: locks, open transactions, temporary tables.
const TRACES: &str = "
    SELECT 'lock ' || mode || ' ' || classid || ' ' || objid FROM pg_locks
        WHERE locktype = 'advisory'
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT 'temporary relation ' || relname FROM pg_class
        WHERE relpersistence = 't' AND relname NOT LIKE 'pg_toast%'
    UNION ALL SELECT 'transaction, ' || state FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
    ORDER BY 1";

/// Where scripts are played: the same database twice, and pgweir with a pool before one of them.
pub struct World {
    /// Most servers that pgweir may use.
    pub servers: u32,
    pub describer: Describer,
    databases: [String; 2],
    superusers: [RawClient; 2],
    pgweir: Pgweir,
    /// DDL passed through this pgweir: writes may pin until it has looked at the database again.
    pub ddl_seen: bool,
    /// Clients of this pgweir listened: one of its servers may be there for that.
    pub listened: bool,
}

/// Which of both a connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Direct = 0,
    Pooled = 1,
}

impl World {
    pub fn new(servers: u32) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let databases = ["direct", "pooled"].map(|side| format!("diff_{side}_{number}"));
        for database in &databases {
            create_database(database);
        }
        let mut superusers = databases.each_ref().map(|name| shared().superuser_in(name));
        let oids =
            superusers.each_mut().map(|superuser| superuser.value("SELECT max(oid) FROM pg_class"));
        assert_eq!(oids[0], oids[1]);
        let pgweir = start_pgweir(servers, &databases[1]);
        Self {
            servers,
            describer: Describer { oid_max: oids[0].parse().unwrap() },
            databases,
            superusers,
            pgweir,
            ddl_seen: false,
            listened: false,
        }
    }

    /// Another pgweir, in which nothing has happened yet.
    pub fn restart(&mut self) {
        // What is ended below must not be a server of the new one.
        self.pgweir.signal("KILL");
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        // New connections: a script may have brought down PostgreSQL itself.
        self.superusers = self.databases.each_ref().map(|name| {
            let mut superuser = None;
            eventually("PostgreSQL takes connections", || {
                superuser = catch_unwind(|| shared().superuser_in(name)).ok();
                superuser.is_some()
            });
            superuser.unwrap()
        });
        for superuser in &mut self.superusers {
            superuser.execute(others);
        }
        self.pgweir = start_pgweir(self.servers, &self.databases[1]);
        self.ddl_seen = false;
        self.listened = false;
    }

    /// Both databases are as in the beginning.
    pub fn reset(&mut self) {
        for superuser in &mut self.superusers {
            superuser.execute(RESET);
        }
    }

    /// Logs in, with the answer that ends a refused login.
    pub fn log_in(
        &self,
        side: Side,
        parameters: &[(&str, &str)],
    ) -> (RawClient, Result<(), Message>) {
        let port = if side == Side::Direct { shared().port() } else { self.pgweir.port() };
        let mut client = RawClient::connect(port);
        let database = self.databases[side as usize].as_str();
        let all = [&[("database", database)], parameters].concat();
        let answer = client.try_log_in(USER, PASSWORD, &all);
        (client, answer)
    }

    /// Waits until clients that went have left on both sides what they leave on one: on a server of
    /// its own, here those with the process ids `own`, that is nothing.
    pub fn await_the_same_traces(&mut self, own: Vec<u32>) {
        let [direct, pooled] = &mut self.superusers;
        // Before that, what they are about to take with them could be the same on both.
        for own in own {
            let alive = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {own}");
            eventually("the client's own server has ended", || direct.value(&alive) == "0");
        }
        let mut traces = [Vec::new(), Vec::new()];
        // The panic comes from here, to say what differs.
        let begun = std::time::Instant::now();
        eventually("what clients leave behind is the same", || {
            traces = [direct.execute(TRACES).concat(), pooled.execute(TRACES).concat()];
            assert!(
                traces[0] == traces[1] || begun.elapsed() < TRACES_PATIENCE,
                "left behind directly: {:?}, through pgweir: {:?}",
                traces[0],
                traces[1]
            );
            traces[0] == traces[1]
        });
    }

    /// Most servers that were open at any time must be no more than the budget; how many are now?
    pub fn open_servers(&mut self) -> u32 {
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND usename = '{USER}'",
            self.databases[1]
        );
        self.superusers[1].value(&count).parse().unwrap()
    }
}

/// What PostgreSQL's log says of a crash of its own.
pub fn crashes() -> Vec<String> {
    let crash =
        |line: &&str| line.contains("terminated by signal") || line.contains("Failed process was");
    shared().log().lines().filter(crash).map(str::to_owned).collect()
}

/// Longest that what vanished clients left may take to go.
const TRACES_PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// A pgweir whose pool has seen that its clients read values of sequences later: it keeps them from then on.
fn start_pgweir(servers: u32, database: &str) -> Pgweir {
    let pgweir = start_untaught(servers);
    let mut client = RawClient::connect(pgweir.port());
    client.try_log_in(USER, PASSWORD, &[("database", database)]).unwrap();
    client.execute("SELECT nextval('numbers')");
    client.query("SELECT lastval()");
    client.execute("DISCARD ALL");
    pgweir
}

fn start_untaught(servers: u32) -> Pgweir {
    Setup::before_port(shared().port())
        .user_by(USER, PASSWORD, "POSTGRES_MD5")
        .target("tls = \"disable\"")
        .target(&format!("max_connections = {servers}"))
        // A script that takes more servers than there are fails soon, and says so.
        .target("connection_borrow_timeout = \"8s\"")
        .start()
}

/// From a template, so that both have the same OIDs.
fn create_database(name: &str) {
    static TEMPLATE: Mutex<bool> = Mutex::new(false);
    let mut exists = TEMPLATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut superuser = shared().superuser();
    if !*exists {
        superuser.execute(&format!("CREATE ROLE {ROLE}"));
        superuser.execute(&format!("GRANT {ROLE} TO {USER}"));
        superuser.execute("CREATE DATABASE diff_template");
        let mut template = shared().superuser_in("diff_template");
        template.execute(SCHEMA);
        template.send(&crate::support::messages::frontend::terminate());
        assert_eq!(template.until_closed(), Vec::<String>::new());
        *exists = true;
    }
    eventually("the template is free to be copied", || {
        let answer = superuser.query(&format!("CREATE DATABASE {name} TEMPLATE diff_template"));
        answer.contains(&"CommandComplete CREATE DATABASE".to_owned())
    });
    superuser.execute(&format!("GRANT ALL ON DATABASE {name} TO {USER}"));
}
