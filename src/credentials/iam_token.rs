//! IAM tokens that pgweir signs itself, to log in to the target as a user who has `rds_iam`.
//!
//! Signing is a few hashes; what takes time is to get AWS credentials, so a token is used for all logins
//! of its user until two thirds of its life are over, and the next one is signed ahead of its end. While
//! no credentials are to be had, the token before is used to its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_secretsmanager::config::ProvideCredentials;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::error::{SourceError, printable};
use super::secrets_manager::Chain;
use crate::auth::rds_token::{self, LIFETIME_SECONDS, SigningKeys, TokenRequest};

/// How long a token is used before another one is signed.
const USED_FOR: Duration = Duration::from_secs(LIFETIME_SECONDS * 2 / 3);
/// How long a token is used at most. The rest of its life is for the login itself, and for the clocks.
const USED_AT_MOST: Duration = Duration::from_secs(LIFETIME_SECONDS - 60);
/// Between two tries to get AWS credentials.
const PAUSE: Duration = Duration::from_secs(1);
/// For AWS credentials to be had.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(5);
/// Tokens kept, more than there can be users.
const TOKENS_MAX: usize = 4096;

/// A token, wiped when dropped.
pub type Token = Arc<Zeroizing<String>>;

/// Signs tokens, and keeps those that may be used again.
pub struct Tokens {
    chain: Arc<Chain>,
    kept: Mutex<HashMap<String, Kept>>,
    /// Held while AWS credentials are fetched; the last failure, and when it was.
    fetching: tokio::sync::Mutex<Option<(Instant, SourceError)>>,
}

#[derive(Clone)]
struct Kept {
    token: Token,
    signed: Instant,
    /// The AWS credentials it was signed with end then.
    ends: Option<Instant>,
}

impl Kept {
    fn is_usable_for(&self, time: Duration, now: Instant) -> bool {
        now < self.signed + time && self.ends.is_none_or(|ends| now < ends)
    }
}

impl Tokens {
    /// None yet.
    pub fn new(chain: Arc<Chain>) -> Self {
        Self { chain, kept: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// A token for `user` of the database at `host`.
    ///
    /// # Errors
    /// Why no AWS credentials could be had, or the region is not known.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing.
    pub async fn token(&self, host: &str, port: u16, user: &str) -> Result<Token, SourceError> {
        if let Some(token) = self.kept(user, USED_FOR) {
            return Ok(token);
        }
        // One fetches credentials, the others wait for it.
        let mut fetching = self.fetching.lock().await;
        if let Some(token) = self.kept(user, USED_FOR) {
            return Ok(token);
        }
        let failed_lately = fetching.as_ref().filter(|(at, _)| at.elapsed() < PAUSE);
        let signed = match failed_lately {
            Some((_, error)) => Err(error.clone()),
            None => self.sign(host, port, user).await,
        };
        match signed {
            Ok(kept) => {
                *fetching = None;
                let token = Arc::clone(&kept.token);
                self.keep(user, kept);
                Ok(token)
            }
            Err(error) => {
                if fetching.is_none() {
                    tracing::warn!(user, %error, "no IAM token can be signed");
                }
                if failed_lately.is_none() {
                    *fetching = Some((Instant::now(), error.clone()));
                }
                self.kept(user, USED_AT_MOST).ok_or(error)
            }
        }
    }

    /// The target refused the user's token: the next one is signed anew, maybe with other credentials.
    pub fn forget(&self, user: &str) {
        self.kept.lock().remove(user);
    }

    fn kept(&self, user: &str, time: Duration) -> Option<Token> {
        let (kept, now) = (self.kept.lock(), Instant::now());
        kept.get(user).filter(|kept| kept.is_usable_for(time, now)).map(|k| Arc::clone(&k.token))
    }

    fn keep(&self, user: &str, token: Kept) {
        let mut kept = self.kept.lock();
        if kept.len() >= TOKENS_MAX {
            kept.clear();
        }
        kept.insert(user.to_owned(), token);
    }

    async fn sign(&self, host: &str, port: u16, user: &str) -> Result<Kept, SourceError> {
        let config = self.chain.config().await;
        let region = rds_token::region_of(host)
            .map(str::to_owned)
            .or_else(|| config.region().map(ToString::to_string))
            .ok_or(SourceError::NoRegion)?;
        let none = |detail: String| SourceError::NoAwsCredentials { detail };
        let provider = config.credentials_provider().ok_or_else(|| none(String::new()))?;
        let provided = timeout(CREDENTIALS_TIMEOUT, provider.provide_credentials()).await;
        let credentials = provided
            .map_err(|_| SourceError::TimedOut)?
            .map_err(|error| none(printable(&error.to_string())))?;
        let keys = SigningKeys {
            access_key_id: credentials.access_key_id(),
            secret_access_key: credentials.secret_access_key(),
            session_token: credentials.session_token(),
        };
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = TokenRequest { host, port, user, region: &region };
        let left = credentials.expiry().map(|end| end.duration_since(now).unwrap_or_default());
        let signed = Instant::now();
        Ok(Kept {
            token: Arc::new(rds_token::sign(&request, &keys, seconds)),
            signed,
            ends: left.and_then(|left| signed.checked_add(left)),
        })
    }
}
