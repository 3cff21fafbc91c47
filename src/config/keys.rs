//! The table of settings. Everything that is said about a key is said here, once: its path in the file, its default,
//! its meaning, what it takes, where it goes, and whether SIGHUP can change it. The file, the environment, the
//! messages and `config/reference.toml` are all driven by it.
//!
//! A new setting is a field in [`super::settings`] and a row here.

use std::time::Duration;

use super::draft::Draft;
pub(super) use super::key::{
    AUTH, Example, Fallback, Key, VARIABLE_PREFIX, entry_name, entry_variable, variable,
};
use super::rules;
use super::units::ByteSize;
use super::value::{At, Between};

/// Most entries in the list of database users. RDS Proxy stops at 200.
pub(super) const AUTH_MAX: usize = 1000;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// No wait is longer: far from where adding to a clock value overflows.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Linux' `MAX_TCP_KEEPIDLE` is 32767 s.
const KEEPALIVE_MAX: Duration = Duration::from_secs(9 * 60 * 60);
const KIBIBYTE: ByteSize = ByteSize(1 << 10);
const GIBIBYTE: ByteSize = ByteSize(1 << 30);
/// PostgreSQL's own limit of `max_connections` (`MAX_BACKENDS`, 2^18 - 1).
const SERVERS_MAX: u32 = 262_143;

/// A place, by the path of its field.
macro_rules! at {
    ($owner:ident . $($field:ident).+) => {
        at!($owner . $($field).+, ())
    };
    ($owner:ident . $($field:ident).+, $bounds:expr) => {
        &At {
            get: |owner: &$owner| &owner.$($field).+,
            get_mut: |owner: &mut $owner| &mut owner.$($field).+,
            bounds: $bounds,
        }
    };
}
pub(super) use at;

