//! One connection per database that listens for all its clients, and hands out what it hears.
//!
//! A client that begins to listen waits until the connection has answered a question once more: what was notified of
//! before has come by then, and is not for it. One that ends a channel waits in the same way: what was notified of
//! before is for it.
//!
//! The connection is opened when the first client listens, counts as one server of the budget, and is closed
//! when nobody has listened for a while. When it is lost, it is opened again, listens on all that
//! is wanted, and every client is told that notifications may have been missed.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-notify.html>

mod line;

use super::Pool;
use super::mailbox::{Mailbox, Notification};
use super::seat::Seat;
use crate::telemetry::metrics::{GaugeGuard, GaugeKind};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::Notify;

/// Name of a channel.
type Name = Box<[u8]>;

/// The listeners of all databases.
#[derive(Default)]
pub(super) struct Listeners {
    by_database: Mutex<HashMap<Box<str>, Arc<Listener>>>,
}

impl Listeners {
    /// Those that have nothing to do look up.
    pub(super) fn wake_all(&self) {
        for listener in self.by_database.lock().values() {
            listener.changed.notify_one();
        }
    }

    fn of(&self, database: &str) -> Arc<Listener> {
        let mut by_database = self.by_database.lock();
        if let Some(listener) = by_database.get(database) {
            return Arc::clone(listener);
        }
        let listener = Arc::new(Listener {
            database: database.into(),
            inner: Mutex::default(),
            changed: Notify::new(),
        });
        by_database.insert(database.into(), Arc::clone(&listener));
        listener
    }
}

/// Who listens in a database, and on what.
struct Listener {
    database: Box<str>,
    inner: Mutex<Inner>,
    /// There is something new to listen on, or not to.
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    line: Line,
    channels: HashMap<Name, Channel>,
    /// Number of the last client that began to listen, or to take leave.
    begun: u64,
    /// All up to this one were there when the connection was asked something that it has answered.
    settled: u64,
    /// Those who wait for that, by their numbers.
    beginners: Vec<(u64, Arc<Mailbox>)>,
}

/// How the connection does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Line {
    /// Nobody sees to it.
    #[default]
    Closed,
    /// It is being opened.
    Opening,
    /// It listens.
    Up,
    /// It could not be opened; that is tried again for those who listen already.
    Down,
}

#[derive(Default)]
struct Channel {
    /// The server has confirmed it.
    confirmed: bool,
    members: Vec<Member>,
}

struct Member {
    mailbox: Arc<Mailbox>,
    pool: Arc<Pool>,
}

/// Whether the connection listens on what a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It does.
    Yes,
    /// Not yet: the client's seat is kicked when that changes.
    NotYet,
    /// It cannot.
    No,
}

/// A client's part in a listener. Dropping it ends it.
pub struct Subscription {
    listener: Arc<Listener>,
    pool: Arc<Pool>,
    mailbox: Arc<Mailbox>,
    channels: HashSet<Name>,
    /// Its number when it last began to listen on something, or to take leave.
    number: u64,
    _gauge: GaugeGuard,
}

impl Pool {
    /// True if there is a connection that listens for the clients of this database.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        let by_database = self.pools.listeners.by_database.lock();
        by_database
            .get(&*self.database)
            .is_some_and(|listener| listener.inner.lock().line == Line::Up)
    }
}

impl Subscription {
    /// No channel yet.
    #[must_use]
    pub fn new(pool: &Arc<Pool>, seat: &Arc<Seat>, worker: usize, queued_max: usize) -> Self {
        let pools = pool.pools();
        Self {
            listener: pools.listeners.of(&pool.database),
            pool: Arc::clone(pool),
            mailbox: Mailbox::new(seat, queued_max),
            channels: HashSet::new(),
            number: 0,
            _gauge: pools.metrics.shard(worker).enter(GaugeKind::ClientConnectionsListening),
        }
    }

    /// Where its notifications wait.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// True if it is for no channel.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Listens on `names` too. With `takes_leave`, all that was notified of before must have come, too. To be called
    /// again, without it, after [`Heard::NotYet`]. After [`Heard::No`], it is not for those of them that are not heard.
    pub fn listen(&mut self, names: &[Name], takes_leave: bool, worker: usize) -> Heard {
        if names.is_empty() && self.channels.is_empty() {
            // There is nothing that the connection could have for it.
            return Heard::No;
        }
        let pools = self.pool.pools();
        let mut inner = self.listener.inner.lock();
        let confirmed = |inner: &Inner, name: &Name| {
            inner.channels.get(name).is_some_and(|channel| channel.confirmed)
        };
        let mut begins = takes_leave;
        for name in names {
            if self.channels.insert(name.clone()) {
                begins = true;
                let channel = inner.channels.entry(name.clone()).or_default();
                channel.members.push(Member {
                    mailbox: Arc::clone(&self.mailbox),
                    pool: Arc::clone(&self.pool),
                });
            }
        }
        if begins {
            inner.begun += 1;
            self.number = inner.begun;
        }
        if self.number <= inner.settled && names.iter().all(|name| confirmed(&inner, name)) {
            return Heard::Yes;
        }
        let waits = begins.then(|| (self.number, Arc::clone(&self.mailbox)));
        match inner.line {
            Line::Closed if pools.core.lock().may_have_listener() => {
                inner.line = Line::Opening;
                inner.beginners.extend(waits);
                drop(inner);
                line::begin(&self.listener, pools, worker);
                Heard::NotYet
            }
            Line::Closed | Line::Down => {
                let unheard: Vec<Name> =
                    names.iter().filter(|name| !confirmed(&inner, name)).cloned().collect();
                drop(inner);
                self.unlisten(&unheard);
                Heard::No
            }
            Line::Opening | Line::Up => {
                inner.beginners.extend(waits);
                drop(inner);
                self.listener.changed.notify_one();
                Heard::NotYet
            }
        }
    }

