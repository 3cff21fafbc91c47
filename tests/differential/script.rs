//! What clients do, as a script that can be read, written and made smaller.
//!
//! One line is one step: what a client sends in one write, up to where it waits for the answers.
//!
//! ```text
//! a with timezone = Asia/Tokyo
//! a: BEGIN
//! b: SELECT 1
//! a: \parse s SELECT $1::int \bind - s 7 \execute - 0 \sync
//! a: \copy COPY lines FROM STDIN (FORMAT csv) \data 1,x \done
//! b: \quit
//! ```
//!
//! A text that ends with `/* large */` is sent with more of the comment than pgweir keeps of a statement.
//!
//! A line without backslashes is a simple query. `-` is the name of what has no name, `NULL` is no value.

use crate::support::messages::frontend;
use std::borrow::Cow;
use std::fmt;

/// Steps of several clients, in the order in which they are done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Startup parameters, by client.
    pub startup: Vec<(Client, String, String)>,
    pub steps: Vec<(Client, Step)>,
}

/// A client by its letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client(pub char);

/// What a client does before it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends these in one write and reads all their answers.
    Send(Vec<Item>),
    /// Says good-bye. The client's next step is a new connection's first.
    Quit,
    /// Closes its socket without a word.
    Vanish,
}

/// One thing that is sent. Any selection of them can be sent, as long as something makes the server answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Query(String),
    Parse {
        name: String,
        sql: String,
    },
    Bind {
        portal: String,
        statement: String,
        values: Vec<Option<String>>,
    },
    Describe {
        kind: char,
        name: String,
    },
    Execute {
        portal: String,
        rows: u32,
    },
    Close {
        kind: char,
        name: String,
    },
    Sync,
    Flush,
    /// A whole `COPY … FROM STDIN`: the command, the lines, and its end, without waiting in between.
    Copy {
        extended: bool,
        sql: String,
        lines: Vec<String>,
        fails: bool,
    },
}

/// Name of the statement and the portal of an extended `COPY`: nobody else runs them.
const COPY_NAME: &str = "copying";

impl Item {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Query(sql) => frontend::query(&whole(sql)),
            Self::Parse { name, sql } => frontend::parse(name, &whole(sql)),
            Self::Bind { portal, statement, values } => {
                let values: Vec<_> = values.iter().map(Option::as_deref).collect();
                frontend::bind(portal, statement, &values)
            }
            Self::Describe { kind, name } => frontend::describe(byte(*kind), name),
            Self::Execute { portal, rows } => frontend::execute(portal, *rows),
            Self::Close { kind, name } => frontend::close(byte(*kind), name),
            Self::Sync => frontend::sync(),
            Self::Flush => frontend::flush(),
            Self::Copy { extended, sql, lines, fails } => {
                let mut bytes = if *extended {
                    [
                        frontend::parse(COPY_NAME, sql),
                        frontend::bind(COPY_NAME, COPY_NAME, &[]),
                        frontend::execute(COPY_NAME, 0),
                    ]
                    .concat()
                } else {
                    frontend::query(sql)
                };
                for line in lines {
                    bytes.extend(frontend::copy_data(format!("{line}\n").as_bytes()));
                }
                bytes.extend(if *fails {
                    frontend::copy_fail("enough")
                } else {
                    frontend::copy_done()
                });
                if *extended {
                    bytes.extend(frontend::close(b'S', COPY_NAME));
                }
                bytes
            }
        }
    }

    /// The text of SQL that it holds.
    pub fn sql(&self) -> Option<&str> {
        match self {
            Self::Query(sql) | Self::Parse { sql, .. } | Self::Copy { sql, .. } => Some(sql),
            _ => None,
        }
    }

    /// True if the server answers it at once, and all that came before it.
    pub fn is_answered(&self) -> bool {
        matches!(
            self,
            Self::Query(_) | Self::Sync | Self::Flush | Self::Copy { extended: false, .. }
        )
    }
}

/// The end of texts that are large.
pub const LARGE: &str = "/* large */";

/// `sql` as it is sent.
fn whole(sql: &str) -> Cow<'_, str> {
    match sql.strip_suffix(LARGE) {
        Some(text) => format!("{text}/*{}*/", "x".repeat(1_100_000)).into(),
        None => sql.into(),
    }
}

fn byte(kind: char) -> u8 {
    u8::try_from(kind).unwrap()
}

