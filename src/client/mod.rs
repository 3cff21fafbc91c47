//! Layer 7. One client from first byte to last.
//!
//! ```text
//! handshake -> authenticate -> welcome -> serve ( idle -> waiting -> attached -> idle ... )
//! ```
//!
//! [`run`] is the whole life. Logging in is a chain of async functions that is freed when it is
//! done; serving is one small state machine in [`serve`], because thousands of clients idle in it.

pub mod authenticate;
pub mod handshake;
pub mod iam;
pub mod registry;
pub mod serve;
pub mod welcome;

mod asked;
mod backlog;
mod defaults;
pub mod end;
mod leaving;
mod notify;
mod refuse;
mod relay;
mod reset;
mod settle;
mod travel;

use crate::config::{Config, PinningFilters};
use crate::credentials::Credentials;
use crate::net::Descriptors;
use crate::net::stream::Stream;
use crate::net::tls_acceptor::TlsAcceptor;
use crate::pool::Pools;
use crate::state::session::{Limits, SequenceCare};
use crate::telemetry::metrics::{GaugeGuard, GaugeKind, Label};
use crate::telemetry::{Metrics, Shard, clock};
use crate::wire::response::ErrorFields;
use crate::wire::{HEADER_LEN, SqlState};
use parking_lot::RwLock;
use registry::Registry;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::watch;

/// What clients are served by; one for the process.
pub struct Shared {
    /// Servers.
    pub pools: Arc<Pools>,
    /// Who may log in.
    pub credentials: Arc<Credentials>,
    /// Tokens that clients logged in with.
    pub client_tokens: iam::ClientTokens,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Clients that are logged in, by the key they cancel with.
    pub registry: Registry,
    /// TLS towards clients, if there is a certificate.
    pub tls: RwLock<Option<Arc<TlsAcceptor>>>,
    /// What can change while clients are served.
    pub live: RwLock<Arc<Live>>,
    /// What bounds clients beside the configuration.
    pub descriptors: Descriptors,
    /// Clients connected, those that are logging in included.
    pub connected: AtomicU32,
    /// Clients that have said who they are and are in the registry next.
    pub arriving: AtomicU32,
    /// No new client is let in any more.
    pub draining: AtomicBool,
    /// Whoever is still logging in is told to come back.
    pub cut_off: watch::Sender<bool>,
    /// Clients that ever logged in.
    pub clients: AtomicU64,
    /// Counts the changes of `live`, so that clients need not look at it for each message.
    pub revision: AtomicU64,
    /// The threads, once they are there.
    pub threads: OnceLock<Vec<(Handle, Arc<Worker>)>>,
}

impl Shared {
    /// A number that no client had before.
    pub(crate) fn next_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Ready when those who are still logging in are to be told to come back.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    async fn logins_end(&self) {
        let mut told = self.cut_off.subscribe();
        let _ = told.wait_for(|over| *over).await;
    }

    /// Most clients that are let in: as many as are wanted, if there are descriptors for them.
    #[must_use]
    pub fn clients_max(&self) -> ClientsMax {
        let (wanted, limit) = (self.live().max_client_connections, self.descriptors.limit());
        let possible = self.descriptors.clients(self.pools.budget());
        if possible < wanted {
            ClientsMax::Descriptors { possible, limit }
        } else {
            ClientsMax::Configured(wanted)
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read())
    }
}

/// How many clients are let in, and why no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientsMax {
    /// `max_client_connections`.
    Configured(u32),
    /// Less than that: there are no descriptors for more.
    Descriptors {
        /// Clients.
        possible: u32,
        /// Descriptors.
        limit: u64,
    },
}

impl ClientsMax {
    /// How many.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Configured(number) | Self::Descriptors { possible: number, .. } => number,
        }
    }
}

/// The part of the configuration that clients feel.
#[derive(Clone, Debug)]
pub struct Live {
    /// Clients without TLS are refused.
    pub require_tls: bool,
    /// From the first byte to the end of the login.
    pub client_login_timeout: Duration,
    /// A client that did nothing for longer is sent away.
    pub idle_client_timeout: Duration,
    /// A client connected for longer is sent away when it is idle. Zero: never.
    pub max_client_lifetime: Duration,
    /// A client that was pinned and idle for longer is sent away when its server is one too many. Zero: it is not.
    pub idle_pinned_timeout: Duration,
    /// A client that holds a server and does not read its replies is cut off.
    pub client_stall_timeout: Duration,
    /// A client that leaves a transaction open and does nothing is cut off. Zero: never.
    pub idle_in_transaction_timeout: Duration,
    /// A client is told when it is pinned.
    pub pin_notice: bool,
    /// What does not pin.
    pub session_pinning_filters: PinningFilters,
    /// Most notifications that wait for a client.
    pub max_notifications_queued: usize,
    /// Most clients.
    pub max_client_connections: u32,
    /// Sizes and numbers.
    pub limits: Limits,
}

