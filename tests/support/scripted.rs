//! A stand-in for PostgreSQL that does what a test tells it: behaves, dies, talks nonsense, or hangs.

use super::PATIENCE;
use super::certificates::Signed;
use super::messages::{Message, SSL_REQUEST, backend};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;

/// Listens on 127.0.0.1 and plays `script` on a thread of its own for each connection.
pub struct ScriptedServer {
    port: u16,
    stopping: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl ScriptedServer {
    /// `script` gets each connection as it was accepted; most begin with [`Scripted::accept_login`].
    ///
    /// An error that it returns ends the connection, as the end of the script does.
    pub fn start(script: impl Fn(&mut Scripted) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::start_with(None, script)
    }

    /// The same with TLS for those who ask for it.
    pub fn start_tls(
        signed: &Signed,
        script: impl Fn(&mut Scripted) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let chain = CertificateDer::pem_slice_iter(signed.certificate.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(signed.private_key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self::start_with(Some(Arc::new(config)), script)
    }

    fn start_with(
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(&mut Scripted) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            stopping: Arc::default(),
            connections: Arc::default(),
        };
        let script = Arc::new(script);
        let (stopping, connections) = (server.stopping.clone(), server.connections.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::Acquire) {
                    return;
                }
                connections.fetch_add(1, Ordering::AcqRel);
                let script = script.clone();
                let mut connection = Scripted::new(stream.unwrap(), tls.clone());
                thread::spawn(move || {
                    let _ = script(&mut connection);
                });
            }
        });
        server
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Connections accepted so far, those of CancelRequests included.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Acquire)
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// What came as the first packet.
#[derive(Debug, PartialEq, Eq)]
pub enum First {
    /// The startup parameters, `name=value`.
    Startup(Vec<String>),
    Cancel {
        process_id: u32,
        key: Vec<u8>,
    },
}

/// Plain or TLS.
trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// One connection of a scripted server.
pub struct Scripted {
    stream: Box<dyn Stream>,
    /// To begin TLS with, when asked for it.
    tls: Option<(Arc<rustls::ServerConfig>, TcpStream)>,
    /// What it tells as its own process id.
    pub process_id: u32,
    /// A failed statement makes the rest of its batch be skipped.
    skipping: bool,
}

impl Scripted {
    fn new(stream: TcpStream, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1000);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let tls = tls.map(|config| (config, stream.try_clone().unwrap()));
        let process_id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { stream: Box::new(stream), tls, process_id, skipping: false }
    }

    /// Reads the first packet; refuses TLS if asked for it.
    pub fn read_first(&mut self) -> io::Result<First> {
        loop {
            let mut header = [0; 8];
            self.stream.read_exact(&mut header)?;
            let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
            let mut rest = vec![0; usize::try_from(word(0)).unwrap() - header.len()];
            self.stream.read_exact(&mut rest)?;
            if word(4) == SSL_REQUEST {
                match self.tls.take() {
                    Some((config, tcp)) => {
                        self.send(b"S")?;
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        self.stream = Box::new(rustls::StreamOwned::new(connection, tcp));
                    }
                    None => self.send(b"N")?,
                }
                continue;
            }
            if word(4) == super::messages::CANCEL_REQUEST {
                let (process_id, key) = rest.split_first_chunk().unwrap();
                let process_id = u32::from_be_bytes(*process_id);
                return Ok(First::Cancel { process_id, key: key.to_vec() });
            }
            let strings = Message { tag: 0, body: rest }.strings();
            let pairs = strings.chunks(2).map(|pair| pair.join("="));
            return Ok(First::Startup(pairs.collect()));
        }
    }

    /// Reads the startup packet and lets the client in without a password. A CancelRequest ends the
    /// script, as an error.
    pub fn accept_login(&mut self) -> io::Result<Vec<String>> {
        let First::Startup(parameters) = self.read_first()? else {
            return Err(io::Error::other("a CancelRequest"));
        };
        self.send(&self.welcome())?;
        Ok(parameters)
    }

    /// AuthenticationOk to the first ReadyForQuery.
    pub fn welcome(&self) -> Vec<u8> {
        let mut welcome = backend::authentication_ok();
        for (name, value) in [
            ("server_version", "15.0"),
            ("server_encoding", "UTF8"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, MDY"),
            ("IntervalStyle", "postgres"),
            ("TimeZone", "Etc/UTC"),
            ("integer_datetimes", "on"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "off"),
            ("session_authorization", "app"),
            ("application_name", ""),
            ("default_transaction_read_only", "off"),
            ("in_hot_standby", "off"),
        ] {
            welcome.extend(backend::parameter_status(name, value));
        }
        welcome.extend(backend::backend_key_data(self.process_id, &7_u32.to_be_bytes()));
        welcome.extend(backend::ready_for_query(b'I'));
        welcome
    }

    /// Reads one message of the client.
    pub fn read_message(&mut self) -> io::Result<Message> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header)?;
        let length = u32::from_be_bytes(header[1..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        self.stream.read_exact(&mut body)?;
        Ok(Message { tag: header[0], body })
    }

    /// Sends these bytes in one write.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Answers `message` as a server would for which every statement succeeds without a result.
    pub fn answer(&mut self, message: &Message) -> io::Result<()> {
        if self.skipping && message.tag != b'S' {
            return Ok(());
        }
        let ready = backend::ready_for_query(b'I');
        let reply = match message.tag {
            b'Q' => [backend::command_complete("SELECT 0"), ready].concat(),
            b'P' => backend::parse_complete(),
            b'B' => backend::bind_complete(),
            b'D' if message.body.first() == Some(&b'S') => {
                [backend::parameter_description(), backend::no_data()].concat()
            }
            b'D' => backend::no_data(),
            b'E' => backend::command_complete("SELECT 0"),
            b'C' => backend::close_complete(),
            b'S' => {
                self.skipping = false;
                ready
            }
            b'X' => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => return Ok(()),
        };
        self.send(&reply)
    }

    /// Sends an ErrorResponse and skips to the next Sync, as a server does inside a batch.
    pub fn fail(&mut self, sqlstate: &str, message: &str) -> io::Result<()> {
        self.skipping = true;
        self.send(&backend::error("ERROR", sqlstate, message))
    }

    /// Answers everything by [`Self::answer`] until a message makes `special` return true, and
    /// returns that one unanswered.
    pub fn behave_until(&mut self, special: impl Fn(&Message) -> bool) -> io::Result<Message> {
        loop {
            let message = self.read_message()?;
            if special(&message) {
                return Ok(message);
            }
            self.answer(&message)?;
        }
    }

    /// Answers everything by [`Self::answer`] until the client goes.
    pub fn behave(&mut self) -> io::Result<()> {
        self.behave_until(|_| false).map(|_| ())
    }

    /// Says nothing more, whatever comes, until the client goes.
    pub fn hang(&mut self) -> io::Result<()> {
        let mut sink = [0; 4096];
        while self.stream.read(&mut sink)? > 0 {}
        Ok(())
    }
}

/// Whether a Query or Parse has this text in it.
pub fn mentions(message: &Message, text: &str) -> bool {
    matches!(message.tag, b'Q' | b'P') && String::from_utf8_lossy(&message.body).contains(text)
}
