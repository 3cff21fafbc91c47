//! Layer 2, pure. SCRAM-SHA-256, MD5 and secrets.
//!
//! Who a peer is, decided from byte strings: no clock, no random source, no socket. Nonces, salts and the
//! key for unknown users are arguments, so that every exchange can be replayed in a test. SQLSTATEs and
//! message framing belong to the caller.
//!
//! Towards a client we are the server of the exchange ([`scram_server`], [`md5`]), towards a target its
//! client ([`scram_client`], [`md5`]). Key derivation is separate from both: [`scram::ScramVerifier`] and
//! [`scram::ScramKeys`] are derived once per secret, away from the threads that move data.

mod hash;
mod saslprep;
mod scram_message;

pub mod channel_binding;
pub mod md5;
pub mod rds_token;
pub mod scram;
pub mod scram_client;
pub mod scram_server;
pub mod secret;

#[cfg(test)]
mod scram_tests;
