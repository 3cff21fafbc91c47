//! Proving that a client is who it says. Touches no server.
//!
//! A user that does not exist goes the same way as one with a wrong password: the same messages,
//! the same work, the same answer.
//!
//! Source: <https://www.postgresql.org/docs/current/sasl-authentication.html>

use super::handshake::{Greeted, farewell};
use super::{Rejection, Worker};
use crate::auth::channel_binding::ServerBinding;
use crate::auth::md5::RESPONSE_LEN;
use crate::auth::scram::{Nonce, RAW_NONCE_LEN, ScramErrorKind};
use crate::auth::scram_server::ScramServer;
use crate::config::ClientPasswordAuthType;
use crate::wire::frame;
use crate::wire::{ErrorResponse, FrontendTag, SqlState, encode, frontend};

/// Largest message of a client that is not let in yet; tokens used as passwords have some KB.
const MESSAGE_MAX: usize = 16 * 1024;

/// Lets the client in, or not. Yields what it must be told with the rest of its welcome.
///
/// # Errors
/// [`Rejection`]; the client was told why.
pub async fn authenticate(greeted: &mut Greeted, worker: &Worker) -> Result<Vec<u8>, Rejection> {
    let credentials = &worker.shared.credentials;
    let method = credentials
        .lookup(&greeted.user)
        .map_or_else(|| credentials.mock_auth_type(), |known| known.client_password_auth_type);
    match method {
        ClientPasswordAuthType::ScramSha256 => scram(greeted, worker).await,
        ClientPasswordAuthType::Md5 => md5(greeted, worker).await,
    }
}

async fn scram(greeted: &mut Greeted, worker: &Worker) -> Result<Vec<u8>, Rejection> {
    let binding = match &greeted.tls {
        Some(state) => {
            ServerBinding::Tls { end_point: state.tls_server_end_point().map(<[u8]>::to_vec) }
        }
        None => ServerBinding::NoTls,
    };
    let mut offer = std::mem::take(&mut greeted.owed);
    let mut names = Vec::new();
    for mechanism in ScramServer::mechanisms(&binding) {
        encode::cstr(&mut names, mechanism.as_bytes());
    }
    names.push(0);
    encode::authentication(&mut offer, 10, &names);
    send(greeted, &offer).await?;

    let message = password_message(greeted).await?;
    let Some((mechanism, first)) = frontend::sasl_initial_response(&message) else {
        return refuse_malformed(greeted).await;
    };
    let mut random = [0; RAW_NONCE_LEN];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Rejection::Malformed)?;
    let nonce = Nonce::from_random(&random);
    let credentials = &worker.shared.credentials;
    let known = credentials.lookup(&greeted.user);
    let mock = credentials.mock_verifier(&greeted.user);
    let verifier = known.as_ref().map_or(&mock, |credential| &credential.verifier);
    let (exchange, server_first) =
        match ScramServer::start(&binding, mechanism, first, verifier, &nonce) {
            Ok(started) => started,
            Err(error) => return refuse_scram(greeted, error.kind()).await,
        };
    let mut out = Vec::with_capacity(128);
    encode::authentication(&mut out, 11, &server_first);
    send(greeted, &out).await?;

    let response = password_message(greeted).await?;
    match exchange.finish(&response) {
        Ok(server_final) => {
            let mut out = Vec::with_capacity(1024);
            encode::authentication(&mut out, 12, &server_final);
            out.extend_from_slice(&encode::AUTHENTICATION_OK);
            Ok(out)
        }
        Err(error) => refuse_scram(greeted, error.kind()).await,
    }
}

async fn md5(greeted: &mut Greeted, worker: &Worker) -> Result<Vec<u8>, Rejection> {
    let mut salt = [0; 4];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| Rejection::Malformed)?;
    let mut offer = std::mem::take(&mut greeted.owed);
    encode::authentication(&mut offer, 5, &salt);
    send(greeted, &offer).await?;
    let mut message = password_message(greeted).await?;
    if message.pop() != Some(0) || message.len() > RESPONSE_LEN {
        return refuse_password(greeted).await;
    }
    let credentials = &worker.shared.credentials;
    let known = credentials.lookup(&greeted.user);
    let mock = credentials.mock_md5_verifier(&greeted.user);
    let verifier = known.as_ref().map_or(&mock, |credential| &credential.md5);
    if verifier.accepts(salt, &message) {
        Ok(encode::AUTHENTICATION_OK.to_vec())
    } else {
        refuse_password(greeted).await
    }
}

async fn send(greeted: &mut Greeted, bytes: &[u8]) -> Result<(), Rejection> {
    greeted.stream.write_all(bytes).await.map_err(|_| Rejection::Malformed)
}

/// The body of the next message, which must be a password or a SASL response.
async fn password_message(greeted: &mut Greeted) -> Result<Vec<u8>, Rejection> {
    loop {
        let mut rest = greeted.buffer.as_slice();
        match frame::take(&mut rest, MESSAGE_MAX) {
            Ok(Some(frame)) if FrontendTag(frame.tag) == FrontendTag::PASSWORD => {
                let (body, taken) = (frame.body().to_vec(), frame.bytes.len());
                greeted.buffer.drain(..taken);
                return Ok(body);
            }
            Ok(Some(frame)) if FrontendTag(frame.tag) == FrontendTag::TERMINATE => {
                return Err(Rejection::Password);
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return refuse_malformed(greeted).await,
        }
        match greeted.stream.read_append(&mut greeted.buffer).await {
            Ok(0) | Err(_) => return Err(Rejection::Password),
            Ok(_) => {}
        }
    }
}

async fn refuse_scram<T>(greeted: &mut Greeted, kind: ScramErrorKind) -> Result<T, Rejection> {
    match kind {
        ScramErrorKind::AuthenticationFailed => refuse_password(greeted).await,
        _ => refuse_malformed(greeted).await,
    }
}

async fn refuse_password<T>(greeted: &mut Greeted) -> Result<T, Rejection> {
    let message = format!("The password that was provided for the role {} is wrong.", greeted.user);
    let response = ErrorResponse::fatal(SqlState::INVALID_PASSWORD, message);
    farewell(&mut greeted.stream, &response.to_bytes()).await;
    Err(Rejection::Password)
}

async fn refuse_malformed<T>(greeted: &mut Greeted) -> Result<T, Rejection> {
    let response =
        ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "malformed authentication message");
    farewell(&mut greeted.stream, &response.to_bytes()).await;
    Err(Rejection::Password)
}
