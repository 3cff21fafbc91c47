//! Asks a server, when its client's transaction is over, what the client has left in the session:
//! the settings follow the client to other servers, and what cannot follow keeps it on this one.
//!
//! A statement only says that there may be something. What came of it - after a rollback, behind a
//! function, in a batch that failed - is known to the server, and one question tells all of it. No
//! name in it depends on the client's `search_path`.
//!
//! Sources: <https://www.postgresql.org/docs/current/view-pg-settings.html>,
//! <https://www.postgresql.org/docs/current/catalog-pg-depend.html>

use super::audit::{Doubts, Value, says_nothing_of_locks};
use super::channels::Channels;
use super::naming::ensure_with;
use super::pin::PinReason;
use super::pipeline::{Expected, Fate, Undo};
use super::prepared::Own;
use super::server_side::ServerSide;
use super::session::Session;
use super::settings::{ROLE, SESSION_AUTHORIZATION, Settings};
use crate::wire::{backend, encode};
use std::sync::Arc;

/// Whom the session acts as. Another server lets a role be taken on by those only who may. `d`: a fresh connection has
/// a role, perhaps, by `ALTER ROLE ... SET role`.
const ACTS_AS: &[u8] = b"SELECT 's', 'role', pg_catalog.current_setting('role')
UNION ALL SELECT 's', 'session_authorization', session_user::pg_catalog.text
 WHERE session_user OPERATOR(pg_catalog.<>) $1::pg_catalog.name
UNION ALL SELECT 'd', 'role', NULL WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.=) 'none'
 AND EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c
 WHERE c OPERATOR(pg_catalog.~~) 'role=%' AND (s.setrole OPERATOR(pg_catalog.=) 0 OR s.setrole OPERATOR(pg_catalog.=)
 (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) $1::pg_catalog.name)))
UNION ALL SELECT 'k', 'role', NULL WHERE CASE
 WHEN pg_catalog.current_setting('role') OPERATOR(pg_catalog.=) 'none' THEN false
 ELSE NOT pg_catalog.pg_has_role(session_user, pg_catalog.current_setting('role')::pg_catalog.name, CASE
 WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog.<) 160000
 THEN 'MEMBER' ELSE 'SET' END) END\0\0\0";

/// Acts as the login until all is asked: some settings are shown to superusers only. No name in what follows may then
/// depend on the client.
///
/// PostgreSQL before 17.1, 16.5 and 15.9 forgets a role for good where it sets the session's user for a while
/// (CVE-2024-10978), and so it only does where that is another.
const ACT_AS_LOGIN: &[u8] = b"SELECT 's', pg_catalog.substr(CASE
 WHEN session_user OPERATOR(pg_catalog.=) $1::pg_catalog.name THEN pg_catalog.set_config('role', 'none', true)
 ELSE pg_catalog.set_config('session_authorization', $1::pg_catalog.name::pg_catalog.text, true) END, 1, 0), NULL
WHERE session_user OPERATOR(pg_catalog.<>) $1::pg_catalog.name
 OR pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'\0\0\0";

/// Rows of kind, name and value. `s`: a setting that the session has changed; `k`: something that
/// keeps the client, by the label of its reason; with `listen`, a channel.
///
/// Objects in the temporary schema are those that depend on it, as for `DISCARD TEMP`.
const QUESTION: &[u8] = b"SELECT 's', s.name, pg_catalog.current_setting(s.name)
FROM pg_catalog.pg_settings s WHERE s.source OPERATOR(pg_catalog.=) 'session'
 AND s.name OPERATOR(pg_catalog.<>) ALL ('{transaction_isolation,transaction_read_only,transaction_deferrable}')
UNION ALL SELECT 's', n, pg_catalog.current_setting(n, true) FROM pg_catalog.unnest($1::pg_catalog.text[]) n
UNION ALL SELECT 'k', 'temporary_object', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_depend d
 WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
 AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())
UNION ALL SELECT 'k', 'advisory_lock', NULL WHERE $2::pg_catalog.bool AND EXISTS (SELECT FROM pg_catalog.pg_locks l
 WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())
