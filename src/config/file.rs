//! The TOML file: walks it along the table of keys. Takes its text; reading it is [`super::Config::load`]'s.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::draft::{Draft, Entry};
use super::entry_keys::ENTRY_KEYS;
use super::errors::{Origin, PROBLEMS_MAX, Problem};
use super::keys::{self, AUTH, AUTH_MAX, KEYS, Key};
use super::suggest;
use super::value::{Given, Value};

/// Most syntax errors reported: after a few, they only follow from each other.
const SYNTAX_ERRORS_MAX: usize = 10;

/// Puts what a file's text says into the draft.
///
/// # Errors
/// The text is no TOML; nothing was put.
pub(super) fn read(name: &Path, text: &str, draft: &mut Draft) -> Result<(), Vec<Problem>> {
    let newlines: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let file = File { name, text, newlines: &newlines };
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        file.table("", root.get_ref(), draft);
        return Ok(());
    }
    let problem = |error: &toml::de::Error| Problem {
        origin: file.position(error.span().unwrap_or_default().start),
        key: None,
        wrong: format!("is not TOML: {}", error.message()),
        right: String::new(),
    };
    Err(errors.iter().take(SYNTAX_ERRORS_MAX).map(problem).collect())
}

/// A file's name and text.
#[derive(Clone, Copy, Debug)]
struct File<'a> {
    name: &'a Path,
    text: &'a str,
    /// Offsets of the line ends, so that finding a line does not read the text again for each key.
    newlines: &'a [usize],
}

impl<'a> File<'a> {
    /// A table at a path that is the root or a section.
    fn table(self, path: &str, table: &DeTable<'_>, draft: &mut Draft) {
        for (name, value) in table {
            let origin = self.line(name.span());
            let name = name.get_ref();
            let path = if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
            if name.contains('.') {
                unknown(&path, &path, origin, draft);
            } else if let Some(key) = KEYS.iter().find(|key| key.path == path) {
                draft.put(key, &self.given(value.get_ref(), &mut String::new()), origin);
            } else if path == AUTH {
                self.entries(value, origin, draft);
            } else if is_section(&path) {
                self.section(&path, value.get_ref(), origin, draft);
            } else {
                unknown(&path, &path, origin, draft);
            }
        }
    }

    fn section(self, path: &str, value: &DeValue<'_>, origin: Origin, draft: &mut Draft) {
        match value {
            DeValue::Table(table) => self.table(path, table, draft),
            _ => draft.complain(
                origin,
                path,
                format!("is {}, not a section", named(value)),
                format!("write [{path}] on a line of its own, and its keys below"),
            ),
        }
    }

    /// The list of database users.
    fn entries(self, value: &Spanned<DeValue<'_>>, origin: Origin, draft: &mut Draft) {
        let DeValue::Array(array) = value.get_ref() else {
            let wrong = format!("is {}, not a list", named(value.get_ref()));
            draft.complain(
                origin,
                AUTH,
                wrong,
                format!("write [[{AUTH}]], with two brackets, before each entry"),
            );
            return;
        };
        if array.len() > AUTH_MAX {
            let wrong = format!("has {} entries", array.len());
            draft.complain(origin, AUTH, wrong, format!("expected at most {AUTH_MAX}"));
            return;
        }
        for (index, entry) in array.iter().enumerate() {
            let origin = self.line(entry.span());
            draft.begin_entry(origin.clone());
            match entry.get_ref() {
                DeValue::Table(table) => self.entry(index, table, draft),
                other => {
                    let wrong = format!("is {}, not a table", named(other));
                    let name = format!("{AUTH}[{index}]");
                    draft.complain(
                        origin,
                        &name,
                        wrong,
                        format!("write [[{AUTH}]] and its keys below"),
                    );
                    // The entry is not to be blamed for having no secret as well.
                    let secret = keys::entry_name(index, "secret_file");
                    draft.given.insert(secret, Origin::Default);
                }
            }
        }
    }

    fn entry(self, index: usize, table: &DeTable<'_>, draft: &mut Draft) {
        for (name, value) in table {
            let origin = self.line(name.span());
            let name = name.get_ref();
            if let Some(key) = entry_key(name) {
                let mut words = String::new();
                let given = self.given(value.get_ref(), &mut words);
                draft.put_in_entry(index, key, &given, origin);
            } else {
                let path = format!("{AUTH}.{name}");
                unknown(&path, &keys::entry_name(index, name), origin, draft);
            }
        }
    }

    /// `words` is where those of a list are put.
    fn given<'v>(self, value: &'v DeValue<'_>, words: &'v mut String) -> Given<'v>
    where
        'a: 'v,
    {
        let directory = self.name.parent().unwrap_or(Path::new(""));
        let value = match value {
            DeValue::String(text) => Value::Text(text),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Unfit("an integer of more than 64 bits"), Value::Integer),
            DeValue::Array(array) if array.iter().all(|one| one.get_ref().is_str()) => {
                let texts = array.iter().filter_map(|one| one.get_ref().as_str());
                *words = texts.collect::<Vec<_>>().join(",");
                Value::List(words)
            }
            other => Value::Unfit(named(other)),
        };
        Given { value, directory }
    }

    /// The line of something, without a column.
    fn line(self, span: Range<usize>) -> Origin {
        Origin::File {
            name: self.name.to_owned(),
            line: Some(self.newlines_before(span.start) + 1),
            column: None,
        }
    }

    fn position(self, offset: usize) -> Origin {
        let newlines = self.newlines_before(offset);
        let last = newlines.checked_sub(1).and_then(|last| self.newlines.get(last));
        let line_start = last.map_or(0, |newline| newline + 1);
        let before = self.text.get(line_start..offset).unwrap_or_default();
        Origin::File {
            name: self.name.to_owned(),
            line: Some(newlines + 1),
            column: Some(before.chars().count() + 1),
        }
    }

    fn newlines_before(self, offset: usize) -> usize {
        self.newlines.partition_point(|newline| *newline < offset)
    }
}

/// The key of an entry by its name.
pub(super) fn entry_key(name: &str) -> Option<&'static Key<Entry>> {
    ENTRY_KEYS.iter().find(|key| key.path == name)
}

fn is_section(path: &str) -> bool {
    let inside =
        |key: &Key<Draft>| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
    KEYS.iter().any(inside)
}

/// The value of an unknown key is not repeated: it may be a password.
fn unknown(path: &str, name: &str, origin: Origin, draft: &mut Draft) {
    // Past what is shown, looking for the nearest key would be work for nothing.
    let wanted = draft.problems.len() < PROBLEMS_MAX;
    let suggestion = Some(path).filter(|_| wanted).and_then(suggest::key);
    let right = suggestion.map_or_else(
        || "the keys are in config/reference.toml".to_owned(),
        |suggestion| suggestion.to_string(),
    );
    draft.complain(origin, name, "is not a setting", right);
}

/// A value's type, as the end of "is ...".
fn named(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
