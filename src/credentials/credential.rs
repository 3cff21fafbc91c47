//! What one secret amounts to: everything that a login needs, computed ahead of it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::SourceError;
use crate::auth::md5::Md5Verifier;
use crate::auth::scram::{ITERATIONS_DEFAULT, SALT_LEN, ScramKeys, ScramParameters, ScramVerifier};
use crate::auth::secret::{Password, Secret};
use crate::config::{Auth, AuthScheme, ClientPasswordAuthType, IamAuth};

/// Key sets kept per secret. A target has one salt per role; others appear while a password changes.
const SERVER_KEYS_MAX: usize = 4;

/// A database user who can log in: the secret and what is derived from it.
pub struct Credential {
    /// The database user.
    pub username: String,
    /// The password, towards clients and target alike.
    pub password: Password,
    /// How clients of this user prove that they know the password.
    pub client_password_auth_type: ClientPasswordAuthType,
    /// Whether clients of this user show an IAM token instead.
    pub iam_auth: IamAuth,
    /// How servers are logged in to as this user.
    pub auth_scheme: AuthScheme,
    /// What SCRAM logins of clients are checked against.
    pub verifier: ScramVerifier,
    /// What MD5 logins of clients are checked against; also answers a target that asks for MD5.
    pub md5: Md5Verifier,
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
    /// `salt` is shown to clients. It stays that of the user when the password changes, as does that of
    /// a user who does not exist.
    ///
    /// # Errors
    /// [`SourceError::Derivation`] when the process is stopping.
    pub(super) async fn derive(
        secret: Secret,
        auth: &Auth,
        salt: [u8; SALT_LEN],
        generation: u64,
    ) -> Result<Self, SourceError> {
        let (client_password_auth_type, iam_auth, auth_scheme) =
            (auth.client_password_auth_type, auth.iam_auth, auth.auth_scheme);
        let derive = move || Self {
            verifier: ScramVerifier::derive(&secret.password, salt, ITERATIONS_DEFAULT),
            md5: Md5Verifier::derive(&secret.password, &secret.username),
            username: secret.username,
            password: secret.password,
            client_password_auth_type,
            iam_auth,
            auth_scheme,
            generation,
            server_keys: ServerKeys::default(),
        };
        tokio::task::spawn_blocking(derive).await.map_err(|_| SourceError::Derivation)
    }

    /// A credential with a password of its own for each generation.
    #[cfg(test)]
    pub(crate) async fn for_a_test(username: &str, generation: u64) -> Arc<Self> {
        use crate::config::SecretSource;
        let text = format!(r#"{{"username":"{username}","password":"p{generation}"}}"#);
        let secret = Secret::from_json(text.as_bytes()).unwrap();
        let auth = Auth {
            source: SecretSource::File("secret.json".into()),
            client_password_auth_type: ClientPasswordAuthType::ScramSha256,
            iam_auth: IamAuth::Disabled,
            auth_scheme: AuthScheme::Secrets,
        };
        Arc::new(Self::derive(secret, &auth, [0; 16], generation).await.unwrap())
    }

    /// The same secret for clients or servers that prove it in another way; nothing is derived again.
    pub(super) fn retyped(&self, auth: &Auth) -> Self {
        Self {
            username: self.username.clone(),
            password: self.password.clone(),
            client_password_auth_type: auth.client_password_auth_type,
            iam_auth: auth.iam_auth,
            auth_scheme: auth.auth_scheme,
            verifier: self.verifier.clone(),
            md5: self.md5.clone(),
            generation: self.generation,
            server_keys: ServerKeys::default(),
        }
    }

    /// Whether this is what would be derived from `secret`.
    pub(super) fn is_of(&self, secret: &Secret) -> bool {
        self.username == secret.username && self.password == secret.password
    }

    /// The keys for a SCRAM login to a target that stored this user's password with `parameters`: from
    /// the cache, or computed on tokio's blocking pool.
    ///
    /// # Errors
    /// [`SourceError::Derivation`] when the process is stopping.
    ///
    /// # Cancel safety
    /// A dropped call loses at most its own computation.
    pub async fn keys_for(
        self: &Arc<Self>,
        parameters: &ScramParameters,
    ) -> Result<Arc<ScramKeys>, SourceError> {
        if let Some(keys) = self.server_keys.find(parameters) {
            return Ok(keys);
        }
        // Servers opened together need the same keys: the first computes, the others wait for it.
        let _computing = self.server_keys.computing.lock().await;
        if let Some(keys) = self.server_keys.find(parameters) {
            return Ok(keys);
        }
        let (this, wanted) = (Arc::clone(self), parameters.clone());
        let derive = move || ScramKeys::derive(&this.password, &wanted);
        let keys = tokio::task::spawn_blocking(derive).await;
        let keys = Arc::new(keys.map_err(|_| SourceError::Derivation)?);
        self.server_keys.keep(parameters.clone(), Arc::clone(&keys));
        Ok(keys)
    }
}

/// The last few key sets towards the target, oldest first.
#[derive(Default)]
struct ServerKeys {
    kept: Mutex<VecDeque<(ScramParameters, Arc<ScramKeys>)>>,
    computing: tokio::sync::Mutex<()>,
}

impl ServerKeys {
    fn find(&self, parameters: &ScramParameters) -> Option<Arc<ScramKeys>> {
        let kept = self.kept.lock();
        kept.iter().find(|(of, _)| of == parameters).map(|(_, keys)| Arc::clone(keys))
    }

    fn keep(&self, parameters: ScramParameters, keys: Arc<ScramKeys>) {
        let mut kept = self.kept.lock();
        if kept.len() >= SERVER_KEYS_MAX {
            kept.pop_front();
        }
        kept.push_back((parameters, keys));
    }
}
