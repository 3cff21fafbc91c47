//! What `/readyz`, the status page and the metrics show of the sources.

use tokio::time::Instant;

use super::error::SourceError;

/// How one source is doing. Holds nothing secret.
#[derive(Clone, Debug)]
pub struct SourceStatus {
    /// The file's path or the secret's ARN.
    pub origin: String,
    /// The user it is for, once it was read.
    pub username: Option<String>,
    /// Of the secret in use; see [`super::Credential::generation`].
    pub generation: Option<u64>,
    /// Whether its user can log in: also with an old value, while the source is away.
    pub usable: bool,
    /// When it was last read without an error.
    pub last_success: Option<Instant>,
    /// What is wrong with it now; `None` when the last read went well.
    pub last_error: Option<SourceError>,
    /// Failed reads since the last good one.
    pub failures: u32,
}
