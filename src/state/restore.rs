//! `RESET`, `SET ... TO DEFAULT` and `DISCARD ALL` of a client that gave settings at its connect, which are its
//! defaults: a server does not know them as such, and so it is told them again behind the reset, in the same batch.
//!
//! The server reports settings when the batch is over, so that the client hears of its own defaults only. A simple
//! query is sent for this in parts, as messages of the extended protocol: one that is a reset alone, and the reset
//! queries of drivers. What else resets (a text of several statements, a function) is put right behind its transaction.
//!
//! Sources: <https://www.postgresql.org/docs/current/sql-reset.html>,
//! <https://www.postgresql.org/docs/current/sql-set.html>

use super::aside;
use super::naming::{Destination, nudge};
use super::pipeline::{Expected, Fate, Undo};
use super::reset_query;
use super::server_side::{ServerSide, ServerUnnamed};
use super::session::Session;
use super::settings::{ROLE, SESSION_AUTHORIZATION, quoted};
use super::sql::words::is_keyword;
use super::statement::{self, Command, Effects, Options, Statement};
use crate::wire::{FrontendTag, encode};
use std::fmt::Write as _;

/// What may put settings back to their defaults.
pub(super) const RESETS: Effects = Effects::SET_SESSION
    .and(Effects::SET_LOCAL)
    .and(Effects::SET_ROLE)
    .and(Effects::SET_SESSION_AUTHORIZATION)
    .and(Effects::RESET_ALL)
    .and(Effects::DISCARD_ALL);

/// Settings that SET reads as lists of identifiers, unlike `set_config`.
///
/// Source: `GUC_LIST_QUOTE` in `src/backend/utils/misc/guc_tables.c`
const LISTS: [&str; 4] =
    ["local_preload_libraries", "search_path", "session_preload_libraries", "temp_tablespaces"];

/// Most portals that are bound to a reset and may be executed later.
const BOUND_MAX: usize = 16;

/// What a server is told behind a reset.
pub(super) struct Restore {
    settings: Vec<(Box<str>, Box<str>)>,
    /// For the transaction only.
    local: bool,
    /// It follows a `DISCARD ALL`.
    discards: bool,
}

/// Portals that are bound to resets.
pub(super) type Restores = Vec<(Box<[u8]>, Restore)>;

impl Session {
    /// What follows the reset `text`, which is one statement.
    fn restore_of(&self, text: &[u8]) -> Option<Restore> {
        let mut statements = statement::statements(text, self.options);
        let statement = statements.next()?;
        if statements.next().is_some() || statement.effects().intersects(Effects::UNCERTAIN) {
            return None;
        }
        let discards = statement.effects().intersects(Effects::DISCARD_ALL);
        let only = match statement.command() {
            Command::ResetAll => None,
            Command::Discard if discards => None,
            Command::Reset => Some(statement.name()?),
            Command::Set if is_to_default(&statement) => Some(statement.name()?),
            _ => return None,
        };
        let is_meant = |name: &str| match &only {
            Some(only) => {
                let is = |name: &str| only.eq_ignore_ascii_case(name.as_bytes());
                // The role goes with whoever took it on.
                is(name) || (name == ROLE && is(SESSION_AUTHORIZATION))
            }
            None => discards || name != ROLE,
        };
        let mut settings: Vec<(Box<str>, Box<str>)> = self
            .startup
            .iter()
            .filter(|(name, _)| is_meant(name))
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        // Under another role, the others may not be allowed.
        settings.sort_by_key(|(name, _)| &**name == ROLE);
        let local = statement.effects().intersects(Effects::SET_LOCAL);
        (!settings.is_empty()).then_some(Restore { settings, local, discards })
    }

