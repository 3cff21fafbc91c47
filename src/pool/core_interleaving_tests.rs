//! Tests of the pool's rules under any interleaving.

use super::*;
use proptest::prelude::*;

type TestCore = Core<u32, u32>;

#[derive(Clone, Debug)]
enum Step {
    Borrow { pool: usize, worker: usize },
    GiveBack(usize),
    Close(usize),
    FinishOpening(bool),
    FinishClosing,
    SetBudget(u32),
    Leave(usize),
    Advance(u64),
    WaitForProof,
    LookForSlot,
    EndProof { adopted_by: Option<usize> },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_usize, 0..2_usize).prop_map(|(pool, worker)| Step::Borrow { pool, worker }),
        4 => any::<usize>().prop_map(Step::GiveBack),
        1 => any::<usize>().prop_map(Step::Close),
        3 => any::<bool>().prop_map(Step::FinishOpening),
        2 => Just(Step::FinishClosing),
        1 => (1..5_u32).prop_map(Step::SetBudget),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => (0..300_u64).prop_map(Step::Advance),
        1 => Just(Step::WaitForProof),
        2 => Just(Step::LookForSlot),
        1 => proptest::option::of(0..3_usize).prop_map(|adopted_by| Step::EndProof { adopted_by }),
    ]
}

/// A pool with everything that its owner would do, and the rules that must hold at any time.
struct World {
    core: TestCore,
    pools: Vec<PoolId>,
    lent: Vec<(PoolId, u32)>,
    opening: Vec<PoolId>,
    closing: Vec<PoolId>,
    waiting: Vec<(PoolId, u32)>,
    /// Those who wait for a slot to prove a token, and those who have one.
    provers: u32,
    proofs: u32,
    /// When pools whose servers could not be opened are looked at again.
    retries: Vec<Instant>,
    next: u32,
    now: Instant,
    /// Most servers that may be open.
    bound: u32,
}

impl World {
    fn new(budget: u32) -> Self {
        let mut core = Core::new(Limits { budget, opening_max: 4 }, 2);
        let pools = (0..3).map(|_| core.add_pool()).collect();
        Self {
            core,
            pools,
            lent: vec![],
            opening: vec![],
            closing: vec![],
            waiting: vec![],
            provers: 0,
            proofs: 0,
            retries: vec![],
            next: 0,
            now: Instant::now(),
            bound: budget,
        }
    }

    fn give(&mut self, pool: PoolId, server: u32) {
        let idle = Idle { server, fingerprint: 0, worker: 0, since: self.now };
        match self.core.give_back(pool, idle) {
            Given::Lend(server, waiter) => {
                let at = self.waiting.iter().position(|&(_, other)| other == waiter);
                let (waits_in, _) = self.waiting.remove(at.expect("only waiters are served"));
                assert_eq!(waits_in, pool, "a server of another pool was lent");
                self.lent.push((pool, server));
            }
            Given::Parked { others_wait } => {
                if others_wait {
                    self.grow();
                }
            }
            Given::Close(_) => self.closing.push(pool),
        }
    }

    /// A good-bye takes its time, during which the slot is not free.
    fn close(&mut self, pool: PoolId) {
        self.core.closing(pool);
        self.closing.push(pool);
    }

    fn grow(&mut self) {
        loop {
            match self.core.grow(self.now) {
                Growth::Open(pool) => self.opening.push(pool),
                Growth::Evict { from, .. } => self.closing.push(from),
                Growth::Nothing => return,
            }
        }
    }

