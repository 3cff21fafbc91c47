//! The configuration as an operator meets it: the files that are delivered, the environment, and the messages.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a helper of a test fails the test"
)]

#[path = "config/properties.rs"]
mod properties;
#[path = "config/refusals.rs"]
mod refusals;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use pgweir::config::{
    Admin, Auth, AuthScheme, ByteSize, ClientPasswordAuthType, Config, ConfigErrors,
    DefaultAuthScheme, Fleet, FleetShare, IamAuth, Log, LogFormat, LogLevel, MaxConnections,
    Metrics, Pem, PinningFilters, Proxy, Runtime, SecretSource, Target, TargetTls, TlsFiles,
};

const ARN: &str = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:app-AbCdEf";

const MINIMAL: &str = include_str!("../config/minimal.toml");
const REFERENCE: &str = include_str!("../config/reference.toml");
const EXAMPLE: &str = include_str!("config/example.toml");

fn environment(variables: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    owned.into_iter()
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse("pgweir.toml", Some(text), std::iter::empty())
}

fn parse_with(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::parse("pgweir.toml", Some(text), environment(variables))
}

/// A file that has all it needs, and more lines in its sections.
fn file(proxy: &str, target: &str, rest: &str) -> String {
    format!(
        "[proxy]\n{proxy}\n[[proxy.auth]]\nsecret_file = \"a.json\"\n[target]\nhost = \"db\"\n{target}\n{rest}\n"
    )
}

/// The messages of a configuration that must be wrong.
fn messages(parsed: Result<Config, ConfigErrors>) -> String {
    parsed.expect_err("the configuration is wrong").to_string()
}

fn scram(source: SecretSource) -> Auth {
    Auth {
        source,
        client_password_auth_type: ClientPasswordAuthType::ScramSha256,
        iam_auth: IamAuth::Disabled,
        auth_scheme: AuthScheme::Secrets,
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What `config/minimal.toml` comes to when all else is at its default.
fn minimal() -> Config {
    Config {
        proxy: Proxy {
            listen: SocketAddr::from(([0, 0, 0, 0], 5432)),
            require_tls: false,
            tls: None,
            idle_client_timeout: seconds(1800),
            max_client_lifetime: seconds(86_400),
            client_login_timeout: seconds(30),
            client_stall_timeout: seconds(60),
            idle_in_transaction_timeout: seconds(300),
            idle_pinned_timeout: seconds(300),
            max_client_connections: 10_000,
            max_message_size: ByteSize(1 << 30),
            max_prepared_statements: 10_000,
            max_notifications_queued: 1000,
            pin_notice: false,
            shutdown_timeout: seconds(25),
            workers: 0,
            runtime: Runtime::PerCore,
            tcp_keepalive: seconds(60),
            tcp_user_timeout: seconds(30),
            secret_time_to_live: seconds(300),
            secret_overlap: seconds(3600),
            default_auth_scheme: DefaultAuthScheme::None,
            auth: vec![scram(SecretSource::File("config/app-user.json".into()))],
        },
        target: Target {
            host: "127.0.0.1".to_owned(),
            port: 5432,
            tls: TargetTls::Prefer,
            tls_ca: None,
            max_connections: MaxConnections::Percent(100),
            max_idle_connections_percent: 50,
            connection_borrow_timeout: seconds(120),
            connect_timeout: seconds(10),
            connections_opened_at_once: 4,
            idle_connection_timeout: seconds(300),
            connection_lifetime: seconds(3600),
            fail_fast_after: seconds(30),
            max_prepared_statements: 500,
            cancel_timeout: seconds(10),
            init_query: String::new(),
            session_pinning_filters: PinningFilters::default(),
        },
        admin: Admin { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9127))) },
        fleet: Fleet { name: String::new(), user: None, share: FleetShare::Equal },
        metrics: Metrics {
            cloudwatch_emf: false,
            cloudwatch_namespace: "pgweir".to_owned(),
            cloudwatch_proxy_name: "pgweir".to_owned(),
            cloudwatch_interval: seconds(60),
        },
        log: Log { format: LogFormat::Text, level: LogLevel::Info },
    }
}

