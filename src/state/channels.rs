//! The channels a client listens on, as PostgreSQL would know them.
//!
//! pgweir listens for all clients of a database on one connection; here is said on which channels
//! a client means to, so that it gets the notifications of these and no others. What LISTEN and
//! UNLISTEN do becomes true when their transaction commits and comes to nothing when it, or the
//! subtransaction they are in, does not. Names are taken from the texts, and whether a statement
//! came to anything from the tags that the server answers with.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-listen.html>

use super::channel_steps::{Action, Done, STEPS_MAX, Step, steps};
use super::statement::{Effects, Options};
use super::transaction::TransactionStatus;
use crate::wire::frame;
use std::collections::{BTreeSet, VecDeque};

/// What ends channels.
pub(super) const ENDING: Effects = Effects::UNLISTEN.and(Effects::DISCARD_ALL);

/// Name of a channel, folded and cut as PostgreSQL does.
pub type Name = Box<[u8]>;

/// Most channels of one client that pgweir listens on. With more, the client is pinned.
const CHANNELS_MAX: usize = 1000;

/// Most portals that are bound to such statements and may be executed later. With more the client is pinned.
const BOUND_MAX: usize = 64;

/// The channels of a client. A client that never listens costs no more than this.
#[derive(Default)]
pub struct Channels {
    /// Its notifications can be read in the encoding in which pgweir gets them.
    shareable: bool,
    /// Its next message is not sent before the ones sent are answered, or before pgweir listens.
    waits: bool,
    state: Option<Box<State>>,
}

#[derive(Default)]
struct State {
    in_force: BTreeSet<Name>,
    /// pgweir is known to listen on these for the client.
    heard: BTreeSet<Name>,
    /// It must do so on these before the client's next message is sent.
    wanted: Vec<Name>,
    /// It does not: the client's own server has to do it.
    refused: bool,
    /// What has to come before the client's next message, which ends a channel.
    farewell: Farewell,
    /// These were wanted for what never got to a server: pgweir may have begun to listen on them.
    given_up: Vec<Name>,
    /// What the open transaction has done.
    done: Done,
    /// What the portal does that is being bound.
    binding: Option<Step>,
    /// What portals do that are bound and not executed.
    bound: Vec<(Name, Step)>,
    /// What was sent, in order, and is not answered.
    sent: VecDeque<Step>,
    /// A transaction that is about channels has begun and not ended.
    open: bool,
    /// Something has failed since the last `ReadyForQuery`.
    failed: bool,
}

/// What was notified of before a client says UNLISTEN is still for it.
///
/// A server has read its notifications before it reads its client's next message. pgweir's one that listens may not
/// have, so that it is asked something before the client's own server is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Farewell {
    /// The client's next message is not known to end a channel.
    #[default]
    None,
    /// It is to be asked.
    Due,
    /// It is asked; the message waits for the answer.
    Asked,
    /// All has come that was under way, or a block is open: to it nothing comes, and what its end leaves no channel
    /// for is dropped.
    Over,
}

/// How a statement gets to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// A `Query`.
    Query,
    /// A `Parse`: what it means is executed later, or not at all.
    Parse,
    /// A `Bind`: what it binds is executed later, or not at all.
    Bind,
}

/// What becomes of a statement that may be about channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent. What remains of its effects is what the server has to keep for the client.
    Send(Effects),
    /// Not yet: it is given again.
    Wait,
    /// It has too many statements to be followed, and cannot be left to the client's own server.
    Refuse,
}

impl Channels {
    /// Whether the client's encoding is the one in which pgweir gets notifications.
    pub(super) fn set_encoding(&mut self, encoding: &str) {
        self.shareable = encoding == "UTF8";
    }

    /// False if a statement with these effects cannot be about channels of this client.
    #[must_use]
    pub(super) fn may_concern(&self, effects: Effects) -> bool {
        self.state.is_some() || (self.shareable && effects.intersects(Effects::LISTEN))
    }

