//! Keys, nonces and errors of SCRAM-SHA-256, common to both roles.
//!
//! Everything slow is here: [`ScramKeys::derive`] and [`ScramVerifier::derive`] run PBKDF2 and belong on a
//! thread that moves no data, once per secret. The exchanges ([`super::scram_server`],
//! [`super::scram_client`]) only take what was derived and cost a few hashes.
//!
//! Source: RFC 5802, RFC 7677, and
//! <https://www.postgresql.org/docs/current/sasl-authentication.html#SASL-SCRAM-SHA-256>

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::hash::{SHA256_LEN, hmac_sha256, leading_bytes, sha256};
use super::saslprep;
use super::secret::Password;

/// SASL name of the mechanism without channel binding.
pub const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
/// SASL name of the mechanism with channel binding.
pub const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

/// Rounds of PBKDF2 for verifiers of our own: PostgreSQL's `scram_iterations` by default.
pub const ITERATIONS_DEFAULT: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);

/// Most rounds that a target may ask of us; more is refused before any is done (CVE-2026-42198: a server
/// dictates the count). Above the 600,000 that OWASP advises, and a fraction of a second of one core, spent
/// once per secret, salt and count.
pub const ITERATIONS_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(999_999);

/// Bytes of the salts in our own verifiers, as in PostgreSQL's.
pub const SALT_LEN: usize = 16;

/// Random bytes in a nonce, as in PostgreSQL's.
pub const RAW_NONCE_LEN: usize = 18;

/// One of the 32-byte keys of the mechanism; overwritten when dropped.
pub(super) type Key = Zeroizing<[u8; SHA256_LEN]>;

/// One side's part of the nonce of an exchange: printable and without commas by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A nonce of `random`, which has to come from a cryptographic random source and be used once.
    #[must_use]
    pub fn from_random(random: &[u8; RAW_NONCE_LEN]) -> Self {
        Self(STANDARD.encode(random))
    }

    /// A nonce as written in an RFC or recorded from a connection.
    #[cfg(test)]
    pub(super) fn from_text(text: &str) -> Self {
        assert!(super::scram_message::is_nonce(text.as_bytes()));
        Self(text.to_owned())
    }

    /// The nonce as it stands in a message.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What, beside the password, decides the keys: the natural key of a cache of [`ScramKeys`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ScramParameters {
    /// Salt as decoded; a target may choose any length.
    pub salt: Box<[u8]>,
    /// Rounds of PBKDF2.
    pub iterations: NonZeroU32,
}

/// The keys of one password, salt and count of iterations, for our role as client. No `Debug`: whoever holds
/// them can log in.
#[derive(Clone)]
pub struct ScramKeys {
    pub(super) client: Key,
    pub(super) stored: Key,
    pub(super) server: Key,
}

impl ScramKeys {
    /// Runs PBKDF2: milliseconds at 4096 iterations, so keep it off the threads that move data.
    ///
    /// The password is prepared as PostgreSQL does, including its fall back to the raw bytes.
    #[must_use]
    pub fn derive(password: &Password, parameters: &ScramParameters) -> Self {
        Self::salted(password, &parameters.salt, parameters.iterations)
    }

    fn salted(password: &Password, salt: &[u8], iterations: NonZeroU32) -> Self {
        let prepared = saslprep::prepare(password.expose());
        let mut salted_password: Key = Zeroizing::new([0; SHA256_LEN]);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            iterations,
            salt,
            &prepared,
            salted_password.as_mut_slice(),
        );
        let key = |label: &[u8]| Zeroizing::new(hmac_sha256(salted_password.as_slice(), &[label]));
        let client = key(b"Client Key");
        Self {
            stored: Zeroizing::new(sha256(client.as_slice())),
            server: key(b"Server Key"),
            client,
        }
    }
}

/// What the server of an exchange needs to check a client, as in `pg_authid.rolpassword`. No `Debug`: its
/// server key lets one pose as the server, its stored key lets one try passwords.
#[derive(Clone)]
pub struct ScramVerifier {
    salt: [u8; SALT_LEN],
    iterations: NonZeroU32,
    pub(super) stored_key: Key,
    pub(super) server_key: Key,
}

