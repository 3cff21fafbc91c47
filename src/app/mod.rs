//! Layer 9. Builds everything from the configuration, obeys signals, and takes it down in order.

pub mod ask;
pub mod check;
mod cloudwatch;
mod fleet;
mod health;
mod notify;
mod reload;
mod run;
mod secrets;
mod workers;

use crate::client::{Live, Rejection, Shared};
use crate::config::{self, Config, MaxConnections};
use crate::credentials::{Credentials, LoadError};
use crate::net::tls_acceptor::TlsAcceptor;
use crate::net::tls_connector::TargetConnector;
use crate::net::tls_error::TlsFileError;
use crate::net::{Descriptors, SocketOptions};
use crate::pool::PoolSettings;
use crate::server::CloseReason;
use crate::server::connect::Endpoint;
use crate::state::PinReason;
use crate::telemetry::metrics::{LabelSet, Labels};
use crate::telemetry::{Metrics, log};
pub use run::run;
use std::io;
use std::sync::Arc;

/// Why pgweir does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No user could log in.
    #[error("no secret can be used")]
    Credentials(#[from] LoadError),
    /// Certificate, key or CA.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// A socket or a thread.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The log could not be set up.
    #[error(transparent)]
    Log(#[from] log::LogError),
}

impl StartError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

pub(crate) fn socket_options(config: &Config) -> SocketOptions {
    SocketOptions {
        keepalive: config.proxy.tcp_keepalive,
        user_timeout: config.proxy.tcp_user_timeout,
    }
}

pub(crate) fn endpoint(config: &Config) -> Result<Endpoint, StartError> {
    let target = &config.target;
    Ok(Endpoint {
        host: target.host.clone(),
        port: target.port,
        connector: TargetConnector::load(target.tls, target.tls_ca.as_deref(), &target.host)?,
        options: socket_options(config),
        timeout: target.connect_timeout,
        init_query: target.init_query.clone(),
    })
}

pub(crate) fn pool_settings(config: &Config) -> PoolSettings {
    let target = &config.target;
    PoolSettings {
        connection_borrow_timeout: target.connection_borrow_timeout,
        max_idle_connections_percent: target.max_idle_connections_percent,
        idle_connection_timeout: target.idle_connection_timeout,
        connection_lifetime: target.connection_lifetime,
        fail_fast_after: target.fail_fast_after,
        cancel_timeout: target.cancel_timeout,
    }
}

pub(crate) fn acceptor(config: &Config) -> Result<Option<Arc<TlsAcceptor>>, StartError> {
    let Some(files) = &config.proxy.tls else { return Ok(None) };
    let hash = crate::auth::channel_binding::tls_server_end_point;
    Ok(Some(Arc::new(TlsAcceptor::load(files, hash)?)))
}

pub(crate) fn metrics(shards: usize) -> Arc<Metrics> {
    let labels = Labels {
        pins: LabelSet::of::<PinReason>(),
        server_closes: LabelSet::of::<CloseReason>(),
        login_rejections: LabelSet::of::<Rejection>(),
    };
    Metrics::new(shards, labels)
}

pub(crate) fn log_settings(config: &config::Log) -> log::Log {
    log::Log {
        format: match config.format {
            config::LogFormat::Text => log::LogFormat::Text,
            config::LogFormat::Json => log::LogFormat::Json,
        },
        level: log_level(config.level),
    }
}

pub(crate) fn log_level(level: config::LogLevel) -> log::LogLevel {
    match level {
        config::LogLevel::Error => log::LogLevel::Error,
        config::LogLevel::Warn => log::LogLevel::Warn,
        config::LogLevel::Info => log::LogLevel::Info,
        config::LogLevel::Debug => log::LogLevel::Debug,
        config::LogLevel::Trace => log::LogLevel::Trace,
    }
}

pub(crate) fn credential_settings(config: &Config) -> crate::credentials::Settings {
    crate::credentials::Settings {
        time_to_live: config.proxy.secret_time_to_live,
        overlap: config.proxy.secret_overlap,
        aws: None,
    }
}

pub(crate) async fn credentials(config: &Config) -> Result<Arc<Credentials>, StartError> {
    let settings = credential_settings(config);
    let (credentials, _problems) = Credentials::load(&config.proxy.auth, settings).await?;
    Ok(credentials)
}

/// How many clients there are descriptors for, if that is fewer than are wanted.
pub(crate) fn too_few_descriptors(descriptors: &Descriptors, config: &Config) -> Option<u32> {
    let budget = match config.target.max_connections {
        MaxConnections::Absolute(connections) => connections.get(),
        // What it comes to is not known yet, and little beside the clients.
        MaxConnections::Percent(_) => 0,
    };
    let clients = descriptors.clients(budget);
    (clients < config.proxy.max_client_connections).then_some(clients)
}

/// Says that clients will be turned away for want of descriptors, if that is so.
pub(crate) fn warn_of_descriptors(descriptors: &Descriptors, config: &Config) {
    if let Some(clients) = too_few_descriptors(descriptors, config) {
        tracing::warn!(
            limit = descriptors.limit(),
            clients,
            max_client_connections = config.proxy.max_client_connections,
            "the limit of file descriptors (ulimit -n, nofile) is too low for max_client_connections"
        );
    }
}

/// What clients feel of a new configuration, put in force at once.
pub(crate) fn apply_live(shared: &Shared, config: &Config) {
    *shared.live.write() = Arc::new(Live::from_config(config));
    shared.revision.fetch_add(1, std::sync::atomic::Ordering::Release);
    shared.pools.reconfigure(
        pool_settings(config),
        u32::from(config.target.connections_opened_at_once),
        config.target.connect_timeout,
    );
}
