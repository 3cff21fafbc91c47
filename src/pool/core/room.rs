//! Making room for those who wait: a server more where the budget has room, one of another pool where it has not.
//!
//! A pool is sure of its share of the budget while others want theirs. What it has beyond goes to pools that have
//! waited for long with less; where there are more pools than shares, each gets its turn.

use super::{CLOSING_SLOW, Core, Growth, Pool, PoolId};
use std::time::{Duration, Instant};

/// How much longer a pool below its share may wait before another pool gives up a server for it.
pub(super) const STARVING_AFTER: Duration = Duration::from_millis(100);

impl<S, W> Pool<S, W> {
    /// Servers that stay.
    fn kept(&self) -> u32 {
        self.open.saturating_sub(self.closing)
    }

    /// Servers that those who wait would have opened now.
    fn wanted(&self, now: Instant) -> usize {
        if self.retry_at.is_some_and(|at| at > now) {
            return 0;
        }
        self.waiting().saturating_sub(self.opening as usize)
    }
}

/// What a pool is sure of while others want theirs.
struct Share {
    servers: u32,
    /// There are more pools than servers: they take turns.
    in_turn: bool,
}

impl<S, W> Core<S, W> {
    /// True if a server of the pool `id`, given back at `now`, is to make room for pools that have waited for long
    /// with less than their share of a full budget: for no more than they lack.
    ///
    /// Where servers that are on their way out for them take long, one more goes.
    pub(super) fn must_yield(&mut self, id: PoolId, now: Instant) -> bool {
        if self.pools.len() < 2 || self.waiting == 0 || !self.is_full() {
            return false;
        }
        let Some(own) = self.pools.get(id.0) else { return false };
        let share = self.share();
        let spares = own.kept() > share.servers;
        let own_oldest = own.oldest().map(|(_, since)| since);
        let is_longer = |since| {
            own_oldest.is_some_and(|own| own.saturating_duration_since(since) > STARVING_AFTER)
        };
        let mut lacking = 0;
        let mut longest = now;
        for pool in &self.pools {
            let Some((_, since)) = pool.oldest() else { continue };
            let starves = now.saturating_duration_since(since) > STARVING_AFTER;
            let is_its_turn = share.in_turn && pool.kept() == 0 && is_longer(since);
            if starves && pool.kept() < share.servers && (spares || is_its_turn) {
                let below = (share.servers - pool.kept()) as usize;
                let wanted = pool.wanted(now).min(below);
                lacking += wanted;
                longest = if wanted > 0 { longest.min(since) } else { longest };
            }
        }
        let slow = self.is_closing_slow(longest, now);
        let yields = lacking > self.slots_to_come() || (lacking > 0 && slow);
        if yields && slow {
            self.made_room = Some(now);
        }
        yields
    }

    /// True if no slot is left but those that are kept for connections beside the pools.
    fn is_full(&self) -> bool {
        self.open + self.wanted_beside() >= self.limits.budget
    }

    /// Slots that are kept free, or made free, for connections beside the pools.
    fn wanted_beside(&self) -> u32 {
        self.listeners.wanted + self.proofs.wanted()
    }

    /// The server that was idle for longest, to be closed for a connection beside the pools. It counts as
    /// [`Core::closing`].
    pub fn evict_beside(&mut self, now: Instant) -> Option<(PoolId, S)> {
        // To make room changes what is relied on: not where there is nothing to be had.
        let any = self.pools.iter().any(|pool| !pool.idle.is_empty());
        if any && self.makes_room_beside(now) { self.evict_longest_idle(None) } else { None }
    }

    /// True if a server must be closed for a connection beside the pools, for which somebody waits: where no other is
    /// on its way out for it, or that takes long.
    pub(super) fn makes_room_beside(&mut self, now: Instant) -> bool {
        let wanted = self.wanted_beside();
        if wanted == 0 {
            return false;
        }
        let enough = self.open + wanted <= self.limits.budget + self.closing;
        let since = *self.relying_since.get_or_insert(now);
        let slow = now.saturating_duration_since(since) > CLOSING_SLOW;
        let makes_room = self.open >= self.limits.budget && (!enough || slow);
        if makes_room {
            self.relying_since = Some(now);
        }
        makes_room
    }

    fn share(&self) -> Share {
        let wanting = self.pools.iter().filter(|pool| pool.waiting() > 0 || pool.open > 0).count();
        let wanting = u32::try_from(wanting).unwrap_or(u32::MAX).max(1);
        let beside = self.apart + self.listeners.open + self.proofs.open() + self.wanted_beside();
        let servers = self.limits.budget.saturating_sub(beside);
        Share { servers: (servers / wanting).max(1), in_turn: servers < wanting }
    }

    /// What to do for those who wait: called after each enqueue, opening, closing and retry, and when a server is
    /// parked while others wait.
    pub fn grow(&mut self, now: Instant) -> Growth<S> {
        let full = self.is_full();
        let alone = self.pools.len() == 1;
        if self.waiting == 0 || self.opening >= self.limits.opening_max || (full && alone) {
            return Growth::Nothing;
        }
        let share = self.share();
        // Below its share first: the slot that one pool yielded must not go back to it.
        let wants = self
            .pools
            .iter()
            .enumerate()
            .filter(|(_, pool)| pool.wanted(now) > 0)
            .filter_map(|(at, pool)| Some((pool.kept() >= share.servers, pool.oldest()?.1, at)))
            .min();
        let Some((_, since, at)) = wants else { return Growth::Nothing };
        if !full {
            self.reserve(PoolId(at));
            return Growth::Open(PoolId(at));
        }
        if self.slots_to_come() >= self.wanted(now) && !self.is_closing_slow(since, now) {
            return Growth::Nothing;
        }
        // Nobody waits in a pool that has an idle server, so this takes from nobody.
        let Some((from, server)) = self.evict_longest_idle(Some(PoolId(at))) else {
            return Growth::Nothing;
        };
        self.made_room = Some(now);
        Growth::Evict { from, server }
    }

    /// The server that was idle for longest, of any pool but `except`, to be closed. It counts as [`Core::closing`].
    pub(super) fn evict_longest_idle(&mut self, except: Option<PoolId>) -> Option<(PoolId, S)> {
        let (_, at) = (self.pools.iter().enumerate())
            .filter(|(at, _)| except != Some(PoolId(*at)))
            .filter_map(|(at, pool)| Some((pool.idle.first()?.since, at)))
            .min()?;
        let pool = self.pools.get_mut(at).filter(|pool| !pool.idle.is_empty())?;
        let server = pool.idle.remove(0).server;
        self.closing(PoolId(at));
        Some((PoolId(at), server))
    }

    /// True if somebody has waited since `since` for servers that are on their way out, and one more has to go.
    fn is_closing_slow(&self, since: Instant, now: Instant) -> bool {
        let slow = |since| now.saturating_duration_since(since) > CLOSING_SLOW;
        slow(since) && self.made_room.is_none_or(slow)
    }

    /// Slots of a full budget that will be free for clients when all that are closing are closed.
    pub(super) fn slots_to_come(&self) -> usize {
        let beyond = (self.open + self.wanted_beside()).saturating_sub(self.limits.budget);
        self.closing.saturating_sub(beyond) as usize
    }

    /// Servers that those who wait would have opened.
    fn wanted(&self, now: Instant) -> usize {
        self.pools.iter().map(|pool| pool.wanted(now)).sum()
    }
}
