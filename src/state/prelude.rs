//! What a server is told ahead of a client's first message, in the same write: the settings that
//! the client wants and the server has not.
//!
//! It is a batch of its own with its own `Sync`, so that the client's transaction begins after it,
//! and its replies are swallowed. Values travel as parameters of `set_config`.
//!
//! It may fail, of a cancel for instance. So that what the client says does not run without it, it
//! ends with a `Parse`, and the client's batch begins with a `Describe` of what that made: where it
//! is missing, PostgreSQL skips the batch.
//!
//! Source: <https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-ADMIN-SET>

use super::naming::evict;
use super::pipeline::{Expected, Fate, Undo};
use super::session::{Limits, ServerSide, ServerUnnamed};
use super::settings::{GOVERNS, Settings};
use crate::wire::{FrontendTag, encode};
use std::fmt::Write;
use std::sync::Arc;

/// Has what is told to `server` ahead of a client with these settings run in a transaction as by default, rather than
/// in one such as somebody before wanted for its own. Writes nothing where nobody did.
pub fn free(server: &mut ServerSide, wanted: &Settings, out: &mut Vec<u8>) {
    if !server.applied.governs() {
        return;
    }
    let differs = |name: &&&str| {
        let has = server.applied.get(name);
        has.is_some() && has != wanted.get(name)
    };
    let foreign: Vec<&str> = GOVERNS.iter().filter(differs).copied().collect();
    if foreign.is_empty() {
        return;
    }
    let kept = server.applied.iter().filter(|(name, _)| !foreign.contains(name));
    // Names that came from settings are valid.
    let kept = Arc::new(Settings::new(kept).unwrap_or_default());
    for name in foreign {
        statement(server, &format!("RESET {name}"), &[], out);
    }
    server.applied = kept;
    server.unnamed = ServerUnnamed::Unknown;
    guard(server, Fate::Prelude, Fate::Prelude, out);
}

/// Brings `server` into the state that a client with these settings expects. Writes nothing if it
/// is there already. Closes statements beyond the limit on the way.
///
/// Where a batch has been begun ahead of the client's, this goes on with it, and ends it.
pub fn write(server: &mut ServerSide, wanted: &Arc<Settings>, limits: &Limits, out: &mut Vec<u8>) {
    let begun = server.pipeline.ends_ahead();
    let statements_max = limits.server_statements_max;
    let wipes = std::mem::take(&mut server.wipe);
    if wipes {
        for name in std::mem::take(&mut server.applied).identity() {
            statement(server, &format!("RESET {name}"), &[], out);
        }
        statement(server, "RESET ALL", &[], out);
    }
    let same = Arc::ptr_eq(&server.applied, wanted) || server.applied == *wanted;
    let stale = server.ddl_seen != limits.ddl_seen;
    let statements_max = if stale { 0 } else { statements_max };
    server.ddl_seen = limits.ddl_seen;
    if same && !wipes && !begun && server.statements.len() <= statements_max {
        return;
    }
    if !same {
        if wipes {
            // What follows is told in a transaction as by default.
            guard(server, Fate::Prelude, Fate::Prelude, out);
        }
        let applied = Arc::clone(&server.applied);
        let change = wanted.change_from(&applied);
        for name in &change.reset {
            statement(server, &format!("RESET {name}"), &[], out);
        }
        if !change.set.is_empty() {
            let (text, values) = set_config(&change.set);
            statement(server, &text, &values, out);
        }
        server.applied = Arc::clone(wanted);
    }
    if wipes || !same {
        server.unnamed = ServerUnnamed::Unknown;
    }
    evict(server, statements_max, Fate::Prelude, out);
    if wipes || begun || !same {
        guard(server, Fate::Prelude, Fate::Prelude, out);
    } else {
        end(server, out);
    }
}

/// Ends the batch, and begins the next one so that it is skipped if this one fails: what is done with the end of the
/// one, and with the beginning of the other.
pub(super) fn guard(server: &mut ServerSide, before: Fate, behind: Fate, out: &mut Vec<u8>) {
    // Never the same on one server: what an earlier one left must not be found.
    server.guards += 1;
    let name = format!("pgweir_guard_{:x}", server.guards);
    encode::parse(out, name.as_bytes(), &[0; 3]);
    server.pipeline.push(Expected::ParseComplete, before, Undo::Nothing);
    out.extend_from_slice(&encode::SYNC);
    server.pipeline.push(Expected::ReadyForQuery, before, Undo::Nothing);
    encode::message(out, FrontendTag::DESCRIBE.0, |out| {
        out.push(b'S');
        encode::cstr(out, name.as_bytes());
    });
    server.pipeline.push(Expected::Description, behind, Undo::Nothing);
    encode::close_statement(out, name.as_bytes());
    server.pipeline.push(Expected::CloseComplete, behind, Undo::Nothing);
}

