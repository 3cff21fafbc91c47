//! The checked configuration: what the rest of the program reads, and which needs no further check.
//!
//! Names are RDS Proxy's in snake case where it has one, and each field also says PgBouncer's word. The defaults
//! and bounds named here are those of [`super::keys`]; a test keeps the two equal.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::units::ByteSize;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What clients see: `[proxy]`.
    pub proxy: Proxy,
    /// The PostgreSQL server behind the proxy: `[target]`.
    pub target: Target,
    /// Metrics and health: `[admin]`.
    pub admin: Admin,
    /// Several pgweir over one budget: `[fleet]`.
    pub fleet: Fleet,
    /// Metrics that are written rather than asked for: `[metrics]`.
    pub metrics: Metrics,
    /// The log: `[log]`.
    pub log: Log,
}

/// The side towards clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Address and port that clients connect to. Default `0.0.0.0:5432`. PgBouncer: `listen_addr`, `listen_port`.
    pub listen: SocketAddr,
    /// Whether a client without TLS is refused; needs [`Self::tls`]. Default `false`. PgBouncer: `client_tls_sslmode`.
    pub require_tls: bool,
    /// Certificate and key shown to clients; none by default, and then TLS is not offered.
    pub tls: Option<TlsFiles>,
    /// How long a client may be connected without sending anything. Default `30m`, 1ms to 365d.
    /// PgBouncer: `client_idle_timeout`.
    pub idle_client_timeout: Duration,
    /// How long a client may be connected at all, cut between transactions. Default `24h`, up to 365d; zero = no
    /// limit.
    pub max_client_lifetime: Duration,
    /// How long a client may take from connecting to being logged in. Default `30s`, 1ms to 1h.
    /// PgBouncer: `client_login_timeout`.
    pub client_login_timeout: Duration,
    /// How long a client that holds a server may leave its result unread, or a message it began unfinished.
    /// Default `60s`, 1ms to 1d.
    pub client_stall_timeout: Duration,
    /// How long a client may keep a transaction open without sending anything. Default `5m`, up to 365d; zero = no
    /// limit. PgBouncer: `idle_transaction_timeout`.
    pub idle_in_transaction_timeout: Duration,
    /// How long a pinned client may be idle while there are more servers than the budget, as when a fleet grows; then
    /// it is told 57P01. Default `5m`, up to 365d; zero = no limit but [`Self::idle_client_timeout`].
    pub idle_pinned_timeout: Duration,
    /// Most clients connected at once, where there are file descriptors for them; one more is refused with 53300.
    /// Default `10000`, 1 to 1000000. PgBouncer: `max_client_conn`.
    pub max_client_connections: u32,
    /// Largest message taken from a client, in bytes. Default `1GiB`, 1KiB to 1GiB (PostgreSQL takes no larger).
    /// PgBouncer: `max_packet_size`.
    pub max_message_size: ByteSize,
    /// Most prepared statements one client may have, of 32 MiB at most. Default `10000`, 1 to 1000000.
    pub max_prepared_statements: u32,
    /// Most notifications kept for a client that does not take them; with more, all of them are lost and the client
    /// is told. Default `1000`, 1 to 1000000; they take at most 1 MiB in any case.
    pub max_notifications_queued: u32,
    /// Whether a client is told by a NOTICE when it is pinned, with the reason and how to avoid it. Default `false`.
    pub pin_notice: bool,
    /// How long transactions may go on after SIGTERM; zero cuts them at once. Default `25s`, up to 1h: ECS kills
    /// after its `stopTimeout` of 30 s.
    pub shutdown_timeout: Duration,
    /// Threads that serve clients. Default `0`, which is one per core; up to 1024.
    pub workers: u16,
    /// How the workers share the clients. Default `per-core`.
    pub runtime: Runtime,
    /// How long a connection is silent before the kernel asks whether its peer is there. Default `60s` (below a
    /// Network Load Balancer's 350 s), 1s to 9h; whole seconds count. PgBouncer: `tcp_keepidle`.
    pub tcp_keepalive: Duration,
    /// How long sent data may stay unacknowledged before the kernel gives the connection up. Default `30s`, up to
    /// 1h; zero = the system's default. PgBouncer: `tcp_user_timeout`.
    pub tcp_user_timeout: Duration,
    /// How long a secret is used before it is read again. Default `5m`, 1s to 1d.
    pub secret_time_to_live: Duration,
    /// How long clients may present the password before the current one after a rotation; zero = not at all.
    /// Default `1h`, up to 365d.
    pub secret_overlap: Duration,
    /// How servers are logged in to by users whose entry does not say it. Default `NONE`, which is with the secret.
    pub default_auth_scheme: DefaultAuthScheme,
    /// The database users that clients may log in as, one entry each: 1 to 1000 entries. PgBouncer: `auth_file`.
    pub auth: Vec<Auth>,
}

