//! Tests of the pool's rules, by example and under any interleaving.

use super::*;
use proptest::prelude::*;

type TestCore = Core<u32, u32>;

fn core(budget: u32) -> TestCore {
    Core::new(Limits { budget, opening_max: 4 }, 2)
}

fn idle(server: u32, worker: usize, since: Instant) -> Idle<u32> {
    Idle { server, fingerprint: 0, worker, since }
}

/// Opens a server of `pool` and gives it to the pool.
fn open(core: &mut TestCore, pool: PoolId, server: u32, now: Instant) {
    core.reserve(pool);
    core.opened(pool);
    assert!(matches!(core.give_back(pool, idle(server, 0, now)), Given::Parked));
}

#[test]
fn the_last_server_given_back_is_lent_first() {
    let now = Instant::now();
    let mut core = core(4);
    let pool = core.add_pool();
    open(&mut core, pool, 1, now);
    open(&mut core, pool, 2, now);
    assert_eq!(core.borrow(pool, 0, 0).map(|idle| idle.server), Some(2));
    assert_eq!(core.borrow(pool, 0, 0).map(|idle| idle.server), Some(1));
    assert!(core.borrow(pool, 0, 0).is_none());
}

#[test]
fn a_server_with_the_wanted_settings_is_preferred() {
    let now = Instant::now();
    let mut core = core(4);
    let pool = core.add_pool();
    for (server, fingerprint) in [(1, 7), (2, 8)] {
        core.reserve(pool);
        core.opened(pool);
        let _ = core.give_back(pool, Idle { server, fingerprint, worker: 0, since: now });
    }
    assert_eq!(core.borrow(pool, 0, 7).map(|idle| idle.server), Some(1));
}

#[test]
fn a_server_goes_to_the_oldest_waiter_and_to_the_own_thread_among_equals() {
    let now = Instant::now();
    let mut core = core(1);
    let pool = core.add_pool();
    core.reserve(pool);
    core.opened(pool);
    core.enqueue(pool, 1, 10, now);
    core.enqueue(pool, 0, 20, now + OVERTAKE_MAX / 2);
    core.enqueue(pool, 0, 21, now + OVERTAKE_MAX * 3);
    let lend = |core: &mut TestCore| match core.give_back(pool, idle(1, 0, now)) {
        Given::Lend(1, waiter) => waiter,
        other => panic!("{other:?}"),
    };
    assert_eq!(lend(&mut core), 20, "within the bound, the own thread's waiter goes first");
    assert_eq!(lend(&mut core), 10, "beyond it, the oldest");
    assert_eq!(lend(&mut core), 21);
}

#[test]
fn no_more_are_opened_than_wait_nor_than_the_bounds_allow() {
    let now = Instant::now();
    let mut core = core(3);
    let pool = core.add_pool();
    core.enqueue(pool, 0, 1, now);
    assert!(matches!(core.grow(now), Growth::Open(_)));
    assert!(matches!(core.grow(now), Growth::Nothing), "one waits, one is being opened");
    for waiter in 2..9 {
        core.enqueue(pool, 0, waiter, now);
    }
    assert!(matches!(core.grow(now), Growth::Open(_)));
    assert!(matches!(core.grow(now), Growth::Open(_)));
    assert!(matches!(core.grow(now), Growth::Nothing), "the budget is reached");
}

#[test]
fn an_idle_server_of_another_pool_makes_room() {
    let now = Instant::now();
    let mut core = core(1);
    let (rich, poor) = (core.add_pool(), core.add_pool());
    open(&mut core, rich, 1, now);
    core.enqueue(poor, 0, 5, now);
    let Growth::Evict { from, server: 1 } = core.grow(now) else { panic!("no eviction") };
    assert_eq!(from, rich);
    assert!(matches!(core.grow(now), Growth::Nothing), "the slot is not free before it is closed");
    core.vacate_for_others(rich);
    assert!(matches!(core.grow(now), Growth::Open(id) if id == poor));
}

