//! Layer 3. Where secrets come from, and when they are read again.
//!
//! Each `[[proxy.auth]]` entry is a *source*: a file or a secret in AWS Secrets Manager, with the name
//! and password of one database user. [`Credentials`] reads them all at the start, derives what logins
//! need, and keeps them fresh ([`Credentials::run`]). A login is one look into a table.
//!
//! - A source that cannot be read disables its own user and heals by itself.
//! - A value once read stays in use for as long as its source cannot be read, for whatever reason.
//! - A secret that did not change keeps its [`Credential`], and with it all derived keys.
//! - While a secret is rotated, clients may come with the old password or the new one, and servers are
//!   opened with the one that the target takes (`candidates`).
//!
//! How a login is done is left to `auth` and its callers; what a changed secret means for open servers,
//! to the pool.

mod candidates;
mod credential;
mod error;
mod file;
mod iam_token;
mod reader;
mod refresh;
mod rotation;
mod schedule;
mod secrets_manager;
mod source;
mod status;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::SdkConfig;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

pub use credential::Credential;
pub use error::{CredentialProblem, LoadError, SourceError};
pub use status::SourceStatus;

use crate::auth::md5::Md5Verifier;
use crate::auth::scram::{ITERATIONS_DEFAULT, ScramVerifier};
use crate::auth::secret::{Password, Secret};
use crate::config::{Auth, ClientPasswordAuthType, IamAuth, SecretSource};
use candidates::{Candidate, Candidates};
pub use iam_token::{Token, Tokens};
use reader::{ReadSecret, Reader, SecretValue, Stage};
use schedule::Schedule;
use secrets_manager::Chain;
use source::{Change, Outcome, Previous, Source};

/// Sources read at the same time.
const READS_AT_ONCE: usize = 8;
/// For one read, whatever the source: above the limit of an AWS operation, and of a lookup of the region.
const READ_TIMEOUT: Duration = Duration::from_secs(15);
/// For the first read of all sources. Those not read by then count as not readable, and heal later.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How credentials are kept.
pub struct Settings {
    /// A value older than this, 10 % more or less, is read again. Within 1 second and 30 days.
    pub time_to_live: Duration,
    /// How long the password before the current one is accepted from clients. Zero: not at all.
    pub overlap: Duration,
    /// Replaces the standard chain of the AWS SDK: region, endpoint and credentials.
    pub aws: Option<SdkConfig>,
}

/// Passwords of one user that are accepted from clients at the same time. Each login is checked against
/// as many, so that its time does not tell how many there are.
pub const PASSWORDS_MAX: usize = 3;

/// What can change while clients are served.
#[derive(Clone, Copy)]
struct Timing {
    schedule: Schedule,
    overlap: Duration,
}

/// All database users who can log in, and the sources of their secrets. Shared by `Arc`.
pub struct Credentials {
    reader: Arc<dyn ReadSecret>,
    /// IAM tokens for the target.
    pub tokens: Tokens,
    timing: RwLock<Timing>,
    /// In the order of the configuration: of two sources for a user the first is used.
    roster: watch::Sender<Arc<[Arc<Source>]>>,
    table: RwLock<HashMap<String, Known>>,
    /// Held while the table is made anew, so that an older one never replaces a newer.
    publishing: Mutex<()>,
    reloading: tokio::sync::Mutex<()>,
    reads: Semaphore,
    last_generation: AtomicU64,
    revision: watch::Sender<u64>,
    mock_key: [u8; 32],
}

struct Known {
    /// In the order in which servers should be opened with them.
    candidates: Vec<Candidate>,
    source: Arc<Source>,
    /// That of its source in the configuration.
    position: usize,
}

impl Credentials {
    /// Reads all sources, several at a time.
    ///
    /// Besides the credentials it yields what is wrong with sources that cannot be used; that has been
    /// logged.
    ///
    /// # Errors
    /// [`LoadError::NoneUsable`] if no user at all could log in.
    pub async fn load(
        auth: &[Auth],
        settings: Settings,
    ) -> Result<(Arc<Self>, Vec<CredentialProblem>), LoadError> {
        let timing =
            Timing { schedule: Schedule::new(settings.time_to_live), overlap: settings.overlap };
        let chain = Chain::new(settings.aws);
        let reader = Arc::new(Reader::new(Arc::clone(&chain)));
        Self::load_from(reader, Tokens::new(chain), auth, timing).await
    }