#[test]
fn the_minimal_file_is_the_promised_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/minimal.toml");
    assert!(Config::load(Some(&path), std::iter::empty()).is_ok());
    let parsed = Config::parse("config/minimal.toml", Some(MINIMAL), std::iter::empty());
    assert_eq!(parsed, Ok(minimal()));
}

/// To write the file anew: `UPDATE_REFERENCE=1 cargo test --test config reference`.
#[test]
fn the_reference_is_what_the_program_would_write() {
    let rendered = Config::reference();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml");
        std::fs::write(path, &rendered).expect("write config/reference.toml");
        return;
    }
    assert!(
        rendered == REFERENCE,
        "config/reference.toml is not what the program says; UPDATE_REFERENCE=1 writes it anew"
    );
}

#[test]
fn the_reference_lacks_nothing_but_a_host_and_a_secret() {
    let refused = messages(parse(REFERENCE));
    let keys: Vec<_> = refused.lines().map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(keys, [Some("proxy.auth[0]"), Some("target.host")], "{refused}");
    let secret = ("PGWEIR_PROXY_AUTH_0_SECRET_FILE", "config/app-user.json");
    let parsed = parse_with(REFERENCE, &[("PGWEIR_TARGET_HOST", "127.0.0.1"), secret]);
    assert_eq!(parsed, Ok(minimal()));
}

/// All that entries with IAM need.
const IAM: &str = "[target]\nhost = \"db\"\ntls = \"verify-full\"\n[proxy]\ntls_certificate = \"c.pem\"\n\
    tls_private_key = \"k.pem\"\n[[proxy.auth]]";

#[test]
fn iam_needs_tls_and_somebody_who_proves_the_user() {
    let right = format!("{IAM}\nusername = \"app\"\niam_auth = \"REQUIRED\"");
    let scheme = "default_auth_scheme = \"IAM_AUTH\"\n[[proxy.auth]]";
    let by_default = right.replace("[[proxy.auth]]", scheme);
    // A user who has `rds_iam` has no password in the target any more, whatever the default is.
    for text in [&right, &by_default, &right.replace("username", "secret_arn")] {
        let config = parse(text).expect("is right");
        assert_eq!(config.proxy.auth[0].auth_scheme, AuthScheme::IamAuth);
    }
    let config = parse(&right).expect("is right");
    assert_eq!(config.proxy.auth[0].source, SecretSource::Nowhere { username: "app".to_owned() });
    for (text, wrong) in [
        (
            format!("{right}\nauth_scheme = \"SECRETS\""),
            "proxy.auth[0]: has iam_auth = \"REQUIRED\" and auth_scheme = \"SECRETS\"",
        ),
        (by_default.replace("verify-full", "require"), "target.tls is not \"verify-full\""),
        (
            by_default.replace("tls_certificate = \"c.pem\"\ntls_private_key = \"k.pem\"\n", ""),
            "there is no TLS for clients",
        ),
        (
            by_default.replace("username", "secret_arn = \"a\"\nusername"),
            "both a secret and username",
        ),
        (by_default.replace("REQUIRED", "DISABLED"), "has a username and no password for it"),
        (
            format!("{by_default}\n[[proxy.auth]]\nusername = \"app\"\niam_auth = \"REQUIRED\""),
            "same secret",
        ),
    ] {
        let said = messages(parse(&text));
        assert!(said.contains(wrong), "{text}\n{said}");
    }
}

#[test]
fn the_examples_in_the_reference_are_right() {
    let excluded = ["# secret_arn", "# username", "# auth_scheme", "# max_connections ="];
    let lines = REFERENCE.lines().map(|line| match line.strip_prefix("# ") {
        Some(example)
            if is_assignment(example) && !excluded.iter().any(|key| line.starts_with(key)) =>
        {
            example
        }
        _ => line,
    });
    let text: Vec<_> = lines.collect();
    let config = parse(&text.join("\n")).expect("examples are right");
    assert!(config.proxy.tls.is_some() && config.target.tls_ca.is_some());
    for line in REFERENCE.lines().filter(|line| excluded.iter().any(|key| line.starts_with(key))) {
        let example = line.trim_start_matches("# ");
        let text = if example.starts_with("secret_arn") {
            format!("[target]\nhost = \"db\"\n[[proxy.auth]]\n{example}")
        } else if example.starts_with("username") || example.starts_with("auth_scheme") {
            format!(
                "{IAM}\n{example}\n{}",
                if example.starts_with("username") {
                    "iam_auth = \"REQUIRED\""
                } else {
                    "secret_file = \"a.json\""
                }
            )
        } else {
            file("", example, "")
        };
        assert!(parse(&text).is_ok(), "{line}");
    }
}