#[test]
fn no_more_is_evicted_than_wait_while_room_is_on_its_way() {
    let now = Instant::now();
    let mut core = core(4);
    let (rich, poor) = (core.add_pool(), core.add_pool());
    for server in 1..=4 {
        open(&mut core, rich, server, now);
    }
    core.enqueue(poor, 0, 7, now);
    assert!(matches!(core.grow(now), Growth::Evict { .. }));
    assert!(matches!(core.grow(now), Growth::Nothing));
    core.enqueue(poor, 0, 8, now);
    assert!(matches!(core.grow(now), Growth::Evict { .. }));
    assert!(matches!(core.grow(now), Growth::Nothing));
    core.vacate_for_others(rich);
    assert!(matches!(core.grow(now), Growth::Open(id) if id == poor));
    assert!(matches!(core.grow(now), Growth::Nothing));
    core.vacate_for_others(rich);
    assert!(matches!(core.grow(now), Growth::Open(id) if id == poor));
    assert_eq!((core.counts(rich).open, core.counts(poor).open), (2, 2));
}

#[test]
fn a_busy_pool_yields_to_one_that_starves() {
    let now = Instant::now();
    let mut core = core(2);
    let (busy, poor) = (core.add_pool(), core.add_pool());
    for _ in 0..2 {
        core.reserve(busy);
        core.opened(busy);
    }
    core.enqueue(busy, 0, 1, now);
    core.enqueue(poor, 0, 2, now);
    let soon = now + STARVING_AFTER / 2;
    assert!(matches!(core.give_back(busy, idle(1, 0, soon)), Given::Lend(1, 1)));
    core.enqueue(busy, 0, 3, soon);
    let late = now + STARVING_AFTER * 2;
    assert!(matches!(core.give_back(busy, idle(1, 0, late)), Given::Close(1)));
    core.vacate_for_others(busy);
    assert!(matches!(core.grow(late), Growth::Open(id) if id == poor));
}

#[test]
fn nothing_is_opened_before_the_time_to_retry() {
    let now = Instant::now();
    let mut core = core(2);
    let pool = core.add_pool();
    core.enqueue(pool, 0, 1, now);
    assert!(matches!(core.grow(now), Growth::Open(_)));
    let later = now + Duration::from_secs(1);
    core.open_failed(pool, later);
    assert!(matches!(core.grow(now), Growth::Nothing));
    assert!(matches!(core.grow(later), Growth::Open(_)));
}

#[derive(Clone, Debug)]
enum Step {
    Borrow { pool: usize, worker: usize },
    GiveBack(usize),
    Close(usize),
    FinishOpening(bool),
    Leave(usize),
    Advance(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..2_usize).prop_map(|(pool, worker)| Step::Borrow { pool, worker }),
        4 => any::<usize>().prop_map(Step::GiveBack),
        1 => any::<usize>().prop_map(Step::Close),
        3 => any::<bool>().prop_map(Step::FinishOpening),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => (0..300_u64).prop_map(Step::Advance),
    ]
}

/// A pool with everything that its owner would do, and the rules that must hold at any time.
struct World {
    core: TestCore,
    pools: Vec<PoolId>,
    lent: Vec<(PoolId, u32)>,
    opening: Vec<PoolId>,
    waiting: Vec<(PoolId, u32)>,
    next: u32,
    now: Instant,
}

impl World {
    fn new(budget: u32) -> Self {
        let mut core = core(budget);
        let pools = (0..3).map(|_| core.add_pool()).collect();
        Self {
            core,
            pools,
            lent: vec![],
            opening: vec![],
            waiting: vec![],
            next: 0,
            now: Instant::now(),
        }
    }

