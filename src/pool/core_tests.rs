//! Tests of the pool's rules, by example.

use super::room::STARVING_AFTER;
use super::*;

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
    assert!(matches!(core.give_back(pool, idle(server, 0, now)), Given::Parked { .. }));
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
    core.closed(rich);
    assert!(matches!(core.grow(now), Growth::Open(id) if id == poor));
}

#[test]
fn one_waiter_costs_another_pool_one_idle_server() {
    let now = Instant::now();
    let mut core = core(4);
    let (rich, poor) = (core.add_pool(), core.add_pool());
    for server in 1..=4 {
        open(&mut core, rich, server, now);
    }
    core.enqueue(poor, 0, 5, now);
    assert!(matches!(core.grow(now), Growth::Evict { server: 1, .. }));
    assert!(matches!(core.grow(now), Growth::Nothing), "its slot is on its way");
    for (turn, server) in [(1, 2), (2, 3)] {
        let late = now + CLOSING_SLOW * 2 * turn;
        let Growth::Evict { server: other, .. } = core.grow(late) else { panic!("no eviction") };
        assert_eq!(other, server, "it takes long");
        assert!(matches!(core.grow(late), Growth::Nothing), "one more, and not all");
    }
}

#[test]
fn a_smaller_budget_costs_as_many_servers_as_are_beyond_it() {
    let now = Instant::now();
    let mut core = core(5);
    let pool = core.add_pool();
    for server in 1..=3 {
        open(&mut core, pool, server, now);
    }
    for _ in 4..=5 {
        core.reserve(pool);
        core.opened(pool);
    }
    assert!(!core.reserve_proof(), "the budget is reached");
    core.set_limits(Limits { budget: 1, ..core.limits() });
    let idle_ones: Vec<u32> = core.take_surplus().into_iter().map(|(_, server)| server).collect();
    assert_eq!(idle_ones, [1, 2, 3]);
    assert!(core.take_surplus().is_empty());
    assert!(matches!(core.give_back(pool, idle(4, 0, now)), Given::Close(4)));
    // The four are not gone yet, but they will be: this one stays.
    assert!(matches!(core.give_back(pool, idle(5, 0, now)), Given::Parked { others_wait: false }));
    for _ in 0..4 {
        core.closed(pool);
    }
    assert_eq!((core.open(), core.counts(pool).idle), (1, 1));
}

/// A pool that has lent all `servers` of its own.
fn busy_pool(core: &mut TestCore, servers: u32) -> PoolId {
    let pool = core.add_pool();
    for _ in 0..servers {
        core.reserve(pool);
        core.opened(pool);
    }
    pool
}

#[test]
fn a_server_that_is_parked_while_others_wait_is_told_of() {
    let now = Instant::now();
    let mut core = core(1);
    let (rich, poor) = (busy_pool(&mut core, 1), core.add_pool());
    core.enqueue(poor, 0, 1, now);
    assert!(matches!(core.grow(now), Growth::Nothing), "nothing is idle");
    let given = core.give_back(rich, idle(1, 0, now));
    assert!(matches!(given, Given::Parked { others_wait: true }));
    assert!(matches!(core.grow(now), Growth::Evict { server: 1, .. }));
}

#[test]
fn a_busy_pool_yields_to_one_that_starves() {
    let now = Instant::now();
    let mut core = core(2);
    let (busy, poor) = (busy_pool(&mut core, 2), core.add_pool());
    core.enqueue(busy, 0, 1, now);
    core.enqueue(poor, 0, 2, now);
    let soon = now + STARVING_AFTER / 2;
    assert!(matches!(core.give_back(busy, idle(1, 0, soon)), Given::Lend(1, 1)));
    core.enqueue(busy, 0, 3, soon);
    let late = now + STARVING_AFTER * 2;
    assert!(matches!(core.give_back(busy, idle(1, 0, late)), Given::Close(1)));
    core.closed(busy);
    assert!(matches!(core.grow(late), Growth::Open(id) if id == poor));
}

#[test]
fn a_busy_pool_yields_no_more_than_others_lack_and_keeps_its_share() {
    let now = Instant::now();
    let late = now + STARVING_AFTER * 2;
    for (waiters, yielded) in [(1, 1), (2, 2), (8, 4)] {
        let mut core = core(8);
        let (busy, poor) = (busy_pool(&mut core, 8), core.add_pool());
        for waiter in 0..waiters {
            core.enqueue(poor, 0, waiter, now);
        }
        for waiter in 100..200 {
            core.enqueue(busy, 0, waiter, late);
        }
        let closed = (0..50).filter(|_| {
            // One that was lent on comes back again.
            matches!(core.give_back(busy, idle(1, 0, late)), Given::Close(_))
        });
        assert_eq!(closed.count(), yielded, "{waiters} wait");
    }
}

