//! Being one of several: the control connection, and the share that is in force.
//!
//! The rules are in [`crate::target::share`]; here they are carried out against the pools. When the
//! control connection is lost, the share stays as it is for as long as the others leave it alone.

use super::health::{AWAY_PAUSE_MAX, AWAY_PAUSE_MIN, Health};
use crate::config::{self, FleetShare};
use crate::server::connect::ConnectError;
use crate::target::ProbeError;
use crate::target::control::{Control, View};
use crate::target::share::{Announcement, Member, Sight};
use crate::telemetry::clock;
use crate::telemetry::metrics::FleetNumbers;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Pause between two looks while everything is in its place.
const CALM_PAUSE: Duration = Duration::from_secs(1);

/// The same while shares move: others wait for what this one gives back.
const MOTION_PAUSE: Duration = Duration::from_millis(200);

/// How long nothing is taken of what a member leaves that is not seen any more: it may have lost its
/// control connection only, and return. Who joins cannot know whether there is such a member, and has its
/// own control connection and nothing else for as long.
const LEAVE_GRACE: Duration = Duration::from_secs(3);

/// How long after its last look a member is sure that the others leave its share alone. With
/// [`HOLD_INTERVAL`] and the time of that look, less than [`LEAVE_GRACE`].
const SEEN_FOR: Duration = Duration::from_millis(2500);

/// How often it is looked whether that time is over.
const HOLD_INTERVAL: Duration = Duration::from_millis(200);

const _: () = assert!(SEEN_FOR.as_millis() + HOLD_INTERVAL.as_millis() < LEAVE_GRACE.as_millis());

/// How long a member that lost sight itself takes nothing more: after a failover, the others need
/// up to their longest pause to return.
const RETURN_GRACE: Duration = Duration::from_secs(7);

/// This pgweir as a member of a fleet.
pub(super) struct Fleet {
    name: String,
    /// As whom alone the members know each other.
    user: Option<String>,
    state: Mutex<State>,
}

struct State {
    share: FleetShare,
    member: Member,
    /// The other members that were seen last, in the order of their ids; `None` before the first look.
    seen: Option<Vec<u32>>,
    /// The fleet's budget, as far as it is known.
    budget: Option<u32>,
    /// Nothing more is taken before this.
    grows_from: Option<Instant>,
    /// When the last look began that went well.
    looked: Option<Instant>,
}

impl State {
    /// Members that were seen last, this one included; zero before the first look.
    fn tasks(&self) -> u32 {
        let number = |others: &Vec<u32>| u32::try_from(others.len()).unwrap_or(u32::MAX);
        self.seen.as_ref().map_or(0, |others| number(others).saturating_add(1))
    }

    /// Notes who is seen now, in the order of ids. False if somebody may be there who is not.
    fn sees(&mut self, others: Vec<u32>) -> bool {
        let is_seen = |id: &u32| others.binary_search(id).is_ok();
        let all = self.seen.as_ref().is_some_and(|before| before.iter().all(is_seen));
        self.seen = Some(others);
        all
    }

    /// The share in connections, if it does not depend on how many members there are.
    fn fixed(&self) -> Option<u32> {
        match self.share {
            FleetShare::Equal => None,
            FleetShare::Connections(connections) => Some(connections.get()),
            FleetShare::Percent(percent) => {
                let part = u64::from(self.budget?) * u64::from(percent) / 100;
                Some(u32::try_from(part).unwrap_or(u32::MAX).max(1))
            }
        }
    }
}

impl Fleet {
    /// `None` where no fleet is configured.
    pub(super) fn of(config: &config::Fleet) -> Option<Self> {
        let member = Member::new(random());
        let state = State {
            share: config.share,
            member,
            seen: None,
            budget: None,
            grows_from: None,
            looked: None,
        };
        let (name, user) = (config.name.clone(), config.user.clone());
        (!name.is_empty()).then(|| Self { name, user, state: Mutex::new(state) })
    }