/// `name = value`, rather than a sentence.
fn is_assignment(line: &str) -> bool {
    line.split_once(" = ")
        .is_some_and(|(name, _)| name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()))
}

#[test]
fn the_file_of_the_contract_is_read() {
    let config = Config::parse("/etc/pgweir/pgweir.toml", Some(EXAMPLE), std::iter::empty())
        .expect("is right");
    let expected = minimal();
    let expected = Config {
        proxy: Proxy {
            tls: Some(TlsFiles {
                certificate: Pem::File("/etc/pgweir/server.pem".into()),
                private_key: Pem::File("/etc/pgweir/server.key".into()),
            }),
            auth: vec![scram(SecretSource::File("/etc/pgweir/app-user.json".into()))],
            ..expected.proxy
        },
        target: Target { tls_ca: Some("/etc/pgweir/global-bundle.pem".into()), ..expected.target },
        ..expected
    };
    assert_eq!(config, expected);
}

#[test]
fn words_of_a_list_are_read_from_a_file_and_from_a_variable() {
    let none = parse(&file("", "session_pinning_filters = []", "")).unwrap();
    assert_eq!(none.target.session_pinning_filters, PinningFilters::default());
    let sets = PinningFilters { variable_sets: true };
    let listed = "session_pinning_filters = [\"EXCLUDE_VARIABLE_SETS\"]";
    assert_eq!(parse(&file("", listed, "")).unwrap().target.session_pinning_filters, sets);
    for (value, expected) in [("EXCLUDE_VARIABLE_SETS", sets), ("", PinningFilters::default())] {
        let variable = [("PGWEIR_TARGET_SESSION_PINNING_FILTERS", value)];
        let config = Config::parse("", Some(&file("", "", "")), environment(&variable));
        assert_eq!(config.unwrap().target.session_pinning_filters, expected);
    }
}

#[test]
fn a_whole_configuration_needs_no_file() {
    let config = Config::load(
        None,
        environment(&[
            ("PATH", "/usr/bin"),
            ("PGWEIR_CONFIG", ""),
            ("PGWEIR_PROXY_LISTEN", "[::]:6432"),
            ("PGWEIR_PROXY_REQUIRE_TLS", "on"),
            ("PGWEIR_PROXY_TLS_CERTIFICATE", "server.pem"),
            ("PGWEIR_PROXY_TLS_PRIVATE_KEY", "/run/secrets/server.key"),
            ("PGWEIR_PROXY_IDLE_CLIENT_TIMEOUT", "1800"),
            ("PGWEIR_PROXY_MAX_MESSAGE_SIZE", "64MiB"),
            ("PGWEIR_PROXY_RUNTIME", "work-stealing"),
            ("PGWEIR_PROXY_AUTH_1_SECRET_FILE", "other.json"),
            ("PGWEIR_PROXY_AUTH_1_CLIENT_PASSWORD_AUTH_TYPE", "POSTGRES_MD5"),
            ("PGWEIR_PROXY_AUTH_0_SECRET_ARN", ARN),
            ("PGWEIR_TARGET_HOST", "db.example.com"),
            ("PGWEIR_TARGET_PORT", "5433"),
            ("PGWEIR_TARGET_TLS", "verify-full"),
            ("PGWEIR_TARGET_MAX_CONNECTIONS", "20"),
            ("PGWEIR_TARGET_INIT_QUERY", ""),
            ("PGWEIR_ADMIN_LISTEN", "off"),
            ("PGWEIR_FLEET_NAME", "orders"),
            ("PGWEIR_FLEET_USER", "pgweir_fleet"),
            ("PGWEIR_FLEET_SHARE", "20"),
            ("PGWEIR_METRICS_CLOUDWATCH_EMF", "on"),
            ("PGWEIR_LOG_FORMAT", "json"),
        ]),
    )
    .expect("is right");
    let expected = minimal();
    let expected = Config {
        proxy: Proxy {
            listen: "[::]:6432".parse().expect("an address"),
            require_tls: true,
            tls: Some(TlsFiles {
                certificate: Pem::File("server.pem".into()),
                private_key: Pem::File("/run/secrets/server.key".into()),
            }),
            max_message_size: ByteSize(64 << 20),
            runtime: Runtime::WorkStealing,
            auth: vec![
                scram(SecretSource::SecretsManager { arn: ARN.to_owned() }),
                Auth {
                    source: SecretSource::File("other.json".into()),
                    client_password_auth_type: ClientPasswordAuthType::Md5,
                    iam_auth: IamAuth::Disabled,
                    auth_scheme: AuthScheme::Secrets,
                },
            ],
            ..expected.proxy
        },
        target: Target {
            host: "db.example.com".to_owned(),
            port: 5433,
            tls: TargetTls::VerifyFull,
            max_connections: NonZeroU32::new(20)
                .map_or(MaxConnections::Percent(0), MaxConnections::Absolute),
            ..expected.target
        },
        admin: Admin { listen: None },
        fleet: Fleet {
            name: "orders".to_owned(),
            user: Some("pgweir_fleet".to_owned()),
            share: NonZeroU32::new(20).map_or(FleetShare::Equal, FleetShare::Connections),
        },
        metrics: Metrics { cloudwatch_emf: true, ..expected.metrics },
        log: Log { format: LogFormat::Json, ..expected.log },
    };
    assert_eq!(config, expected);
}