impl ScramVerifier {
    /// Runs PBKDF2, as [`ScramKeys::derive`] does; do it when the secret is loaded, not when a client comes:
    /// a login that waits for it would tell that the user exists.
    ///
    /// With [`ScramVerifier::salt_for`] as `salt`, a user shows the same salt before it exists, while it
    /// exists and after its password changed.
    #[must_use]
    pub fn derive(password: &Password, salt: [u8; SALT_LEN], iterations: NonZeroU32) -> Self {
        let keys = ScramKeys::salted(password, &salt, iterations);
        Self { salt, iterations, stored_key: keys.stored, server_key: keys.server }
    }

    /// A verifier for a user that does not exist: the same salt each time it is asked for, keys that no
    /// password leads to, and the same way through the exchange as a wrong password.
    ///
    /// `mock_key` is random, secret, and lives as long as the salts should stay as they are. `iterations`
    /// has to be what real users have. Costs three hashes; whoever minds these few microseconds makes one for
    /// every login, and replaces it by the real verifier if there is one.
    #[must_use]
    pub fn mock(mock_key: &[u8; 32], username: &str, iterations: NonZeroU32) -> Self {
        // To match, a client would have to know a SHA-256 preimage of this.
        let key =
            |label: &[u8]| Zeroizing::new(hmac_sha256(mock_key, &[label, username.as_bytes()]));
        Self {
            salt: Self::salt_for(mock_key, username),
            iterations,
            stored_key: key(b"stored\0"),
            server_key: key(b"server\0"),
        }
    }

    /// The salt that [`ScramVerifier::mock`] shows for `username`.
    #[must_use]
    pub fn salt_for(mock_key: &[u8; 32], username: &str) -> [u8; SALT_LEN] {
        leading_bytes(&hmac_sha256(mock_key, &[b"salt\0", username.as_bytes()]))
    }

    /// The salt that clients are told.
    #[must_use]
    pub fn salt(&self) -> &[u8; SALT_LEN] {
        &self.salt
    }

    /// The count of iterations that clients are told.
    #[must_use]
    pub fn iterations(&self) -> NonZeroU32 {
        self.iterations
    }
}

/// Why an exchange failed. Holds nothing that the peer sent and nothing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message has no bytes.
    #[error("malformed SCRAM message (empty message)")]
    Empty,
    /// A message is longer than anything sensible.
    #[error("malformed SCRAM message ({len} bytes, more than {max})")]
    TooLong {
        /// Bytes it has.
        len: usize,
        /// Bytes it may have.
        max: usize,
    },
    /// A message contains a zero byte.
    #[error("malformed SCRAM message (NUL in it)")]
    Nul,
    /// `x=value` was expected.
    #[error("malformed SCRAM message (attribute \"{0}\" expected)")]
    AttributeExpected(char),
    /// Something that is no attribute at all stands where one may.
    #[error("malformed SCRAM message (attribute expected)")]
    NotAnAttribute,
    /// Something follows the last attribute.
    #[error("malformed SCRAM message (garbage at its end)")]
    Garbage,
    /// The first byte is none of `n`, `y`, `p`, or the header does not go on as it must.
    #[error("malformed SCRAM message (channel-binding header)")]
    BindingHeader,
    /// The nonce is empty or has characters other than printable ASCII.
    #[error("malformed SCRAM message (nonce)")]
    MalformedNonce,
    /// The value is not base64, or not of the length that it has to have.
    #[error("malformed SCRAM message (value of attribute \"{0}\")")]
    MalformedValue(char),
    /// The client selected a mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    MechanismNotOffered,
    /// SCRAM-SHA-256-PLUS with a message that says `n` or `y`.
    #[error("SCRAM-SHA-256-PLUS was selected, but the message has no channel-binding data")]
    BindingMissing,
    /// SCRAM-SHA-256 with a message that says `p`.
    #[error("SCRAM-SHA-256 was selected, but the message has channel-binding data")]
    BindingUnexpected,
    /// A type other than `tls-server-end-point`.
    #[error("unsupported SCRAM channel-binding type")]
    BindingType,
    /// The peer's nonce is not the one of this exchange.
    #[error("invalid SCRAM message (nonce mismatch)")]
    NonceMismatch,
    /// Without channel binding, the header is not repeated in the final message as it was sent.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    BindingNotRepeated,
    /// An authorization identity was sent.
    #[error("client uses authorization identity, but it is not supported")]
    AuthorizationIdentity,
    /// A mandatory extension (`m=`) was sent.
    #[error("SCRAM extension is required that is not supported")]
    MandatoryExtension,
    /// The client supports channel binding and was made to believe that we do not.
    #[error("SCRAM channel binding negotiation error")]
    Downgrade,
    /// The client is at the other end of another TLS connection: somebody is in between.
    #[error("SCRAM channel binding check failed")]
    BindingMismatch,
    /// Wrong password or unknown user; which of them cannot be told.
    #[error("SCRAM authentication failed")]
    AuthenticationFailed,
    /// The target offers no mechanism that we can do.
    #[error("the server offers no SASL mechanism that is supported")]
    NoCommonMechanism,
    /// The target asks for more than [`ITERATIONS_MAX`].
    #[error("the server asks for more than {ITERATIONS_MAX} SCRAM iterations")]
    TooManyIterations,
    /// The target ended the exchange with `e=`.
    #[error("the server refused: {0}")]
    ServerRefused(ServerRefusal),
    /// The target does not know the password's keys: it is not what it poses as.
    #[error("incorrect SCRAM server signature")]
    ServerSignature,
}

