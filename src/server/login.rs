//! Opening a server for a user, with whichever of the user's passwords the target takes.
//!
//! During a rotation the database and the secret may disagree for a moment. What the target refuses
//! is looked up again at once, and the version that is coming (`AWSPENDING`) is tried too, so that
//! nobody who waits for the server notices.

use super::connect::{ConnectError, Endpoint, Proof, connect};
use super::{Reported, Server};
use crate::config::AuthScheme;
use crate::credentials::{Credential, Credentials};
use std::sync::Arc;

/// Opens a connection and logs in as `user`.
///
/// A refused password costs one read of its secret, for all logins of the user that are refused at
/// that time, and one more login for each other password that is known.
///
/// # Errors
/// [`ConnectError`]; the first refusal, if the target takes none.
///
/// # Cancel safety
/// A dropped call closes the connection.
pub async fn log_in(
    endpoint: &Endpoint,
    database: &str,
    credentials: &Arc<Credentials>,
    user: &str,
) -> Result<(Server, Reported), ConnectError> {
    let credential = credentials.lookup(user).ok_or(ConnectError::NoCredential)?;
    if credential.auth_scheme == AuthScheme::IamAuth {
        return log_in_with_token(endpoint, database, credentials, &credential).await;
    }
    let proof = Proof::Secret(Arc::clone(&credential));
    let refusal = match connect(endpoint, database, proof).await {
        Err(error) if error.is_wrong_password() => error,
        outcome => return outcome,
    };
    for other in credentials.alternatives(&credential).await {
        match connect(endpoint, database, Proof::Secret(Arc::clone(&other))).await {
            Err(error) if error.is_wrong_password() => {}
            Ok(opened) => {
                credentials.note_proven(&other);
                return Ok(opened);
            }
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

async fn log_in_with_token(
    endpoint: &Endpoint,
    database: &str,
    credentials: &Credentials,
    credential: &Credential,
) -> Result<(Server, Reported), ConnectError> {
    let user = &credential.username;
    let token = credentials.tokens.token(&endpoint.host, endpoint.port, user).await;
    let proof = Proof::Token {
        user: user.clone(),
        token: token.map_err(ConnectError::Token)?,
        generation: credential.generation,
    };
    let outcome = connect(endpoint, database, proof).await;
    if outcome.as_ref().is_err_and(ConnectError::is_refused_login) {
        credentials.tokens.forget(user);
    }
    outcome
}
