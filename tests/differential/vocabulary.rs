//! The statements that random scripts are made of.
//!
//! Whatever is here answers the same on two servers in the same state: no times, process ids, names
//! of temporary schemas. No statement waits for another client's lock.

use super::generator::Group;
use super::random::Random;
use super::script::Client;

/// What one client may say next.
pub struct Words<'a> {
    pub random: &'a mut Random,
    pub client: Client,
}

pub const MANY_ROWS: [&str; 4] = [
    "SELECT id, note FROM items WHERE id < 13 ORDER BY id",
    "SELECT generate_series(1, 7)",
    "VALUES (1, 'x'), (2, NULL), (3, 'z')",
    "SELECT 5 / (4 - n) FROM generate_series(1, 6) AS n",
];

pub const COPY_OUT: [&str; 4] = [
    "COPY (SELECT * FROM items WHERE id < 13 ORDER BY id) TO STDOUT",
    "COPY (SELECT 1, NULL, 'x') TO STDOUT (FORMAT csv, HEADER)",
    "COPY (SELECT 1 / (3 - n) FROM generate_series(1, 5) AS n) TO STDOUT",
    "COPY no_such_table TO STDOUT",
];

pub const COPY_IN: [&str; 4] = [
    "COPY lines FROM STDIN (FORMAT csv)",
    "COPY lines (line) FROM STDIN (FORMAT csv)",
    "COPY lines FROM STDIN (FORMAT csv)",
    "COPY no_such_table FROM STDIN (FORMAT csv)",
];

pub const COPY_LINES: [&str; 5] = ["7,seven", "8,", "9,\"nine\"", "10,ten", "eleven"];

const QUERIES: [&str; 24] = [
    "SELECT 1",
    "SELECT * FROM items ORDER BY id",
    "SELECT count(*), sum(n) FROM items",
    "SELECT * FROM lines ORDER BY id, line",
    "SELECT 1; SELECT 'two'; VALUES (3)",
    "SELECT 1/0",
    "SELECT 1; SELECT 1/0; SELECT 3",
    "SELECT no_such_column FROM items",
    "SELECT * FROM no_such_table",
    "SELECT no_such_function()",
    "SELECT",
    "SELECT FROM WHERE",
    "",
    "  ;  ",
    "/* nothing */",
    "TABLE side.items",
    "SELECT repeat('long', 3000)",
    "SELECT id, repeat(note, 300) FROM items ORDER BY id",
    "WITH w AS (SELECT 1 AS x) SELECT x, NULL::int AS y FROM w",
    "SELECT 'a' || chr(228) || 'b', '\\x00ff'::bytea, ARRAY[1, NULL, 3]",
    "SELECT pg_try_advisory_xact_lock(7)",
    "SELECT count(*) FROM pg_cursors",
    "SELECT * FROM scratch",
    "EXPLAIN (COSTS OFF) SELECT 1",
];

/// `@` stands for the first of the client's own numbers.
const WRITES: [&str; 9] = [
    "INSERT INTO items VALUES (@ + 1, 'own', 1, 'first')",
    "INSERT INTO items VALUES (@ + 2, 'own', 2, NULL), (@ + 3, 'own', 3, 'x') RETURNING id, note",
    "INSERT INTO items VALUES (@ + 4, 'own', 4, 'y'); SELECT 1/0",
    "INSERT INTO items VALUES (@ + 1, 'own', 5, 'z') ON CONFLICT (id) DO UPDATE SET n = items.n + 1",
    "UPDATE items SET n = n + 1 WHERE id = @ RETURNING n",
    "UPDATE items SET n = n * 2 WHERE id BETWEEN @ AND @ + 50",
    "DELETE FROM items WHERE id = @ + 1",
    "DELETE FROM items WHERE id BETWEEN @ + 1 AND @ + 50",
    "SELECT n FROM items WHERE id = @ FOR UPDATE",
];

const BLOCKS: [&str; 19] = [
    "BEGIN",
    "BEGIN",
    "BEGIN",
    "START TRANSACTION READ ONLY",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "COMMIT",
    "COMMIT",
    "COMMIT",
    "END",
    "ROLLBACK",
    "ROLLBACK",
    "ABORT",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "BEGIN; SELECT 1",
    "SELECT 1; COMMIT; SELECT 2",
    "COMMIT; BEGIN",
    "BEGIN; SELECT 1/0",
    "BEGIN; INSERT INTO items VALUES (@ + 5, 'own'); COMMIT",
];

