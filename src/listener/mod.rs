//! Layer 8. Accepting clients, and turning those away that are too many.
//!
//! One task accepts, and hands each client to the thread that [`balance`] names.

pub mod balance;

use crate::client::{self, ClientsMax, Place, Worker, handshake};
use crate::net::Trouble;
use crate::net::stream::Stream;
use crate::telemetry::clock;
use crate::wire::{ErrorResponse, SqlState};
use balance::Balance;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Pause after the system refused a connection, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long such a client has to say who it is.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(3);

/// Threads that clients are handed to.
pub struct Threads {
    /// One per reactor, in the order of their numbers.
    pub workers: Vec<(Handle, Arc<Worker>)>,
    /// How busy they are.
    pub balance: Arc<Balance>,
}

/// Accepts until the task is dropped.
///
/// # Cancel safety
/// Can be dropped at any await: what was accepted is served.
pub async fn accept(listener: TcpListener, threads: Threads) {
    let Some((_, worker)) = threads.workers.first() else { return };
    let refusals = Arc::new(Semaphore::new(worker.shared.descriptors.refusals()));
    let mut trouble = Trouble::default();
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                if let Some((failures, time)) = trouble.take_past(clock::now()) {
                    tracing::info!(
                        failures,
                        seconds = time.as_secs(),
                        "clients are accepted again"
                    );
                }
                threads.hand_over(tcp, peer, &refusals);
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                if trouble.note(clock::now()) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "cannot accept a client");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The client went before it was accepted: nothing is wrong here.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

impl Threads {
    fn hand_over(&self, tcp: TcpStream, peer: SocketAddr, refusals: &Arc<Semaphore>) {
        let chosen = self.balance.choose();
        let Some((handle, worker)) = self.workers.get(chosen) else { return };
        let Some(place) = Place::take(worker) else { return self.turn_away(tcp, refusals) };
        let (worker, balance) = (Arc::clone(worker), Arc::clone(&self.balance));
        balance.login_begins(chosen);
        let login = Login { balance, worker: chosen };
        if chosen == 0 {
            tokio::spawn(client::run(tcp, peer, worker, place, login));
            return;
        }
        // The socket leaves this thread's reactor for the other's.
        let Ok(tcp) = tcp.into_std() else { return };
        handle.spawn(async move {
            if let Ok(tcp) = TcpStream::from_std(tcp) {
                client::run(tcp, peer, worker, place, login).await;
            }
        });
    }

    fn turn_away(&self, tcp: TcpStream, refusals: &Arc<Semaphore>) {
        let Some((_, worker)) = self.workers.first() else { return };
        worker.shard.count.client_connections_received.one();
        worker.shard.login_rejections.of(client::Rejection::TooMany).one();
        worker.shard.count.client_connections_closed.one();
        let Ok(permit) = Arc::clone(refusals).try_acquire_owned() else { return };
        let worker = Arc::clone(worker);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(tcp, &worker)).await;
            drop(permit);
        });
    }
}

/// A login under way, counted until it is over.
struct Login {
    balance: Arc<Balance>,
    worker: usize,
}

impl Drop for Login {
    fn drop(&mut self) {
        self.balance.login_ends(self.worker);
    }
}

/// Tells a client that there are too many. A cancel request is carried out all the same.
async fn refuse(tcp: TcpStream, worker: &Worker) {
    let Ok(Some(mut greeted)) = handshake::greet(Stream::Plain(tcp), worker).await else { return };
    let max = worker.shared.clients_max();
    let number = max.number();
    let response = ErrorResponse::fatal(
        SqlState::TOO_MANY_CONNECTIONS,
        format!("The maximum number of client connections to the proxy exceeded {number}."),
    );
    let response = match max {
        ClientsMax::Configured(_) => {
            response.with_hint("Raise max_client_connections, or end idle clients.")
        }
        ClientsMax::Descriptors { limit, .. } => response.with_hint(format!(
            "Raise the limit of file descriptors of pgweir (ulimit -n, nofile), which is {limit}, or end idle clients."
        )),
    };
    handshake::farewell(&mut greeted.stream, worker, &[], &response.to_bytes()).await;
}
