//! `pgweir check --config FILE`: everything short of serving.

use super::StartError;
use crate::config::Config;
use crate::target::{self, PROBE_DATABASE};
use std::fmt::Write as _;

/// What a check found.
pub struct Report {
    /// To be printed.
    pub text: String,
    /// True if pgweir would serve.
    pub ok: bool,
}

/// Reads the secrets, logs in to the target with each, and computes the budget.
///
/// # Errors
/// [`StartError`], where pgweir would not start.
pub async fn check(config: &Config) -> Result<Report, StartError> {
    let mut report = Report { text: String::new(), ok: true };
    let _ = writeln!(report.text, "configuration: ok");
    if super::acceptor(config)?.is_some() {
        let _ = writeln!(report.text, "certificate for clients: ok");
    }
    let endpoint = super::endpoint(config)?;
    let settings = super::credential_settings(config);
    let loaded = crate::credentials::Credentials::load(&config.proxy.auth, settings).await;
    let (credentials, problems) = loaded?;
    for problem in &problems {
        report.ok = false;
        let _ = writeln!(report.text, "secret: {problem}");
    }
    let mut capacity = None;
    for user in credentials.usernames() {
        let mut outcome = target::probe(&endpoint, PROBE_DATABASE, &credentials, &user).await;
        if outcome.as_ref().is_err_and(target::ProbeError::reached_target) {
            outcome = target::probe(&endpoint, &user, &credentials, &user).await;
        }
        match outcome {
            Ok(found) => {
                let _ = writeln!(
                    report.text,
                    "login of {user} to {}:{}: ok",
                    endpoint.host, endpoint.port
                );
                capacity = Some(found);
            }
            Err(error) => {
                report.ok = false;
                let _ = writeln!(
                    report.text,
                    "login of {user} to {}:{}: {}",
                    endpoint.host,
                    endpoint.port,
                    chain(&error)
                );
            }
        }
    }
    if let Some(capacity) = capacity {
        let _ = writeln!(
            report.text,
            "budget: {} of {} usable connections (max_connections {}, reserved {})",
            capacity.budget(config.target.max_connections),
            capacity.usable(),
            capacity.max_connections,
            capacity.reserved
        );
        if capacity.budget(config.target.max_connections) > capacity.usable() {
            report.ok = false;
            let _ = writeln!(report.text, "budget: larger than what the target has");
        }
    }
    Ok(report)
}

/// An error with its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}