    /// The statements of the simple query `text` if it must be sent in parts, with what follows each.
    fn parts_of<'a>(&self, text: &'a [u8]) -> Option<Vec<(&'a [u8], Option<Restore>)>> {
        if let Some(restore) = self.restore_of(text) {
            return Some(vec![(text, Some(restore))]);
        }
        let parts = reset_query::statements_of(text)?;
        let parts: Vec<_> = parts.into_iter().map(|part| (part, self.restore_of(part))).collect();
        let is_fit = |(_, restore): &(_, Option<Restore>)| {
            restore.as_ref().is_none_or(|restore| !restore.discards)
        };
        let resets = parts.iter().any(|(_, restore)| restore.is_some());
        (resets && parts.iter().all(is_fit)).then_some(parts)
    }

    /// True if the simple query `text` must be sent by [`Session::send_in_parts`].
    pub(super) fn is_sent_in_parts(
        &self,
        effects: Effects,
        text: &[u8],
        server: &ServerSide,
    ) -> bool {
        !self.startup.is_empty()
            && effects.intersects(RESETS)
            && !server.pipeline.is_copy_in()
            && self.parts_of(text).is_some()
    }

    /// True if a query that is sent in parts must wait: its batch is one of its own, and what was sent before it is
    /// not answered.
    pub(super) fn parts_wait(&mut self, server: &mut ServerSide, out: &mut Vec<u8>) -> bool {
        let begun = server.pipeline.is_mid_batch() && !server.pipeline.owes_nothing();
        if begun && server.pipeline.waits_for_client() {
            nudge(server, out);
            server.pipeline.note_flush();
            encode::flush(out);
        }
        let waits = begun || server.pipeline.awaits_outcome();
        if waits {
            self.channels.wait();
        }
        waits
    }

    /// Sends a simple query so that each reset in it is followed by what it is to.
    pub(super) fn send_in_parts(&mut self, text: &[u8], to: &mut Destination<'_>) {
        let mut undo = Undo::Unnamed(self.unnamed.take());
        for (part, restore) in self.parts_of(text).unwrap_or_default() {
            let undo = std::mem::replace(&mut undo, Undo::Nothing);
            encode::parse(to.out, b"", &tail_of(part));
            encode::bind_text(to.out, b"", &[]);
            to.server.pipeline.push(Expected::ParseComplete, Fate::Swallow, undo);
            to.server.pipeline.push(Expected::BindComplete, Fate::Swallow, Undo::Nothing);
            if is_select(part) {
                encode::message(to.out, FrontendTag::DESCRIBE.0, |out| out.extend(b"P\0"));
                to.server.pipeline.push(Expected::Description, Fate::Forward, Undo::Nothing);
            }
            encode::execute(to.out);
            to.server.pipeline.push(Expected::Execution, Fate::Forward, Undo::Nothing);
            if let Some(restore) = restore {
                restore.write(to.server, to.out);
            }
        }
        // A simple query leaves none.
        encode::message(to.out, FrontendTag::CLOSE.0, |out| out.extend(b"P\0"));
        to.server.pipeline.push(Expected::CloseComplete, Fate::Swallow, Undo::Nothing);
        to.server.unnamed = ServerUnnamed::Unknown;
        to.out.extend_from_slice(&encode::SYNC);
        to.server.pipeline.push(Expected::ReadyForQuery, Fate::Forward, Undo::Nothing);
    }

    /// `portal` is about to be bound anew.
    pub(super) fn forget_restore(&mut self, portal: &[u8]) {
        if !self.restores.is_empty() {
            self.restores.retain(|(bound, _)| **bound != *portal);
        }
    }

    /// `portal` is bound to a statement with these effects.
    pub(super) fn bind_restore(&mut self, portal: &[u8], effects: Effects, text: &[u8]) {
        if self.startup.is_empty() || !effects.intersects(RESETS) {
            return;
        }
        if self.restores.len() < BOUND_MAX
            && let Some(restore) = self.restore_of(text)
        {
            self.restores.push((portal.into(), restore));
        }
    }

    /// `portal` was executed: tells the server what follows, if it was a reset.
    pub(super) fn restore_behind(&mut self, portal: &[u8], to: &mut Destination<'_>) {
        let at = self.restores.iter().position(|(bound, _)| **bound == *portal);
        let Some((_, restore)) = at.map(|at| self.restores.swap_remove(at)) else { return };
        restore.write(to.server, to.out);
    }
}

impl Restore {
    /// Tells `server` of it. The unnamed statement and portal are the client's.
    ///
    /// What is thrown away is so for good, however the batch goes on, and so is this: it has a transaction of its own.
    /// Nothing else is open behind a `DISCARD ALL`.
    fn write(&self, server: &mut ServerSide, out: &mut Vec<u8>) {
        if self.discards {
            self.run(b"BEGIN", &[], server, out);
        }
        for (name, value) in &self.settings {
            if let Some(values) = literals(name, value) {
                // Unlike a SELECT it takes no snapshot, behind which SET TRANSACTION would be refused.
                let scope = if self.local { "LOCAL" } else { "SESSION" };
                let text = format!("SET {scope} {} TO {values}", quoted(name));
                self.run(text.as_bytes(), &[], server, out);
            } else {
                let text = "SELECT pg_catalog.set_config($1,$2,$3::pg_catalog.bool)";
                let values = [&**name, &**value, if self.local { "t" } else { "f" }];
                self.run(text.as_bytes(), &values, server, out);
            }
        }
        if self.discards {
            self.run(b"COMMIT", &[], server, out);
        }
    }

    fn run(&self, text: &[u8], values: &[&str], server: &mut ServerSide, out: &mut Vec<u8>) {
        let undo = || if self.discards { Undo::Settings } else { Undo::Nothing };
        aside::run(server, text, values, undo(), undo, out);
    }
}