/// What an error means for the connection; with a client, it decides the SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramErrorKind {
    /// The peer broke the protocol (08P01).
    ProtocolViolation,
    /// Well formed, but something that PostgreSQL does not do either (0A000).
    NotSupported,
    /// The channel is not what it should be: an attack, or a proxy that terminates TLS (28000).
    Channel,
    /// The password is wrong or the user is unknown (28P01).
    AuthenticationFailed,
    /// Our role as client: the target could not prove that it knows the password.
    ServerNotAuthentic,
}

impl ScramError {
    /// The class of the error, with PostgreSQL's own choice of SQLSTATEs.
    #[must_use]
    pub fn kind(self) -> ScramErrorKind {
        match self {
            Self::Empty
            | Self::TooLong { .. }
            | Self::Nul
            | Self::AttributeExpected(_)
            | Self::NotAnAttribute
            | Self::Garbage
            | Self::BindingHeader
            | Self::MalformedNonce
            | Self::MalformedValue(_)
            | Self::MechanismNotOffered
            | Self::BindingMissing
            | Self::BindingUnexpected
            | Self::BindingType
            | Self::NonceMismatch
            | Self::BindingNotRepeated
            | Self::TooManyIterations => ScramErrorKind::ProtocolViolation,
            Self::AuthorizationIdentity | Self::MandatoryExtension | Self::NoCommonMechanism => {
                ScramErrorKind::NotSupported
            }
            Self::Downgrade | Self::BindingMismatch => ScramErrorKind::Channel,
            Self::AuthenticationFailed | Self::ServerRefused(_) => {
                ScramErrorKind::AuthenticationFailed
            }
            Self::ServerSignature => ScramErrorKind::ServerNotAuthentic,
        }
    }
}

/// The reason a target gives with `e=`: one that RFC 5802 names, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerRefusal(&'static str);

impl ServerRefusal {
    /// The values of `server-error-value` in RFC 5802, section 7.
    const KNOWN: [&'static str; 11] = [
        "invalid-encoding",
        "extensions-not-supported",
        "invalid-proof",
        "channel-bindings-dont-match",
        "server-does-support-channel-binding",
        "channel-binding-not-supported",
        "unsupported-channel-binding-type",
        "unknown-user",
        "invalid-username-encoding",
        "no-resources",
        "other-error",
    ];

    pub(super) fn from_value(value: &[u8]) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| known.as_bytes() == value);
        // Unknown text of a peer is not repeated.
        Self(known.unwrap_or("other-error"))
    }

    /// The value, `other-error` for all that the RFC does not name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for ServerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
