//! Reading a secret's bytes, wherever they are. A trait, so that tests can script what a source does.

use std::future::Future;
use std::pin::Pin;

use aws_config::SdkConfig;
use zeroize::Zeroizing;

use super::error::SourceError;
use super::file::{self, Fingerprint};
use super::secrets_manager::SecretsManager;
use crate::config::SecretSource;

/// The JSON text of a secret, wiped when dropped.
pub type SecretBytes = Zeroizing<Vec<u8>>;

/// A future behind a pointer, because the reader is one.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Something that can read a source.
pub trait ReadSecret: Send + Sync + 'static {
    /// Reads the whole secret.
    fn read<'a>(&'a self, source: &'a SecretSource) -> Boxed<'a, Result<SecretBytes, SourceError>>;

    /// What the source looks like, where looking is cheap; `None` if it can only be read.
    fn fingerprint<'a>(&'a self, source: &'a SecretSource) -> Boxed<'a, Option<Fingerprint>>;
}

/// Files and AWS.
pub struct Reader {
    secrets_manager: SecretsManager,
}

impl Reader {
    /// Makes no call and no connection; `aws` replaces the standard chain of the AWS SDK.
    pub fn new(aws: Option<SdkConfig>) -> Self {
        Self { secrets_manager: SecretsManager::new(aws) }
    }
}

impl ReadSecret for Reader {
    fn read<'a>(&'a self, source: &'a SecretSource) -> Boxed<'a, Result<SecretBytes, SourceError>> {
        match source {
            SecretSource::File(path) => Box::pin(file::read(path)),
            SecretSource::SecretsManager { arn } => Box::pin(self.secrets_manager.read(arn)),
        }
    }

    fn fingerprint<'a>(&'a self, source: &'a SecretSource) -> Boxed<'a, Option<Fingerprint>> {
        match source {
            SecretSource::File(path) => Box::pin(async { Some(file::fingerprint(path).await) }),
            SecretSource::SecretsManager { .. } => Box::pin(async { None }),
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
        let reader = Reader::new(None);
        let bytes = reader.read(&SecretSource::File(path)).await.unwrap();
        assert_eq!(*bytes, b"{}");
        assert!(reader.secrets_manager.is_untouched());
    }
}
