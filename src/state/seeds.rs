//! Whether a statement may set `seed`, the seed of `random()`, as far as its text and its parameters show.
//!
//! It can be set like any setting, and not be read; the end of its transaction does not take it back, nor does RESET.
//! SET as a statement of its own is found where a text is read; here is what else sets it.
//!
//! Source: `check_random_seed` in `src/backend/commands/variable.c`

use super::mentioned::{Argument, first_arguments, value_of};
use super::sql::bytes::is_in_word;
use super::statement::Effects;
use memchr::memchr2_iter;

const SEED: &[u8] = b"seed";

/// What may set it unseen.
const SETS: Effects =
    Effects::SET_CONFIG.and(Effects::SET_LOCAL).and(Effects::DO).and(Effects::UNCERTAIN);

/// True if `text`, which does this, may set it. `values` is what a `Bind` has behind its names.
pub(super) fn may_seed(effects: Effects, text: &[u8], values: Option<&[u8]>) -> bool {
    if !effects.intersects(SETS) {
        return false;
    }
    // A setting that is named so (`SET U&"\0073eed"`), or a function that sets one, is not understood.
    let is_encoded = |three: &[u8]| three.eq_ignore_ascii_case(b"u&\"");
    if effects.intersects(Effects::UNCERTAIN) && text.windows(3).any(is_encoded) {
        return true;
    }
    let bound = values.unwrap_or_default();
    // In escapes it may be anywhere.
    let is_named = has_word(text) || text.contains(&b'\\');
    if !is_named && !has_word(bound) {
        return false;
    }
    // EXECUTE gives names to a text that is elsewhere.
    if effects.intersects(Effects::EXECUTE) && is_named {
        return true;
    }
    let calls = |text: &[u8], values| {
        let folded = text.to_ascii_lowercase();
        first_arguments(&folded).any(|argument| match argument {
            Argument::None => false,
            Argument::Text(name) => name == SEED,
            Argument::Parameter(number) => {
                value_of(values, number).is_none_or(|name| name.eq_ignore_ascii_case(SEED))
            }
            Argument::Expression => is_named || has_element(bound),
        })
    };
    calls(text, values)
        // What a text runs may be bound to it.
        || (effects.intersects(Effects::DO)
            && (sets(text) || sets(bound) || calls(bound, None)))
}

/// Where the word stands in `bytes`.
fn words(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let in_word = |byte: Option<&u8>| byte.is_some_and(|byte| is_in_word(*byte));
    memchr2_iter(b's', b'S', bytes).filter(move |&at| {
        let end = at + SEED.len();
        bytes.get(at..end).is_some_and(|word| word.eq_ignore_ascii_case(SEED))
            && !in_word(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && !in_word(bytes.get(end))
    })
}

fn has_word(bytes: &[u8]) -> bool {
    words(bytes).next().is_some()
}

/// True if the word is all of a value, or of one in a list, an array or an object.
fn has_element(values: &[u8]) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_none_or(|byte| !b" .-".contains(byte));
    words(values).any(|at| {
        is_edge(at.checked_sub(1).and_then(|before| values.get(before)))
            && is_edge(values.get(at + SEED.len()))
    })
}

/// True if a SET of it seems to stand in `text`, in code or in a string of it.
fn sets(text: &[u8]) -> bool {
    // Between the words of a statement.
    let is_commented = || text.windows(2).any(|two| matches!(two, b"--" | b"/*"));
    words(text).any(|at| {
        let before = text.get(..at).unwrap_or_default();
        let before = before.strip_suffix(b"\"").unwrap_or(before);
        let (mut before, mut word) = last_word(before);
        if word.eq_ignore_ascii_case(b"local") || word.eq_ignore_ascii_case(b"session") {
            (before, word) = last_word(before);
        }
        if !word.eq_ignore_ascii_case(b"set") {
            return false;
        }
        // Elsewhere it is a column that an UPDATE sets.
        let (_, word) = last_word(before);
        let begins = [&b""[..], b"begin", b"then", b"else", b"loop"];
        let is_quoted = before.trim_ascii_end().ends_with(b"\"");
        begins.iter().any(|begin| word.eq_ignore_ascii_case(begin)) && !is_quoted || is_commented()
    })
}

