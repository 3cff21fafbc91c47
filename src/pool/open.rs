//! Opening servers, and what is done while the target refuses.

use super::account::Attempt;
use super::error::INIT_QUERY_FAILED;
use super::{BorrowError, Cause, Pool, Pools};
use crate::server::connect::{ConnectError, Outlook};
use crate::server::login::log_in;
use crate::server::{CloseReason, Reported, Server};
use crate::telemetry::clock;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// First pause after a failure to open a server; doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest pause between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Part of its lifetime by which a server's end is spread, so that they do not all end at once.
const LIFETIME_JITTER: f64 = 0.1;

/// Why no server could be opened, as long as none was.
#[derive(Debug)]
pub(super) struct Failure {
    outlook: Outlook,
    pub(super) cause: Cause,
    since: Instant,
    tries: u32,
    retry_at: Instant,
    error: BorrowError,
}

impl Failure {
    /// Since when it has failed, how often it was tried again, and when it is next: after `before`, one more failure
    /// came at `now`. Those that were tried at the same time count once.
    fn count(before: Option<&Self>, outlook: Outlook, now: Instant) -> (Instant, u32, Instant) {
        let (since, tries) = match before {
            Some(before) if before.outlook == outlook => {
                if now < before.retry_at {
                    return (before.since, before.tries, before.retry_at);
                }
                (before.since, before.tries.saturating_add(1))
            }
            _ => (now, 0),
        };
        let backoff = BACKOFF_MIN.saturating_mul(1 << tries.min(10)).min(BACKOFF_MAX);
        (since, tries, now + backoff.mul_f64(0.75 + 0.5 * chance()))
    }
}

/// What is known of the target.
#[derive(Debug, Default)]
pub struct TargetHealth {
    /// When it was last reached.
    pub last_success: Option<Instant>,
    /// Since when it cannot be reached.
    pub away_since: Option<Instant>,
    /// It is there, but does not tell its limits.
    pub silence: Option<Silence>,
}

/// Why a target that is there does not tell its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It refuses the login, or the question.
    Refusal,
    /// What each server runs first fails.
    InitQuery,
}

impl TargetHealth {
    /// A connection was opened, or an answer came.
    pub fn reached(&mut self, now: Instant) {
        self.last_success = Some(now);
        self.away_since = None;
        self.silence = None;
    }

    /// A connection could not be opened.
    pub fn missed(&mut self, now: Instant) {
        self.away_since.get_or_insert(now);
    }
}

impl Pools {
    /// What is known of the target: when it was reached last, and since when it is away.
    pub fn target_health<T>(&self, look: impl FnOnce(&mut TargetHealth) -> T) -> T {
        look(&mut self.target.lock())
    }

    /// Why there is no budget, where waiting for one is pointless: nothing is opened without, so
    /// that nothing else would say it.
    fn no_budget(&self, now: Instant) -> Option<BorrowError> {
        if self.budget() > 0 {
            return None;
        }
        let patience = self.settings().fail_fast_after;
        let cause = self.target_health(|health| match health.away_since {
            Some(since) if now.saturating_duration_since(since) >= patience => {
                Some("the server cannot be reached")
            }
            Some(_) => None,
            None => health.silence.map(|silence| match silence {
                Silence::Refusal => "the server does not let pgweir ask its limits",
                Silence::InitQuery => INIT_QUERY_FAILED,
            }),
        })?;
        Some(BorrowError::Away { cause })
    }

    /// Tells those who wait where that is pointless.
    pub fn give_up_without_budget(&self, now: Instant) {
        let Some(error) = self.no_budget(now) else { return };
        let pools: Vec<_> = self.by_name.read().values().map(|pool| pool.id).collect();
        for id in pools {
            let waiting = self.core.lock().drain_waiters(id);
            for turn in waiting {
                turn.refuse(error.clone());
            }
        }
    }
}

impl Pool {
    /// Opens a server for which a slot is reserved, on the thread `worker`.
    pub(super) fn open(self: &Arc<Self>, worker: usize) {
        let pool = Arc::clone(self);
        let Some(runtime) = self.pools.runtime(worker) else { return };
        runtime.spawn(async move {
            let opening = Opening::of(&pool);
            let result = opening.connect(worker).await;
            opening.finish(result, worker);
        });
    }

    /// Where nobody waits, nobody's waiting opens a server: this one is for those who come later.
    pub(super) fn open_for_the_next(self: &Arc<Self>, worker: usize, now: Instant) {
        {
            let mut core = self.pools.core.lock();
            let (limits, counts) = (core.limits(), core.counts(self.id));
            let due = self.failure.lock().as_ref().is_none_or(|failure| failure.retry_at <= now);
            if !due || counts.opening > 0 || core.open() >= limits.budget {
                return;
            }
            core.reserve(self.id);
        }
        self.open(worker);
    }

