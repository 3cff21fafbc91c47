//! The custom settings (`myapp.tenant`) that a statement may set, as far as its text and its parameters show.
//!
//! PostgreSQL lists every setting that a session has changed, but for these: they must be asked for by name.
//! A name too many costs nothing, as PostgreSQL answers NULL for it. Where a name cannot be seen,
//! [`Mentioned::is_blind`] says so.
//!
//! Source: <https://www.postgresql.org/docs/current/runtime-config-custom.html>

use super::settings::is_name;
use super::sql::handed::{hands_on_unseen_text, may_run_text};
use super::statement::{self, Command, Effects, Options};
use memchr::memmem;
use std::collections::BTreeSet;

/// Most names kept of a session that is not examined yet; one with more counts as blind.
const NAMES_MAX: usize = 64;

/// Names seen since the session was found clean.
#[derive(Default)]
pub(super) struct Mentioned {
    names: BTreeSet<Box<str>>,
    blind: bool,
}

impl Mentioned {
    /// The names, in lower case.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// True if there may be others.
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    /// Takes note of a statement that is about to run. `values` is what a `Bind` has behind its names, as far as it
    /// is at hand.
    pub(super) fn note(
        &mut self,
        text: &[u8],
        values: Option<&[u8]>,
        effects: Effects,
        options: Options,
    ) {
        if effects.intersects(Effects::SET_SESSION) {
            self.note_commands(text, options);
        }
        let unseen = Effects::DO | Effects::UNCERTAIN | Effects::PREPARE;
        if effects.intersects(Effects::SET_CONFIG | unseen) {
            self.note_anywhere(text);
            self.note_calls(text, values);
        }
        if effects.intersects(unseen) {
            self.blind |= builds_a_set(text) || hands_on_unseen_text(text, options);
        }
        // One of the values may be a text that is run.
        if let Some(values) = values.filter(|_| effects.intersects(Effects::DO)) {
            self.note_anywhere(values);
            self.note_calls(values, None);
            self.blind |= may_run_text(values);
        }
    }

    fn add(&mut self, name: &[u8]) {
        if !name.contains(&b'.') {
            return;
        }
        let Ok(name) = std::str::from_utf8(name) else { return };
        if !is_name(name) {
            return;
        }
        if self.names.len() >= NAMES_MAX {
            self.blind = true;
        } else {
            self.names.insert(name.to_ascii_lowercase().into());
        }
    }

    fn note_commands(&mut self, text: &[u8], options: Options) {
        for statement in statement::statements(text, options) {
            if let (Command::Set | Command::Reset, Some(name)) =
                (statement.command(), statement.name())
            {
                self.add(&name);
            }
        }
    }

    /// Whatever looks like such a name, in strings and in the bodies of functions too.
    fn note_anywhere(&mut self, text: &[u8]) {
        let in_name =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"_$.".contains(byte) || *byte >= 0x80;
        for word in text.split(|byte| !in_name(byte)) {
            if word.contains(&b'.') && !word.starts_with(b"pg_catalog.") {
                self.add(word.trim_ascii_end().strip_suffix(b".").unwrap_or(word));
            }
        }
    }

    /// The first argument of each `set_config` must be a plain string, or a parameter whose value is at hand.
    fn note_calls(&mut self, text: &[u8], values: Option<&[u8]>) {
        for argument in first_arguments(&text.to_ascii_lowercase()) {
            match argument {
                Argument::None | Argument::Text(_) => {}
                Argument::Parameter(number) => match value_of(values, number) {
                    Some(name) if std::str::from_utf8(name).is_ok_and(is_name) => self.add(name),
                    _ => self.blind = true,
                },
                Argument::Expression => self.blind = true,
            }
        }
    }
}

/// The first argument of a call of `set_config`.
pub(super) enum Argument<'a> {
    /// It is no call.
    None,
    /// A string of letters.
    Text(&'a [u8]),
    /// `$1`, counted from 1.
    Parameter(usize),
    Expression,
}

/// Those of the calls in a text without upper case.
pub(super) fn first_arguments(folded: &[u8]) -> impl Iterator<Item = Argument<'_>> {
    const CALL: &[u8] = b"set_config";
    memmem::find_iter(folded, CALL)
        .map(|at| first_argument(folded.get(at + CALL.len()..).unwrap_or_default()))
}

fn first_argument(behind: &[u8]) -> Argument<'_> {
    let behind = behind.strip_prefix(b"\"").unwrap_or(behind).trim_ascii_start();
    let Some(arguments) = behind.strip_prefix(b"(") else {
        // A comment could stand before the parenthesis.
        let comment = behind.starts_with(b"/*") || behind.starts_with(b"--");
        return if comment { Argument::Expression } else { Argument::None };
    };
    let arguments = arguments.trim_ascii_start();
    let ends = |rest: &[u8]| {
        let rest = rest.trim_ascii_start();
        rest.starts_with(b",") || rest.starts_with(b"::")
    };
    match arguments.split_first() {
        Some((b'\'', string)) => {
            let end = string.iter().position(|&byte| byte == b'\'').unwrap_or(string.len());
            let (name, rest) = string.split_at(end);
            let plain = std::str::from_utf8(name).is_ok_and(is_name);
            if plain && ends(rest.get(1..).unwrap_or_default()) {
                Argument::Text(name)
            } else {
                Argument::Expression
            }
        }
        Some((b'$', number)) => {
            let end = number.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(number.len());
            let (digits, rest) = number.split_at(end);
            let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            match number {
                Some(number) if ends(rest) => Argument::Parameter(number),
                _ => Argument::Expression,
            }
        }
        _ => Argument::Expression,
    }
}

