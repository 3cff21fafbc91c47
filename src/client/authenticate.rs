//! Proving that a client is who it says. Touches no server.
//!
//! A user that does not exist goes the same way as one with a wrong password: the same messages,
//! the same work, the same answer.
//!
//! Source: <https://www.postgresql.org/docs/current/sasl-authentication.html>

use super::handshake::{Greeted, farewell};
use super::{Rejection, Worker};
use crate::auth::channel_binding::ServerBinding;
use crate::auth::md5::{Md5Verifier, RESPONSE_LEN};
use crate::auth::scram::{Nonce, RAW_NONCE_LEN, ScramError, ScramErrorKind, ScramVerifier};
use crate::auth::scram_server::ScramServer;
use crate::config::{ClientPasswordAuthType, IamAuth};
use crate::credentials::{Credential, PASSWORDS_MAX};
use crate::wire::frame;
use crate::wire::{ErrorResponse, FrontendTag, SqlState, encode, frontend};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Largest message of a client that is not let in yet; tokens used as passwords have some KB.
const MESSAGE_MAX: usize = 16 * 1024;

/// Until a wrong password is answered. Above the time between two reads of a secret out of turn, and
/// the time of one.
pub(super) const ANSWER_DELAY: Duration = Duration::from_secs(3);

/// Lets the client in, or not. Yields what it must be told with the rest of its welcome.
///
/// # Errors
/// [`Rejection`]; the client was told why.
pub async fn authenticate(greeted: &mut Greeted, worker: &Worker) -> Result<Vec<u8>, Rejection> {
    let credentials = &worker.shared.credentials;
    let (iam, method) = credentials.lookup(&greeted.user).map_or_else(
        || (credentials.mock_iam_auth(), credentials.mock_auth_type()),
        |known| (known.iam_auth, known.client_password_auth_type),
    );
    if iam == IamAuth::Required {
        return super::iam::authenticate(greeted, worker).await;
    }
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

    let message = password_message(greeted, worker).await?;
    let Some((mechanism, first)) = frontend::sasl_initial_response(&message) else {
        return refuse_malformed(greeted, worker).await;
    };
    let mut random = [0; RAW_NONCE_LEN];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Rejection::Malformed)?;
    let nonce = Nonce::from_random(&random);
    let credentials = &worker.shared.credentials;
    // It has the salt that all passwords of this user have.
    let mock = credentials.mock_verifier(&greeted.user);
    let (exchange, server_first) =
        match ScramServer::start(&binding, mechanism, first, &mock, &nonce) {
            Ok(started) => started,
            Err(error) => return refuse_scram(greeted, worker, error.kind()).await,
        };
    let mut out = Vec::with_capacity(128);
    encode::authentication(&mut out, 11, &server_first);
    send(greeted, &out).await?;

    let response = password_message(greeted, worker).await?;
    let finished = check(&greeted.user, worker, |accepted| {
        let verifiers: [&ScramVerifier; PASSWORDS_MAX] = std::array::from_fn(|at| {
            accepted.get(at).map_or(&mock, |credential| &credential.verifier)
        });
        match exchange.finish_with(&response, &verifiers) {
            Err(error) if error.kind() == ScramErrorKind::AuthenticationFailed => None,
            finished => Some(finished),
        }
    });
    match finished.await.unwrap_or(Err(ScramError::AuthenticationFailed)) {
        Ok(server_final) => {
            let mut out = Vec::with_capacity(1024);
            encode::authentication(&mut out, 12, &server_final);
            out.extend_from_slice(&encode::AUTHENTICATION_OK);
            Ok(out)
        }
        Err(error) => refuse_scram(greeted, worker, error.kind()).await,
    }
}

async fn md5(greeted: &mut Greeted, worker: &Worker) -> Result<Vec<u8>, Rejection> {
    let mut salt = [0; 4];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| Rejection::Malformed)?;
    let mut offer = std::mem::take(&mut greeted.owed);
    encode::authentication(&mut offer, 5, &salt);
    send(greeted, &offer).await?;
    let mut message = password_message(greeted, worker).await?;
    if message.pop() != Some(0) || message.len() > RESPONSE_LEN {
        return refuse_password(greeted, worker).await;
    }
    let mock = worker.shared.credentials.mock_md5_verifier(&greeted.user);
    let met = check(&greeted.user, worker, |accepted| {
        let verifiers: [&Md5Verifier; PASSWORDS_MAX] =
            std::array::from_fn(|at| accepted.get(at).map_or(&mock, |credential| &credential.md5));
        // All of them, whichever is met.
        let met = verifiers.iter().fold(false, |met, one| met | one.accepts(salt, &message));
        met.then_some(())
    });
    match met.await {
        Some(()) => Ok(encode::AUTHENTICATION_OK.to_vec()),
        None => refuse_password(greeted, worker).await,
    }
}