const SAVEPOINTS: [&str; 7] = [
    "SAVEPOINT one",
    "SAVEPOINT two",
    "SAVEPOINT one; SAVEPOINT two",
    "ROLLBACK TO one",
    "ROLLBACK TO SAVEPOINT two",
    "RELEASE one",
    "RELEASE SAVEPOINT two",
];

/// Name, and values of which the last is none.
const SETTINGS: [(&str, [&str; 4]); 11] = [
    ("work_mem", ["'5MB'", "'9MB'", "123456", "'much'"]),
    ("timezone", ["'Asia/Tokyo'", "'America/New_York'", "'UTC'", "'Nowhere'"]),
    ("datestyle", ["'German, DMY'", "'ISO, YMD'", "'SQL'", "'No'"]),
    ("application_name", ["'one'", "'two words'", "''", "'quo''te'"]),
    ("search_path", ["side", "public, side", "'$user', public", "''"]),
    ("statement_timeout", ["'60s'", "0", "120000", "'x'"]),
    ("extra_float_digits", ["0", "3", "1", "99"]),
    ("intervalstyle", ["iso_8601", "'postgres'", "sql_standard", "none"]),
    ("bytea_output", ["escape", "hex", "'hex'", "5"]),
    ("default_transaction_read_only", ["on", "off", "false", "2"]),
    ("no_such_setting", ["1", "2", "3", "4"]),
];

/// What the answers to these look like depends on settings.
const SHOWING: [&str; 6] = [
    "SELECT '2020-02-03 04:05:06+00'::timestamptz",
    "SELECT 0.1::float8 + 0.2, '1 day 2 hours'::interval, '\\xff00'::bytea",
    "SELECT * FROM items ORDER BY id LIMIT 2",
    "SELECT current_schemas(false)",
    "SELECT current_user, session_user",
    "SHOW transaction_read_only",
];

const CURSORS: [&str; 10] = [
    "DECLARE c CURSOR FOR SELECT id FROM items WHERE id < 13 ORDER BY id",
    "DECLARE d SCROLL CURSOR FOR SELECT generate_series(1, 9)",
    "FETCH 2 FROM c",
    "FETCH ALL FROM d",
    "FETCH BACKWARD 2 FROM d",
    "MOVE 1 FROM c",
    "CLOSE c",
    "CLOSE d",
    "SELECT name, is_holdable, is_scrollable FROM pg_cursors ORDER BY name",
    "FETCH no_such_cursor",
];

const PREPARE: [&str; 25] = [
    "PREPARE q AS SELECT 1, 'prepared'",
    "PREPARE r (int) AS SELECT $1 + 1",
    "PREPARE q AS SELECT * FROM items ORDER BY id LIMIT 3",
    "EXECUTE q",
    "EXECUTE r(5)",
    "EXECUTE r(1, 2)",
    "DEALLOCATE q",
    "DEALLOCATE r",
    "DEALLOCATE ALL",
    "EXPLAIN (COSTS OFF) EXECUTE r(2)",
    "EXECUTE q",
    "EXECUTE r(7)",
    "PREPARE s AS SELECT 'by SQL'",
    "EXECUTE s",
    "EXECUTE t",
    "EXECUTE t(3)",
    "DEALLOCATE s",
    "DEALLOCATE t",
    "PREPARE q AS SELECT 2; EXECUTE q; DEALLOCATE q; EXECUTE q",
    "DEALLOCATE q; PREPARE q AS SELECT 'new'; EXECUTE q",
    "EXECUTE r(1); SELECT 1/0",
    "PREPARE u (int) AS UPDATE items SET n = n + $1 WHERE id = @ RETURNING n",
    "EXECUTE u(4)",
    "BEGIN; PREPARE q AS SELECT 'in a block'; ROLLBACK",
    "CREATE TEMP TABLE scratch AS EXECUTE q",
];

const TEMPORARY: [&str; 10] = [
    "CREATE TEMP TABLE scratch (x int)",
    "CREATE TEMP TABLE scratch (x int) ON COMMIT DROP",
    "CREATE TEMP TABLE scratch (y text) ON COMMIT DELETE ROWS",
    "CREATE TEMP TABLE IF NOT EXISTS scratch AS SELECT 1 AS x",
    "INSERT INTO scratch VALUES (1), (2)",
    "SELECT * FROM scratch",
    "DROP TABLE scratch",
    "DROP TABLE IF EXISTS scratch",
    "CREATE TEMP VIEW peek AS SELECT id FROM items WHERE id < 3",
    "SELECT * FROM peek ORDER BY id",
];