    async fn load_from(
        reader: Arc<dyn ReadSecret>,
        tokens: Tokens,
        auth: &[Auth],
        timing: Timing,
    ) -> Result<(Arc<Self>, Vec<CredentialProblem>), LoadError> {
        let mut mock_key = [0; 32];
        aws_lc_rs::rand::fill(&mut mock_key).map_err(|_| LoadError::NoRandomness)?;
        let sources: Arc<[_]> =
            auth.iter().map(|auth| Arc::new(Source::new(auth.clone(), None))).collect();
        let this = Arc::new(Self {
            reader,
            tokens,
            timing: RwLock::new(timing),
            roster: watch::Sender::new(Arc::clone(&sources)),
            table: RwLock::default(),
            publishing: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
            reads: Semaphore::new(READS_AT_ONCE),
            last_generation: AtomicU64::new(0),
            revision: watch::Sender::new(0),
            mock_key,
        });
        this.read_all(&sources).await;
        this.publish();
        let problems = problems(&sources);
        if sources.iter().all(|source| source.credential().is_none()) {
            return Err(LoadError::NoneUsable { problems });
        }
        Ok((this, problems))
    }

    /// What servers of this user are to be opened with. Takes a read lock for the time of one look
    /// into a table.
    #[must_use]
    pub fn lookup(&self, username: &str) -> Option<Arc<Credential>> {
        let (table, now) = (self.table.read(), Instant::now());
        let mut candidates = table.get(username)?.candidates.iter();
        let usable = candidates.find(|candidate| candidate.is_usable(now))?;
        Some(Arc::clone(&usable.credential))
    }

    /// What clients of this user may present: none, if there is no such user, and at most
    /// [`PASSWORDS_MAX`].
    #[must_use]
    pub fn accepted(&self, username: &str) -> Vec<Arc<Credential>> {
        let (table, now) = (self.table.read(), Instant::now());
        let Some(known) = table.get(username) else { return Vec::new() };
        let accepted = known.candidates.iter().filter(|candidate| candidate.is_accepted(now));
        accepted.take(PASSWORDS_MAX).map(|candidate| Arc::clone(&candidate.credential)).collect()
    }

    /// Puts other times in force, for what is read from now on.
    pub fn set_timing(&self, time_to_live: Duration, overlap: Duration) {
        *self.timing.write() = Timing { schedule: Schedule::new(time_to_live), overlap };
    }

    /// The users who can log in, in the order of the configuration: the first one stays the first when others are added.
    #[must_use]
    pub fn usernames(&self) -> Vec<String> {
        let (table, now) = (self.table.read(), Instant::now());
        // A user that a secret had before another one stays in the table.
        let can_log_in = |known: &Known| known.candidates.iter().any(|one| one.is_usable(now));
        let users = table.iter().filter(|(_, known)| can_log_in(known));
        let mut users: Vec<_> = users.map(|(name, known)| (known.position, name)).collect();
        users.sort_unstable();
        users.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// Whether a secret is of this user, or was before its latest change.
    #[must_use]
    pub fn knows(&self, username: &str) -> bool {
        self.table.read().contains_key(username)
    }

    /// What a user who does not exist is checked against: the same for the same name as long as the
    /// process lives, as costly to check as a real one, and matched by no password.
    #[must_use]
    pub fn mock_verifier(&self, username: &str) -> ScramVerifier {
        ScramVerifier::mock(&self.mock_key, username, ITERATIONS_DEFAULT)
    }

    /// The same for clients that are asked for an MD5 password.
    #[must_use]
    pub fn mock_md5_verifier(&self, username: &str) -> Md5Verifier {
        Md5Verifier::mock(&self.mock_key, username)
    }

    /// How a user who does not exist is asked for a password: as the first one of the configuration.
    #[must_use]
    pub fn mock_auth_type(&self) -> ClientPasswordAuthType {
        let roster = self.roster.borrow();
        roster.first().map_or(ClientPasswordAuthType::ScramSha256, |source| {
            source.config.client_password_auth_type
        })
    }

    /// Whether a user who does not exist is asked for an IAM token: as the first one of the configuration.
    #[must_use]
    pub fn mock_iam_auth(&self) -> IamAuth {
        self.roster.borrow().first().map_or(IamAuth::Disabled, |source| source.config.iam_auth)
    }

    /// Sees a new value whenever a user has another credential, has gone or has come. Which one, a
    /// look at [`Credential::generation`] tells.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// How each source is doing, in the order of the configuration.
    #[must_use]
    pub fn status(&self) -> Vec<SourceStatus> {
        self.sources().iter().map(|source| source.status()).collect()
    }

    fn sources(&self) -> Arc<[Arc<Source>]> {
        Arc::clone(&self.roster.borrow())
    }

    /// Reads `sources`, as many as are read until [`LOAD_TIMEOUT`].
    async fn read_all(self: &Arc<Self>, sources: &[Arc<Source>]) {
        let mut reads = JoinSet::new();
        for source in sources {
            let (this, source) = (Arc::clone(self), Arc::clone(source));
            reads.spawn(async move {
                let _flight = source.flight.lock().await;
                this.read(&source).await
            });
        }
        // Dropping the set ends the reads that are still under way.
        let all = async { while reads.join_next().await.is_some() {} };
        let _in_time = timeout(LOAD_TIMEOUT, all).await;
    }

    /// Reads one source, whose flight the caller holds; `true` if the secret changed.
    async fn read(&self, source: &Source) -> bool {
        let _permit = self.reads.acquire().await;
        // Before the read: what is written during it must look different afterwards.
        let fingerprint = self.reader.fingerprint(&source.config.source).await;
        source.begin(READ_TIMEOUT * 2);
        let outcome = self.fetch(source).await;
        let schedule = self.timing.read().schedule;
        source.end(outcome, fingerprint, schedule)
    }

    async fn fetch(&self, source: &Source) -> Result<Outcome, SourceError> {
        if let SecretSource::Nowhere { username } = &source.config.source {
            return self.without_secret(source, username).await;
        }
        let SecretValue { bytes, created } = self.read_stage(source, Stage::Current).await?;
        let secret = Secret::from_json(&bytes)?;
        let overlap = self.timing.read().overlap;
        if source.holds(&secret) {
            let previous = if source.owes_previous() {
                self.previous(source, &secret.username, created, overlap).await
            } else {
                Previous::Read(None)
            };
            return Ok(Outcome::Unchanged(previous));
        }
        let current = self.credential_of(source, secret).await?;
        let previous = self.previous(source, &current.username, created, overlap).await;
        Ok(Outcome::Changed(Change { current, previous, overlap }))
    }

    /// A user whom IAM proves. The password is one that nobody knows.
    async fn without_secret(
        &self,
        source: &Source,
        username: &str,
    ) -> Result<Outcome, SourceError> {
        if source.credential().is_some() {
            return Ok(Outcome::Unchanged(Previous::Read(None)));
        }
        let mut random = [0; 32];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| SourceError::Derivation)?;
        let password = Password::new(STANDARD.encode(random));
        let secret = Secret { username: username.to_owned(), password };
        let current = self.credential_of(source, secret).await?;
        let previous = Previous::Read(None);
        Ok(Outcome::Changed(Change { current, previous, overlap: Duration::ZERO }))
    }

