//! The configuration while it is being put together: what was given so far, by whom, and what was wrong with it.
//!
//! Some keys are one setting together (a certificate and its key, the two ways to say the budget). They are apart
//! here, each with a place of its own, and [`super::check`] joins them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::entry_keys::ENTRY_KEYS;
use super::errors::{Origin, Plain, Problem};
use super::keys::{self, KEYS, Key};
use super::settings::{
    Admin, Auth, AuthScheme, ClientPasswordAuthType, Config, DefaultAuthScheme, Fleet, FleetShare,
    IamAuth, Log, LogFormat, LogLevel, MaxConnections, Metrics, Pem, PinningFilters, Proxy,
    Runtime, SecretSource, Target, TargetTls, TlsFiles,
};
use super::units::ByteSize;
use super::value::{Given, Value};

/// All settings apart, and the record of how they came about.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// What needs no joining.
    pub config: Config,
    pub tls_certificate: Option<Pem>,
    pub tls_private_key: Option<Pem>,
    pub max_connections: Option<u32>,
    pub max_connections_percent: u8,
    pub entries: Vec<Entry>,
    /// Where each key was given last, by its name in messages. A key whose value was bad is here too, it is not
    /// missing, but where it was given before: a bad value takes no other one's place.
    pub given: BTreeMap<String, Origin>,
    pub problems: Vec<Problem>,
}

/// An entry of `[[proxy.auth]]`.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub secret_file: Option<PathBuf>,
    pub secret_arn: Option<String>,
    pub username: Option<String>,
    pub client_password_auth_type: ClientPasswordAuthType,
    pub iam_auth: IamAuth,
    /// `None`: as the default of all says.
    pub auth_scheme: Option<AuthScheme>,
    /// Where it began.
    pub origin: Origin,
}

impl Draft {
    /// Every key at its default.
    pub fn new() -> Self {
        let mut draft = Self::of(blank());
        for key in KEYS {
            if let Some(problem) = fall_back(key, &mut draft) {
                draft.problems.push(problem);
            }
        }
        draft
    }

    /// A finished configuration, taken apart again.
    pub fn of(config: Config) -> Self {
        let tls = config.proxy.tls.clone();
        let (certificate, private_key) =
            tls.map(|files| (files.certificate, files.private_key)).unzip();
        let (max_connections, max_connections_percent) = match config.target.max_connections {
            MaxConnections::Absolute(servers) => (Some(servers.get()), 0),
            MaxConnections::Percent(percent) => (None, percent),
        };
        Self {
            tls_certificate: certificate,
            tls_private_key: private_key,
            max_connections,
            max_connections_percent,
            entries: Vec::new(),
            given: BTreeMap::new(),
            problems: Vec::new(),
            config,
        }
    }

    /// The settings joined; `None` for what [`super::check`] complains of.
    pub fn join(self) -> Option<Config> {
        let mut config = self.config;
        config.proxy.tls = match (self.tls_certificate, self.tls_private_key) {
            (Some(certificate), Some(private_key)) => Some(TlsFiles { certificate, private_key }),
            (None, None) => None,
            _ => return None,
        };
        config.target.max_connections = match self.max_connections {
            Some(servers) => MaxConnections::Absolute(NonZeroU32::new(servers)?),
            None => MaxConnections::Percent(self.max_connections_percent),
        };
        Some(config)
    }

    /// Adds an entry to the list of database users, at its defaults.
    pub fn begin_entry(&mut self, origin: Origin) {
        let mut entry = Entry {
            secret_file: None,
            secret_arn: None,
            username: None,
            client_password_auth_type: ClientPasswordAuthType::ScramSha256,
            iam_auth: IamAuth::Disabled,
            auth_scheme: None,
            origin,
        };
        let problems = ENTRY_KEYS.iter().filter_map(|key| fall_back(key, &mut entry));
        self.problems.extend(problems);
        self.entries.push(entry);
    }