/// The value of parameter `number` (from 1) of a `Bind`, if it is a string in text format.
pub(super) fn value_of(values: Option<&[u8]>, number: usize) -> Option<&[u8]> {
    let at = number.checked_sub(1)?;
    let (count, rest) = values?.split_first_chunk::<2>()?;
    let formats = usize::from(u16::from_be_bytes(*count));
    let (codes, rest) = rest.split_at_checked(formats * 2)?;
    let format = match formats {
        0 => b"\0\0",
        1 => codes.get(..2)?,
        _ => codes.get(at * 2..at * 2 + 2)?,
    };
    // The bytes of a text are the same in both formats.
    if format != b"\0\0" && format != b"\0\x01" {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<2>()?;
    if at >= usize::from(u16::from_be_bytes(*count)) {
        return None;
    }
    for skip in (0..=at).rev() {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        let (value, behind) = match usize::try_from(length) {
            Ok(length) => {
                behind.split_at_checked(length).map(|(value, rest)| (Some(value), rest))?
            }
            Err(_) => (None, behind),
        };
        if skip == 0 {
            return value;
        }
        rest = behind;
    }
    None
}

/// True if a text runs other texts that it puts together, and one of them may be a SET.
fn builds_a_set(text: &[u8]) -> bool {
    let folded = text.to_ascii_lowercase();
    if memmem::find(&folded, b"execute").is_none() {
        return false;
    }
    memmem::find_iter(&folded, b"set").any(|at| {
        let before = folded.get(..at).unwrap_or_default();
        let before = before.strip_suffix(b"re").unwrap_or(before).trim_ascii_end();
        before.ends_with(b"'") || before.ends_with(b"$")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, values: &[&str]) -> (Vec<String>, bool) {
        let mut mentioned = Mentioned::default();
        let mut bind = Vec::new();
        crate::wire::encode::bind_text(&mut bind, b"", values);
        let effects = statement::effects(text.as_bytes(), Options::default());
        // Behind the header and two empty names.
        mentioned.note(text.as_bytes(), bind.get(7..), effects, Options::default());
        (mentioned.names().map(str::to_owned).collect(), mentioned.is_blind())
    }

    #[test]
    fn custom_settings_are_found_where_they_are_set() {
        for text in [
            "SET myapp.tenant = '1'",
            "set session MyApp.Tenant to 1",
            "RESET \"myapp\".tenant",
            "SET myapp . tenant = 1",
            "SELECT set_config('myapp.tenant', $1, false)",
            "SELECT 1; SELECT pg_catalog.set_config ( 'myapp.tenant'::text , '7', false)",
            "DO $$ BEGIN PERFORM set_config('myapp.tenant', '1', false); END $$",
            "DO $$ BEGIN SET myapp.tenant = 1; END $$",
        ] {
            assert_eq!(of(text, &[]), (vec!["myapp.tenant".to_owned()], false), "{text}");
        }
    }

    #[test]
    fn a_name_given_as_a_parameter_is_found() {
        let text = "SELECT set_config($2, $1, false)";
        assert_eq!(of(text, &["7", "myapp.tenant"]), (vec!["myapp.tenant".to_owned()], false));
        assert_eq!(of(text, &["myapp.other", "work_mem"]), (vec![], false));
        assert_eq!(of(text, &["7"]), (vec![], true));
        assert_eq!(of(text, &["7", "no name"]), (vec![], true));
    }

    #[test]
    fn what_cannot_be_seen_is_admitted() {
        for text in [
            "SELECT set_config('myapp.' || 'tenant', '1', false)",
            "SELECT set_config(name, '1', false) FROM settings",
            "SELECT set_config/**/('myapp.tenant', '1', false)",
            "SELECT set_config(E'myapp.\\164enant', '1', false)",
            "DO $$ BEGIN EXECUTE 'SET ' || 'myapp' || '.x = 1'; END $$",
        ] {
            assert!(of(text, &[]).1, "{text}");
        }
    }

    #[test]
    fn ordinary_settings_are_not_kept() {
        for text in ["SET work_mem = '1MB'", "SELECT set_config('work_mem', '1MB', false)"] {
            assert_eq!(of(text, &[]), (vec![], false), "{text}");
        }
        let many = (0..100).fold(String::new(), |text, n| text + &format!("SET a.b{n} = 1;"));
        let (names, blind) = of(&many, &[]);
        assert!(names.len() == NAMES_MAX && blind);
    }
}
