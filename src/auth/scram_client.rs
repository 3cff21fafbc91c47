//! SCRAM-SHA-256 towards a target: we know the password and prove it, and the target proves that it knows us.
//!
//! ```text
//! pgweir                                            PostgreSQL
//!   ScramClient::start       <--  AuthenticationSASL (mechanisms)
//!                            -->  SASLInitialResponse (client-first)
//!   ScramClient::challenge   <--  AuthenticationSASLContinue (server-first)
//!   (keys: cache or PBKDF2)
//!   ScramChallenge::respond  -->  SASLResponse (client-final)
//!   ScramProof::finish       <--  AuthenticationSASLFinal (server-final)
//! ```
//!
//! Each step consumes the one before, so that none can be left out or repeated. Between challenge and
//! response the caller finds the keys: nothing is borrowed meanwhile, and PBKDF2 may run elsewhere.
//!
//! The target is believed no more than a client: messages and iterations are bounded.
//!
//! Source: RFC 5802, sections 5 to 7; libpq's `fe-auth-scram.c`.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::channel_binding::TLS_SERVER_END_POINT;
use super::hash::{equal, hmac_sha256};
use super::scram::{
    ITERATIONS_MAX, Key, Nonce, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, ScramKeys,
    ScramParameters, ServerRefusal,
};
use super::scram_message::{Attributes, check, decode, decode_key, is_nonce};

/// Most bytes in a message of a target: libpq's limit for authentication requests.
pub const SERVER_MESSAGE_LEN_MAX: usize = 2000;

/// An exchange whose first message was made.
pub struct ScramClient {
    mechanism: &'static str,
    /// The value of `c=`.
    channel_binding: String,
    /// Client-first without the GS2 header; what is signed begins with it.
    first_bare: String,
    nonce: Nonce,
}

impl ScramClient {
    /// Chooses among the mechanisms that the target offers and yields the body of `SASLInitialResponse`.
    ///
    /// `end_point` is [`tls_server_end_point`](super::channel_binding::tls_server_end_point) of the target's
    /// certificate, `None` without TLS. With it, SCRAM-SHA-256-PLUS is used if offered; if it is not, the
    /// target is told that we could have, and refuses if somebody removed the offer.
    ///
    /// # Errors
    /// [`ScramError::NoCommonMechanism`] if neither mechanism is offered, or only PLUS without `end_point`.
    pub fn start<'a>(
        offered: impl IntoIterator<Item = &'a str>,
        end_point: Option<&[u8]>,
        nonce: &Nonce,
    ) -> Result<(Self, Vec<u8>), ScramError> {
        let (mut plain, mut plus) = (false, false);
        for mechanism in offered {
            plain |= mechanism == SCRAM_SHA_256;
            plus |= mechanism == SCRAM_SHA_256_PLUS;
        }
        let (mechanism, header, data) = match end_point {
            Some(data) if plus => (SCRAM_SHA_256_PLUS, format!("p={TLS_SERVER_END_POINT},,"), data),
            Some(_) if plain => (SCRAM_SHA_256, "y,,".to_owned(), [].as_slice()),
            // `y` would be a lie here, and one that the target takes for an attack.
            None if plain => (SCRAM_SHA_256, "n,,".to_owned(), [].as_slice()),
            Some(_) | None => return Err(ScramError::NoCommonMechanism),
        };
        // PostgreSQL takes the user from the startup packet and ignores this one; libpq leaves it empty too.
        let first_bare = format!("n=,r={}", nonce.as_str());
        let client_first = format!("{header}{first_bare}").into_bytes();
        let exchange = Self {
            mechanism,
            channel_binding: STANDARD.encode([header.as_bytes(), data].concat()),
            first_bare,
            nonce: nonce.clone(),
        };
        Ok((exchange, client_first))
    }

    /// An exchange in clear that names a user, as the example of RFC 7677 does.
    #[cfg(test)]
    pub(super) fn with_username(username: &str, nonce: &Nonce) -> Self {
        Self {
            mechanism: SCRAM_SHA_256,
            channel_binding: STANDARD.encode("n,,"),
            first_bare: format!("n={username},r={}", nonce.as_str()),
            nonce: nonce.clone(),
        }
    }

    /// The mechanism that was chosen, to be named in `SASLInitialResponse`.
    #[must_use]
    pub fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// Takes the body of `AuthenticationSASLContinue`.
    ///
    /// # Errors
    /// [`ScramError::TooManyIterations`] beyond [`ITERATIONS_MAX`]; otherwise the target broke the protocol.
    pub fn challenge(self, server_first: &[u8]) -> Result<ScramChallenge, ScramError> {
        check(server_first, SERVER_MESSAGE_LEN_MAX)?;
        let mut attributes = Attributes::new(server_first);
        attributes.refuse_mandatory_extension()?;
        let nonce = attributes.expect(b'r')?;
        let salt = attributes.expect(b's')?;
        let iterations = attributes.expect(b'i')?;
        attributes.finish()?;

        match nonce.strip_prefix(self.nonce.as_str().as_bytes()) {
            Some(added) if is_nonce(added) => {}
            Some(_) => return Err(ScramError::MalformedNonce),
            None => return Err(ScramError::NonceMismatch),
        }
        let salt = decode(b's', salt)?.into_boxed_slice();
        if salt.is_empty() {
            return Err(ScramError::MalformedValue('s'));
        }
        let parameters = ScramParameters { salt, iterations: parse_iterations(iterations)? };

        let without_proof = [b"c=", self.channel_binding.as_bytes(), b",r=", nonce].concat();
        let signed =
            [self.first_bare.as_bytes(), b",", server_first, b",", &without_proof].concat();
        Ok(ScramChallenge { parameters, without_proof, signed })
    }
}

