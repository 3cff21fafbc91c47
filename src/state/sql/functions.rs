//! The functions of PostgreSQL, and what a call of each may leave in the session.
//!
//! The lists hold what can be called from SQL in `pg_catalog`, without what is named in [`effects_of`]:
//! `SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace`, less the functions that
//! take or return `internal`, triggers and handlers. A test compares them with the catalogue.

use super::bytes::is_in_word;
use super::names::NameSet;
use crate::state::statement::Effects;

/// Harmless in PostgreSQL 15.
static SINCE_15: NameSet<8192> = NameSet::new(include_str!("functions_15.txt"));

/// Harmless and new between PostgreSQL 16 and 18. On an older server somebody may have written a `uuidv7` himself.
static SINCE_18: NameSet<512> = NameSet::new(include_str!("functions_18.txt"));

/// What a call of `name` may do to the session, if it is the function in `pg_catalog`.
///
/// A name that is not in the catalogue is [`Effects::USER_FUNCTION`]. `server_major` is the version of the server
/// (15 for 15.4), or 0 when it is not known; `hash` is that of the name.
pub(super) fn effects_of(name: &[u8], hash: usize, server_major: u16) -> Effects {
    if SINCE_15.contains_hashed(name, hash)
        || (server_major >= 18 && SINCE_18.contains_hashed(name, hash))
    {
        return Effects::NONE;
    }
    let mut folded = [0; LONGEST];
    let Some(folded) = folded.get_mut(..name.len()) else {
        return Effects::USER_FUNCTION;
    };
    folded.copy_from_slice(name);
    folded.make_ascii_lowercase();
    special(folded)
}

/// What a call of a function outside of `pg_catalog` may do.
pub(super) fn of_user(name: &[u8]) -> Effects {
    if runs_text(name) { TEXT } else { Effects::USER_FUNCTION }
}

/// Of a function that runs a text.
const TEXT: Effects = Effects::DO.and(Effects::USER_FUNCTION);

/// Longest name in [`special`] that is not there by its beginning only.
const LONGEST: usize = 63;

fn special(name: &[u8]) -> Effects {
    match name {
        b"set_config" => Effects::SET_CONFIG,
        b"nextval" | b"setval" => Effects::SEQUENCE_NEXT,
        b"currval" | b"lastval" => Effects::SEQUENCE_READ,
        b"pg_notify" => Effects::NOTIFY,
        b"pg_advisory_lock"
        | b"pg_advisory_lock_shared"
        | b"pg_try_advisory_lock"
        | b"pg_try_advisory_lock_shared" => Effects::ADVISORY_LOCK,
        b"pg_advisory_unlock" | b"pg_advisory_unlock_shared" => Effects::ADVISORY_UNLOCK,
        b"pg_advisory_unlock_all" => Effects::ADVISORY_UNLOCK_ALL,
        b"pg_backend_pid"
        | b"pg_listening_channels"
        | b"pg_my_temp_schema"
        | b"pg_is_other_temp_schema"
        | b"pg_prepared_statement"
        | b"pg_cursor" => Effects::SESSION_READ,
        // The seed of random(), an open backup, an origin of replication, a replication slot that may be temporary:
        // none of them can be asked for, or be taken to another server.
        b"setseed"
        | b"pg_backup_start"
        | b"pg_backup_stop"
        | b"pg_start_backup"
        | b"pg_stop_backup"
        | b"pg_create_logical_replication_slot"
        | b"pg_create_physical_replication_slot"
        | b"pg_copy_logical_replication_slot"
        | b"pg_copy_physical_replication_slot"
        | b"pg_drop_replication_slot"
        | b"pg_stop_making_pinned_objects" => Effects::SESSION_FUNCTION,
        _ if name.starts_with(b"pg_replication_origin_session_")
            || name.starts_with(b"pg_replication_origin_xact_")
            || name.starts_with(b"binary_upgrade_") =>
        {
            Effects::SESSION_FUNCTION
        }
        // SQL text given as a string does what it does, as in DO.
        b"ts_stat" | b"ts_rewrite" => TEXT,
        _ if name.starts_with(b"query_to_xml") || runs_text(name) => TEXT,
        _ => Effects::USER_FUNCTION,
    }
}

/// True if `name` is a function of an extension of PostgreSQL's own that runs a text of its
/// caller: of `tablefunc` or `xml2`. (What `dblink` runs is run by another session.)
///
/// Source: <https://www.postgresql.org/docs/current/tablefunc.html>
pub(in crate::state) fn runs_text(name: &[u8]) -> bool {
    const BEGINNING: &[u8] = b"crosstab";
    name.get(..BEGINNING.len()).is_some_and(|name| name.eq_ignore_ascii_case(BEGINNING))
        || name.eq_ignore_ascii_case(b"connectby")
        || name.eq_ignore_ascii_case(b"xpath_table")
}

