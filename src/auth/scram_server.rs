//! SCRAM-SHA-256 towards a client: we hold a verifier and check that the client knows the password.
//!
//! ```text
//! client                                        pgweir
//!   AuthenticationSASL (mechanisms)            <--   ScramServer::mechanisms
//!   SASLInitialResponse (client-first)         -->   ScramServer::start
//!   AuthenticationSASLContinue (server-first)  <--
//!   SASLResponse (client-final)                -->   ScramServer::finish
//!   AuthenticationSASLFinal (server-final)     <--
//! ```
//!
//! As in PostgreSQL, the user is the one of the startup packet and the name in the exchange is ignored. An
//! unknown user goes the same way with [`ScramVerifier::mock`]. The order of checks and their outcome are
//! those of PostgreSQL's `src/backend/libpq/auth-scram.c`, with syntax read a little more strictly.
//!
//! Source: RFC 5802, sections 5 to 7.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::channel_binding::{ServerBinding, TLS_SERVER_END_POINT};
use super::hash::{equal, hmac_sha256, sha256};
use super::scram::{Nonce, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramError, ScramVerifier};
use super::scram_message::{Attributes, check, decode_key, is_nonce, split_at_comma};

/// Most bytes in a message of a client: PostgreSQL's `PG_MAX_SASL_MESSAGE_LENGTH`.
pub const CLIENT_MESSAGE_LEN_MAX: usize = 1024;

/// An exchange whose challenge was sent and whose proof is awaited.
pub struct ScramServer {
    /// Client's and server's nonce, one after the other.
    nonce: Vec<u8>,
    /// The `c=` that repeats the client's header, followed by the binding data if there is any.
    channel_binding: String,
    /// Whether `channel_binding` ties the exchange to the TLS connection.
    is_bound: bool,
    /// Client-first-bare and server-first, joined by a comma: all but the end of what is signed.
    first_messages: Vec<u8>,
    verifier: ScramVerifier,
}

impl ScramServer {
    /// The mechanisms to offer, the preferred one first.
    #[must_use]
    pub fn mechanisms(binding: &ServerBinding) -> &'static [&'static str] {
        match binding.end_point() {
            Some(_) => &[SCRAM_SHA_256_PLUS, SCRAM_SHA_256],
            None => &[SCRAM_SHA_256],
        }
    }

    /// Takes the body of `SASLInitialResponse` and yields that of `AuthenticationSASLContinue`.
    ///
    /// `binding` has to be what [`ScramServer::mechanisms`] was called with, or a downgrade goes unnoticed.
    ///
    /// # Errors
    /// The same for every user, known or not: nothing here depends on `verifier`.
    pub fn start(
        binding: &ServerBinding,
        mechanism: &str,
        client_first: &[u8],
        verifier: &ScramVerifier,
        server_nonce: &Nonce,
    ) -> Result<(Self, Vec<u8>), ScramError> {
        let end_point = match (mechanism, binding.end_point()) {
            (SCRAM_SHA_256, _) => None,
            (SCRAM_SHA_256_PLUS, Some(end_point)) => Some(end_point),
            _ => return Err(ScramError::MechanismNotOffered),
        };
        check(client_first, CLIENT_MESSAGE_LEN_MAX)?;
        let first = ClientFirst::parse(client_first)?;
        first.check_binding(end_point.is_some(), binding.end_point().is_some())?;

        let nonce = [first.nonce, server_nonce.as_str().as_bytes()].concat();
        let server_first = server_first(&nonce, verifier);
        let exchange = Self {
            nonce,
            channel_binding: STANDARD
                .encode([first.header, end_point.unwrap_or_default()].concat()),
            is_bound: end_point.is_some(),
            first_messages: [first.bare, b",", &server_first].concat(),
            verifier: verifier.clone(),
        };
        Ok((exchange, server_first))
    }

    /// Takes the body of `SASLResponse` and yields that of `AuthenticationSASLFinal`, which only a client that
    /// knows the password is to see.
    ///
    /// # Errors
    /// [`ScramError::AuthenticationFailed`] for a wrong password and for an unknown user alike.
    pub fn finish(self, client_final: &[u8]) -> Result<Vec<u8>, ScramError> {
        self.finish_with(client_final, &[&self.verifier])
    }

    /// The same for a user with several passwords, one of which the client has to know: while a password
    /// is replaced, or when it was looked up again after the client had spoken.
    ///
    /// All verifiers have the salt and the iterations of the one that the exchange began with, because the
    /// client was told these before it showed what it knows; another is met by no client. All are
    /// computed, whichever is met, so that the caller decides by their number how long it takes.
    ///
    /// # Errors
    /// As [`ScramServer::finish`].
    pub fn finish_with(
        &self,
        client_final: &[u8],
        verifiers: &[&ScramVerifier],
    ) -> Result<Vec<u8>, ScramError> {
        check(client_final, CLIENT_MESSAGE_LEN_MAX)?;
        let last = ClientFinal::parse(client_final)?;
        if !equal(last.channel_binding, self.channel_binding.as_bytes()) {
            return Err(if self.is_bound {
                ScramError::BindingMismatch
            } else {
                ScramError::BindingNotRepeated
            });
        }
        if last.nonce != self.nonce {
            return Err(ScramError::NonceMismatch);
        }
        let signed: [&[u8]; 3] = [&self.first_messages, b",", last.without_proof];
        let mut met = None;
        for verifier in verifiers {
            let mut client_key = hmac_sha256(verifier.stored_key.as_slice(), &signed);
            for (signature, proof) in client_key.iter_mut().zip(last.proof) {
                *signature ^= proof;
            }
            if equal(&sha256(&client_key), verifier.stored_key.as_slice()) {
                met = Some(verifier);
            }
        }
        let verifier = met.ok_or(ScramError::AuthenticationFailed)?;
        let signature = hmac_sha256(verifier.server_key.as_slice(), &signed);
        Ok(format!("v={}", STANDARD.encode(signature)).into_bytes())
    }
}