    /// Listens on `names` no more.
    pub fn unlisten(&mut self, names: &[Name]) {
        for name in names {
            self.channels.remove(name);
        }
        self.listener.leave(names.iter(), &self.mailbox);
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.listener.leave(self.channels.iter(), &self.mailbox);
    }
}

impl Listener {
    fn leave<'a>(&self, names: impl Iterator<Item = &'a Name>, mailbox: &Arc<Mailbox>) {
        let mut inner = self.inner.lock();
        let mut emptied = false;
        for name in names {
            let Some(channel) = inner.channels.get_mut(name) else { continue };
            channel.members.retain(|member| !Arc::ptr_eq(&member.mailbox, mailbox));
            if channel.members.is_empty() {
                inner.channels.remove(name);
                emptied = true;
            }
        }
        drop(inner);
        if emptied {
            self.changed.notify_one();
        }
    }

    /// Hands a notification to all who listen. Yields how many it, or its coming, made them lose.
    fn deliver(&self, notification: Notification) -> u64 {
        let notification = Arc::new(notification);
        let inner = self.inner.lock();
        let members = inner.channels.get(&notification.channel).map(|channel| &channel.members);
        members.into_iter().flatten().map(|member| member.mailbox.push(&notification)).sum()
    }

    /// Number of the last client that began to listen or to take leave, if it waits for an answer of the connection.
    fn unsettled(&self) -> Option<u64> {
        let inner = self.inner.lock();
        (inner.begun > inner.settled).then_some(inner.begun)
    }

    /// The server listens on `names`, and has answered since client `number` began. Those who wait for that look up.
    fn confirm<'a>(&self, names: impl Iterator<Item = &'a Name>, number: Option<u64>) {
        let mut inner = self.inner.lock();
        if let Some(number) = number {
            inner.settled = number;
            // Whoever has begun since it was asked waits for the next answer.
            inner.beginners.retain(|(begun, mailbox)| {
                let settled = *begun <= number;
                if settled {
                    mailbox.wake();
                }
                !settled
            });
        }
        for name in names {
            let Some(channel) = inner.channels.get_mut(name) else { continue };
            if !std::mem::replace(&mut channel.confirmed, true) {
                channel.members.iter().for_each(|member| member.mailbox.wake());
            }
        }
    }

    /// The connection is lost. Yields the mailboxes of those who listened by it.
    fn lost(&self) -> Vec<Arc<Mailbox>> {
        let mut inner = self.inner.lock();
        inner.line = Line::Opening;
        let mut concerned: Vec<Arc<Mailbox>> = Vec::new();
        for channel in inner.channels.values_mut() {
            if std::mem::take(&mut channel.confirmed) {
                concerned.extend(channel.members.iter().map(|member| Arc::clone(&member.mailbox)));
            }
        }
        // A client with several channels is told once.
        concerned.sort_unstable_by_key(Arc::as_ptr);
        concerned.dedup_by(|one, other| Arc::ptr_eq(one, other));
        concerned
    }

    /// How the connection does now. Everybody looks up.
    fn set_line(&self, line: Line) {
        let mut inner = self.inner.lock();
        inner.line = line;
        inner.beginners.clear();
        let members = inner.channels.values().flat_map(|channel| &channel.members);
        members.for_each(|member| member.mailbox.wake());
    }

    /// It listens on all that is wanted.
    fn set_up(&self) {
        self.inner.lock().line = Line::Up;
    }

    fn is_unused(&self) -> bool {
        self.inner.lock().channels.is_empty()
    }

    /// The connection is given up, unless somebody has come meanwhile.
    fn close_if_unused(&self) -> bool {
        let mut inner = self.inner.lock();
        let unused = inner.channels.is_empty();
        if unused {
            inner.line = Line::Closed;
            inner.beginners.clear();
        }
        unused
    }

    /// What is listened on, and what should be: names to LISTEN and names to UNLISTEN.
    fn difference(&self, heard: &HashSet<Name>) -> (Vec<Name>, Vec<Name>) {
        let inner = self.inner.lock();
        let more = inner.channels.keys().filter(|name| !heard.contains(*name)).cloned().collect();
        let less = heard.iter().filter(|name| !inner.channels.contains_key(*name));
        (more, less.cloned().collect())
    }

    /// One of those who listen, by turns: as its user the connection is opened.
    fn pool(&self, turn: usize) -> Option<Arc<Pool>> {
        let inner = self.inner.lock();
        let members: Vec<&Member> =
            inner.channels.values().flat_map(|channel| &channel.members).collect();
        let at = turn.checked_rem(members.len())?;
        members.get(at).map(|member| Arc::clone(&member.pool))
    }
}
