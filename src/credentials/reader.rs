//! Reading a secret's bytes, wherever they are. A trait, so that tests can script what a source does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use zeroize::Zeroizing;

use super::error::SourceError;
use super::file::{self, Fingerprint};
use super::secrets_manager::{Chain, SecretsManager};
use crate::config::SecretSource;

/// The JSON text of a secret, wiped when dropped.
pub type SecretBytes = Zeroizing<Vec<u8>>;

/// Which version of a secret, by its staging label. A file has a current one only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `AWSCURRENT`: the version in force.
    Current,
    /// `AWSPREVIOUS`: the one before it.
    Previous,
    /// `AWSPENDING`: the one that a rotation is about to put in force.
    Pending,
}

/// One version of a secret.
pub struct SecretValue {
    /// Its content.
    pub bytes: SecretBytes,
    /// When it was made, if the source tells.
    pub created: Option<SystemTime>,
}

/// A future behind a pointer, because the reader is one.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that can read a source.
pub trait ReadSecret: Send + Sync + 'static {
    /// Reads a whole version of the secret.
    fn read<'a>(
        &'a self,
        source: &'a SecretSource,
        stage: Stage,
    ) -> Boxed<'a, Result<SecretValue, SourceError>>;

    /// What the source looks like, where looking is cheap; `None` if it can only be read.
    fn fingerprint<'a>(&'a self, source: &'a SecretSource) -> Boxed<'a, Option<Fingerprint>>;
}

/// Files and AWS.
pub struct Reader {
    secrets_manager: SecretsManager,
}

impl Reader {
    /// Makes no call and no connection.
    pub fn new(chain: Arc<Chain>) -> Self {
        Self { secrets_manager: SecretsManager::new(chain) }
    }
}

impl ReadSecret for Reader {
    fn read<'a>(
        &'a self,
        source: &'a SecretSource,
        stage: Stage,
    ) -> Boxed<'a, Result<SecretValue, SourceError>> {
        match (source, stage) {
            (SecretSource::File(path), Stage::Current) => Box::pin(async {
                let bytes = file::read(path).await?;
                Ok(SecretValue { bytes, created: None })
            }),
            (SecretSource::File(_), Stage::Previous | Stage::Pending)
            | (SecretSource::Nowhere { .. }, _) => Box::pin(async { Err(SourceError::NotFound) }),
            (SecretSource::SecretsManager { arn }, stage) => {
                Box::pin(self.secrets_manager.read(arn, stage))
            }
        }
    }

    fn fingerprint<'a>(&'a self, source: &'a SecretSource) -> Boxed<'a, Option<Fingerprint>> {
        match source {
            SecretSource::File(path) => Box::pin(async { Some(file::fingerprint(path).await) }),
            SecretSource::SecretsManager { .. } | SecretSource::Nowhere { .. } => {
                Box::pin(async { None })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The standard chain may ask the instance's metadata service, which takes seconds where there is none.
    #[tokio::test]
    async fn a_file_is_read_without_looking_for_aws() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.json");
        std::fs::write(&path, "{}").unwrap();
        let reader = Reader::new(Chain::new(None));
        let value = reader.read(&SecretSource::File(path), Stage::Current).await.ok().unwrap();
        assert_eq!(*value.bytes, b"{}");
        assert!(reader.secrets_manager.is_untouched());
    }
}
