//! `pgweir check --config FILE`: everything short of serving.

use super::StartError;
use crate::config::{self, Config};
use crate::credentials::{Credentials, LoadError};
use crate::net::{Descriptors, descriptors};
use crate::server::connect::{ConnectError, Endpoint};
use crate::server::query::QueryError;
use crate::target::{self, PROBE_DATABASE, ProbeError};
use crate::wire::SqlState;
use crate::wire::response::ErrorFields;
use std::fmt::{Display, Write as _};
use std::sync::Arc;

/// What a check found.
pub struct Report {
    /// To be printed.
    pub text: String,
    /// True if pgweir would serve.
    pub ok: bool,
}

impl Report {
    fn good(&mut self, what: &str, found: impl Display) {
        let _ = writeln!(self.text, "{what}: {found}");
    }

    fn bad(&mut self, what: &str, found: impl Display) {
        self.ok = false;
        self.good(what, found);
    }
}

/// Reads the certificates and the secrets, logs in to the target with each, and computes the
/// budget. Tells all that is wrong, not the first only.
///
/// # Errors
/// [`StartError`], where the system fails.
pub async fn check(config: &Config) -> Result<Report, StartError> {
    let mut report = Report { text: String::new(), ok: true };
    report.good("configuration", "ok");
    match super::acceptor(config) {
        Ok(None) => report.good("certificate for clients", "none, so that clients have no TLS"),
        Ok(Some(_)) => report.good("certificate for clients", "ok"),
        Err(error) => report.bad("certificate for clients", chain(&error)),
    }
    let limit = descriptors::limit_when_raised();
    let descriptors = Descriptors::limited(limit, super::workers::reactors(config));
    match super::too_few_descriptors(&descriptors, config) {
        None => report.good("file descriptors", format_args!("limit of {limit}")),
        Some(clients) => report.good(
            "file descriptors",
            format_args!(
                "limit of {limit} (ulimit -n, nofile), enough for {clients} clients; max_client_connections is {}",
                config.proxy.max_client_connections
            ),
        ),
    }
    let settings = super::credential_settings(config);
    let (credentials, problems) = match Credentials::load(&config.proxy.auth, settings).await {
        Ok((credentials, problems)) => (Some(credentials), problems),
        Err(LoadError::NoneUsable { problems }) => (None, problems),
        Err(error) => return Err(error.into()),
    };
    for problem in &problems {
        report.bad("secret", problem);
    }
    match super::endpoint(config) {
        Ok(endpoint) => {
            if let Some(credentials) = credentials {
                log_in(&mut report, &endpoint, &credentials, config).await;
            }
        }
        Err(error) => report.bad("TLS to the target", chain(&error)),
    }
    Ok(report)
}

/// Logs in as each user, and tells the budget.
async fn log_in(
    report: &mut Report,
    endpoint: &Endpoint,
    credentials: &Arc<Credentials>,
    config: &Config,
) {
    let mut capacity = None;
    for user in credentials.usernames() {
        let mut outcome = target::probe(endpoint, PROBE_DATABASE, credentials, &user).await;
        if let Err(error) = outcome {
            outcome = if error.reached_target() {
                let second = target::probe(endpoint, &user, credentials, &user).await;
                second.map_err(|second| error.or_later(second))
            } else {
                Err(error)
            };
        }
        let what = format!("login of {user} to {}:{}", endpoint.host, endpoint.port);
        match outcome {
            Ok(found) => {
                report.good(&what, "ok");
                capacity = Some(found);
            }
            Err(error) => report.bad(&what, in_full(&error)),
        }
    }
    let Some(capacity) = capacity else { return };
    let connections = capacity.budget(config.target.max_connections);
    let usable = capacity.usable();
    report.good(
        "budget",
        format_args!(
            "{connections} of {usable} usable connections (max_connections {}, reserved {})",
            capacity.max_connections, capacity.reserved
        ),
    );
    if connections > usable {
        report.bad("budget", "larger than what the target has");
    }
    if !config.fleet.name.is_empty() {
        let config::Fleet { name, user, share } = &config.fleet;
        report.good("fleet", format_args!("{name}, which has this budget; share: {share}"));
        if let Some(user) = user
            && credentials.lookup(user).is_none()
        {
            report.bad("fleet", format_args!("its user {user} has no secret that can be used"));
        }
    }
}

/// The error, and the target's own words if it gave any: they are for the operator here.
fn in_full(error: &ProbeError) -> String {
    let text = chain(error);
    let (ProbeError::Connect(
        ConnectError::Refused(refusal) | ConnectError::InitQuery(QueryError::Refused(refusal)),
    )
    | ProbeError::Query(QueryError::Refused(refusal))) = error
    else {
        return text;
    };
    let words = String::from_utf8_lossy(ErrorFields::read(&refusal.body).message);
    let words: String = words.chars().filter(|character| !character.is_control()).collect();
    let advice = if refusal.sqlstate == Some(SqlState::TOO_MANY_CONNECTIONS) {
        " (a pgweir that runs may hold the connections that were free)"
    } else {
        ""
    };
    format!("{text}: {words}{advice}")
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
