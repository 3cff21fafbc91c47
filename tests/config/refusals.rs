//! What is refused, and in which words.

use pgweir::config::{Config, Origin};

use super::{file, messages, parse, parse_with, seconds};

#[track_caller]
fn assert_refused(text: &str, expected: &str) {
    assert_eq!(messages(parse(text)), expected);
}

#[test]
fn everything_wrong_is_reported_at_once_with_its_line() {
    let text = include_str!("everything_wrong.toml");
    let expected = include_str!("everything_wrong.txt");
    let parsed = parse_with(
        text,
        &[
            ("PGWEIR_LOG_LEVEL", "loud"),
            ("PGWEIR_TARGET_HOTS", "db"),
            ("PGWEIR_PROXY_AUTH_9_SECRET_FILE", "far.json"),
            ("PGWEIR_TARGET_CONNECT_TIMEOUT", ""),
        ],
    );
    assert_eq!(messages(parsed), expected.trim_end());
}

#[test]
fn a_missing_key_says_where_it_belongs() {
    assert_refused(
        "",
        "pgweir.toml: target.host: is missing; write host = \"mydb.abc123.eu-central-1.rds.amazonaws.com\" below \
         [target], or set PGWEIR_TARGET_HOST\n\
         pgweir.toml: proxy.auth: has no entry, so that nobody could log in; write [[proxy.auth]] and secret_file or \
         secret_arn below, or set PGWEIR_PROXY_AUTH_0_SECRET_ARN",
    );
    assert_eq!(
        messages(Config::load(None, std::iter::empty())),
        "environment: target.host: is missing; set PGWEIR_TARGET_HOST, to \
         mydb.abc123.eu-central-1.rds.amazonaws.com for example\n\
         environment: proxy.auth: has no entry, so that nobody could log in; set PGWEIR_PROXY_AUTH_0_SECRET_ARN or \
         PGWEIR_PROXY_AUTH_0_SECRET_FILE"
    );
}

#[test]
fn contradictions_are_refused() {
    for (text, expected) in [
        (
            file("tls_certificate = \"a.pem\"", "", ""),
            "pgweir.toml:2: proxy.tls_certificate: is set without proxy.tls_private_key; set both or neither",
        ),
        (
            file("tls_private_key = \"a.key\"", "", ""),
            "pgweir.toml:2: proxy.tls_private_key: is set without proxy.tls_certificate; set both or neither",
        ),
        (
            file("require_tls = true", "", ""),
            "pgweir.toml:2: proxy.require_tls: is true, but there is no certificate to offer TLS with; set \
             proxy.tls_certificate and proxy.tls_private_key, or proxy.require_tls to false",
        ),
        (
            file("", "max_connections = 5\nmax_connections_percent = 100", ""),
            "pgweir.toml:8: target.max_connections: is set together with target.max_connections_percent; keep one of \
             the two",
        ),
        (
            file("", "tls = \"disable\"\ntls_ca = \"ca.pem\"", ""),
            "pgweir.toml:8: target.tls_ca: is set, but target.tls is \"disable\"; remove it, or set target.tls to \
             verify-full",
        ),
        (
            file("", "session_pinning_filters = \"EXCLUDE_VARIABLE_SETS\"", ""),
            "pgweir.toml:7: target.session_pinning_filters: \"EXCLUDE_VARIABLE_SETS\" is a string; expected a list of: \
             \"EXCLUDE_VARIABLE_SETS\"",
        ),
        (
            file("", "session_pinning_filters = [\"EXCLUDE_ALL\"]", ""),
            "pgweir.toml:7: target.session_pinning_filters: the value has a word that is not allowed; expected a list of: \
             \"EXCLUDE_VARIABLE_SETS\"",
        ),
        (
            file("listen = \"127.0.0.1:9127\"", "", ""),
            "pgweir.toml:2: admin.listen: 127.0.0.1:9127 collides with proxy.listen, 127.0.0.1:9127; give one of \
             them another port",
        ),
        (
            file("", "", "[[proxy.auth]]\nsecret_file = \"b.json\"\nsecret_arn = \"b\""),
            "pgweir.toml:10: proxy.auth[1]: has both secret_file and secret_arn; keep one of the two",
        ),
        (
            file("", "", "[[proxy.auth]]"),
            "pgweir.toml:8: proxy.auth[1]: has no secret; set secret_file or secret_arn",
        ),
        (
            file("", "", "[[proxy.auth]]\nsecret_file = \"a.json\""),
            "pgweir.toml:8: proxy.auth[1]: has the same secret as proxy.auth[0]; remove one of the two",
        ),
    ] {
        assert_refused(&text, expected);
    }
}