/// All keys but those of the list, in the order of the reference; those of a section stand together.
pub(super) static KEYS: &[Key<Draft>] = &[
    Key::new(
        "proxy.listen",
        Fallback::Text("0.0.0.0:5432"),
        "Address and port that clients connect to",
        at!(Draft.config.proxy.listen),
    )
    .pgbouncer(&["listen_addr", "listen_port"]),
    Key::new(
        "proxy.require_tls",
        Fallback::Flag(false),
        "Whether a client without TLS is refused",
        at!(Draft.config.proxy.require_tls),
    )
    .pgbouncer(&["client_tls_sslmode"])
    .live(),
    Key::new(
        "proxy.tls_certificate",
        Fallback::Absent(Example::Text("server.pem")),
        "Certificate shown to clients, with its chain, PEM, read again when the file changes; its variable may hold the PEM itself; none = no TLS",
        at!(Draft.tls_certificate),
    )
    .pgbouncer(&["client_tls_cert_file"])
    .live(),
    Key::new(
        "proxy.tls_private_key",
        Fallback::Absent(Example::Text("server.key")),
        "Private key of the certificate, PEM; its variable may hold the PEM itself",
        at!(Draft.tls_private_key),
    )
    .pgbouncer(&["client_tls_key_file"])
    .live()
    .secret(),
    Key::new(
        "proxy.idle_client_timeout",
        Fallback::Text("30m"),
        "How long a client may be connected without sending anything",
        at!(Draft.config.proxy.idle_client_timeout, Between(MILLISECOND, YEAR)),
    )
    .pgbouncer(&["client_idle_timeout"])
    .live(),
    Key::new(
        "proxy.max_client_lifetime",
        Fallback::Text("24h"),
        "How long a client may be connected at all, cut between transactions; 0s = no limit",
        at!(Draft.config.proxy.max_client_lifetime, Between(Duration::ZERO, YEAR)),
    )
    .live(),
    Key::new(
        "proxy.client_login_timeout",
        Fallback::Text("30s"),
        "How long a client may take from connecting to being logged in",
        at!(Draft.config.proxy.client_login_timeout, Between(MILLISECOND, HOUR)),
    )
    .pgbouncer(&["client_login_timeout"])
    .live(),
    Key::new(
        "proxy.client_stall_timeout",
        Fallback::Text("60s"),
        "How long a client with a server may leave its result unread or its message unfinished",
        at!(Draft.config.proxy.client_stall_timeout, Between(MILLISECOND, DAY)),
    )
    .live(),
    Key::new(
        "proxy.idle_in_transaction_timeout",
        Fallback::Text("5m"),
        "How long a client may keep a transaction open without sending anything; 0s = no limit",
        at!(Draft.config.proxy.idle_in_transaction_timeout, Between(Duration::ZERO, YEAR)),
    )
    .pgbouncer(&["idle_transaction_timeout"])
    .live(),
    Key::new(
        "proxy.idle_pinned_timeout",
        Fallback::Text("5m"),
        "How long a pinned client may be idle while there are more servers than the budget, as when a fleet grows; then it is told 57P01; 0s = no limit",
        at!(Draft.config.proxy.idle_pinned_timeout, Between(Duration::ZERO, YEAR)),
    )
    .live(),
    Key::new(
        "proxy.max_client_connections",
        Fallback::Integer(10_000),
        "Most clients connected at once, where there are file descriptors for them; one more is refused with 53300",
        at!(Draft.config.proxy.max_client_connections, Between(1, 1_000_000)),
    )
    .pgbouncer(&["max_client_conn"])
    .live(),
    Key::new(
        "proxy.max_message_size",
        Fallback::Text("1GiB"),
        "Largest message taken from a client",
        at!(Draft.config.proxy.max_message_size, Between(KIBIBYTE, GIBIBYTE)),
    )
    .pgbouncer(&["max_packet_size"]),
    Key::new(
        "proxy.max_prepared_statements",
        Fallback::Integer(10_000),
        "Most prepared statements one client may have, of 32 MiB at most",
        at!(Draft.config.proxy.max_prepared_statements, Between(1, 1_000_000)),
    ),
    Key::new(
        "proxy.max_notifications_queued",
        Fallback::Integer(1000),
        "Most notifications kept for a client that does not take them, in a transaction for example; more are lost",
        at!(Draft.config.proxy.max_notifications_queued, Between(1, 1_000_000)),
    )
    .live(),
    Key::new(
        "proxy.pin_notice",
        Fallback::Flag(false),
        "Whether a client is told by a NOTICE when it is pinned to its server, why, and how to avoid it",
        at!(Draft.config.proxy.pin_notice),
    )
    .live(),
    Key::new(
        "proxy.shutdown_timeout",
        Fallback::Text("25s"),
        "How long transactions may go on after SIGTERM; ECS kills after its stopTimeout of 30 s; 0s = cut at once",
        at!(Draft.config.proxy.shutdown_timeout, Between(Duration::ZERO, HOUR)),
    )
    .live(),
    Key::new(
        "proxy.workers",
        Fallback::Integer(0),
        "Threads that serve clients; 0 = one per core",
        at!(Draft.config.proxy.workers, Between(0, 1024)),
    ),
    Key::new(
        "proxy.runtime",
        Fallback::Text("per-core"),
        "How the workers share the clients",
        at!(Draft.config.proxy.runtime),
    ),
    Key::new(
        "proxy.tcp_keepalive",
        Fallback::Text("60s"),
        "How long a connection is silent before the kernel probes its peer; a Network Load Balancer forgets it at 350 s",
        at!(Draft.config.proxy.tcp_keepalive, Between(SECOND, KEEPALIVE_MAX)),
    )
    .pgbouncer(&["tcp_keepidle"]),
    Key::new(
        "proxy.tcp_user_timeout",
        Fallback::Text("30s"),
        "How long sent data may stay unacknowledged before the connection is given up; 0s = the system's default",
        at!(Draft.config.proxy.tcp_user_timeout, Between(Duration::ZERO, HOUR)),
    )
    .pgbouncer(&["tcp_user_timeout"]),
    Key::new(
        "proxy.secret_time_to_live",
        Fallback::Text("5m"),
        "How long a secret is used before it is read again",
        at!(Draft.config.proxy.secret_time_to_live, Between(SECOND, DAY)),
    )
    .live(),
    Key::new(
        "proxy.secret_overlap",
        Fallback::Text("1h"),
        "How long clients may use the password before the current one after a rotation; 0s = not at all",
        at!(Draft.config.proxy.secret_overlap, Between(Duration::ZERO, YEAR)),
    )
    .live(),
    Key::new(
        "proxy.default_auth_scheme",
        Fallback::Text("NONE"),
        "How servers are logged in to by default: NONE = with the secret, IAM_AUTH = with a token of pgweir's own role",
        at!(Draft.config.proxy.default_auth_scheme),
    )
    .live(),
    Key::new(
        "target.host",
        Fallback::Required("mydb.abc123.eu-central-1.rds.amazonaws.com"),
        "Host name or IP address of the PostgreSQL server; must be set",
        at!(Draft.config.target.host, rules::HOST),
    )
    .pgbouncer(&["host"])
    .secret(),
    Key::new(
        "target.port",
        Fallback::Integer(5432),
        "Its TCP port",
        at!(Draft.config.target.port, Between(1, u16::MAX)),
    )
    .pgbouncer(&["port"]),
    Key::new(
        "target.tls",
        Fallback::Text("prefer"),
        "Whether it is reached by TLS, and what is verified, as libpq's sslmode",
        at!(Draft.config.target.tls),
    )
    .pgbouncer(&["server_tls_sslmode"]),
    Key::new(
        "target.tls_ca",
        Fallback::Absent(Example::Text("global-bundle.pem")),
        "Certificate authorities that its certificate is verified with, PEM; none = the system's",
        at!(Draft.config.target.tls_ca),
    )
    .pgbouncer(&["server_tls_ca_file"]),
    Key::new(
        "target.max_connections_percent",
        Fallback::Integer(100),
        "The budget: most servers open at once, in percent of the target's max_connections less its reserved slots",
        at!(Draft.max_connections_percent, Between(1, 100)),
    )
    .live(),
    Key::new(
        "target.max_connections",
        Fallback::Absent(Example::Integer(20)),
        "The budget as a number; instead of max_connections_percent",
        at!(Draft.max_connections, Between(1, SERVERS_MAX)),
    )
    .pgbouncer(&["max_db_connections", "default_pool_size", "pool_size"])
    .live(),
    Key::new(
        "target.max_idle_connections_percent",
        Fallback::Integer(50),
        "How much of the budget may stay open without work, in percent of the budget",
        at!(Draft.config.target.max_idle_connections_percent, Between(0, 100)),
    )
    .live(),
    Key::new(
        "target.connection_borrow_timeout",
        Fallback::Text("120s"),
        "How long a client waits for a server; 0s = fail at once if none is idle",
        at!(Draft.config.target.connection_borrow_timeout, Between(Duration::ZERO, HOUR)),
    )
    .pgbouncer(&["query_wait_timeout"])
    .live(),
    Key::new(
        "target.connect_timeout",
        Fallback::Text("10s"),
        "How long opening a server may take, login included",
        at!(Draft.config.target.connect_timeout, Between(MILLISECOND, HOUR)),
    )
    .pgbouncer(&["server_connect_timeout"])
    .live(),
    Key::new(
        "target.connections_opened_at_once",
        Fallback::Integer(4),
        "Most servers being opened at the same time",
        at!(Draft.config.target.connections_opened_at_once, Between(1, 1000)),
    )
    .live(),
    Key::new(
        "target.idle_connection_timeout",
        Fallback::Text("5m"),
        "How long a server may be idle before it is closed",
        at!(Draft.config.target.idle_connection_timeout, Between(MILLISECOND, YEAR)),
    )
    .pgbouncer(&["server_idle_timeout"])
    .live(),
    Key::new(
        "target.connection_lifetime",
        Fallback::Text("1h"),
        "How long a server is used before another replaces it, with jitter; 0s = no limit",
        at!(Draft.config.target.connection_lifetime, Between(Duration::ZERO, YEAR)),
    )
    .pgbouncer(&["server_lifetime"])
    .live(),
    Key::new(
        "target.fail_fast_after",
        Fallback::Text("30s"),
        "How long the target may refuse connections before clients are refused at once instead of waiting",
        at!(Draft.config.target.fail_fast_after, Between(Duration::ZERO, HOUR)),
    )
    .live(),
    Key::new(
        "target.max_prepared_statements",
        Fallback::Integer(500),
        "Most prepared statements kept on one server; the least recently used one goes",
        at!(Draft.config.target.max_prepared_statements, Between(1, 100_000)),
    )
    .pgbouncer(&["max_prepared_statements"]),
    Key::new(
        "target.cancel_timeout",
        Fallback::Text("10s"),
        "How long a cancel request may take to reach the target",
        at!(Draft.config.target.cancel_timeout, Between(MILLISECOND, HOUR)),
    )
    .pgbouncer(&["cancel_wait_timeout"]),
    Key::new(
        "target.init_query",
        Fallback::Text(""),
        "SQL run once on each new server",
        at!(Draft.config.target.init_query, rules::QUERY),
    )
    .pgbouncer(&["connect_query"])
    .secret(),
    Key::new(
        "target.session_pinning_filters",
        Fallback::List,
        "What does not pin; with EXCLUDE_VARIABLE_SETS a setting that cannot follow its client is lost instead",
        at!(Draft.config.target.session_pinning_filters),
    )
    .live(),
    Key::new(
        "admin.listen",
        Fallback::Text("127.0.0.1:9127"),
        "Address and port of /metrics, /healthz and /readyz, in plain HTTP without a login; \"off\" = none",
        at!(Draft.config.admin.listen),
    ),
    Key::new(
        "fleet.name",
        Fallback::Text(""),
        "Name under which several pgweir share the budget of one target; empty = this one has it alone",
        at!(Draft.config.fleet.name, rules::FLEET),
    ),
    Key::new(
        "fleet.user",
        Fallback::Absent(Example::Text("pgweir_fleet")),
        "Database user, one of proxy.auth, as whom the members know each other; none = any of these users, so that each can pass for a member",
        at!(Draft.config.fleet.user, rules::USERNAME),
    ),
    Key::new(
        "fleet.share",
        Fallback::Text("equal"),
        "This one's part of the fleet's budget: as much as the others, a part such as \"25%\", or a number",
        at!(Draft.config.fleet.share, SERVERS_MAX),
    )
    .live(),
    Key::new(
        "metrics.cloudwatch_emf",
        Fallback::Flag(false),
        "Whether RDS Proxy's metrics are written to the log in CloudWatch's embedded metric format",
        at!(Draft.config.metrics.cloudwatch_emf),
    ),
    Key::new(
        "metrics.cloudwatch_namespace",
        Fallback::Text("pgweir"),
        "Namespace of these metrics",
        at!(Draft.config.metrics.cloudwatch_namespace, rules::NAMESPACE),
    ),
    Key::new(
        "metrics.cloudwatch_proxy_name",
        Fallback::Text("pgweir"),
        "Their dimension ProxyName",
        at!(Draft.config.metrics.cloudwatch_proxy_name, rules::DIMENSION),
    ),
    Key::new(
        "metrics.cloudwatch_interval",
        Fallback::Text("60s"),
        "How often they are written",
        at!(Draft.config.metrics.cloudwatch_interval, Between(SECOND, HOUR)),
    ),
    Key::new(
        "log.format",
        Fallback::Text("text"),
        "How a log line is written",
        at!(Draft.config.log.format),
    ),
    Key::new(
        "log.level",
        Fallback::Text("info"),
        "The least important events written",
        at!(Draft.config.log.level),
    )
    .pgbouncer(&["verbose"])
    .live(),
];