/// A `Parse` of `text` without parameters, behind its name.
fn tail_of(text: &[u8]) -> Vec<u8> {
    let mut tail = Vec::with_capacity(text.len() + 3);
    encode::cstr(&mut tail, text);
    tail.extend_from_slice(&0_u16.to_be_bytes());
    tail
}

/// What SET is given for the setting to have exactly this value, if there is such a thing.
fn literals(name: &str, value: &str) -> Option<String> {
    if !value.is_ascii() {
        return None;
    }
    if !LISTS.contains(&name) {
        return Some(literal(value));
    }
    let elements = value.split(", ").map(element).collect::<Option<Vec<String>>>()?;
    Some(elements.join(","))
}

/// A name in a list as a string, if PostgreSQL writes that as it is written here.
fn element(text: &str) -> Option<String> {
    let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_plain = |name: &str| {
        name.bytes().all(in_name)
            && !name.starts_with(|first: char| first.is_ascii_digit())
            && !is_keyword(name.as_bytes())
    };
    let inner = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let name = inner.unwrap_or(text);
    let fits = !name.is_empty() && name.len() < 64 && !name.contains('"');
    (fits && is_plain(name) == inner.is_none()).then(|| literal(name))
}

/// A value of ASCII as a string that is read the same under all settings: nothing in it but letters and digits stands
/// for itself.
fn literal(value: &str) -> String {
    let mut text = String::from("E'");
    for byte in value.bytes() {
        // Writing to a string cannot fail.
        let _ = if byte.is_ascii_alphanumeric() {
            write!(text, "{}", char::from(byte))
        } else {
            write!(text, "\\x{byte:02x}")
        };
    }
    text.push('\'');
    text
}

/// True for SET ... TO DEFAULT, however it is spelled.
fn is_to_default(statement: &Statement<'_>) -> bool {
    let text = statement.text();
    let in_word =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"_$'\"".contains(byte) || *byte >= 0x80;
    let begins = text.iter().rposition(|byte| !in_word(byte)).map_or(0, |at| at + 1);
    let (before, last) = text.split_at_checked(begins).unwrap_or_default();
    let ends_with = |before: &[u8], word: &[u8]| {
        let before = before.trim_ascii_end();
        let at = before.len().saturating_sub(word.len());
        before.get(at..).is_some_and(|end| end.eq_ignore_ascii_case(word))
    };
    // Of this one, DEFAULT is a value too.
    let of_style = || {
        last.eq_ignore_ascii_case(b"'default'")
            && statement.name().is_some_and(|name| name.eq_ignore_ascii_case(b"datestyle"))
            && (ends_with(before, b"=") || ends_with(before, b"to"))
    };
    last.eq_ignore_ascii_case(b"default")
        || of_style()
        || (last.eq_ignore_ascii_case(b"local") && ends_with(before, b"zone"))
        || (last.eq_ignore_ascii_case(b"names") && ends_with(before, b"set"))
}

/// Whether `text` says that the client is to have no role, true, or that of its startup, false: both are the same to a
/// server. `None` if it says neither, or takes it back, or is a RESET alone, behind which the server is told the role.
pub(super) fn leaves_role(text: &[u8], values: Option<&[u8]>, options: Options) -> Option<bool> {
    const BY_NAME: Effects = Effects::SET_CONFIG.and(Effects::DO);
    let mut leaves = None;
    let mut count = 0;
    for statement in statement::statements(text, options) {
        count += 1;
        let effects = statement.effects();
        if statement.command() == Command::Rollback {
            leaves = None;
        } else if effects.intersects(Effects::SET_SESSION_AUTHORIZATION) {
            let resets = statement.command() == Command::Reset || is_to_default(&statement);
            leaves = Some(!resets);
        } else if effects.intersects(Effects::SET_ROLE) {
            let resets = statement.command() == Command::Reset || is_to_default(&statement);
            if resets || is_to_none(statement.text()) {
                leaves = Some(!resets);
            }
        } else if effects.intersects(BY_NAME) {
            let speaks_of = |word: &[u8]| {
                let texts = [statement.text(), values.unwrap_or_default()];
                texts.iter().any(|text| {
                    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
                })
            };
            let resets = || speaks_of(b"reset");
            let defaults = || speaks_of(b"default") || speaks_of(b"null") || resets();
            if (speaks_of(b"role") && speaks_of(b"none") && !resets())
                || (speaks_of(b"authorization") && !defaults())
            {
                leaves = Some(true);
            }
        }
    }
    let follows = count == 1 && leaves == Some(false);
    leaves.filter(|_| !follows)
}

