//! SIGHUP: what can change while clients are served does, and what cannot is said.

use super::StartError;
use super::health::Health;
use crate::client::Shared;
use crate::config::{Auth, AuthScheme, Config, IamAuth, TargetTls, environment};
use crate::credentials::LoadError;
use crate::net::tls_acceptor::TlsAcceptor;
use crate::telemetry::log::LogControl;
use std::path::Path;
use std::sync::Arc;

/// Reads the configuration again and puts in force what can be, or nothing if anything about it is
/// wrong. Yields what is in force now.
///
/// # Cancel safety
/// A dropped call puts nothing in force but what holds for secrets that are read from now on, and a
/// certificate that was renewed in its files.
pub(super) async fn reload(
    path: Option<&Path>,
    current: Config,
    shared: &Arc<Shared>,
    health: &Health,
    log: &LogControl,
) -> Config {
    let new = match Config::load(path, environment()) {
        Ok(new) => new,
        Err(errors) => {
            for line in errors.to_string().lines() {
                tracing::error!(problem = line, "configuration not reloaded");
            }
            return current;
        }
    };
    let (live, restart) = current.live_differences(&new);
    let merged = current.with_live_settings_of(&new);
    let acceptor = match prepare(shared, &current, &merged).await {
        Ok(acceptor) => acceptor,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "configuration not reloaded");
            return current;
        }
    };
    for key in &live {
        tracing::info!(key, "setting changed");
    }
    for key in &restart {
        tracing::warn!(key, "setting needs a restart to change");
    }
    // Before clients may be told that they need it.
    *shared.tls.write() = acceptor;
    shared.descriptors.look_again();
    super::apply_live(shared, &merged);
    super::warn_of_descriptors(&shared.descriptors, &merged);
    health.reconfigure(&merged);
    if let Err(error) = log.set_level(super::log_level(merged.log.level)) {
        tracing::warn!(error = &error as &dyn std::error::Error, "log level not changed");
    }
    tracing::info!(changed = live.len(), need_restart = restart.len(), "configuration reloaded");
    merged
}

/// Why a configuration without a mistake of its own is not taken over.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// The certificate or its key.
    #[error("the certificate for clients cannot be used")]
    Certificate(#[source] StartError),
    /// No user could log in.
    #[error("no secret can be used")]
    Credentials(#[from] LoadError),
    /// What the new settings rest upon is not in force before a restart.
    #[error(
        "IAM authentication needs target.tls = \"verify-full\", which needs a restart to change"
    )]
    TargetNotVerified,
}

/// Does all that can fail, before anything is in force: the last of it puts the secrets of `next` in
/// force, or nothing. Yields what clients are offered TLS with from now on.
async fn prepare(
    shared: &Shared,
    current: &Config,
    next: &Config,
) -> Result<Option<Arc<TlsAcceptor>>, ReloadError> {
    let is_iam =
        |auth: &Auth| auth.auth_scheme == AuthScheme::IamAuth || auth.iam_auth == IamAuth::Required;
    if next.target.tls != TargetTls::VerifyFull && next.proxy.auth.iter().any(is_iam) {
        return Err(ReloadError::TargetNotVerified);
    }
    let acceptor = certificate(shared, current, next).map_err(ReloadError::Certificate)?;
    let set_timing = |config: &Config| {
        let proxy = &config.proxy;
        shared.credentials.set_timing(proxy.secret_time_to_live, proxy.secret_overlap);
    };
    // In force for what is read from now on.
    set_timing(next);
    if let Err(error) = shared.credentials.reload(&next.proxy.auth).await {
        set_timing(current);
        return Err(error.into());
    }
    Ok(acceptor)
}

fn certificate(
    shared: &Shared,
    current: &Config,
    next: &Config,
) -> Result<Option<Arc<TlsAcceptor>>, StartError> {
    if next.proxy.tls != current.proxy.tls {
        return super::acceptor(next);
    }
    let acceptor = shared.tls.read().as_ref().map(Arc::clone);
    if let Some(acceptor) = &acceptor
        && acceptor.reload_if_changed()?
    {
        tracing::info!("certificate reloaded");
    }
    Ok(acceptor)
}

/// Takes over a certificate whose files have changed.
pub(super) fn reload_certificate(shared: &Shared) {
    let acceptor = shared.tls.read().as_ref().map(Arc::clone);
    let Some(acceptor) = acceptor else { return };
    match acceptor.reload_if_changed() {
        Ok(true) => tracing::info!("certificate reloaded"),
        Ok(false) => {}
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "certificate not reloaded");
        }
    }
}
