//! Clients that log in with an IAM token of their own, made for the database.
//!
//! Whether a token is genuine only AWS can say, and AWS says it to the database alone. So the first
//! login with a token is a login to the database, and the server that this opens is kept for the pool;
//! further logins with the same token need none, until the token has expired. What is remembered of a
//! token is its hash.

use super::authenticate::{ANSWER_DELAY, cleartext_password};
use super::handshake::{Greeted, farewell};
use super::{Rejection, Worker};
use crate::auth::rds_token::{self, TokenClaims, TokenError};
use crate::pool::prove::ProofError;
use crate::telemetry::clock;
use crate::wire::{ErrorResponse, SqlState, encode};
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Tokens that were proven and are remembered. One more is proven each time.
const PROVEN_MAX: usize = 20_000;

/// Tokens that were refused and are remembered.
const REFUSED_MAX: usize = 1000;

/// How long a refused token is refused without asking. Short: a permission may just have been given.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// Tokens that are proven at the same time, and what the database bears: its own check is slow.
const PROOFS_AT_ONCE: usize = 8;

/// Of these, tokens of one user: whoever shows wrong ones of one leaves room for the others.
const PROOFS_AT_ONCE_OF_USER: usize = 4;

/// Longest that a client waits for the database's word.
const PROOF_TIMEOUT: Duration = Duration::from_secs(20);

type Hash = [u8; 32];

/// What is known of the tokens that clients have shown.
pub struct ClientTokens {
    proven: Mutex<HashMap<Hash, Instant>>,
    refused: Mutex<HashMap<Hash, Instant>>,
    proving: Arc<Semaphore>,
    /// Of each user who has a token proven now.
    proving_of: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Default for ClientTokens {
    fn default() -> Self {
        Self {
            proven: Mutex::default(),
            refused: Mutex::default(),
            proving: Arc::new(Semaphore::new(PROOFS_AT_ONCE)),
            proving_of: Mutex::default(),
        }
    }
}

impl ClientTokens {
    /// Whether this token of this user was proven or refused lately.
    fn known(&self, hash: &Hash, now: Instant) -> Option<bool> {
        let holds = |of: &Mutex<HashMap<Hash, Instant>>| {
            of.lock().get(hash).is_some_and(|until| now < *until)
        };
        if holds(&self.proven) {
            return Some(true);
        }
        holds(&self.refused).then_some(false)
    }

    /// Waits until one more token of this user may be proven, which holds for as long as the permits.
    async fn turn(&self, user: &str) -> Result<[OwnedSemaphorePermit; 2], AcquireError> {
        let of_user = {
            let mut all = self.proving_of.lock();
            all.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns = all.entry(user.to_owned());
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(PROOFS_AT_ONCE_OF_USER))))
        };
        Ok([of_user.acquire_owned().await?, Arc::clone(&self.proving).acquire_owned().await?])
    }

    fn remember(&self, hash: Hash, good: bool, until: Instant, now: Instant) {
        let (map, most) =
            if good { (&self.proven, PROVEN_MAX) } else { (&self.refused, REFUSED_MAX) };
        let mut map = map.lock();
        if map.len() >= most {
            map.retain(|_, until| now < *until);
        }
        if map.len() < most {
            map.insert(hash, until);
        }
    }
}

/// Why a token was not accepted.
enum Refused {
    Claims(TokenError),
    /// There is no such user; its client is told what others are at that time.
    Unknown {
        away: bool,
    },
    Target,
    Unasked(ProofError),
}

/// Asks for a token and checks it.
///
/// # Errors
/// [`Rejection`]; the client was told why.
pub(super) async fn authenticate(
    greeted: &mut Greeted,
    worker: &Worker,
) -> Result<Vec<u8>, Rejection> {
    if !greeted.stream.is_tls() {
        let text = "IAM authentication is allowed only with SSL connections.";
        let response = ErrorResponse::fatal(SqlState::INVALID_AUTHORIZATION, text)
            .with_hint("Connect with sslmode=require or stronger.");
        farewell(&mut greeted.stream, worker, &[], &response.to_bytes()).await;
        return Err(Rejection::TlsRequired);
    }
    let token = cleartext_password(greeted, worker).await?;
    let answer_at = tokio::time::Instant::now() + ANSWER_DELAY;
    match check(greeted, worker, &token).await {
        Ok(()) => Ok(encode::AUTHENTICATION_OK.to_vec()),
        Err(refused) => {
            tokio::time::sleep_until(answer_at).await;
            refuse(greeted, worker, &refused).await
        }
    }
}