#[test]
fn a_bad_value_neither_hides_a_contradiction_nor_makes_one_up() {
    let abc = [("PGWEIR_TARGET_MAX_CONNECTIONS", "abc")];
    let together = |text: &str| messages(parse_with(text, &abc)).contains("is set together with");
    assert!(together(&file("", "max_connections = 10\nmax_connections_percent = 50", "")));
    assert!(!together(&file("", "max_connections_percent = 50", "")));
    assert!(!together(&file("", "max_connections = 10", "")));
    let entry = |lines: &str| {
        let target = "[target]\nhost = \"db\"\n";
        messages(parse(&format!("[proxy]\n[[proxy.auth]]\n{lines}\n{target}")))
    };
    let both = entry("secret_file = \"a.json\"\nusername = \"\"");
    assert!(both.contains("has both a secret and username"), "{both}");
    let named = entry("username = \"\"");
    assert!(!named.contains("has no secret"), "{named}");
    let with_arn = entry("secret_arn = \"arn:x\"\nusername = \"app\"");
    assert!(!with_arn.contains("no password for it"), "{with_arn}");
}

#[test]
fn what_only_looks_like_a_contradiction_is_taken() {
    for (proxy, target, rest) in [
        ("", "tls = \"verify-full\"", ""),
        ("", "tls_ca = \"ca.pem\"", ""),
        ("listen = \"127.0.0.1:0\"", "", "[admin]\nlisten = \"127.0.0.1:0\""),
        ("listen = \"127.0.0.1:9127\"", "", "[admin]\nlisten = \"\""),
        ("listen = \"10.0.0.1:9127\"", "", ""),
        ("", "port = 5432\nmax_idle_connections_percent = 0", ""),
        (
            "max_client_lifetime = 0\ntcp_user_timeout = \"0s\"",
            "connection_borrow_timeout = \"0s\"",
            "",
        ),
    ] {
        let text = file(proxy, target, rest);
        assert!(parse(&text).is_ok(), "{text}");
    }
}

#[test]
fn bounds_hold_to_the_last_value() {
    let longest = parse(&file("", "connection_borrow_timeout = \"1h\"", "")).expect("is right");
    assert_eq!(longest.target.connection_borrow_timeout, seconds(3600));
    for (line, wrong) in [
        (
            "connection_borrow_timeout = \"3601s\"",
            "\"3601s\" is too large; expected a duration from 0s to 1h",
        ),
        (
            "connection_borrow_timeout = -1",
            "-1 is not a duration such as \"30s\" or \"1h30m\"; expected a duration \
          from 0s to 1h",
        ),
        (
            "max_idle_connections_percent = 101",
            "101 is too large; expected an integer from 0 to 100",
        ),
        ("max_idle_connections_percent = -1", "-1 is too small; expected an integer from 0 to 100"),
        ("max_connections_percent = 0", "0 is too small; expected an integer from 1 to 100"),
        ("max_connections = 0", "0 is too small; expected an integer from 1 to 262143"),
        ("port = 65536", "65536 is too large; expected an integer from 1 to 65535"),
        ("port = \"5432\"", "\"5432\" is a string; expected an integer from 1 to 65535"),
        (
            "port = 99999999999999999999",
            "the value is an integer of more than 64 bits; expected an integer from 1 to \
          65535",
        ),
        (
            "connect_timeout = 1.5",
            "the value is a number with a fraction; expected a duration from 1ms to 1h",
        ),
    ] {
        let (key, _) = line.split_once(' ').expect("has a key");
        assert_refused(&file("", line, ""), &format!("pgweir.toml:7: target.{key}: {wrong}"));
    }
}