/// Certificate shown to clients, and its key. Files are only named here; `net` reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain. PgBouncer: `client_tls_cert_file`.
    pub certificate: Pem,
    /// The private key. PgBouncer: `client_tls_key_file`.
    pub private_key: Pem,
}

/// Something in PEM. `Debug` shows no text of it.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    /// In this file, which may be replaced while the proxy runs.
    File(PathBuf),
    /// The text itself, from a variable: ECS hands secrets to a container in this way, and in no other.
    Text(Zeroizing<String>),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.write_str("Text(..)"),
        }
    }
}

/// One database user: RDS Proxy's `UserAuthConfig`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Where the user's name and password are.
    pub source: SecretSource,
    /// How clients prove that they know the password. Default `POSTGRES_SCRAM_SHA_256`. PgBouncer: `auth_type`.
    pub client_password_auth_type: ClientPasswordAuthType,
    /// Whether clients log in with an RDS IAM token for the target instead of the password. Default `DISABLED`.
    pub iam_auth: IamAuth,
    /// How servers are logged in to. Default `IAM_AUTH` if clients use IAM, or else as
    /// [`Proxy::default_auth_scheme`].
    pub auth_scheme: AuthScheme,
}

/// Where a secret is: `{"username": "...", "password": "..."}`, Secrets Manager's format, in both cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// `secret_file`: a JSON file.
    File(PathBuf),
    /// `secret_arn`: a secret of AWS Secrets Manager.
    SecretsManager {
        /// Its ARN, or its name.
        arn: String,
    },
    /// `username`: there is none, because IAM proves who the user is, on both sides.
    Nowhere {
        /// The database user.
        username: String,
    },
}

/// The side towards PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Host name or IP address; required. PgBouncer: `host`.
    pub host: String,
    /// TCP port. Default `5432`. PgBouncer: `port`.
    pub port: u16,
    /// Whether servers are reached by TLS, and what is verified. Default `prefer`. PgBouncer: `server_tls_sslmode`.
    pub tls: TargetTls,
    /// Certificate authorities that the target's certificate is verified with, PEM; none by default, which is the
    /// system's. PgBouncer: `server_tls_ca_file`.
    pub tls_ca: Option<PathBuf>,
    /// The budget: most servers open at once over all databases and users, pinned ones included.
    /// PgBouncer: `max_db_connections`.
    pub max_connections: MaxConnections,
    /// How much of the budget may stay open without work, in percent of the *budget*. Default `50`, 0 to 100.
    ///
    /// RDS Proxy counts it in percent of the target's `max_connections`, so that the same number is smaller here
    /// when [`MaxConnections::Percent`] is below 100; its default, half of the budget, is the same.
    pub max_idle_connections_percent: u8,
    /// How long a client waits for a server; zero fails at once if none is idle. Default `120s`, up to 1h.
    /// PgBouncer: `query_wait_timeout`.
    pub connection_borrow_timeout: Duration,
    /// How long opening a server may take, from TCP to its first `ReadyForQuery`. Default `10s`, 1ms to 1h.
    /// PgBouncer: `server_connect_timeout`.
    pub connect_timeout: Duration,
    /// Most servers being opened at the same time. Default `4`, 1 to 1000.
    pub connections_opened_at_once: u16,
    /// How long a server may be idle before it is closed. Default `5m`, 1ms to 365d. PgBouncer: `server_idle_timeout`.
    pub idle_connection_timeout: Duration,
    /// How long a server is used before another replaces it, with jitter. Default `1h`, up to 365d; zero = no limit.
    /// PgBouncer: `server_lifetime`.
    pub connection_lifetime: Duration,
    /// How long the target may refuse connections before clients are refused at once instead of waiting.
    /// Default `30s`, up to 1h.
    pub fail_fast_after: Duration,
    /// Most prepared statements kept on one server; the least recently used one goes. Default `500`, 1 to 100000.
    /// PgBouncer: `max_prepared_statements`.
    pub max_prepared_statements: u32,
    /// How long a cancel request may take to reach the target. Default `10s`, 1ms to 1h.
    /// PgBouncer: `cancel_wait_timeout`.
    pub cancel_timeout: Duration,
    /// SQL run once on each new server. Default empty. PgBouncer: `connect_query`.
    pub init_query: String,
    /// What does not pin although its client may then miss it. Default none.
    pub session_pinning_filters: PinningFilters,
}

/// RDS Proxy's `SessionPinningFilters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinningFilters {
    /// `EXCLUDE_VARIABLE_SETS`: settings that cannot follow their client to another server do not pin it. They are
    /// taken back before the server goes to somebody else.
    pub variable_sets: bool,
}

