//! For the tests of this layer: certificates, sockets on loopback, and a peer that is rustls as it comes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::stream::Stream;
use super::tls_acceptor::TlsAcceptor;
use super::tls_error::TlsError;
use crate::config::{Pem, TlsFiles};

/// An authority, and a certificate for `localhost` and `127.0.0.1` that it signed, in files.
pub(super) struct Identity {
    directory: TempDir,
    pub(super) authority: CertificateDer<'static>,
    pub(super) leaf: CertificateDer<'static>,
    pub(super) key: KeyPair,
}

impl Identity {
    pub(super) fn new() -> Self {
        Self::for_names(&["localhost", "127.0.0.1"], |_| {})
    }

    /// `change` may spoil the certificate before it is signed.
    pub(super) fn for_names(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        // A name of its own: OpenSSL takes a certificate whose issuer has its subject for self-signed.
        authority.distinguished_name.push(DnType::CommonName, "authority of a test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority_certificate = authority.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(authority, authority_key);
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        let identity = Self {
            directory: tempfile::tempdir().unwrap(),
            authority: authority_certificate.der().clone(),
            leaf: leaf.der().clone(),
            key,
        };
        identity.write("ca.pem", &authority_certificate.pem());
        identity.write("server.pem", &(leaf.pem() + &authority_certificate.pem()));
        identity.write("server.key", &identity.key.serialize_pem());
        identity
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub(super) fn files(&self) -> TlsFiles {
        TlsFiles {
            certificate: Pem::File(self.path("server.pem")),
            private_key: Pem::File(self.path("server.key")),
        }
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::load(&self.files(), |_| Some(vec![7; 32])).unwrap()
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }

    /// rustls's own client, which verifies everything.
    pub(super) fn client_config(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }

    /// rustls's own server.
    pub(super) fn server_config(
        &self,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.leaf.clone()], self.private_key())
            .unwrap();
        config.alpn_protocols = vec![super::ALPN_POSTGRESQL.to_vec()];
        Arc::new(config)
    }
}

/// Two ends of a connection on loopback; the first belongs to this runtime.
pub(super) async fn socket_pair() -> (TcpStream, StdStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    ours.set_nodelay(true).unwrap();
    peer.set_nodelay(true).unwrap();
    let peer = peer.into_std().unwrap();
    peer.set_nonblocking(false).unwrap();
    (ours, peer)
}

/// The same, both in this runtime, with small socket buffers so that neither end runs ahead of the other.
pub(super) async fn narrow_socket_pair() -> (TcpStream, TcpStream) {
    let (ours, peer) = socket_pair().await;
    peer.set_nonblocking(true).unwrap();
    let peer = TcpStream::from_std(peer).unwrap();
    for socket in [&ours, &peer] {
        let socket = socket2::SockRef::from(socket);
        socket.set_send_buffer_size(20_000).unwrap();
        socket.set_recv_buffer_size(20_000).unwrap();
    }
    (ours, peer)
}

/// rustls's blocking client on its own socket.
pub(super) type Client = StreamOwned<ClientConnection, StdStream>;
/// rustls's blocking server on its own socket.
pub(super) type Server = StreamOwned<ServerConnection, StdStream>;

pub(super) fn client_connection(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).unwrap()
}

/// Our stream, accepted from a client that runs `script` in a thread of its own.
pub(super) async fn accept_from<T: Send + 'static>(
    acceptor: &TlsAcceptor,
    config: &Arc<ClientConfig>,
    script: impl FnOnce(Client) -> T + Send + 'static,
) -> (Result<Stream, TlsError>, JoinHandle<T>) {
    let (ours, peer) = socket_pair().await;
    let client = StreamOwned::new(client_connection(config), peer);
    let thread = std::thread::spawn(move || script(client));
    (acceptor.current().accept(ours, Vec::new()).await, thread)
}

/// A rustls server that echoes what it reads until the client closes, in a thread of its own.
pub(super) fn echo_server(
    config: &Arc<ServerConfig>,
    socket: StdStream,
) -> JoinHandle<std::io::Result<()>> {
    let connection = ServerConnection::new(Arc::clone(config)).unwrap();
    let mut stream: Server = StreamOwned::new(connection, socket);
    std::thread::spawn(move || {
        let mut buf = vec![0; 50_000];
        loop {
            let len = stream.read(&mut buf)?;
            if len == 0 {
                stream.conn.send_close_notify();
                stream.flush()?;
                return stream.sock.shutdown(Shutdown::Write);
            }
            stream.write_all(&buf[..len])?;
            stream.flush()?;
        }
    })
}

/// Small pseudo-random numbers: the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// `len` bytes that show where they belong.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at * 31 + at / 251) % 256).unwrap()).collect()
}

/// What the other end of a plain socket gets until the end.
pub(super) fn all_that_comes(mut socket: &StdStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The peer may reset the connection after its last word.
    let _ = socket.read_to_end(&mut bytes);
    bytes
}

/// Reads until `len` bytes came, in a buffer of `size`.
pub(super) async fn read_exactly(stream: &mut Stream, len: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buf = vec![0; size];
    while bytes.len() < len {
        let read = stream.read_some(&mut buf).await.unwrap();
        assert!(read > 0, "the stream ended after {} of {len} bytes", bytes.len());
        bytes.extend_from_slice(&buf[..read]);
    }
    assert_eq!(bytes.len(), len);
    bytes
}