#[test]
fn shapes_that_are_no_sections_or_lists_are_explained() {
    for (text, expected) in [
        (
            "target = \"db\"",
            "pgweir.toml:1: target: is a string, not a section; write [target] on a line of its own, \
          and its keys below",
        ),
        (
            "[proxy.auth]\nsecret_file = \"a\"",
            "pgweir.toml:1: proxy.auth: is a table, not a list; write \
          [[proxy.auth]], with two brackets, before each entry",
        ),
        (
            "[proxy]\nauth = [1]",
            "pgweir.toml:2: proxy.auth[0]: is an integer, not a table; write [[proxy.auth]] and \
          its keys below",
        ),
        (
            "\"target.host\" = \"db\"",
            "pgweir.toml:1: target.host: is not a setting; did you mean target.host?",
        ),
    ] {
        let refused = messages(parse(text));
        assert_eq!(refused.lines().next(), Some(expected));
        assert_eq!(refused.matches("proxy.auth").count() > 0, refused.contains("auth"));
    }
}

#[test]
fn syntax_errors_have_line_and_column() {
    let refused = messages(parse_with(
        "[proxy]\nlisten = \"0.0.0.0:5432\nport 5\n",
        &[("PGWEIR_LOG_LEVEL", "loud")],
    ));
    let mut lines = refused.lines();
    assert!(
        lines.next().is_some_and(|line| line.starts_with("pgweir.toml:2:23: is not TOML: ")),
        "{refused}"
    );
    assert!(refused.contains("PGWEIR_LOG_LEVEL: log.level: \"loud\""), "{refused}");
    assert!(!refused.contains("target.host"), "{refused}");
    let refused = messages(parse("[target]\nhost = \"a\"\nhost = \"b\"\n"));
    assert!(refused.starts_with("pgweir.toml:3:1: is not TOML: duplicate key"), "{refused}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().expect("make a directory");
    let path = dir.path().join("absent.toml");
    let refused = messages(Config::load(Some(&path), std::iter::empty()));
    assert!(refused.starts_with(&format!("{}: cannot be read: ", path.display())), "{refused}");

    std::fs::write(&path, b"[proxy]\n# caf\xe9\n").expect("write it");
    let refused = messages(Config::load(Some(&path), std::iter::empty()));
    assert!(refused.contains("line 2 is not UTF-8"), "{refused}");

    std::fs::write(&path, " ".repeat((1 << 20) + 1)).expect("write it");
    let refused = messages(Config::load(Some(&path), std::iter::empty()));
    assert!(refused.contains("larger than 1 MiB"), "{refused}");
}

#[test]
fn what_may_be_a_secret_is_never_repeated() {
    let secret = "hunter2 hunter2";
    let text = format!(
        "hunter = \"{secret}\"\n[proxy]\npassword = \"{secret}\"\ntls_private_key = \"-----BEGIN {secret}\"\n\
         [[proxy.auth]]\npassword = \"{secret}\"\nsecret_arn = \"{secret}\"\nsecret_file = \"{{{secret}\"\n\
         client_password_auth_type = [\"{secret}\"]\n[target]\ninit_query = \"{secret}\\u0000\"\n"
    );
    let variables = [
        ("PGWEIR_TARGET_PASSWORD", secret),
        ("PGWEIR_PROXY_AUTH_0_PASSWORD", secret),
        ("PGWEIR_PROXY_AUTH_0_SECRET_ARN", secret),
    ];
    let errors = parse_with(&text, &variables).expect_err("the configuration is wrong");
    assert!(errors.problems().len() >= 9, "{errors}");
    assert!(!format!("{errors} {errors:?}").contains("hunter2"), "{errors}");
    let broken = messages(parse(&format!("password = {secret}\npassword = \"{secret}\n")));
    assert!(!broken.contains("hunter2"), "{broken}");
}

#[test]
fn problems_are_there_for_programs_too() {
    let errors = parse(&file("", "port = 0", "")).expect_err("the configuration is wrong");
    let [problem] = errors.problems() else {
        panic!("{errors}");
    };
    assert_eq!(problem.key.as_deref(), Some("target.port"));
    assert!(matches!(problem.origin, Origin::File { line: Some(7), .. }));
}
