//! A connection to a peer, plain or TLS, read and written by polling.
//!
//! The relay polls both of its streams from one task, so the interface is `poll_*` on `&mut self`, without `Pin`,
//! with byte slices that live only for the call.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;

use super::tls_stream::{TlsState, TlsStream};

/// A connection to a client or to a server.
pub enum Stream {
    /// Bytes as they are.
    Plain(TcpStream),
    /// TLS, after its handshake.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Reads what is there, up to the length of `buf`, in one receive; 0 is the end.
    ///
    /// Give TLS at least 32 KiB ([`super::CHUNK_SIZE`] is best); any length but 0 is correct.
    ///
    /// # Errors
    /// The socket failed, or see [`TlsStream::poll_read`].
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => {
                // Not `try_read`: only this forgets the readiness when less came than there was room for, and so
                // spares the receive that would say EAGAIN.
                let mut received = ReadBuf::new(buf);
                let polled = Pin::new(socket).poll_read(cx, &mut received);
                polled.map_ok(|()| received.filled().len())
            }
            Self::Tls(stream) => stream.poll_read(cx, buf),
        }
    }

    /// Whether [`Self::poll_read`] may have something to say. Costs no system call, and leaves the
    /// waker alone that a read which was pending has left.
    #[must_use]
    pub fn may_be_readable(&self) -> bool {
        let ready = |socket: &TcpStream| socket.try_io(Interest::READABLE, || Ok(())).is_ok();
        match self {
            Self::Plain(socket) => ready(socket),
            Self::Tls(stream) => {
                stream.has_buffered_input() || stream.tls.flush_due || ready(&stream.socket)
            }
        }
    }

    /// Whether `read`, just now the result of [`Self::poll_read`], has left a waker with the socket.
    ///
    /// A task that has used up its budget does not get as far as the socket: it is told to wait, and polled again
    /// at once. Source: <https://docs.rs/tokio/latest/tokio/task/coop/index.html>
    ///
    /// It stays there until there is something to read only if the reactor runs on the task's own thread. Another
    /// thread first says that a socket is readable and then takes the waker: in between, the task may have read, and
    /// left another waker, which is taken for what was read already.
    #[must_use]
    pub fn has_left_waker<T>(read: &Poll<T>) -> bool {
        read.is_pending() && coop::has_budget_remaining()
    }

    /// Writes the front of `bytes` and returns how many were taken, which are on their way only after a flush.
    ///
    /// # Errors
    /// The socket failed, or see [`TlsStream::poll_write`].
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(stream) => stream.poll_write(cx, bytes),
        }
    }

    /// Hands to the kernel what was taken by [`Self::poll_write`]. Costs nothing when nothing waits.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => stream.poll_flush(cx),
        }
    }

    /// Says that nothing more will be sent: `close_notify`, for TLS, then FIN.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(stream) => stream.poll_shutdown(cx),
        }
    }

    /// [`Self::poll_read`] for the login phases.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// As for [`Self::poll_read`].
    pub async fn read_some(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all of `bytes` and hands them to the kernel.
    ///
    /// # Cancel safety
    /// None: a dropped call may have sent any part.
    ///
    /// # Errors
    /// As for [`Self::poll_write`]; `WriteZero` if the socket takes nothing.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// [`Self::poll_shutdown`] as a future.
    ///
    /// # Errors
    /// As for [`Self::poll_shutdown`].
    pub async fn shutdown(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// The address of the peer.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }

    /// The TLS side of the connection, if it has one.
    #[must_use]
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream),
        }
    }

    /// Whether the bytes are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls().is_some()
    }

    /// See [`TlsStream::tls_server_end_point`]; `None` without TLS.
    #[must_use]
    pub fn tls_server_end_point(&self) -> Option<&[u8]> {
        self.tls()?.tls_server_end_point()
    }

    /// See [`TlsStream::peer_certificate`]; `None` without TLS.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        self.tls()?.peer_certificate()
    }

    /// See [`TlsStream::alpn_protocol`]; `None` without TLS.
    #[must_use]
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls()?.alpn_protocol()
    }

    /// Whether reading can yield bytes, or an end, without the socket having anything.
    #[must_use]
    pub fn has_buffered_input(&self) -> bool {
        self.tls().is_some_and(TlsStream::has_buffered_input)
    }

    /// Memory held in buffers, in bytes; 0 while idle.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.tls().map_or(0, TlsStream::buffered_bytes)
    }

    /// Leaves this runtime: the socket is taken off its reactor, the TLS session and all that waits are kept.
    ///
    /// # Errors
    /// The reactor could not let go of it; the connection is closed then.
    pub fn detach(self) -> io::Result<DetachedStream> {
        match self {
            Self::Plain(socket) => Ok(DetachedStream { socket: socket.into_std()?, tls: None }),
            Self::Tls(stream) => {
                let TlsStream { socket, tls } = *stream;
                Ok(DetachedStream { socket: socket.into_std()?, tls: Some(Box::new(tls)) })
            }
        }
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.socket,
        }
    }
}

/// A [`Stream`] between two runtimes. It can only be attached to the next one, or dropped, which closes it.
pub struct DetachedStream {
    socket: std::net::TcpStream,
    tls: Option<Box<TlsState>>,
}

impl DetachedStream {
    /// Joins the runtime this is called in.
    ///
    /// # Errors
    /// The reactor could not take it (file descriptors or memory are exhausted); the connection is closed then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn attach(self) -> io::Result<Stream> {
        let socket = TcpStream::from_std(self.socket)?;
        Ok(match self.tls {
            None => Stream::Plain(socket),
            Some(tls) => Stream::Tls(Box::new(TlsStream { socket, tls: *tls })),
        })
    }
}

// Both may be handed to another thread, whatever the runtime's shape.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Stream>();
    is_send::<DetachedStream>();
};

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn a_read_without_budget_leaves_no_waker() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut stream = Stream::Plain(TcpStream::from_std(socket).unwrap());
        let mut left = Vec::new();
        let reading = tokio::spawn(poll_fn(move |cx| {
            let first = left.is_empty();
            while first && coop::poll_proceed(cx).map(|step| step.made_progress()).is_ready() {}
            let read = stream.poll_read(cx, &mut [0; 16]);
            left.push(Stream::has_left_waker(&read));
            if left.len() == 2 {
                peer.write_all(b"now").unwrap();
            }
            read.map_ok(|_| std::mem::take(&mut left))
        }));
        assert_eq!(reading.await.unwrap().unwrap(), [false, true, false]);
    }
}
