//! Tests of a fleet's rules: by example, and for any sequence of members that come, act and go.

use super::*;
use proptest::prelude::*;

fn equal(id: u32, held: u32) -> Announcement {
    Announcement { id, held, fixed: None }
}

fn sight(budget: u32, others: &[Announcement]) -> Sight {
    Sight::new(budget, budget, 0, others.iter().copied())
}

#[test]
fn an_announcement_is_read_as_it_was_written() {
    for fixed in [None, Some(0), Some(HELD_MAX)] {
        let said = Announcement { id: 0xab, held: 12, fixed };
        assert_eq!(Announcement::read(&said.text("orders"), "orders"), Some(said));
    }
    assert_eq!(equal(0xab, 12).text("orders"), "pgweir:orders:000000ab:12");
    let longest = Announcement { id: u32::MAX, held: u32::MAX, fixed: Some(u32::MAX) };
    assert_eq!(longest.text(&"f".repeat(32)).len(), 62, "PostgreSQL cuts after 63 bytes");
}

#[test]
fn what_is_no_announcement_of_the_fleet_is_not_read() {
    for text in [
        "",
        "psql",
        "pgweir:orders",
        "pgweir:orders:000000ab",
        "pgweir:orders:000000ab:",
        "pgweir:orders:000000ab:-1",
        "pgweir:orders:000000ab:+1",
        "pgweir:orders:000000ab:12 ",
        "pgweir:orders:000000ab:12/",
        "pgweir:orders:000000ab:12/3/4",
        "pgweir:orders:ab:12",
        "pgweir:orders:+00000ab:12",
        "pgweir:orders:000000ab:262144",
        "pgweir:orders:000000ab:99999999999999",
        "pgweir:orders2:000000ab:12",
        "pgweir:orders:x:000000ab:12",
    ] {
        assert_eq!(Announcement::read(text, "orders"), None, "{text}");
    }
}

#[test]
fn one_member_takes_all_but_the_door() {
    let mut member = Member::new(7);
    let alone = sight(27, &[]);
    assert_eq!(member.look(&alone, 1, None), 1, "nothing is taken before it is announced");
    assert_eq!(member.announcement(1, None).held, 26);
    assert_eq!(member.look(&alone, 1, None), 26);
    assert!(!member.in_motion(20));
}

#[test]
fn shares_use_up_the_room() {
    for budget in [3, 10, 27, 84, 85, 86, 87] {
        for members in 1..=10_u32 {
            let of = |id: u32| {
                let others = (1..=members).filter(|other| *other != id).map(|id| equal(id, 1));
                Sight::new(budget, 0, id, others).share(id, None)
            };
            let shares: Vec<u32> = (1..=members).map(of).collect();
            let sum: u32 = shares.iter().sum();
            assert_eq!(sum, (budget - DOOR).max(members), "{shares:?}");
            assert!(shares.is_sorted_by(|a, b| a >= b) && shares[0] - shares.last().unwrap() <= 1);
        }
    }
}

#[test]
fn the_smallest_budget_that_serves_anybody_has_no_door() {
    assert_eq!(sight(2, &[]).share(1, None), 2);
    assert_eq!(sight(1, &[]).share(1, None), 1);
}

#[test]
fn a_fixed_share_comes_off_before_the_rest_is_divided() {
    let fixed = Announcement { id: 3, held: 1, fixed: Some(10) };
    assert_eq!(sight(31, &[fixed, equal(4, 1)]).share(1, None), 10);
    assert_eq!(sight(31, &[equal(4, 1)]).share(1, Some(10)), 10);
    assert_eq!(sight(31, &[]).share(1, Some(100)), 30, "not more than there is");
    assert_eq!(sight(31, &[Announcement { fixed: Some(100), ..fixed }]).share(1, None), 1);
}

#[test]
fn a_member_that_joins_waits_until_the_others_have_given_back() {
    let mut joins = Member::new(2);
    let busy = sight(27, &[equal(1, 26)]);
    assert_eq!(joins.look(&busy, 1, None), 1);
    assert!(!joins.in_motion(1));
    // The other one has ended some of its connections, and is still on its way to its share of 13.
    assert_eq!(joins.look(&sight(27, &[equal(1, 20)]), 1, None), 1);
    assert_eq!(joins.announcement(1, None).held, 6);
    assert_eq!(joins.look(&sight(27, &[equal(1, 18)]), 1, None), 6);
    assert_eq!(joins.look(&sight(27, &[equal(1, 13)]), 1, None), 8);
    assert_eq!(joins.look(&sight(27, &[equal(1, 13)]), 1, None), 13);
}

#[test]
fn a_member_that_gives_back_holds_what_is_still_open() {
    let mut member = Member { id: 1, in_force: 26, asked: 26, unseen: false };
    assert_eq!(member.look(&sight(27, &[equal(2, 1)]), 26, None), 13);
    assert_eq!(member.announcement(24, None).held, 24);
    assert!(member.in_motion(24));
    assert_eq!(member.announcement(9, None).held, 13);
    assert!(!member.in_motion(9));
}

