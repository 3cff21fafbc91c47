//! The client's half of SCRAM-SHA-256, without channel binding unless its data are given.
//!
//! Source: RFC 5802, RFC 7677, <https://www.postgresql.org/docs/current/sasl-authentication.html>

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::num::NonZeroU32;

/// One exchange.
pub struct ScramClient {
    gs2_header: &'static str,
    binding: Vec<u8>,
    nonce: String,
    password: String,
    server_signature: String,
}

impl ScramClient {
    /// `nonce` is anything printable but a comma; tests need no secrecy of it.
    pub fn new(password: &str, nonce: &str) -> Self {
        Self {
            gs2_header: "n,,",
            binding: Vec::new(),
            nonce: nonce.to_owned(),
            password: password.to_owned(),
            server_signature: String::new(),
        }
    }

    /// `SCRAM-SHA-256-PLUS` with the hash of the server's certificate.
    pub fn bound_to(mut self, end_point: Vec<u8>) -> Self {
        self.gs2_header = "p=tls-server-end-point,,";
        self.binding = end_point;
        self
    }

    pub fn mechanism(&self) -> &'static str {
        if self.binding.is_empty() { "SCRAM-SHA-256" } else { "SCRAM-SHA-256-PLUS" }
    }

    /// `SASLInitialResponse` without its message header.
    pub fn initial_response(&self) -> Vec<u8> {
        let first = format!("{}{}", self.gs2_header, self.first_bare());
        let length = u32::try_from(first.len()).unwrap();
        let mechanism = self.mechanism().as_bytes();
        [mechanism, b"\0", &length.to_be_bytes(), first.as_bytes()].concat()
    }

    /// Answers the server-first-message with the client-final-message.
    pub fn respond(&mut self, server_first: &str) -> Vec<u8> {
        let attribute = |name: &str| {
            let found = server_first.split(',').find_map(|part| part.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in {server_first}")).to_owned()
        };
        let nonce = attribute("r=");
        assert!(nonce.starts_with(&self.nonce) && nonce.len() > self.nonce.len(), "{nonce}");
        let salt = BASE64.decode(attribute("s=")).unwrap();
        let iterations: NonZeroU32 = attribute("i=").parse().unwrap();

        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        let secret = self.password.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, secret, &mut salted);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, &client_key);

        let binding = [self.gs2_header.as_bytes(), &self.binding].concat();
        let without_proof = format!("c={},r={nonce}", BASE64.encode(binding));
        let auth = format!("{},{server_first},{without_proof}", self.first_bare());
        let signature = sign(stored_key.as_ref(), auth.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let server_key = sign(&salted, b"Server Key");
        self.server_signature = BASE64.encode(sign(&server_key, auth.as_bytes()));
        format!("{without_proof},p={}", BASE64.encode(proof)).into_bytes()
    }

    /// Whether the server-final-message proves that the server knows the password.
    pub fn server_is_genuine(&self, server_final: &str) -> bool {
        server_final == format!("v={}", self.server_signature)
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}
