//! Clients that are logged in, by the key they cancel with.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-CANCELING-REQUESTS>

use super::Live;
use crate::pool::seat::{CancelOutcome, Kick, Seat};
use crate::wire::startup::CancelKey;
use aws_lc_rs::constant_time;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes of a cancel key's secret with protocol 3.2; with 3.0 the first four of them count.
pub const SECRET_LEN: usize = 32;

/// How long nothing may come for a client that sends no more. One that is gone holds its server for as long.
const LEAVING_MAX: Duration = Duration::from_secs(1);

/// What a client is doing, as far as time limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// It waits for a server, or its server works.
    Busy = 0,
    /// It has no server and nothing to do.
    Idle = 1,
    /// It has a server that waits for it.
    HoldsServer = 2,
    /// It does not read what it asked for.
    DoesNotRead = 3,
    /// It has a server, and has sent the beginning of a message only.
    Unfinished = 4,
    /// It is pinned, and has nothing for its server to do.
    IdlePinned = 5,
    /// It sends no more and waits for its reply; or it is gone, which looks the same.
    Leaving = 6,
}

/// A client's entry.
pub struct Entered {
    /// Where it can be reached.
    pub seat: Arc<Seat>,
    secret: [u8; SECRET_LEN],
    secret_len: usize,
    activity: AtomicU8,
    /// The thread it lives on.
    worker: AtomicUsize,
    /// The thread it should move to.
    destination: AtomicUsize,
    /// Milliseconds since the registry was made.
    since: AtomicU64,
    login: u64,
}

impl Entered {
    /// The client does `activity` from `now` (in milliseconds of the registry) on.
    pub fn mark(&self, activity: Activity, now: u64) {
        self.since.store(now, Ordering::Relaxed);
        // Whoever sees the activity sees no older time.
        self.activity.store(activity as u8, Ordering::Release);
    }

    /// The client is busy: no limit asks since when.
    pub fn mark_busy(&self) {
        self.activity.store(Activity::Busy as u8, Ordering::Relaxed);
    }

    /// True if the client was last said to do `activity`.
    #[must_use]
    pub fn does(&self, activity: Activity) -> bool {
        self.activity.load(Ordering::Acquire) == activity as u8
    }

    /// True if the client has nothing to do, whether a server is kept for it or not.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.does(Activity::Idle) || self.does(Activity::IdlePinned)
    }

    /// The thread that the client should move to.
    #[must_use]
    pub fn destination(&self) -> usize {
        self.destination.load(Ordering::Relaxed)
    }

    /// The client lives on `worker` now.
    pub fn moved(&self, worker: usize) {
        self.worker.store(worker, Ordering::Relaxed);
    }

    /// The secret that the client was told.
    #[must_use]
    pub fn secret(&self) -> &[u8] {
        self.secret.get(..self.secret_len).unwrap_or_default()
    }
}

/// Every client that is logged in.
pub struct Registry {
    entries: DashMap<u32, Arc<Entered>>,
    begun: std::time::Instant,
}

impl Registry {
    /// An empty one; `now` is the zero of its clock.
    #[must_use]
    pub fn new(now: std::time::Instant) -> Self {
        Self { entries: DashMap::new(), begun: now }
    }