    /// A statement with `effects` is about to be sent. `busy`: batches before it are not answered.
    pub(super) fn before(
        &mut self,
        effects: Effects,
        text: &[u8],
        options: Options,
        by: By,
        busy: bool,
    ) -> Verdict {
        if !self.may_concern(effects) {
            return Verdict::Send(effects);
        }
        let state = self.state.get_or_insert_default();
        state.binding = None;
        let about = effects.intersects(Effects::LISTEN | ENDING)
            || (state.is_undecided() && effects.intersects(Effects::TRANSACTION_CONTROL));
        if !about {
            return Verdict::Send(effects);
        }
        if !busy && state.must_take_leave(effects) {
            if state.farewell == Farewell::None {
                state.farewell = Farewell::Due;
            }
            self.waits = true;
            return Verdict::Wait;
        }
        if by == By::Parse {
            let shareable = self.shareable;
            return state.before_parse(effects, text, options, shareable, &mut self.waits);
        }
        if busy {
            self.waits = true;
            return Verdict::Wait;
        }
        let mut steps = steps(text, options);
        let cut = steps.len() > STEPS_MAX;
        if cut {
            if !(effects.intersects(Effects::LISTEN) && state.follows_nothing(effects)) {
                return Verdict::Refuse;
            }
            // All of it is left to the client's own server.
            steps.clear();
        }
        let full = cut || state.is_full() || (by == By::Bind && state.bound.len() >= BOUND_MAX);
        let refused = std::mem::take(&mut state.refused) || !self.shareable || full;
        let mut left = effects;
        if effects.intersects(Effects::LISTEN) && !refused {
            match state.unheard(&steps) {
                Some(unheard) if unheard.is_empty() => left = effects.without(Effects::LISTEN),
                Some(unheard) => {
                    state.wanted = unheard;
                    self.waits = true;
                    return Verdict::Wait;
                }
                // A name that cannot be read.
                None => {}
            }
        }
        let own_server = left.intersects(Effects::LISTEN);
        // What the client's own server listens on is none of ours.
        let mut steps = steps
            .into_iter()
            .filter(|step| !(own_server && matches!(step, Step::Do(Action::Listen(_)))));
        match by {
            By::Query => {
                state.sent.extend(steps);
                state.open = true;
            }
            // There is one statement in it, or it is refused.
            By::Bind => state.binding = steps.next(),
            By::Parse => {}
        }
        Verdict::Send(left)
    }

    /// `portal` is bound to the statement that was looked at last. False if that is one too many to be followed.
    #[must_use]
    pub(super) fn bind(&mut self, portal: &[u8]) -> bool {
        let Some(state) = &mut self.state else { return true };
        state.bound.retain(|(bound, _)| **bound != *portal);
        let Some(step) = state.binding.take() else { return true };
        let fits = state.bound.len() < BOUND_MAX;
        if fits {
            state.bound.push((portal.into(), step));
        }
        fits
    }

    /// An `Execute` with this body is sent.
    pub(super) fn executed(&mut self, mut body: &[u8]) {
        let Some(state) = self.state.as_mut().filter(|state| !state.bound.is_empty()) else {
            return;
        };
        let portal = frame::take_cstr(&mut body).unwrap_or_default();
        if let Some(at) = state.bound.iter().position(|(bound, _)| **bound == *portal) {
            let (_, step) = state.bound.swap_remove(at);
            state.sent.push_back(step);
            state.open = true;
        }
    }

