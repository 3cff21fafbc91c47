//! What can go wrong with TLS: on a connection, and with the files it is configured by.

use std::io;
use std::path::PathBuf;

/// Why a TLS handshake did not come about.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The socket failed.
    #[error("the connection failed during the TLS handshake")]
    Io(#[from] io::Error),
    /// The peer closed the connection before the handshake was complete.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// The peer broke the protocol, shares no version or cipher with us, or has a certificate we do not accept.
    #[error("the TLS handshake failed: {0}")]
    Protocol(#[from] rustls::Error),
    /// The peer sent a longer handshake than an honest one can be.
    #[error("the peer's TLS handshake is longer than {bytes_max} bytes")]
    TooLong {
        /// The limit, in bytes.
        bytes_max: usize,
    },
}

/// Why a certificate, a private key or a CA bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// The file is no PEM: cut short, or not base64 between its markers.
    #[error("{} is not a valid PEM file", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Where it is wrong; holds no part of a key.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// There is no `CERTIFICATE` in the file.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no private key in the file that could be used without a passphrase.
    #[error("{} holds no unencrypted private key", path.display())]
    NoPrivateKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the one the certificate was made for.
    #[error("the private key {} does not belong to the certificate {}", private_key.display(), certificate.display())]
    KeyMismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        private_key: PathBuf,
    },
    /// A certificate or the key is of a kind that cannot be used, or damaged.
    #[error("{} cannot be used: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What the TLS library says.
        #[source]
        source: rustls::Error,
    },
    /// The operating system has no CA certificates, and none were configured.
    #[error("the system has no CA certificates to verify the target by; set target.tls_ca")]
    NoSystemRoots,
    /// The target's host is neither a DNS name nor an IP address, so no certificate can be checked against it.
    #[error("{host:?} is neither a DNS name nor an IP address")]
    HostName {
        /// The host as configured.
        host: String,
    },
    /// The TLS library could not be set up.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[source] rustls::Error),
}