UNION ALL SELECT 'k', 'hold_cursor', NULL WHERE EXISTS (SELECT FROM pg_catalog.pg_cursors c WHERE c.is_holdable)
UNION ALL SELECT 'k', 'sequence', NULL WHERE pg_catalog.current_setting('pgweir.has_value', true) OPERATOR(pg_catalog.=) 't'
UNION ALL SELECT 'k', 'listen', c FROM pg_catalog.pg_listening_channels() c
UNION ALL SELECT 'k', CASE WHEN p.from_sql THEN 'prepare' ELSE 'large_statement' END, NULL
 FROM pg_catalog.pg_prepared_statements p
 WHERE (p.from_sql OR p.name OPERATOR(pg_catalog.!~) '^pgweir_[0-9a-f]+$')
 AND p.name OPERATOR(pg_catalog.<>) ALL ($3::pg_catalog.text[])\0\0\0";

/// Finds out whether a sequence has given a value in this session, without an error in PostgreSQL's log. A value that
/// the client may not see is one.
const ASK_FOR_VALUE: &[u8] = b"DO LANGUAGE plpgsql $$ BEGIN
PERFORM pg_catalog.lastval(); PERFORM pg_catalog.set_config('pgweir.has_value', 't', true);
EXCEPTION WHEN object_not_in_prerequisite_state THEN NULL;
WHEN OTHERS THEN PERFORM pg_catalog.set_config('pgweir.has_value', 't', true); END $$\0\0\0";

/// Most settings of a session that follow it.
const SETTINGS_MAX: usize = 256;

/// Most bytes of them.
const SETTINGS_BYTES_MAX: usize = 16 * 1024;

/// What a server has answered so far.
#[derive(Default)]
pub(super) struct Findings {
    set: Vec<(String, String)>,
    bytes: usize,
    /// There is no role.
    no_role: bool,
    /// There would be one on a fresh connection.
    default_role: bool,
    keeps: Option<PinReason>,
    listens: Listens,
    /// It was refused, or not understood.
    failed: bool,
}

/// What a server listens on.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Listens {
    #[default]
    Nothing,
    /// On that on which pgweir does in its place.
    Beside,
    /// On something else, too.
    Alone,
}

impl Findings {
    /// Takes in the body of a `DataRow`.
    fn row(&mut self, body: &[u8], channels: &Channels) -> Option<()> {
        let columns = backend::data_row(body)?;
        let [Some(kind), Some(name), value] = columns.as_slice() else { return None };
        let name = std::str::from_utf8(name).ok()?;
        match (*kind, value) {
            (b"k", Some(channel)) if name == PinReason::Listen.as_label() => {
                let heard = channels.is_in_force(channel);
                self.listens =
                    self.listens.max(if heard { Listens::Beside } else { Listens::Alone });
            }
            (b"k", None) => {
                let reason = PinReason::ALL.into_iter().find(|reason| reason.as_label() == name)?;
                self.keeps = self.keeps.or(Some(reason));
            }
            (b"d", None) => self.default_role = true,
            (b"s", None) => {}
            (b"s", Some(b"none")) if name == ROLE => self.no_role = true,
            (b"s", Some(value)) => {
                let value = std::str::from_utf8(value).ok()?;
                self.bytes += name.len() + value.len();
                if self.set.len() >= SETTINGS_MAX || self.bytes > SETTINGS_BYTES_MAX {
                    return None;
                }
                self.set.push((name.to_owned(), value.to_owned()));
            }
            _ => return None,
        }
        Some(())
    }

    fn get(&self, name: &str) -> Option<&str> {
        let found = self.set.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &**value)
    }

    /// What came back in an encoding that is not pgweir's cannot be sent again as it is.
    fn is_foreign(&self) -> bool {
        let encoding = self.get("client_encoding");
        encoding.is_some_and(|value| !value.eq_ignore_ascii_case("UTF8"))
            && self.set.iter().any(|(_, value)| !value.is_ascii())
    }
}