/// The errors come in an order that tells nothing of who exists: what the token says of itself comes first.
async fn check(greeted: &Greeted, worker: &Worker, token: &[u8]) -> Result<(), Refused> {
    let shared = &worker.shared;
    let endpoint = shared.pools.endpoint();
    let seconds =
        clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let left = TokenClaims::read(token)
        .and_then(|claims| claims.check(&endpoint.host, endpoint.port, &greeted.user, seconds))
        .map_err(Refused::Claims)?;
    // Before what is known of the token: the user may have gone since.
    if shared.credentials.lookup(&greeted.user).is_none() {
        let away = shared.pools.target_health(|health| health.away_since.is_some());
        return Err(Refused::Unknown { away });
    }
    let now = clock::now();
    let (hash, tokens) = (rds_token::fingerprint(token), &shared.client_tokens);
    let told = |good: bool| if good { Ok(()) } else { Err(Refused::Target) };
    if let Some(good) = tokens.known(&hash, now) {
        return told(good);
    }
    let deadline = now + PROOF_TIMEOUT;
    let busy = |error| Refused::Unasked(ProofError::Busy(error));
    let permit = tokio::time::timeout_at(deadline.into(), tokens.turn(&greeted.user)).await;
    let waited = || clock::now().saturating_duration_since(now);
    let permits = permit.map_err(|_| {
        let cause = crate::pool::Cause::Proofs;
        busy(crate::pool::BorrowError::Timeout { waited: waited(), cause })
    })?;
    // Connections of one client come together, with the same token.
    if let Some(good) = tokens.known(&hash, clock::now()) {
        return told(good);
    }
    let text = std::str::from_utf8(token).map_err(|_| Refused::Claims(TokenError::NotAToken))?;
    let session = (&*greeted.database, &*greeted.user);
    let outcome = shared.pools.prove(session, text, worker.index, deadline, permits).await;
    let after = clock::now();
    match outcome {
        Ok(()) => {
            tokens.remember(hash, true, now + Duration::from_secs(left), after);
            Ok(())
        }
        Err(ProofError::Refused) => {
            tokens.remember(hash, false, after + REFUSED_FOR, after);
            Err(Refused::Target)
        }
        Err(error) => Err(Refused::Unasked(error)),
    }
}

async fn refuse<T>(
    greeted: &mut Greeted,
    worker: &Worker,
    refused: &Refused,
) -> Result<T, Rejection> {
    let user = &greeted.user;
    let denied = || {
        let text = format!(
            "IAM authentication failed for user {user}. Check the IAM token for this user and try again."
        );
        ErrorResponse::fatal(SqlState::INVALID_PASSWORD, text)
    };
    let response = match refused {
        Refused::Claims(error) => denied().with_detail(format!("{error}.")).with_hint(
            "Sign the token for the database's own endpoint and port, and for this user.",
        ),
        Refused::Target | Refused::Unknown { away: false } => denied(),
        Refused::Unasked(ProofError::Busy(_)) => ErrorResponse::fatal(
            SqlState::TOO_MANY_CONNECTIONS,
            "The IAM authentication failed because of too many competing requests.",
        ),
        Refused::Unasked(_) | Refused::Unknown { away: true } => ErrorResponse::fatal(
            SqlState::UNABLE_TO_CONNECT,
            "the database is not available, so that the IAM token cannot be checked",
        ),
    };
    match refused {
        Refused::Claims(error) => tracing::info!(user, %error, "IAM token refused"),
        Refused::Unknown { .. } => tracing::info!(user, "IAM token of nobody known refused"),
        Refused::Target => tracing::info!(user, "IAM token refused by the target"),
        Refused::Unasked(error) => tracing::warn!(
            user,
            error = error as &dyn std::error::Error,
            "IAM token could not be proven"
        ),
    }
    farewell(&mut greeted.stream, worker, &[], &response.to_bytes()).await;
    Err(match refused {
        Refused::Unasked(_) => Rejection::Database,
        Refused::Claims(_) | Refused::Unknown { .. } | Refused::Target => Rejection::Password,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proven_token_is_known_until_it_expires_and_a_refused_one_for_a_moment() {
        let (tokens, now) = (ClientTokens::default(), Instant::now());
        tokens.remember([1; 32], true, now + Duration::from_secs(900), now);
        tokens.remember([2; 32], false, now + REFUSED_FOR, now);
        assert_eq!(tokens.known(&[1; 32], now), Some(true));
        assert_eq!(tokens.known(&[2; 32], now), Some(false));
        assert_eq!(tokens.known(&[3; 32], now), None);
        assert_eq!(tokens.known(&[2; 32], now + REFUSED_FOR), None);
        assert_eq!(tokens.known(&[1; 32], now + Duration::from_secs(900)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_of_one_user_leave_room_for_those_of_others() {
        let tokens = ClientTokens::default();
        let mut held = Vec::new();
        for _ in 0..PROOFS_AT_ONCE_OF_USER {
            held.push(tokens.turn("flooded").await.unwrap());
        }
        let one_more = || tokio::time::timeout(PROOF_TIMEOUT, tokens.turn("flooded"));
        assert!(one_more().await.is_err());
        held.push(tokens.turn("other").await.unwrap());
        drop(held.swap_remove(0));
        held.push(one_more().await.unwrap().unwrap());
        drop(held);
        drop(tokens.turn("third").await.unwrap());
        assert_eq!(tokens.proving_of.lock().len(), 1, "who has left is forgotten");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_makes_room_for_what_comes_when_it_has_expired() {
        let (tokens, now) = (ClientTokens::default(), Instant::now());
        let hash = |number: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            hash
        };
        for number in 0..REFUSED_MAX + 10 {
            tokens.remember(hash(number), false, now + REFUSED_FOR, now);
        }
        assert_eq!(tokens.refused.lock().len(), REFUSED_MAX);
        let later = now + REFUSED_FOR;
        tokens.remember(hash(5000), false, later + REFUSED_FOR, later);
        assert_eq!(tokens.refused.lock().len(), 1);
    }
}