    /// Takes over a changed share; in force after the next look.
    pub(super) fn set_share(&self, share: FleetShare) {
        self.state.lock().share = share;
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn numbers(&self) -> FleetNumbers {
        let state = self.state.lock();
        FleetNumbers { tasks: state.tasks(), share: state.member.in_force() }
    }

    fn announcement(&self, open: u32) -> Announcement {
        let state = self.state.lock();
        state.member.announcement(open, state.fixed())
    }

    fn lost(&self) {
        self.state.lock().member.lost();
    }

    fn returned(&self) {
        self.state.lock().grows_from = clock::now().checked_add(RETURN_GRACE);
    }

    /// What is in force for a member that the others may take for gone; `None` for one that they see.
    fn hold_back(&self, open: u32) -> Option<u32> {
        let mut state = self.state.lock();
        if clock::now().saturating_duration_since(state.looked?) < SEEN_FOR {
            return None;
        }
        state.member.hold_back(open);
        Some(state.member.in_force())
    }

    /// Acts on what is seen by a look that began at `begun`. Yields what is in force now.
    fn look(&self, view: &View, begun: Instant, budget: u32, open: u32) -> u32 {
        let now = clock::now();
        let mut state = self.state.lock();
        state.looked = Some(begun);
        let own = state.member.id();
        let mut sight = Sight::new(budget, view.free, own, view.announcements.iter().copied());
        let before = (state.tasks(), state.member.in_force());
        if !state.sees(sight.others.iter().map(|other| other.id).collect()) {
            state.grows_from = now.checked_add(LEAVE_GRACE).max(state.grows_from);
        }
        if state.grows_from.is_some_and(|from| now < from) {
            sight.free = 0;
        }
        state.budget = Some(budget);
        let fixed = state.fixed();
        let share = state.member.look(&sight, open, fixed);
        let tasks = state.tasks();
        if before != (tasks, share) {
            tracing::info!(
                fleet = %self.name,
                tasks,
                share,
                budget,
                max_connections = view.capacity.max_connections,
                "share of the fleet's budget"
            );
        }
        share
    }

    /// Until the next look, which is not long after more may be taken.
    fn pause(&self, open: u32) -> Duration {
        let state = self.state.lock();
        let pause = spread(if state.member.in_motion(open) { MOTION_PAUSE } else { CALM_PAUSE });
        let now = clock::now();
        state.grows_from.filter(|from| now < *from).map_or(pause, |from| pause.min(from - now))
    }
}

impl Health {
    /// Keeps the control connection and takes the share that it shows, until dropped.
    pub(super) async fn watch_as_member(&self, fleet: &Fleet) {
        tokio::join!(self.keep_control(fleet), self.hold_back(fleet));
    }

    /// Opens nothing more while the others may have taken this member for gone.
    async fn hold_back(&self, fleet: &Fleet) {
        let pools = &self.shared.pools;
        let mut interval = tokio::time::interval(HOLD_INTERVAL);
        loop {
            interval.tick().await;
            if let Some(most) = fleet.hold_back(pools.open_connections())
                && most != pools.budget()
            {
                pools.set_budget(most);
            }
        }
    }

    async fn keep_control(&self, fleet: &Fleet) {
        let pools = &self.shared.pools;
        let mut pause = AWAY_PAUSE_MIN;
        let mut joined = false;
        loop {
            let lost = match self.open_control().await {
                Ok(control) => {
                    pause = AWAY_PAUSE_MIN;
                    if joined {
                        fleet.returned();
                    } else {
                        // The control connection's own slot, which stays reserved from now on.
                        pools.add_apart();
                        pools.set_budget(fleet.numbers().share);
                        joined = true;
                    }
                    self.attend(fleet, control).await
                }
                Err(error) => Some(error),
            };
            fleet.lost();
            let Some(mut error) = lost else { continue };
            self.missed(&error);
            if let Some(overdue) = error.take_overdue() {
                // One at a time: the target counts it for as long.
                overdue.ended().await;
            }
            tokio::time::sleep(spread(pause)).await;
            pause = (pause * 2).min(AWAY_PAUSE_MAX);
        }
    }

