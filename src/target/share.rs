//! The part of one target's budget that a member of a fleet takes: rules as plain functions.
//!
//! Every member announces in the `application_name` of its control connection how many connections
//! it *holds*: those that are open and those that it may open. All members read all announcements
//! in `pg_stat_activity`, and nobody coordinates them. A member takes more in two steps: it first
//! announces what it wants as held, then looks at what the others hold, and takes only what the
//! budget leaves. Of two that do so at once, at least one sees the other, so that the sum of what
//! members may open never passes the budget. It takes less in two steps as well: it stops opening,
//! and announces less as its connections end.
//!
//! Whom nobody sees any more, the others soon take for gone, and take what it held. So a member that
//! has not looked for as long as that takes opens nothing beyond what it has open. What it had before
//! is what it asks for when it is back.
//!
//! One connection of the budget is left to nobody: through it the next member finds its way in
//! while the others hold all the rest. (With a budget of two there is none to spare.)

use std::fmt;

/// What every announcement begins with.
const PREFIX: &str = "pgweir";

/// Most connections that an announcement may hold: PostgreSQL's own limit. More is a lie or a typo.
const HELD_MAX: u32 = 262_143;

/// Connections of the budget that are left to a member which is about to join.
const DOOR: u32 = 1;

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its number, which no other member has.
    pub id: u32,
    /// Connections that are open or that it may open, its control connection included.
    pub held: u32,
    /// What it wants, however many others there are; `None` = as much as the others.
    pub fixed: Option<u32>,
}

/// What all announcements of a fleet begin with.
#[must_use]
pub fn prefix(fleet: &str) -> String {
    format!("{PREFIX}:{fleet}:")
}

impl Announcement {
    /// The text for `application_name`: `pgweir:<fleet>:<id>:<held>`, with `/<fixed>` after it.
    /// At most 63 bytes, beyond which PostgreSQL cuts, with a fleet's name of at most 32.
    #[must_use]
    pub fn text(&self, fleet: &str) -> String {
        format!("{}{self}", prefix(fleet))
    }

    /// Reads a text of [`Announcement::text`]; `None` if it is something else.
    #[must_use]
    pub fn read(text: &str, fleet: &str) -> Option<Self> {
        let rest = text.strip_prefix(&prefix(fleet))?;
        let (id, numbers) = rest.split_once(':')?;
        let (held, fixed) = match numbers.split_once('/') {
            Some((held, fixed)) => (held, Some(fixed)),
            None => (numbers, None),
        };
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if plain { text.parse().ok().filter(|number| *number <= HELD_MAX) } else { None }
        };
        let plain = id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = plain.then(|| u32::from_str_radix(id, 16).ok())??;
        let fixed = match fixed {
            Some(fixed) => Some(number(fixed)?),
            None => None,
        };
        Some(Self { id, held: number(held)?, fixed })
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}:{}", self.id, self.held.min(HELD_MAX))?;
        self.fixed.map_or(Ok(()), |fixed| write!(f, "/{}", fixed.min(HELD_MAX)))
    }
}

/// What a member sees in one look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Connections that all members may have together.
    pub budget: u32,
    /// Connections that the target has left for anybody.
    pub free: u32,
    /// The other members, each once.
    pub others: Vec<Announcement>,
}

impl Sight {
    /// Sorts out the announcements: those of others, one of each. Of two with one id, as they are
    /// seen while a member connects anew, the one that holds more counts.
    #[must_use]
    pub fn new(budget: u32, free: u32, own: u32, seen: impl Iterator<Item = Announcement>) -> Self {
        let mut others: Vec<_> = seen.filter(|other| other.id != own).collect();
        others.sort_by_key(|other| (other.id, std::cmp::Reverse(other.held)));
        others.dedup_by_key(|other| other.id);
        Self { budget, free, others }
    }

    /// What members may hold together.
    fn room(&self) -> u32 {
        if self.budget > 1 + DOOR { self.budget - DOOR } else { self.budget.max(1) }
    }

    /// What the others leave of it.
    fn left(&self) -> u32 {
        let held = |sum: u32, other: &Announcement| sum.saturating_add(other.held);
        self.room().saturating_sub(self.others.iter().fold(0, held))
    }

    /// The share of the member `id`: at least its control connection.
    ///
    /// What cannot be divided goes to the lowest ids, so that all of the room is in use.
    fn share(&self, id: u32, fixed: Option<u32>) -> u32 {
        if let Some(fixed) = fixed {
            return fixed.clamp(1, self.room());
        }
        let fixed: u32 =
            self.others.iter().filter_map(|other| other.fixed).fold(0, u32::saturating_add);
        let equals = || self.others.iter().filter(|other| other.fixed.is_none());
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let members = number(equals().count()).saturating_add(1);
        let before = number(equals().filter(|other| other.id < id).count());
        let dividable = self.room().saturating_sub(fixed);
        (dividable / members + u32::from(before < dividable % members)).max(1)
    }
}

/// One member: what it may have open, and what it is about to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    id: u32,
    /// Most connections at once, the control connection included.
    in_force: u32,
    /// What the next announcement says to hold; more than `in_force` while it wants to grow.
    asked: u32,
    /// Nobody may see it any more.
    unseen: bool,
}

impl Member {
    /// A member that may have its control connection and nothing else.
    #[must_use]
    pub fn new(id: u32) -> Self {
        Self { id, in_force: 1, asked: 1, unseen: false }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Most connections at once, the control connection included.
    #[must_use]
    pub fn in_force(&self) -> u32 {
        self.in_force
    }

    /// True if it wants more than it has, or has more than it should: it should look again soon. What it wants to have
    /// again when it is seen is no reason: that comes with its first look.
    #[must_use]
    pub fn in_motion(&self, open: u32) -> bool {
        (!self.unseen && self.asked > self.in_force) || open > self.in_force
    }

    /// What is to be announced before the next look. `open` is counted after [`Self::in_force`] was
    /// put in force.
    #[must_use]
    pub fn announcement(&self, open: u32, fixed: Option<u32>) -> Announcement {
        Announcement { id: self.id, held: self.asked.max(self.in_force).max(open), fixed }
    }

    /// The control connection is lost: what is in force stays, and nothing more is taken.
    pub fn lost(&mut self) {
        if !self.unseen {
            self.asked = self.in_force;
        }
    }

    /// The last look is so long ago that the others may take what this one holds: no more than
    /// `open` are in force until the next one, for which is asked what was in force before.
    pub fn hold_back(&mut self, open: u32) {
        if !std::mem::replace(&mut self.unseen, true) {
            self.asked = self.in_force;
        }
        self.in_force = self.in_force.min(open.max(1));
    }

    /// Acts on a look that was taken after the last [`Self::announcement`] was made. Yields what is
    /// in force from now on.
    pub fn look(&mut self, sight: &Sight, open: u32, fixed: Option<u32>) -> u32 {
        self.unseen = false;
        let share = sight.share(self.id, fixed);
        let left = sight.left();
        if share <= self.in_force {
            self.in_force = share;
            self.asked = share;
            return share;
        }
        // What was asked for is held already in the eyes of the others.
        let granted = self.asked.min(share).min(left);
        self.in_force = self.in_force.max(granted);
        let to_be_had = share.min(left).min(open.saturating_add(sight.free));
        self.asked = self.in_force.max(to_be_had);
        self.in_force
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