    /// Milliseconds on the registry's clock.
    #[must_use]
    pub fn millis(&self, now: std::time::Instant) -> u64 {
        let since = now.saturating_duration_since(self.begun);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Enters a client under a process id of its own. `None` without randomness.
    #[must_use]
    pub fn enter(
        &self,
        worker: usize,
        long_key: bool,
        now: std::time::Instant,
    ) -> Option<(u32, Arc<Entered>)> {
        let mut secret = [0; SECRET_LEN];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        let entered = Arc::new(Entered {
            seat: Arc::default(),
            secret,
            secret_len: if long_key { SECRET_LEN } else { 4 },
            activity: AtomicU8::new(Activity::Busy as u8),
            worker: AtomicUsize::new(worker),
            destination: AtomicUsize::new(worker),
            since: AtomicU64::new(self.millis(now)),
            login: self.millis(now),
        });
        loop {
            let mut id = [0; 4];
            aws_lc_rs::rand::fill(&mut id).ok()?;
            // Process ids are positive numbers.
            let id = u32::from_be_bytes(id) & 0x7fff_ffff;
            if id == 0 {
                continue;
            }
            if let Entry::Vacant(vacant) = self.entries.entry(id) {
                vacant.insert(Arc::clone(&entered));
                return Some((id, entered));
            }
        }
    }

    /// The client is gone.
    pub fn leave(&self, process_id: u32) {
        self.entries.remove(&process_id);
    }

    /// Finds what a cancel request is to hit.
    #[must_use]
    pub fn cancel(&self, key: &CancelKey<'_>) -> CancelOutcome {
        let Some(entered) =
            self.entries.get(&key.process_id).map(|entry| Arc::clone(entry.value()))
        else {
            return CancelOutcome::Nothing;
        };
        match constant_time::verify_slices_are_equal(entered.secret(), key.secret) {
            Ok(()) => entered.seat.cancel(),
            Err(_) => CancelOutcome::Nothing,
        }
    }

    /// Tells everybody.
    pub fn kick_all(&self, kick: Kick) {
        for entry in &self.entries {
            entry.value().seat.kick(kick);
        }
    }

    /// Number of clients.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if nobody is logged in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Tells one in `share` of the clients of thread `from` to move to `to`, when they are idle.
    pub fn move_some(&self, from: usize, to: usize, share: usize) {
        /// Most clients told at a time: moving costs some system calls each.
        const AT_ONCE: usize = 256;
        let theirs = self
            .entries
            .iter()
            .filter(|entry| entry.value().worker.load(Ordering::Relaxed) == from);
        for entry in theirs.step_by(share.max(1)).take(AT_ONCE) {
            entry.value().destination.store(to, Ordering::Relaxed);
            entry.value().seat.kick(Kick::MOVE);
        }
    }

    /// Tells those whose time is up.
    pub fn sweep(&self, live: &Live, now: std::time::Instant) {
        let now = self.millis(now);
        let over = |since: u64, limit: Duration| over(since, limit, now);
        for entry in &self.entries {
            let entered = entry.value();
            let activity = entered.activity.load(Ordering::Acquire);
            let since = entered.since.load(Ordering::Relaxed);
            let does = |one: Activity| activity == one as u8;
            let kick = if does(Activity::Idle) || does(Activity::IdlePinned) {
                let idle = over(since, live.idle_client_timeout);
                let old = over(entered.login, live.max_client_lifetime);
                if idle || old { Kick::IDLE } else { Kick::NONE }
            } else if does(Activity::HoldsServer) && over(since, live.idle_in_transaction_timeout) {
                Kick::HOLDING
            } else if (does(Activity::DoesNotRead) || does(Activity::Unfinished))
                && over(since, live.client_stall_timeout)
                || does(Activity::Leaving) && over(since, LEAVING_MAX)
            {
                Kick::STALLED
            } else {
                Kick::NONE
            };
            if kick != Kick::NONE {
                entered.seat.kick(kick);
            }
        }
    }

    /// Tells those who are pinned and idle, the longest first, that the `surplus` servers beyond the budget must be
    /// given back.
    pub fn free_pinned(&self, live: &Live, surplus: u32, now: std::time::Instant) {
        if surplus == 0 || live.idle_pinned_timeout.is_zero() {
            return;
        }
        let now = self.millis(now);
        let idle = self.entries.iter().map(|entry| Arc::clone(entry.value()));
        let mut idle: Vec<_> = idle
            .filter(|entered| entered.does(Activity::IdlePinned))
            .map(|entered| (entered.since.load(Ordering::Relaxed), entered))
            .filter(|&(since, _)| over(since, live.idle_pinned_timeout, now))
            .collect();
        idle.sort_unstable_by_key(|&(since, _)| since);
        for (_, entered) in idle.into_iter().take(surplus as usize) {
            entered.seat.kick(Kick::SURPLUS);
        }
    }
}

/// True if `limit` is one and has passed; `since` and `now` are in milliseconds of a registry.
fn over(since: u64, limit: Duration, now: u64) -> bool {
    !limit.is_zero() && u128::from(now.saturating_sub(since)) >= limit.as_millis()
}