fn server_first(nonce: &[u8], verifier: &ScramVerifier) -> Vec<u8> {
    let salt = STANDARD.encode(verifier.salt());
    let rest = format!(",s={salt},i={}", verifier.iterations());
    [b"r=".as_slice(), nonce, rest.as_bytes()].concat()
}

/// `gs2-header client-first-message-bare`, RFC 5802, section 7.
struct ClientFirst<'a> {
    flag: BindingFlag,
    /// The GS2 header with both its commas.
    header: &'a [u8],
    /// The rest, which is signed.
    bare: &'a [u8],
    nonce: &'a [u8],
}

/// What the client says about channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BindingFlag {
    /// `n`: it cannot.
    Unsupported,
    /// `y`: it can, and believes that the server cannot.
    NotOffered,
    /// `p=`: it does.
    Used,
}

impl<'a> ClientFirst<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let (flag, authorization) = split_at_comma(message);
        let flag = match flag {
            b"n" => BindingFlag::Unsupported,
            b"y" => BindingFlag::NotOffered,
            [b'p', b'=', name @ ..] if name == TLS_SERVER_END_POINT.as_bytes() => BindingFlag::Used,
            [b'p', b'=', ..] => return Err(ScramError::BindingType),
            _ => return Err(ScramError::BindingHeader),
        };
        let (authorization, bare) = split_at_comma(authorization.ok_or(ScramError::BindingHeader)?);
        match authorization {
            [] => {}
            [b'a', b'=', ..] => return Err(ScramError::AuthorizationIdentity),
            _ => return Err(ScramError::BindingHeader),
        }
        let bare = bare.ok_or(ScramError::BindingHeader)?;

        let mut attributes = Attributes::new(bare);
        attributes.refuse_mandatory_extension()?;
        attributes.expect(b'n')?; // The startup packet has the name that counts.
        let nonce = attributes.expect(b'r')?;
        attributes.finish_extensions()?;
        if !is_nonce(nonce) {
            return Err(ScramError::MalformedNonce);
        }
        let header = message.strip_suffix(bare).unwrap_or_default();
        Ok(Self { flag, header, bare, nonce })
    }

    fn check_binding(&self, plus_selected: bool, plus_offered: bool) -> Result<(), ScramError> {
        match (self.flag, plus_selected) {
            (BindingFlag::Used, false) => Err(ScramError::BindingUnexpected),
            (BindingFlag::Unsupported | BindingFlag::NotOffered, true) => {
                Err(ScramError::BindingMissing)
            }
            // RFC 5802, section 6: somebody took PLUS out of the list that we sent.
            (BindingFlag::NotOffered, false) if plus_offered => Err(ScramError::Downgrade),
            (BindingFlag::Used, true)
            | (BindingFlag::Unsupported | BindingFlag::NotOffered, false) => Ok(()),
        }
    }
}

/// `client-final-message`, RFC 5802, section 7.
struct ClientFinal<'a> {
    channel_binding: &'a [u8],
    nonce: &'a [u8],
    proof: [u8; 32],
    /// All before `,p=`, which is signed.
    without_proof: &'a [u8],
}

impl<'a> ClientFinal<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ScramError> {
        let mut attributes = Attributes::new(message);
        let channel_binding = attributes.expect(b'c')?;
        let nonce = attributes.expect(b'r')?;
        let proof = loop {
            // Optional extensions may come in between.
            let attribute = attributes.any().map_err(|_| ScramError::AttributeExpected('p'))?;
            if attribute.name == b'p' {
                break attribute;
            }
        };
        attributes.finish()?;
        let without_proof = message.strip_suffix(proof.text).unwrap_or_default();
        Ok(Self {
            channel_binding,
            nonce,
            proof: decode_key(b'p', proof.value)?,
            without_proof: without_proof.strip_suffix(b",").unwrap_or_default(),
        })
    }
}
