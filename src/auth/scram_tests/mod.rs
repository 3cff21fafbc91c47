//! Both roles of SCRAM against the RFC, against PostgreSQL, against each other and against tampering.

mod behaviour;
mod malformed;
mod tampering;
mod vectors;

use std::num::NonZeroU32;

use super::channel_binding::ServerBinding;
use super::scram::{Nonce, SCRAM_SHA_256, ScramError, ScramKeys, ScramVerifier};
use super::scram_client::{ScramChallenge, ScramClient};
use super::scram_server::ScramServer;
use super::secret::Password;

/// Few, so that a property can run many exchanges.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
const SALT: [u8; 16] = *b"0123456789abcdef";
const MOCK_KEY: [u8; 32] = [3; 32];
const END_POINT: &[u8] = &[0x5a; 32];

fn password(text: &str) -> Password {
    Password::new(text.to_owned())
}

fn verifier() -> ScramVerifier {
    ScramVerifier::derive(&password("pencil"), SALT, ITERATIONS)
}

fn keys(challenge: &ScramChallenge, text: &str) -> ScramKeys {
    ScramKeys::derive(&password(text), challenge.parameters())
}

fn client_nonce() -> Nonce {
    Nonce::from_random(&[1; 18])
}

fn server_nonce() -> Nonce {
    Nonce::from_random(&[2; 18])
}

fn tls(end_point: Option<&[u8]>) -> ServerBinding {
    ServerBinding::Tls { end_point: end_point.map(<[u8]>::to_vec) }
}

fn start(
    binding: &ServerBinding,
    mechanism: &str,
    client_first: &[u8],
) -> Result<(ScramServer, Vec<u8>), ScramError> {
    ScramServer::start(binding, mechanism, client_first, &verifier(), &server_nonce())
}

/// A server in clear that sent its challenge to [`client_nonce`].
fn challenged_server() -> ScramServer {
    let first = format!("n,,n=,r={}", client_nonce().as_str());
    start(&ServerBinding::NoTls, SCRAM_SHA_256, first.as_bytes()).ok().unwrap().0
}

/// A client in clear that sent its first message.
fn started_client() -> ScramClient {
    ScramClient::start([SCRAM_SHA_256], None, &client_nonce()).ok().unwrap().0
}

/// What goes over the wire in an exchange, each message changed at will by `edit` (0: client-first, 1:
/// server-first, 2: client-final, 3: server-final).
fn exchange(
    binding: &ServerBinding,
    client_end_point: Option<&[u8]>,
    typed: &str,
    verifier: &ScramVerifier,
    mut edit: impl FnMut(usize, &mut Vec<u8>),
) -> Result<&'static str, ScramError> {
    let offered = ScramServer::mechanisms(binding).iter().copied();
    let (client, mut message) = ScramClient::start(offered, client_end_point, &client_nonce())?;
    let mechanism = client.mechanism();
    edit(0, &mut message);
    let (server, mut message) =
        ScramServer::start(binding, mechanism, &message, verifier, &server_nonce())?;
    edit(1, &mut message);
    let challenge = client.challenge(&message)?;
    let keys = keys(&challenge, typed);
    let (proof, mut message) = challenge.respond(&keys);
    edit(2, &mut message);
    let mut message = server.finish(&message)?;
    edit(3, &mut message);
    proof.finish(&message)?;
    Ok(mechanism)
}

fn untouched(_: usize, _: &mut Vec<u8>) {}