impl Script {
    /// Reads a script as it is printed.
    ///
    /// # Panics
    /// With the line that is none.
    pub fn parse(text: &str) -> Self {
        let mut script = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (who, rest) = line.split_once([':', ' ']).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(who.len(), 1, "{line}");
            let client = Client(who.chars().next().unwrap());
            match rest.trim().strip_prefix("with ") {
                Some(parameter) if !line[1..].starts_with(':') => {
                    let (name, value) = parameter.split_once(" = ").unwrap();
                    script.startup.push((client, name.trim().to_owned(), value.to_owned()));
                }
                _ => script.steps.push((client, Step::parse(rest.trim()))),
            }
        }
        script
    }

    /// Its clients, in the order of their first steps.
    pub fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for (client, _) in &self.steps {
            if !clients.contains(client) {
                clients.push(*client);
            }
        }
        clients
    }

    /// Startup parameters of `client`.
    pub fn parameters(&self, client: Client) -> Vec<(&str, &str)> {
        self.startup
            .iter()
            .filter(|(owner, ..)| *owner == client)
            .map(|(_, name, value)| (name.as_str(), value.as_str()))
            .collect()
    }
}

impl Step {
    fn parse(text: &str) -> Self {
        match text {
            "\\quit" => return Self::Quit,
            "\\vanish" => return Self::Vanish,
            _ => {}
        }
        let Some(words) = text.strip_prefix('\\') else {
            return Self::Send(vec![Item::Query(text.to_owned())]);
        };
        let mut items = Vec::new();
        for part in words.split(" \\") {
            let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
            read_part(word, rest, &mut items);
        }
        let step = Self::Send(items);
        assert!(step.is_whole(), "nothing makes the server answer the end of: {text}");
        step
    }

    /// True if the server answers all of it.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Send(items) => items.last().is_some_and(Item::is_answered),
            Self::Quit | Self::Vanish => true,
        }
    }
}

fn read_part(word: &str, rest: &str, items: &mut Vec<Item>) {
    let name = |name: &str| if name == "-" { String::new() } else { name.to_owned() };
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let mut next = || words.next().unwrap_or_else(|| panic!("\\{word} {rest}"));
    let copy =
        |extended| Item::Copy { extended, sql: rest.to_owned(), lines: Vec::new(), fails: false };
    items.push(match word {
        "query" => Item::Query(rest.to_owned()),
        "parse" => {
            let (named, sql) = rest.split_once(' ').unwrap_or((rest, ""));
            Item::Parse { name: name(named), sql: sql.to_owned() }
        }
        "bind" => Item::Bind {
            portal: name(next()),
            statement: name(next()),
            values: words.map(|word| (word != "NULL").then(|| word.to_owned())).collect(),
        },
        "describe" => Item::Describe { kind: next().chars().next().unwrap(), name: name(next()) },
        "execute" => Item::Execute { portal: name(next()), rows: next().parse().unwrap() },
        "close" => Item::Close { kind: next().chars().next().unwrap(), name: name(next()) },
        "sync" => Item::Sync,
        "flush" => Item::Flush,
        "copy" => copy(false),
        "copyx" => copy(true),
        "data" | "fail" | "done" => {
            let Some(Item::Copy { lines, fails, .. }) = items.last_mut() else {
                panic!("\\{word} without \\copy");
            };
            match word {
                "data" => lines.push(rest.to_owned()),
                other => *fails = other == "fail",
            }
            return;
        }
        other => panic!("\\{other} is nothing"),
    });
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (client, name, value) in &self.startup {
            writeln!(f, "{} with {name} = {value}", client.0)?;
        }
        for (client, step) in &self.steps {
            writeln!(f, "{}: {step}", client.0)?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quit => f.write_str("\\quit"),
            Self::Vanish => f.write_str("\\vanish"),
            Self::Send(items) => match items.as_slice() {
                [Item::Query(sql)] if !sql.starts_with('\\') => f.write_str(sql),
                items => {
                    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                    f.write_str(&items.join(" "))
                }
            },
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash = |name: &str| if name.is_empty() { "-".to_owned() } else { name.to_owned() };
        match self {
            Self::Query(sql) => write!(f, "\\query {sql}"),
            Self::Parse { name, sql } => write!(f, "\\parse {} {sql}", or_dash(name)),
            Self::Bind { portal, statement, values } => {
                write!(f, "\\bind {} {}", or_dash(portal), or_dash(statement))?;
                for value in values {
                    write!(f, " {}", value.as_deref().unwrap_or("NULL"))?;
                }
                Ok(())
            }
            Self::Describe { kind, name } => write!(f, "\\describe {kind} {}", or_dash(name)),
            Self::Execute { portal, rows } => write!(f, "\\execute {} {rows}", or_dash(portal)),
            Self::Close { kind, name } => write!(f, "\\close {kind} {}", or_dash(name)),
            Self::Sync => f.write_str("\\sync"),
            Self::Flush => f.write_str("\\flush"),
            Self::Copy { extended, sql, lines, fails } => {
                write!(f, "\\{} {sql}", if *extended { "copyx" } else { "copy" })?;
                for line in lines {
                    write!(f, " \\data {line}")?;
                }
                f.write_str(if *fails { " \\fail" } else { " \\done" })
            }
        }
    }
}
