//! The TLS handshake, on either side, over a socket.
//!
//! A flight of the handshake is several records, and leaves in one write. What the peer sent behind its last
//! handshake record is kept for the first read.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ClientConfig;
use rustls::ProtocolVersion;
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::Scratch;
use super::stream::Stream;
use super::tls_acceptor::AcceptorState;
use super::tls_error::TlsError;
use super::tls_session::Session;
use super::tls_stream::{TlsState, TlsStream};

/// Longest unprocessed input of a client that is not authenticated, in bytes. A `ClientHello` with a post-quantum key
/// and a ticket is about 2 KiB; this is a record of the largest size.
const CLIENT_HANDSHAKE_MAX: usize = 20 * 1024;

/// The same for a target, which sends certificates.
const SERVER_HANDSHAKE_MAX: usize = 64 * 1024;

/// See [`AcceptorState::accept`].
pub(super) async fn accept(
    socket: TcpStream,
    already_read: Vec<u8>,
    state: &AcceptorState,
) -> Result<Stream, TlsError> {
    let session = Session::Server(UnbufferedServerConnection::new(Arc::clone(state.config()))?);
    let tls = TlsState::new(session, &already_read, state.shared_end_point());
    drop(already_read);
    let mut stream = Box::new(TlsStream { socket, tls });
    poll_fn(|cx| stream.poll_handshake(cx, CLIENT_HANDSHAKE_MAX)).await?;
    if stream.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        // The server speaks last in TLS 1.2.
        poll_fn(|cx| stream.poll_flush(cx)).await?;
    } else if stream.tls.is_open() {
        // Only the ticket is left, which can wait for the first reply.
        stream.tls.flush_due = false;
    }
    Ok(Stream::Tls(stream))
}

/// See [`super::TargetConnector::connect`].
pub(super) async fn connect(
    socket: TcpStream,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Stream, TlsError> {
    let session = Session::Client(UnbufferedClientConnection::new(config, name)?);
    let tls = TlsState::new(session, &[], None);
    let mut stream = Box::new(TlsStream { socket, tls });
    poll_fn(|cx| stream.poll_handshake(cx, SERVER_HANDSHAKE_MAX)).await?;
    // The last flight goes with the first message: `flush_due` sees to it if there is none.
    Ok(Stream::Tls(stream))
}

impl TlsStream {
    /// Runs the handshake to its end; our last flight is then in `outgoing`.
    fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        bytes_max: usize,
    ) -> Poll<Result<(), TlsError>> {
        loop {
            let mut input = std::mem::take(&mut self.tls.incoming);
            // Plaintext that follows the handshake at once waits in the stream.
            self.tls.decrypt(input.as_mut_slice(), &mut []);
            drop(input);
            if !self.tls.session.common().is_handshaking() {
                // Whatever came behind the handshake, an error too, is for the first read.
                return Poll::Ready(Ok(()));
            }
            match self.tls.end() {
                None => {}
                Some(Ok(())) => return Poll::Ready(Err(TlsError::Closed)),
                Some(Err(error)) => {
                    // The peer gets the alert if the socket takes it at once, and nobody waits for that.
                    let _ = self.poll_flush(cx);
                    return Poll::Ready(Err(TlsError::Protocol(error)));
                }
            }
            ready!(self.poll_flush(cx))?;
            if self.tls.incoming.len() >= bytes_max {
                return Poll::Ready(Err(TlsError::TooLong { bytes_max }));
            }
            if ready!(self.poll_append(cx, bytes_max))? == 0 {
                return Poll::Ready(Err(TlsError::Closed));
            }
        }
    }

    /// Receives what there is, behind the bytes that wait already.
    fn poll_append(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<usize>> {
        let mut scratch = Scratch::take();
        let room = bytes_max.saturating_sub(self.tls.incoming.len());
        let mut received = ReadBuf::new(scratch.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut received))?;
        self.tls.incoming.push(received.filled());
        Poll::Ready(Ok(received.filled().len()))
    }
}
