//! The settings that a client gives at its connect, in the startup packet and its `options`.
//!
//! Sources: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-OPTIONS>,
//! `src/backend/utils/misc/guc.c`

use crate::state::settings::Settings;
use crate::wire::startup::{self, Startup};
use crate::wire::{ErrorResponse, SqlState};

/// What `transaction_isolation` can be.
const LEVELS: [&str; 4] = ["serializable", "repeatable read", "read committed", "read uncommitted"];

/// Those of `startup`; the packet's own come last and win.
///
/// # Errors
/// What the client is told: one of them cannot be.
pub(super) fn settings_of(startup: &Startup<'_>) -> Result<Settings, ErrorResponse> {
    let options = startup::read_options(startup.get("options").unwrap_or_default())
        .map_err(|error| ErrorResponse::fatal(SqlState(*b"42601"), error.to_string()))?;
    let own = startup.parameters.iter().copied().filter(|(name, _)| {
        !matches!(*name, "user" | "database" | "options" | "replication")
            && !name.starts_with("_pq_.")
    });
    let options = options.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut wanted = Vec::new();
    for (name, value) in options.chain(own) {
        if !means_nothing(name, value)? {
            wanted.push((name, value));
        }
    }
    Settings::new(wanted)
        .map_err(|error| ErrorResponse::fatal(SqlState(*b"42602"), error.to_string()))
}

/// True for what PostgreSQL takes at connect and does nothing with: a seed, and settings of the transaction.
///
/// A server that is told of them later does something with them, and cannot be told to reset them. (PostgreSQL 15
/// refuses the isolation level, if it is another one, and `transaction_deferrable`.)
fn means_nothing(name: &str, value: &str) -> Result<bool, ErrorResponse> {
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    let refused = |message| ErrorResponse::fatal(SqlState::INVALID_PARAMETER_VALUE, message);
    let invalid = |name| refused(format!("invalid value for parameter \"{name}\": \"{value}\""));
    if is("seed") {
        let seed = value.trim_ascii().parse::<f64>().ok().filter(|seed| !seed.is_nan());
        let seed = seed.ok_or_else(|| invalid("seed"))?;
        if !(-1.0..=1.0).contains(&seed) {
            return Err(refused(format!(
                "{seed} is outside the valid range for parameter \"seed\" (-1 .. 1)"
            )));
        }
        return Ok(true);
    }
    if is("transaction_isolation") {
        if !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(value)) {
            return Err(invalid("transaction_isolation")
                .with_hint(format!("Available values: {}.", LEVELS.join(", "))));
        }
        return Ok(true);
    }
    let flag =
        ["transaction_read_only", "transaction_deferrable"].into_iter().find(|flag| is(flag));
    if let Some(flag) = flag
        && !is_bool(value)
    {
        return Err(refused(format!("parameter \"{flag}\" requires a Boolean value")));
    }
    Ok(flag.is_some())
}

/// True for what PostgreSQL reads as a Boolean: a word, or a beginning of it that cannot be mistaken.
fn is_bool(value: &str) -> bool {
    const WORDS: [(&str, usize); 6] =
        [("true", 1), ("false", 1), ("yes", 1), ("no", 1), ("on", 2), ("off", 2)];
    let begins =
        |word: &str| word.get(..value.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(value));
    matches!(value, "1" | "0")
        || WORDS.iter().any(|(word, shortest)| value.len() >= *shortest && begins(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(parameters: &[(&str, &str)]) -> Result<Vec<(String, String)>, ErrorResponse> {
        let startup = Startup { version: startup::PROTOCOL_3_0, parameters: parameters.to_vec() };
        let settings = settings_of(&startup)?;
        Ok(settings.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn the_packet_beats_its_options() {
        let told = asked(&[
            ("user", "app"),
            ("timezone", "UTC"),
            ("options", "-c TimeZone=Asia/Tokyo -c work_mem=5MB"),
        ]);
        let expected = [("timezone", "UTC"), ("work_mem", "5MB")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(told.unwrap(), expected);
    }

    #[test]
    fn what_means_nothing_at_connect_is_read_and_left_out() {
        for (name, value) in [
            ("seed", " 0.5 "),
            ("SEED", "-1"),
            ("transaction_isolation", "SERIALIZABLE"),
            ("transaction_read_only", "on"),
            ("Transaction_Deferrable", "Fa"),
            ("options", "-c transaction-read-only=of --seed=1e-3"),
        ] {
            assert_eq!(asked(&[(name, value)]).unwrap(), [], "{name} = {value}");
        }
        for (name, value) in [
            ("seed", "1.5"),
            ("seed", "nan"),
            ("seed", ""),
            ("transaction_isolation", "chaos"),
            ("transaction_read_only", "o"),
            ("transaction_read_only", "trues"),
            ("transaction_deferrable", ""),
        ] {
            assert!(asked(&[(name, value)]).is_err(), "{name} = {value}");
        }
        assert_eq!(asked(&[("geqo_seed", "0.5")]).unwrap().len(), 1);
    }
}
