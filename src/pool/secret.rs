//! Which servers of a pool were opened with a password that is not the one in use any more.
//!
//! PostgreSQL asks for a password only once, so such servers work on; they are replaced all the same,
//! because a rotation is to end the use of the old password. None is closed before a server was
//! opened with the new one, as the new one may be wrong; and then not all at the same time.

use super::Pool;
use crate::server::Server;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Within this time after the new password was seen to work, the servers of the old one go.
const SPREAD: Duration = Duration::from_secs(15);

/// Where no room is left for a server with the new password, one makes room in this time.
const TRY_INTERVAL: Duration = Duration::from_secs(5);

/// No user's secret has this generation: the user has none.
const NONE: u64 = 0;

/// What a pool knows of its user's secret.
#[derive(Default)]
pub(super) struct SecretInUse {
    wanted: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of the last server that was opened.
    proven: u64,
    proven_at: Option<Instant>,
    tried_at: Option<Instant>,
}

impl SecretInUse {
    /// The secret with which servers should be opened now; `None` if there is none.
    pub(super) fn want(&self, generation: Option<u64>) {
        self.wanted.store(generation.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// The user has a secret.
    pub(super) fn is_known(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != NONE
    }

    /// A server was opened once.
    pub(super) fn has_opened(&self) -> bool {
        self.state.lock().proven != NONE
    }

    fn prove(&self, generation: u64, now: Instant) {
        let mut state = self.state.lock();
        if state.proven != generation {
            state.proven = generation;
            state.proven_at = Some(now);
        }
    }

    /// Whether a server that nobody uses should go. Costs a comparison as long as nothing changed.
    fn outdates(&self, server_id: u64, generation: u64, now: Instant) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        if wanted == generation {
            return false;
        }
        if wanted == NONE {
            return true;
        }
        let mut state = self.state.lock();
        if state.proven == wanted {
            let since = state.proven_at.map(|at| now.saturating_duration_since(at));
            return since.is_none_or(|since| since >= SPREAD.mul_f64(share_of(server_id)));
        }
        let tried = state.tried_at.map(|at| now.saturating_duration_since(at));
        let due = tried.is_none_or(|since| since >= TRY_INTERVAL);
        if due {
            state.tried_at = Some(now);
        }
        due
    }
}

/// A number in `0..1`, the same for the same server and spread evenly over those that follow.
fn share_of(server_id: u64) -> f64 {
    const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;
    let mixed = server_id.wrapping_mul(GOLDEN_RATIO) >> 32;
    f64::from(u32::try_from(mixed).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

impl Pool {
    /// Looks up which secret is in use.
    pub(super) fn note_secret(&self) {
        let known = self.pools.credentials.lookup(&self.user);
        self.secret.want(known.map(|credential| credential.generation));
    }

    /// A server was opened with the secret of this generation.
    pub(super) fn note_opened_with(&self, generation: u64, now: Instant) {
        self.secret.prove(generation, now);
        self.note_secret();
    }

    /// Whether a server that nobody uses was opened with an old secret, and should go by now.
    pub(super) fn outdates(&self, server: &Server, now: Instant) -> bool {
        self.secret.outdates(server.id, server.generation, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(60);

    fn opened_with(generation: u64, now: Instant) -> SecretInUse {
        let secret = SecretInUse::default();
        secret.want(Some(generation));
        secret.prove(generation, now);
        secret
    }

    #[test]
    fn servers_of_the_secret_in_use_stay() {
        let now = Instant::now();
        let secret = opened_with(1, now);
        assert!((0..100).all(|id| !secret.outdates(id, 1, now + LATER)));
    }

    #[test]
    fn no_server_but_one_at_a_time_goes_before_the_new_secret_was_seen_to_work() {
        let now = Instant::now();
        let secret = opened_with(1, now);
        secret.want(Some(2));
        let gone = |at| (0..100).filter(|id| secret.outdates(*id, 1, at)).count();
        assert_eq!(gone(now), 1);
        assert_eq!(gone(now + TRY_INTERVAL / 2), 0);
        assert_eq!(gone(now + TRY_INTERVAL), 1);
    }

    #[test]
    fn once_it_works_the_others_go_one_after_the_other() {
        let now = Instant::now();
        let secret = opened_with(1, now);
        secret.want(Some(2));
        secret.prove(2, now);
        let gone = |at| (0..1000).filter(|id| secret.outdates(*id, 1, at)).count();
        let half = gone(now + SPREAD / 2);
        assert!((400..600).contains(&half), "{half}");
        assert_eq!(gone(now + SPREAD), 1000);
        assert!(gone(now) < 10);
    }

    #[test]
    fn a_secret_that_turned_out_wrong_takes_no_server_with_it() {
        let now = Instant::now();
        let secret = opened_with(1, now);
        secret.want(Some(2));
        assert!(secret.outdates(7, 1, now));
        // The target took the old one again.
        secret.prove(1, now);
        secret.want(Some(1));
        assert!((0..100).all(|id| !secret.outdates(id, 1, now + LATER)));
    }

    #[test]
    fn without_a_secret_all_go_at_once() {
        let now = Instant::now();
        let secret = opened_with(1, now);
        secret.want(None);
        assert!((0..100).all(|id| secret.outdates(id, 1, now)));
    }
}