    /// What its owner does at each step, and no more: nobody looks again by the way.
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
                        self.grow();
                    }
                }
            }
            Step::GiveBack(pick) if !self.lent.is_empty() => {
                let (pool, server) = self.lent.remove(pick % self.lent.len());
                self.give(pool, server);
            }
            Step::Close(pick) if !self.lent.is_empty() => {
                let (pool, _) = self.lent.remove(pick % self.lent.len());
                self.close(pool);
            }
            Step::FinishOpening(well) if !self.opening.is_empty() => {
                let pool = self.opening.remove(0);
                if well {
                    self.core.opened(pool);
                    self.next += 1;
                    self.give(pool, self.next);
                } else {
                    let retry_at = self.now + Duration::from_millis(50);
                    self.core.open_failed(pool, retry_at);
                    self.retries.push(retry_at);
                }
                self.grow();
            }
            Step::FinishClosing if !self.closing.is_empty() => {
                let pool = self.closing.remove(0);
                self.core.closed(pool);
                self.grow();
            }
            Step::SetBudget(budget) => {
                // What is open beyond a smaller budget stays until it can go, and nothing is added.
                self.bound = budget.max(self.core.open());
                self.core.set_limits(Limits { budget, ..self.core.limits() });
                let surplus = self.core.take_surplus();
                self.closing.extend(surplus.into_iter().map(|(pool, _)| pool));
                self.grow();
            }
            Step::Leave(pick) if !self.waiting.is_empty() => {
                let (pool, waiter) = self.waiting.remove(pick % self.waiting.len());
                self.core.leave(pool, |other| *other == waiter);
            }
            Step::Advance(ms) => {
                self.now += Duration::from_millis(ms);
                let now = self.now;
                if self.retries.extract_if(.., |at| *at <= now).count() > 0 {
                    self.grow();
                }
            }
            _ => self.prove(step),
        }
    }

    /// The steps of those who prove tokens.
    fn prove(&mut self, step: &Step) {
        match *step {
            Step::WaitForProof => {
                self.core.wait_for_proof();
                self.provers += 1;
            }
            Step::LookForSlot if self.provers > 0 => {
                if self.core.reserve_proof() {
                    self.proofs += 1;
                    self.provers -= 1;
                    self.core.give_up_proof();
                    self.grow();
                } else if let Some((from, _)) = self.core.evict_for_proof(self.now) {
                    self.closing.push(from);
                }
            }
            Step::EndProof { adopted_by } if self.proofs > 0 => {
                self.proofs -= 1;
                match adopted_by {
                    Some(pool) => {
                        self.core.adopt_proof(self.pools[pool]);
                        self.opening.push(self.pools[pool]);
                    }
                    None => {
                        self.core.vacate_proof();
                        self.grow();
                    }
                }
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        let counts: Vec<Counts> = self.pools.iter().map(|&pool| self.core.counts(pool)).collect();
        let servers: u32 = counts.iter().map(|counts| counts.open).sum();
        let open = servers + self.proofs;
        assert_eq!(open, self.core.open());
        let budget = self.core.limits().budget;
        assert!(open <= self.bound, "{open} servers are open, {budget} allowed");
        self.bound = budget.max(open);
        let closing = u32::try_from(self.closing.len()).expect("few");
        if open - closing > budget {
            let idle: u32 = counts.iter().map(|counts| counts.idle).sum();
            assert_eq!(idle, 0, "servers beyond the budget stay idle");
        }
        assert_eq!(self.core.waiting(), self.waiting.len());
        for counts in &counts {
            assert!(
                counts.idle == 0 || counts.waiting == 0,
                "somebody waits beside an idle server"
            );
            assert!(counts.idle + counts.opening <= counts.open);
        }
        let idle: u32 = counts.iter().map(|counts| counts.idle).sum();
        let known = idle as usize + self.lent.len() + self.opening.len() + self.closing.len();
        assert_eq!(servers as usize, known, "a server was lost");
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
            world.check();
        }
        // When everybody gives back and every opening ends well, nobody is left waiting.
        for _ in 0..1000 {
            if world.waiting.is_empty() && world.provers == 0 {
                break;
            }
            world.step(&Step::LookForSlot);
            world.step(&Step::EndProof { adopted_by: None });
            world.step(&Step::Advance(200));
            world.step(&Step::FinishOpening(true));
            world.step(&Step::FinishClosing);
            world.step(&Step::GiveBack(0));
            world.check();
        }
        let counts: Vec<Counts> = world.pools.iter().map(|&pool| world.core.counts(pool)).collect();
        prop_assert!(world.provers == 0, "{} wait to prove a token", world.provers);
        prop_assert!(world.waiting.is_empty(), "{} wait for ever: {counts:?}, {} lent", world.waiting.len(), world.lent.len());
    }
}
