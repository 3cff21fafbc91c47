//! What one secret amounts to: everything that a login needs, computed ahead of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::SourceError;
use super::stand_in::auth::{Password, ScramKeys, ScramVerifier, Secret};
use super::stand_in::config::ClientPasswordAuthType;

/// PBKDF2 rounds towards clients: PostgreSQL's default, which every driver accepts.
///
/// Source: <https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-SCRAM-ITERATIONS>
pub const SCRAM_ITERATIONS: u32 = 4096;
/// Bytes of salt, as in PostgreSQL.
const SALT_LEN: usize = 16;
/// Key sets kept per secret. A target has one salt per role; others appear while a password changes.
const SERVER_KEYS_MAX: usize = 4;

/// A database user who can log in: the secret and what is derived from it.
pub struct Credential {
    /// The database user.
    pub username: String,
    /// Also the password towards the target.
    pub password: Password,
    /// How clients of this user prove that they know the password.
    pub client_password_auth_type: ClientPasswordAuthType,
    /// What SCRAM logins of clients are checked against.
    pub verifier: ScramVerifier,
    /// Grows process-wide with every secret that is new or changed.
    pub generation: u64,
    server_keys: ServerKeys,
}

/// Prints the user and the generation; the rest is secret.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Credential {
    /// Derives all keys, on tokio's blocking pool: it takes milliseconds of CPU.
    ///
    /// # Errors
    /// [`SourceError::Derivation`] without randomness, or when the process is stopping.
    pub(super) async fn derive(
        secret: Secret,
        client_password_auth_type: ClientPasswordAuthType,
        generation: u64,
    ) -> Result<Self, SourceError> {
        let mut salt = [0; SALT_LEN];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| SourceError::Derivation)?;
        let derive = move || Self {
            verifier: ScramVerifier::derive(&secret.password, &salt, SCRAM_ITERATIONS),
            username: secret.username,
            password: secret.password,
            client_password_auth_type,
            generation,
            server_keys: ServerKeys::default(),
        };
        tokio::task::spawn_blocking(derive)
            .await
            .map_err(|_| SourceError::Derivation)
    }

    /// The same secret for clients that prove it in another way; nothing is derived again.
    pub(super) fn retyped(&self, client_password_auth_type: ClientPasswordAuthType) -> Self {
        Self {
            username: self.username.clone(),
            password: self.password.clone(),
            client_password_auth_type,
            verifier: self.verifier.clone(),
            generation: self.generation,
            server_keys: ServerKeys::default(),
        }
    }

    /// Whether this is what would be derived from `secret`.
    pub(super) fn is_of(&self, secret: &Secret) -> bool {
        self.username == secret.username && self.password == secret.password
    }

    /// The keys for a SCRAM login to a target that stored this user's password with `salt` and
    /// `iterations`: from the cache, or computed on tokio's blocking pool.
    ///
    /// `iterations` is what the target demands; the caller has bounded it.
    ///
    /// # Errors
    /// [`SourceError::Derivation`] when the process is stopping.
    ///
    /// # Cancel safety
    /// A dropped call loses at most its own computation.
    pub async fn keys_for(
        self: &Arc<Self>,
        salt: &[u8],
        iterations: u32,
    ) -> Result<Arc<ScramKeys>, SourceError> {
        if let Some(keys) = self.server_keys.find(salt, iterations) {
            return Ok(keys);
        }
        // Servers opened together need the same keys: the first computes, the others wait for it.
        let _computing = self.server_keys.computing.lock().await;
        if let Some(keys) = self.server_keys.find(salt, iterations) {
            return Ok(keys);
        }
        let (this, owned) = (Arc::clone(self), salt.to_vec());
        let derive = move || ScramKeys::derive(&this.password, &owned, iterations);
        let keys = tokio::task::spawn_blocking(derive).await;
        let keys = Arc::new(keys.map_err(|_| SourceError::Derivation)?);
        self.server_keys.keep(salt, iterations, &keys);
        Ok(keys)
    }
}

/// The last few key sets towards the target, oldest first.
#[derive(Default)]
struct ServerKeys {
    kept: Mutex<VecDeque<KeySet>>,
    computing: tokio::sync::Mutex<()>,
}

struct KeySet {
    salt: Vec<u8>,
    iterations: u32,
    keys: Arc<ScramKeys>,
}

impl ServerKeys {
    fn find(&self, salt: &[u8], iterations: u32) -> Option<Arc<ScramKeys>> {
        let kept = self.kept.lock();
        let set = kept
            .iter()
            .find(|set| set.iterations == iterations && set.salt == salt)?;
        Some(Arc::clone(&set.keys))
    }

    fn keep(&self, salt: &[u8], iterations: u32, keys: &Arc<ScramKeys>) {
        let mut kept = self.kept.lock();
        if kept.len() >= SERVER_KEYS_MAX {
            kept.pop_front();
        }
        kept.push_back(KeySet {
            salt: salt.to_vec(),
            iterations,
            keys: Arc::clone(keys),
        });
    }
}
