//! The cryptography of both legs: AWS-LC, the cheaper of equally safe cipher suites first.

use rustls::CipherSuite::{
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    TLS13_AES_128_GCM_SHA256,
};
use rustls::crypto::CryptoProvider;
use std::sync::Arc;

/// AWS-LC's algorithms. AES-128 comes before AES-256: of their key lengths neither can be searched, but the suites
/// of the latter hash with SHA-384, which processors do not help with, at each step of a handshake.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc8446#section-9.1> (`TLS_AES_128_GCM_SHA256` is the one that all must have)
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            TLS13_AES_128_GCM_SHA256
                | TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    Arc::new(provider)
}
