//! Slots of the budget that belong to no pool: connections of pgweir's own, and servers of clients who are
//! yet to prove who they are.

use super::{Core, PoolId};
use std::time::Instant;

/// Slots for servers that are to prove tokens.
#[derive(Default)]
pub(super) struct Proofs {
    open: u32,
    waiting: u32,
}

impl Proofs {
    /// Slots that are kept free, or made free.
    pub(super) fn wanted(&self) -> u32 {
        u32::from(self.waiting > 0 && self.open == 0)
    }

    pub(super) fn open(&self) -> u32 {
        self.open
    }
}

impl<S, W> Core<S, W> {
    /// Counts a connection of pgweir's own that exists already, whether or not the budget has room for it.
    pub fn add_apart(&mut self) {
        self.open += 1;
        self.apart += 1;
    }

    /// Connections of pgweir's own.
    #[must_use]
    pub fn apart(&self) -> u32 {
        self.apart
    }

    /// Somebody waits for a slot for a server that is to prove a token. Where all are in use, the next one that is
    /// free is kept for this, or made free: for one at a time, as whoever shows tokens that are worth nothing must not
    /// empty the pools.
    pub fn wait_for_proof(&mut self) {
        self.proofs.waiting += 1;
    }

    /// One who called [`Core::wait_for_proof`] waits no more.
    pub fn give_up_proof(&mut self) {
        self.proofs.waiting = self.proofs.waiting.saturating_sub(1);
        self.relying_since = None;
    }

    /// Reserves a slot for a server that is to prove a client's token, if one is free.
    pub fn reserve_proof(&mut self) -> bool {
        let free = self.open < self.limits.budget;
        self.open += u32::from(free);
        self.proofs.open += u32::from(free);
        free
    }

    /// Frees the slot of [`Core::reserve_proof`].
    pub fn vacate_proof(&mut self) {
        self.open = self.open.saturating_sub(1);
        self.proofs.open = self.proofs.open.saturating_sub(1);
    }

    /// The token is proven: its server is one of this pool, being opened still.
    pub fn adopt_proof(&mut self, id: PoolId) {
        self.vacate_proof();
        self.reserve(id);
    }

    /// Servers that are to prove a token.
    #[must_use]
    pub fn proofs(&self) -> u32 {
        self.proofs.open
    }

