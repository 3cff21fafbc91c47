//! Opening a connection to PostgreSQL: socket, TLS, login, and what the server says of itself.
//!
//! The server is believed no more than a client: sizes, rounds and SCRAM iterations are bounded.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

use super::cancel::CancelTarget;
use super::overdue::{OVERDUE_PATIENCE, Overdue};
use super::query::QueryError;
use super::{Reported, Server, reported};
use crate::auth::md5::Md5Verifier;
use crate::auth::scram::{Nonce, RAW_NONCE_LEN, ScramError};
use crate::auth::scram_client::{ScramClient, ScramProof};
use crate::config::TargetTls;
use crate::credentials::{Credential, SourceError, Token};
use crate::net::socket::{self, SocketOptions};
use crate::net::stream::Stream;
use crate::net::tls_connector::TargetConnector;
use crate::state::reply::Passing;
use crate::state::session::ServerSide;
use crate::wire::backend::{self, Authentication};
use crate::wire::response::ErrorFields;
use crate::wire::startup::PROTOCOL_3_0;
use crate::wire::{BackendTag, SqlState, encode};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

/// Where a target is and how it is reached.
#[derive(Clone)]
pub struct Endpoint {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether and how TLS is used.
    pub connector: TargetConnector,
    /// Keepalive and time limits of the sockets.
    pub options: SocketOptions,
    /// For everything from the first packet to the end of the login.
    pub timeout: Duration,
    /// SQL that each new server runs first.
    pub init_query: String,
}

/// How a login proves who it is.
pub enum Proof {
    /// By the password.
    Secret(Arc<Credential>),
    /// By an IAM token, which goes to nobody but a target that was verified.
    Token {
        /// The database user.
        user: String,
        /// The token.
        token: Token,
        /// What [`Server::generation`] is to be: that of the user's credential.
        generation: u64,
    },
}

impl Proof {
    fn user(&self) -> &str {
        match self {
            Self::Secret(credential) => &credential.username,
            Self::Token { user, .. } => user,
        }
    }

    fn generation(&self) -> u64 {
        match self {
            Self::Secret(credential) => credential.generation,
            Self::Token { generation, .. } => *generation,
        }
    }

    fn password(&self) -> &[u8] {
        match self {
            Self::Secret(credential) => credential.password.expose().as_bytes(),
            Self::Token { token, .. } => token.as_bytes(),
        }
    }
}

