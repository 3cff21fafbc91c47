//! `config/reference.toml`: every key with its default and one line of meaning, written from the table.

use std::fmt::Write as _;

use super::entry_keys::ENTRY_KEYS;
use super::keys::{AUTH, Example, Fallback, KEYS, Key};
use super::value::Value;

const HEAD: &str = "\
# Every setting of pgweir with its default. Written from the program's own table: a change belongs in src/config/keys.rs.
#
# A key without a default is commented out, with an example.
# Each key is also an environment variable, which beats the file: PGWEIR_PROXY_LISTEN is listen of [proxy], and
# PGWEIR_PROXY_AUTH_0_SECRET_ARN is secret_arn of the first [[proxy.auth]].
# Relative file names start from this file's directory; in a variable, from the working directory.
# Durations: \"500ms\", \"30s\", \"5m\", \"24h\", \"7d\", sums such as \"1h30m\", or a plain number of seconds.
# Sizes: \"64KiB\", \"1MiB\", \"1GiB\", or a plain number of bytes.
# SIGHUP reads the file again. What a key marked [restart] says is in force after a restart only.
";

/// The text of `config/reference.toml`.
pub(super) fn render() -> String {
    let mut text = HEAD.to_owned();
    let mut section = "";
    for key in KEYS {
        let (of, name) = key.split();
        if of == section {
            text.push('\n');
        } else {
            end_section(section, &mut text);
            let _ = write!(text, "\n[{of}]\n");
            section = of;
        }
        write_key(key, name, &mut text);
    }
    end_section(section, &mut text);
    text
}

/// The list of database users is the last of its section, as TOML wants it.
fn end_section(section: &str, text: &mut String) {
    if AUTH.rsplit_once('.').map(|(of, _)| of) != Some(section) {
        return;
    }
    let _ = write!(
        text,
        "\n# One for each database user that clients log in as; at least one.\n[[{AUTH}]]\n"
    );
    for (number, key) in ENTRY_KEYS.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        write_key(key, key.path, text);
    }
}

fn write_key<O>(key: &Key<O>, name: &str, text: &mut String) {
    let _ = write!(text, "# {}", key.meaning);
    let range = key.place.range();
    if !range.is_empty() {
        let _ = write!(text, " ({range})");
    }
    text.push('.');
    if !key.pgbouncer.is_empty() {
        let _ = write!(text, " PgBouncer: {}.", key.pgbouncer.join(", "));
    }
    text.push_str(if key.live { "\n" } else { " [restart]\n" });
    let line = match key.fallback {
        Fallback::Required(example) | Fallback::Absent(Example::Text(example)) => {
            format!("# {name} = {example:?}")
        }
        Fallback::Absent(Example::Integer(example)) => format!("# {name} = {example}"),
        default => format!("{name} = {}", literal(default)),
    };
    text.push_str(&line);
    text.push('\n');
}

fn literal(default: Fallback) -> String {
    match default.value() {
        Some(Value::Text(text)) => format!("{text:?}"),
        Some(Value::Integer(number)) => number.to_string(),
        Some(Value::Flag(flag)) => flag.to_string(),
        Some(Value::List(_)) => "[]".to_owned(),
        _ => String::new(),
    }
}
