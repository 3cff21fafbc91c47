//! Slots of the budget that belong to no pool: connections of pgweir's own, and servers of clients who are
//! yet to prove who they are.

use super::{Core, PoolId};

impl<S, W> Core<S, W> {
    /// Reserves a slot beside all pools, if one is free: for a connection of pgweir's own.
    pub fn reserve_apart(&mut self) -> bool {
        let free = self.open < self.limits.budget;
        self.open += u32::from(free);
        self.apart += u32::from(free);
        free
    }

    /// Frees the slot of [`Core::reserve_apart`].
    pub fn vacate_apart(&mut self) {
        self.open = self.open.saturating_sub(1);
        self.apart = self.apart.saturating_sub(1);
    }

    /// Connections of pgweir's own.
    #[must_use]
    pub fn apart(&self) -> u32 {
        self.apart
    }

    /// Reserves a slot for a server that is to prove a client's token, if one is free.
    pub fn reserve_proof(&mut self) -> bool {
        let free = self.open < self.limits.budget;
        self.open += u32::from(free);
        free
    }

    /// Frees the slot of [`Core::reserve_proof`].
    pub fn vacate_proof(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// The token is proven: its server is one of this pool, being opened still.
    pub fn adopt_proof(&mut self, id: PoolId) {
        self.vacate_proof();
        self.reserve(id);
    }

    /// The server that was idle for longest, to be closed for a token that waits to be proven. None as
    /// long as a slot is on its way: whoever shows tokens that are worth nothing must not empty the pools. It counts as
    /// [`Core::closing`].
    pub fn evict_for_proof(&mut self) -> Option<(PoolId, S)> {
        if self.slots_to_come() > 0 { None } else { self.evict_longest_idle(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::core::{Growth, Idle, Limits};
    use std::time::Instant;

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
        assert_eq!(core.evict_for_proof(), Some((pool, 0)));
        for _ in 0..10 {
            assert!(core.evict_for_proof().is_none(), "a slot is on its way");
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
