//! Whatever is given as a configuration, an answer comes out.

use pgweir::config::{Config, ConfigErrors};
use proptest::prelude::*;

use super::{EXAMPLE, MINIMAL, REFERENCE, is_assignment, messages, parse};

/// Not timed, but each of these would take minutes if its cost grew with the square of its size.
#[test]
fn a_hostile_file_is_answered() {
    let many_keys: String =
        (0..60_000).fold(String::new(), |text, number| text + &format!("k{number} = 1\n"));
    assert!(messages(parse(&many_keys)).ends_with("more"));
    let _ = messages(parse(&"[".repeat(1 << 20)));
    let _ = messages(parse(&format!("a = {}", "[".repeat(1 << 19))));
    let _ = messages(parse(&"a.".repeat(1 << 19)));
    let deep = "a.".repeat((1 << 19) - 4);
    let _ = messages(parse(&format!("{deep}a = 1")));
    let _ = messages(parse(&format!("[{deep}a]")));
    let _ = messages(parse(&"[[proxy.auth]]\n".repeat(60_000)));
}

/// Pieces that TOML and the table of keys care about, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "[",
        "]",
        "[[",
        "]]",
        "proxy",
        "auth",
        "target",
        "admin",
        "log",
        ".",
        "=",
        " ",
        "\n",
        "\"",
        "'",
        "\"\"\"",
        "listen",
        "host",
        "secret_file",
        "secret_arn",
        "max_connections",
        "tls",
        "{",
        "}",
        ",",
        "#",
        "\\u0000",
        "0x",
        "9999999999999999999999",
        "1979-05-27",
        "-1",
        "1e400",
        "nan",
        "true",
        "\"120s\"",
        "\"\"",
        "\u{feff}",
        "\r",
    ]);
    let piece = prop_oneof![8 => words.prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// One of the delivered files with a stretch of it replaced.
fn damaged() -> impl Strategy<Value = String> {
    let file = prop::sample::select(vec![REFERENCE, MINIMAL, EXAMPLE]);
    (file, any::<prop::sample::Index>(), 0..40_usize, pieces()).prop_map(
        |(file, at, length, pieces)| {
            let characters: Vec<char> = file.chars().collect();
            let at = at.index(characters.len());
            let (before, after) = characters.split_at(at);
            let after = after.iter().skip(length);
            before.iter().chain(pieces.chars().collect::<Vec<_>>().iter()).chain(after).collect()
        },
    )
}

/// Whatever comes in, an answer comes out, and a refusal is a list of lines that say something.
fn assert_answered(parsed: Result<Config, ConfigErrors>) {
    let Err(errors) = parsed else {
        return;
    };
    assert!(!errors.problems().is_empty());
    let shown = errors.to_string();
    assert!(shown.lines().count() <= errors.problems().len() + 1, "{shown:?}");
    assert!(shown.lines().all(|line| !line.trim().is_empty()), "{shown:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        assert_answered(parse(&text));
    }

    #[test]
    fn any_pieces_of_a_configuration_are_answered(text in pieces()) {
        assert_answered(parse(&text));
    }

    #[test]
    fn any_damaged_file_is_answered(text in damaged()) {
        assert_answered(parse(&text));
    }

    #[test]
    fn any_environment_is_answered(
        variables in prop::collection::vec(("PGWEIR_(PROXY|TARGET|LOG|ADMIN)?_?(AUTH_[0-9]{1,4}_)?[A-Z_]{0,30}", any::<String>()), 0..8),
    ) {
        assert_answered(Config::parse("", None, variables.into_iter()));
    }

    /// A value that is shown at all is shown on one line, whatever it is.
    #[test]
    fn any_value_of_any_key_is_answered(value in any::<String>(), key in any::<prop::sample::Index>()) {
        let names: Vec<_> = REFERENCE
            .lines()
            .map(|line| line.trim_start_matches("# "))
            .filter(|line| is_assignment(line))
            .filter_map(|line| line.split(" = ").next())
            .collect();
        let name = names[key.index(names.len())].to_uppercase();
        for section in ["PROXY", "TARGET", "ADMIN", "LOG", "PROXY_AUTH_0"] {
            let variable = (format!("PGWEIR_{section}_{name}"), value.clone());
            assert_answered(Config::parse("", None, std::iter::once(variable)));
        }
    }
}
