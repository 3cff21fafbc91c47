//! The first packets of a client: encryption, cancel or startup. Nothing is believed yet, so
//! sizes, rounds and time are bounded.
//!
//! Bytes that come together with an `SSLRequest` were put there by somebody who wants them to be
//! taken for encrypted (CVE-2021-3935 in another pooler): such a connection is closed.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>

use super::{Arrival, Rejection, Worker, asked};
use crate::net::ALPN_POSTGRESQL;
use crate::net::stream::Stream;
use crate::net::tls_acceptor::AcceptorState;
use crate::pool::seat::CancelOutcome;
use crate::state::settings::Settings;
use crate::wire::startup::{self, CancelKey, PROTOCOL_3_2, Startup, StartupError, StartupPacket};
use crate::wire::{ErrorResponse, SqlState, encode};
use std::sync::Arc;

/// Requests for encryption that a client may make before it says who it is.
const REQUESTS_MAX: usize = 2;

/// First byte of a TLS record that holds a `ClientHello`.
const TLS_HANDSHAKE: u8 = 0x16;

/// A client that said who it is.
pub struct Greeted {
    /// Its connection, encrypted if it is to be.
    pub stream: Stream,
    /// The TLS state of our side, for channel binding.
    pub tls: Option<Arc<AcceptorState>>,
    /// Name of the user.
    pub user: String,
    /// Name of the database.
    pub database: String,
    /// The settings it wants.
    pub settings: Arc<Settings>,
    /// Cancel keys may be long.
    pub long_keys: bool,
    /// Bytes owed to it before anything else.
    pub owed: Vec<u8>,
    /// What came behind the startup packet.
    pub buffer: Vec<u8>,
    _arrival: Arrival,
}

/// Reads up to the startup packet. `None`: there was none to come.
///
/// # Errors
/// [`Rejection`]; the client was told why, where the protocol allows it.
pub async fn greet(stream: Stream, worker: &Worker) -> Result<Option<Greeted>, Rejection> {
    let mut hall = Hall { stream, tls: None, buffer: Vec::new(), worker };
    if hall.read().await? && hall.buffer.first() == Some(&TLS_HANDSHAKE) {
        hall = hall.direct_tls().await?;
    }
    for _ in 0..=REQUESTS_MAX {
        let Some(packet) = hall.packet().await? else { return Ok(None) };
        match startup::read(&packet) {
            Ok(StartupPacket::SslRequest) => hall = hall.ssl_request().await?,
            Ok(StartupPacket::GssEncRequest) => hall.answer(b"N").await?,
            Ok(StartupPacket::Cancel(key)) => {
                cancel(&key, worker).await;
                return Ok(None);
            }
            Ok(StartupPacket::Startup(startup)) => return hall.startup(&startup).await.map(Some),
            Err(error) => return hall.refuse_packet(error).await,
        }
    }
    Err(Rejection::Malformed)
}

async fn cancel(key: &CancelKey<'_>, worker: &Worker) {
    worker.shard.count.cancel_requests.one();
    if let CancelOutcome::Running(fence) = worker.shared.registry.cancel(key) {
        worker.shard.count.cancel_requests_forwarded.one();
        // The client's connection stays open until the cancel has arrived, as PostgreSQL's would.
        // It goes on its way whatever becomes of the client.
        let pools = Arc::clone(&worker.shared.pools);
        let sent = tokio::spawn(async move { pools.send_cancel(fence).await });
        let _ = sent.await;
    }
}

/// Where a client stands before it is let in.
struct Hall<'a> {
    stream: Stream,
    tls: Option<Arc<AcceptorState>>,
    buffer: Vec<u8>,
    worker: &'a Worker,
}