#[test]
fn nothing_is_asked_for_that_the_target_does_not_have() {
    let mut member = Member { id: 1, in_force: 5, asked: 5, unseen: false };
    let crowded = Sight { free: 2, ..sight(27, &[]) };
    assert_eq!(member.look(&crowded, 5, None), 5);
    assert_eq!(member.announcement(5, None).held, 7);
    assert_eq!(member.look(&Sight { free: 0, ..crowded }, 5, None), 7);
    assert!(!member.in_motion(5), "nor does it give up what it has");
}

#[test]
fn a_member_that_lost_sight_keeps_its_share_and_does_not_grow() {
    let mut member = Member { id: 1, in_force: 5, asked: 13, unseen: false };
    member.lost();
    assert_eq!(member.in_force(), 5);
    assert_eq!(member.announcement(3, None).held, 5);
}

#[test]
fn what_the_others_took_meanwhile_is_not_opened_again_by_a_member_that_was_unseen() {
    let mut member = Member { id: 1, in_force: 13, asked: 13, unseen: false };
    member.lost();
    member.hold_back(9);
    assert_eq!(member.in_force(), 9);
    // Its connections end as well, and none of them may be opened anew.
    member.hold_back(1);
    member.hold_back(4);
    member.lost();
    assert_eq!(member.in_force(), 1);
    // It is back, and the other one has it all.
    assert_eq!(member.announcement(1, None).held, 13);
    assert_eq!(member.look(&Sight { free: 0, ..sight(27, &[equal(2, 26)]) }, 1, None), 1);
    assert_eq!(member.look(&sight(27, &[equal(2, 20)]), 1, None), 1);
    assert_eq!(member.announcement(1, None).held, 6);
    assert_eq!(member.look(&sight(27, &[equal(2, 13)]), 1, None), 6);
}

/// As after a failover: nobody waits until the others are back.
#[test]
fn what_nobody_took_meanwhile_is_in_force_again_with_the_first_look() {
    for others in [&[][..], &[equal(2, 13)]] {
        let mut member = Member { id: 1, in_force: 13, asked: 13, unseen: false };
        member.hold_back(1);
        member.lost();
        assert_eq!(member.announcement(1, None).held, 13);
        assert_eq!(member.look(&Sight { free: 0, ..sight(27, others) }, 1, None), 13);
    }
}

#[test]
fn of_two_announcements_with_one_id_the_greater_counts() {
    let seen = [equal(2, 3), equal(1, 9), equal(2, 8), equal(0, 5)];
    let sight = Sight::new(27, 0, 0, seen.into_iter());
    assert_eq!(sight.others, [equal(1, 9), equal(2, 8)]);
}

/// What may happen to a fleet, in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join {
        fixed: Option<u32>,
    },
    Leave(usize),
    /// The control connection ends; the servers stay.
    Lose(usize),
    /// That was long ago.
    HoldBack(usize),
    /// It connects anew.
    Return(usize),
    Announce(usize),
    Look(usize),
    /// So many connections are opened, as far as that is allowed.
    Open(usize, u32),
    /// So many connections end.
    Close(usize, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let pick = any::<usize>;
    prop_oneof![
        1 => prop_oneof![3 => Just(None), 1 => (1..30_u32).prop_map(Some)]
            .prop_map(|fixed| Step::Join { fixed }),
        1 => pick().prop_map(Step::Leave),
        1 => pick().prop_map(Step::Lose),
        1 => pick().prop_map(Step::HoldBack),
        2 => pick().prop_map(Step::Return),
        6 => pick().prop_map(Step::Announce),
        6 => pick().prop_map(Step::Look),
        4 => (pick(), 1..30_u32).prop_map(|(pick, number)| Step::Open(pick, number)),
        4 => (pick(), 1..30_u32).prop_map(|(pick, number)| Step::Close(pick, number)),
    ]
}

#[derive(Debug)]
struct Task {
    member: Member,
    fixed: Option<u32>,
    /// Its connections, the control connection included.
    open: u32,
    /// What stands in `pg_stat_activity`; `None` without a control connection.
    announced: Option<Announcement>,
    /// An announcement was made since the last look.
    may_look: bool,
}

/// A target with as many connections as the budget has, and its fleet.
struct World {
    budget: u32,
    tasks: Vec<Task>,
    next: u32,
}

impl World {
    fn open(&self) -> u32 {
        self.tasks.iter().map(|task| task.open).sum()
    }