#[test]
fn a_share_of_a_fleet_is_a_word_a_part_or_a_number() {
    let share = |value: &str| {
        parse(&file("", "", &format!("[fleet]\nname = \"orders\"\nshare = {value}")))
            .map(|config| config.fleet.share)
    };
    assert_eq!(share("\"equal\""), Ok(FleetShare::Equal));
    assert_eq!(share("\"25%\""), Ok(FleetShare::Percent(25)));
    assert_eq!(share("7").map(|share| share.to_string()), Ok("7".to_owned()));
    for (value, wrong) in [
        ("\"half\"", "\"half\" is neither \"equal\" nor a percentage"),
        ("\"0%\"", "\"0%\" is too small"),
        ("\"101%\"", "\"101%\" is too large"),
        ("\"x%\"", "\"x%\" is not a percentage"),
        ("0", "0 is too small"),
        ("true", "true is a boolean"),
    ] {
        let said = share(value).expect_err("is wrong").to_string();
        assert!(said.contains(&format!("fleet.share: {wrong}; expected ")), "{said}");
    }
}

#[test]
fn the_environment_beats_the_file() {
    let text = file("max_client_connections = 5", "port = 1\nmax_connections = 9", "");
    let config = parse_with(
        &text,
        &[
            ("PGWEIR_PROXY_MAX_CLIENT_CONNECTIONS", "7"),
            // Each of these takes the place of the key that excludes it.
            ("PGWEIR_TARGET_MAX_CONNECTIONS_PERCENT", "30"),
            ("PGWEIR_PROXY_AUTH_0_SECRET_ARN", "app-user"),
            // And this adds an entry to the file's one.
            ("PGWEIR_PROXY_AUTH_1_SECRET_FILE", "b.json"),
        ],
    )
    .expect("is right");
    assert_eq!(config.proxy.max_client_connections, 7);
    assert_eq!(config.target.port, 1);
    assert_eq!(config.target.max_connections, MaxConnections::Percent(30));
    let arn = "app-user".to_owned();
    assert_eq!(
        config.proxy.auth,
        [scram(SecretSource::SecretsManager { arn }), scram(SecretSource::File("b.json".into())),]
    );
    let config = parse_with(
        &file("", "max_connections_percent = 30", ""),
        &[("PGWEIR_TARGET_MAX_CONNECTIONS", "8")],
    );
    let servers = config.expect("is right").target.max_connections;
    assert_eq!(
        servers,
        NonZeroU32::new(8).map_or(MaxConnections::Percent(0), MaxConnections::Absolute)
    );
}