/// Why no server could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The target cannot be reached.
    #[error("cannot connect to the target")]
    Unreachable(#[from] socket::ConnectError),
    /// The connection broke, or the target hung up.
    #[error("the connection to the target failed")]
    Io(#[from] io::Error),
    /// The target has no TLS, or not as is demanded.
    #[error("TLS to the target failed: {0}")]
    Tls(String),
    /// It took longer than `connect_timeout`, and may not be over, see [`ConnectError::take_overdue`].
    #[error("connecting to the target took longer than connect_timeout")]
    Timeout(Option<Overdue>),
    /// The target said no.
    #[error("target refused the connection with SQLSTATE {}", .0.code())]
    Refused(Refusal),
    /// The target does not follow the protocol.
    #[error("target broke the protocol")]
    Protocol,
    /// The exchange of passwords failed.
    #[error("authentication to the target failed: {0}")]
    Scram(#[from] ScramError),
    /// The target wants a method that pgweir does not speak, or a password in the clear.
    #[error("target wants an authentication method that is not allowed here")]
    Method,
    /// No IAM token could be signed.
    #[error("no IAM token can be signed: {0}")]
    Token(SourceError),
    /// The user has no secret that can be used.
    #[error("the user has no usable secret")]
    NoCredential,
    /// `init_query` failed.
    #[error("init_query failed")]
    InitQuery(#[source] QueryError),
}

/// A target's own words.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its code, if it gave one.
    pub sqlstate: Option<SqlState>,
    /// The body of its `ErrorResponse`, as the client would have got it.
    pub body: Arc<[u8]>,
}

impl Refusal {
    /// Its code in words.
    pub(crate) fn code(&self) -> String {
        self.sqlstate.map_or_else(|| "unknown".to_owned(), |code| code.to_string())
    }
}

/// How long a failure to open a server lasts, as far as can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// The target has no free connection: others must end first.
    Full,
    /// The target is away or starting; it may come back.
    Away,
    /// This user or database is refused; waiting does not help.
    Refused,
}

impl ConnectError {
    /// What can be expected of another try.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        match self {
            Self::Refused(refusal) => match refusal.sqlstate {
                Some(SqlState::TOO_MANY_CONNECTIONS) => Outlook::Full,
                Some(SqlState(code)) if code.starts_with(b"57") || code.starts_with(b"08") => {
                    Outlook::Away
                }
                _ => Outlook::Refused,
            },
            Self::Unreachable(_)
            | Self::Io(_)
            | Self::Timeout(_)
            | Self::Protocol
            | Self::Token(_) => Outlook::Away,
            Self::Tls(_)
            | Self::Scram(_)
            | Self::Method
            | Self::InitQuery(_)
            | Self::NoCredential => Outlook::Refused,
        }
    }

    /// Whether this was a target that could serve clients, or could serve others; `None` if it
    /// was not even tried.
    #[must_use]
    pub fn reached_target(&self) -> Option<bool> {
        match self {
            Self::NoCredential | Self::Token(_) => None,
            Self::Refused(_) => Some(self.outlook() != Outlook::Away),
            Self::Method | Self::InitQuery(_) => Some(true),
            // With TLS or SCRAM, something is there that is not as the configuration demands.
            Self::Tls(_)
            | Self::Scram(_)
            | Self::Unreachable(_)
            | Self::Io(_)
            | Self::Timeout(_)
            | Self::Protocol => Some(false),
        }
    }

    /// The login that may still go on, once: its slot of the budget is taken until it has ended.
    pub fn take_overdue(&mut self) -> Option<Overdue> {
        match self {
            Self::Timeout(overdue) => overdue.take(),
            _ => None,
        }
    }

    /// The target refused the password.
    #[must_use]
    pub fn is_wrong_password(&self) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.sqlstate == Some(SqlState::INVALID_PASSWORD))
    }

    /// The target refused the user, in class 28: RDS does so with a bad token (`PAM authentication
    /// failed`).
    #[must_use]
    pub fn is_refused_login(&self) -> bool {
        matches!(self, Self::Refused(Refusal { sqlstate: Some(SqlState(code)), .. }) if code.starts_with(b"28"))
    }
}

static NEXT_SERVER: AtomicU64 = AtomicU64::new(1);

/// Opens a connection and logs in. Yields the settings that the fresh server reports beside it.
///
/// # Errors
/// [`ConnectError`].
///
/// # Cancel safety
/// A dropped call closes the connection, which the target may notice much later.
pub async fn connect(
    endpoint: &Endpoint,
    database: &str,
    proof: Proof,
) -> Result<(Server, Reported), ConnectError> {
    let mut login = Box::pin(connect_now(endpoint.clone(), database.to_owned(), proof));
    match tokio::time::timeout(endpoint.timeout, &mut login).await {
        Ok(outcome) => outcome,
        Err(_) => Err(ConnectError::Timeout(Some(Overdue::begin(login)))),
    }
}

async fn connect_now(
    endpoint: Endpoint,
    database: String,
    proof: Proof,
) -> Result<(Server, Reported), ConnectError> {
    let mut stream = open_stream(&endpoint).await?;
    let mut out = Vec::with_capacity(128);
    let parameters = [("user", proof.user()), ("database", &*database)];
    encode::startup(&mut out, PROTOCOL_3_0, parameters);
    stream.write_all(&out).await?;
    let mut login = Login { stream, buffer: Vec::new() };
    login.authenticate(&proof).await?;
    let (mut server, reported) = login.finish(proof.generation()).await?;
    if !endpoint.init_query.is_empty()
        && let Err(error) = server.query(&endpoint.init_query).await
    {
        server.close(OVERDUE_PATIENCE).await;
        return Err(ConnectError::InitQuery(error));
    }
    Ok((server, reported))
}

/// Opens the socket, with TLS if it is wanted and to be had.
///
/// # Errors
/// [`ConnectError::Io`] and [`ConnectError::Tls`].
pub async fn open_stream(endpoint: &Endpoint) -> Result<Stream, ConnectError> {
    let Endpoint { host, port, timeout, options, .. } = endpoint;
    let tcp = socket::connect(host, *port, *timeout, options).await?;
    encrypt(endpoint, tcp).await
}