    /// True while a transaction is followed: its batches are sent one by one, so that each reply
    /// is known to be of the one.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.open)
    }

    /// The client's next message is given again when what was sent is answered.
    pub(super) fn wait(&mut self) {
        self.waits = true;
    }

    /// True if the last message given was not sent.
    pub(super) fn take_wait(&mut self) -> bool {
        std::mem::take(&mut self.waits)
    }

    /// True if the client listens, or a transaction of it may be about to.
    #[must_use]
    pub(super) fn is_in_use(&self) -> bool {
        self.state.is_some()
    }

    /// True if the client's next message needs something of the connection that listens first.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        !self.wanted().is_empty() || self.is_taking_leave()
    }

    /// The channels on which pgweir must listen before the client goes on.
    #[must_use]
    pub fn wanted(&self) -> &[Name] {
        self.state.as_ref().map_or(&[], |state| &state.wanted)
    }

    /// True if what is under way to the client must have come before it goes on.
    #[must_use]
    pub fn is_taking_leave(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.is_taking_leave())
    }

    /// True, once for each time, if the connection that listens is to be asked something for that.
    #[must_use]
    pub fn begins_to_take_leave(&mut self) -> bool {
        let due = |state: &&mut Box<State>| state.farewell == Farewell::Due;
        let state = self.state.as_mut().filter(due);
        state.is_some_and(|state| {
            state.farewell = Farewell::Asked;
            true
        })
    }

    /// All that was asked for is so.
    pub fn grant(&mut self) {
        if let Some(state) = &mut self.state {
            state.heard.extend(state.wanted.drain(..));
            state.take_leave();
        }
    }

    /// Nothing that was asked for can be had. If that is to listen, the client is pinned, and its own server does.
    pub fn refuse(&mut self) {
        if let Some(state) = &mut self.state {
            state.refused = !state.wanted.is_empty();
            state.wanted.clear();
            state.take_leave();
        }
    }

    /// The message that something was asked for gets to no server: nothing of it was granted or refused.
    pub fn give_up(&mut self) {
        if let Some(state) = &mut self.state {
            state.given_up.append(&mut state.wanted);
            state.farewell = Farewell::None;
            state.refused = false;
        }
    }

    /// A statement of the client ended well, with this tag.
    pub(super) fn completed(&mut self, tag: &[u8]) {
        let Some(state) = self.state.as_mut().filter(|state| state.open) else { return };
        let tag = tag.strip_suffix(b"\0").unwrap_or(tag);
        let fits = match state.sent.front() {
            Some(Step::Do(Action::Listen(_))) => tag == b"LISTEN",
            Some(Step::Do(Action::Unlisten(_) | Action::UnlistenAll)) => tag == b"UNLISTEN",
            Some(Step::Savepoint(_)) => tag == b"SAVEPOINT",
            Some(Step::Release(_)) => tag == b"RELEASE",
            Some(Step::RollbackTo(_)) => tag == b"ROLLBACK",
            Some(Step::End) => tag == b"COMMIT" || tag == b"ROLLBACK",
            None => false,
        };
        if fits && let Some(step) = state.sent.pop_front() {
            state.carry_out(step, tag == b"COMMIT");
        }
    }

    /// A statement of the client failed.
    pub(super) fn failed(&mut self) {
        if let Some(state) = &mut self.state {
            state.failed = true;
        }
    }

    /// All that was sent is answered.
    pub(super) fn ready(&mut self, status: TransactionStatus) {
        let Some(state) = self.state.as_mut() else { return };
        let failed = std::mem::take(&mut state.failed);
        let in_block = status != TransactionStatus::Idle;
        state.farewell = if in_block { Farewell::Over } else { Farewell::None };
        if status == TransactionStatus::Idle {
            // Portals end with their transaction.
            state.bound.clear();
        }
        if !state.open {
            return;
        }
        state.sent = VecDeque::new();
        if status == TransactionStatus::Idle {
            state.end(!failed);
            state.open = false;
        }
    }

    /// `DISCARD ALL` succeeded.
    pub(super) fn clear(&mut self) {
        if let Some(state) = &mut self.state {
            state.in_force.clear();
            state.end(false);
        }
    }

    /// True if the client listens on this channel.
    #[must_use]
    pub fn is_in_force(&self, channel: &[u8]) -> bool {
        self.state.as_ref().is_some_and(|state| state.in_force.contains(channel))
    }

    /// True if pgweir listens on this channel for the client: what the client's own server says of
    /// it is not passed on.
    #[must_use]
    pub(super) fn is_heard(&self, channel: &[u8]) -> bool {
        self.state.as_ref().is_some_and(|state| state.heard.contains(channel))
    }

    /// The channels on which pgweir need not listen any more for this client. Nothing while a
    /// transaction may still change its mind.
    pub fn take_unwanted(&mut self) -> Vec<Name> {
        let Some(state) = self.state.as_mut().filter(|state| !state.is_undecided()) else {
            return Vec::new();
        };
        let in_force = &state.in_force;
        let (kept, unwanted): (BTreeSet<Name>, BTreeSet<Name>) =
            std::mem::take(&mut state.heard).into_iter().partition(|name| in_force.contains(name));
        state.heard = kept;
        let mut unwanted: Vec<Name> = unwanted.into_iter().collect();
        let given_up = std::mem::take(&mut state.given_up);
        let is_left = |name: &Name| !state.heard.contains(name) && !state.wanted.contains(name);
        unwanted.extend(given_up.into_iter().filter(is_left));
        if state.is_empty() {
            self.state = None;
        }
        unwanted
    }
}

