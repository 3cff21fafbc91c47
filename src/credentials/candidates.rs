//! The passwords that one source knows: the current one, those before it, and one that is coming.
//!
//! A rotation moves the label `AWSCURRENT` from one version of a secret to the next, and `AWSPREVIOUS`
//! to the one before. Of two kinds there are: the *single user* rotation gives one user another
//! password, and for a moment the database and the secret disagree; the *alternating users* rotation
//! changes the user too, between two that are both valid in the database until the next rotation.
//! Clients read their secret when they like, so each may come with the old one or the new one.
//!
//! Pure but for the clock values that it is given.
//!
//! Source: <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotation-strategy.html>

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::credential::Credential;
use crate::auth::secret::Secret;
use crate::config::Auth;

/// Passwords kept beside the current one: two before it, one that is coming, and one to spare.
const OTHERS_MAX: usize = 4;

/// A password and how it stands.
#[derive(Clone)]
pub struct Candidate {
    /// The user and the password.
    pub credential: Arc<Credential>,
    /// Until when clients may present it; `None`: until another change of the secret.
    pub until: Option<Instant>,
    /// The target took it when it refused the current one.
    pub ahead: bool,
}

impl Candidate {
    /// Whether a client may present it.
    pub fn is_accepted(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Whether servers may be opened with it. What alone the target takes is used for as long as that.
    pub fn is_usable(&self, now: Instant) -> bool {
        self.ahead || self.is_accepted(now)
    }
}

/// All passwords of a source.
#[derive(Default)]
pub struct Candidates {
    current: Option<Arc<Credential>>,
    /// Newest first, none of them the current one.
    others: Vec<Candidate>,
    /// Read when the target refused the others, and not proven yet.
    pending: Option<Arc<Credential>>,
}

impl Candidates {
    /// The same for clients or servers that prove it in another way.
    pub fn retyped(&self, auth: &Auth) -> Self {
        let retyped = |credential: &Arc<Credential>| Arc::new(credential.retyped(auth));
        let others = self
            .others
            .iter()
            .map(|other| Candidate { credential: retyped(&other.credential), ..other.clone() });
        Self {
            current: self.current.as_ref().map(retyped),
            others: others.collect(),
            pending: self.pending.as_ref().map(retyped),
        }
    }

    /// What the source says.
    pub fn current(&self) -> Option<&Arc<Credential>> {
        self.current.as_ref()
    }

    /// What was derived from this secret, if it is known.
    pub fn find(&self, secret: &Secret) -> Option<Arc<Credential>> {
        let others = self.others.iter().map(|other| &other.credential);
        let mut known = self.current.iter().chain(others).chain(&self.pending);
        known.find(|credential| credential.is_of(secret)).map(Arc::clone)
    }

    /// The source has another secret now. The one before it stays for `overlap`, or longer if the source
    /// keeps it: see [`Candidates::add_previous`].
    pub fn replace(&mut self, new: Arc<Credential>, overlap: Duration, now: Instant) {
        let end = now.checked_add(overlap);
        let (generation, before) = (new.generation, self.current.replace(new));
        self.others.retain(|other| other.credential.generation != generation);
        for other in &mut self.others {
            other.until = other.until.or(end);
            other.ahead = false;
        }
        if let Some(before) = before {
            self.keep(Candidate { credential: before, until: end, ahead: false }, now);
        }
        if self.pending.as_ref().is_some_and(|pending| pending.generation == generation) {
            self.pending = None;
        }
    }

    /// The source says what came before the current one, and keeps it: without `until`, it is accepted
    /// for as long as it is the one before.
    pub fn add_previous(
        &mut self,
        previous: Arc<Credential>,
        until: Option<Instant>,
        now: Instant,
    ) {
        if self.current.as_ref().is_some_and(|current| same(current, &previous)) {
            return;
        }
        match self.others.iter_mut().find(|other| same(&other.credential, &previous)) {
            Some(known) if until.is_none() => known.until = None,
            Some(_) => {}
            None => self.keep(Candidate { credential: previous, until, ahead: false }, now),
        }
    }

    /// What the source says is coming.
    pub fn set_pending(&mut self, pending: Option<Arc<Credential>>) {
        self.pending = pending;
    }

    /// The target took `credential`; `true` if that changes the order.
    pub fn prove(&mut self, credential: &Arc<Credential>, now: Instant) -> bool {
        let is_current = self.current.as_ref().is_some_and(|current| same(current, credential));
        let known = self.others.iter().any(|other| same(&other.credential, credential));
        let mut changed = false;
        for other in &mut self.others {
            if other.credential.username == credential.username {
                let ahead = same(&other.credential, credential);
                changed |= other.ahead != ahead;
                other.ahead = ahead;
            }
        }
        if !is_current && !known {
            let coming = Candidate { credential: Arc::clone(credential), until: None, ahead: true };
            self.keep(coming, now);
            changed = true;
        }
        changed
    }

    /// What else could be tried for the user of `refused`, the likeliest first.
    pub fn alternatives(&self, refused: &Credential, now: Instant) -> Vec<Arc<Credential>> {
        let others = self.others.iter().filter(|other| other.is_usable(now));
        self.current
            .iter()
            .chain(&self.pending)
            .chain(others.map(|other| &other.credential))
            .filter(|credential| credential.username == refused.username)
            .filter(|credential| credential.generation != refused.generation)
            .map(Arc::clone)
            .collect()
    }

    /// Those of a user, in the order in which servers should be opened with them.
    pub fn of_user(&self, username: &str) -> Vec<Candidate> {
        let current = self.current.iter().map(|current| Candidate {
            credential: Arc::clone(current),
            until: None,
            ahead: false,
        });
        let (ahead, rest): (Vec<_>, Vec<_>) =
            self.others.iter().cloned().partition(|other| other.ahead);
        let all = ahead.into_iter().chain(current).chain(rest);
        all.filter(|candidate| candidate.credential.username == username).collect()
    }

