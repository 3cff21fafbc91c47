//! What others know at the moment of a scrape: plain numbers, without a lock or a reference.

use std::collections::BTreeMap;
use std::time::Duration;

/// The state of all pools and of what is not counted on the data path.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolSnapshot {
    /// One row per pool, in any order. Rows of the same database and user are added up.
    pub rows: Vec<PoolRow>,
    /// The budget: most server connections over all pools.
    pub max_database_connections_allowed: u64,
    /// Share of time in which the target was available, 0 to 100.
    pub availability_percentage: f64,
    /// How often the target was asked whether it is there.
    pub probes: u64,
    /// How often it answered.
    pub probes_answered: u64,
    /// How the secrets are doing.
    pub secrets: SecretNumbers,
    /// Whether the target took writes when it was asked last.
    pub target_writable: bool,
    /// The fleet, for a member of one.
    pub fleet: Option<FleetNumbers>,
}

/// What a member of a fleet knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetNumbers {
    /// Members that it sees, itself included.
    pub tasks: u32,
    /// Connections of the fleet's budget that it may have, its control connection included.
    pub share: u32,
}

/// How the secrets are doing. Each counts once, as fresh, stale or disabled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretNumbers {
    /// The last read went well.
    pub fresh: u64,
    /// The last read failed; the last good value is in use.
    pub stale: u64,
    /// Cannot be used: its user cannot log in.
    pub disabled: u64,
    /// Those with a problem, by the kind of it; kinds come from an enum.
    pub problems: BTreeMap<&'static str, u64>,
    /// Time since the secret that was read longest ago was read; `None` before the first.
    pub oldest_age: Option<Duration>,
}

/// One pool: the servers of one user in one database, and the clients that wait for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolRow {
    /// Name of the database.
    pub database: String,
    /// Name of the database user.
    pub user: String,
    /// Servers that nobody uses.
    pub idle: u64,
    /// Servers lent for a transaction.
    pub borrowed: u64,
    /// Servers that belong to a pinned client.
    pub pinned: u64,
    /// Servers that are being connected.
    pub opening: u64,
    /// Servers that are being cleaned or closed.
    pub closing: u64,
    /// Clients that wait for a server.
    pub waiting: u64,
}

/// Numbers of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) idle: u64,
    pub(super) borrowed: u64,
    pub(super) pinned: u64,
    pub(super) opening: u64,
    pub(super) closing: u64,
    pub(super) waiting: u64,
}

impl Numbers {
    fn add(&mut self, more: Self) {
        self.idle += more.idle;
        self.borrowed += more.borrowed;
        self.pinned += more.pinned;
        self.opening += more.opening;
        self.closing += more.closing;
        self.waiting += more.waiting;
    }

    fn busyness(&self) -> u64 {
        self.idle + self.borrowed + self.pinned + self.opening + self.closing + self.waiting
    }
}

/// Most rows that are shown. Clients choose the database's name, so the number of pools is theirs.
const ROWS_MAX: usize = 200;

/// Under this name the rows are summed that are not shown.
const OTHER: &str = "other";

/// Most bytes of a name that are shown; PostgreSQL's own names end at 63.
const NAME_MAX: usize = 128;

/// Rows by database and user, no two of them equal, the quietest of too many summed up.
pub(super) type Rows<'a> = BTreeMap<(&'a str, &'a str), Numbers>;

/// The rows to show, and the sum of all.
pub(super) fn bounded(rows: &[PoolRow]) -> (Rows<'_>, Numbers) {
    let mut sum = Numbers::default();
    let mut distinct = Rows::new();
    for row in rows {
        let numbers = Numbers {
            idle: row.idle,
            borrowed: row.borrowed,
            pinned: row.pinned,
            opening: row.opening,
            closing: row.closing,
            waiting: row.waiting,
        };
        sum.add(numbers);
        let key = (shown(&row.database), shown(&row.user));
        distinct.entry(key).or_default().add(numbers);
    }
    if distinct.len() <= ROWS_MAX {
        return (distinct, sum);
    }
    let mut by_busyness: Vec<_> = distinct.into_iter().collect();
    // The sort is stable: among equals the order by name stays, and no row flickers.
    by_busyness.sort_by_key(|(_, numbers)| std::cmp::Reverse(numbers.busyness()));
    let rest = by_busyness.split_off(ROWS_MAX);
    let mut kept: Rows<'_> = by_busyness.into_iter().collect();
    let other = kept.entry((OTHER, OTHER)).or_default();
    for (_, numbers) in rest {
        other.add(numbers);
    }
    (kept, sum)
}

fn shown(name: &str) -> &str {
    let mut end = name.len().min(NAME_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(database: &str, idle: u64) -> PoolRow {
        PoolRow { database: database.into(), user: "app".into(), idle, ..PoolRow::default() }
    }

    #[test]
    fn rows_of_the_same_pool_are_added_up() {
        let rows = [row("a", 1), row("b", 2), row("a", 3)];
        let (shown, sum) = bounded(&rows);
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[&("a", "app")].idle, 4);
        assert_eq!(sum.idle, 6);
    }

    #[test]
    fn beyond_the_bound_the_busiest_are_shown_and_the_rest_is_summed() {
        let rows: Vec<_> = (0..1000).map(|n| row(&format!("db{n:04}"), n)).collect();
        let (shown, sum) = bounded(&rows);
        assert_eq!(shown.len(), ROWS_MAX + 1);
        assert_eq!(shown[&("db0999", "app")].idle, 999);
        assert!(!shown.contains_key(&("db0799", "app")));
        assert_eq!(shown[&(OTHER, OTHER)].idle, (0..800).sum::<u64>());
        assert_eq!(shown.values().map(|numbers| numbers.idle).sum::<u64>(), sum.idle);
    }

    #[test]
    fn a_pool_that_is_really_called_other_is_not_shown_twice() {
        let mut rows: Vec<_> = (0..ROWS_MAX as u64).map(|n| row(&n.to_string(), 1)).collect();
        let named = PoolRow { user: OTHER.into(), ..row(OTHER, 50) };
        rows.push(named);
        let (shown, _) = bounded(&rows);
        assert_eq!(shown.len(), ROWS_MAX);
        assert_eq!(shown[&(OTHER, OTHER)].idle, 51);
    }

    #[test]
    fn names_are_cut_at_a_character() {
        let long = "é".repeat(100);
        assert_eq!(shown(&long).len(), NAME_MAX);
        let odd = format!("x{long}");
        assert_eq!(shown(&odd).len(), NAME_MAX - 1);
    }
}
