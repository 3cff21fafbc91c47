//! Layer 8. The HTTP endpoint: metrics, health and readiness.
//!
//! What is answered comes from an [`AdminSource`]; this layer knows HTTP only. It has no
//! authentication and shows no secret, so it listens where the operator's network allows it.
//! One request per connection, and a bound on size, time and number of everything: this endpoint
//! shares the process with the clients and must never be what stops them.

mod answer;
mod serve;
#[cfg(test)]
mod tests;

pub use serve::serve;

use serde::Serialize;

/// What the endpoint shows.
pub trait AdminSource: Send + Sync + 'static {
    /// The text of `/metrics`, in Prometheus' format 0.0.4. Called on a thread that may block.
    fn metrics_text(&self) -> String;

    /// Whether the process works; if not, whoever runs it should start it anew. Must not wait.
    fn alive(&self) -> bool;

    /// Whether clients should be sent here. Must not wait: it tells what is known already.
    fn readiness(&self) -> Readiness;
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether clients should be sent here.
    pub ready: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
}

impl Readiness {
    /// Ready if every check is.
    #[must_use]
    pub fn of(checks: Vec<Check>) -> Self {
        Self { ready: checks.iter().all(|check| check.ok), checks }
    }
}

/// One condition of readiness.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is looked at: `target`, `secrets`, `accepting`.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// For people: what is known. Anybody who reaches the endpoint reads it.
    pub detail: String,
}
