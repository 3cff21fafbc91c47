//! Layer 6. Who may use which server, and when; the budget.
//!
//! [`Pools`] holds every (database, user) [`Pool`] of the target. A client borrows a [`Lease`];
//! servers are opened and closed by tasks of their own, so that a client which gives up loses
//! nothing for the others. The rules are in [`core`]; here they are carried out.

mod account;
mod close;
pub mod core;
mod defaults;
mod error;
mod known;
pub mod lease;
pub mod listener;
pub mod mailbox;
pub mod maintain;
pub mod open;
mod profile;
pub mod prove;
pub mod seat;
mod secret;
mod sequences;
mod settings;
pub mod statements;

use self::core::{Core, Counts, Given, Growth, Idle, Limits, PoolId};
use self::statements::Statements;
use crate::credentials::Credentials;
use crate::server::connect::{Endpoint, open_stream, open_stream_to};
use crate::server::reset::Cleaning;
use crate::server::{CloseReason, Reported, Server, cancel};
use crate::state::settings::Settings;
use crate::telemetry::Metrics;
use crate::telemetry::clock;
pub use error::{BorrowError, Cause};
use hashbrown::HashMap;
use known::PoolName;
use lease::CountedUnlent;
pub use lease::{CountedPin, Lease};
use open::Failure;
use parking_lot::{Mutex, RwLock};
use seat::{Seat, Turn};
pub use settings::{Patience, PoolSettings};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Every pool of the target.
pub struct Pools {
    core: Mutex<Core<Box<Server>, Turn>>,
    by_name: RwLock<HashMap<PoolName, Arc<Pool>>>,
    /// Statements of all clients.
    pub statements: Statements,
    endpoint: RwLock<Arc<Endpoint>>,
    credentials: Arc<Credentials>,
    settings: RwLock<Arc<PoolSettings>>,
    metrics: Arc<Metrics>,
    /// The runtimes on which servers live; one for all with a work-stealing runtime.
    runtimes: Vec<Handle>,
    target: Mutex<open::TargetHealth>,
    listeners: listener::Listeners,
    stopping: AtomicBool,
}

/// The servers of one user in one database.
pub struct Pool {
    id: PoolId,
    /// Name of the database.
    pub database: Box<str>,
    /// Name of the user.
    pub user: Box<str>,
    pools: Arc<Pools>,
    baseline: RwLock<Option<Arc<Reported>>>,
    learned: Mutex<HashMap<Settings, Arc<Reported>>>,
    failure: Mutex<Option<Failure>>,
    profile: profile::Profile,
    defaults: defaults::Defaults,
    pinned: AtomicU32,
    unlent: AtomicU32,
    secret: secret::SecretInUse,
    sequences: sequences::SequenceUse,
}

