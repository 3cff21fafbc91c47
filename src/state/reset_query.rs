//! The reset queries of drivers and connection pools, answered from the virtual session.
//!
//! A client that holds no server has left nothing on any: what `DISCARD ALL` or asyncpg's
//! `SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;` would take back is here, and
//! PostgreSQL's answer is known beforehand. Where one byte of it is not, a server is asked.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-discard.html>,
//! <https://www.postgresql.org/docs/current/sql-reset.html>

use super::defaults::Reports;
use super::memo;
use super::prepared::{Tail, Token, Unnamed};
use super::reset_batch::Batch;
use super::session::{Requests, Session, Translated};
use super::settings::Settings;
use crate::wire::{BackendTag, FrontendTag, encode};
use std::sync::Arc;

/// Where the last byte of a frame's length stands: the others are zero, as the text is short.
const LENGTH_AT: usize = 4;

/// Description of the row of `SELECT pg_advisory_unlock_all()`, which is of type void.
const VOID_COLUMN: &[u8] =
    b"T\0\0\0\x2f\0\x01pg_advisory_unlock_all\0\0\0\0\0\0\0\0\0\x08\xe6\0\x04\xff\xff\xff\xff\0\0";

/// The row, which is the same in both formats.
const VOID_ROW: &[u8] = b"D\0\0\0\x0a\0\x01\0\0\0\0";

/// A statement that takes back state of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    DiscardAll,
    DiscardSequences,
    ResetAll,
    DeallocateAll,
    UnlockAll,
    /// `UNLISTEN *` by a client that listens to nothing, `CLOSE ALL` of no cursors and the like:
    /// there is nothing to take back.
    Nothing(&'static [u8]),
}

impl Part {
    const KNOWN: [(&'static str, Self); 13] = [
        ("discard all", Self::DiscardAll),
        ("reset all", Self::ResetAll),
        ("deallocate all", Self::DeallocateAll),
        ("select pg_advisory_unlock_all()", Self::UnlockAll),
        ("select pg_catalog.pg_advisory_unlock_all()", Self::UnlockAll),
        ("unlisten *", Self::Nothing(b"UNLISTEN")),
        ("close all", Self::Nothing(b"CLOSE CURSOR ALL")),
        ("discard temp", Self::Nothing(b"DISCARD TEMP")),
        ("discard sequences", Self::DiscardSequences),
        ("discard plans", Self::Nothing(b"DISCARD PLANS")),
        ("set session authorization default", Self::Nothing(b"SET")),
        ("reset session authorization", Self::Nothing(b"RESET")),
        ("reset role", Self::Nothing(b"RESET")),
    ];

    /// What `statement`, which stands between semicolons, is.
    fn of(statement: &[u8]) -> Option<Self> {
        let is = |known: &str| {
            let mut words = statement.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
            let mut same = |known: &str| {
                words.next().is_some_and(|word| word.eq_ignore_ascii_case(known.as_bytes()))
            };
            known.split(' ').all(&mut same) && words.next().is_none()
        };
        Self::KNOWN.iter().find(|(known, _)| is(known)).map(|(_, part)| *part)
    }

    /// Describes the rows, if there are any.
    fn columns(self) -> Option<&'static [u8]> {
        (self == Self::UnlockAll).then_some(VOID_COLUMN)
    }

    /// Answers its execution.
    fn answer(self, out: &mut Vec<u8>) {
        let tag: &[u8] = match self {
            Self::DiscardAll => b"DISCARD ALL",
            Self::DiscardSequences => b"DISCARD SEQUENCES",
            Self::ResetAll => b"RESET",
            Self::DeallocateAll => b"DEALLOCATE ALL",
            Self::UnlockAll => {
                out.extend_from_slice(VOID_ROW);
                b"SELECT 1"
            }
            Self::Nothing(tag) => tag,
        };
        encode::message(out, BackendTag::COMMAND_COMPLETE.0, |out| encode::cstr(out, tag));
    }
}