impl Session {
    /// True while a server is asked: what the client says meanwhile waits.
    #[must_use]
    pub fn is_examined(&self) -> bool {
        self.audit.findings.is_some() || self.audit.code.is_some()
    }

    /// Asks `server`, which owes nothing, what this client has left there. `user` is who logged in,
    /// `names` are custom settings that code in the database may set.
    pub fn examine<'a>(
        &mut self,
        server: &mut ServerSide,
        user: &str,
        names: impl IntoIterator<Item = &'a str>,
        out: &mut Vec<u8>,
    ) {
        let doubts = self.audit.doubts.get_or_insert_default();
        let custom = |settings: &'_ Settings| {
            settings
                .names()
                .filter(|name| name.contains('.'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let mut asked: Vec<String> = names.into_iter().map(str::to_owned).collect();
        asked.extend(doubts.mentioned.names().map(str::to_owned));
        for settings in [&self.settings, &self.startup, &server.applied] {
            asked.extend(custom(settings));
        }
        asked.sort_unstable();
        asked.dedup();
        let locks = if says_nothing_of_locks(doubts.effects) { "f" } else { "t" };
        // A name holds no quotes.
        let array = format!(
            "{{{}}}",
            asked.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(",")
        );
        ask(server, Own::ActsAs, ACTS_AS, &[user], out);
        ask(server, Own::ActAsLogin, ACT_AS_LOGIN, &[user], out);
        if doubts.value != Value::None {
            ask(server, Own::AskForValue, ASK_FOR_VALUE, &[], out);
        }
        let own = self.array_of_own(server);
        ask(server, Own::Question, QUESTION, &[&array, locks, &own], out);
        out.extend_from_slice(&encode::SYNC);
        server.pipeline.push(Expected::ReadyForQuery, Fate::Examination, Undo::Nothing);
        self.audit.findings = Some(Box::default());
    }

    /// The names of prepared statements that follow the client by themselves.
    fn array_of_own(&self, server: &ServerSide) -> String {
        let mut array = String::from("{");
        let own = server.own.iter();
        let names = own.flat_map(|own| own.names().map(move |name| (own, name)));
        for (own, name) in names {
            // Where nothing came of what would have changed it, the client still has what it had.
            let has = self.sql.get(name).is_some() || self.statements.get(name).is_some();
            let follows = has || !own.is_unsure(name);
            let Some(name) = std::str::from_utf8(name).ok().filter(|_| follows) else { continue };
            array.push_str(if array.len() > 1 { ",\"" } else { "\"" });
            for letter in name.chars() {
                if matches!(letter, '"' | '\\') {
                    array.push('\\');
                }
                array.push(letter);
            }
            array.push('"');
        }
        array.push('}');
        array
    }

    /// A row of the answer.
    pub(super) fn examination_row(&mut self, body: &[u8]) {
        if let Some(code) = &mut self.audit.code {
            code.row(body);
        } else if let Some(findings) = &mut self.audit.findings
            && findings.row(body, &self.channels).is_none()
        {
            findings.failed = true;
        }
    }

    /// The question was refused.
    pub(super) fn examination_failed(&mut self) {
        if let Some(code) = &mut self.audit.code {
            code.row = None;
        } else if let Some(findings) = &mut self.audit.findings {
            findings.failed = true;
        }
    }

    /// The answer is complete: what the session is from now on, and whether the client stays where it is.
    ///
    /// `opaque` if code in the database may leave what an answer does not tell. With `lose_settings`, those that cannot
    /// follow the client do not keep it.
    pub fn conclude(&mut self, server: &mut ServerSide, opaque: bool, lose_settings: bool) {
        let Some(findings) = self.audit.findings.take() else { return };
        server.altered = true;
        let doubts = self.audit.doubts.take().unwrap_or_default();
        let left = self.has_left_role(&findings, &doubts).then_some((ROLE, "none"));
        let found = findings.set.iter().map(|(name, value)| (&**name, &**value)).chain(left);
        let found = if findings.failed { None } else { Settings::new(found).ok() };
        let Some(found) = found else {
            // Nobody knows: it stays, and is asked again later.
            self.pin(doubts.reason());
            return self.audit.keep(doubts);
        };
        let lost = self.startup.iter().any(|(name, _)| found.get(name).is_none());
        self.retell |= lost;
        let foreign = findings.is_foreign();
        let wanted = if foreign && lose_settings {
            let readable = found.iter().filter(|(_, value)| value.is_ascii());
            let readable = Settings::new(readable).unwrap_or_default();
            self.startup.overlaid(&readable, doubts.resets_all())
        } else {
            self.startup.overlaid(&found, doubts.resets_all())
        };
        self.settings =
            if wanted == *self.startup { Arc::clone(&self.startup) } else { Arc::new(wanted) };
        server.applied = Arc::new(found);
        self.settings_touched = false;
        // Where pgweir listens in its place, the server is told to stop when it is given back.
        server.may_listen |= findings.listens != Listens::Nothing;
        let listens = (findings.listens == Listens::Alone).then_some(PinReason::Listen);
        let unseen = foreign || doubts.mentioned.is_blind();
        let taken = (doubts.value == Value::Certainly).then_some(PinReason::Sequence);
        let feared = doubts.ran_code && opaque;
        // A name that nobody has seen may have been `seed`.
        server.stained |= feared || (doubts.mentioned.is_blind() && !lose_settings);
        let keeps = findings.keeps.or(listens).or(taken).or_else(|| {
            self.keeps_by_itself()
                .or((unseen && !lose_settings).then_some(PinReason::Setting))
                .or(feared.then_some(PinReason::Hidden))
        });
        self.audit.for_good |= doubts.mentioned.is_blind() && !lose_settings;
        match keeps {
            Some(reason) => {
                self.pin = Some(reason);
                self.audit.keep(doubts);
            }
            None => {
                self.pin = None;
                // To ask may have cost it the role.
                let acts = server.applied.identity().count() == 2;
                server.wipe |= doubts.may_hide_settings() || unseen || acts;
            }
        }
    }

    /// True if there is no role, though there would be one on a fresh connection, or one was given at connect: that a
    /// server resets to none too.
    fn has_left_role(&self, findings: &Findings, doubts: &Doubts) -> bool {
        let acts_as = findings.get(SESSION_AUTHORIZATION);
        let leaves = || match self.settings.get(SESSION_AUTHORIZATION) {
            acted_as if acted_as == acts_as => self.settings.get(ROLE) == Some("none"),
            // Who has become another has no role, and who is himself again that of the startup.
            _ => acts_as.is_some(),
        };
        let given = self.startup.get(ROLE).is_some();
        let left =
            if given { doubts.leaves_role.unwrap_or_else(leaves) } else { findings.default_role };
        findings.no_role && left
    }

    /// True, once, if the client was told of defaults that are not its own: it must hear what is so.
    pub fn take_retell(&mut self) -> bool {
        std::mem::take(&mut self.retell)
    }

    /// What keeps the client on a server that has nothing of it.
    pub(super) fn keeps_by_itself(&self) -> Option<PinReason> {
        let temporary = |value: &str| value.to_ascii_lowercase().contains("pg_temp");
        if self.settings.get("search_path").is_some_and(temporary) {
            return Some(PinReason::TemporaryObject);
        }
        let large = self.unnamed.as_ref().is_some_and(|unnamed| unnamed.tail.is_none());
        large.then_some(PinReason::LargeStatement)
    }
}

/// Runs a statement of pgweir's own, and prepares it where it is missing.
fn ask(server: &mut ServerSide, own: Own, tail: &[u8], values: &[&str], out: &mut Vec<u8>) {
    let name = ensure_with(server, own.id(), tail, Fate::Examination, out);
    encode::bind_text(out, name.as_bytes(), values);
    encode::execute(out);
    server.pipeline.push(Expected::BindComplete, Fate::Examination, Undo::Nothing);
    server.pipeline.push(Expected::Execution, Fate::Examination, Undo::Nothing);
}

#[cfg(test)]
#[path = "examination_tests.rs"]
mod tests;
