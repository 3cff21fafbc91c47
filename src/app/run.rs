//! `pgweir --config FILE`: from start to stop.

use super::health::Health;
use super::notify::{State, notify};
use super::workers::{Meter, Workers};
use super::{StartError, cloudwatch, reload};
use crate::admin;
use crate::client::iam::ClientTokens;
use crate::client::registry::Registry;
use crate::client::{Live, Shared, Worker};
use crate::config::Config;
use crate::listener::balance::{self, Balance};
use crate::listener::{self, Threads};
use crate::net::{Descriptors, descriptors, socket};
use crate::pool::Pools;
use crate::pool::seat::Kick;
use crate::telemetry::clock;
use crate::telemetry::log::{self, LogControl};
use parking_lot::RwLock;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Connections that the kernel keeps for a busy accept loop: a fleet starts all at once.
const BACKLOG: u16 = 4096;

/// How often clients are looked at whose time may be up.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often certificate files are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is looked whether everything has ended.
const DRAIN_INTERVAL: Duration = Duration::from_millis(20);

/// How long those may take who were logging in when it began.
const LOGIN_PATIENCE: Duration = Duration::from_secs(5);

/// Time for last words after the deadline.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// [`StartError`]; once it serves, nothing ends it but a signal.
pub async fn run(config: Config, path: Option<&Path>) -> Result<(), StartError> {
    // First of all: a start may take long, and who stops it means it.
    let mut signals = Signals::listen()?;
    let log = log::init(super::log_settings(&config.log))?;
    descriptors::raise_limit();
    let workers = Workers::start(&config)?;
    let started = tokio::select! {
        started = Started::start(&config, &workers, &log) => Some(started?),
        () = signals.stop() => None,
    };
    if let Some(started) = started {
        started.serve(config, path, &log, &mut signals).await;
    }
    tracing::info!("pgweir has stopped");
    // Joining the threads is for another thread than one that runs tasks.
    let stopped = tokio::task::spawn_blocking(move || workers.stop());
    let _ = stopped.await;
    let _ = log.flush(Duration::from_secs(1));
    Ok(())
}

/// Everything that a proxy consists of, at work.
struct Started {
    shared: Arc<Shared>,
    health: Arc<Health>,
    tasks: Tasks,
    lines: Option<Arc<cloudwatch::Lines>>,
}

impl Started {
    async fn start(
        config: &Config,
        workers: &Workers,
        log: &LogControl,
    ) -> Result<Self, StartError> {
        let shared = build(config, workers).await?;
        super::warn_of_descriptors(&shared.descriptors, config);
        let health = Health::new(Arc::clone(&shared), config);
        let mut tasks = Tasks::default();
        tasks.background(config, &shared, &health).await?;
        let lines = cloudwatch::Lines::of(config, &health, log.writer());
        if let Some(lines) = &lines {
            tasks.all.push(tokio::spawn(Arc::clone(lines).write_on()));
        }
        tasks.listeners(config, &shared, workers)?;
        tracing::info!(
            listen = %config.proxy.listen,
            workers = workers.handles.len(),
            version = env!("CARGO_PKG_VERSION"),
            "pgweir is ready for clients"
        );
        notify(State::Ready);
        Ok(Self { shared, health, tasks, lines })
    }

    /// Serves until it is told to stop, and stops in order.
    async fn serve(
        mut self,
        config: Config,
        path: Option<&Path>,
        log: &LogControl,
        signals: &mut Signals,
    ) {
        let timeout = obey(config, path, &self.shared, &self.health, log, signals).await;
        drain(&self.shared, &mut self.tasks, timeout, signals).await;
        for task in self.tasks.all {
            task.abort();
        }
        if let Some(lines) = self.lines {
            lines.write();
        }
    }
}

