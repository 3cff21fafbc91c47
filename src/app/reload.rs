//! SIGHUP: what can change while clients are served does, and what cannot is said.

use super::health::Health;
use crate::client::Shared;
use crate::config::{Config, environment};
use crate::telemetry::log::LogControl;
use std::path::Path;
use std::sync::Arc;

/// Reads the configuration again and puts in force what can be. Yields what is in force now.
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
    for key in &live {
        tracing::info!(key, "setting changed");
    }
    for key in &restart {
        tracing::warn!(key, "setting needs a restart to change");
    }
    let merged = current.with_live_settings_of(&new);
    super::apply_live(shared, &merged);
    health.reconfigure(&merged);
    if let Err(error) = log.set_level(super::log_level(merged.log.level)) {
        tracing::warn!(error = &error as &dyn std::error::Error, "log level not changed");
    }
    if merged.proxy.tls == current.proxy.tls {
        reload_certificate(shared);
    } else {
        match super::acceptor(&merged) {
            Ok(acceptor) => *shared.tls.write() = acceptor,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "certificate not changed"
                );
            }
        }
    }
    let proxy = &merged.proxy;
    shared.credentials.set_timing(proxy.secret_time_to_live, proxy.secret_overlap);
    if let Err(error) = shared.credentials.reload(&merged.proxy.auth).await {
        tracing::error!(error = &error as &dyn std::error::Error, "secrets not reloaded");
    }
    tracing::info!(changed = live.len(), need_restart = restart.len(), "configuration reloaded");
    merged
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