    /// Sets a key.
    pub fn put(&mut self, key: &Key<Self>, given: &Given<'_>, origin: Origin) {
        let put = key.place.put(self, given);
        let problem = put.err().map(|wrong| bad_value(key, key.path, given, &origin, &wrong));
        self.note_given(key.path.to_owned(), origin, problem);
    }

    fn note_given(&mut self, name: String, origin: Origin, problem: Option<Problem>) {
        match problem {
            None => drop(self.given.insert(name, origin)),
            Some(problem) => {
                self.problems.push(problem);
                self.given.entry(name).or_insert(origin);
            }
        }
    }

    /// Sets a key of the entry with this index, which must have begun.
    pub fn put_in_entry(
        &mut self,
        index: usize,
        key: &Key<Entry>,
        given: &Given<'_>,
        origin: Origin,
    ) {
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let name = keys::entry_name(index, key.path);
        let put = key.place.put(entry, given);
        let problem = put.err().map(|wrong| bad_value(key, &name, given, &origin, &wrong));
        self.note_given(name, origin, problem);
    }

    /// Whether a key was already complained of.
    pub fn has_problem(&self, key: &str) -> bool {
        self.problems.iter().any(|problem| problem.key.as_deref() == Some(key))
    }

    /// Notes a problem with a key.
    pub fn complain(
        &mut self,
        origin: Origin,
        key: &str,
        wrong: impl Into<String>,
        right: impl Into<String>,
    ) {
        self.problems.push(Problem {
            origin,
            key: Some(key.to_owned()),
            wrong: wrong.into(),
            right: right.into(),
        });
    }
}

impl Entry {
    /// The checked entry; `None` unless exactly one source was given.
    pub fn join(self, default: DefaultAuthScheme) -> Option<Auth> {
        let auth_scheme = self.scheme(default);
        let source = match (self.secret_file, self.secret_arn, self.username) {
            (Some(file), None, None) => SecretSource::File(file),
            (None, Some(arn), None) => SecretSource::SecretsManager { arn },
            (None, None, Some(username)) => SecretSource::Nowhere { username },
            _ => return None,
        };
        Some(Auth {
            source,
            client_password_auth_type: self.client_password_auth_type,
            iam_auth: self.iam_auth,
            auth_scheme,
        })
    }

    /// How servers are logged in to. A user whose clients show tokens has `rds_iam` in the target, and
    /// with it no password any more.
    pub fn scheme(&self, default: DefaultAuthScheme) -> AuthScheme {
        self.auth_scheme.unwrap_or(match (self.iam_auth, default) {
            (IamAuth::Disabled, DefaultAuthScheme::None) => AuthScheme::Secrets,
            (IamAuth::Required, _) | (_, DefaultAuthScheme::IamAuth) => AuthScheme::IamAuth,
        })
    }
}

/// Sets a key to its default. A default that its own key refuses is a mistake in the table, and reported as such.
fn fall_back<O>(key: &Key<O>, owner: &mut O) -> Option<Problem> {
    let given = Given { value: key.fallback.value()?, directory: Path::new("") };
    let wrong = key.place.put(owner, &given).err()?;
    Some(bad_value(key, key.path, &given, &Origin::Default, &wrong))
}