    /// Errors at once if the target has been refusing for so long that waiting is pointless.
    pub(super) fn must_not_fail_fast(
        self: &Arc<Self>,
        worker: usize,
        now: Instant,
    ) -> Result<(), BorrowError> {
        if let Some(error) = self.pools.no_budget(now) {
            return Err(error);
        }
        let error = match self.failure.lock().as_ref() {
            Some(failure) => match failure.outlook {
                Outlook::Full => return Ok(()),
                Outlook::Refused if now >= failure.retry_at => return Ok(()),
                Outlook::Refused => failure.error.clone(),
                Outlook::Away => {
                    let given_up = now.saturating_duration_since(failure.since)
                        >= self.pools.settings().fail_fast_after;
                    if !given_up {
                        return Ok(());
                    }
                    failure.error.clone()
                }
            },
            None => return Ok(()),
        };
        let mut core = self.pools.core.lock();
        let counts = core.counts(self.id);
        if counts.some_work() {
            // Others of this pool are at work: one of them will be given back.
            return Ok(());
        }
        let due = self.failure.lock().as_ref().is_some_and(|failure| failure.retry_at <= now);
        let limits = core.limits();
        let try_again = due && counts.opening == 0 && core.open() < limits.budget;
        if try_again {
            core.reserve(self.id);
        }
        drop(core);
        if try_again {
            self.open(worker);
        }
        Err(error)
    }

    fn opened(self: &Arc<Self>, mut server: Box<Server>, reported: Reported, worker: usize) {
        let now = clock::now();
        self.pools.target_health(|health| health.reached(now));
        *self.failure.lock() = None;
        self.note_baseline(&server, reported);
        self.note_opened_with(server.generation, now);
        server.worker = worker;
        server.expires_at = self.pools.expiry(now);
        self.pools.core.lock().opened(self.id);
        self.give_back(server, now);
        self.pools.grow(worker);
    }

    fn open_failed(self: &Arc<Self>, failed: Failed, worker: usize) {
        let Failed { mut error, left } = failed;
        let overdue = error.take_overdue();
        let now = clock::now();
        let outlook = error.outlook();
        match error.reached_target() {
            Some(true) => self.pools.target_health(|health| health.reached(now)),
            Some(false) => self.pools.target_health(|health| health.missed(now)),
            None => {}
        }
        let given_up = self.note_failure(&error, outlook, now);
        let pause = self
            .failure
            .lock()
            .as_ref()
            .map_or(BACKOFF_MIN, |failure| failure.retry_at.saturating_duration_since(now));
        tracing::warn!(
            database = %self.database,
            user = %self.user,
            error = &error as &dyn std::error::Error,
            retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "cannot open a server"
        );
        let refused = {
            let mut core = self.pools.core.lock();
            if left.is_some() || overdue.is_some() {
                core.opened_in_vain(self.id, now + pause);
            } else {
                core.open_failed(self.id, now + pause);
            }
            // While others of this pool are at work, there is still hope for those who wait.
            if given_up.is_some() && !core.counts(self.id).some_work() {
                core.drain_waiters(self.id)
            } else {
                Vec::new()
            }
        };
        let patience = overdue.is_some().then(|| self.pools.settings().fail_fast_after);
        if let Some((server, reason)) = left {
            // It never was one of the pool's.
            self.dismiss(server, reason);
        } else if let Some(overdue) = overdue {
            self.await_end(overdue, worker);
        }
        if let Some(error) = given_up {
            for turn in refused {
                turn.refuse(error.clone());
            }
        }
        // Another pool may have waited for the slot, or for its turn to open a server.
        self.pools.grow(worker);
        // The pool is held, so that it does not forget the pause if nobody else needs it.
        let pool = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            pool.pools.grow(worker);
            if let Some(patience) = patience {
                tokio::time::sleep(patience.saturating_sub(pause)).await;
                pool.give_up_if_away();
            }
        });
    }

    /// Tells those who wait, if the target has been away for long. Where logins that are overdue hold all slots, there
    /// is no other try that would.
    fn give_up_if_away(&self) {
        let now = clock::now();
        let patience = self.pools.settings().fail_fast_after;
        let error = match self.failure.lock().as_ref() {
            Some(failure)
                if failure.outlook == Outlook::Away
                    && now.saturating_duration_since(failure.since) >= patience =>
            {
                failure.error.clone()
            }
            _ => return,
        };
        let refused = {
            let mut core = self.pools.core.lock();
            if core.counts(self.id).some_work() {
                return;
            }
            core.drain_waiters(self.id)
        };
        for turn in refused {
            turn.refuse(error.clone());
        }
    }

    /// Remembers the failure. Yields the error for those who wait, if waiting is pointless.
    fn note_failure(
        &self,
        error: &ConnectError,
        outlook: Outlook,
        now: Instant,
    ) -> Option<BorrowError> {
        let mut failure = self.failure.lock();
        let (since, tries, retry_at) = Failure::count(failure.as_ref(), outlook, now);
        let told = BorrowError::of_failure(error);
        let given_up = match outlook {
            Outlook::Full => false,
            Outlook::Refused => true,
            Outlook::Away => {
                now.saturating_duration_since(since) >= self.pools.settings().fail_fast_after
            }
        };
        let cause = Cause::of_failure(error);
        *failure = Some(Failure { outlook, cause, since, tries, retry_at, error: told.clone() });
        given_up.then_some(told)
    }
}

