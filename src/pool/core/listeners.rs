//! The part of the budget that goes to connections which only listen.

use super::Core;

/// Connections that only listen: beside all pools, within the budget.
#[derive(Default)]
pub(super) struct Listeners {
    pub(super) open: u32,
    pub(super) wanted: u32,
}

impl<S, W> Core<S, W> {
    /// True if another listening connection may be had: at most half of the budget goes to them.
    #[must_use]
    pub fn may_have_listener(&self) -> bool {
        self.listeners.open + self.listeners.wanted < self.limits.budget / 2
    }

    /// From now on, a slot for a listening connection is kept free, or made free. False if no other one may be had.
    #[must_use]
    pub fn want_listener(&mut self) -> bool {
        let may = self.may_have_listener();
        self.listeners.wanted += u32::from(may);
        may
    }

    /// Nobody waits for that slot any more.
    pub fn give_up_listener(&mut self) {
        self.listeners.wanted = self.listeners.wanted.saturating_sub(1);
        self.relying_since = None;
    }

    /// Takes the slot that [`Core::want_listener`] asked for, if one is free.
    pub fn reserve_listener(&mut self) -> bool {
        let free = self.open < self.limits.budget;
        if free {
            self.give_up_listener();
            self.open += 1;
            self.listeners.open += 1;
        }
        free
    }

    /// A listening connection is closed.
    pub fn vacate_listener(&mut self) {
        self.listeners.open = self.listeners.open.saturating_sub(1);
        self.open = self.open.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::core::{CLOSING_SLOW, Given, Growth, Idle, Limits};
    use std::time::Instant;

    fn core(budget: u32) -> Core<u32, u32> {
        Core::new(Limits { budget, opening_max: 4 }, 1)
    }

    fn idle(server: u32, since: Instant) -> Idle<u32> {
        Idle { server, fingerprint: 0, worker: 0, since }
    }

    #[test]
    fn at_most_half_of_the_budget_listens() {
        for (budget, most) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)] {
            let mut core = core(budget);
            let mut had = 0;
            while core.want_listener() {
                assert!(core.reserve_listener());
                had += 1;
            }
            assert_eq!(had, most, "budget {budget}");
            assert_eq!(core.open(), most);
        }
    }

    #[test]
    fn a_server_given_back_makes_room_and_nobody_else_takes_it() {
        let now = Instant::now();
        let mut core = core(2);
        let pool = core.add_pool();
        for _ in 0..2 {
            core.reserve(pool);
            core.opened(pool);
        }
        assert!(core.want_listener());
        assert!(!core.reserve_listener());
        core.enqueue(pool, 0, 7, now);
        assert!(matches!(core.give_back(pool, idle(1, now)), Given::Close(1)));
        // Only one is closed for it; the other goes to the client that waits.
        assert!(matches!(core.give_back(pool, idle(2, now)), Given::Lend(2, 7)));
        core.enqueue(pool, 0, 8, now);
        core.closed(pool);
        assert!(matches!(core.grow(now), Growth::Nothing));
        assert!(core.reserve_listener());
        assert_eq!(core.open(), 2);
        core.vacate_listener();
        assert!(matches!(core.grow(now), Growth::Open(_)));
    }

    #[test]
    fn an_idle_server_makes_room() {
        let now = Instant::now();
        let mut core = core(2);
        let pool = core.add_pool();
        for server in 0..2 {
            core.reserve(pool);
            core.opened(pool);
            let _ = core.give_back(pool, idle(server, now));
        }
        assert!(core.evict_beside(now).is_none(), "nobody wants it");
        assert!(core.want_listener());
        assert_eq!(core.evict_beside(now), Some((pool, 0)));
        assert!(core.evict_beside(now + CLOSING_SLOW).is_none(), "its slot is on its way");
        let late = now + CLOSING_SLOW * 2;
        assert_eq!(core.evict_beside(late), Some((pool, 1)), "unless that takes long");
        assert!(core.evict_beside(late).is_none());
    }

    #[test]
    fn a_slot_that_went_to_somebody_else_is_made_free_again() {
        let now = Instant::now();
        let mut core = core(2);
        let pool = core.add_pool();
        for server in 0..2 {
            core.reserve(pool);
            core.opened(pool);
            let _ = core.give_back(pool, idle(server, now));
        }
        assert!(core.want_listener());
        assert_eq!(core.evict_beside(now), Some((pool, 0)));
        core.closed(pool);
        core.add_apart();
        assert!(!core.reserve_listener());
        assert_eq!(core.evict_beside(now), Some((pool, 1)));
    }

    #[test]
    fn a_slot_on_its_way_to_a_listener_is_none_for_a_client() {
        let now = Instant::now();
        let mut core = core(2);
        let (rich, poor) = (core.add_pool(), core.add_pool());
        for server in 0..2 {
            core.reserve(rich);
            core.opened(rich);
            let _ = core.give_back(rich, idle(server, now));
        }
        assert!(core.want_listener());
        assert_eq!(core.evict_beside(now), Some((rich, 0)));
        core.enqueue(poor, 0, 7, now);
        assert!(matches!(core.grow(now), Growth::Evict { server: 1, .. }));
        assert!(matches!(core.grow(now), Growth::Nothing));
    }
}