impl Pools {
    /// No pools yet, and no budget: nothing is opened before [`Pools::set_budget`].
    #[must_use]
    pub fn new(
        endpoint: Endpoint,
        credentials: Arc<Credentials>,
        settings: PoolSettings,
        opening_max: u32,
        metrics: Arc<Metrics>,
        runtimes: Vec<Handle>,
    ) -> Arc<Self> {
        let limits = Limits { budget: 0, opening_max };
        Arc::new(Self {
            core: Mutex::new(Core::new(limits, runtimes.len())),
            by_name: RwLock::default(),
            statements: Statements::default(),
            endpoint: RwLock::new(Arc::new(endpoint)),
            credentials,
            settings: RwLock::new(Arc::new(settings)),
            metrics,
            runtimes,
            target: Mutex::default(),
            listeners: listener::Listeners::default(),
            stopping: AtomicBool::new(false),
        })
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<PoolSettings> {
        Arc::clone(&self.settings.read())
    }

    /// How the target is reached.
    #[must_use]
    pub fn endpoint(&self) -> Arc<Endpoint> {
        Arc::clone(&self.endpoint.read())
    }

    /// Changes settings while clients are served. `connect_timeout` is that of [`Endpoint::timeout`].
    pub fn reconfigure(
        self: &Arc<Self>,
        settings: PoolSettings,
        opening_max: u32,
        connect_timeout: Duration,
    ) {
        Arc::make_mut(&mut self.endpoint.write()).timeout = connect_timeout;
        *self.settings.write() = Arc::new(settings);
        {
            let mut core = self.core.lock();
            let limits = Limits { opening_max, ..core.limits() };
            core.set_limits(limits);
        }
        self.grow(0);
    }

    /// Bounds all pools together. Of the servers beyond a smaller budget, the idle ones are closed
    /// now and the others as they are given back.
    pub fn set_budget(self: &Arc<Self>, budget: u32) {
        let surplus = {
            let mut core = self.core.lock();
            let limits = Limits { budget, ..core.limits() };
            core.set_limits(limits);
            core.take_surplus()
        };
        for (id, server) in surplus {
            if let Some(pool) = self.pool_by_id(id) {
                pool.see_off(server, CloseReason::MakeRoom);
            }
        }
        self.grow(0);
    }

    /// The budget in force; zero while it is not known.
    #[must_use]
    pub fn budget(&self) -> u32 {
        self.core.lock().limits().budget
    }

    /// Numbers of every pool.
    #[must_use]
    pub fn counts(&self) -> Vec<(Arc<Pool>, Counts)> {
        let pools: Vec<Arc<Pool>> = self.by_name.read().values().map(Arc::clone).collect();
        let core = self.core.lock();
        pools
            .into_iter()
            .map(|pool| (core.counts(pool.id), pool))
            .map(|(n, pool)| (pool, n))
            .collect()
    }

    /// Why there is no slot for a server, for who has waited in vain.
    fn obstacle(&self) -> Cause {
        let core = self.core.lock();
        match core.limits().budget {
            0 => Cause::NotReached,
            budget if core.open() >= budget => Cause::Budget,
            _ => Cause::Opening,
        }
    }

    /// Opens what those who wait need, and makes room for it.
    fn grow(self: &Arc<Self>, worker: usize) {
        self.grow_at(worker, clock::now());
    }

    fn grow_at(self: &Arc<Self>, worker: usize, now: Instant) {
        loop {
            let growth = self.core.lock().grow(now);
            match growth {
                Growth::Open(id) => match self.pool_by_id(id) {
                    Some(pool) => pool.open(worker),
                    None => self.core.lock().open_failed(id, clock::now()),
                },
                Growth::Evict { from, server } => {
                    if let Some(pool) = self.pool_by_id(from) {
                        pool.see_off(server, CloseReason::MakeRoom);
                    }
                }
                Growth::Nothing => return,
            }
        }
    }

    fn runtime(&self, worker: usize) -> Option<&Handle> {
        self.runtimes.get(worker).or_else(|| self.runtimes.first())
    }

    /// Sends the cancel announced by `fence`.
    pub async fn send_cancel(&self, fence: cancel::Fence) {
        let endpoint = self.endpoint();
        let address = fence.address();
        let connect = async {
            let stream = match address {
                Some(address) => open_stream_to(&endpoint, address).await,
                None => open_stream(&endpoint).await,
            };
            stream.map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
        };
        cancel::send(fence, connect, self.settings().cancel_timeout).await;
    }
}

impl Pool {
    fn new(id: PoolId, database: &str, user: &str, pools: &Arc<Pools>) -> Self {
        Self {
            id,
            database: database.into(),
            user: user.into(),
            pools: Arc::clone(pools),
            baseline: RwLock::default(),
            learned: Mutex::default(),
            failure: Mutex::default(),
            profile: profile::Profile::default(),
            defaults: defaults::Defaults::default(),
            pinned: AtomicU32::new(0),
            unlent: AtomicU32::new(0),
            secret: secret::SecretInUse::default(),
            sequences: sequences::SequenceUse::default(),
        }
    }

    /// The settings that a fresh server of this pool reports; `None` before the first one, and when its defaults have
    /// changed.
    #[must_use]
    pub fn baseline(&self) -> Option<Arc<Reported>> {
        self.baseline.read().clone()
    }