impl Pools {
    fn expiry(&self, now: Instant) -> Option<Instant> {
        let lifetime = self.settings().connection_lifetime;
        if lifetime.is_zero() {
            return None;
        }
        let factor = 1.0 - LIFETIME_JITTER + 2.0 * LIFETIME_JITTER * chance();
        now.checked_add(lifetime.mul_f64(factor))
    }
}

/// A reserved slot on its way to becoming a server. Dropped halfway, it gives the slot back.
pub(super) struct Opening {
    pool: Option<Arc<Pool>>,
}

impl Opening {
    /// Of a slot that was reserved in this pool.
    pub(super) fn of(pool: &Arc<Pool>) -> Self {
        Self { pool: Some(Arc::clone(pool)) }
    }

    async fn connect(&self, worker: usize) -> Result<(Server, Reported), Failed> {
        let Some(pool) = &self.pool else { return Err(ConnectError::NoCredential.into()) };
        let attempt = Attempt::begin(&pool.pools, worker);
        let (endpoint, credentials) = (pool.pools.endpoint(), &pool.pools.credentials);
        let defaults = pool.defaults_changes();
        let login = log_in(&endpoint, &pool.database, credentials, &pool.user).await;
        let (mut server, reported) = login?;
        server.defaults = defaults;
        server.worker = worker;
        if let Err(reason) = pool.examine(&mut server).await {
            return Err(Failed::examination(server, reason));
        }
        attempt.succeeded(&mut server);
        Ok((server, reported))
    }

    pub(super) fn finish(mut self, result: Result<(Server, Reported), Failed>, worker: usize) {
        let Some(pool) = self.pool.take() else { return };
        match result {
            Ok((server, reported)) => pool.opened(Box::new(server), reported, worker),
            Err(failed) => pool.open_failed(failed, worker),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.pools.core.lock().open_failed(pool.id, clock::now());
            pool.pools.grow(0);
        }
    }
}

/// Why no server could be opened, and what is left of one that was.
pub(super) struct Failed {
    error: ConnectError,
    /// A server that is of no use; its slot is free when it is closed.
    left: Option<(Box<Server>, CloseReason)>,
}

impl From<ConnectError> for Failed {
    fn from(error: ConnectError) -> Self {
        Self { error, left: None }
    }
}

impl Failed {
    /// The server could not be asked what a pool must know.
    pub(super) fn examination(server: Server, reason: CloseReason) -> Self {
        Self { error: ConnectError::Protocol, left: Some((Box::new(server), reason)) }
    }
}

/// A number in `0..1`, for jitter.
pub(super) fn chance() -> f64 {
    let mut random = [0_u8; 4];
    // Without randomness there is no jitter, which is no reason to fail.
    let _ = aws_lc_rs::rand::fill(&mut random);
    f64::from(u32::from_le_bytes(random)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_same_time_count_as_one_try() {
        let mut now = Instant::now();
        let mut failure: Option<Failure> = None;
        for round in 0..4 {
            for _ in 0..4 {
                let (since, tries, retry_at) = Failure::count(failure.as_ref(), Outlook::Away, now);
                assert_eq!(tries, round);
                failure = Some(Failure {
                    outlook: Outlook::Away,
                    cause: Cause::Away,
                    since,
                    tries,
                    retry_at,
                    error: BorrowError::NoCredential,
                });
            }
            let retry_at = failure.as_ref().map_or(now, |failure| failure.retry_at);
            let pause = retry_at.saturating_duration_since(now);
            assert!(pause <= BACKOFF_MIN * (1 << round) * 5 / 4, "{pause:?} in round {round}");
            now = retry_at;
        }
        let (_, tries, _) = Failure::count(failure.as_ref(), Outlook::Refused, now);
        assert_eq!(tries, 0, "another failure");
    }
}