    fn step(&mut self, step: Step) {
        let count = self.tasks.len().max(1);
        let free = self.budget - self.open();
        let seen: Vec<_> = self.tasks.iter().filter_map(|task| task.announced).collect();
        match step {
            Step::Join { fixed } if free > 0 => {
                self.next = self.next.wrapping_mul(0x9E37_79B1).wrapping_add(1);
                let member = Member::new(self.next);
                let announced = Some(member.announcement(1, fixed));
                self.tasks.push(Task { member, fixed, open: 1, announced, may_look: true });
            }
            Step::Leave(pick) if !self.tasks.is_empty() => {
                self.tasks.swap_remove(pick % count);
            }
            Step::Lose(pick) => {
                if let Some(task) = self.tasks.get_mut(pick % count)
                    && task.announced.take().is_some()
                {
                    task.member.lost();
                    task.open -= 1;
                    task.may_look = false;
                }
            }
            // Also where the control connection is not lost: a look may only take long.
            Step::HoldBack(pick) => {
                if let Some(task) = self.tasks.get_mut(pick % count) {
                    task.member.hold_back(task.open);
                }
            }
            Step::Return(pick) if free > 0 => {
                if let Some(task) = self.tasks.get_mut(pick % count)
                    && task.announced.is_none()
                {
                    task.open += 1;
                    task.announced = Some(task.member.announcement(task.open, task.fixed));
                    task.may_look = true;
                }
            }
            Step::Announce(pick) => {
                if let Some(task) = self.tasks.get_mut(pick % count)
                    && task.announced.is_some()
                {
                    task.announced = Some(task.member.announcement(task.open, task.fixed));
                    task.may_look = true;
                }
            }
            Step::Look(pick) => {
                if let Some(task) = self.tasks.get_mut(pick % count)
                    && std::mem::take(&mut task.may_look)
                {
                    let id = task.member.id();
                    let sight = Sight::new(self.budget, free, id, seen.into_iter());
                    task.member.look(&sight, task.open, task.fixed);
                }
            }
            Step::Open(pick, number) => {
                if let Some(task) = self.tasks.get_mut(pick % count) {
                    let allowed = task.member.in_force().saturating_sub(task.open);
                    // What the target does not have, it refuses with 53300.
                    task.open += number.min(allowed).min(free);
                }
            }
            Step::Close(pick, number) => {
                if let Some(task) = self.tasks.get_mut(pick % count) {
                    let control = u32::from(task.announced.is_some());
                    task.open = task.open.saturating_sub(number).max(control);
                }
            }
            Step::Join { .. } | Step::Leave(_) | Step::Return(_) => {}
        }
    }

    /// What the members hold or may open. Those that wait for their first connection beside the
    /// control connection do so outside the room, and through the door.
    fn held(&self) -> u32 {
        self.tasks.iter().map(|task| task.member.in_force().max(task.open)).sum()
    }

    /// What members hold that have more than a control connection.
    fn taken(&self) -> u32 {
        let takes = |task: &&Task| task.member.in_force() > 1;
        self.tasks.iter().filter(takes).map(|task| task.member.in_force().max(task.open)).sum()
    }
}

#[test]
fn a_member_that_nobody_sees_is_not_in_motion_for_what_it_had_before() {
    let mut member = Member::new(1);
    let alone = Sight::new(10, 10, 1, std::iter::empty());
    member.look(&alone, 1, None);
    assert!(member.in_motion(1), "it wants more");
    member.look(&alone, 1, None);
    assert!(member.in_force() > 1);
    member.hold_back(1);
    assert!(!member.in_motion(1) && member.in_motion(2));
}

proptest! {
    /// Whatever members do in whatever order while they see each other, the sum of what they may
    /// have open never passes the budget.
    #[test]
    fn the_sum_of_shares_in_force_never_passes_the_budget(
        budget in 3..40_u32,
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let mut world = World { budget, tasks: Vec::new(), next: 0 };
        for step in steps {
            if matches!(step, Step::Lose(_)) {
                continue;
            }
            world.step(step);
            prop_assert!(world.taken() <= budget, "{:?}", world.tasks);
            prop_assert!(world.open() <= budget, "{:?}", world.tasks);
        }
    }

    /// And whatever happened before, members that see each other come to rest with all of the room
    /// in use, each with its share.
    #[test]
    fn a_fleet_comes_to_rest_with_all_shares_in_use(
        budget in 3..40_u32,
        steps in proptest::collection::vec(step(), 0..300),
    ) {
        let mut world = World { budget, tasks: Vec::new(), next: 0 };
        for step in steps {
            world.step(step);
        }
        for _ in 0..8 {
            for pick in 0..world.tasks.len() {
                for step in [
                    Step::Return(pick),
                    Step::Announce(pick),
                    Step::Look(pick),
                    // Transactions end.
                    Step::Close(pick, u32::MAX),
                ] {
                    world.step(step);
                }
            }
        }
        // More members than connections cannot all see each other.
        let seen = world.tasks.iter().all(|task| task.announced.is_some());
        let all_equal = seen && world.tasks.iter().all(|task| task.fixed.is_none());
        if all_equal && !world.tasks.is_empty() {
            let members = u32::try_from(world.tasks.len()).expect("few");
            prop_assert_eq!(world.held(), (budget - DOOR).max(members), "{:?}", world.tasks);
        }
        for task in &world.tasks {
            prop_assert!(!task.member.in_motion(task.open), "{:?}", world.tasks);
        }
    }
}
