//! Random scripts: sessions of several clients that do a bit of everything, from the groups that are on.

use super::random::Random;
use super::script::{Client, Item, LARGE, Script, Step};
use super::vocabulary::{self as words, Words};

/// What scripts may have in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Statements that leave nothing behind, alone or several in one query, failing ones among them.
    Queries,
    /// Transaction blocks.
    Blocks,
    Savepoints,
    /// `SET LOCAL` and what shows settings.
    Local,
    /// Settings given at connect.
    Startup,
    /// Statements of the extended protocol, in pipelines.
    Statements,
    /// Portals that are read in parts.
    Portals,
    Copy,
    /// Cursors inside a transaction.
    Cursors,
    /// Settings of the session.
    Settings,
    /// `PREPARE`, `EXECUTE`, `DEALLOCATE`.
    Prepare,
    Temporary,
    /// Session-level advisory locks.
    Locks,
    /// `nextval`, `currval` and the like.
    Sequences,
    /// Cursors that outlive their transaction.
    Hold,
    /// `DISCARD` and reset queries of drivers.
    Discard,
    /// Clients that go and come.
    Leaving,
    /// Tables that change under prepared statements.
    Ddl,
    Role,
    /// Settings that PostgreSQL does not know.
    Custom,
    /// `LISTEN`, `NOTIFY`, `UNLISTEN`.
    Listen,
}

impl Group {
    pub const ALL: [(&'static str, Self); 21] = [
        ("queries", Self::Queries),
        ("blocks", Self::Blocks),
        ("savepoints", Self::Savepoints),
        ("local", Self::Local),
        ("startup", Self::Startup),
        ("statements", Self::Statements),
        ("portals", Self::Portals),
        ("copy", Self::Copy),
        ("cursors", Self::Cursors),
        ("settings", Self::Settings),
        ("prepare", Self::Prepare),
        ("temporary", Self::Temporary),
        ("locks", Self::Locks),
        ("sequences", Self::Sequences),
        ("hold", Self::Hold),
        ("discard", Self::Discard),
        ("leaving", Self::Leaving),
        ("ddl", Self::Ddl),
        ("role", Self::Role),
        ("custom", Self::Custom),
        ("listen", Self::Listen),
    ];

    /// The group of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, group)| *group)
    }

    /// Groups of which a client may keep its server: not in every script, or nothing would be shared.
    fn is_rare(self) -> bool {
        matches!(
            self,
            Self::Settings
                | Self::Temporary
                | Self::Locks
                | Self::Sequences
                | Self::Hold
                | Self::Ddl
                | Self::Role
                | Self::Custom
                | Self::Listen
        )
    }
}

/// Makes the script of this seed.
pub fn generate(seed: u64, groups: &[Group]) -> Script {
    let mut random = Random::new(seed);
    let groups: Vec<Group> =
        groups.iter().copied().filter(|group| !group.is_rare() || random.chance(25)).collect();
    let clients: Vec<Client> =
        ['a', 'b', 'c', 'd'][..2 + random.below(3)].iter().map(|&letter| Client(letter)).collect();
    let mut script = Script::default();
    if groups.contains(&Group::Startup) {
        for client in &clients {
            words::startup(&mut random, *client, &mut script.startup);
        }
    }
    let length = 8 + random.below(50);
    let mut current = clients[0];
    for _ in 0..length {
        // Some go on for a while, others take turns.
        if random.chance(60) {
            current = random.pick(&clients);
        }
        let step = Words { random: &mut random, client: current }.step(&groups);
        script.steps.push((current, step));
    }
    script
}

