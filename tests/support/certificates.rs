//! A certificate authority for one test, and what it signs.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use std::path::{Path, PathBuf};

/// A PEM certificate and its key.
pub struct Signed {
    pub certificate: String,
    pub private_key: String,
}

/// Signs certificates for as long as a test runs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "pgweir test authority");
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// The authority's own certificate, as clients need it (`sslrootcert`, `tls_ca`).
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The same for rustls.
    pub fn der(&self) -> CertificateDer<'static> {
        self.der.clone()
    }

    /// A server's certificate for the given DNS names and IP addresses.
    pub fn sign(&self, names: &[&str]) -> Signed {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "pgweir test server");
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed { certificate: certificate.pem(), private_key: key.serialize_pem() }
    }

    /// A certificate for the loopback address under all its names.
    pub fn sign_loopback(&self) -> Signed {
        self.sign(&["localhost", "127.0.0.1"])
    }

    /// Writes `ca.pem`.
    pub fn write_into(&self, dir: &Path) -> PathBuf {
        let path = dir.join("ca.pem");
        std::fs::write(&path, &self.pem).unwrap();
        path
    }
}

impl Signed {
    /// Writes `server.pem` and `server.key`.
    pub fn write_into(&self, dir: &Path) {
        std::fs::write(dir.join("server.pem"), &self.certificate).unwrap();
        let key = dir.join("server.key");
        std::fs::write(&key, &self.private_key).unwrap();
        // PostgreSQL refuses a key that others can read.
        let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(key, owner_only).unwrap();
    }
}
