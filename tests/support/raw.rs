//! A client that sends any bytes and shows every message it gets, for transcripts.

use super::PATIENCE;
use super::certificates::Authority;
use super::messages::{Message, PROTOCOL_3_0, SSL_REQUEST, frontend};
use super::postgres::settle_order;
use super::scram::ScramClient;
use md5::{Digest as _, Md5};
use rustls_pki_types::ServerName;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A blocking connection. Every read fails after [`PATIENCE`].
pub struct RawClient {
    stream: Stream,
    /// Of the last login.
    pub process_id: u32,
    /// Cancel key of the last login; 4 bytes in protocol 3.0.
    pub key: Vec<u8>,
    /// `name=value` of each ParameterStatus of the last login.
    pub parameters: Vec<String>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
    /// While one becomes the other.
    Moved,
}

impl RawClient {
    /// Connects to 127.0.0.1.
    pub fn connect(port: u16) -> Self {
        let tcp = TcpStream::connect(("127.0.0.1", port))
            .unwrap_or_else(|error| panic!("127.0.0.1:{port}: {error}"));
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self::over(Stream::Tcp(tcp))
    }

    /// The same with so small a buffer, and segments, that whoever sends soon has to wait.
    pub fn connect_with_small_buffer(port: u16) -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_tcp_mss(536).unwrap();
        let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
        socket.connect(&address.into()).unwrap();
        let tcp = TcpStream::from(socket);
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(Stream::Tcp(tcp))
    }

    pub fn connect_unix(path: &Path) -> Self {
        let unix =
            UnixStream::connect(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        unix.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::over(Stream::Unix(unix))
    }

    /// Connects, asks for TLS and shakes hands.
    pub fn connect_tls(port: u16, authority: &Authority) -> Self {
        let mut client = Self::connect(port);
        client.send(&frontend::untagged(SSL_REQUEST, &[]));
        assert_eq!(client.read_byte(), b'S', "the server offers no TLS");
        client.upgrade(authority, &[]);
        client
    }

    /// Connects with TLS from the first byte (`sslnegotiation=direct`).
    pub fn connect_direct_tls(port: u16, authority: &Authority) -> Self {
        Self::connect_direct_tls_as(port, authority, &[b"postgresql"])
    }

    /// The same with any list of protocols to choose from (ALPN).
    pub fn connect_direct_tls_as(port: u16, authority: &Authority, alpn: &[&[u8]]) -> Self {
        let mut client = Self::connect(port);
        client.upgrade(authority, alpn);
        client
    }

    fn over(stream: Stream) -> Self {
        Self { stream, process_id: 0, key: Vec::new(), parameters: Vec::new() }
    }

    fn upgrade(&mut self, authority: &Authority, alpn: &[&[u8]]) {
        let Stream::Tcp(tcp) = std::mem::replace(&mut self.stream, Stream::Moved) else {
            panic!("TLS needs a TCP connection");
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, tcp);
        stream.conn.complete_io(&mut stream.sock).expect("TLS handshake");
        self.stream = Stream::Tls(Box::new(stream));
    }

    /// Logs in with protocol 3.0 by whatever method the server asks for.
    ///
    /// # Panics
    /// With the server's words, when it refuses.
    pub fn log_in(&mut self, user: &str, password: &str, database: &str) {
        let answer = self.try_log_in(user, password, &[("database", database)]);
        if let Err(refusal) = answer {
            panic!("{user} cannot log in to {database}: {} {}", refusal.line(), refusal.field('M'));
        }
    }

    /// The same with any startup parameters.
    ///
    /// # Errors
    /// The ErrorResponse that ends the login.
    pub fn try_log_in(
        &mut self,
        user: &str,
        password: &str,
        parameters: &[(&str, &str)],
    ) -> Result<(), Message> {
        let mut all = vec![("user", user)];
        all.extend_from_slice(parameters);
        self.send(&frontend::startup(PROTOCOL_3_0, &all));
        self.authenticate(user, password)
    }

    /// Answers the server's authentication requests and reads up to the first ReadyForQuery.
    ///
    /// # Errors
    /// The ErrorResponse that ends the login.
    pub fn authenticate(&mut self, user: &str, password: &str) -> Result<(), Message> {
        let mut scram = ScramClient::new(password, "n0t+r4ndom/at=all");
        self.parameters.clear();
        loop {
            let message = self.read_message();
            match message.tag {
                b'R' => self.answer(&message, user, password, &mut scram),
                b'S' => self.parameters.push(message.strings().join("=")),
                b'K' => {
                    self.process_id = message.number_at(0);
                    self.key = message.body[4..].to_vec();
                }
                b'Z' => return Ok(()),
                b'E' => return Err(message),
                b'v' | b'N' => {}
                _ => panic!("{} during login", message.line()),
            }
        }
    }

    fn answer(&mut self, request: &Message, user: &str, password: &str, scram: &mut ScramClient) {
        let text = || String::from_utf8_lossy(&request.body[4..]).into_owned();
        match request.number_at(0) {
            0 => {}
            3 => self.send(&frontend::password(&[password.as_bytes(), b"\0"].concat())),
            5 => {
                let inner = md5_hex(&[password.as_bytes(), user.as_bytes()]);
                let outer = md5_hex(&[inner.as_bytes(), &request.body[4..8]]);
                self.send(&frontend::password(format!("md5{outer}\0").as_bytes()));
            }
            10 => {
                assert!(text().split('\0').any(|name| name == scram.mechanism()), "{}", text());
                self.send(&frontend::password(&scram.initial_response()));
            }
            11 => {
                let last = scram.respond(&text());
                self.send(&frontend::password(&last));
            }
            12 => {
                assert!(scram.server_is_genuine(&text()), "the server does not know the password");
            }
            other => panic!("authentication request {other}"),
        }
    }

    /// Waits until the server has said something, and leaves it there.
    pub fn wait_for_word(&self) {
        let Stream::Tcp(tcp) = &self.stream else { panic!("only without TLS") };
        assert_eq!(tcp.peek(&mut [0]).unwrap(), 1);
    }

    /// Sends these bytes in one write.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("send");
    }

    /// # Errors
    /// When the other side has gone, or does not read within [`PATIENCE`].
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads one message.
    ///
    /// # Panics
    /// At the end of the stream, and when nothing comes within [`PATIENCE`].
    pub fn read_message(&mut self) -> Message {
        self.try_read_message().expect("read a message").expect("the server closed the connection")
    }

    /// Reads one message; `None` at an end between two messages.
    ///
    /// # Errors
    /// When the stream ends inside a message, is reset, or is silent for [`PATIENCE`].
    pub fn try_read_message(&mut self) -> io::Result<Option<Message>> {
        let mut tag = [0];
        let read = loop {
            match self.stream.read(&mut tag) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        if read == 0 {
            return Ok(None);
        }
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap() - 4];
        self.stream.read_exact(&mut body)?;
        Ok(Some(Message { tag: tag[0], body }))
    }

    /// Reads a single byte, as answers to SSLRequest are.
    pub fn read_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("read a byte");
        byte[0]
    }

    /// Reads a single byte; `None` at the end of the stream.
    pub fn try_read_byte(&mut self) -> Option<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).ok().map(|()| byte[0])
    }

    /// Reads up to and with the next ReadyForQuery.
    pub fn messages_until_ready(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.read_message());
            if messages.last().unwrap().tag == b'Z' {
                return messages;
            }
        }
    }

    /// The same as lines of a transcript; see [`Message::line`].
    pub fn until_ready(&mut self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.messages_until_ready().iter().map(Message::line).collect();
        settle_order(&mut lines);
        lines
    }

    /// Sends a simple query and returns the transcript of its answer.
    pub fn query(&mut self, sql: &str) -> Vec<String> {
        self.send(&frontend::query(sql));
        self.until_ready()
    }

    /// Sends several messages in one write and returns the transcript up to ReadyForQuery.
    pub fn batch(&mut self, messages: &[Vec<u8>]) -> Vec<String> {
        self.send(&messages.concat());
        self.until_ready()
    }

    /// Runs a simple query that must succeed.
    pub fn execute(&mut self, sql: &str) -> Vec<Vec<String>> {
        self.send(&frontend::query(sql));
        let messages = self.messages_until_ready();
        if let Some(error) = messages.iter().find(|message| message.tag == b'E') {
            panic!("{sql}: {} {}", error.line(), error.field('M'));
        }
        messages.iter().filter(|message| message.tag == b'D').map(Message::values).collect()
    }

    /// The single value of a simple query.
    pub fn value(&mut self, sql: &str) -> String {
        self.execute(sql).concat().pop().unwrap_or_else(|| panic!("{sql}: no row"))
    }

    /// Reads up to the next ReadyForQuery, or to the end if that comes first.
    pub fn until_ready_or_closed(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(Some(message)) = self.try_read_message() {
            lines.push(message.line());
            if message.tag == b'Z' {
                break;
            }
        }
        lines
    }

    /// Reads until the other side closes; returns what it still said.
    ///
    /// # Panics
    /// When it does not close within [`PATIENCE`].
    pub fn until_closed(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.try_read_message() {
                Ok(Some(message)) => lines.push(message.line()),
                Err(error) if is_timeout(&error) => panic!("still open after {PATIENCE:?}"),
                Ok(None) | Err(_) => return lines,
            }
        }
    }

    /// The same connection once more, to send on one thread and read on another.
    pub fn try_clone(&self) -> Self {
        match &self.stream {
            Stream::Tcp(tcp) => Self::over(Stream::Tcp(tcp.try_clone().unwrap())),
            Stream::Unix(_) | Stream::Tls(_) | Stream::Moved => panic!("only for plain TCP"),
        }
    }

    /// Says that nothing more will be sent; reading goes on.
    pub fn shut_down_writing(&mut self) {
        match &self.stream {
            Stream::Tcp(tcp) => tcp.shutdown(Shutdown::Write).unwrap(),
            Stream::Unix(unix) => unix.shutdown(Shutdown::Write).unwrap(),
            Stream::Tls(_) | Stream::Moved => panic!("not for TLS"),
        }
    }

    /// Goes without ceremony: the other side is told that nothing it sends arrives.
    pub fn reset(self) {
        let Stream::Tcp(tcp) = self.stream else { panic!("only for plain TCP") };
        socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

/// Sends a CancelRequest on a connection of its own and waits until it is closed.
pub fn cancel(port: u16, process_id: u32, key: &[u8]) {
    let mut client = RawClient::connect(port);
    client.send(&frontend::cancel(process_id, key));
    assert_eq!(client.until_closed(), Vec::<String>::new(), "a CancelRequest gets no answer");
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn md5_hex(parts: &[&[u8]]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    md5.finalize().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
            Self::Moved => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
            Self::Tls(stream) => stream.write(buffer),
            Self::Moved => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Moved => Err(ErrorKind::NotConnected.into()),
        }
    }
}
