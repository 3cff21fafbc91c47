//! One source of the configuration: what was last read from it, and when it is read again.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::candidates::Candidates;
use super::credential::Credential;
use super::error::{CredentialProblem, SourceError};
use super::file::Fingerprint;
use super::schedule::{Schedule, chance};
use super::status::SourceStatus;
use crate::auth::secret::Secret;
use crate::config::{Auth, SecretSource};

/// At most one read out of turn per source in this time, however many logins fail. A login that is
/// refused for a password just rotated waits no longer than that.
const FORCED_READ_INTERVAL: Duration = Duration::from_secs(1);
/// The same while the source cannot be read.
const FORCED_READ_INTERVAL_AWAY: Duration = Duration::from_secs(5);

/// Reads for clients' passwords that may find nothing before they get rarer: with wrong passwords anybody
/// can cause them.
const FRUITLESS_FREE: u32 = 5;
/// Longest pause between such reads then, and so the longest until a password that was rotated meanwhile is
/// accepted, unless the target refuses the old one before.
const CLIENT_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long a client may wait for a read to begin. A wrong password is answered soon after.
const CLIENT_PATIENCE: Duration = Duration::from_secs(2);

/// Who refused a password, so that the secret is read out of turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RefusedBy {
    /// pgweir, a client's.
    Pgweir,
    /// The target, pgweir's.
    Target,
}

/// A source, and the secret that came from it.
pub struct Source {
    /// What the configuration says of it.
    pub config: Auth,
    /// Held while the source is read: one read at a time.
    pub flight: Arc<tokio::sync::Mutex<()>>,
    /// Told when a read moved the next one.
    pub rescheduled: Notify,
    state: Mutex<State>,
}

/// What a read came to.
pub enum Outcome {
    /// The secret that is in use already.
    Unchanged(Previous),
    /// Another secret, or the first one.
    Changed(Change),
}

/// Another secret, and what the source says was before it.
pub struct Change {
    /// The secret.
    pub current: Arc<Credential>,
    /// What was before it.
    pub previous: Previous,
    /// How long the one that was in use until now is accepted.
    pub overlap: Duration,
}

/// The version before the current one.
pub enum Previous {
    /// Where the source keeps one, and until when clients may present it; `None` also where it is known.
    Read(Option<(Arc<Credential>, Option<Instant>)>),
    /// It could not be read: the next read of the source makes up for it.
    Owed,
}

struct State {
    candidates: Candidates,
    fingerprint: Option<Fingerprint>,
    due: Instant,
    last_success: Option<Instant>,
    last_forced: Option<Instant>,
    /// Reads for clients' passwords, one after the other, that found nothing new.
    fruitless: u32,
    /// [`Previous::Owed`].
    owes_previous: bool,
    failures: u32,
    last_error: Option<SourceError>,
    /// An earlier source has the same user.
    duplicate: Option<SourceError>,
}

impl Source {
    /// A source that is due at once. `before` is the same one, with another way to log in.
    pub fn new(config: Auth, before: Option<&Self>) -> Self {
        let before = before.map(|before| before.state.lock());
        let candidates = before.as_ref().map(|before| before.candidates.retyped(&config));
        let state = State {
            candidates: candidates.unwrap_or_default(),
            fingerprint: None,
            due: Instant::now(),
            last_success: None,
            last_forced: None,
            fruitless: 0,
            owes_previous: before.is_some_and(|before| before.owes_previous),
            failures: 0,
            last_error: None,
            duplicate: None,
        };
        Self {
            config,
            flight: Arc::default(),
            rescheduled: Notify::new(),
            state: Mutex::new(state),
        }
    }

    /// The path or the ARN.
    pub fn origin(&self) -> String {
        match &self.config.source {
            SecretSource::File(path) => path.display().to_string(),
            SecretSource::SecretsManager { arn } => arn.clone(),
            SecretSource::Nowhere { username } => format!("user \"{username}\""),
        }
    }

    /// The last secret that could be used.
    pub fn credential(&self) -> Option<Arc<Credential>> {
        self.state.lock().candidates.current().map(Arc::clone)
    }

    /// Whether `secret` is the one in use.
    pub fn holds(&self, secret: &Secret) -> bool {
        self.credential().is_some_and(|credential| credential.is_of(secret))
    }

    /// Reads, and changes, what passwords are known.
    pub fn candidates<T>(&self, look: impl FnOnce(&mut Candidates) -> T) -> T {
        look(&mut self.state.lock().candidates)
    }

    /// When it is to be read next.
    pub fn due(&self) -> Instant {
        self.state.lock().due
    }

    /// Has it read within `wait`, unless the service asked for a longer pause. Its task must look again.
    pub fn hasten(&self, wait: Duration) {
        let mut state = self.state.lock();
        if !state.throttled() {
            state.due = state.due.min(Instant::now() + wait.mul_f64(chance()));
        }
    }

    /// Whether `seen` is not what the last read saw.
    pub fn looks_different(&self, seen: Option<Fingerprint>) -> bool {
        self.state.lock().fingerprint != seen
    }

    /// From when on a read out of turn is allowed; `None` while the service asks for a pause, and where
    /// a client would wait in vain.
    pub fn forced_from(&self, refused_by: RefusedBy) -> Option<Instant> {
        let (state, now) = (self.state.lock(), Instant::now());
        if state.throttled() && now < state.due {
            return None;
        }
        let interval = match state.failures {
            0 => FORCED_READ_INTERVAL,
            _ => FORCED_READ_INTERVAL_AWAY,
        };
        let after = |interval| state.last_forced.map_or(now, |forced| now.max(forced + interval));
        match refused_by {
            RefusedBy::Target => Some(after(interval)),
            RefusedBy::Pgweir => {
                let from = after(interval.max(state.pause_for_clients()));
                (from.saturating_duration_since(now) <= CLIENT_PATIENCE).then_some(from)
            }
        }
    }

