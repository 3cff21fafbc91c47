//! A TLS connection that holds no buffer while it is idle.
//!
//! One receive takes as many records as came in: the ciphertext goes to a scratch buffer of the thread, is decrypted
//! there, and the plaintext is laid end to end in the caller's buffer. One write encrypts up to [`CHUNK_SIZE`] bytes
//! into the scratch buffer and sends them at once. Between two calls a stream keeps only an incomplete record, bytes
//! that a small buffer of the caller had no room for, or ciphertext the socket did not take.
//!
//! Two things wait for company before they are sent, because each would cost a system call and a packet: the session
//! ticket of a server goes with its first reply, and the last flight of a client with its first message. A client
//! that reads before it writes sends it then.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::buffer::{CHUNK_SIZE, SCRATCH_SIZE, Scratch, Waiting};
use super::tls_session::{Plaintext, Received, Session};

/// Longest TLS record, header included, in bytes.
///
/// Source: <https://www.rfc-editor.org/rfc/rfc5246#section-6.2.3> (2^14 + 2048; TLS 1.3 allows less)
const RECORD_LEN_MAX: usize = 5 + 16_384 + 2_048;

/// Most plaintext in one record, in bytes.
const RECORD_PLAINTEXT_MAX: usize = 16_384;

/// What a full record of TLS 1.3 has beside its plaintext: header, content type and tag, in bytes.
const RECORD_OVERHEAD: usize = 5 + 1 + 16;

/// Ciphertext up to this length, in bytes, is copied in front of the next write to go out with it.
///
/// Longer ones did not fit into the socket's buffer: those must leave before more is accepted.
const COMBINE_MAX: usize = 4 * 1024;

// A chunk of plaintext, its overhead (at most 29 bytes a record), alerts and what is combined fit into the scratch.
const _: () = assert!(SCRATCH_SIZE >= CHUNK_SIZE + 5 * 29 + COMBINE_MAX + 512);
// The longest record fits behind the longest handshake message that rustls joins.
const _: () = assert!(SCRATCH_SIZE > 2 * RECORD_LEN_MAX);

/// A socket with TLS; the handshake is complete.
pub struct TlsStream {
    pub(super) socket: TcpStream,
    pub(super) tls: TlsState,
}

/// All of a [`TlsStream`] but the socket, so that it can move to another runtime.
pub(super) struct TlsState {
    pub(super) session: Session,
    /// Ciphertext that is not a whole record, or a handshake message that is not complete.
    pub(super) incoming: Waiting,
    /// Decrypted bytes that the caller's buffer had no room for.
    pub(super) plaintext: Waiting,
    /// Ciphertext to send.
    pub(super) outgoing: Waiting,
    /// `outgoing` must be sent before waiting for the peer, who may wait for it.
    pub(super) flush_due: bool,
    /// The hash of our certificate, on the server's side.
    pub(super) end_point: Option<Arc<[u8]>>,
    end: End,
    close_notify_sent: bool,
}

/// Whether more can come from the peer.
#[derive(Debug)]
enum End {
    Open,
    /// `close_notify` came.
    Closed,
    /// The peer broke the protocol; the error is reported once, then the stream is dead.
    Failed(Option<rustls::Error>),
}

impl TlsState {
    pub(super) fn new(session: Session, incoming: &[u8], end_point: Option<Arc<[u8]>>) -> Self {
        let mut state = Self {
            session,
            incoming: Waiting::default(),
            plaintext: Waiting::default(),
            outgoing: Waiting::default(),
            flush_due: false,
            end_point,
            end: End::Open,
            close_notify_sent: false,
        };
        state.incoming.push(incoming);
        state
    }

    /// Processes `ciphertext`, which begins with what was in `incoming`, and keeps there what is left over.
    ///
    /// Returns the number of plaintext bytes in `buf`. An error is kept for the time these have been read.
    pub(super) fn decrypt(&mut self, ciphertext: &mut [u8], buf: &mut [u8]) -> usize {
        let overflow = &mut self.plaintext;
        let mut plaintext = Plaintext { buf, filled: 0, overflow };
        let sent_before = self.outgoing.len();
        let (done, result) = self.session.receive(ciphertext, &mut plaintext, &mut self.outgoing);
        let filled = plaintext.filled;
        self.flush_due |= self.outgoing.len() > sent_before;
        self.incoming = Waiting::default();
        match result {
            Ok(Received::NeedsMore) => {
                self.incoming.push(ciphertext.get(done..).unwrap_or_default());
            }
            Ok(Received::Closed) => self.end = End::Closed,
            Err(error) => self.end = End::Failed(Some(error)),
        }
        filled
    }

    /// The end of what can be read, if it is reached.
    pub(super) fn end(&mut self) -> Option<Result<(), rustls::Error>> {
        match &mut self.end {
            End::Open => None,
            End::Closed => Some(Ok(())),
            End::Failed(error) => {
                let unknown = || rustls::Error::General("the TLS session failed before".into());
                Some(Err(error.take().unwrap_or_else(unknown)))
            }
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.end, End::Open)
    }