/// A `posit-number` of RFC 5802 within our limit.
fn parse_iterations(digits: &[u8]) -> Result<NonZeroU32, ScramError> {
    const MALFORMED: ScramError = ScramError::MalformedValue('i');
    if digits.first() == Some(&b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return Err(MALFORMED);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| MALFORMED)?;
    if digits.is_empty() {
        return Err(MALFORMED);
    }
    // Nothing but a number too large is left to fail.
    match digits.parse::<NonZeroU32>() {
        Ok(iterations) if iterations <= ITERATIONS_MAX => Ok(iterations),
        Ok(_) | Err(_) => Err(ScramError::TooManyIterations),
    }
}

/// A challenge that waits for keys.
pub struct ScramChallenge {
    parameters: ScramParameters,
    without_proof: Vec<u8>,
    signed: Vec<u8>,
}

impl ScramChallenge {
    /// Which keys [`ScramChallenge::respond`] needs: look them up, or derive them by [`ScramKeys::derive`].
    #[must_use]
    pub fn parameters(&self) -> &ScramParameters {
        &self.parameters
    }

    /// Yields the body of `SASLResponse`. Keys for other parameters or another password make the target refuse.
    pub fn respond(self, keys: &ScramKeys) -> (ScramProof, Vec<u8>) {
        let mut proof = hmac_sha256(keys.stored.as_slice(), &[&self.signed]);
        for (signature, key) in proof.iter_mut().zip(keys.client.iter()) {
            *signature ^= key;
        }
        let mut client_final = self.without_proof;
        client_final.extend_from_slice(b",p=");
        client_final.extend_from_slice(STANDARD.encode(proof).as_bytes());
        let server_signature = Zeroizing::new(hmac_sha256(keys.server.as_slice(), &[&self.signed]));
        (ScramProof { server_signature }, client_final)
    }
}

/// A proof that was sent; the target has yet to give its own.
#[must_use = "a target that did not prove itself must not be used"]
pub struct ScramProof {
    server_signature: Key,
}

impl ScramProof {
    /// Takes the body of `AuthenticationSASLFinal`. Only after `Ok` is the target known to be the right one: an
    /// `AuthenticationOk` that comes without it has to be refused.
    ///
    /// # Errors
    /// [`ScramError::ServerRefused`] if it says so, [`ScramError::ServerSignature`] if it is not genuine.
    pub fn finish(self, server_final: &[u8]) -> Result<(), ScramError> {
        check(server_final, SERVER_MESSAGE_LEN_MAX)?;
        let mut attributes = Attributes::new(server_final);
        let attribute = attributes.any().map_err(|_| ScramError::AttributeExpected('v'))?;
        match attribute.name {
            b'e' => {
                return Err(ScramError::ServerRefused(ServerRefusal::from_value(attribute.value)));
            }
            b'v' => attributes.finish()?,
            _ => return Err(ScramError::AttributeExpected('v')),
        }
        let signature = decode_key(b'v', attribute.value)?;
        if equal(&signature, self.server_signature.as_slice()) {
            Ok(())
        } else {
            Err(ScramError::ServerSignature)
        }
    }
}