/// True if the code in `text`, of a `DO`, speaks of what leaves traces that no answer of a server tells of, or is in
/// a language that is not PostgreSQL's own.
pub(in crate::state) fn may_leave_traces(text: &[u8]) -> bool {
    let mut language = false;
    let words = text.split(|&byte| byte == b'$' || !is_in_word(byte));
    words.filter(|word| !word.is_empty()).map(<[u8]>::to_ascii_lowercase).any(|word| {
        let of_a_language = std::mem::replace(&mut language, word == b"language");
        (of_a_language && !matches!(&word[..], b"plpgsql" | b"sql"))
            || matches!(&word[..], b"load" | b"deallocate")
            || word.starts_with(b"dblink")
            || special(&word) == Effects::SESSION_FUNCTION
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::sql::names::hash;

    #[test]
    fn a_block_that_may_leave_traces_is_told_from_others() {
        for text in [
            "DO $$ BEGIN PERFORM pg_catalog.SetSeed(0.5); END $$",
            "do $x$ begin execute 'select setseed(0)'; end $x$",
            "DO LANGUAGE plpython3u $$ pass $$",
            "DO $$return$$ LANGUAGE 'plperl'",
            "DO $$BEGIN PERFORM (setseed(0));END$$",
            "DO $$ BEGIN LOAD 'auto_explain'; END $$",
            "DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$",
            "DO $$ BEGIN PERFORM dblink_connect('x'); END $$",
        ] {
            assert!(may_leave_traces(text.as_bytes()), "{text}");
        }
        for text in [
            "DO $$ BEGIN PERFORM set_config('a.b', 'seed', false); END $$ LANGUAGE plpgsql",
            "DO LANGUAGE 'plpgsql' $$ BEGIN CREATE TABLE upload (id int); END $$",
            "DO $$ BEGIN NULL; END $$",
        ] {
            assert!(!may_leave_traces(text.as_bytes()), "{text}");
        }
    }

    fn of(name: &[u8], server_major: u16) -> Effects {
        effects_of(name, hash(name), server_major)
    }

    const CATALOGUE_15: &str = include_str!("../../../tests/data/functions/catalogue_15.txt");
    const CATALOGUE_18: &str = include_str!("../../../tests/data/functions/catalogue_18.txt");

    #[test]
    fn every_function_called_harmless_is_in_the_catalogue_of_its_version() {
        for (list, catalogue) in [
            (include_str!("functions_15.txt"), CATALOGUE_15),
            (include_str!("functions_18.txt"), CATALOGUE_18),
        ] {
            let catalogue: std::collections::HashSet<&str> = catalogue.split_whitespace().collect();
            assert!(catalogue.len() > 2000);
            for name in list.split_whitespace() {
                assert!(catalogue.contains(name), "{name}");
                assert_eq!(of(name.as_bytes(), 18), Effects::NONE, "{name}");
            }
        }
    }

    /// A function of the catalogue is in a list, or here with what it does.
    #[test]
    fn every_function_of_the_catalogue_that_may_leave_state_has_the_effect_of_its_kind() {
        for name in CATALOGUE_15.split_whitespace() {
            let expected = if name.contains("advisory") && !name.contains("xact") {
                if name.ends_with("unlock_all") {
                    Effects::ADVISORY_UNLOCK_ALL
                } else if name.contains("unlock") {
                    Effects::ADVISORY_UNLOCK
                } else {
                    Effects::ADVISORY_LOCK
                }
            } else if ["nextval", "setval"].contains(&name) {
                Effects::SEQUENCE_NEXT
            } else if ["currval", "lastval"].contains(&name) {
                Effects::SEQUENCE_READ
            } else if name == "set_config" {
                Effects::SET_CONFIG
            } else if name.starts_with("query_to_xml") || ["ts_stat", "ts_rewrite"].contains(&name)
            {
                TEXT
            } else if name.contains("_to_xml") && !name.starts_with("xml") {
                Effects::USER_FUNCTION
            } else {
                continue;
            };
            assert_eq!(of(name.as_bytes(), 18), expected, "{name}");
        }
    }

    #[test]
    fn a_function_that_is_new_in_18_is_trusted_on_18_only() {
        assert_eq!(of(b"uuidv7", 18), Effects::NONE);
        assert_eq!(of(b"uuidv7", 15), Effects::USER_FUNCTION);
        assert_eq!(of(b"uuidv7", 0), Effects::USER_FUNCTION);
    }
}