    /// Clients that are pinned to one of its servers now.
    #[must_use]
    pub fn pinned(&self) -> u32 {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Its servers that are being cleaned or closed now.
    #[must_use]
    pub fn unlent(&self) -> u32 {
        self.unlent.load(Ordering::Relaxed)
    }

    /// The pools it belongs to.
    #[must_use]
    pub fn pools(&self) -> &Arc<Pools> {
        &self.pools
    }

    /// Takes an idle server, or puts the client into the queue (`None`): then [`Pool::poll_wait`]
    /// tells how it ends, and [`Pool::leave`] must be called if that is not waited for.
    ///
    /// # Errors
    /// [`BorrowError`], if waiting is pointless or not wanted.
    pub fn borrow(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        worker: usize,
        settings: &Settings,
        patience: Patience,
        now: Instant,
    ) -> Result<Option<Lease>, BorrowError> {
        loop {
            let idle = self.pools.core.lock().borrow(self.id, worker, settings.fingerprint());
            let idle = match idle {
                Some(idle) => idle,
                None => match self.line_up(seat, worker, settings, patience, now)? {
                    Some(idle) => idle,
                    None => return Ok(None),
                },
            };
            let mut server = idle.server;
            match server.check_idle() {
                Ok(()) => {
                    if let Some(lease) = self.lend(server, worker) {
                        return Ok(Some(lease));
                    }
                }
                Err(reason) => self.close(server, reason),
            }
        }
    }

    /// Joins the queue, or takes the server that was given back at this very moment.
    fn line_up(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        worker: usize,
        settings: &Settings,
        patience: Patience,
        now: Instant,
    ) -> Result<Option<Idle<Box<Server>>>, BorrowError> {
        self.must_not_fail_fast(worker, now)?;
        if patience == Patience::AsConfigured
            && self.pools.settings().connection_borrow_timeout.is_zero()
        {
            self.open_for_the_next(worker, now);
            return Err(BorrowError::Timeout { waited: Duration::ZERO, cause: Cause::NoneIdle });
        }
        let turn = seat.wait();
        let fingerprint = settings.fingerprint();
        let idle = {
            let mut core = self.pools.core.lock();
            core.borrow_or_enqueue(self.id, worker, fingerprint, || turn, now)
        };
        if idle.is_some() {
            // Nobody else knew that the client waited.
            drop(seat.stop_waiting());
        } else {
            self.pools.grow_at(worker, now);
        }
        Ok(idle)
    }

    /// Makes a server of this pool one of the thread `worker`.
    fn lend(self: &Arc<Self>, server: Box<Server>, worker: usize) -> Option<Lease> {
        match server.move_to(worker) {
            Ok(server) => Some(Lease::new(server, self)),
            Err(_) => {
                self.abandon();
                None
            }
        }
    }

    /// How the wait ends. `Ok(None)`: the server that came is lost, borrow again.
    pub fn poll_wait(
        self: &Arc<Self>,
        cx: &mut Context<'_>,
        seat: &Seat,
        worker: usize,
    ) -> Poll<Result<Option<Lease>, BorrowError>> {
        seat.poll_hand(cx).map(|hand| hand.map(|server| self.lend(server, worker)))
    }

    /// Leaves the queue. A server that came meanwhile goes to the next one.
    pub fn leave(self: &Arc<Self>, seat: &Arc<Seat>, now: Instant) {
        if let Some(server) = seat.stop_waiting() {
            return self.give_back(server, now);
        }
        self.pools.core.lock().leave(self.id, |turn| turn.is_of(seat));
    }

    /// Why nobody can be lent a server, for a client that has waited in vain.
    #[must_use]
    pub fn obstacle(&self) -> Cause {
        let failure = self.failure.lock().as_ref().map(|failure| failure.cause);
        failure.unwrap_or_else(|| self.pools.obstacle())
    }

    pub(crate) fn give_back(self: &Arc<Self>, mut server: Box<Server>, now: Instant) {
        if !server.is_clean() {
            if server.cancel.is_fenced() && server.side.pipeline.is_settled() {
                return self.clean(server, Cleaning::Settle);
            }
            return self.close(server, CloseReason::NotClean);
        }
        if let Some(reason) = self.unwanted(&server, now) {
            return self.close(server, reason);
        }
        if server.side.may_listen {
            return self.clean(server, Cleaning::Unlisten);
        }
        if server.side.applied.ends_idle() {
            return self.clean(server, Cleaning::Unwatch);
        }
        if self.is_to_ask() {
            return self.ask_for_code(server);
        }
        let worker = server.worker;
        loop {
            let idle =
                Idle { fingerprint: server.side.applied.fingerprint(), worker, server, since: now };
            let given = self.pools.core.lock().give_back(self.id, idle);
            match given {
                Given::Parked { others_wait: false } => return,
                Given::Parked { others_wait: true } => return self.pools.grow_at(worker, now),
                Given::Close(server) => return self.see_off(server, CloseReason::MakeRoom),
                Given::Lend(lent, turn) => match turn.give(lent) {
                    Ok(()) => return,
                    Err(back) => server = back,
                },
            }
        }
    }

    fn unwanted(&self, server: &Server, now: Instant) -> Option<CloseReason> {
        if self.pools.stopping.load(Ordering::Relaxed) {
            return Some(CloseReason::Shutdown);
        }
        if server.expires_at.is_some_and(|at| at <= now) {
            return Some(CloseReason::Lifetime);
        }
        if server.side.stained {
            return Some(CloseReason::NotClean);
        }
        if server.side.altered && !self.pools.endpoint().init_query.is_empty() {
            // What the query had set may be gone.
            return Some(CloseReason::NotClean);
        }
        if self.outdates(server, now) {
            return Some(CloseReason::SecretChanged);
        }
        self.has_old_defaults(server).then_some(CloseReason::DefaultsChanged)
    }

    /// Cleans a server in the background and gives it back, or closes it.
    fn clean(self: &Arc<Self>, mut server: Box<Server>, cleaning: Cleaning) {
        let pool = Arc::clone(self);
        let worker = server.worker;
        let unlent = CountedUnlent::of(self);
        let task = async move {
            let cleaned = server.clean(cleaning).await;
            drop(unlent);
            match cleaned {
                Ok(()) => pool.give_back(server, clock::now()),
                Err(reason) => pool.close(server, reason),
            }
        };
        if let Some(runtime) = self.pools.runtime(worker) {
            runtime.spawn(task);
        }
    }
}