impl Words<'_> {
    fn step(&mut self, groups: &[Group]) -> Step {
        let group = self.random.pick(groups);
        match group {
            Group::Leaving if self.random.chance(30) => {
                return if self.random.chance(50) { Step::Quit } else { Step::Vanish };
            }
            Group::Statements => return Step::Send(self.pipeline(groups)),
            Group::Portals => return Step::Send(self.portal()),
            Group::Copy => return Step::Send(self.copy()),
            _ => {}
        }
        let mut sql = self.text(group);
        if group == Group::Queries && self.random.chance(6) {
            sql = format!("{sql} {LARGE}");
        }
        if self.random.chance(75) {
            return Step::Send(vec![Item::Query(sql)]);
        }
        Step::Send(self.at_once(sql))
    }

    /// A text of `group` as a query of the extended protocol.
    fn at_once(&mut self, sql: String) -> Vec<Item> {
        let describe = self.random.chance(70);
        let mut items = vec![
            Item::Parse { name: String::new(), sql },
            Item::Bind { portal: String::new(), statement: String::new(), values: Vec::new() },
        ];
        if describe {
            items.push(Item::Describe { kind: 'P', name: String::new() });
        }
        items.push(Item::Execute { portal: String::new(), rows: 0 });
        items.push(Item::Sync);
        items
    }

    /// Several batches of the extended protocol, and queries between them, sent at once.
    fn pipeline(&mut self, groups: &[Group]) -> Vec<Item> {
        let mut items = Vec::new();
        for _ in 0..=self.random.below(2) {
            for _ in 0..=self.random.below(4) {
                self.messages(&mut items, groups.contains(&Group::Prepare));
            }
            if self.random.chance(15) {
                items.push(Item::Flush);
            }
            if self.random.chance(20) {
                let group = self.random.pick(groups);
                items.push(Item::Query(self.text(group)));
            }
            if self.random.chance(90) {
                items.push(Item::Sync);
            }
        }
        if !items.last().is_some_and(Item::is_answered) {
            items.push(Item::Flush);
        }
        items
    }

    /// A few messages about one statement, in an order that may make no sense.
    fn messages(&mut self, items: &mut Vec<Item>, prepares: bool) {
        let mut statement = self.random.pick(&["", "", "s", "t", "u"]).to_string();
        if prepares && self.random.chance(20) {
            statement = self.random.pick(&["q", "r"]).to_string();
        }
        let portal = self.random.pick(&["", "", "", "p"]).to_string();
        let (mut sql, values) = self.parameterised();
        if statement.is_empty() && self.random.chance(4) {
            sql = format!("{sql} {LARGE}");
        }
        if self.random.chance(55) {
            if self.random.chance(40) && !statement.is_empty() {
                items.push(Item::Close { kind: 'S', name: statement.clone() });
            }
            items.push(Item::Parse { name: statement.clone(), sql });
        }
        if self.random.chance(20) {
            items.push(Item::Describe { kind: 'S', name: statement.clone() });
        }
        if self.random.chance(80) {
            items.push(Item::Bind { portal: portal.clone(), statement: statement.clone(), values });
            if self.random.chance(40) {
                items.push(Item::Describe { kind: 'P', name: portal.clone() });
            }
            let rows = u32::from(self.random.chance(15));
            items.push(Item::Execute { portal: portal.clone(), rows });
        }
        if self.random.chance(10) {
            items.push(Item::Close { kind: 'P', name: portal });
        }
        if self.random.chance(8) {
            items.push(Item::Close { kind: 'S', name: statement });
        }
    }

    /// Something about a portal, most of which makes sense inside a transaction only.
    fn portal(&mut self) -> Vec<Item> {
        let name = self.random.pick(&["p", "q", ""]).to_string();
        let rows = u32::try_from(self.random.below(4)).unwrap();
        let mut items = Vec::new();
        match self.random.below(4) {
            0 => {
                let sql = self.random.pick(&words::MANY_ROWS).to_string();
                items.push(Item::Parse { name: String::new(), sql });
                items.push(Item::Bind {
                    portal: name.clone(),
                    statement: String::new(),
                    values: Vec::new(),
                });
                items.push(Item::Execute { portal: name, rows });
            }
            1 => items.push(Item::Describe { kind: 'P', name }),
            2 => items.push(Item::Close { kind: 'P', name }),
            _ => items.push(Item::Execute { portal: name, rows }),
        }
        if self.random.chance(20) {
            items.push(Item::Flush);
        }
        items.push(Item::Sync);
        items
    }

    fn copy(&mut self) -> Vec<Item> {
        let extended = self.random.chance(50);
        if self.random.chance(40) {
            let sql = self.random.pick(&words::COPY_OUT).to_string();
            return if extended { self.at_once(sql) } else { vec![Item::Query(sql)] };
        }
        let sql = self.random.pick(&words::COPY_IN).to_string();
        let lines = (0..self.random.below(4))
            .map(|_| self.random.pick(&words::COPY_LINES).to_string())
            .collect();
        let fails = self.random.chance(15);
        let mut items = vec![Item::Copy { extended, sql, lines, fails }];
        if extended {
            items.push(Item::Sync);
        }
        items
    }
}