impl Live {
    /// Takes what clients feel from the whole.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        let proxy = &config.proxy;
        Self {
            require_tls: proxy.require_tls,
            client_login_timeout: proxy.client_login_timeout,
            idle_client_timeout: proxy.idle_client_timeout,
            max_client_lifetime: proxy.max_client_lifetime,
            idle_pinned_timeout: proxy.idle_pinned_timeout,
            client_stall_timeout: proxy.client_stall_timeout,
            idle_in_transaction_timeout: proxy.idle_in_transaction_timeout,
            pin_notice: proxy.pin_notice,
            session_pinning_filters: config.target.session_pinning_filters,
            max_notifications_queued: proxy.max_notifications_queued as usize,
            max_client_connections: proxy.max_client_connections,
            limits: Limits {
                message_max: usize::try_from(proxy.max_message_size.bytes()).unwrap_or(usize::MAX),
                statements_max: proxy.max_prepared_statements as usize,
                server_statements_max: config.target.max_prepared_statements as usize,
                // Each pool says this for itself.
                hidden_code: true,
                code_in_reads: true,
                opaque_code: true,
                ddl_seen: 0,
                sequences: SequenceCare::None,
            },
        }
    }
}

/// One thread's view of what is shared.
pub struct Worker {
    /// Its number.
    pub index: usize,
    /// Where it counts.
    pub shard: Arc<Shard>,
    /// No other thread looks out for its sockets, so that wakers that were left with them stay: see
    /// [`Stream::has_left_waker`].
    pub keeps_wakers: bool,
    /// What all share.
    pub shared: Arc<Shared>,
}

impl Worker {
    /// Whether the socket of which `read` is the result wakes the task when there is something to read, without being
    /// asked before.
    pub(crate) fn is_woken_after<T>(&self, read: &Poll<T>) -> bool {
        self.keeps_wakers && Stream::has_left_waker(read)
    }

    /// Counts an `ErrorResponse` that a client is sent.
    pub(crate) fn count_error(&self, message: &[u8]) {
        let fields = ErrorFields::read(message.get(HEADER_LEN..).unwrap_or_default());
        let sqlstate = fields.sqlstate.unwrap_or(SqlState::INTERNAL_ERROR);
        self.shard.errors.of(&sqlstate.0).one();
    }
}

/// Why a client was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// What it sent is no startup packet.
    Malformed,
    /// Too slow.
    Timeout,
    /// TLS could not be agreed on.
    Tls,
    /// It came without TLS, which is demanded.
    TlsRequired,
    /// User or password.
    Password,
    /// It left instead of proving who it is, as psql does before it asks for the password.
    Left,
    /// It asked for something that pgweir does not do.
    Unsupported,
    /// Too many clients.
    TooMany,
    /// The database could not be had.
    Database,
    /// pgweir stops.
    Draining,
}

impl Label for Rejection {
    const ALL: &'static [Self] = &[
        Self::Malformed,
        Self::Timeout,
        Self::Tls,
        Self::TlsRequired,
        Self::Password,
        Self::Left,
        Self::Unsupported,
        Self::TooMany,
        Self::Database,
        Self::Draining,
    ];

    fn as_label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::TlsRequired => "tls_required",
            Self::Password => "password",
            Self::Left => "left",
            Self::Unsupported => "unsupported",
            Self::TooMany => "too_many",
            Self::Database => "database",
            Self::Draining => "draining",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// A client's place among those that may be connected.
pub struct Place(Arc<Shared>);

