//! The certificate that clients see, and its replacement while the proxy runs.
//!
//! A reload takes effect for new connections; the others keep what they began with. Bad or half-written files change
//! nothing. What was given as text stays as it is.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::{Mutex, RwLock};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{Error, InconsistentKeys, ServerConfig};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::ALPN_POSTGRESQL;
use super::stream::Stream;
use super::tls_error::{TlsError, TlsFileError};
use super::tls_handshake;
use super::tls_provider;
use crate::config::{Pem, TlsFiles};

/// Computes the `tls-server-end-point` channel binding of a certificate in DER; `None` if its hash is not known.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc5929#section-4>
pub type EndPointHash = fn(&[u8]) -> Option<Vec<u8>>;

/// The certificate and key in use, replaced when their files change.
pub struct TlsAcceptor {
    files: TlsFiles,
    end_point_hash: EndPointHash,
    current: RwLock<Arc<AcceptorState>>,
    /// Also keeps two reloads from running at once.
    seen: Mutex<Seen>,
}

/// What one connection is accepted with.
pub struct AcceptorState {
    config: Arc<ServerConfig>,
    end_point: Option<Arc<[u8]>>,
    leaf: CertificateDer<'static>,
}

impl AcceptorState {
    /// The configuration for rustls.
    #[must_use]
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The `tls-server-end-point` hash of the certificate; `None` if channel binding cannot be offered with it.
    #[must_use]
    pub fn tls_server_end_point(&self) -> Option<&[u8]> {
        self.end_point.as_deref()
    }

    /// Takes the server's side of the handshake on a socket.
    ///
    /// `already_read` are the bytes of it that came already (direct TLS is told by its first byte); pass none after
    /// an `SSLRequest`: bytes behind that one are an attack. Direct TLS demands [`Stream::alpn_protocol`] to be
    /// [`ALPN_POSTGRESQL`], which the caller checks.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket. It has no time limit of its own.
    ///
    /// # Errors
    /// See [`TlsError`]. The client was told by an alert where possible.
    pub async fn accept(
        &self,
        socket: TcpStream,
        already_read: Vec<u8>,
    ) -> Result<Stream, TlsError> {
        tls_handshake::accept(socket, already_read, self).await
    }

    pub(super) fn shared_end_point(&self) -> Option<Arc<[u8]>> {
        self.end_point.clone()
    }
}

impl TlsAcceptor {
    /// Reads the files and checks that they can be used and belong together. Blocks on the disk.
    ///
    /// # Errors
    /// See [`TlsFileError`].
    pub fn load(files: &TlsFiles, end_point_hash: EndPointHash) -> Result<Self, TlsFileError> {
        let stamps = Stamps::of(files)?;
        let contents = Contents::read(files)?;
        let state = contents.state(files, end_point_hash, None)?;
        Ok(Self {
            files: files.clone(),
            end_point_hash,
            current: RwLock::new(Arc::new(state)),
            seen: Mutex::new(Seen { stamps, digests: contents.digests() }),
        })
    }

    /// What new connections are accepted with.
    #[must_use]
    pub fn current(&self) -> Arc<AcceptorState> {
        Arc::clone(&self.current.read())
    }

    /// Takes over the files if their contents changed, and says whether they did. Blocks on the disk: two `stat`
    /// calls when nothing changed.
    ///
    /// # Errors
    /// The files cannot be used, perhaps because they are being written. What was in use stays in use, and the next
    /// call tries again.
    pub fn reload_if_changed(&self) -> Result<bool, TlsFileError> {
        let mut seen = self.seen.lock();
        // Taken before the contents are read: a change that comes between is noticed by the next call.
        let stamps = Stamps::of(&self.files)?;
        if stamps == seen.stamps {
            return Ok(false);
        }
        let contents = Contents::read(&self.files)?;
        let digests = contents.digests();
        if digests == seen.digests {
            seen.stamps = stamps;
            return Ok(false);
        }
        let state = contents.state(&self.files, self.end_point_hash, Some(&self.current()))?;
        *self.current.write() = Arc::new(state);
        *seen = Seen { stamps, digests };
        Ok(true)
    }
}

/// How the files were when they were last read.
struct Seen {
    stamps: Stamps,
    digests: [Vec<u8>; 2],
}

/// What `stat` says of the certificate's file and of the key's; `None` for what is no file.
#[derive(PartialEq, Eq)]
struct Stamps([Option<Stamp>; 2]);

#[derive(PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    changed_nanoseconds: (i64, i64),
    len: u64,
    inode: u64,
}

impl Stamps {
    fn of(files: &TlsFiles) -> Result<Self, TlsFileError> {
        Ok(Self([Stamp::of(&files.certificate)?, Stamp::of(&files.private_key)?]))
    }
}

