//! Behaviour of the credentials as a whole: against a scripted source, with paused time, and on files.

mod files;
mod loading;
mod refreshing;
mod reloading;
mod rotating;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::file::Fingerprint;
use super::reader::{Boxed, ReadSecret, SecretValue, Stage};
use super::schedule::Schedule;
use super::secrets_manager::Chain;
use super::{CredentialProblem, Credentials, LoadError, SourceError, Timing, Tokens};
use crate::config::{Auth, AuthScheme, ClientPasswordAuthType, IamAuth, SecretSource};

const TIME_TO_LIVE: Duration = Duration::from_secs(300);
const OVERLAP: Duration = Duration::from_secs(3600);

/// A service that answers as the test says, and remembers what it was asked.
#[derive(Default)]
struct Service {
    answers: Mutex<HashMap<String, Result<String, SourceError>>>,
    latency: Mutex<Duration>,
    asked: Mutex<Vec<(String, Instant)>>,
    running: AtomicUsize,
    running_max: AtomicUsize,
    /// When each version was made.
    created: Mutex<Option<SystemTime>>,
    /// The next read panics: there is a mistake in the code.
    has_a_bug: AtomicBool,
}

impl Service {
    fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A service with the secrets `u0`, `u1`, ... of the users of the same names.
    fn with_users(count: usize) -> (Arc<Self>, Vec<Auth>) {
        let service = Self::new();
        let names: Vec<String> = (0..count).map(|number| format!("u{number}")).collect();
        for name in &names {
            service.holds(name, name, "secret");
        }
        (service, names.iter().map(|name| auth(name)).collect())
    }

    fn holds(&self, secret_id: &str, username: &str, password: &str) {
        self.answers(secret_id, Ok(json(username, password)));
    }

    fn answers(&self, secret_id: &str, answer: Result<String, SourceError>) {
        self.answers.lock().insert(secret_id.to_owned(), answer);
    }

    fn takes(&self, latency: Duration) {
        *self.latency.lock() = latency;
    }

    fn asked_for(&self, secret_id: &str) -> Vec<Instant> {
        let asked = self.asked.lock();
        asked.iter().filter(|(asked, _)| asked == secret_id).map(|(_, at)| *at).collect()
    }

    async fn answer(&self, secret_id: &str) -> Result<SecretValue, SourceError> {
        self.asked.lock().push((secret_id.to_owned(), Instant::now()));
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.running_max.fetch_max(running, Ordering::SeqCst);
        let latency = *self.latency.lock();
        if !latency.is_zero() {
            sleep(latency).await;
        }
        assert!(!self.has_a_bug.swap(false, Ordering::SeqCst), "for a test");
        self.running.fetch_sub(1, Ordering::SeqCst);
        self.known(secret_id)
    }

    /// Another version than the current one: under the secret's name and the label.
    fn known(&self, key: &str) -> Result<SecretValue, SourceError> {
        let answer = self.answers.lock().get(key).cloned();
        let text = answer.unwrap_or(Err(SourceError::NotFound))?;
        Ok(SecretValue { bytes: Zeroizing::new(text.into_bytes()), created: *self.created.lock() })
    }
}

impl ReadSecret for Service {
    fn read<'a>(
        &'a self,
        source: &'a SecretSource,
        stage: Stage,
    ) -> Boxed<'a, Result<SecretValue, SourceError>> {
        match (source, stage) {
            (SecretSource::SecretsManager { arn }, Stage::Current) => Box::pin(self.answer(arn)),
            (SecretSource::SecretsManager { arn }, stage) => {
                Box::pin(async move { self.known(&format!("{arn}/{stage:?}")) })
            }
            (SecretSource::File(_) | SecretSource::Nowhere { .. }, _) => {
                Box::pin(async { Err(SourceError::NotFound) })
            }
        }
    }

    fn fingerprint<'a>(&'a self, _source: &'a SecretSource) -> Boxed<'a, Option<Fingerprint>> {
        Box::pin(async { None })
    }
}

fn json(username: &str, password: &str) -> String {
    serde_json::json!({ "username": username, "password": password }).to_string()
}

fn auth(secret_id: &str) -> Auth {
    Auth {
        source: SecretSource::SecretsManager { arn: secret_id.to_owned() },
        client_password_auth_type: ClientPasswordAuthType::ScramSha256,
        iam_auth: IamAuth::Disabled,
        auth_scheme: AuthScheme::Secrets,
    }
}

fn away() -> SourceError {
    SourceError::Unreachable { detail: "connection refused".to_owned() }
}

async fn load(
    service: &Arc<Service>,
    auth: &[Auth],
) -> Result<(Arc<Credentials>, Vec<CredentialProblem>), LoadError> {
    let reader: Arc<dyn ReadSecret> = Arc::<Service>::clone(service);
    let timing = Timing { schedule: Schedule::new(TIME_TO_LIVE), overlap: OVERLAP };
    let tokens = Tokens::new(Chain::new(None));
    Credentials::load_from(reader, tokens, auth, timing).await
}

/// Loads, and refreshes until the test ends.
async fn load_and_run(service: &Arc<Service>, auth: &[Auth]) -> Arc<Credentials> {
    let (credentials, _) = load(service, auth).await.unwrap();
    tokio::spawn(Arc::clone(&credentials).run(std::future::pending()));
    credentials
}

fn generation(credentials: &Credentials, username: &str) -> u64 {
    credentials.lookup(username).unwrap().generation
}

fn password(credentials: &Credentials, username: &str) -> String {
    credentials.lookup(username).unwrap().password.expose().to_owned()
}