    /// The server that was idle for longest, to be closed for a token that waits to be proven. None as
    /// long as a slot is on its way. It counts as [`Core::closing`].
    pub fn evict_for_proof(&mut self, now: Instant) -> Option<(PoolId, S)> {
        if self.proofs.wanted() > 0 {
            return self.evict_beside(now);
        }
        if self.slots_to_come() > 0 { None } else { self.evict_longest_idle(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::core::{Given, Growth, Idle, Limits};

    fn idle(server: u32, since: Instant) -> Idle<u32> {
        Idle { server, fingerprint: 0, worker: 0, since }
    }

    #[test]
    fn one_idle_server_at_a_time_makes_room_for_proofs() {
        let now = Instant::now();
        let mut core: Core<u32, u32> = Core::new(Limits { budget: 3, opening_max: 4 }, 1);
        let pool = core.add_pool();
        for server in 0..3 {
            core.reserve(pool);
            core.opened(pool);
            let _ = core.give_back(pool, idle(server, now));
        }
        assert!(!core.reserve_proof());
        assert_eq!(core.evict_for_proof(now), Some((pool, 0)));
        for _ in 0..10 {
            assert!(core.evict_for_proof(now).is_none(), "a slot is on its way");
        }
        core.closed(pool);
        assert!(core.reserve_proof());
        core.vacate_proof();
        // Token after token is refused, and takes the same slot.
        for _ in 0..10 {
            assert!(core.reserve_proof());
            core.vacate_proof();
        }
        assert_eq!(core.counts(pool).idle, 2);
    }

    /// It is there before there is a budget.
    #[test]
    fn who_waits_already_does_not_get_the_slot_of_a_connection_that_exists() {
        let now = Instant::now();
        let mut core: Core<u32, u32> = Core::new(Limits { budget: 0, opening_max: 4 }, 1);
        let pool = core.add_pool();
        core.enqueue(pool, 0, 7, now);
        core.add_apart();
        core.set_limits(Limits { budget: 1, ..core.limits() });
        assert!(matches!(core.grow(now), Growth::Nothing));
        core.set_limits(Limits { budget: 2, ..core.limits() });
        assert!(matches!(core.grow(now), Growth::Open(_)));
        assert_eq!((core.open(), core.apart(), core.surplus()), (2, 1, 0));
    }

    #[test]
    fn a_server_given_back_makes_room_for_one_proof_at_a_time() {
        let now = Instant::now();
        let mut core: Core<u32, u32> = Core::new(Limits { budget: 3, opening_max: 4 }, 1);
        let pool = core.add_pool();
        for waiter in 0..3 {
            core.reserve(pool);
            core.opened(pool);
            core.enqueue(pool, 0, waiter, now);
        }
        core.wait_for_proof();
        core.wait_for_proof();
        assert!(!core.reserve_proof() && core.evict_for_proof(now).is_none(), "none is idle");
        assert!(matches!(core.give_back(pool, idle(0, now)), Given::Close(0)));
        assert!(matches!(core.give_back(pool, idle(1, now)), Given::Lend(1, 0)));
        core.closed(pool);
        assert!(matches!(core.grow(now), Growth::Nothing), "the slot is kept for it");
        assert!(core.reserve_proof());
        core.give_up_proof();
        // The other one has its turn in the same slot.
        assert!(matches!(core.give_back(pool, idle(2, now)), Given::Lend(2, 1)));
        core.vacate_proof();
        assert!(matches!(core.grow(now), Growth::Nothing));
        assert!(core.reserve_proof());
        core.give_up_proof();
        core.vacate_proof();
        assert!(matches!(core.grow(now), Growth::Open(_)), "and then the clients");
    }

    #[test]
    fn a_slot_that_nobody_waits_for_any_more_goes_to_the_clients() {
        let now = Instant::now();
        let mut core: Core<u32, u32> = Core::new(Limits { budget: 1, opening_max: 4 }, 1);
        let pool = core.add_pool();
        core.wait_for_proof();
        core.enqueue(pool, 0, 7, now);
        assert!(matches!(core.grow(now), Growth::Nothing));
        core.give_up_proof();
        assert!(matches!(core.grow(now), Growth::Open(_)));
    }

    #[test]
    fn a_proven_server_has_its_slot_in_the_pool() {
        let mut core: Core<u32, u32> = Core::new(Limits { budget: 1, opening_max: 4 }, 1);
        assert!(core.reserve_proof() && !core.reserve_proof());
        let pool = core.add_pool();
        core.adopt_proof(pool);
        assert_eq!((core.open(), core.counts(pool).opening), (1, 1));
        core.opened(pool);
        let _ = core.give_back(pool, idle(1, Instant::now()));
        assert_eq!(core.counts(pool).idle, 1);
    }

    #[test]
    fn a_pool_that_nobody_uses_can_go_and_its_number_is_given_again() {
        let now = Instant::now();
        let mut core: Core<u32, u32> = Core::new(Limits { budget: 1, opening_max: 4 }, 1);
        let (first, second) = (core.add_pool(), core.add_pool());
        core.enqueue(first, 0, 7, now);
        assert!(!core.remove_pool(first), "somebody waits");
        assert!(matches!(core.grow(now), Growth::Open(_)));
        assert_eq!(core.drain_waiters(first), [7]);
        assert!(!core.remove_pool(first), "a server is being opened");
        core.open_failed(first, now);
        assert!(core.remove_pool(first));
        assert_eq!(core.add_pool(), first);
        assert!(core.add_pool() != second);
    }
}
