//! Who may use which server, and when: the rules of the pool as plain functions.
//!
//! One [`Core`] holds every (database, user) pool of a target under one budget. It opens and
//! closes nothing itself: it says what is to be done, and its owner does it outside the lock.
//!
//! Waiters are served first come, first served; idle servers are lent last in, first out, so that
//! surplus ones go idle and are closed. A worker thread prefers its own waiters and its own
//! servers, but nobody is overtaken by more than [`OVERTAKE_MAX`].

mod apart;
mod listeners;
mod room;

use apart::Proofs;
use listeners::Listeners;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How much longer than another a waiter may wait because it lives on another thread.
pub const OVERTAKE_MAX: Duration = Duration::from_millis(5);

/// How long a waiter relies on servers that are on their way out, before one more has to go for it.
const CLOSING_SLOW: Duration = Duration::from_secs(1);

/// Idle servers looked at for one that already has the client's settings.
const MATCH_DEPTH: usize = 16;

/// Number of a (database, user) pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub usize);

/// What bounds the pools of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most servers open at once, those being opened or closed included.
    pub budget: u32,
    /// Most servers being opened at once.
    pub opening_max: u32,
}

/// An idle server and what is known of it.
#[derive(Debug)]
pub struct Idle<S> {
    /// The server.
    pub server: S,
    /// The settings it has, as a number.
    pub fingerprint: u64,
    /// The thread whose reactor it is registered with.
    pub worker: usize,
    /// When it was given back.
    pub since: Instant,
}

struct Waiter<W> {
    waiter: W,
    since: Instant,
}

struct Pool<S, W> {
    /// The last one was given back last.
    idle: Vec<Idle<S>>,
    /// One queue per worker thread.
    waiters: Vec<VecDeque<Waiter<W>>>,
    /// Servers of this pool, in whatever state.
    open: u32,
    opening: u32,
    /// Of those open, servers on their way out.
    closing: u32,
    /// No server is opened before this.
    retry_at: Option<Instant>,
}

impl<S, W> Pool<S, W> {
    fn waiting(&self) -> usize {
        self.waiters.iter().map(VecDeque::len).sum()
    }

    fn oldest(&self) -> Option<(usize, Instant)> {
        self.waiters
            .iter()
            .enumerate()
            .filter_map(|(worker, queue)| Some((worker, queue.front()?.since)))
            .min_by_key(|&(_, since)| since)
    }

    fn take_waiter(&mut self, worker: usize) -> Option<W> {
        let (oldest, since) = self.oldest()?;
        let own = self.waiters.get(worker).and_then(VecDeque::front).map(|waiter| waiter.since);
        let from = match own {
            Some(own) if own.saturating_duration_since(since) <= OVERTAKE_MAX => worker,
            _ => oldest,
        };
        Some(self.waiters.get_mut(from)?.pop_front()?.waiter)
    }
}

/// Outcome of giving a server back.
#[derive(Debug)]
pub enum Given<S, W> {
    /// It is lent to this waiter.
    Lend(S, W),
    /// It stays, idle.
    Parked {
        /// Clients of other pools wait: [`Core::grow`] says what that means for them.
        others_wait: bool,
    },
    /// It must be closed, to make room for a pool that starves. It counts as [`Core::closing`].
    Close(S),
}

/// What should be done for those who wait.
#[derive(Debug)]
pub enum Growth<S> {
    /// Open a server for this pool; a slot is reserved for it.
    Open(PoolId),
    /// Close this idle server of `from`, which counts as [`Core::closing`]; its slot will go to the pool that starves.
    Evict {
        /// The pool it belongs to.
        from: PoolId,
        /// What is closed.
        server: S,
    },
    /// Nothing, for now.
    Nothing,
}

/// Numbers of one pool, as of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Servers in whatever state.
    pub open: u32,
    /// Servers being opened.
    pub opening: u32,
    /// Servers on their way out.
    pub closing: u32,
    /// Idle servers.
    pub idle: u32,
    /// Clients in the queue.
    pub waiting: u32,
}

impl Counts {
    /// True if there is a server that may be given back.
    #[must_use]
    pub fn some_work(&self) -> bool {
        self.open > self.opening + self.closing
    }
}

/// Every pool of one target.
pub struct Core<S, W> {
    limits: Limits,
    workers: usize,
    pools: Vec<Pool<S, W>>,
    /// Numbers of pools that were removed.
    vacant: Vec<PoolId>,
    open: u32,
    opening: u32,
    /// Of those open, servers on their way out.
    closing: u32,
    /// Of those open, connections beside all pools.
    apart: u32,
    waiting: usize,
    listeners: Listeners,
    proofs: Proofs,
    /// Since when those who wait for a slot beside the pools rely on servers that are on their way out.
    relying_since: Option<Instant>,
    /// When a server was last closed for those who wait.
    made_room: Option<Instant>,
}

