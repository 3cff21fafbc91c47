//! Layer 8. Accepting clients, and turning those away that are too many.
//!
//! Each worker thread has a listener of its own on the same port; the kernel spreads the clients.

use crate::client::{self, Worker, handshake};
use crate::net::stream::Stream;
use crate::wire::{ErrorResponse, SqlState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Pause after the system refused a connection, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Clients that are told at the same time, per worker, that there are too many.
const REFUSALS_MAX: usize = 64;

/// How long such a client has to say who it is.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(3);

/// A client's place among the connected.
struct Place(Arc<Worker>);

impl Place {
    fn take(worker: &Arc<Worker>) -> Option<Self> {
        let max = worker.shared.live().max_client_connections;
        let taken =
            worker
                .shared
                .connected
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < max).then_some(n + 1));
        taken.is_ok().then(|| Self(Arc::clone(worker)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.shared.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until the task is dropped.
///
/// # Cancel safety
/// Can be dropped at any await: what was accepted is served.
pub async fn accept(listener: TcpListener, worker: Arc<Worker>) {
    let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => admit(tcp, peer, &worker, &refusals),
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot accept a client");
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

fn admit(tcp: TcpStream, peer: SocketAddr, worker: &Arc<Worker>, refusals: &Arc<Semaphore>) {
    if let Some(place) = Place::take(worker) {
        let worker = Arc::clone(worker);
        tokio::spawn(async move {
            client::run(tcp, peer, worker).await;
            drop(place);
        });
        return;
    }
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

/// Tells a client that there are too many. A cancel request is carried out all the same.
async fn refuse(tcp: TcpStream, worker: &Worker) {
    let Ok(Some(mut greeted)) = handshake::greet(Stream::Plain(tcp), worker).await else { return };
    let max = worker.shared.live().max_client_connections;
    let response = ErrorResponse::fatal(
        SqlState::TOO_MANY_CONNECTIONS,
        format!("The maximum number of client connections to the proxy exceeded {max}."),
    )
    .with_hint("Raise max_client_connections, or end idle clients.");
    handshake::farewell(&mut greeted.stream, &response.to_bytes()).await;
}