/// The problem of a value that its key refuses. The value is repeated only when it cannot be a secret.
fn bad_value<O>(
    key: &Key<O>,
    name: &str,
    given: &Given<'_>,
    origin: &Origin,
    wrong: &str,
) -> Problem {
    let shown = match given.value {
        _ if key.secret => String::from("the value"),
        Value::Text(text) | Value::Variable(text) => format!("\"{}\"", Plain(text)),
        Value::Integer(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(_) | Value::Unfit(_) => String::from("the value"),
    };
    Problem {
        origin: origin.clone(),
        key: Some(name.to_owned()),
        wrong: format!("{shown} {wrong}"),
        right: format!("expected {}", key.place.allowed()),
    }
}

/// Something of every type. No value here is a default: the table's defaults are put over all of them (a test shows
/// that none is left), and a key without a default is either required or `None`.
fn blank() -> Config {
    let nowhere = ([0, 0, 0, 0], 0).into();
    Config {
        proxy: Proxy {
            listen: nowhere,
            require_tls: false,
            tls: None,
            idle_client_timeout: Duration::MAX,
            max_client_lifetime: Duration::MAX,
            client_login_timeout: Duration::MAX,
            client_stall_timeout: Duration::MAX,
            idle_in_transaction_timeout: Duration::MAX,
            idle_pinned_timeout: Duration::MAX,
            max_client_connections: u32::MAX,
            max_message_size: ByteSize(u64::MAX),
            max_prepared_statements: u32::MAX,
            max_notifications_queued: u32::MAX,
            pin_notice: true,
            shutdown_timeout: Duration::MAX,
            workers: u16::MAX,
            runtime: Runtime::WorkStealing,
            tcp_keepalive: Duration::MAX,
            tcp_user_timeout: Duration::MAX,
            secret_time_to_live: Duration::MAX,
            secret_overlap: Duration::MAX,
            default_auth_scheme: DefaultAuthScheme::IamAuth,
            auth: Vec::new(),
        },
        target: Target {
            host: String::new(),
            port: 0,
            tls: TargetTls::Disable,
            tls_ca: None,
            max_connections: MaxConnections::Percent(u8::MAX),
            max_idle_connections_percent: u8::MAX,
            connection_borrow_timeout: Duration::MAX,
            connect_timeout: Duration::MAX,
            connections_opened_at_once: u16::MAX,
            idle_connection_timeout: Duration::MAX,
            connection_lifetime: Duration::MAX,
            fail_fast_after: Duration::MAX,
            max_prepared_statements: u32::MAX,
            cancel_timeout: Duration::MAX,
            init_query: String::from("-"),
            session_pinning_filters: PinningFilters { variable_sets: true },
        },
        admin: Admin { listen: Some(nowhere) },
        fleet: Fleet { name: String::from("-"), user: None, share: FleetShare::Percent(0) },
        metrics: Metrics {
            cloudwatch_emf: true,
            cloudwatch_namespace: String::new(),
            cloudwatch_proxy_name: String::new(),
            cloudwatch_interval: Duration::MAX,
        },
        log: Log { format: LogFormat::Json, level: LogLevel::Error },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_with_a_default_leaves_nothing_blank() {
        let draft = Draft::new();
        assert_eq!(draft.problems, []);
        let blank = Draft::of(blank());
        for key in KEYS {
            // `false` is the one default that a blank cannot differ from without being another default.
            if key.fallback.value().is_some() && key.path != "proxy.require_tls" {
                assert!(key.place.differs(&draft, &blank), "{} stays blank", key.path);
            }
        }
        // Nothing that a blank duration or number looks like is left, so each field has a key.
        let rest = format!("{:?}", draft.config);
        assert!(!rest.contains(&format!("{:?}", Duration::MAX)), "{rest}");
        for number in [u64::MAX, u32::MAX.into(), u16::MAX.into()] {
            assert!(!rest.contains(&number.to_string()), "{rest}");
        }
    }

    #[test]
    fn an_entry_begins_at_its_defaults_without_a_problem() {
        let mut draft = Draft::new();
        draft.begin_entry(Origin::Environment);
        assert_eq!(draft.problems, []);
        assert_eq!(draft.entries.len(), 1);
        assert!(
            draft.entries.remove(0).join(DefaultAuthScheme::None).is_none(),
            "it has no source yet"
        );
    }

    #[test]
    fn taking_apart_and_joining_gives_the_same() {
        let mut config = Draft::new().join().unwrap();
        config.proxy.tls = Some(TlsFiles {
            certificate: Pem::File("server.pem".into()),
            private_key: Pem::Text("key".to_owned().into()),
        });
        config.target.max_connections = MaxConnections::Absolute(NonZeroU32::MIN);
        assert_eq!(Draft::of(config.clone()).join(), Some(config));
    }
}
