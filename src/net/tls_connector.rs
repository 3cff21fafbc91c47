//! How TLS is spoken to the target: `target.tls` and `target.tls_ca`, with libpq's meaning of `sslmode`.
//!
//! | mode | without a CA | with a CA |
//! |---|---|---|
//! | `prefer`, `require` | any certificate | its chain is verified |
//! | `verify-ca` | chain, by the system's CAs | chain |
//! | `verify-full` | chain and host name, by the system's CAs | chain and host name |
//!
//! What `prefer` does when the target has no TLS, or when TLS fails, is decided by who connects.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-ssl.html#LIBPQ-SSL-SSLMODE-STATEMENTS>

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;

use super::ALPN_POSTGRESQL;
use super::stream::Stream;
use super::tls_acceptor::{cannot_read, certificates};
use super::tls_error::{TlsError, TlsFileError};
use super::tls_handshake;
use super::tls_provider;
use super::tls_verifier::{Authorities, Check, Verifier};
use crate::config::TargetTls;

/// How to speak TLS to one target. Cheap to clone; its sessions are resumed.
#[derive(Clone)]
pub struct TargetConnector {
    mode: TargetTls,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl TargetConnector {
    /// Reads the CA bundle, or the system's where the mode needs one. Blocks on the disk.
    ///
    /// `host` is the name or address that clients of the target use, and that `verify-full` holds against its
    /// certificate.
    ///
    /// # Errors
    /// See [`TlsFileError`].
    pub fn load(mode: TargetTls, tls_ca: Option<&Path>, host: &str) -> Result<Self, TlsFileError> {
        if mode == TargetTls::Disable {
            return Ok(Self { mode, tls: None });
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| TlsFileError::HostName { host: host.to_owned() })?;
        let check = match (mode, tls_ca) {
            (TargetTls::VerifyFull, ca) => Check::ChainAndName(authorities(ca)?),
            (TargetTls::VerifyCa, ca) => Check::Chain(authorities(ca)?),
            // libpq verifies whenever it has a CA, whatever the mode.
            (_, Some(ca)) => Check::Chain(authorities_in(ca)?),
            (_, None) => Check::Nothing,
        };
        let config = client_config(check).map_err(TlsFileError::Setup)?;
        Ok(Self { mode, tls: Some((Arc::new(config), name)) })
    }

    /// The mode this was made for.
    #[must_use]
    pub fn mode(&self) -> TargetTls {
        self.mode
    }

    /// Whether an `SSLRequest` should be sent at all.
    #[must_use]
    pub fn wants_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Takes the client's side of the handshake, after the target has answered `S` to the `SSLRequest`. With
    /// `disable`, the socket is used as it is.
    ///
    /// The last flight may still wait in the stream: it goes with the first write, or before the first read.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket. It has no time limit of its own.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub async fn connect(&self, socket: TcpStream) -> Result<Stream, TlsError> {
        match &self.tls {
            None => Ok(Stream::Plain(socket)),
            Some((config, name)) => {
                tls_handshake::connect(socket, Arc::clone(config), name.clone()).await
            }
        }
    }
}

fn client_config(check: Check) -> Result<ClientConfig, rustls::Error> {
    let provider = tls_provider::provider();
    let verifier = Verifier::new(check, &provider);
    let mut config = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
        .with_protocol_versions(rustls::ALL_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
    Ok(config)
}

fn authorities(ca: Option<&Path>) -> Result<Authorities, TlsFileError> {
    ca.map_or_else(system_authorities, authorities_in)
}

fn authorities_in(path: &Path) -> Result<Authorities, TlsFileError> {
    let bytes = fs::read(path).map_err(|source| cannot_read(path, source))?;
    let own = certificates(path, &bytes)?;
    let mut roots = RootCertStore::empty();
    for certificate in &own {
        let unusable = |source| TlsFileError::Unusable { path: path.to_owned(), source };
        roots.add(certificate.clone()).map_err(unusable)?;
    }
    Ok(Authorities { roots, own })
}

fn system_authorities() -> Result<Authorities, TlsFileError> {
    let found: Vec<CertificateDer<'static>> = rustls_native_certs::load_native_certs().certs;
    let mut roots = RootCertStore::empty();
    // A system's store may hold a certificate that cannot be used; the others count.
    let (usable, _) = roots.add_parsable_certificates(found);
    if usable == 0 {
        return Err(TlsFileError::NoSystemRoots);
    }
    Ok(Authorities { roots, own: Vec::new() })
}

#[cfg(test)]
#[path = "tls_connector_tests.rs"]
mod tests;