/// Whether the first message of `input` is perhaps a reset query. Ordinary statements pay for no more
/// than this.
#[inline]
#[must_use]
pub fn may_be_first(input: &[u8]) -> bool {
    let [tag, 0, 0, 0, _, text @ ..] = input else { return false };
    let ((FrontendTag::QUERY, [first, rest @ ..]) | (FrontendTag::PARSE, [0, first, rest @ ..])) =
        (FrontendTag(*tag), text)
    else {
        return false;
    };
    let begins = |with: &[u8]| rest.get(..with.len()).is_some_and(|r| r.eq_ignore_ascii_case(with));
    match first | 0x20 {
        b'd' => begins(b"iscard") || begins(b"eallocate"),
        b'r' => begins(b"eset"),
        b'u' => begins(b"nlisten"),
        b'c' => begins(b"lose"),
        b's' => begins(b"elect pg_") || begins(b"et session auth"),
        _ => false,
    }
}

fn split(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let statements = text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    statements.filter(|statement| !statement.is_empty())
}

/// The statements of the reset query `text`, if all of them are known.
pub(super) fn statements_of(text: &[u8]) -> Option<Vec<&[u8]>> {
    split(text).map(|statement| Part::of(statement).map(|_| statement)).collect()
}

/// A reset query, and how many bytes it is long.
struct Reset<'a> {
    parts: Vec<Part>,
    len: usize,
    /// Its messages, if it is of the extended protocol.
    batch: Option<Batch<'a>>,
}

/// Reads the reset query that `input` begins with, if all of its statements are known without exception.
fn read(input: &[u8]) -> Option<Reset<'_>> {
    if input.first() == Some(&FrontendTag::PARSE.0) {
        let batch = Batch::read(input)?;
        let parts = parts_of(batch.parse.query)?;
        // Several are refused.
        let [part] = parts[..] else { return None };
        let ends = part.columns().is_none() || batch.ends_after_a_row();
        return ends.then_some(Reset { parts, len: batch.len, batch: Some(batch) });
    }
    let len = 1 + usize::from(*input.get(LENGTH_AT)?);
    let text = input.get(LENGTH_AT + 1..len)?.strip_suffix(b"\0")?;
    Some(Reset { parts: parts_of(text)?, len, batch: None })
}

fn parts_of(text: &[u8]) -> Option<Vec<Part>> {
    let parts: Vec<Part> = split(text).map(Part::of).collect::<Option<_>>()?;
    // It cannot run with others.
    let alone = parts.len() == 1 || !parts.contains(&Part::DiscardAll);
    (alone && !parts.is_empty()).then_some(parts)
}

/// Name and value of a setting, as it is reported.
type Told = (Box<str>, Box<str>);

/// What a server would say cannot be told.
struct Unclear;

impl Session {
    /// Answers the reset query that `input` begins with, in the place of a server. `None` if it is none, or if its
    /// answer is not known for certain: nothing was done then.
    ///
    /// The client holds no server. `reported` is what the settings of its startup are reported as.
    pub fn answer_reset(
        &mut self,
        input: &[u8],
        reported: impl FnOnce(&Settings) -> Option<Reports>,
        out: &mut Vec<u8>,
    ) -> Option<Translated> {
        let Reset { parts, len, batch } = read(input)?;
        // Which of these takes back whom the session acts as, and to what, is left to PostgreSQL.
        let acts = self.settings.identity().next().is_some();
        if self.keeps_server() || self.is_streaming() || self.channels.is_in_use() || acts {
            return None;
        }
        let resets = parts.iter().any(|part| matches!(part, Part::ResetAll | Part::DiscardAll))
            && self.settings != self.startup;
        let told = if resets { self.told_after_reset(reported).ok()? } else { None };
        for part in parts {
            match &batch {
                Some(batch) => batch.answer(part.columns(), out),
                None => out.extend_from_slice(part.columns().unwrap_or_default()),
            }
            part.answer(out);
            match part {
                Part::DiscardAll => self.deallocated_all(true),
                Part::DiscardSequences => self.sequences.forget(),
                Part::DeallocateAll => self.deallocated_all(false),
                Part::ResetAll => self.settings = Arc::clone(&self.startup),
                Part::UnlockAll | Part::Nothing(_) => {}
            }
        }
        if let Some((name, value)) = told {
            encode::parameter_status(out, &name, &value);
            self.note_told(&name, &value);
        }
        // The client was told nothing that is not so.
        self.retell = false;
        out.extend_from_slice(&encode::READY_IDLE);
        let extended = u32::from(batch.is_some());
        self.unnamed = batch.map(|batch| Box::new(self.unnamed_of(&batch)));
        let requests = Requests { simple: 1 - extended, extended, prepared: extended };
        Some(Translated { consumed: len, terminate: false, requests })
    }

