//! Accepting and serving connections, each bounded in time and all in number.

use super::AdminSource;
use super::answer::answer;
use crate::net::Trouble;
use crate::telemetry::clock;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// Most connections at once. For a further one, the oldest goes that has not sent its request; if all
/// have, it is told to come back and closed.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// Longest time from the connection to the end of the request's header.
pub(super) const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest life of a connection, with the slowest reader.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Most bytes of a request's header, and of what is read of a body that nobody wants. It is about
/// the least that the HTTP library allows.
const READ_MAX: usize = 16 * 1024;

/// Most header lines of a request.
const HEADERS_MAX: usize = 64;

/// Rest after an error of accept: at the limit of file descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest time that requests under way have to end when the endpoint stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves until `stop` is ready. Requests under way are answered, within two seconds.
///
/// # Cancel safety
/// A dropped call closes the listener and all connections.
pub async fn serve(
    listener: TcpListener,
    source: Arc<dyn AdminSource>,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut connections = JoinSet::new();
    let (mut places, mut trouble) = (Places::default(), Trouble::default());
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_ended) = connections.join_next() => {}
            accepted = accept(&listener, &mut trouble) => {
                let Some(stream) = accepted else { continue };
                let Some(asked) = places.find() else {
                    refuse(&stream);
                    continue;
                };
                let served = connection(stream, Arc::clone(&source), Arc::clone(&asked));
                places.take(connections.spawn(served), asked);
                // Before the next one comes, so that a request that is there already is seen.
                tokio::task::yield_now().await;
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_TIMEOUT, ended).await.is_err() {
        debug!("admin connections were cut");
    }
}

/// Who is connected, in the order in which they came.
#[derive(Default)]
struct Places(VecDeque<Place>);

struct Place {
    task: AbortHandle,
    /// Its request has come.
    asked: Arc<AtomicBool>,
}

impl Places {
    /// A place for one more, if need be that of one that has not asked anything; `None` if there is none.
    fn find(&mut self) -> Option<Arc<AtomicBool>> {
        self.0.retain(|place| !place.task.is_finished());
        if self.0.len() >= CONNECTIONS_MAX {
            let silent = self.0.iter().position(|place| !place.asked.load(Ordering::Relaxed))?;
            self.0.remove(silent)?.task.abort();
        }
        Some(Arc::default())
    }

    fn take(&mut self, task: AbortHandle, asked: Arc<AtomicBool>) {
        self.0.push_back(Place { task, asked });
    }
}

/// The next connection; `None` after an error and a pause.
///
/// # Cancel safety
/// No connection is lost.
async fn accept(listener: &TcpListener, trouble: &mut Trouble) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((stream, _peer)) => {
            if let Some((failures, time)) = trouble.take_past(clock::now()) {
                info!(failures, seconds = time.as_secs(), "admin accepts again");
            }
            Some(stream)
        }
        Err(error) => {
            if !is_of_the_peer(&error) {
                if trouble.note(clock::now()) {
                    warn!(error = &error as &dyn std::error::Error, "admin cannot accept");
                }
                sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

/// Whether the error concerns only one connection, which was closed before it was accepted.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Says that there are too many connections, if that can be said without waiting.
fn refuse(stream: &TcpStream) {
    const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
        Connection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
    // The socket's buffer is empty; whoever cannot be told sees the connection close.
    let _ = stream.try_write(BUSY);
}

/// Serves one request. `asked` becomes true when it has come.
pub(super) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    source: Arc<dyn AdminSource>,
    asked: Arc<AtomicBool>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        asked.store(true, Ordering::Relaxed);
        let source = Arc::clone(&source);
        async move {
            // The body is never polled, so no more of it is read than came with the header.
            Ok::<_, Infallible>(answer(request.method(), request.uri().path(), source).await)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(READ_MAX);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            debug!(error = &error as &dyn std::error::Error, "admin request failed");
        }
        Err(_) => debug!("admin connection was cut: too slow"),
    }
}