/// Size of the budget of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxConnections {
    /// `max_connections_percent`: 1 to 100 percent of the target's `max_connections` less its reserved slots.
    /// Default `100`.
    Percent(u8),
    /// `max_connections`: this many, whatever the target says; up to 262143, as in PostgreSQL.
    Absolute(NonZeroU32),
}

/// Metrics and health over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Address and port of `/metrics`, `/healthz` and `/readyz`. Default `127.0.0.1:9127`; `"off"` = `None`.
    pub listen: Option<SocketAddr>,
}

/// Several pgweir that share the budget of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// What the members have in common: letters, digits, `-`, `_` and `.`, 32 at most. Default empty, which is no
    /// fleet: the whole budget is this one's.
    pub name: String,
    /// The database user as whom the members know each other. Default none: any for whom there is a secret.
    pub user: Option<String>,
    /// This member's part. Default `equal`; up to 100% or 262143.
    pub share: FleetShare,
}

/// A member's part of the fleet's budget, its control connection included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FleetShare {
    /// `"equal"`: what those with a fixed share leave, divided by the members that live.
    Equal,
    /// `"25%"`: 1 to 100 percent of the budget, however many live.
    Percent(u8),
    /// `20`: this many connections; up to 262143.
    Connections(NonZeroU32),
}

impl fmt::Display for FleetShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => f.write_str("equal"),
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Connections(connections) => write!(f, "{connections}"),
        }
    }
}

/// Metrics for CloudWatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Whether they are written to the log. Default `false`.
    pub cloudwatch_emf: bool,
    /// Their namespace. Default `pgweir`; 1 to 255 characters as CloudWatch allows them.
    pub cloudwatch_namespace: String,
    /// Their dimension `ProxyName`. Default `pgweir`; 1 to 1024 printable ASCII characters.
    pub cloudwatch_proxy_name: String,
    /// How often they are written. Default `60s`, 1s to 1h.
    pub cloudwatch_interval: Duration,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line is written. Default `text`.
    pub format: LogFormat,
    /// The least important events written. Default `info`. PgBouncer: `verbose`.
    pub level: LogLevel,
}

/// A setting that is one of a few words.
pub(super) trait Choice: Copy + PartialEq + 'static {
    /// The words, in the order of the documentation.
    const CHOICES: &'static [(&'static str, Self)];
}

/// Declares an enum of words: the word is written once, beside its variant.
macro_rules! choices {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl Choice for $name {
            const CHOICES: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl $name {
            /// The word in the configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

choices! {
    /// How workers share the clients.
    Runtime {
        /// One current-thread runtime per worker, each with its own listening socket.
        PerCore = "per-core",
        /// One runtime whose workers take each other's work.
        WorkStealing = "work-stealing",
    }
}

choices! {
    /// How a client proves that it knows the password, when it does not log in otherwise.
    ClientPasswordAuthType {
        /// SCRAM-SHA-256, with channel binding over TLS.
        ScramSha256 = "POSTGRES_SCRAM_SHA_256",
        /// MD5, for drivers that know nothing else.
        Md5 = "POSTGRES_MD5",
    }
}

choices! {
    /// How servers are logged in to by default: RDS Proxy's `DefaultAuthScheme`.
    DefaultAuthScheme {
        /// With the password of the secret.
        None = "NONE",
        /// With a token that pgweir signs.
        IamAuth = "IAM_AUTH",
    }
}

choices! {
    /// How servers are logged in to as one user.
    AuthScheme {
        /// With the password of the secret.
        Secrets = "SECRETS",
        /// With a token that pgweir signs.
        IamAuth = "IAM_AUTH",
    }
}

choices! {
    /// Whether clients log in with an IAM token: RDS Proxy's `IAMAuth`.
    IamAuth {
        /// They may not; they know the password.
        Disabled = "DISABLED",
        /// They must.
        Required = "REQUIRED",
    }
}

choices! {
    /// TLS towards the target, in the words of libpq's
    /// [`sslmode`](https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS).
    TargetTls {
        /// Never.
        Disable = "disable",
        /// If the target offers it; verifies nothing.
        Prefer = "prefer",
        /// Always; verifies nothing.
        Require = "require",
        /// Always, with a certificate of a known authority.
        VerifyCa = "verify-ca",
        /// Always, with a certificate of a known authority for this host.
        VerifyFull = "verify-full",
    }
}

choices! {
    /// How a log line is written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

choices! {
    /// Importance of a log event.
    LogLevel {
        /// Something failed and needs somebody.
        Error = "error",
        /// Something is wrong and was dealt with.
        Warn = "warn",
        /// What an operator wants to know of a healthy proxy.
        Info = "info",
        /// Each connection.
        Debug = "debug",
        /// Each step of it.
        Trace = "trace",
    }
}