    /// The unnamed statement that is left of a batch. No server has it.
    fn unnamed_of(&mut self, batch: &Batch<'_>) -> Unnamed {
        self.unnamed_count += 1;
        Unnamed {
            token: Token { client: self.id, count: self.unnamed_count },
            // Reset queries are short.
            tail: Some(Tail::uncounted(batch.parse.tail)),
            effects: memo::effects(batch.parse.query, self.options),
            options: self.options,
        }
    }

    /// The one setting that is reported when all are reset. The order of several is PostgreSQL's own affair.
    fn told_after_reset(
        &self,
        reported: impl FnOnce(&Settings) -> Option<Reports>,
    ) -> Result<Option<Told>, Unclear> {
        let reported = self.reported_at_login(reported).ok_or(Unclear)?;
        let mut told: Option<Told> = None;
        for (name, value) in self.settings.iter() {
            let own_default = self.startup.get(name);
            if own_default == Some(value) {
                continue;
            }
            // What these are reset to depends on whether an extension has defined them; and what
            // changes how texts are read is left to PostgreSQL.
            let unclear = name.contains('.') && own_default.is_none();
            if unclear || matches!(name, "client_encoding" | "standard_conforming_strings") {
                return Err(Unclear);
            }
            let known = reported.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            match known {
                Some((_, reset)) if **reset == *value => {}
                Some(_) if told.is_some() => return Err(Unclear),
                Some((name, reset)) => told = Some((name.clone(), reset.clone())),
                None => {}
            }
        }
        Ok(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<Vec<Part>> {
        let mut query = Vec::new();
        encode::query(&mut query, text);
        may_be_first(&query).then(|| read(&query)).flatten().map(|reset| {
            assert_eq!(reset.len, query.len());
            reset.parts
        })
    }

    #[test]
    fn reset_queries_are_known_however_they_are_written() {
        let asyncpg = "SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;";
        assert_eq!(parts(asyncpg).unwrap().len(), 4);
        for one in ["DISCARD ALL", "discard  all ;", "Discard\nAll;;"] {
            assert_eq!(parts(one), Some(vec![Part::DiscardAll]), "{one}");
        }
        assert_eq!(parts("RESET ALL"), Some(vec![Part::ResetAll]));
    }

    #[test]
    fn nothing_else_is_taken_for_one() {
        let long = format!("RESET ALL{}", " ".repeat(300));
        for other in [
            "",
            ";",
            "SELECT 1",
            "RESET ALL; SELECT 1",
            "RESET ALL; DISCARD ALL",
            "DISCARD ALL -- all",
            "SELECT pg_advisory_unlock_all() FROM t",
            "SELECT \"pg_advisory_unlock_all\"()",
            "RESET work_mem",
            "DEALLOCATE s",
            &long,
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
    }

    #[test]
    fn pieces_and_other_messages_are_no_queries() {
        let mut query = Vec::new();
        encode::query(&mut query, "DISCARD ALL");
        for end in 0..query.len() {
            assert!(read(&query[..end]).is_none());
        }
        for (name, tail) in [
            (&b"discard all"[..], &b"SELECT 1\0\0\0"[..]),
            (b"", b"SELECT 1\0\0\0"),
            (b"", b"UPDATE t SET id = 1\0\0\0"),
            (b"s", b"DISCARD ALL\0\0\0"),
        ] {
            let mut parse = Vec::new();
            encode::parse(&mut parse, name, tail);
            assert!(!may_be_first(&parse));
        }
    }
}