/// True for SET ROLE NONE, however it is spelled.
fn is_to_none(text: &[u8]) -> bool {
    let text = text.strip_suffix(b"'").or(text.strip_suffix(b"\"")).unwrap_or(text);
    let end = text.len().saturating_sub(4);
    text.get(end..).is_some_and(|word| word.eq_ignore_ascii_case(b"none"))
        && text.get(..end).and_then(<[u8]>::last).is_some_and(|byte| !byte.is_ascii_alphanumeric())
}

fn is_select(part: &[u8]) -> bool {
    part.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"select"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::test_support::settings;

    fn behind(text: &str) -> Vec<String> {
        let startup = settings(&[("timezone", "Asia/Tokyo"), ("role", "r"), ("work_mem", "5MB")]);
        let restore = Session::new(1, startup).restore_of(text.as_bytes());
        let names = |restore: Restore| restore.settings.into_iter().map(|(name, _)| name.into());
        restore.map_or_else(Vec::new, |restore| names(restore).collect())
    }

    #[test]
    fn what_is_reset_is_told_again() {
        assert_eq!(behind("RESET ALL"), ["timezone", "work_mem"]);
        assert_eq!(behind("DISCARD ALL"), ["timezone", "work_mem", "role"]);
        for text in [
            "RESET ROLE",
            "RESET SESSION AUTHORIZATION",
            "SET LOCAL SESSION AUTHORIZATION DEFAULT",
            "SET session_authorization TO DEFAULT",
        ] {
            assert_eq!(behind(text), ["role"], "{text}");
        }
        for text in [
            "RESET TimeZone",
            "set time zone default ;",
            "SET LOCAL timezone TO DEFAULT",
            "SET TIME ZONE LOCAL -- time",
        ] {
            assert_eq!(behind(text), ["timezone"], "{text}");
        }
        for text in [
            "RESET lock_timeout",
            "SET timezone = 'default'",
            "SET timezone = 'Asia/Tokyo'",
            "SET work_mem = 5 -- default",
            "RESET ALL; SELECT 1",
            "SET SESSION AUTHORIZATION 'default'",
            "DISCARD TEMP",
        ] {
            assert!(behind(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn no_role_is_told_from_that_of_the_startup() {
        let of = |text: &str| leaves_role(text.as_bytes(), None, Options::default());
        for text in [
            "SET ROLE NONE",
            "set session role 'none' ;",
            "SET role = \"none\"",
            "RESET ROLE; SET ROLE TO none",
            "SELECT set_config('role', 'none', false)",
            "DO $$BEGIN SET ROLE NONE; END$$",
            "SET SESSION AUTHORIZATION someone",
            "RESET ROLE; SET SESSION AUTHORIZATION 'default'",
            "SELECT set_config('session_authorization', 'someone', false)",
            "DO $$BEGIN SET SESSION AUTHORIZATION someone; END$$",
        ] {
            assert_eq!(of(text), Some(true), "{text}");
        }
        for text in [
            "SELECT 1; RESET ROLE",
            "SET ROLE NONE; SET ROLE TO DEFAULT",
            "SET SESSION AUTHORIZATION someone; SET SESSION AUTHORIZATION DEFAULT",
        ] {
            assert_eq!(of(text), Some(false), "{text}");
        }
        for text in [
            "RESET ROLE",
            "SET SESSION AUTHORIZATION DEFAULT",
            "RESET session_authorization",
            "DO $$BEGIN RESET SESSION AUTHORIZATION; END$$",
            "SELECT set_config('session_authorization', NULL, false)",
            "SET ROLE someone",
            "BEGIN; RESET ROLE; ROLLBACK",
            "SET LOCAL ROLE NONE",
            "SELECT set_config('role', 'none', true)",
            "SET work_mem = 'none'",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn a_list_is_told_name_by_name_if_it_comes_out_as_it_was() {
        for (value, told) in [
            ("side, public", Some("E'side',E'public'")),
            ("\"$user\", public", Some(r"E'\x24user',E'public'")),
            ("\"My, own\"", None),
            ("side,public", None),
            ("user", None),
            ("\"plain\"", None),
            ("Side", None),
            ("", None),
        ] {
            assert_eq!(literals("search_path", value).as_deref(), told, "{value}");
        }
        assert_eq!(literals("timezone", "a, b").as_deref(), Some(r"E'a\x2c\x20b'"));
    }

    #[test]
    fn a_value_is_a_string_in_which_nothing_ends_it() {
        assert_eq!(literal("it's \\ 1"), r"E'it\x27s\x20\x5c\x201'");
        let effects =
            statement::effects(literal("'; DISCARD ALL; --").as_bytes(), Options::default());
        assert!(!effects.intersects(Effects::DISCARD_ALL));
    }
}
