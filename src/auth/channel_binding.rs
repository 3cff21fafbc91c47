//! `tls-server-end-point`: what ties a SCRAM exchange to the TLS connection that carries it.
//!
//! The binding is a hash of the server's certificate, by the hash function of the certificate's signature.
//! A man in the middle has another certificate, so that an exchange he relays fails.
//!
//! Source: RFC 5929, section 4; `pgtls_get_peer_certificate_hash` and `be_tls_get_certificate_hash` in
//! PostgreSQL.

use aws_lc_rs::digest;
use x509_cert::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use x509_cert::der::{self, Decode as _, Reader as _, SliceReader, TagMode, TagNumber};
use x509_cert::spki::AlgorithmIdentifierRef;

/// The name of the binding type in a GS2 header; the only one that PostgreSQL has.
pub const TLS_SERVER_END_POINT: &str = "tls-server-end-point";

/// What a connection with a client can be bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerBinding {
    /// The connection is in clear.
    NoTls,
    /// The connection is under TLS.
    Tls {
        /// [`tls_server_end_point`] of the certificate that *this* connection was shown, which is not the
        /// current one if a reload came between.
        end_point: Option<Vec<u8>>,
    },
}

impl ServerBinding {
    /// The binding data; without it, SCRAM-SHA-256-PLUS is neither offered nor accepted.
    #[must_use]
    pub fn end_point(&self) -> Option<&[u8]> {
        match self {
            Self::NoTls => None,
            Self::Tls { end_point } => end_point.as_deref(),
        }
    }
}

/// The `tls-server-end-point` of a certificate in DER.
///
/// `None` when it is not defined: the signature uses no hash function or none that is known (Ed25519, Ed448,
/// ML-DSA), or the bytes are no certificate. libpq and PostgreSQL fail the login there; without binding data
/// one can still log in by plain SCRAM-SHA-256.
#[must_use]
pub fn tls_server_end_point(certificate_der: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_hash(certificate_der).ok()??;
    Some(digest::digest(algorithm, certificate_der).as_ref().to_vec())
}

/// Reads no more than it must (`tbsCertificate` is skipped whole), so that an oddity in a name or an
/// extension does not matter.
fn signature_hash(certificate_der: &[u8]) -> der::Result<Option<&'static digest::Algorithm>> {
    let mut reader = SliceReader::new(certificate_der)?;
    let signature = reader.sequence(|certificate| {
        AnyRef::decode(certificate)?;
        let signature = AlgorithmIdentifierRef::decode(certificate)?;
        BitStringRef::decode(certificate)?;
        Ok(signature)
    })?;
    reader.finish(())?;
    if signature.oid == RSASSA_PSS {
        return pss_hash(signature);
    }
    Ok(lookup(&SIGNATURES, signature.oid))
}

/// The hash of an RSASSA-PSS signature stands in its parameters; SHA-1 where it is left out (RFC 4055).
fn pss_hash(
    signature: AlgorithmIdentifierRef<'_>,
) -> der::Result<Option<&'static digest::Algorithm>> {
    let Some(parameters) = signature.parameters else {
        return Ok(None);
    };
    let hash: Option<AlgorithmIdentifierRef<'_>> = parameters.sequence(|fields| {
        let hash = fields.context_specific(TagNumber::N0, TagMode::Explicit)?;
        while !fields.is_finished() {
            AnyRef::decode(fields)?;
        }
        Ok(hash)
    })?;
    Ok(match hash {
        Some(hash) => lookup(&HASHES, hash.oid),
        None => Some(&digest::SHA256),
    })
}

type Table<const N: usize> = [(&'static str, &'static digest::Algorithm); N];

fn lookup<const N: usize>(
    table: &Table<N>,
    oid: ObjectIdentifier,
) -> Option<&'static digest::Algorithm> {
    let (_, algorithm) = table
        .iter()
        .find(|(text, _)| ObjectIdentifier::new(text).is_ok_and(|known| known == oid))?;
    Some(algorithm)
}

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");

/// Signature algorithms to the hash for the binding. RFC 5929 replaces MD5 and SHA-1 by SHA-256.
static SIGNATURES: Table<13> = [
    ("1.2.840.113549.1.1.4", &digest::SHA256), // md5WithRSAEncryption
    ("1.2.840.113549.1.1.5", &digest::SHA256), // sha1WithRSAEncryption
    ("1.2.840.113549.1.1.14", &digest::SHA224), // sha224WithRSAEncryption
    ("1.2.840.113549.1.1.11", &digest::SHA256), // sha256WithRSAEncryption
    ("1.2.840.113549.1.1.12", &digest::SHA384), // sha384WithRSAEncryption
    ("1.2.840.113549.1.1.13", &digest::SHA512), // sha512WithRSAEncryption
    ("1.2.840.113549.1.1.16", &digest::SHA512_256), // sha512-256WithRSAEncryption
    ("1.3.14.3.2.29", &digest::SHA256),        // sha1WithRSASignature (of old)
    ("1.2.840.10045.4.1", &digest::SHA256),    // ecdsa-with-SHA1
    ("1.2.840.10045.4.3.1", &digest::SHA224),  // ecdsa-with-SHA224
    ("1.2.840.10045.4.3.2", &digest::SHA256),  // ecdsa-with-SHA256
    ("1.2.840.10045.4.3.3", &digest::SHA384),  // ecdsa-with-SHA384
    ("1.2.840.10045.4.3.4", &digest::SHA512),  // ecdsa-with-SHA512
];