async fn build(config: &Config, workers: &Workers) -> Result<Arc<Shared>, StartError> {
    let credentials = super::credentials(config).await?;
    let metrics = super::metrics(workers.handles.len());
    let pools = Pools::new(
        super::endpoint(config)?,
        Arc::clone(&credentials),
        super::pool_settings(config),
        u32::from(config.target.connections_opened_at_once),
        Arc::clone(&metrics),
        workers.handles.clone(),
    );
    Ok(Arc::new(Shared {
        pools,
        credentials,
        client_tokens: ClientTokens::default(),
        metrics,
        registry: Registry::new(clock::now()),
        tls: RwLock::new(super::acceptor(config)?),
        live: RwLock::new(Arc::new(Live::from_config(config))),
        descriptors: Descriptors::of(workers.handles.len()),
        connected: AtomicU32::new(0),
        arriving: AtomicU32::new(0),
        draining: AtomicBool::new(false),
        cut_off: watch::Sender::new(false),
        clients: AtomicU64::new(0),
        revision: AtomicU64::new(0),
        threads: OnceLock::new(),
    }))
}

/// Tasks that end with the process.
#[derive(Default)]
struct Tasks {
    all: Vec<JoinHandle<()>>,
    listeners: Vec<JoinHandle<()>>,
}

impl Tasks {
    async fn background(
        &mut self,
        config: &Config,
        shared: &Arc<Shared>,
        health: &Arc<Health>,
    ) -> Result<(), StartError> {
        if let Some(address) = config.admin.listen {
            let what = format!("cannot listen on {address} for metrics");
            let listener = TcpListener::bind(address).await.map_err(StartError::io(what))?;
            let source: Arc<dyn admin::AdminSource> = Arc::clone(health) as _;
            self.all.push(tokio::spawn(async move {
                admin::serve(listener, source, std::future::pending()).await;
            }));
        }
        self.all.push(tokio::spawn(Arc::clone(health).watch()));
        self.all.push(tokio::spawn(Arc::clone(&shared.pools).maintain()));
        self.all.push(tokio::spawn(Arc::clone(&shared.pools).expire_waiters()));
        self.all.push(tokio::spawn(Arc::clone(&shared.credentials).run(std::future::pending())));
        self.all.push(tokio::spawn(sweep(Arc::clone(shared))));
        self.all.push(tokio::spawn(watch_certificate(Arc::clone(shared))));
        Ok(())
    }

    fn listeners(
        &mut self,
        config: &Config,
        shared: &Arc<Shared>,
        workers: &Workers,
    ) -> Result<(), StartError> {
        let address = config.proxy.listen;
        let what = format!("cannot listen on {address} for clients");
        let socket = socket::listen(address, false, BACKLOG, &super::socket_options(config))
            .map_err(StartError::io(what.clone()))?;
        let worker = |(index, handle): (usize, &Handle)| {
            let shard = Arc::clone(shared.metrics.shard(index));
            let keeps_wakers = handle.runtime_flavor() == RuntimeFlavor::CurrentThread;
            let shared = Arc::clone(shared);
            let worker = Arc::new(Worker { index, shard, keeps_wakers, shared });
            (handle.clone(), worker)
        };
        let threads: Vec<_> = workers.handles.iter().enumerate().map(worker).collect();
        let Some((first, _)) = threads.first() else { return Ok(()) };
        let entered = first.enter();
        let listener = TcpListener::from_std(socket).map_err(StartError::io(what))?;
        drop(entered);
        let balance = Arc::new(Balance::new(threads.len()));
        let meters = workers.meters.clone();
        self.all.push(tokio::spawn(rebalance(Arc::clone(shared), meters, Arc::clone(&balance))));
        let first = first.clone();
        let _ = shared.threads.set(threads.clone());
        self.listeners
            .push(first.spawn(listener::accept(listener, Threads { workers: threads, balance })));
        Ok(())
    }
}

/// Measures how busy the threads are, and has clients moved where that helps.
async fn rebalance(shared: Arc<Shared>, threads: Vec<Meter>, balance: Arc<Balance>) {
    if threads.len() < 2 {
        return;
    }
    let mut before: Vec<Duration> = threads.iter().map(Meter::total).collect();
    let mut then = clock::now();
    let mut interval = tokio::time::interval(balance::INTERVAL);
    loop {
        interval.tick().await;
        let now = clock::now();
        let passed = now.saturating_duration_since(then).as_micros().max(1);
        let mut measured = Vec::with_capacity(threads.len());
        for (thread, before) in threads.iter().zip(&mut before) {
            let total = thread.total();
            let busy = total.saturating_sub(*before).as_micros() * 1000 / passed;
            measured.push(u32::try_from(busy.min(1000)).unwrap_or(1000));
            *before = total;
        }
        then = now;
        balance.rebalance(&measured, &shared.registry);
    }
}

