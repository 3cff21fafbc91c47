//! "Did you mean": the key that somebody probably meant by a name that is none.

use super::entry_keys::ENTRY_KEYS;
use super::keys::{self, AUTH, KEYS};

/// Longest name that is compared, in characters; no key comes near it.
const COMPARED_MAX: usize = 64;

/// What a name that is no key may have been meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Suggestion {
    /// Another spelling, or another section.
    Meant(String),
    /// PgBouncer's word for something.
    CalledHere(String),
}

impl std::fmt::Display for Suggestion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Meant(name) => write!(f, "did you mean {name}?"),
            Self::CalledHere(name) => write!(f, "PgBouncer's word; it is called {name} here"),
        }
    }
}

/// The key or section closest to a path of the file; `proxy.auth.x` stands for `x` in an entry of the list.
pub(super) fn key(path: &str) -> Option<Suggestion> {
    let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
    let known = known_paths();
    let named_so = |(path, _): &&(String, &[&str])| path.rsplit('.').next() == Some(name);
    if let Some((path, _)) = known.iter().find(named_so) {
        return Some(Suggestion::Meant(path.clone()));
    }
    if let Some((path, _)) = known.iter().find(|(_, words)| words.contains(&name)) {
        return Some(Suggestion::CalledHere(path.clone()));
    }
    let distance = |path: &str| {
        let (other_section, other) = path.rsplit_once('.').unwrap_or(("", path));
        edit_distance(name, other).map(|edits| 2 * edits + usize::from(section != other_section))
    };
    let mut candidates: Vec<_> = known.iter().map(|(path, _)| path.as_str()).collect();
    if section.is_empty() {
        candidates.extend(KEYS.iter().map(|key| -> &str { key.split().0 }));
    }
    let meant = nearest(&candidates, name, distance)?;
    Some(Suggestion::Meant(meant.to_owned()))
}

/// The variable closest to a name that is none; both in full.
pub(super) fn variable(name: &str) -> Option<Suggestion> {
    let own = |name: &str| name.strip_prefix(keys::VARIABLE_PREFIX).unwrap_or_default().to_owned();
    let index = name.split('_').find_map(|part| part.parse().ok()).unwrap_or(0);
    let entries = ENTRY_KEYS.iter().map(|key| keys::entry_variable(index, key.path));
    let known: Vec<_> = KEYS.iter().map(|key| keys::variable(key.path)).chain(entries).collect();
    let candidates: Vec<_> = known.iter().map(String::as_str).collect();
    let name = own(name);
    if let Some(same) =
        known.iter().find(|other| own(other).split_once('_').is_some_and(|(_, rest)| rest == name))
    {
        return Some(Suggestion::Meant(same.clone()));
    }
    let distance = |other: &str| edit_distance(&name, &own(other)).map(|edits| 2 * edits);
    nearest(&candidates, &name, distance).map(|meant| Suggestion::Meant(meant.to_owned()))
}

/// Paths with PgBouncer's words for them.
fn known_paths() -> Vec<(String, &'static [&'static str])> {
    let entries = ENTRY_KEYS.iter().map(|key| (format!("{AUTH}.{}", key.path), key.pgbouncer));
    let top = KEYS.iter().map(|key| (key.path.to_owned(), key.pgbouncer));
    top.chain(entries).collect()
}

/// The candidate that takes the fewest edits, if these are few for a name of this length.
fn nearest<'a>(
    candidates: &[&'a str],
    name: &str,
    distance: impl Fn(&str) -> Option<usize>,
) -> Option<&'a str> {
    // Twice the edits plus one for another section, so that a third of the name may be wrong.
    let most = 2 * (name.chars().count() / 3).max(1) + 1;
    let near = candidates.iter().filter_map(|other| Some((distance(other)?, *other)));
    near.filter(|(edits, _)| *edits <= most).min_by_key(|(edits, _)| *edits).map(|(_, other)| other)
}

/// Insertions, deletions, replacements and swaps of neighbours that make `b` of `a` (optimal string alignment).
///
/// `None`: one is too long to be compared.
fn edit_distance(a: &str, b: &str) -> Option<usize> {
    let a: Vec<char> = a.chars().take(COMPARED_MAX + 1).collect();
    let b: Vec<char> = b.chars().take(COMPARED_MAX + 1).collect();
    if a.len().max(b.len()) > COMPARED_MAX {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, from) in a.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in b.iter().enumerate() {
            let at =
                |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&above, column) + usize::from(from != to);
            let removed = at(&above, column + 1) + 1;
            let inserted = at(&current, column) + 1;
            let mut least = replaced.min(removed).min(inserted);
            let swap = row.checked_sub(1).zip(column.checked_sub(1));
            if let Some((previous_row, previous)) = swap
                && a.get(previous_row) == Some(to)
                && b.get(previous) == Some(from)
            {
                least = least.min(at(&before, previous) + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
    }
    above.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(name: &str) -> Suggestion {
        Suggestion::Meant(name.to_owned())
    }

    #[test]
    fn a_misspelt_key_is_recognised() {
        assert_eq!(key("proxy.lisen"), Some(meant("proxy.listen")));
        assert_eq!(key("admin.lisetn"), Some(meant("admin.listen")));
        assert_eq!(key("proxy.idle_client_timout"), Some(meant("proxy.idle_client_timeout")));
        assert_eq!(key("proxy.auth.secret_fiel"), Some(meant("proxy.auth.secret_file")));
        assert_eq!(key("porxy"), Some(meant("proxy")));
    }

    #[test]
    fn a_key_in_the_wrong_section_is_recognised() {
        assert_eq!(
            key("target.max_client_connections"),
            Some(meant("proxy.max_client_connections"))
        );
        assert_eq!(key("host"), Some(meant("target.host")));
        assert_eq!(key("proxy.secret_file"), Some(meant("proxy.auth.secret_file")));
    }

    #[test]
    fn the_words_of_pgbouncer_are_translated() {
        let borrow = Suggestion::CalledHere("target.connection_borrow_timeout".to_owned());
        assert_eq!(key("target.query_wait_timeout"), Some(borrow));
    }

    #[test]
    fn what_resembles_nothing_gets_no_suggestion() {
        for name in ["proxy.zzzzzz", "x", "", "proxy.", "\u{1f600}"] {
            assert_eq!(key(name), None, "{name}");
        }
        assert_eq!(key(&"listen".repeat(1000)), None);
    }

    #[test]
    fn a_misspelt_variable_is_recognised() {
        assert_eq!(variable("PGWEIR_PROXY_LISTN"), Some(meant("PGWEIR_PROXY_LISTEN")));
        assert_eq!(variable("PGWEIR_HOST"), Some(meant("PGWEIR_TARGET_HOST")));
        assert_eq!(
            variable("PGWEIR_PROXY_AUTH_3_SECRET_FIEL"),
            Some(meant("PGWEIR_PROXY_AUTH_3_SECRET_FILE"))
        );
        assert_eq!(variable("PGWEIR_QQQQ"), None);
    }

    #[test]
    fn distances_count_each_edit_once() {
        for (a, b, edits) in [
            ("", "", 0),
            ("", "ab", 2),
            ("ab", "ba", 1),
            ("kitten", "sitting", 3),
            ("abc", "abc", 0),
        ] {
            assert_eq!(edit_distance(a, b), Some(edits), "{a} {b}");
            assert_eq!(edit_distance(b, a), Some(edits), "{b} {a}");
        }
    }
}