    async fn read_stage(&self, source: &Source, stage: Stage) -> Result<SecretValue, SourceError> {
        let read = self.reader.read(&source.config.source, stage);
        timeout(READ_TIMEOUT, read).await.map_err(|_| SourceError::TimedOut)?
    }

    /// What is known of this secret, or derived from it.
    async fn credential_of(
        &self,
        source: &Source,
        secret: Secret,
    ) -> Result<Arc<Credential>, SourceError> {
        if let Some(known) = source.candidates(|candidates| candidates.find(&secret)) {
            return Ok(known);
        }
        let generation = self.last_generation.fetch_add(1, Ordering::Relaxed) + 1;
        // One salt for all passwords of a user: a client is shown it before it says which one it has.
        let salt = ScramVerifier::salt_for(&self.mock_key, &secret.username);
        Credential::derive(secret, &source.config, salt, generation).await.map(Arc::new)
    }

    /// Makes the table anew from what the sources hold, and tells who watches.
    fn publish(&self) {
        let _publishing = self.publishing.lock();
        let mut table: HashMap<String, Known> = HashMap::new();
        let sources = self.sources();
        for (position, source) in sources.iter().enumerate() {
            let Some(current) = source.credential() else {
                continue;
            };
            match table.entry(current.username.clone()) {
                Entry::Vacant(free) => {
                    source.set_duplicate(None);
                    free.insert(Known::of(source, position, &current.username));
                }
                Entry::Occupied(taken) => source.set_duplicate(Some(&taken.get().source)),
            }
        }
        // The other one of two alternating users, unless it has a secret of its own.
        for (position, source) in sources.iter().enumerate() {
            let users = |candidates: &mut Candidates| -> Vec<String> {
                candidates.other_users().into_iter().map(str::to_owned).collect()
            };
            for user in source.candidates(users) {
                let known = || Known::of(source, position, &user);
                table.entry(user.clone()).or_insert_with(known);
            }
        }
        let replaced = std::mem::replace(&mut *self.table.write(), table);
        drop(replaced);
        self.revision.send_modify(|revision| *revision += 1);
    }
}

impl Known {
    fn of(source: &Arc<Source>, position: usize, username: &str) -> Self {
        let candidates = source.candidates(|candidates| candidates.of_user(username));
        Self { candidates, source: Arc::clone(source), position }
    }
}

fn problems(sources: &[Arc<Source>]) -> Vec<CredentialProblem> {
    sources.iter().filter_map(|source| source.problem()).collect()
}
