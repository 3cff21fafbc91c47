//! The answers of a server as lines that can be compared, and which of them are still to come.

use super::script::Item;
use crate::support::messages::Message;
use crate::support::postgres::settle_order;
use crate::support::raw::RawClient;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Turns messages into lines. Two servers that behave alike give the same lines.
#[derive(Clone, Copy, Debug)]
pub struct Describer {
    /// The highest OID that both databases had from the beginning; those above differ by right.
    pub oid_max: u32,
}

impl Describer {
    pub fn line(self, message: &Message) -> String {
        match message.tag {
            b'E' | b'N' => fields(message),
            b'T' => self.row_description(message),
            b't' => {
                let oids: Vec<String> = message.body[2..]
                    .chunks(4)
                    .map(|oid| self.oid(u32::from_be_bytes(oid.try_into().unwrap())))
                    .collect();
                format!("ParameterDescription {}", oids.join(" "))
            }
            b'G' | b'H' => {
                let formats: Vec<String> =
                    message.body.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{} {}", message.line(), formats.join(""))
            }
            b'D' if message.body.len() > LONG => {
                format!(
                    "DataRow of {} bytes, hash {:016x}",
                    message.body.len(),
                    hash(&message.body)
                )
            }
            _ => message.line(),
        }
    }

    /// Everything of a `RowDescription`: name, table, column, type, its size and modifier, format.
    fn row_description(self, message: &Message) -> String {
        let mut line = "RowDescription".to_owned();
        let mut rest = &message.body[2..];
        while let Some(end) = rest.iter().position(|&byte| byte == 0) {
            let name = String::from_utf8_lossy(&rest[..end]);
            let (numbers, behind) = rest[end + 1..].split_at(18);
            let wide = |at: usize| u32::from_be_bytes(numbers[at..at + 4].try_into().unwrap());
            let short = |at: usize| i16::from_be_bytes(numbers[at..at + 2].try_into().unwrap());
            let _ = write!(
                line,
                " {name}({} {} {} {} {} {})",
                self.oid(wide(0)),
                short(4),
                self.oid(wide(6)),
                short(10),
                wide(12),
                short(16)
            );
            rest = behind;
        }
        line
    }

    fn oid(self, oid: u32) -> String {
        if oid > self.oid_max { "new".to_owned() } else { oid.to_string() }
    }
}

/// Longest row, in bytes, that is written out.
const LONG: usize = 500;

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// All that an error or notice says, but for the place in PostgreSQL's own source.
fn fields(message: &Message) -> String {
    let name = if message.tag == b'E' { "ErrorResponse" } else { "NoticeResponse" };
    let mut fields: Vec<String> = message
        .strings()
        .into_iter()
        .filter(|field| !field.starts_with(['F', 'L', 'R', 'S']))
        .map(|field| without_statement_name(&field))
        .collect();
    fields.sort();
    format!("{name} {}", fields.join(" "))
}

/// Channel and payload. Behind pgweir nobody knows the process that notified.
fn notification(message: &Message) -> String {
    let words = String::from_utf8_lossy(&message.body[4..]).replace('\0', " ");
    format!("NotificationResponse {}", words.trim_end())
}

/// Two names of a client for one text cannot be told apart in a server's error: the one thing in an error that is
/// not compared.
fn without_statement_name(field: &str) -> String {
    const BEFORE: &str = "prepared statement \"";
    let Some((before, behind)) = field.split_once(BEFORE) else { return field.to_owned() };
    let (_, behind) = behind.split_once('"').unwrap_or(("", behind));
    format!("{before}{BEFORE}…\"{behind}")
}

/// What ends the answer to one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// One message of these types.
    One(&'static [u8]),
    /// Whatever comes up to `ReadyForQuery`, even when the batch before failed, or not.
    Query,
    Sync,
}

/// The answers that what was sent must bring. Written from the documentation:
/// <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-EXT-QUERY>
#[derive(Debug, Default)]
pub struct Expectation {
    due: VecDeque<Expected>,
    /// An error came, and the `Sync` that ends it was not sent yet.
    skipping: bool,
}

impl Expectation {
    /// These are sent now.
    pub fn push(&mut self, items: &[Item]) {
        for item in items {
            if self.skipping && *item != Item::Sync {
                continue;
            }
            match item {
                Item::Query(_) | Item::Copy { extended: false, .. } => {
                    self.due.push_back(Expected::Query);
                }
                Item::Parse { .. } => self.due.push_back(Expected::One(b"1")),
                Item::Bind { .. } => self.due.push_back(Expected::One(b"2")),
                Item::Describe { .. } => self.due.push_back(Expected::One(b"Tn")),
                Item::Execute { .. } => self.due.push_back(Expected::One(b"CIs")),
                Item::Close { .. } => self.due.push_back(Expected::One(b"3")),
                Item::Sync => {
                    self.skipping = false;
                    self.due.push_back(Expected::Sync);
                }
                Item::Flush => {}
                Item::Copy { extended: true, .. } => {
                    let ends: [&[u8]; 4] = [b"1", b"2", b"C", b"3"];
                    self.due.extend(ends.map(Expected::One));
                }
            }
        }
    }

    /// True if all answers have come.
    pub fn is_met(&self) -> bool {
        self.due.is_empty()
    }

    /// True if the server skips everything up to a `Sync`.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    fn note(&mut self, tag: u8) {
        match self.due.front() {
            Some(Expected::One(_)) if tag == b'E' => {
                // Everything is skipped up to the next Sync, simple queries too.
                while self.due.front().is_some_and(|due| *due != Expected::Sync) {
                    self.due.pop_front();
                }
                self.skipping = self.due.is_empty();
            }
            Some(Expected::One(tags)) if tags.contains(&tag) => {
                self.due.pop_front();
            }
            Some(Expected::Query | Expected::Sync) if tag == b'Z' => {
                self.due.pop_front();
            }
            _ => {}
        }
    }
}

/// What a connection said, and what state it said it is in.
#[derive(Debug, Default)]
pub struct Answers {
    pub lines: Vec<String>,
    /// Notifications, which may come a little earlier or later.
    pub heard: Vec<String>,
    /// Of the last `ReadyForQuery`.
    pub status: Option<char>,
    /// The connection ended.
    pub closed: bool,
}

/// Reads until everything expected has come, or the connection is closed or silent for too long.
pub fn read_answers(
    client: &mut RawClient,
    expectation: &mut Expectation,
    describer: Describer,
) -> Answers {
    let mut answers = Answers::default();
    while !expectation.is_met() {
        match client.try_read_message() {
            Ok(Some(message)) if message.tag == b'A' => answers.heard.push(notification(&message)),
            Ok(Some(message)) => {
                expectation.note(message.tag);
                if message.tag == b'Z' {
                    answers.status = message.body.first().map(|&status| status.into());
                }
                answers.lines.push(describer.line(&message));
            }
            Ok(None) => {
                answers.lines.push("(the connection was closed)".to_owned());
                answers.closed = true;
                return answers;
            }
            Err(error) => {
                answers.lines.push(format!("({}: {:?})", error.kind(), expectation.due));
                answers.closed = true;
                return answers;
            }
        }
    }
    settle_order(&mut answers.lines);
    answers
}