/// Ends a batch of pgweir's own.
pub fn end(server: &mut ServerSide, out: &mut Vec<u8>) {
    out.extend_from_slice(&encode::SYNC);
    server.pipeline.push(Expected::ReadyForQuery, Fate::Prelude, Undo::Nothing);
}

fn set_config<'a>(settings: &[(&'a str, &'a str)]) -> (String, Vec<&'a str>) {
    let mut text = String::from("SELECT");
    let mut values = Vec::with_capacity(settings.len() * 2);
    for (at, (name, value)) in settings.iter().enumerate() {
        let comma = if at == 0 { ' ' } else { ',' };
        let (first, second) = (at * 2 + 1, at * 2 + 2);
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}pg_catalog.set_config(${first},${second},false)");
        values.extend([*name, *value]);
    }
    (text, values)
}

fn statement(server: &mut ServerSide, text: &str, values: &[&str], out: &mut Vec<u8>) {
    let mut tail = Vec::with_capacity(text.len() + 3);
    encode::cstr(&mut tail, text.as_bytes());
    tail.extend_from_slice(&0_u16.to_be_bytes());
    encode::parse(out, b"", &tail);
    encode::bind_text(out, b"", values);
    encode::execute(out);
    for expected in [Expected::ParseComplete, Expected::BindComplete, Expected::Execution] {
        server.pipeline.push(expected, Fate::Prelude, Undo::Nothing);
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::SequenceCare;
    use super::*;

    const LIMITS: Limits = Limits {
        message_max: 1 << 20,
        statements_max: 10,
        server_statements_max: 10,
        hidden_code: false,
        code_in_reads: false,
        opaque_code: false,
        ddl_seen: 0,
        sequences: SequenceCare::None,
    };

    fn settings(pairs: &[(&str, &str)]) -> Arc<Settings> {
        Arc::new(Settings::new(pairs.iter().copied()).expect("valid names"))
    }

    #[test]
    fn a_server_in_the_wanted_state_is_told_nothing() {
        let mut server = ServerSide { applied: settings(&[("a", "1")]), ..ServerSide::default() };
        let mut out = Vec::new();
        write(&mut server, &settings(&[("a", "1")]), &LIMITS, &mut out);
        assert!(out.is_empty());
        assert!(server.pipeline.is_settled());
    }

    #[test]
    fn what_governs_transactions_is_put_back_first_and_is_nobodys_unnamed_statement() {
        let applied = settings(&[("default_transaction_read_only", "on"), ("work_mem", "1MB")]);
        let mut server = ServerSide { applied, ..ServerSide::default() };
        let (wanted, mut out) = (settings(&[("work_mem", "1MB")]), Vec::new());
        free(&mut server, &wanted, &mut out);
        write(&mut server, &wanted, &LIMITS, &mut out);
        let told = crate::state::test_support::frontend_words(&out);
        assert!(told.starts_with(
            "Parse =RESET default_transaction_read_only, Bind, Execute, Parse pgweir_guard"
        ));
        assert_eq!(server.applied, wanted);
        assert!(matches!(server.unnamed, ServerUnnamed::Unknown));
        let (mut server, mut out) =
            (ServerSide { applied: Arc::clone(&wanted), ..server }, Vec::new());
        free(&mut server, &wanted, &mut out);
        assert!(out.is_empty(), "nobody has changed it");
    }

    #[test]
    fn values_are_parameters_and_never_text() {
        let mut server = ServerSide::default();
        let mut out = Vec::new();
        write(&mut server, &settings(&[("a", "x'; DROP TABLE t")]), &LIMITS, &mut out);
        let parse_end = u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize;
        assert!(!String::from_utf8_lossy(&out[..parse_end]).contains("DROP"));
        assert!(!server.pipeline.is_settled());
        assert_eq!(server.applied.get("a"), Some("x'; DROP TABLE t"));
    }
}