/// The same to an address that the endpoint's host has had.
///
/// # Errors
/// As for [`open_stream`].
pub async fn open_stream_to(
    endpoint: &Endpoint,
    address: SocketAddr,
) -> Result<Stream, ConnectError> {
    let tcp = socket::connect_to(address, endpoint.timeout, &endpoint.options).await?;
    encrypt(endpoint, tcp).await
}

async fn encrypt(endpoint: &Endpoint, tcp: TcpStream) -> Result<Stream, ConnectError> {
    let mode = endpoint.connector.mode();
    if mode == TargetTls::Disable {
        return Ok(Stream::Plain(tcp));
    }
    let mut plain = Stream::Plain(tcp);
    plain.write_all(&encode::SSL_REQUEST).await?;
    let mut answer = Vec::new();
    if plain.read_append(&mut answer).await? == 0 {
        return Err(ConnectError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    match (answer.as_slice(), plain) {
        (b"S", Stream::Plain(tcp)) => endpoint
            .connector
            .connect(tcp)
            .await
            .map_err(|error| ConnectError::Tls(error.to_string())),
        (b"N", plain) if mode == TargetTls::Prefer => Ok(plain),
        (b"N", _) => Err(ConnectError::Tls("the target does not offer it".to_owned())),
        // More than one byte: somebody put words into the server's mouth before TLS began.
        _ => Err(ConnectError::Protocol),
    }
}

/// Bytes of a `PasswordMessage` beside the password: tag, length and the byte that ends it.
const PASSWORD_OVERHEAD: usize = 6;

/// A login under way.
struct Login {
    stream: Stream,
    buffer: Vec<u8>,
}

impl Login {
    async fn message(&mut self) -> Result<(BackendTag, Vec<u8>), ConnectError> {
        let (tag, body) = Server::read_message(&mut self.stream, &mut self.buffer).await?;
        if tag == BackendTag::ERROR_RESPONSE {
            let sqlstate = ErrorFields::read(&body).sqlstate;
            return Err(ConnectError::Refused(Refusal { sqlstate, body: body.into() }));
        }
        Ok((tag, body))
    }

    async fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), ConnectError> {
        let mut out = Vec::with_capacity(256);
        write(&mut out);
        Ok(self.stream.write_all(&out).await?)
    }

    async fn authenticate(&mut self, proof: &Proof) -> Result<(), ConnectError> {
        let (tag, body) = self.message().await?;
        if tag != BackendTag::AUTHENTICATION {
            return Err(ConnectError::Protocol);
        }
        let request = Authentication::read(&body).ok_or(ConnectError::Protocol)?;
        match (request, proof) {
            // A target that asks for nothing proves no token.
            (Authentication::Ok, Proof::Secret(_)) => return Ok(()),
            (Authentication::CleartextPassword, proof) if self.stream.is_tls() => {
                let password = proof.password();
                // As large as the message, so that it is not left behind where it grew out of.
                let mut out =
                    Zeroizing::new(Vec::with_capacity(password.len() + PASSWORD_OVERHEAD));
                encode::password(&mut out, password);
                self.stream.write_all(&out).await?;
            }
            (Authentication::Md5Password(salt), Proof::Secret(credential)) => {
                let verifier = Md5Verifier::derive(&credential.password, &credential.username);
                let response = verifier.response(salt);
                self.send(|out| encode::password(out, response.as_slice())).await?;
            }
            (Authentication::Sasl(mechanisms), Proof::Secret(credential)) => {
                let proof = self.scram(&mechanisms, credential).await?;
                return self.finish_scram(proof).await;
            }
            _ => return Err(ConnectError::Method),
        }
        self.expect_ok().await
    }

    async fn expect_ok(&mut self) -> Result<(), ConnectError> {
        let (tag, body) = self.message().await?;
        let ok = tag == BackendTag::AUTHENTICATION
            && Authentication::read(&body) == Some(Authentication::Ok);
        if ok { Ok(()) } else { Err(ConnectError::Protocol) }
    }

    async fn scram(
        &mut self,
        mechanisms: &[&str],
        credential: &Arc<Credential>,
    ) -> Result<ScramProof, ConnectError> {
        let mut random = [0; RAW_NONCE_LEN];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| ConnectError::Method)?;
        let end_point = self
            .stream
            .peer_certificate()
            .and_then(crate::auth::channel_binding::tls_server_end_point);
        let (client, first) = ScramClient::start(
            mechanisms.iter().copied(),
            end_point.as_deref(),
            &Nonce::from_random(&random),
        )?;
        let mechanism = client.mechanism();
        self.send(|out| encode::sasl_initial_response(out, mechanism, &first)).await?;
        let (tag, body) = self.message().await?;
        let Some(Authentication::SaslContinue(data)) = Authentication::read(&body) else {
            return Err(ConnectError::Protocol);
        };
        if tag != BackendTag::AUTHENTICATION {
            return Err(ConnectError::Protocol);
        }
        let challenge = client.challenge(data)?;
        let keys =
            credential.keys_for(challenge.parameters()).await.map_err(|_| ConnectError::Method)?;
        let (proof, response) = challenge.respond(&keys);
        self.send(|out| encode::sasl_response(out, &response)).await?;
        Ok(proof)
    }

    async fn finish_scram(&mut self, proof: ScramProof) -> Result<(), ConnectError> {
        let (tag, body) = self.message().await?;
        match Authentication::read(&body) {
            Some(Authentication::SaslFinal(data)) if tag == BackendTag::AUTHENTICATION => {
                proof.finish(data)?;
            }
            _ => return Err(ConnectError::Protocol),
        }
        self.expect_ok().await
    }

    async fn finish(mut self, generation: u64) -> Result<(Server, Reported), ConnectError> {
        let mut settings = Reported::new();
        let address = self.stream.peer_addr().ok();
        let mut cancel = None;
        loop {
            let (tag, body) = self.message().await?;
            match tag {
                BackendTag::PARAMETER_STATUS => {
                    settings.push(reported(&body).ok_or(ConnectError::Protocol)?);
                }
                BackendTag::BACKEND_KEY_DATA => {
                    let (process_id, secret) =
                        backend::backend_key_data(&body).ok_or(ConnectError::Protocol)?;
                    cancel = Some(CancelTarget::new(process_id, secret, address));
                }
                BackendTag::NOTICE_RESPONSE => {}
                BackendTag::READY_FOR_QUERY if body == b"I" && self.buffer.is_empty() => break,
                _ => return Err(ConnectError::Protocol),
            }
        }
        let server = Server {
            id: NEXT_SERVER.fetch_add(1, Ordering::Relaxed),
            stream: self.stream,
            side: ServerSide::default(),
            passing: Passing::Nothing,
            held: Vec::new(),
            // A server without a key cannot be cancelled on; process id 0 names no backend.
            cancel: cancel.unwrap_or_else(|| CancelTarget::new(0, &[], address)),
            worker: 0,
            generation,
            defaults: 0,
            expires_at: None,
            tls_gauge: None,
        };
        Ok((server, settings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::cancel;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x07\0\0\0\x09Z\0\0\0\x05I";

    fn endpoint(host: &str, port: u16) -> Endpoint {
        Endpoint {
            host: host.to_owned(),
            port,
            connector: TargetConnector::load(TargetTls::Disable, None, host).unwrap(),
            options: SocketOptions { keepalive: Duration::ZERO, user_timeout: Duration::ZERO },
            timeout: Duration::from_secs(10),
            init_query: String::new(),
        }
    }

    #[tokio::test]
    async fn a_cancel_goes_to_where_the_server_is_whatever_its_hosts_name_means_by_now() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = tokio::spawn(async move {
            let mut server = Stream::Plain(listener.accept().await.unwrap().0);
            server.write_all(WELCOME).await.unwrap();
            let (mut cancel, _) = listener.accept().await.unwrap();
            let mut request = [0; 16];
            cancel.read_exact(&mut request).await.unwrap();
            request
        });
        let proof = Proof::Secret(Credential::for_a_test("app", 1).await);
        let now = endpoint("127.0.0.1", address.port());
        let (server, _) = connect(&now, "app", proof).await.unwrap();
        let later = endpoint("moved.invalid", 1);
        let fence = server.cancel.fence();
        let there = fence.address().unwrap();
        let stream = open_stream_to(&later, there).await.unwrap();
        cancel::send(fence, async { Ok(stream) }, later.timeout).await;
        let request = target.await.unwrap();
        assert_eq!(request[8..], [0, 0, 0, 7, 0, 0, 0, 9]);
    }
}