/// Hash functions, as RSASSA-PSS names them.
static HASHES: Table<7> = [
    ("1.2.840.113549.2.5", &digest::SHA256),         // md5
    ("1.3.14.3.2.26", &digest::SHA256),              // sha1
    ("2.16.840.1.101.3.4.2.4", &digest::SHA224),     // sha224
    ("2.16.840.1.101.3.4.2.1", &digest::SHA256),     // sha256
    ("2.16.840.1.101.3.4.2.2", &digest::SHA384),     // sha384
    ("2.16.840.1.101.3.4.2.3", &digest::SHA512),     // sha512
    ("2.16.840.1.101.3.4.2.6", &digest::SHA512_256), // sha512-256
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn generated(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["db.example".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[track_caller]
    fn assert_hashed_by(algorithm: &'static digest::Algorithm, certificate: &[u8]) {
        let hash = digest::digest(algorithm, certificate).as_ref().to_vec();
        assert_eq!(tls_server_end_point(certificate), Some(hash));
    }

    fn tlv(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag, u8::try_from(body.len()).unwrap()];
        assert!(body.len() < 128);
        out.extend_from_slice(body);
        out
    }

    fn oid(text: &str) -> Vec<u8> {
        tlv(6, ObjectIdentifier::new_unwrap(text).as_bytes())
    }

    /// A certificate as far as the binding looks at it.
    fn signed_with(algorithm: &[u8]) -> Vec<u8> {
        let body = [tlv(0x30, &tlv(2, &[1])), tlv(0x30, algorithm), tlv(3, &[0, 1, 2])].concat();
        tlv(0x30, &body)
    }

    fn signed_with_pss(parameters: &[u8]) -> Vec<u8> {
        signed_with(&[oid("1.2.840.113549.1.1.10"), tlv(0x30, parameters)].concat())
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let p256 = generated(&rcgen::PKCS_ECDSA_P256_SHA256);
        assert_hashed_by(&digest::SHA256, &p256);
        let p384 = generated(&rcgen::PKCS_ECDSA_P384_SHA384);
        assert_hashed_by(&digest::SHA384, &p384);
    }

    #[test]
    fn a_signature_without_hash_function_has_no_binding() {
        assert_eq!(tls_server_end_point(&generated(&rcgen::PKCS_ED25519)), None);
        assert_eq!(tls_server_end_point(&signed_with(&oid("2.16.840.1.101.3.4.3.17"))), None);
    }

    #[test]
    fn md5_and_sha1_become_sha256() {
        for name in ["1.2.840.113549.1.1.4", "1.2.840.113549.1.1.5", "1.2.840.10045.4.1"] {
            let certificate = signed_with(&oid(name));
            assert_hashed_by(&digest::SHA256, &certificate);
        }
    }

    #[test]
    fn every_entry_of_the_table_is_found() {
        for (name, algorithm) in SIGNATURES {
            let certificate = signed_with(&[oid(name), tlv(5, &[])].concat());
            assert_hashed_by(algorithm, &certificate);
        }
        for (name, algorithm) in HASHES {
            let certificate = signed_with_pss(&tlv(0xa0, &tlv(0x30, &oid(name))));
            assert_hashed_by(algorithm, &certificate);
        }
    }

    #[test]
    fn rsa_pss_takes_its_hash_from_the_parameters() {
        let sha512 = tlv(0xa0, &tlv(0x30, &[oid("2.16.840.1.101.3.4.2.3"), tlv(5, &[])].concat()));
        let salt_len = tlv(0xa2, &tlv(2, &[64]));
        let certificate = signed_with_pss(&[sha512, salt_len.clone()].concat());
        assert_hashed_by(&digest::SHA512, &certificate);

        let default = signed_with_pss(&salt_len);
        assert_hashed_by(&digest::SHA256, &default);

        let none = signed_with(&oid("1.2.840.113549.1.1.10"));
        assert_eq!(tls_server_end_point(&none), None);
        let unknown = signed_with_pss(&tlv(0xa0, &tlv(0x30, &oid("1.2.3.4"))));
        assert_eq!(tls_server_end_point(&unknown), None);
    }

    #[test]
    fn only_a_whole_certificate_has_a_binding() {
        let whole = generated(&rcgen::PKCS_ECDSA_P256_SHA256);
        for len in 0..whole.len() {
            assert_eq!(tls_server_end_point(&whole[..len]), None, "{len}");
        }
        assert_eq!(tls_server_end_point(&[whole.as_slice(), &[0]].concat()), None);
    }

    #[test]
    fn only_tls_with_an_end_point_can_be_bound() {
        assert_eq!(ServerBinding::NoTls.end_point(), None);
        assert_eq!(ServerBinding::Tls { end_point: None }.end_point(), None);
        let bound = ServerBinding::Tls { end_point: Some(vec![1]) };
        assert_eq!(bound.end_point(), Some([1].as_slice()));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_binding_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = tls_server_end_point(&bytes);
        }

        #[test]
        fn a_damaged_certificate_does_no_harm(at in 0..300_usize, byte: u8) {
            let mut certificate = signed_with_pss(&tlv(0xa0, &tlv(0x30, &oid("1.3.14.3.2.26"))));
            let at = at % certificate.len();
            certificate[at] = byte;
            let _ = tls_server_end_point(&certificate);
        }
    }
}