#[test]
fn relative_paths_start_from_the_file_and_in_variables_from_the_working_directory() {
    let parse = |name: &str| {
        let text = file("tls_certificate = \"tls/server.pem\"", "tls_ca = \"/ca.pem\"", "");
        let key = [("PGWEIR_PROXY_TLS_PRIVATE_KEY", "server.key")];
        Config::parse(name, Some(&text), environment(&key)).expect("is right")
    };
    let config = parse("/etc/pgweir/main.toml");
    let tls = config.proxy.tls.expect("has files");
    assert_eq!(tls.certificate, Pem::File("/etc/pgweir/tls/server.pem".into()));
    assert_eq!(tls.private_key, Pem::File("server.key".into()));
    assert_eq!(config.target.tls_ca.as_deref(), Some(Path::new("/ca.pem")));
    let config = parse("main.toml");
    let tls = config.proxy.tls.expect("has files");
    assert_eq!(tls.certificate, Pem::File("tls/server.pem".into()));
}

#[test]
fn a_variable_may_hold_the_certificate_itself() {
    let pem = "-----BEGIN SOMETHING-----\nhunter2\n-----END SOMETHING-----\n";
    let variables = [("PGWEIR_PROXY_TLS_CERTIFICATE", pem), ("PGWEIR_PROXY_TLS_PRIVATE_KEY", pem)];
    let config = parse_with(&file("", "", ""), &variables).expect("is right");
    let tls = config.proxy.tls.as_ref().expect("has a certificate");
    assert_eq!(tls.certificate, Pem::Text(pem.to_owned().into()));
    assert_eq!(tls.private_key, Pem::Text(pem.to_owned().into()));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_reload_tells_what_it_changes_and_what_needs_a_restart() {
    let old = parse(&file("", "", "")).expect("is right");
    assert_eq!(old.live_differences(&old), (vec![], vec![]));
    let text = file(
        "listen = \"0.0.0.0:6432\"\nidle_client_timeout = \"1m\"\ntls_certificate = \"a.pem\"\n\
         tls_private_key = \"a.key\"",
        "port = 1\nmax_connections = 9",
        "[[proxy.auth]]\nsecret_file = \"b.json\"\n[log]\nlevel = \"debug\"\nformat = \"json\"",
    );
    let new = parse(&text).expect("is right");
    let (live, restart) = old.live_differences(&new);
    assert_eq!(
        live,
        [
            "proxy.tls_certificate",
            "proxy.tls_private_key",
            "proxy.idle_client_timeout",
            "target.max_connections_percent",
            "target.max_connections",
            "log.level",
            "proxy.auth",
        ]
    );
    assert_eq!(restart, ["proxy.listen", "target.port", "log.format"]);

    let running = old.with_live_settings_of(&new);
    assert_eq!(running.proxy.tls, new.proxy.tls);
    assert_eq!(running.proxy.auth, new.proxy.auth);
    assert_eq!(running.target.max_connections, new.target.max_connections);
    assert_eq!(running.proxy.listen, old.proxy.listen);
    // What could not change is still reported the next time; what did change is not.
    assert_eq!(running.live_differences(&new), (vec![], restart));
    assert_eq!(running.with_live_settings_of(&old), old);
}

/// Each key that SIGHUP may change, as the contract has it.
#[test]
fn exactly_these_keys_can_change_live() {
    let lines: Vec<_> = REFERENCE.lines().collect();
    let restart: Vec<_> = lines
        .windows(2)
        .filter(|lines| lines[0].ends_with(". [restart]"))
        .filter_map(|lines| lines[1].trim_start_matches("# ").split(" = ").next())
        .collect();
    assert_eq!(
        restart,
        [
            "listen",
            "max_message_size",
            "max_prepared_statements",
            "workers",
            "runtime",
            "tcp_keepalive",
            "tcp_user_timeout",
            "host",
            "port",
            "tls",
            "tls_ca",
            "max_prepared_statements",
            "cancel_timeout",
            "init_query",
            "listen",
            "name",
            "user",
            "cloudwatch_emf",
            "cloudwatch_namespace",
            "cloudwatch_proxy_name",
            "cloudwatch_interval",
            "format",
        ]
    );
}