    /// Notes that a read out of turn begins.
    pub fn note_forced(&self, refused_by: RefusedBy) {
        let (mut state, now) = (self.state.lock(), Instant::now());
        let calm = |forced: Instant| now.saturating_duration_since(forced) > CLIENT_PAUSE_MAX * 2;
        if state.last_forced.is_none_or(calm) {
            state.fruitless = 0;
        }
        // Until it has found something.
        state.fruitless =
            state.fruitless.saturating_add(u32::from(refused_by == RefusedBy::Pgweir));
        state.last_forced = Some(now);
    }

    /// Whether the version before the current one is still to be read.
    pub fn owes_previous(&self) -> bool {
        self.state.lock().owes_previous
    }

    /// Whether a read out of turn began at `time` or later.
    pub fn was_forced_since(&self, time: Instant) -> bool {
        self.state.lock().last_forced.is_some_and(|forced| forced >= time)
    }

    /// Notes that a read begins. Should it be dropped, the next one begins after `wait`.
    pub fn begin(&self, wait: Duration) {
        self.state.lock().due = Instant::now() + wait;
    }

    /// Notes how a read ended, and what the source looked like before it; `true` if the secret changed.
    /// A failed read changes nothing that is in use.
    pub fn end(
        &self,
        outcome: Result<Outcome, SourceError>,
        fingerprint: Option<Fingerprint>,
        schedule: Schedule,
    ) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.fingerprint = fingerprint;
        let changed = match outcome {
            Ok(outcome) => {
                state.due = now + schedule.after_success(chance());
                self.succeeded(&mut state, outcome, now)
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.due = now + schedule.after_failure(state.failures, &error, chance());
                self.failed(&mut state, error);
                false
            }
        };
        drop(state);
        self.rescheduled.notify_one();
        changed
    }

    fn succeeded(&self, state: &mut State, outcome: Outcome, now: Instant) -> bool {
        state.last_success = Some(now);
        state.failures = 0;
        if state.last_error.take().is_some() {
            info!(source = self.origin(), "secret can be read again");
        }
        let (previous, mut changed) = match outcome {
            Outcome::Unchanged(previous) => (previous, false),
            Outcome::Changed(Change { current, previous, overlap }) => {
                let (user, generation) = (&current.username, current.generation);
                info!(source = self.origin(), user, generation, "secret taken into use");
                state.candidates.replace(current, overlap, now);
                (previous, true)
            }
        };
        state.owes_previous = matches!(previous, Previous::Owed);
        if let Previous::Read(Some((previous, until))) = previous {
            state.candidates.add_previous(previous, until, now);
            changed = true;
        }
        if changed {
            state.fruitless = 0;
        }
        changed
    }

    /// Says it once, and again when it fails for another reason.
    fn failed(&self, state: &mut State, error: SourceError) {
        let kind = |error: &SourceError| error.as_label();
        if state.last_error.as_ref().map(kind) != Some(error.as_label()) {
            let old_value_kept = state.candidates.current().is_some();
            warn!(source = self.origin(), %error, old_value_kept, "secret cannot be read");
        }
        state.last_error = Some(error);
    }

    /// Notes whether an earlier source, `first`, has the user of this one.
    pub fn set_duplicate(&self, first: Option<&Self>) {
        let mut state = self.state.lock();
        let duplicate = first.zip(state.candidates.current()).map(|(first, credential)| {
            SourceError::DuplicateUser {
                username: credential.username.clone(),
                first: first.origin(),
            }
        });
        if let Some(error) = duplicate.as_ref().filter(|_| state.duplicate != duplicate) {
            warn!(source = self.origin(), %error, "secret not used");
        }
        state.duplicate = duplicate;
    }

    /// What is wrong with it, if anything.
    pub fn problem(&self) -> Option<CredentialProblem> {
        let state = self.state.lock();
        let unread = || state.candidates.current().is_none().then_some(SourceError::TimedOut);
        let error = state.duplicate.clone().or_else(|| state.last_error.clone()).or_else(unread)?;
        Some(CredentialProblem { origin: self.origin(), error, user_disabled: !state.usable() })
    }

    /// For `/readyz` and the metrics.
    pub fn status(&self) -> SourceStatus {
        let state = self.state.lock();
        SourceStatus {
            origin: self.origin(),
            username: state.candidates.current().map(|current| current.username.clone()),
            generation: state.candidates.current().map(|current| current.generation),
            usable: state.usable(),
            last_success: state.last_success,
            last_error: state.duplicate.clone().or_else(|| state.last_error.clone()),
            failures: state.failures,
        }
    }
}

impl State {
    /// Doubles with each read for a client's password that finds nothing, beyond the first few.
    fn pause_for_clients(&self) -> Duration {
        let doublings = self.fruitless.saturating_sub(FRUITLESS_FREE);
        let pause = FORCED_READ_INTERVAL.saturating_mul(2_u32.saturating_pow(doublings));
        pause.min(CLIENT_PAUSE_MAX)
    }

    fn throttled(&self) -> bool {
        matches!(self.last_error, Some(SourceError::Throttled { .. }))
    }

    fn usable(&self) -> bool {
        self.candidates.current().is_some() && self.duplicate.is_none()
    }
}