impl State {
    /// The whole batch waits, where it can, rather than a part of it with a server in hand.
    fn before_parse(
        &mut self,
        effects: Effects,
        text: &[u8],
        options: Options,
        shareable: bool,
        waits: &mut bool,
    ) -> Verdict {
        let mut unheard = self.unheard(&steps(text, options)).unwrap_or_default();
        if unheard.is_empty() || !shareable || self.refused || self.is_full() {
            return Verdict::Send(effects);
        }
        std::mem::swap(&mut self.wanted, &mut unheard);
        *waits = true;
        Verdict::Wait
    }

    /// What is under way has to come before a statement with `effects`.
    fn must_take_leave(&self, effects: Effects) -> bool {
        effects.intersects(ENDING) && !self.in_force.is_empty() && self.farewell != Farewell::Over
    }

    fn is_taking_leave(&self) -> bool {
        matches!(self.farewell, Farewell::Due | Farewell::Asked)
    }

    fn take_leave(&mut self) {
        if self.is_taking_leave() {
            self.farewell = Farewell::Over;
        }
    }

    /// The transaction may be about channels.
    fn is_undecided(&self) -> bool {
        self.open || !self.bound.is_empty()
    }

    fn is_full(&self) -> bool {
        self.heard.len() + self.given_up.len() >= CHANNELS_MAX
            || self.done.len() + self.sent.len() >= STEPS_MAX
    }

    fn is_empty(&self) -> bool {
        self.in_force.is_empty()
            && self.heard.is_empty()
            && self.wanted.is_empty()
            && self.given_up.is_empty()
            && !self.is_undecided()
            && !self.refused
    }

    /// The channels that `steps` begin to listen on and pgweir does not. `None` if one has no name.
    fn unheard(&self, steps: &[Step]) -> Option<Vec<Name>> {
        let mut unheard = Vec::new();
        for step in steps {
            if let Step::Do(Action::Listen(name)) = step {
                if name.is_empty() {
                    return None;
                }
                if !self.heard.contains(name) && !unheard.contains(name) {
                    unheard.push(name.clone());
                }
            }
        }
        (unheard.len() <= CHANNELS_MAX).then_some(unheard)
    }

    fn carry_out(&mut self, step: Step, committed: bool) {
        match step {
            Step::End => self.end(committed),
            step => self.done.note(step, &self.in_force),
        }
    }

    fn end(&mut self, committed: bool) {
        std::mem::take(&mut self.done).end(committed, &mut self.in_force);
    }

    /// Nothing of what pgweir follows can be undone by statements that it does not.
    fn follows_nothing(&self, effects: Effects) -> bool {
        let nothing = self.in_force.is_empty() && !self.is_undecided();
        nothing || !effects.intersects(ENDING | Effects::TRANSACTION_CONTROL)
    }
}

#[cfg(test)]
#[path = "channels_tests.rs"]
mod tests;
