//! PostgreSQL's md5 password method, for both roles.
//!
//! MD5 protects little; it is here because RDS Proxy offers `POSTGRES_MD5` and old targets ask for it. The
//! stored hash is as good as the password to whoever reads it, so it is treated as a secret.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>
//! (`AuthenticationMD5Password`)

use md5::{Digest, Md5};
use zeroize::Zeroizing;

use super::hash;
use super::secret::Password;

/// Bytes of the body of a `PasswordMessage`, without its NUL: `md5` and 32 hexadecimal digits.
pub const RESPONSE_LEN: usize = 35;

const PREFIX: &[u8; 3] = b"md5";
const HEX_LEN: usize = 32;

/// What `pg_authid` stores for the method: `md5` + hex(md5(password + username)).
///
/// No `Debug`: whoever holds it can log in.
#[derive(Clone)]
pub struct Md5Verifier {
    /// The hexadecimal digits, without the prefix.
    hex: Zeroizing<[u8; HEX_LEN]>,
}

impl Md5Verifier {
    /// The hash of `password` for `username`, which is the user's name as in the startup packet.
    #[must_use]
    pub fn derive(password: &Password, username: &str) -> Self {
        Self::of([password.expose().as_bytes(), username.as_bytes()])
    }

    /// A verifier for a user that does not exist: always the same for one `mock_key` and name, and met by no
    /// response, so that the exchange looks as with a wrong password.
    #[must_use]
    pub fn mock(mock_key: &[u8; 32], username: &str) -> Self {
        let unknown = hash::hmac_sha256(mock_key, &[b"md5\0", username.as_bytes()]);
        Self::of([&unknown, username.as_bytes()])
    }

    fn of(parts: [&[u8]; 2]) -> Self {
        Self { hex: Zeroizing::new(hex_md5(parts)) }
    }

    /// The hash in `pg_authid`'s form, `md5` and 32 digits.
    #[must_use]
    pub fn stored(&self) -> Zeroizing<[u8; RESPONSE_LEN]> {
        prefixed(&self.hex)
    }

    /// The answer to `AuthenticationMD5Password` with `salt`, without the NUL that ends it.
    #[must_use]
    pub fn response(&self, salt: [u8; 4]) -> Zeroizing<[u8; RESPONSE_LEN]> {
        prefixed(&hex_md5([self.hex.as_slice(), &salt]))
    }

    /// Whether `response`, without the NUL that ends it, answers `salt`. Takes constant time.
    #[must_use]
    pub fn accepts(&self, salt: [u8; 4], response: &[u8]) -> bool {
        hash::equal(self.response(salt).as_slice(), response)
    }
}

fn prefixed(hex: &[u8; HEX_LEN]) -> Zeroizing<[u8; RESPONSE_LEN]> {
    let mut out = Zeroizing::new([0; RESPONSE_LEN]);
    for (to, from) in out.iter_mut().zip(PREFIX.iter().chain(hex)) {
        *to = *from;
    }
    out
}

fn hex_md5(parts: [&[u8]; 2]) -> [u8; HEX_LEN] {
    let mut hasher = Md5::new();
    for part in parts {
        hasher.update(part);
    }
    let nibbles = hasher.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let mut out = [0; HEX_LEN];
    for (to, nibble) in out.iter_mut().zip(nibbles) {
        *to = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOCK_KEY: [u8; 32] = [9; 32];

    fn alice() -> Md5Verifier {
        Md5Verifier::derive(&Password::new("secret".to_owned()), "alice")
    }

    /// Also what `SELECT 'md5' || md5('secret' || 'alice')` says.
    #[test]
    fn the_stored_form_is_postgresql_s() {
        assert_eq!(alice().stored().as_slice(), b"md54a0a68b43b6cd5cf266fa02f196e2371");
    }

    /// `SELECT 'md5' || md5(convert_to(md5('secret' || 'alice'), 'UTF8') || '\x01020304'::bytea)`
    #[test]
    fn the_response_is_postgresql_s() {
        let response = alice().response([1, 2, 3, 4]);
        assert_eq!(response.as_slice(), b"md598a0412b9c31436fc53776e863350083");
        assert!(alice().accepts([1, 2, 3, 4], response.as_slice()));
    }

    #[test]
    fn another_salt_user_password_or_byte_is_refused() {
        let response = alice().response([1, 2, 3, 4]);
        assert!(!alice().accepts([1, 2, 3, 5], response.as_slice()));
        let bob = Md5Verifier::derive(&Password::new("secret".to_owned()), "bob");
        assert!(!bob.accepts([1, 2, 3, 4], response.as_slice()));
        let wrong = Md5Verifier::derive(&Password::new("Secret".to_owned()), "alice");
        assert!(!wrong.accepts([1, 2, 3, 4], response.as_slice()));
        for at in 0..RESPONSE_LEN {
            let mut tampered = response.clone();
            tampered[at] ^= 1;
            assert!(!alice().accepts([1, 2, 3, 4], tampered.as_slice()), "byte {at}");
        }
        assert!(!alice().accepts([1, 2, 3, 4], b""));
        assert!(!alice().accepts([1, 2, 3, 4], &response[..34]));
        assert!(!alice().accepts([1, 2, 3, 4], &[response.as_slice(), b"0"].concat()));
    }

    /// The stored hash must not pass for a response.
    #[test]
    fn the_stored_form_is_no_response() {
        assert!(!alice().accepts([0; 4], alice().stored().as_slice()));
    }

    #[test]
    fn an_unknown_user_is_the_same_each_time_and_never_matches() {
        let mock = Md5Verifier::mock(&MOCK_KEY, "alice");
        assert_eq!(mock.stored(), Md5Verifier::mock(&MOCK_KEY, "alice").stored());
        assert_ne!(mock.stored(), Md5Verifier::mock(&MOCK_KEY, "bob").stored());
        assert_ne!(mock.stored(), Md5Verifier::mock(&[8; 32], "alice").stored());
        for password in ["", "secret", "alice"] {
            let guess = Md5Verifier::derive(&Password::new(password.to_owned()), "alice");
            assert!(!mock.accepts([1, 2, 3, 4], guess.response([1, 2, 3, 4]).as_slice()));
        }
    }
}