#[test]
fn one_more_is_yielded_where_a_server_on_its_way_out_takes_long() {
    let now = Instant::now();
    let mut core = core(3);
    let (busy, poor) = (busy_pool(&mut core, 3), core.add_pool());
    core.enqueue(poor, 0, 1, now);
    core.closing(busy);
    for waiter in 2..9 {
        core.enqueue(busy, 0, waiter, now);
    }
    let soon = now + STARVING_AFTER * 2;
    assert!(matches!(core.give_back(busy, idle(1, 0, soon)), Given::Lend(1, _)));
    let late = now + CLOSING_SLOW * 2;
    assert!(matches!(core.give_back(busy, idle(1, 0, late)), Given::Close(1)));
    assert!(matches!(core.give_back(busy, idle(2, 0, late)), Given::Lend(2, _)), "one is enough");
    core.closed(busy);
    assert!(matches!(core.grow(late), Growth::Open(id) if id == poor));
}

#[test]
fn nothing_is_yielded_to_a_pool_that_opens_nothing_for_now() {
    let now = Instant::now();
    let mut core = core(2);
    let (busy, poor) = (busy_pool(&mut core, 1), core.add_pool());
    core.enqueue(poor, 0, 1, now);
    assert!(matches!(core.grow(now), Growth::Open(id) if id == poor));
    let later = now + Duration::from_secs(5);
    core.open_failed(poor, later);
    core.reserve(busy);
    core.opened(busy);
    core.enqueue(busy, 0, 2, now);
    let late = now + STARVING_AFTER * 2;
    assert!(matches!(core.give_back(busy, idle(1, 0, late)), Given::Lend(1, 2)));
    core.enqueue(busy, 0, 3, now);
    assert!(matches!(core.give_back(busy, idle(1, 0, later)), Given::Close(1)));
}

#[test]
fn more_pools_than_servers_take_turns() {
    const POOLS: usize = 5;
    let mut now = Instant::now();
    for budget in [1, 3] {
        let mut core = core(budget);
        let pools: Vec<PoolId> = (0..POOLS).map(|_| core.add_pool()).collect();
        let mut lent = Vec::new();
        let mut served = [0; POOLS];
        // In each pool, whoever was served comes again at once.
        for &pool in &pools {
            for waiter in 0..3 {
                core.enqueue(pool, 0, waiter, now);
            }
        }
        for server in 0..budget {
            let Growth::Open(pool) = core.grow(now) else { panic!("there is room") };
            core.opened(pool);
            lent.push((pool, server));
        }
        for _ in 0..1000 {
            now += STARVING_AFTER / 10;
            let (pool, server) = lent.remove(0);
            match core.give_back(pool, idle(server, 0, now)) {
                Given::Lend(server, waiter) => {
                    served[pool.0] += 1;
                    core.enqueue(pool, 0, waiter, now);
                    lent.push((pool, server));
                }
                Given::Close(server) => {
                    core.closed(pool);
                    let Growth::Open(other) = core.grow(now) else { panic!("there is room") };
                    assert_ne!(other, pool, "it goes to another pool");
                    core.opened(other);
                    lent.push((other, server));
                }
                Given::Parked { .. } => panic!("somebody waits in each pool"),
            }
        }
        let (least, most) = (served.iter().min(), served.iter().max());
        assert!(*least.unwrap_or(&0) * 2 > *most.unwrap_or(&0), "{served:?} with {budget}");
    }
}

#[test]
fn a_pool_is_sure_only_of_what_is_not_held_beside_all_pools() {
    let now = Instant::now();
    let mut core = core(2);
    core.add_apart();
    let (busy, poor) = (busy_pool(&mut core, 1), core.add_pool());
    core.enqueue(poor, 0, 1, now);
    let late = now + STARVING_AFTER * 2;
    core.enqueue(busy, 0, 2, late);
    assert!(matches!(core.give_back(busy, idle(1, 0, late)), Given::Close(1)));
}

#[test]
fn a_failure_that_says_nothing_of_the_pool_does_not_shorten_its_pause() {
    let now = Instant::now();
    let mut core = core(2);
    let pool = core.add_pool();
    core.enqueue(pool, 0, 1, now);
    let later = now + Duration::from_secs(1);
    core.reserve(pool);
    core.reserve(pool);
    core.open_failed(pool, later);
    core.open_failed(pool, now);
    assert!(matches!(core.grow(now), Growth::Nothing));
    assert!(matches!(core.grow(later), Growth::Open(_)));
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