    /// True if the one who is logged in there has no secret any more that can be used, and others have: members that
    /// come later do not know that user.
    fn must_be_another(&self, control: &Control) -> bool {
        let mut users = self.logins().map(|(_, user)| user).peekable();
        users.peek().is_some() && users.all(|user| user != control.user())
    }

    async fn open_control(&self) -> Result<Control, ProbeError> {
        let endpoint = self.shared.pools.endpoint();
        let mut last = ProbeError::from(ConnectError::NoCredential);
        for (database, user) in self.logins() {
            match Control::open(&endpoint, &database, &self.shared.credentials, &user).await {
                Ok(control) => return Ok(control),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => last = last.or_later(error),
            }
        }
        Err(last)
    }

    /// Looks around now and then, until the control connection fails. `None` where it is closed, to be opened as
    /// another user.
    async fn attend(&self, fleet: &Fleet, mut control: Control) -> Option<ProbeError> {
        let pools = &self.shared.pools;
        loop {
            if self.must_be_another(&control) {
                control.close().await;
                return None;
            }
            let begun = clock::now();
            let own = fleet.announcement(pools.open_connections());
            let view = match control.look(&fleet.name, fleet.user(), &own).await {
                Ok(view) => view,
                Err(error) => return Some(error),
            };
            self.reached(view.writable);
            let budget = view.capacity.budget(self.configured());
            let share = fleet.look(&view, begun, budget, pools.open_connections());
            if share != pools.budget() {
                pools.set_budget(share);
            }
            tokio::time::sleep(fleet.pause(pools.open_connections())).await;
        }
    }
}

/// A little more or less, so that members do not act in step.
fn spread(pause: Duration) -> Duration {
    pause * (75 + random() % 50) / 100
}

fn random() -> u32 {
    let mut bytes = [0_u8; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u32::from_le_bytes(bytes),
        // All that is asked of the number is that others have another one.
        Err(_) => std::process::id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Capacity;

    const BUDGET: u32 = 27;

    fn member(share: FleetShare) -> Fleet {
        let name = "orders".to_owned();
        Fleet::of(&config::Fleet { name, user: None, share }).expect("it has a name")
    }

    /// A target with nothing taken, and these other members, who hold so much each.
    fn view(others: &[u32]) -> View {
        let numbered: Vec<_> = (1..).zip(others.iter().copied()).collect();
        view_of(&numbered)
    }

    /// The same with the others' ids.
    fn view_of(others: &[(u32, u32)]) -> View {
        let capacity =
            Capacity { max_connections: 30, reserved: 3, in_recovery: false, version: 160_001 };
        let other = |&(id, held): &(u32, u32)| Announcement { id, held, fixed: None };
        let announcements = others.iter().map(other).collect();
        View { capacity, writable: true, free: BUDGET, announcements }
    }

    /// Looks often enough for all that is to be had.
    fn settle(fleet: &Fleet, others: &[u32]) -> u32 {
        settle_on(fleet, &view(others))
    }

    fn settle_on(fleet: &Fleet, view: &View) -> u32 {
        (0..3).fold(0, |_, _| fleet.look(view, clock::now(), BUDGET, 1))
    }

    /// One that has been there for long enough to take its share.
    async fn joined(share: FleetShare) -> Fleet {
        let fleet = member(share);
        fleet.look(&view(&[13]), clock::now(), BUDGET, 1);
        tokio::time::advance(LEAVE_GRACE).await;
        fleet
    }

    #[test]
    fn without_a_name_there_is_no_fleet() {
        let (name, share) = (String::new(), FleetShare::Equal);
        assert!(Fleet::of(&config::Fleet { name, user: None, share }).is_none());
    }

    /// Another member may just have lost its control connection, and opens what it holds for a while.
    #[tokio::test(start_paused = true)]
    async fn who_joins_takes_nothing_before_all_can_be_seen() {
        let fleet = member(FleetShare::Equal);
        assert_eq!(settle(&fleet, &[13]), 1);
        tokio::time::advance(LEAVE_GRACE.saturating_sub(MOTION_PAUSE)).await;
        assert_eq!(settle(&fleet, &[13]), 1);
        assert_eq!(fleet.pause(1), MOTION_PAUSE, "it looks again when it may take something");
        tokio::time::advance(MOTION_PAUSE).await;
        assert_eq!(settle(&fleet, &[13]), 13);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_goes_is_missed_also_where_another_one_comes() {
        let fleet = joined(FleetShare::Equal).await;
        let before = view_of(&[(1, 13), (2, 8)]);
        assert_eq!(settle_on(&fleet, &before), 5, "as much as the others leave");
        let after = view_of(&[(1, 13), (3, 1)]);
        assert_eq!(settle_on(&fleet, &after), 5);
        tokio::time::advance(LEAVE_GRACE).await;
        assert_eq!(settle_on(&fleet, &after), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_member_leaves_is_taken_after_a_while() {
        let fleet = joined(FleetShare::Equal).await;
        assert_eq!(settle(&fleet, &[13]), 13);
        assert_eq!(fleet.numbers(), FleetNumbers { tasks: 2, share: 13 });
        assert_eq!(settle(&fleet, &[]), 13, "it may return");
        tokio::time::advance(LEAVE_GRACE).await;
        assert_eq!(settle(&fleet, &[]), 26);
        assert_eq!(settle(&fleet, &[13]), 13, "giving back waits for nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_lost_sight_keeps_its_share_and_lets_the_others_return() {
        let fleet = joined(FleetShare::Equal).await;
        assert_eq!(settle(&fleet, &[13]), 13);
        fleet.lost();
        assert_eq!(fleet.announcement(9).held, 13);
        fleet.returned();
        tokio::time::advance(RETURN_GRACE / 2).await;
        assert_eq!(settle(&fleet, &[]), 13);
        tokio::time::advance(RETURN_GRACE / 2).await;
        assert_eq!(settle(&fleet, &[]), 26);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_opens_nothing_more_from_when_the_others_may_take_its_share() {
        assert_eq!(member(FleetShare::Equal).hold_back(1), None, "it has not joined");
        let fleet = joined(FleetShare::Equal).await;
        assert_eq!(settle(&fleet, &[13]), 13);
        tokio::time::advance(CALM_PAUSE * 5 / 4).await;
        assert_eq!(fleet.hold_back(9), None, "the next look is still on its way");
        tokio::time::advance(SEEN_FOR).await;
        assert_eq!(fleet.hold_back(9), Some(9));
        fleet.lost();
        assert_eq!(fleet.hold_back(2), Some(2));
        fleet.returned();
        assert_eq!(fleet.look(&view(&[26]), clock::now(), BUDGET, 2), 2);
        assert_eq!(fleet.hold_back(2), None);
        assert_eq!(
            settle(&fleet, &[13]),
            2,
            "of what others left it takes nothing before the grace"
        );
        tokio::time::advance(RETURN_GRACE).await;
        assert_eq!(settle(&fleet, &[13]), 13);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_announced_as_soon_as_the_budget_is_known() {
        let fleet = member(FleetShare::Percent(50));
        assert_eq!(fleet.announcement(1).fixed, None);
        fleet.look(&view(&[]), clock::now(), BUDGET, 1);
        assert_eq!(fleet.announcement(1).fixed, Some(13));
        tokio::time::advance(LEAVE_GRACE).await;
        assert_eq!(settle(&fleet, &[]), 13);
        fleet.set_share(FleetShare::Equal);
        assert_eq!(settle(&fleet, &[]), 26);
    }
}