const LOCKS: [&str; 9] = [
    "SELECT pg_try_advisory_lock(1)",
    "SELECT pg_try_advisory_lock(2), pg_try_advisory_lock(3)",
    "SELECT pg_try_advisory_lock_shared(1)",
    "SELECT pg_advisory_unlock(1)",
    "SELECT pg_advisory_unlock(2)",
    "SELECT pg_advisory_unlock_shared(1)",
    "SELECT pg_advisory_unlock_all()",
    "SELECT pg_try_advisory_xact_lock(2)",
    "SELECT pg_try_advisory_xact_lock_shared(1)",
];

const SEQUENCES: [&str; 9] = [
    "SELECT nextval('numbers')",
    "SELECT nextval('others'), nextval('numbers')",
    "SELECT currval('numbers')",
    "SELECT currval('others')",
    "SELECT lastval()",
    "SELECT setval('numbers', 40)",
    "INSERT INTO serials (word) VALUES ('new') RETURNING id",
    "INSERT INTO serials (word) VALUES ('new')",
    "SELECT last_value, is_called FROM numbers",
];

const HOLD: [&str; 6] = [
    "DECLARE h CURSOR WITH HOLD FOR SELECT id FROM items WHERE id < 13 ORDER BY id",
    "DECLARE h SCROLL CURSOR WITH HOLD FOR SELECT generate_series(1, 4)",
    "FETCH 2 FROM h",
    "CLOSE h",
    "CLOSE ALL",
    "SELECT name, is_holdable FROM pg_cursors ORDER BY name",
];

const DISCARD: [&str; 9] = [
    "DISCARD ALL",
    "DISCARD ALL",
    "DISCARD PLANS",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
    "RESET ALL",
    "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
    "UNLISTEN *",
    "DEALLOCATE ALL",
];

/// Each client has a table of its own.
const DDL: [&str; 8] = [
    "CREATE TABLE own_# (a int)",
    "ALTER TABLE own_# ADD b text DEFAULT 'b'",
    "ALTER TABLE own_# DROP COLUMN b",
    "DROP TABLE own_#",
    "INSERT INTO own_# VALUES (1)",
    "SELECT * FROM own_#",
    "DROP TABLE IF EXISTS own_#; CREATE TABLE own_# (a int, c int)",
    "COMMENT ON TABLE own_# IS 'mine'",
];

/// A setting that a server once had is empty on it for ever, instead of absent: the two are not told apart.
const CUSTOM: [&str; 6] = [
    "SET my.tenant = 'first'",
    "SET LOCAL my.tenant = 'second'",
    "SELECT set_config('my.tenant', '#', false)",
    "SELECT coalesce(current_setting('my.tenant', true), '')",
    "SELECT coalesce(nullif(current_setting('my.tenant', true), ''), 'nobody')",
    "RESET my.tenant",
];

const ROLES: [&str; 7] = [
    "SET ROLE diff_role",
    "SET ROLE NONE",
    "RESET ROLE",
    "SET SESSION AUTHORIZATION DEFAULT",
    "SELECT current_user, session_user",
    "SET ROLE no_such_role",
    "SET LOCAL ROLE diff_role",
];

