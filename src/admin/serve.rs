//! Accepting and serving connections, each bounded in time and all in number.

use super::AdminSource;
use super::answer::answer;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// Most connections at once; a further one is told to come back and closed.
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
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(_ended) = connections.join_next() => {}
            accepted = accept(&listener) => match accepted {
                Some(stream) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(connection(stream, Arc::clone(&source)));
                }
                Some(stream) => refuse(&stream),
                None => {}
            },
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(STOP_TIMEOUT, ended).await.is_err() {
        debug!("admin connections were cut");
    }
}

/// The next connection; `None` after an error and a pause.
///
/// # Cancel safety
/// No connection is lost.
async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((stream, _peer)) => Some(stream),
        Err(error) => {
            if !is_of_the_peer(&error) {
                warn!(error = &error as &dyn std::error::Error, "admin cannot accept");
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

/// Serves one request.
pub(super) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    source: Arc<dyn AdminSource>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
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
