//! The few primitives that the authentication methods share, in the shapes they need.

use aws_lc_rs::{constant_time, digest, hmac};

/// Bytes in a SHA-256 digest, hence in every SCRAM-SHA-256 key.
pub(super) const SHA256_LEN: usize = 32;

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; SHA256_LEN] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    leading_bytes(context.sign().as_ref())
}

/// SHA-256 of `data`.
pub(super) fn sha256(data: &[u8]) -> [u8; SHA256_LEN] {
    leading_bytes(digest::digest(&digest::SHA256, data).as_ref())
}

/// Compares without revealing by its duration where the two differ; their lengths are not hidden.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The first `N` bytes of `bytes`, which has at least as many.
pub(super) fn leading_bytes<const N: usize>(bytes: &[u8]) -> [u8; N] {
    debug_assert!(bytes.len() >= N);
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(bytes) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn hmac_joins_its_parts() {
        let tag = hmac_sha256(b"Jefe", &[b"what do ya want ", b"for nothing?"]);
        assert_eq!(tag[..4], [0x5b, 0xdc, 0xc1, 0x46]);
        assert_eq!(tag[28..], [0x64, 0xec, 0x38, 0x43]);
    }

    #[test]
    fn equality_needs_the_same_bytes_and_the_same_length() {
        assert!(equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd"));
        assert!(!equal(b"abc", b"ab"));
        assert!(equal(b"", b""));
    }
}