impl Words<'_> {
    /// A text that has to do with `group`.
    pub fn text(&mut self, group: Group) -> String {
        let text = match group {
            Group::Blocks => self.random.pick(&BLOCKS),
            Group::Savepoints => self.random.pick(&SAVEPOINTS),
            Group::Local => return self.local(),
            Group::Settings => return self.setting(),
            Group::Cursors => self.random.pick(&CURSORS),
            Group::Prepare => self.random.pick(&PREPARE),
            Group::Temporary => self.random.pick(&TEMPORARY),
            Group::Locks => self.random.pick(&LOCKS),
            Group::Sequences => self.random.pick(&SEQUENCES),
            Group::Hold => self.random.pick(&HOLD),
            Group::Discard => self.random.pick(&DISCARD),
            Group::Ddl => self.random.pick(&DDL),
            Group::Role => self.random.pick(&ROLES),
            Group::Custom => self.random.pick(&CUSTOM),
            _ if self.random.chance(30) => self.random.pick(&WRITES),
            _ => self.random.pick(&QUERIES),
        };
        self.own(text)
    }

    fn own(&self, text: &str) -> String {
        let first = (u32::from(self.client.0) - u32::from('a') + 1) * 100;
        text.replace('@', &first.to_string()).replace('#', &self.client.0.to_string())
    }

    fn local(&mut self) -> String {
        let (name, values) = self.random.pick(&SETTINGS);
        match self.random.below(6) {
            0 | 1 => format!("SET LOCAL {name} = {}", self.random.pick(&values)),
            2 | 3 => format!("SHOW {name}"),
            4 => format!("BEGIN; SET LOCAL {name} TO {}; SHOW {name}; COMMIT", values[0]),
            _ => self.random.pick(&SHOWING).to_string(),
        }
    }

    fn setting(&mut self) -> String {
        let (name, values) = self.random.pick(&SETTINGS);
        let value = self.random.pick(&values);
        let quoted = format!("'{}'", value.trim_matches('\''));
        match self.random.below(12) {
            0..=3 => format!("SET {name} = {value}"),
            4 => format!("SET SESSION {name} TO {value}"),
            5 => format!("RESET {name}"),
            6 => format!("SET {name} TO DEFAULT"),
            7 => format!("SELECT set_config('{name}', {quoted}, false)"),
            8 => format!("SELECT set_config('{name}', {quoted}, true)"),
            9 => format!("SHOW {name}"),
            10 => self.random.pick(&SHOWING).to_string(),
            _ => self
                .random
                .pick(&[
                    "SET TIME ZONE 'Europe/Berlin'",
                    "SET TIME ZONE LOCAL",
                    "SET NAMES 'UTF8'",
                    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
                    "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
                    "RESET ALL",
                    "DO $$ BEGIN SET work_mem = '11MB'; END $$",
                    "SET work_mem = '6MB'; SELECT 1/0",
                    "SET work_mem = '6MB'; SHOW work_mem; SET timezone = 'Asia/Kolkata'",
                ])
                .to_string(),
        }
    }

    /// A text with parameters, and values for them which mostly fit.
    pub fn parameterised(&mut self) -> (String, Vec<Option<String>>) {
        let (text, count) = self.random.pick(&[
            ("SELECT $1::int + 1", 1),
            ("SELECT $1::text || $2", 2),
            ("SELECT id, note FROM items WHERE id = $1", 1),
            ("SELECT * FROM items WHERE id < $1 ORDER BY id LIMIT 5", 1),
            ("UPDATE items SET n = $1 WHERE id = @", 1),
            ("INSERT INTO items VALUES (@ + 6, 'own', $1)", 1),
            ("SELECT 'no parameters'", 0),
            ("SELECT 100 / $1::int", 1),
            ("SELECT no_such_column", 0),
            ("BEGIN", 0),
            ("COMMIT", 0),
            ("SHOW work_mem", 0),
            ("", 0),
            ("SELECT 1; SELECT 2", 0),
        ]);
        let count = if self.random.chance(6) { 1 - usize::min(count, 1) } else { count };
        let values = (0..count)
            .map(|_| match self.random.below(10) {
                0 => None,
                1 => Some("word".to_owned()),
                2 => Some("0".to_owned()),
                other => Some(other.to_string()),
            })
            .collect();
        (self.own(text), values)
    }
}

/// Startup parameters of a client.
pub fn startup(random: &mut Random, client: Client, list: &mut Vec<(Client, String, String)>) {
    let mut add = |name: &str, value: &str| list.push((client, name.to_owned(), value.to_owned()));
    if random.chance(30) {
        add("application_name", random.pick(&["first", "second client", "", "quo'te"]));
    }
    if random.chance(20) {
        add("timezone", random.pick(&["Asia/Tokyo", "America/New_York", "utc"]));
    }
    if random.chance(20) {
        add("datestyle", random.pick(&["German, DMY", "ISO, YMD"]));
    }
    if random.chance(15) {
        add("client_encoding", random.pick(&["UTF8", "LATIN1"]));
    }
    if random.chance(15) {
        add("search_path", random.pick(&["side", "public, side", "\"a b\", public"]));
    }
    if random.chance(25) {
        add(
            "options",
            random.pick(&[
                "-c work_mem=5MB",
                "-c statement_timeout=60s -cgeqo=off",
                "--extra-float-digits=3 -c lock_timeout=70s",
                "-c search_path=side,\\ public -c intervalstyle=iso_8601",
                "-c default_transaction_read_only=on",
            ]),
        );
    }
}
