//! Which clients may keep a server of the pool, so that scripts do not wait for servers that never come free.
//!
//! Says so rather once too often: such a client is made to let go before another needs its server.

use super::script::{Item, Step};

/// What a client may hold its server for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The block that it has open, as of the last answer: `T` or `E`.
    pub block: Option<char>,
    /// It sent something that no `Sync` has ended.
    pub unsynced: bool,
    /// It ran something that may pin.
    pub pinned: bool,
}

impl Holding {
    pub fn may_hold(self) -> bool {
        self.block.is_some() || self.unsynced || self.pinned
    }
}

/// First words of statements that never pin, whatever follows.
const HARMLESS: [&str; 28] = [
    "",
    "ABORT",
    "BEGIN",
    "CLOSE",
    "COMMIT",
    "END",
    "DEALLOCATE",
    "EXPLAIN",
    "FETCH",
    "MOVE",
    "NOTIFY",
    "PREPARE",
    "RELEASE",
    "ROLLBACK",
    "SAVEPOINT",
    "SELECT",
    "SHOW",
    "START",
    "TABLE",
    "VALUES",
    "WITH",
    "DECLARE",
    "COPY",
    "LOCK",
    "LISTEN",
    "UNLISTEN",
    "CHECKPOINT",
    "/*",
];

/// First words of statements that pin if triggers might run.
const WRITES: [&str; 5] = ["INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE"];

/// Words that pin wherever they stand.
const PINNING: [&str; 13] = [
    "/* LARGE */",
    "SET_CONFIG",
    "ADVISORY",
    "NEXTVAL",
    "SETVAL",
    "CURRVAL",
    "LASTVAL",
    "TEMP",
    "HOLD",
    "SETSEED",
    "SERIALS",
    "XML",
    "PG_SETTINGS",
];

/// True if a text may make pgweir keep the server for its client. `ddl_seen`: pgweir may not know any
/// more that the database has no code that leaves something behind.
pub fn may_pin(sql: &str, ddl_seen: bool) -> bool {
    let upper = sql.to_ascii_uppercase();
    if PINNING.iter().any(|word| upper.contains(word)) || upper.matches('\'').count() % 2 == 1 {
        return true;
    }
    upper.split(';').any(|statement| {
        let mut words = statement.split_whitespace();
        let first = words.next().unwrap_or_default().trim_matches('(');
        let second = words.next().unwrap_or_default();
        if first == "SET" {
            return !["LOCAL", "TRANSACTION", "CONSTRAINTS"].contains(&second);
        }
        let writes = WRITES.contains(&first) || is_ddl(first) || statement.contains("COPY");
        let calls = (first == "SELECT" && statement.contains('(')) || statement.contains("EXECUTE");
        if writes || calls { ddl_seen } else { !HARMLESS.contains(&first) }
    })
}

fn is_ddl(first: &str) -> bool {
    ["CREATE", "ALTER", "DROP", "DO", "GRANT", "REVOKE", "COMMENT"].contains(&first)
}

/// True if a step may change the schema: what pgweir knows of the database's code is void then.
pub fn has_ddl(step: &Step) -> bool {
    texts(step).any(|sql| {
        sql.split(';').any(|statement| {
            let first = statement.split_whitespace().next().unwrap_or_default();
            is_ddl(&first.to_ascii_uppercase())
                || statement.to_ascii_uppercase().contains(" INTO TEMP")
        })
    })
}

/// All SQL of a step.
pub fn texts(step: &Step) -> impl Iterator<Item = &str> {
    let items = if let Step::Send(items) = step { items.as_slice() } else { &[] };
    items.iter().filter_map(Item::sql)
}
