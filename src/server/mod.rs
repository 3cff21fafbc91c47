//! Layer 4. One connection to PostgreSQL: opening it, asking it, cleaning it, cancelling on it.
//!
//! What its bytes mean is said by `state`; who may use it, by `pool`.

pub mod cancel;
pub mod connect;
pub mod login;
pub mod overdue;
pub mod query;
pub mod reset;
pub mod settings;

use crate::net::stream::{DetachedStream, Stream};
use crate::state::reply::Passing;
use crate::state::session::ServerSide;
use crate::telemetry::metrics::GaugeGuard;
use crate::wire::frame::{self, HEADER_LEN};
use crate::wire::{BackendTag, backend, encode};
use cancel::CancelTarget;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

/// Largest message waited for outside of the data path.
pub(crate) const SMALL_FRAME_MAX: usize = 1 << 20;

/// Why a server was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Idle for longer than allowed.
    #[error("idle for too long")]
    Idle,
    /// At the end of its lifetime.
    #[error("lifetime reached")]
    Lifetime,
    /// To make room for another pool, or for a smaller budget.
    #[error("room was needed")]
    MakeRoom,
    /// The password it was opened with has changed.
    #[error("its secret has changed")]
    SecretChanged,
    /// A fresh one begins with other settings.
    #[error("its defaults have changed")]
    DefaultsChanged,
    /// Not provably clean when it was given back.
    #[error("not clean")]
    NotClean,
    /// Its client vanished in the middle of a request.
    #[error("its client vanished")]
    ClientGone,
    /// PostgreSQL closed it.
    #[error("closed by the server")]
    ClosedByServer,
    /// It said something that nobody had asked for.
    #[error("broke the protocol")]
    Protocol,
    /// pgweir stops.
    #[error("shutting down")]
    Shutdown,
}

impl crate::telemetry::metrics::Label for CloseReason {
    const ALL: &'static [Self] = &[
        Self::Idle,
        Self::Lifetime,
        Self::MakeRoom,
        Self::SecretChanged,
        Self::DefaultsChanged,
        Self::NotClean,
        Self::ClientGone,
        Self::ClosedByServer,
        Self::Protocol,
        Self::Shutdown,
    ];

    fn as_label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::MakeRoom => "make_room",
            Self::SecretChanged => "secret_changed",
            Self::DefaultsChanged => "defaults_changed",
            Self::NotClean => "not_clean",
            Self::ClientGone => "client_gone",
            Self::ClosedByServer => "closed_by_server",
            Self::Protocol => "protocol",
            Self::Shutdown => "shutdown",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// The settings that a server reports (`ParameterStatus`), as a fresh connection has them.
pub type Reported = Vec<(Box<str>, Box<str>)>;

/// A connection to PostgreSQL that is logged in.
pub struct Server {
    /// Number in the log.
    pub id: u64,
    /// The connection.
    pub stream: Stream,
    /// What is known of its session.
    pub side: ServerSide,
    /// What is left of a message whose fate is known.
    pub passing: Passing,
    /// The front of a message that is not complete.
    pub held: Vec<u8>,
    /// Where a cancel request for it goes, and whether one is on its way.
    pub cancel: Arc<CancelTarget>,
    /// The thread whose reactor the connection is registered with.
    pub worker: usize,
    /// The secret it was opened with.
    pub generation: u64,
    /// How often its pool had seen defaults change before its login.
    pub defaults: u64,
    /// When it should be replaced.
    pub expires_at: Option<Instant>,
    pub(crate) tls_gauge: Option<GaugeGuard>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Server {
    /// True if nothing is due, no block is open, no byte is half read and no cancel is on its way.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.side.pipeline.is_settled()
            && self.passing == Passing::Nothing
            && self.held.is_empty()
            && !self.cancel.is_fenced()
            && !self.cancel.may_strike()
    }

