//! The table of keys against the documentation of the fields, and what no name of a key may do.

use super::entry_keys::ENTRY_KEYS;
use super::keys::{self, Fallback, KEYS};

/// The documentation of a field, as one line.
fn documentation(section: &str, field: &str) -> String {
    let source = include_str!("settings.rs");
    let mut name = section.to_owned();
    name.get_mut(..1).unwrap().make_ascii_uppercase();
    let (_, body) = source.split_once(&format!("pub struct {name} {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let (before, _) = body
        .split_once(&format!("pub {field}: "))
        .unwrap_or_else(|| panic!("{section} has no field {field}"));
    let lines = before.lines().rev().skip(1);
    let mut lines: Vec<_> = lines.map_while(|line| line.trim().strip_prefix("///")).collect();
    lines.reverse();
    lines.join("")
}

#[test]
fn fields_are_documented_with_the_default_and_the_bound_of_their_key() {
    for key in KEYS {
        let (section, name) = key.split();
        let default = match key.fallback {
            Fallback::Text("") => "Default empty".to_owned(),
            Fallback::Text(text) => format!("Default `{text}`"),
            Fallback::Integer(number) => format!("Default `{number}`"),
            Fallback::Flag(flag) => format!("Default `{flag}`"),
            Fallback::List => "Default none".to_owned(),
            Fallback::Required(_) => "required".to_owned(),
            // Part of a joined setting, or documented as `None`.
            Fallback::Absent(_) => continue,
        };
        if name == "max_connections_percent" {
            continue;
        }
        let documentation = documentation(section, name);
        assert!(documentation.contains(&default), "{}: {documentation}", key.path);
        let allowed = key.place.allowed();
        if let Some((_, most)) = allowed.rsplit_once(" to ")
            && name != "port"
        {
            assert!(documentation.contains(most), "{}: {documentation}", key.path);
        }
        for word in key.pgbouncer {
            let word = format!("`{word}`");
            assert!(documentation.contains(&word), "{}: {documentation}", key.path);
        }
    }
}

#[test]
fn no_two_keys_have_one_variable() {
    let entries = ENTRY_KEYS.iter().map(|key| keys::entry_variable(0, key.path));
    let mut variables: Vec<_> =
        KEYS.iter().map(|key| keys::variable(key.path)).chain(entries).collect();
    let all = variables.len();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), all);
}

#[test]
fn keys_of_a_section_stand_together() {
    let mut sections: Vec<_> = KEYS.iter().map(|key| key.split().0).collect();
    sections.dedup();
    assert_eq!(sections, ["proxy", "target", "admin", "fleet", "metrics", "log"]);
}