/// The word at the end of `text`, if there is one, and what stands before it.
fn last_word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_end();
    let begins = text.iter().rposition(|&byte| byte == b'$' || !is_in_word(byte));
    text.split_at_checked(begins.map_or(0, |at| at + 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::statement::{self, Options};
    use super::*;

    fn seeds(text: &str, values: &[&str]) -> bool {
        let mut bind = Vec::new();
        crate::wire::encode::bind_text(&mut bind, b"", values);
        let effects = statement::effects(text.as_bytes(), Options::default());
        // Behind the header and two empty names.
        effects.intersects(Effects::SESSION_FUNCTION)
            || may_seed(effects, text.as_bytes(), bind.get(7..))
    }

    #[test]
    fn a_seed_is_found_however_it_is_set() {
        for (text, values) in [
            ("SET seed = 0.5", &[][..]),
            ("SET LOCAL \"Seed\" TO 0.5", &[]),
            ("SET SESSION SEED TO 0.5", &[]),
            (r#"SET U&"\0073eed" = 0.5"#, &[]),
            (r#"SELECT U&"\0073et_config"('seed', '0.5', true)"#, &[]),
            (r#"EXECUTE U&"\0071"('seed')"#, &[]),
            ("SELECT set_config('seed', '0.5', false)", &[]),
            ("SELECT pg_catalog.set_config ( 'Seed'::text, $1, true)", &["0.5"]),
            (r"SELECT set_config(E'\x73eed', '0.5', true)", &[]),
            ("SELECT set_config(name, '0.5', true) FROM (VALUES ('seed')) AS t (name)", &[]),
            ("SELECT set_config($1, $2, false)", &["seed", "0.5"]),
            ("SELECT set_config($2, $1, true)", &["0.5", "SEED"]),
            ("SELECT set_config(key, value, true) FROM json_each_text($1)", &[r#"{"seed":"0"}"#]),
            ("SELECT set_config(n, '0', true) FROM unnest($1::text[]) AS n", &["{a,seed}"]),
            ("DO $$BEGIN SET seed = 0.5; END$$", &[]),
            ("DO $$BEGIN NULL; SET LOCAL seed TO 0.5; END$$", &[]),
            ("DO 'BEGIN IF x THEN SET SESSION \"seed\" = 1; END IF; END'", &[]),
            ("DO $$BEGIN -- the\n SET seed = 0.5; END$$", &[]),
            ("DO $$BEGIN EXECUTE 'SET seed = 0.5'; END$$", &[]),
            ("DO $$BEGIN PERFORM set_config('seed', '0.5', true); END$$", &[]),
            ("DO $$BEGIN EXECUTE 'SELECT set_config(''seed'', ''0'', true)'; END$$", &[]),
            ("SELECT query_to_xml($1, true, false, '')", &["SELECT set_config('seed', '0', true)"]),
        ] {
            assert!(seeds(text, values), "{text}");
        }
    }

    #[test]
    fn other_settings_and_columns_are_none() {
        for (text, values) in [
            ("SELECT set_config('myapp.tenant', 'seed', false)", &[][..]),
            ("SELECT set_config('myapp.seed', '7', true)", &[]),
            ("SELECT set_config($1, $2, true), 1 AS seed", &["myapp.tenant", "seed"]),
            (
                "SELECT set_config(el->>0, el->>1, true) FROM json_array_elements($1::json) AS el",
                &[r#"[["myapp.tenant", "Seed Ltd"], ["myapp.seed", "the-seed"]]"#],
            ),
            ("SET LOCAL myapp.seed = 'seed'", &[]),
            ("SET LOCAL work_mem = '1MB'; UPDATE t SET seed = 1", &[]),
            ("SET geqo_seed = 0.5", &[]),
            ("SELECT 1 AS seed", &[]),
            ("DO $$BEGIN UPDATE games SET seed = 1; END$$", &[]),
            ("DO $$BEGIN UPDATE \"Games\" SET seed = 1; END$$", &[]),
            ("DO $$BEGIN INSERT INTO t VALUES (1) ON CONFLICT DO UPDATE SET seed = 1; END$$", &[]),
            ("DO $$BEGIN PERFORM set_config('a.b', 'seed', false); END$$", &[]),
        ] {
            assert!(!seeds(text, values), "{text}");
        }
    }
}