impl Hall<'_> {
    async fn packet(&mut self) -> Result<Option<Vec<u8>>, Rejection> {
        loop {
            let length = match startup::packet_len(&self.buffer) {
                Ok(length) => length,
                Err(error) => return self.refuse_packet(error).await,
            };
            if let Some(length) = length
                && let Some(packet) = self.buffer.get(..length)
            {
                let packet = packet.to_vec();
                self.buffer.drain(..length);
                return Ok(Some(packet));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// Reads more. False if the client left without a word.
    async fn read(&mut self) -> Result<bool, Rejection> {
        match self.stream.read_append(&mut self.buffer).await {
            Ok(0) if self.buffer.is_empty() => Ok(false),
            Ok(0) | Err(_) => Err(Rejection::Malformed),
            Ok(_) => Ok(true),
        }
    }

    async fn answer(&mut self, byte: &[u8; 1]) -> Result<(), Rejection> {
        if !self.buffer.is_empty() {
            return Err(Rejection::Malformed);
        }
        self.stream.write_all(byte).await.map_err(|_| Rejection::Malformed)
    }

    async fn ssl_request(mut self) -> Result<Self, Rejection> {
        let acceptor = self.worker.shared.tls.read().as_ref().map(Arc::clone);
        match acceptor {
            Some(acceptor) if self.tls.is_none() => {
                self.answer(b"S").await?;
                self.accept_tls(acceptor.current()).await
            }
            _ => {
                self.answer(b"N").await?;
                Ok(self)
            }
        }
    }

    async fn direct_tls(self) -> Result<Self, Rejection> {
        let acceptor = self.worker.shared.tls.read().as_ref().map(Arc::clone);
        let Some(acceptor) = acceptor else { return Err(Rejection::Tls) };
        let hall = self.accept_tls(acceptor.current()).await?;
        // Without ALPN this could be another protocol's client, led here by an attacker.
        let agreed = hall.stream.alpn_protocol() == Some(ALPN_POSTGRESQL);
        if agreed { Ok(hall) } else { Err(Rejection::Tls) }
    }

    async fn accept_tls(self, state: Arc<AcceptorState>) -> Result<Self, Rejection> {
        let Stream::Plain(tcp) = self.stream else { return Err(Rejection::Tls) };
        let stream = state.accept(tcp, self.buffer).await.map_err(|error| {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "TLS handshake with a client failed"
            );
            Rejection::Tls
        })?;
        Ok(Self { stream, tls: Some(state), buffer: Vec::new(), worker: self.worker })
    }

    async fn refuse_packet<T>(&mut self, error: StartupError) -> Result<T, Rejection> {
        let sqlstate = match error {
            StartupError::Version { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            _ => SqlState::PROTOCOL_VIOLATION,
        };
        self.refuse(&ErrorResponse::fatal(sqlstate, error.to_string()), Rejection::Malformed).await
    }

    async fn refuse<T>(
        &mut self,
        response: &ErrorResponse,
        rejection: Rejection,
    ) -> Result<T, Rejection> {
        farewell(&mut self.stream, self.worker, &[], &response.to_bytes()).await;
        Err(rejection)
    }

    async fn startup(mut self, startup: &Startup<'_>) -> Result<Greeted, Rejection> {
        // Before the look at `draining`: whoever drains then sees this client.
        let arrival = Arrival::begin(&self.worker.shared);
        if let Err((response, rejection)) = admit(startup, self.worker, self.tls.is_some()) {
            return self.refuse(&response, rejection).await;
        }
        let settings = match asked::settings_of(startup) {
            Ok(settings) => Arc::new(settings),
            Err(response) => return self.refuse(&response, Rejection::Unsupported).await,
        };
        let user = startup.get("user").unwrap_or_default().to_owned();
        let database = match startup.get("database") {
            Some("") | None => user.clone(),
            Some(name) => name.to_owned(),
        };
        Ok(Greeted {
            long_keys: startup.version >= PROTOCOL_3_2,
            owed: negotiation(startup),
            stream: self.stream,
            tls: self.tls,
            user,
            database,
            settings,
            buffer: self.buffer,
            _arrival: arrival,
        })
    }
}

/// Tells the client why, and lets go of it in order: a connection closed with unread bytes would
/// be reset, and the reason lost. `words` is an `ErrorResponse`, which is counted; what is `owed` goes
/// ahead of it. All who are refused before they are let in are refused here.
pub(crate) async fn farewell(stream: &mut Stream, worker: &Worker, owed: &[u8], words: &[u8]) {
    worker.count_error(words);
    // It may be gone: then nobody needs to be told.
    if stream.write_all(&[owed, words].concat()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

/// Tells a client whose login is cut off that pgweir stops; what is `owed` to it goes ahead.
pub(super) async fn turn_out<T>(
    stream: &mut Stream,
    worker: &Worker,
    owed: &[u8],
) -> Result<T, Rejection> {
    farewell(stream, worker, owed, &shutting_down().to_bytes()).await;
    Err(Rejection::Draining)
}

fn shutting_down() -> ErrorResponse {
    ErrorResponse::fatal(SqlState::CANNOT_CONNECT_NOW, "the database system is shutting down")
}

type Refused = (ErrorResponse, Rejection);

fn admit(startup: &Startup<'_>, worker: &Worker, tls: bool) -> Result<(), Refused> {
    let live = worker.shared.live();
    if worker.shared.draining.load(std::sync::atomic::Ordering::SeqCst) {
        return Err((shutting_down(), Rejection::Draining));
    }
    if live.require_tls && !tls {
        let response = ErrorResponse::fatal(
            SqlState::INVALID_AUTHORIZATION,
            "This RDS Proxy requires TLS connections.",
        )
        .with_hint("Connect with sslmode=require or stronger.");
        return Err((response, Rejection::TlsRequired));
    }
    if startup.get("user").is_none_or(str::is_empty) {
        let response = ErrorResponse::fatal(
            SqlState::INVALID_AUTHORIZATION,
            "A user name is missing from the connection startup packet. Provide a user name for this connection.",
        );
        return Err((response, Rejection::Malformed));
    }
    let replication = startup.get("replication");
    if replication.is_some_and(|value| !matches!(value, "false" | "off" | "no" | "0")) {
        let response = ErrorResponse::fatal(
            SqlState::FEATURE_NOT_SUPPORTED,
            "pgweir does not support replication connections",
        )
        .with_hint("Connect to the database itself for replication.");
        return Err((response, Rejection::Unsupported));
    }
    Ok(())
}

/// What a client must be told that asked for more than is spoken here.
fn negotiation(startup: &Startup<'_>) -> Vec<u8> {
    let unknown: Vec<&str> = startup
        .parameters
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| name.starts_with("_pq_."))
        .collect();
    let mut owed = Vec::new();
    if startup.version > PROTOCOL_3_2 || !unknown.is_empty() {
        let minor = startup.version.min(PROTOCOL_3_2) & 0xffff;
        encode::negotiate_protocol_version(&mut owed, minor, &unknown);
    }
    owed
}