async fn sweep(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    let mut surplus = 0;
    loop {
        interval.tick().await;
        let (live, now) = (shared.live(), clock::now());
        shared.registry.sweep(&live, now);
        // Most go at the end of their transaction: nobody is sent away for one that is only on its way.
        let before = std::mem::replace(&mut surplus, shared.pools.surplus());
        shared.registry.free_pinned(&live, surplus.min(before), now);
    }
}

async fn watch_certificate(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(CERTIFICATE_INTERVAL);
    interval.tick().await;
    loop {
        interval.tick().await;
        let shared = Arc::clone(&shared);
        // It reads files.
        let _ = tokio::task::spawn_blocking(move || reload::reload_certificate(&shared)).await;
    }
}

/// The signals that are obeyed. Each is remembered until it is asked for.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on none of them ends the process by itself.
    fn listen() -> Result<Self, StartError> {
        let listen_to = |kind| signal(kind).map_err(StartError::io("cannot listen to signals"));
        Ok(Self {
            hangup: listen_to(SignalKind::hangup())?,
            terminate: listen_to(SignalKind::terminate())?,
            interrupt: listen_to(SignalKind::interrupt())?,
        })
    }

    /// Waits for one that says stop.
    ///
    /// # Cancel safety
    /// No signal is lost.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Obeys signals until one says stop, which does not wait for a reload. Yields how long the rest may take.
async fn obey(
    mut config: Config,
    path: Option<&Path>,
    shared: &Arc<Shared>,
    health: &Health,
    log: &LogControl,
    signals: &mut Signals,
) -> Duration {
    loop {
        tokio::select! {
            _ = signals.hangup.recv() => {
                notify(State::Reloading);
                let timeout = config.proxy.shutdown_timeout;
                config = tokio::select! {
                    config = reload::reload(path, config, shared, health, log) => config,
                    () = signals.stop() => return timeout,
                };
                notify(State::Ready);
            }
            _ = signals.terminate.recv() => return config.proxy.shutdown_timeout,
            _ = signals.interrupt.recv() => return config.proxy.shutdown_timeout,
        }
    }
}

/// Stops in order: no new clients, no idle ones, transactions to their end, then all.
async fn drain(shared: &Arc<Shared>, tasks: &mut Tasks, timeout: Duration, signals: &mut Signals) {
    tracing::info!(clients = shared.registry.len(), timeout_s = timeout.as_secs(), "shutting down");
    notify(State::Stopping);
    shared.draining.store(true, Ordering::SeqCst);
    for listener in tasks.listeners.drain(..) {
        listener.abort();
    }
    shared.registry.kick_all(Kick::DRAIN);
    let begun = clock::now();
    let some_arrive = || {
        let waited = clock::now().saturating_duration_since(begun);
        shared.arriving.load(Ordering::SeqCst) > 0 && waited < LOGIN_PATIENCE
    };
    let ended = async {
        // Who has arrived is in the registry: the order of the two looks matters.
        while some_arrive() || !shared.registry.is_empty() {
            tokio::time::sleep(DRAIN_INTERVAL).await;
            // Those that were logging in when it began.
            shared.registry.kick_all(Kick::DRAIN);
        }
    };
    let in_time = tokio::select! {
        () = ended => true,
        () = tokio::time::sleep(timeout) => false,
        () = signals.stop() => false,
    };
    if !in_time {
        tracing::warn!(clients = shared.registry.len(), "ending the clients that are left");
        shared.registry.kick_all(Kick::STOP);
    }
    shared.cut_off.send_replace(true);
    shared.pools.stop();
    let gone = async {
        while shared.pools.open_servers() > 0 || shared.arriving.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(DRAIN_INTERVAL).await;
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, gone).await;
}
