//! What is fuzzed, as plain functions of bytes: each panics if something is wrong.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz ledger` looks for new inputs, and
//! `cargo test --test fuzz_replay` replays the ones that are known, on stable.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a fault is a panic")]

mod ledger;

pub use ledger::ledger;

use pgweir::auth::channel_binding::ServerBinding;
use pgweir::auth::scram::{
    Nonce, RAW_NONCE_LEN, SALT_LEN, SCRAM_SHA_256, ScramKeys, ScramVerifier,
};
use pgweir::auth::scram_client::ScramClient;
use pgweir::auth::scram_server::ScramServer;
use pgweir::auth::secret::{Password, Secret};
use pgweir::config::Config;
use pgweir::state::settings::Settings;
use pgweir::wire::backend::{Authentication, backend_key_data, data_row, parameter_status};
use pgweir::wire::frontend::{Bind, Object, Parse, query_text, sasl_initial_response};
use pgweir::wire::response::ErrorFields;
use pgweir::wire::startup::{self, StartupPacket};
use pgweir::wire::{encode, frame};
use std::num::NonZeroU32;

/// Frames end where they say, and no body is trusted by those who read it.
pub fn frame(input: &[u8]) {
    const MAX: usize = 1 << 20;
    let mut rest = input;
    let mut taken = 0;
    while let Ok(Some(frame)) = frame::take(&mut rest, MAX) {
        taken += frame.bytes.len();
        assert_eq!(frame.bytes.first(), Some(&frame.tag));
        let mut again = Vec::new();
        encode::message(&mut again, frame.tag, |out| out.extend_from_slice(frame.body()));
        assert_eq!(again, frame.bytes, "a length that its own body does not have");
        read_body(frame.body());
    }
    assert_eq!(taken + rest.len(), input.len());
    read_body(input);
}

fn read_body(body: &[u8]) {
    if let Some(parse) = Parse::read(body) {
        assert_eq!(parse.name.len() + 1 + parse.tail.len(), body.len());
        assert!(parse.tail.starts_with(parse.query));
    }
    if let Some(bind) = Bind::read(body) {
        let names = bind.portal.len() + bind.statement.len() + 2;
        assert_eq!(names + bind.rest.len(), body.len());
    }
    if let Some(Object::Statement(name) | Object::Portal(name)) = Object::read(body) {
        assert_eq!(name.len() + 2, body.len());
    }
    if let Some(text) = query_text(body) {
        assert_eq!(text.len() + 1, body.len());
    }
    let _ = sasl_initial_response(body);
    let _ = Authentication::read(body);
    let _ = parameter_status(body);
    let _ = backend_key_data(body);
    let _ = data_row(body);
    let _ = ErrorFields::read(body);
}

/// A startup packet is read as it would be written, and its options are settings or refused.
pub fn startup(input: &[u8]) {
    if let Ok(options) = std::str::from_utf8(input)
        && let Ok(settings) = startup::read_options(options)
    {
        let pairs = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        if let Ok(settings) = Settings::new(pairs) {
            assert!(settings.change_from(&settings).is_empty());
        }
    }
    let Ok(Some(length)) = startup::packet_len(input) else { return };
    let Some(packet) = input.get(..length) else { return };
    match startup::read(packet) {
        Ok(StartupPacket::Startup(startup)) => {
            let mut again = Vec::new();
            encode::startup(&mut again, startup.version, startup.parameters.iter().copied());
            assert_eq!(again, packet);
            if let Some(options) = startup.get("options") {
                let _ = startup::read_options(options);
            }
        }
        Ok(StartupPacket::Cancel(key)) => {
            let mut again = Vec::new();
            encode::cancel_request(&mut again, key.process_id, key.secret);
            assert_eq!(again, packet);
        }
        Ok(StartupPacket::SslRequest | StartupPacket::GssEncRequest) => assert_eq!(length, 8),
        Err(_) => {}
    }
}

/// Neither role of SCRAM accepts what an honest peer would not have sent.
///
/// The first byte says which message is tampered with. The rest is laid over it, and what is longer
/// than the message is appended.
pub fn scram(input: &[u8]) {
    let Some((&which, change)) = input.split_first() else { return };
    let password = Password::new("pencil".into());
    let rounds = NonZeroU32::MIN;
    let salt = [7; SALT_LEN];
    let verifier = ScramVerifier::derive(&password, salt, rounds);
    let nonce = |byte| Nonce::from_random(&[byte; RAW_NONCE_LEN]);
    let (client, first) = ScramClient::start([SCRAM_SHA_256], None, &nonce(1)).unwrap();
    let first = tampered(first, which == 0, change);
    let Ok((server, challenge)) = ScramServer::start(
        &ServerBinding::NoTls,
        SCRAM_SHA_256,
        &first.bytes,
        &verifier,
        &nonce(2),
    ) else {
        assert!(first.is_other, "an honest first message was refused");
        return;
    };
    let challenge = tampered(challenge, which == 1, change);
    let Ok(challenged) = client.challenge(&challenge.bytes) else {
        assert!(first.is_other || challenge.is_other, "an honest challenge was refused");
        return;
    };
    if challenged.parameters().iterations > rounds {
        return;
    }
    let keys = ScramKeys::derive(&password, challenged.parameters());
    let (proof, last) = challenged.respond(&keys);
    let last = tampered(last, which == 2, change);
    let anything_other = first.is_other || challenge.is_other || last.is_other;
    match server.finish(&last.bytes) {
        Ok(end) => {
            // The client signs what it sent itself, so a change of its first message is found.
            assert!(!anything_other, "a tampered exchange was accepted");
            let end = tampered(end, which == 3, change);
            assert_eq!(proof.finish(&end.bytes).is_ok(), !end.is_other);
        }
        Err(_) => assert!(anything_other, "an honest proof was refused"),
    }
}

struct Tampered {
    bytes: Vec<u8>,
    is_other: bool,
}

fn tampered(honest: Vec<u8>, it_is: bool, change: &[u8]) -> Tampered {
    if !it_is {
        return Tampered { bytes: honest, is_other: false };
    }
    let mut bytes = honest.clone();
    for (at, &mask) in change.iter().enumerate() {
        match bytes.get_mut(at) {
            Some(byte) => *byte ^= mask,
            None => bytes.push(mask),
        }
    }
    let is_other = bytes != honest;
    Tampered { bytes, is_other }
}

/// A configuration is taken or refused with a text, whatever is in the file and the environment.
///
/// What follows a zero is environment: a line for each variable, without the prefix.
pub fn config(input: &[u8]) {
    let _ = Secret::from_json(input);
    let text = String::from_utf8_lossy(input);
    let (file, environment) = text.split_once('\0').unwrap_or((&text, ""));
    let variables = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("PGWEIR_{name}"), value.to_owned()));
    match Config::parse("fuzz.toml", Some(file), variables) {
        Ok(config) => {
            assert!(!config.proxy.auth.is_empty());
            assert!(!config.target.host.is_empty());
            assert!(config.target.max_idle_connections_percent <= 100);
        }
        Err(errors) => assert!(!errors.to_string().is_empty()),
    }
}