impl Stamp {
    fn of(pem: &Pem) -> Result<Option<Self>, TlsFileError> {
        let Pem::File(path) = pem else { return Ok(None) };
        let metadata = fs::metadata(path).map_err(|source| cannot_read(path, source))?;
        Ok(Some(Self {
            modified: metadata.modified().ok(),
            changed_nanoseconds: (metadata.ctime(), metadata.ctime_nsec()),
            len: metadata.len(),
            inode: metadata.ino(),
        }))
    }
}

/// Both files, as read.
struct Contents {
    certificate: Vec<u8>,
    private_key: Zeroizing<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsFileError> {
        let read = |pem: &Pem| match pem {
            Pem::File(path) => fs::read(path).map_err(|source| cannot_read(path, source)),
            Pem::Text(text) => Ok(text.as_bytes().to_vec()),
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            private_key: Zeroizing::new(read(&files.private_key)?),
        })
    }

    fn digests(&self) -> [Vec<u8>; 2] {
        let hash = |bytes: &[u8]| digest(&SHA256, bytes).as_ref().to_vec();
        [hash(&self.certificate), hash(&self.private_key)]
    }

    fn state(
        &self,
        files: &TlsFiles,
        end_point_hash: EndPointHash,
        before: Option<&AcceptorState>,
    ) -> Result<AcceptorState, TlsFileError> {
        let names = Names::of(files);
        let chain = certificates(&names.certificate, &self.certificate)?;
        let Some(leaf) = chain.first().cloned() else {
            return Err(TlsFileError::NoCertificate { path: names.certificate });
        };
        let key = private_key(&names.private_key, &self.private_key)?;
        // A client that resumes a session keeps the certificate of its first handshake and binds its password to
        // that one, so tickets end with the certificate they were made under.
        let kept = before.filter(|before| before.leaf == leaf);
        let ticketer = match kept {
            Some(before) => Arc::clone(&before.config.ticketer),
            None => rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsFileError::Setup)?,
        };
        Ok(AcceptorState {
            config: Arc::new(server_config(names, chain, key, ticketer)?),
            end_point: end_point_hash(&leaf).map(Arc::from),
            leaf,
        })
    }
}

/// What errors call the certificate and the key.
struct Names {
    certificate: PathBuf,
    private_key: PathBuf,
}

impl Names {
    fn of(files: &TlsFiles) -> Self {
        let name = |pem: &Pem, setting: &str| match pem {
            Pem::File(path) => path.clone(),
            Pem::Text(_) => PathBuf::from(setting),
        };
        Self {
            certificate: name(&files.certificate, "proxy.tls_certificate"),
            private_key: name(&files.private_key, "proxy.tls_private_key"),
        }
    }
}

fn server_config(
    names: Names,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, TlsFileError> {
    let builder = ServerConfig::builder_with_provider(tls_provider::provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(TlsFileError::Setup)?;
    let certified = builder.with_no_client_auth().with_single_cert(chain, key);
    let mut config = certified.map_err(|source| match source {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsFileError::KeyMismatch {
            certificate: names.certificate,
            private_key: names.private_key,
        },
        Error::InvalidCertificate(_) => TlsFileError::Unusable { path: names.certificate, source },
        source => TlsFileError::Unusable { path: names.private_key, source },
    })?;
    config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
    // Clients have an order of their own, which OpenSSL begins with the dearest suite.
    config.ignore_client_order = true;
    // A session is resumed by what its ticket holds: no table of sessions, whatever the number of clients.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ticketer;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// The certificates of a PEM file, in its order; a file without any is an error.
pub(super) fn certificates(
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let certificates =
        certificates.map_err(|source| TlsFileError::Pem { path: path.to_owned(), source })?;
    if certificates.is_empty() {
        return Err(TlsFileError::NoCertificate { path: path.to_owned() });
    }
    Ok(certificates)
}

/// The first private key of a PEM file: PKCS #8, PKCS #1 or SEC 1.
fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFileError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|source| match source {
        pem::Error::NoItemsFound => TlsFileError::NoPrivateKey { path: path.to_owned() },
        source => TlsFileError::Pem { path: path.to_owned(), source: without_secret(source) },
    })
}

/// Errors of base64 name the offending bytes, which here are part of a key.
fn without_secret(error: pem::Error) -> pem::Error {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            pem::Error::MissingSectionEnd { end_marker }
        }
        _ => pem::Error::Base64Decode("the key is damaged".into()),
    }
}

pub(super) fn cannot_read(path: &Path, source: io::Error) -> TlsFileError {
    TlsFileError::Read { path: path.to_owned(), source }
}

#[cfg(test)]
#[path = "tls_acceptor_tests.rs"]
mod tests;