impl<S, W> Core<S, W> {
    /// No pools yet. `workers` is the number of threads that lend and give back.
    #[must_use]
    pub fn new(limits: Limits, workers: usize) -> Self {
        Self {
            limits,
            workers: workers.max(1),
            pools: Vec::new(),
            vacant: Vec::new(),
            open: 0,
            opening: 0,
            closing: 0,
            apart: 0,
            waiting: 0,
            listeners: Listeners::default(),
            proofs: Proofs::default(),
            relying_since: None,
            made_room: None,
        }
    }

    /// Adds a pool.
    pub fn add_pool(&mut self) -> PoolId {
        if let Some(id) = self.vacant.pop() {
            return id;
        }
        self.pools.push(Pool {
            idle: Vec::new(),
            waiters: (0..self.workers).map(|_| VecDeque::new()).collect(),
            open: 0,
            opening: 0,
            closing: 0,
            retry_at: None,
        });
        PoolId(self.pools.len() - 1)
    }

    /// Removes a pool that has no server and nobody waiting; false if it has.
    pub fn remove_pool(&mut self, id: PoolId) -> bool {
        let Some(pool) = self.pools.get_mut(id.0) else { return false };
        let unused = pool.open == 0 && pool.waiting() == 0;
        if unused {
            pool.retry_at = None;
            self.vacant.push(id);
        }
        unused
    }

    /// Changes the limits. Servers beyond a smaller budget go as they are given back; the idle ones
    /// among them are for the caller to close, see [`Core::take_surplus`].
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn pool(&mut self, id: PoolId) -> Option<&mut Pool<S, W>> {
        self.pools.get_mut(id.0)
    }

    /// Takes an idle server, unless somebody waits already. Prefers one that already has the
    /// settings `fingerprint`, then one of the thread `worker`.
    pub fn borrow(&mut self, id: PoolId, worker: usize, fingerprint: u64) -> Option<Idle<S>> {
        let pool = self.pool(id)?;
        let last = pool.idle.last()?;
        if last.worker == worker && last.fingerprint == fingerprint {
            return pool.idle.pop();
        }
        let depth = pool.idle.len().saturating_sub(MATCH_DEPTH);
        let score = |idle: &Idle<S>| {
            u8::from(idle.worker == worker) * 2 + u8::from(idle.fingerprint == fingerprint)
        };
        let (at, _) =
            pool.idle.iter().enumerate().skip(depth).max_by_key(|(at, idle)| (score(idle), *at))?;
        Some(pool.idle.remove(at))
    }

    /// [`Core::borrow`], or else [`Core::enqueue`], with nothing in between.
    pub fn borrow_or_enqueue(
        &mut self,
        id: PoolId,
        worker: usize,
        fingerprint: u64,
        waiter: impl FnOnce() -> W,
        now: Instant,
    ) -> Option<Idle<S>> {
        let idle = self.borrow(id, worker, fingerprint);
        if idle.is_none() {
            self.enqueue(id, worker, waiter(), now);
        }
        idle
    }

    /// Puts a client at the end of the queue.
    pub fn enqueue(&mut self, id: PoolId, worker: usize, waiter: W, now: Instant) {
        if let Some(queue) = self.pool(id).and_then(|pool| pool.waiters.get_mut(worker)) {
            queue.push_back(Waiter { waiter, since: now });
            self.waiting += 1;
        }
    }

    /// Takes a client out of the queue that no longer waits.
    pub fn leave(&mut self, id: PoolId, is_it: impl Fn(&W) -> bool) {
        let mut left = 0;
        if let Some(pool) = self.pool(id) {
            for queue in &mut pool.waiters {
                let before = queue.len();
                queue.retain(|waiter| !is_it(&waiter.waiter));
                left += before - queue.len();
            }
        }
        self.waiting -= left;
    }

    /// A server that is clean comes back (or is new): lends it on, keeps it, or gives it up.
    pub fn give_back(&mut self, id: PoolId, idle: Idle<S>) -> Given<S, W> {
        if self.surplus() > 0
            || self.makes_room_beside(idle.since)
            || self.must_yield(id, idle.since)
        {
            self.closing(id);
            return Given::Close(idle.server);
        }
        let worker = idle.worker;
        let Some(pool) = self.pool(id) else { return Given::Close(idle.server) };
        match pool.take_waiter(worker) {
            Some(waiter) => {
                self.waiting -= 1;
                Given::Lend(idle.server, waiter)
            }
            None => {
                pool.idle.push(idle);
                Given::Parked { others_wait: self.waiting > 0 }
            }
        }
    }