/// Checks what the client showed against the passwords of its user: those known, and, as one that is
/// none of them may have been put in force just now, those known after the secret was read again.
///
/// `None` comes [`ANSWER_DELAY`] after the first check, whether the user exists or not: the answer's
/// time tells nothing, and guessing is slow.
async fn check<T>(
    user: &str,
    worker: &Worker,
    met: impl Fn(&[Arc<Credential>]) -> Option<T>,
) -> Option<T> {
    let credentials = &worker.shared.credentials;
    if let Some(outcome) = met(&credentials.accepted(user)) {
        return Some(outcome);
    }
    let answer_at = tokio::time::Instant::now() + ANSWER_DELAY;
    let read_again = credentials.refresh_now(user);
    if tokio::time::timeout_at(answer_at, read_again).await.is_ok()
        && let Some(outcome) = met(&credentials.accepted(user))
    {
        return Some(outcome);
    }
    tokio::time::sleep_until(answer_at).await;
    None
}

/// Asks for a password in clear and yields it. Only for connections with TLS.
pub(super) async fn cleartext_password(
    greeted: &mut Greeted,
    worker: &Worker,
) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    let mut offer = std::mem::take(&mut greeted.owed);
    encode::authentication(&mut offer, 3, &[]);
    send(greeted, &offer).await?;
    // At once, so that no part of it is left behind where it grew out of.
    greeted.buffer.reserve(MESSAGE_MAX);
    let message = password_message(greeted, worker).await;
    greeted.buffer.shrink_to_fit();
    let mut message = message?;
    match message.pop() {
        Some(0) => Ok(message),
        _ => refuse_malformed(greeted, worker).await,
    }
}

async fn send(greeted: &mut Greeted, bytes: &[u8]) -> Result<(), Rejection> {
    greeted.stream.write_all(bytes).await.map_err(|_| Rejection::Left)
}

/// The body of the next message, which must be a password or a SASL response.
async fn password_message(
    greeted: &mut Greeted,
    worker: &Worker,
) -> Result<Zeroizing<Vec<u8>>, Rejection> {
    loop {
        let mut rest = greeted.buffer.as_slice();
        match frame::take(&mut rest, MESSAGE_MAX) {
            Ok(Some(frame)) if FrontendTag(frame.tag) == FrontendTag::PASSWORD => {
                let (body, taken) = (Zeroizing::new(frame.body().to_vec()), frame.bytes.len());
                greeted.buffer.iter_mut().take(taken).for_each(zeroize::Zeroize::zeroize);
                greeted.buffer.drain(..taken);
                return Ok(body);
            }
            Ok(Some(frame)) if FrontendTag(frame.tag) == FrontendTag::TERMINATE => {
                return Err(Rejection::Left);
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => return refuse_malformed(greeted, worker).await,
        }
        match greeted.stream.read_append(&mut greeted.buffer).await {
            Ok(0) | Err(_) => return Err(Rejection::Left),
            Ok(_) => {}
        }
    }
}

async fn refuse_scram<T>(
    greeted: &mut Greeted,
    worker: &Worker,
    kind: ScramErrorKind,
) -> Result<T, Rejection> {
    match kind {
        ScramErrorKind::AuthenticationFailed => refuse_password(greeted, worker).await,
        _ => refuse_malformed(greeted, worker).await,
    }
}

async fn refuse_password<T>(greeted: &mut Greeted, worker: &Worker) -> Result<T, Rejection> {
    let message = format!("The password that was provided for the role {} is wrong.", greeted.user);
    let response = ErrorResponse::fatal(SqlState::INVALID_PASSWORD, message);
    farewell(&mut greeted.stream, worker, &[], &response.to_bytes()).await;
    Err(Rejection::Password)
}

async fn refuse_malformed<T>(greeted: &mut Greeted, worker: &Worker) -> Result<T, Rejection> {
    let response =
        ErrorResponse::fatal(SqlState::PROTOCOL_VIOLATION, "malformed authentication message");
    farewell(&mut greeted.stream, worker, &[], &response.to_bytes()).await;
    Err(Rejection::Password)
}