    fn encrypt(&mut self, plaintext: &[u8], space: &mut [u8]) -> io::Result<usize> {
        if matches!(self.end, End::Failed(_)) || self.close_notify_sent {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.session.encrypt(self.incoming.as_mut_slice(), plaintext, &mut self.outgoing, space)
    }

    fn queue_close_notify(&mut self) {
        if self.close_notify_sent || matches!(self.end, End::Failed(_)) {
            return;
        }
        self.close_notify_sent = true;
        // Without the alert the peer sees a cut stream, and there is nobody to tell.
        let _ = self.session.close(self.incoming.as_mut_slice(), &mut self.outgoing);
    }

    /// Takes decrypted bytes that wait, oldest first.
    fn take_plaintext(&mut self, buf: &mut [u8]) -> usize {
        let len = self.plaintext.len().min(buf.len());
        if let (Some(place), Some(bytes)) =
            (buf.get_mut(..len), self.plaintext.as_slice().get(..len))
        {
            place.copy_from_slice(bytes);
            self.plaintext.advance(len);
        }
        len
    }
}

impl TlsStream {
    /// Receives, decrypts, and lays what came at the front of `buf`; 0 is the end (`close_notify` came).
    ///
    /// With a `buf` of at least 32 KiB nothing is copied aside and a receive takes what `buf` can hold. Any length
    /// but 0 is correct: with a shorter one the rest of a record waits in the stream.
    ///
    /// # Errors
    /// `InvalidData`: the peer broke the protocol. `UnexpectedEof`: it closed without `close_notify`, as many drivers
    /// do on purpose, so the bytes before it may be all or may have been cut.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let waiting = self.tls.take_plaintext(buf);
        if waiting > 0 || buf.is_empty() {
            return Poll::Ready(Ok(waiting));
        }
        loop {
            self.send_if_due(cx);
            if let Some(end) = self.tls.end() {
                let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
                return Poll::Ready(end.map(|()| 0).map_err(invalid));
            }
            let filled = ready!(self.poll_receive(cx, buf))?;
            if filled > 0 {
                self.send_if_due(cx);
                return Poll::Ready(Ok(filled));
            }
        }
    }

    /// Encrypts and sends the front of `bytes`, at most [`CHUNK_SIZE`], in one system call; returns how many it took.
    ///
    /// Bytes that were taken are on their way only when [`Self::poll_flush`] is ready; at most one chunk waits.
    ///
    /// # Errors
    /// The socket failed, or the stream was shut down or broken before.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.tls.outgoing.len() > COMBINE_MAX {
            ready!(self.poll_flush(cx))?;
        }
        let bytes = bytes.get(..CHUNK_SIZE).unwrap_or(bytes);
        let mut scratch = Scratch::take();
        let len = self.tls.encrypt(bytes, &mut scratch)?;
        let ciphertext = scratch.get(..len).unwrap_or_default();
        let sent = match Pin::new(&mut self.socket).poll_write(cx, ciphertext)? {
            Poll::Ready(sent) => sent,
            Poll::Pending => 0,
        };
        self.tls.outgoing.adopt(scratch, sent..len);
        self.tls.flush_due = false;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Sends the ciphertext that waits.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.tls.outgoing.is_empty() {
            let waiting = self.tls.outgoing.as_slice();
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, waiting))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.tls.outgoing.advance(sent);
        }
        self.tls.flush_due = false;
        Poll::Ready(Ok(()))
    }

    /// Sends `close_notify` and closes the sending half of the socket.
    ///
    /// # Errors
    /// The socket failed.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tls.queue_close_notify();
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    /// The application protocol both sides agreed on, if the client offered any.
    #[must_use]
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.tls.session.common().alpn_protocol()
    }

    /// Whether the handshake was spared by an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.tls.session.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The version of TLS in use.
    #[must_use]
    pub fn protocol_version(&self) -> Option<ProtocolVersion> {
        self.tls.session.common().protocol_version()
    }

    /// The peer's own certificate, in DER: what channel binding is computed of, on the client's side.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        let chain = self.tls.session.common().peer_certificates()?;
        chain.first().map(AsRef::as_ref)
    }

    /// The `tls-server-end-point` hash of our certificate, on the server's side.
    #[must_use]
    pub fn tls_server_end_point(&self) -> Option<&[u8]> {
        self.tls.end_point.as_deref()
    }

    /// Whether reading can yield bytes, or the end, without the socket having anything.
    #[must_use]
    pub fn has_buffered_input(&self) -> bool {
        !self.tls.plaintext.is_empty() || !self.tls.is_open()
    }

    /// Memory held in buffers, in bytes; 0 while idle.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.tls.incoming.capacity() + self.tls.plaintext.capacity() + self.tls.outgoing.capacity()
    }

    /// Sends what the peer may be waiting for. An error shows in the next read or write.
    fn send_if_due(&mut self, cx: &mut Context<'_>) {
        if self.tls.flush_due {
            let _ = self.poll_flush(cx);
        }
    }

    /// One receive; 0 when no plaintext came of it.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let held = self.tls.incoming.len();
        let mut scratch = Scratch::take();
        let full_records = buf.len() / RECORD_PLAINTEXT_MAX;
        let capacity = (buf.len() + full_records * RECORD_OVERHEAD).max(held + RECORD_LEN_MAX);
        let Some((front, free)) = scratch.split_at_mut_checked(held) else {
            return Poll::Ready(Err(too_long()));
        };
        let room = capacity.saturating_sub(held).min(free.len());
        let Some(free) = free.get_mut(..room).filter(|free| !free.is_empty()) else {
            return Poll::Ready(Err(too_long()));
        };
        let mut received = ReadBuf::new(free);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut received))?;
        let len = received.filled().len();
        if len == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        front.copy_from_slice(self.tls.incoming.as_slice());
        let ciphertext = scratch.get_mut(..held + len).unwrap_or_default();
        Poll::Ready(Ok(self.tls.decrypt(ciphertext, buf)))
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the peer's TLS message is too long")
}