    fn give(&mut self, pool: PoolId, server: u32) {
        match self.core.give_back(pool, idle(server, 0, self.now)) {
            Given::Lend(server, waiter) => {
                let at = self.waiting.iter().position(|&(_, other)| other == waiter);
                let (waits_in, _) = self.waiting.remove(at.expect("only waiters are served"));
                assert_eq!(waits_in, pool, "a server of another pool was lent");
                self.lent.push((pool, server));
            }
            Given::Parked => {}
            Given::Close(_) => self.core.vacate_for_others(pool),
        }
    }

    fn grow(&mut self) {
        loop {
            match self.core.grow(self.now) {
                Growth::Open(pool) => self.opening.push(pool),
                Growth::Evict { from, .. } => self.core.vacate_for_others(from),
                Growth::Nothing => return,
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Borrow { pool, worker } => {
                let pool = self.pools[pool];
                match self.core.borrow(pool, worker, 0) {
                    Some(idle) => {
                        assert!(
                            self.waiting.iter().all(|&(other, _)| other != pool),
                            "a waiter was overtaken"
                        );
                        self.lent.push((pool, idle.server));
                    }
                    None => {
                        self.next += 1;
                        self.core.enqueue(pool, worker, self.next, self.now);
                        self.waiting.push((pool, self.next));
                    }
                }
            }
            Step::GiveBack(pick) if !self.lent.is_empty() => {
                let (pool, server) = self.lent.remove(pick % self.lent.len());
                self.give(pool, server);
            }
            Step::Close(pick) if !self.lent.is_empty() => {
                let (pool, _) = self.lent.remove(pick % self.lent.len());
                self.core.vacate(pool);
            }
            Step::FinishOpening(well) if !self.opening.is_empty() => {
                let pool = self.opening.remove(0);
                if well {
                    self.core.opened(pool);
                    self.next += 1;
                    self.give(pool, self.next);
                } else {
                    self.core.open_failed(pool, self.now + Duration::from_millis(50));
                }
            }
            Step::Leave(pick) if !self.waiting.is_empty() => {
                let (pool, waiter) = self.waiting.remove(pick % self.waiting.len());
                self.core.leave(pool, |other| *other == waiter);
            }
            Step::Advance(ms) => self.now += Duration::from_millis(ms),
            _ => {}
        }
        self.grow();
    }

    fn check(&self, budget: u32) {
        let counts: Vec<Counts> = self.pools.iter().map(|&pool| self.core.counts(pool)).collect();
        let open: u32 = counts.iter().map(|counts| counts.open).sum();
        assert_eq!(open, self.core.open());
        assert!(open <= budget, "{open} servers are open");
        assert_eq!(self.core.waiting(), self.waiting.len());
        for counts in &counts {
            assert!(
                counts.idle == 0 || counts.waiting == 0,
                "somebody waits beside an idle server"
            );
            assert!(counts.idle + counts.opening <= counts.open);
        }
        let idle: u32 = counts.iter().map(|counts| counts.idle).sum();
        let known = idle as usize + self.lent.len() + self.opening.len();
        assert_eq!(open as usize, known, "a server was lost");
    }
}

proptest! {
    /// Whatever happens in whatever order: the budget holds, nobody is forgotten, nothing is lost.
    #[test]
    fn the_rules_hold_under_any_interleaving(
        budget in 1..5_u32,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut world = World::new(budget);
        for step in &steps {
            world.step(step);
            world.check(budget);
        }
        // When everybody gives back and every opening ends well, nobody is left waiting.
        for _ in 0..1000 {
            if world.waiting.is_empty() {
                break;
            }
            world.step(&Step::Advance(200));
            world.step(&Step::FinishOpening(true));
            world.step(&Step::GiveBack(0));
            world.check(budget);
        }
        let counts: Vec<Counts> = world.pools.iter().map(|&pool| world.core.counts(pool)).collect();
        prop_assert!(world.waiting.is_empty(), "{} wait for ever: {counts:?}, {} lent", world.waiting.len(), world.lent.len());
    }
}
