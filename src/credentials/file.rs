//! Secrets in files, in the format of Secrets Manager.
//!
//! A file is looked at often and read when it looks different, so that a rotation by an agent, a
//! Kubernetes volume (which swaps a symbolic link) or an editor takes effect within seconds.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::error::SourceError;
use super::reader::SecretBytes;
use crate::auth::secret::SECRET_LEN_MAX;

/// What a file looks like from outside. Equal values mean that it need not be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fingerprint {
    /// Why it cannot be looked at.
    Absent(io::ErrorKind),
    /// Device, inode, length, and the times of the last change of content and of inode.
    Present {
        /// Device and inode: another file was renamed over it.
        file: (u64, u64),
        /// In bytes.
        len: u64,
        /// Last change of the content, seconds and nanoseconds.
        modified: (i64, i64),
        /// Last change of the inode, which also moves when a tool sets `modified` back.
        changed: (i64, i64),
    },
}

/// Looks at a file.
pub async fn fingerprint(path: &Path) -> Fingerprint {
    match tokio::fs::metadata(path).await {
        Ok(metadata) => Fingerprint::Present {
            file: (metadata.dev(), metadata.ino()),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        },
        Err(error) => Fingerprint::Absent(error.kind()),
    }
}

/// Reads a whole file of bounded size.
pub async fn read(path: &Path) -> Result<SecretBytes, SourceError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || read_blocking(&path))
        .await
        .unwrap_or(Err(SourceError::Derivation))
}

fn read_blocking(path: &PathBuf) -> Result<SecretBytes, SourceError> {
    let failed = |error: io::Error| SourceError::File(error.kind());
    // Before opening: the open of a pipe waits for a writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(SourceError::NotRegularFile);
    }
    // Room for all at once: a buffer that grows leaves copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_LEN_MAX + 1));
    let limit = u64::try_from(SECRET_LEN_MAX).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > SECRET_LEN_MAX {
        return Err(SourceError::TooLarge);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_longer_than_a_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.json");
        fs::write(&path, vec![b' '; SECRET_LEN_MAX]).unwrap();
        assert_eq!(read(&path).await.unwrap().len(), SECRET_LEN_MAX);
        fs::write(&path, vec![b' '; SECRET_LEN_MAX + 1]).unwrap();
        assert_eq!(read(&path).await.unwrap_err(), SourceError::TooLarge);
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_refused_without_opening_it() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).await.unwrap_err(), SourceError::NotRegularFile);
        assert_eq!(read(Path::new("/dev/zero")).await.unwrap_err(), SourceError::NotRegularFile);
        assert_eq!(
            read(&directory.path().join("none")).await.unwrap_err(),
            SourceError::File(io::ErrorKind::NotFound)
        );
    }

    #[tokio::test]
    async fn a_file_renamed_over_another_of_equal_length_looks_different() {
        let directory = tempfile::tempdir().unwrap();
        let (path, next) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&path, "one").unwrap();
        let before = fingerprint(&path).await;
        assert_eq!(fingerprint(&path).await, before);
        fs::write(&next, "two").unwrap();
        fs::rename(&next, &path).unwrap();
        assert_ne!(fingerprint(&path).await, before);
        fs::remove_file(&path).unwrap();
        assert_eq!(fingerprint(&path).await, Fingerprint::Absent(io::ErrorKind::NotFound));
    }
}