    /// Takes in what an idle server said by itself. Costs no system call when it said nothing.
    ///
    /// # Errors
    /// The server is gone, or said something that an idle one has no reason to say.
    pub fn check_idle(&mut self) -> Result<(), CloseReason> {
        if self.held.is_empty() && !self.stream.may_be_readable() {
            return Ok(());
        }
        let mut bytes = [0_u8; 512];
        let mut cx = Context::from_waker(Waker::noop());
        // A server that never stops talking is not idle.
        for _ in 0..16 {
            match self.stream.poll_read(&mut cx, &mut bytes) {
                Poll::Pending => {
                    return if self.held.is_empty() { Ok(()) } else { Err(CloseReason::Protocol) };
                }
                Poll::Ready(Ok(0) | Err(_)) => return Err(CloseReason::ClosedByServer),
                Poll::Ready(Ok(read)) => {
                    self.held.extend_from_slice(bytes.get(..read).unwrap_or_default());
                    self.absorb()?;
                }
            }
        }
        Err(CloseReason::Protocol)
    }

    fn absorb(&mut self) -> Result<(), CloseReason> {
        let mut rest = self.held.as_slice();
        loop {
            match frame::take(&mut rest, SMALL_FRAME_MAX) {
                Ok(Some(frame)) => match BackendTag(frame.tag) {
                    BackendTag::NOTICE_RESPONSE | BackendTag::PARAMETER_STATUS => {}
                    BackendTag::ERROR_RESPONSE => return Err(CloseReason::ClosedByServer),
                    _ => return Err(CloseReason::Protocol),
                },
                Ok(None) => break,
                Err(_) => return Err(CloseReason::Protocol),
            }
        }
        self.held = rest.to_vec();
        Ok(())
    }

    /// Reads one message of any kind, outside of the data path. `buffer` keeps what came with it.
    ///
    /// # Errors
    /// The connection's, and `InvalidData` for what is no message.
    pub(crate) async fn read_message(
        stream: &mut Stream,
        buffer: &mut Vec<u8>,
    ) -> io::Result<(BackendTag, Vec<u8>)> {
        loop {
            let mut rest = buffer.as_slice();
            let frame = frame::take(&mut rest, SMALL_FRAME_MAX)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Some(frame) = frame {
                let (tag, body) = (BackendTag(frame.tag), frame.body().to_vec());
                let taken = HEADER_LEN + body.len();
                buffer.drain(..taken);
                return Ok((tag, body));
            }
            if stream.read_append(buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Moves the connection to the reactor of the thread that calls this.
    ///
    /// # Errors
    /// The system's; the connection is then closed.
    pub fn move_to(mut self: Box<Self>, worker: usize) -> io::Result<Box<Self>> {
        if self.worker == worker {
            return Ok(self);
        }
        let server = *self;
        let detached: DetachedStream = server.stream.detach()?;
        self = Box::new(Self { stream: detached.attach()?, worker, ..server });
        Ok(self)
    }

    /// Terminate and the end of the stream. The latter counts where a client left half a message
    /// behind: PostgreSQL would take the former for a part of it and wait for the rest.
    fn poll_say_goodbye(
        &mut self,
        cx: &mut Context<'_>,
        words: &mut &[u8],
    ) -> Poll<io::Result<()>> {
        while !words.is_empty() {
            let written = ready!(self.stream.poll_write(cx, words))?;
            *words = words.get(written..).unwrap_or_default();
        }
        ready!(self.stream.poll_flush(cx))?;
        self.stream.poll_shutdown(cx)
    }

    /// Says good-bye and waits until PostgreSQL has let go of the connection's slot.
    ///
    /// The backend closes its socket as the last thing it does, so the end of the stream is the
    /// proof that the slot is free. `patience` bounds the wait.
    pub async fn close(mut self, patience: Duration) {
        let mut words = encode::TERMINATE.as_slice();
        let mut sink = [0_u8; 4096];
        // Reading and writing at the same time: a backend that still sends does not read.
        let farewell = std::future::poll_fn(|cx| {
            let _ = self.poll_say_goodbye(cx, &mut words);
            loop {
                match ready!(self.stream.poll_read(cx, &mut sink)) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(_) => {}
                }
            }
        });
        // Whether it answered or not: after this the connection is dropped.
        let _ = tokio::time::timeout(patience, farewell).await;
    }
}

/// Name and value of a `ParameterStatus` body.
pub(crate) fn reported(body: &[u8]) -> Option<(Box<str>, Box<str>)> {
    backend::parameter_status(body).map(|(name, value)| (name.into(), value.into()))
}