impl Place {
    /// Takes a place, if one is left.
    #[must_use]
    pub fn take(worker: &Worker) -> Option<Self> {
        let shared = &worker.shared;
        let max = shared.clients_max().number();
        let taken = shared
            .connected
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1));
        taken.is_ok().then(|| Self(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client on its way in, from its startup packet until it is in the registry.
pub struct Arrival(Arc<Shared>);

impl Arrival {
    /// It has said who it is.
    #[must_use]
    pub fn begin(shared: &Arc<Shared>) -> Self {
        shared.arriving.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What lasts as long as a client's connection.
struct Visit {
    peer: SocketAddr,
    _place: Place,
    _gauge: GaugeGuard,
}

/// Serves one client from its first byte to its last. `login` is dropped when it is logged in.
pub async fn run(
    tcp: TcpStream,
    peer: SocketAddr,
    worker: Arc<Worker>,
    place: Place,
    login: impl Send,
) {
    let shard = Arc::clone(&worker.shard);
    shard.count.client_connections_received.one();
    let gauge = shard.enter(GaugeKind::ClientConnections);
    let visit = Visit { peer, _place: place, _gauge: gauge };
    let begun = clock::now();
    // Boxed: freed once it is done, so that an idle client does not carry its size along.
    let arrived = Box::pin(arrive(Stream::Plain(tcp), &worker, begun)).await;
    drop(login);
    let client = match arrived {
        Ok(Some(client)) => client,
        Ok(None) => {
            shard.count.client_connections_closed.one();
            return;
        }
        Err(rejection) => return reject(&worker, peer, rejection),
    };
    shard.count.client_connections_setup_succeeded.one();
    shard.time.client_connection_setup.observe(clock::now().saturating_duration_since(begun));
    tracing::debug!(client = client.id(), %peer, tls = client.is_tls(), "client logged in");
    // Of its own, so that what the login needed is not kept for as long as the client lives.
    tokio::spawn(stay(client, visit));
}

/// Serves a client that is logged in, on this thread or the next.
async fn stay(client: Box<serve::Client>, visit: Visit) {
    let (shard, id) = (client.shard(), client.id());
    match serve::serve(client).await {
        serve::Served::Ended(end) => {
            shard.count.client_connections_closed.one();
            let peer = visit.peer;
            tracing::debug!(client = id, %peer, reason = end.as_str(), "client connection closed");
        }
        serve::Served::Moves(client, to) => go_to(client, to, visit),
    }
}

/// Continues on the thread `to`. A client whose socket cannot be moved is closed with it.
fn go_to(client: Box<serve::Client>, to: usize, visit: Visit) {
    let (shard, id) = (client.shard(), client.id());
    let lost = move || {
        shard.count.client_connections_closed.one();
        tracing::warn!(client = id, "client connection lost on its way to another thread");
    };
    let Some((handle, worker)) = client.thread(to) else { return lost() };
    handle.spawn(async move {
        let Ok(client) = client.settle_on(worker) else { return lost() };
        // Boxed, as the one future is part of the other.
        let staying: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(stay(client, visit));
        staying.await;
    });
}

fn reject(worker: &Worker, peer: SocketAddr, rejection: Rejection) {
    let shard = &worker.shard;
    shard.login_rejections.of(rejection).one();
    if matches!(rejection, Rejection::Password | Rejection::Tls | Rejection::TlsRequired) {
        shard.count.client_connections_setup_failed_auth.one();
    }
    shard.count.client_connections_closed.one();
    tracing::info!(%peer, reason = rejection.as_label(), "client was not let in");
}

/// From the first byte to `ReadyForQuery`. `None`: it was a cancel request, or nobody.
async fn arrive(
    stream: Stream,
    worker: &Arc<Worker>,
    begun: Instant,
) -> Result<Option<Box<serve::Client>>, Rejection> {
    let in_setup = worker.shard.enter(GaugeKind::ClientConnectionsInSetup);
    let deadline =
        tokio::time::Instant::from_std(begun + worker.shared.live().client_login_timeout);
    let proven = tokio::time::timeout_at(deadline, async {
        let Some(mut greeted) = handshake::greet(stream, worker).await? else { return Ok(None) };
        let outcome = tokio::select! {
            outcome = authenticate::authenticate(&mut greeted, worker) => Some(outcome),
            () = worker.shared.logins_end() => None,
        };
        match outcome {
            Some(pending) => Ok(Some((greeted, pending?))),
            None => handshake::turn_out(&mut greeted.stream, worker, &[]).await,
        }
    });
    let Some((greeted, pending)) = proven.await.map_err(|_| Rejection::Timeout)?? else {
        return Ok(None);
    };
    let client = welcome::welcome(greeted, pending, worker, begun, deadline).await?;
    drop(in_setup);
    Ok(Some(client))
}