    /// Users beside the current one.
    pub fn other_users(&self) -> Vec<&str> {
        let current = self.current.as_ref().map(|current| current.username.as_str());
        let others = self.others.iter().map(|other| other.credential.username.as_str());
        let mut users: Vec<&str> = others.filter(|user| Some(*user) != current).collect();
        users.dedup();
        users
    }

    fn keep(&mut self, candidate: Candidate, now: Instant) {
        self.others.retain(|other| other.is_usable(now));
        if candidate.is_usable(now) {
            self.others.insert(0, candidate);
            self.others.truncate(OTHERS_MAX);
        }
    }
}

fn same(a: &Credential, b: &Credential) -> bool {
    a.generation == b.generation
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAP: Duration = Duration::from_secs(60);

    async fn credential(username: &str, generation: u64) -> Arc<Credential> {
        Credential::for_a_test(username, generation).await
    }

    fn holding(current: Arc<Credential>) -> Candidates {
        Candidates { current: Some(current), ..Candidates::default() }
    }

    fn accepted(candidates: &Candidates, username: &str, now: Instant) -> Vec<u64> {
        let all = candidates.of_user(username);
        let accepted = all.iter().filter(|candidate| candidate.is_accepted(now));
        accepted.map(|candidate| candidate.credential.generation).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_password_before_is_accepted_for_the_overlap() {
        let now = Instant::now();
        let mut candidates = holding(credential("app", 1).await);
        candidates.replace(credential("app", 2).await, OVERLAP, now);
        assert_eq!(accepted(&candidates, "app", now), [2, 1]);
        assert_eq!(accepted(&candidates, "app", now + OVERLAP), [2]);
        candidates.replace(credential("app", 3).await, Duration::ZERO, now);
        assert_eq!(accepted(&candidates, "app", now), [3, 1], "the older overlap still runs");
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_overlap_the_password_before_is_forgotten_at_once() {
        let now = Instant::now();
        let mut candidates = holding(credential("app", 1).await);
        candidates.replace(credential("app", 2).await, Duration::ZERO, now);
        assert_eq!(accepted(&candidates, "app", now), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_alternating_users_the_other_one_stays_until_the_next_rotation() {
        let now = Instant::now();
        let much_later = now + OVERLAP * 1000;
        let mut candidates = holding(credential("app", 1).await);
        let first = Arc::clone(candidates.current().unwrap());
        candidates.replace(credential("app_clone", 2).await, OVERLAP, now);
        candidates.add_previous(first, None, now);
        assert_eq!(accepted(&candidates, "app", much_later), [1]);
        assert_eq!(candidates.other_users(), ["app"]);
        let second = Arc::clone(candidates.current().unwrap());
        candidates.replace(credential("app", 3).await, OVERLAP, much_later);
        candidates.add_previous(second, None, much_later);
        assert_eq!(accepted(&candidates, "app", much_later), [3, 1]);
        assert_eq!(accepted(&candidates, "app", much_later + OVERLAP), [3]);
        assert_eq!(accepted(&candidates, "app_clone", much_later + OVERLAP * 9), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_that_the_source_does_not_keep_goes_with_the_overlap() {
        let now = Instant::now();
        for overlap in [OVERLAP, Duration::ZERO] {
            let mut candidates = holding(credential("app", 1).await);
            candidates.replace(credential("other", 2).await, overlap, now);
            let expected: &[u64] = if overlap.is_zero() { &[] } else { &[1] };
            assert_eq!(accepted(&candidates, "app", now), expected);
            assert!(accepted(&candidates, "app", now + overlap).is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pending_password_that_the_target_took_goes_ahead_and_becomes_current() {
        let now = Instant::now();
        let (old, new) = (credential("app", 1).await, credential("app", 2).await);
        let mut candidates = holding(Arc::clone(&old));
        candidates.set_pending(Some(Arc::clone(&new)));
        let tried = candidates.alternatives(&old, now);
        assert_eq!(tried.len(), 1);
        assert_eq!(accepted(&candidates, "app", now), [1], "nobody has proven it");
        assert!(candidates.prove(&new, now));
        assert!(!candidates.prove(&new, now), "that was known");
        assert_eq!(accepted(&candidates, "app", now), [2, 1]);
        candidates.replace(new, OVERLAP, now);
        assert_eq!(accepted(&candidates, "app", now), [2, 1]);
        assert_eq!(accepted(&candidates, "app", now + OVERLAP), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_alone_the_target_takes_opens_servers_beyond_its_overlap() {
        let now = Instant::now();
        let (old, new) = (credential("app", 1).await, credential("app", 2).await);
        let mut candidates = holding(Arc::clone(&old));
        candidates.replace(Arc::clone(&new), OVERLAP, now);
        assert!(candidates.prove(&old, now));
        let first = candidates.of_user("app").remove(0);
        assert_eq!(first.credential.generation, 1);
        assert!(first.is_usable(now + OVERLAP) && !first.is_accepted(now + OVERLAP));
        assert!(candidates.prove(&new, now), "the target has caught up");
        assert_eq!(candidates.of_user("app").remove(0).credential.generation, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn their_number_is_bounded() {
        let now = Instant::now();
        let mut candidates = Candidates::default();
        for generation in 1..100 {
            candidates.replace(credential("app", generation).await, OVERLAP, now);
        }
        assert_eq!(accepted(&candidates, "app", now), [99, 98, 97, 96, 95]);
    }
}
