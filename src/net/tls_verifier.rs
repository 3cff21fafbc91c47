//! Which certificates of a target are accepted, for each `target.tls` but `disable`.
//!
//! Whatever the setting, the target must prove by its handshake signature that it owns the key of the certificate it
//! shows. Revocation is not checked.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::der::Decode;

/// What a certificate must stand up to.
#[derive(Debug)]
pub(super) enum Check {
    /// Nothing: encryption without knowing with whom.
    Nothing,
    /// One of the authorities signed it, and it is in its time.
    Chain(Authorities),
    /// That, and it was made for the host we connect to.
    ChainAndName(Authorities),
}

/// The certificates that are trusted.
#[derive(Debug)]
pub(super) struct Authorities {
    pub(super) roots: RootCertStore,
    /// Certificates that a target may show as its own: a self-signed one is its own authority, which rustls does not
    /// take for a server's certificate but OpenSSL, and so libpq, does.
    pub(super) own: Vec<CertificateDer<'static>>,
}

/// Implements [`Check`] for rustls.
#[derive(Debug)]
pub(super) struct Verifier {
    check: Check,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(check: Check, provider: &CryptoProvider) -> Arc<Self> {
        Arc::new(Self { check, algorithms: provider.signature_verification_algorithms })
    }

    fn verify_chain(
        &self,
        authorities: &Authorities,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if authorities.own.iter().any(|own| own == certificate) {
            return verify_period(certificate, now);
        }
        verify_server_cert_signed_by_trust_anchor(
            parsed,
            &authorities.roots,
            intermediates,
            now,
            self.algorithms.all,
        )
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (authorities, name_matters) = match &self.check {
            Check::Nothing => return Ok(ServerCertVerified::assertion()),
            Check::Chain(authorities) => (authorities, false),
            Check::ChainAndName(authorities) => (authorities, true),
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        self.verify_chain(authorities, end_entity, &parsed, intermediates, now)?;
        if name_matters {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks only that `now` is in the certificate's time: that it is trusted is known.
fn verify_period(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let bad = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    let parsed = x509_cert::Certificate::from_der(certificate).map_err(bad)?;
    let validity = parsed.tbs_certificate.validity;
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now > validity.not_after.to_unix_duration().as_secs() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}