    /// Reserves a slot for a server that is about to be opened, whoever waits.
    pub fn reserve(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(id.0) {
            pool.open += 1;
            pool.opening += 1;
            self.open += 1;
            self.opening += 1;
        }
    }

    /// Servers beyond the budget that are not on their way out yet.
    #[must_use]
    pub fn surplus(&self) -> u32 {
        self.open.saturating_sub(self.closing).saturating_sub(self.limits.budget)
    }

    /// Takes out as many idle servers as are open beyond the budget. They count as [`Core::closing`].
    pub fn take_surplus(&mut self) -> Vec<(PoolId, S)> {
        let mut left = self.surplus();
        let taken = self.take_idle(|_, _| {
            let surplus = left > 0;
            left = left.saturating_sub(1);
            surplus
        });
        for (id, _) in &taken {
            self.closing(*id);
        }
        taken
    }

    /// A server was opened; it is given back next.
    pub fn opened(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(id.0) {
            pool.opening = pool.opening.saturating_sub(1);
            pool.retry_at = None;
            self.opening = self.opening.saturating_sub(1);
        }
    }

    /// A server could not be opened; none is tried before `retry_at`.
    pub fn open_failed(&mut self, id: PoolId, retry_at: Instant) {
        self.try_again_at(id, retry_at);
        self.vacate(id);
    }

    /// As [`Core::open_failed`], but there is a server: it is of no use, and counts as [`Core::closing`].
    pub fn opened_in_vain(&mut self, id: PoolId, retry_at: Instant) {
        self.try_again_at(id, retry_at);
        self.closing(id);
    }

    fn try_again_at(&mut self, id: PoolId, retry_at: Instant) {
        let before = self.pool(id).and_then(|pool| pool.retry_at);
        self.opened(id);
        if let Some(pool) = self.pool(id) {
            pool.retry_at = before.max(Some(retry_at));
        }
    }

    /// A server is on its way out; its slot is taken until [`Core::closed`].
    pub fn closing(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(id.0) {
            pool.closing += 1;
            self.closing += 1;
        }
    }

    /// A server that was [`Core::closing`] is closed for good: the database has its slot back.
    pub fn closed(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(id.0) {
            pool.closing = pool.closing.saturating_sub(1);
            self.closing = self.closing.saturating_sub(1);
        }
        self.vacate(id);
    }

    /// A slot is free again.
    fn vacate(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(id.0) {
            pool.open = pool.open.saturating_sub(1);
            self.open = self.open.saturating_sub(1);
        }
    }

    /// Takes those out of the queues who wait since before `before`, with when they began.
    pub fn expire(&mut self, before: Instant) -> Vec<(PoolId, W, Instant)> {
        let mut expired = Vec::new();
        for (at, pool) in self.pools.iter_mut().enumerate() {
            for queue in &mut pool.waiters {
                // Each queue is in the order of time.
                while queue.front().is_some_and(|waiter| waiter.since <= before) {
                    let Some(waiter) = queue.pop_front() else { break };
                    expired.push((PoolId(at), waiter.waiter, waiter.since));
                }
            }
        }
        self.waiting -= expired.len();
        expired
    }

    /// Takes everybody out of a pool's queue, to be told why nothing comes.
    pub fn drain_waiters(&mut self, id: PoolId) -> Vec<W> {
        let Some(pool) = self.pool(id) else { return Vec::new() };
        let drained: Vec<W> =
            pool.waiters.iter_mut().flat_map(|queue| queue.drain(..)).map(|w| w.waiter).collect();
        self.waiting -= drained.len();
        drained
    }

    /// Takes out the idle servers that `unwanted` picks, oldest first. They are still open.
    pub fn take_idle(
        &mut self,
        mut unwanted: impl FnMut(PoolId, &mut Idle<S>) -> bool,
    ) -> Vec<(PoolId, S)> {
        let mut taken = Vec::new();
        for (at, pool) in self.pools.iter_mut().enumerate() {
            let id = PoolId(at);
            let out = pool.idle.extract_if(.., |idle| unwanted(id, idle));
            taken.extend(out.map(|idle| (id, idle.server)));
        }
        taken
    }

    /// Connections in whatever state: servers of all pools and those apart.
    #[must_use]
    pub fn open(&self) -> u32 {
        self.open
    }

    /// Clients in all queues.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Numbers of a pool.
    #[must_use]
    pub fn counts(&self, id: PoolId) -> Counts {
        self.pools.get(id.0).map_or_else(Counts::default, |pool| Counts {
            open: pool.open,
            opening: pool.opening,
            closing: pool.closing,
            idle: u32::try_from(pool.idle.len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(pool.waiting()).unwrap_or(u32::MAX),
        })
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "core_interleaving_tests.rs"]
mod interleaving_tests;
