//! Which targets each mode accepts, against rustls's own server and OpenSSL's.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::process::{Command, Stdio};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::*;
use crate::net::test_support::{Identity, echo_server, read_exactly, socket_pair};

const ALL: [TargetTls; 4] =
    [TargetTls::Prefer, TargetTls::Require, TargetTls::VerifyCa, TargetTls::VerifyFull];

/// Connects as configured; `Ok` after bytes went both ways.
async fn connect(
    config: &Arc<ServerConfig>,
    mode: TargetTls,
    ca: Option<&Path>,
    host: &str,
) -> Result<(), TlsError> {
    let connector = TargetConnector::load(mode, ca, host).unwrap();
    let (socket, peer) = socket_pair().await;
    let server = echo_server(config, peer);
    let mut stream = connector.connect(socket).await?;
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(read_exactly(&mut stream, 5, 1000).await, b"hello");
    stream.shutdown().await.unwrap();
    tokio::task::spawn_blocking(|| server.join()).await.unwrap().unwrap().unwrap();
    Ok(())
}

/// The modes, of [`ALL`], that accept the target.
async fn accepting(
    config: &Arc<ServerConfig>,
    modes: &[TargetTls],
    ca: Option<&Path>,
    host: &str,
) -> Vec<TargetTls> {
    let mut accepting = Vec::new();
    for mode in modes {
        match connect(config, *mode, ca, host).await {
            Ok(()) => accepting.push(*mode),
            Err(TlsError::Protocol(rustls::Error::InvalidCertificate(_))) => {}
            Err(error) => panic!("{mode:?}: {error:?}"),
        }
    }
    accepting
}

#[tokio::test]
async fn a_certificate_of_the_authority_is_accepted_in_each_mode() {
    let identity = Identity::new();
    let ca = identity.path("ca.pem");
    for version in [&TLS12, &TLS13] {
        let config = identity.server_config(version);
        assert_eq!(accepting(&config, &ALL, Some(&ca), "localhost").await, ALL);
        assert_eq!(accepting(&config, &ALL, Some(&ca), "127.0.0.1").await, ALL);
    }
}

#[tokio::test]
async fn only_verify_full_minds_the_name() {
    let identity = Identity::new();
    let config = identity.server_config(&TLS13);
    let ca = identity.path("ca.pem");
    for host in ["db.example.com", "127.0.0.2", "::1"] {
        assert_eq!(accepting(&config, &ALL, Some(&ca), host).await, ALL[..3]);
    }
}

#[tokio::test]
async fn any_authority_given_is_verified_against_and_without_one_anything_goes() {
    let identity = Identity::new();
    let config = identity.server_config(&TLS13);
    let other = Identity::new();
    assert_eq!(accepting(&config, &ALL, Some(&other.path("ca.pem")), "localhost").await, []);
    assert_eq!(accepting(&config, &ALL[..2], None, "localhost").await, ALL[..2]);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_wherever_there_is_an_authority() {
    let expired = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let identity = Identity::for_names(&["localhost"], expired);
    let config = identity.server_config(&TLS13);
    assert_eq!(accepting(&config, &ALL, Some(&identity.path("ca.pem")), "localhost").await, []);
    assert_eq!(accepting(&config, &ALL[..2], None, "localhost").await, ALL[..2]);
}

/// A server whose certificate is its own authority, as in many test systems; the file is the `tls_ca`.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> (Arc<ServerConfig>, Identity) {
    let mut identity = Identity::new();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    change(&mut params);
    let certificate = params.self_signed(&identity.key).unwrap();
    identity.write("own.pem", &certificate.pem());
    identity.leaf = certificate.der().clone();
    (identity.server_config(&TLS13), identity)
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_it_is_the_authority_itself() {
    for is_ca in [rcgen::IsCa::NoCa, rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained)] {
        let (config, files) = self_signed(|params| params.is_ca = is_ca);
        let own = files.path("own.pem");
        assert_eq!(accepting(&config, &ALL, Some(&own), "localhost").await, ALL);
        assert_eq!(accepting(&config, &ALL, Some(&own), "elsewhere").await, ALL[..3]);
        assert_eq!(accepting(&config, &ALL, Some(&files.path("ca.pem")), "localhost").await, []);
    }
    for (from, to) in [(2001, 2002), (2200, 2201)] {
        let (config, files) = self_signed(|params| {
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
        });
        assert_eq!(accepting(&config, &ALL, Some(&files.path("own.pem")), "localhost").await, []);
    }
}

/// Shows a certificate whose key it does not have.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesServerCert for Impostor {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_target_without_the_key_of_its_certificate_is_refused_in_each_mode() {
    let identity = Identity::new();
    let ca = identity.path("ca.pem");
    let other_key = KeyPair::generate().unwrap().serialize_der();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = provider.key_provider.load_private_key(other_key.try_into().unwrap()).unwrap();
    let resolver = Impostor(Arc::new(CertifiedKey::new(vec![identity.leaf.clone()], key)));
    let resolver = Arc::new(resolver);
    for version in [&TLS12, &TLS13] {
        let config = ServerConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Impostor>::clone(&resolver));
        let config = Arc::new(config);
        assert_eq!(accepting(&config, &ALL, Some(&ca), "localhost").await, []);
        assert_eq!(accepting(&config, &ALL[..2], None, "localhost").await, []);
    }
}

#[tokio::test]
async fn disable_leaves_the_socket_as_it_is() {
    let connector = TargetConnector::load(TargetTls::Disable, None, "localhost").unwrap();
    assert!(!connector.wants_tls());
    let (socket, mut peer) = socket_pair().await;
    let mut stream = connector.connect(socket).await.unwrap();
    assert!(!stream.is_tls());
    peer.write_all(b"plain").unwrap();
    assert_eq!(read_exactly(&mut stream, 5, 1000).await, b"plain");
}

#[test]
fn what_cannot_be_used_is_refused_before_anything_connects() {
    let identity = Identity::new();
    let load = |mode, ca: Option<&Path>, host| TargetConnector::load(mode, ca, host).err().unwrap();
    let absent = identity.path("absent.pem");
    let error = load(TargetTls::Require, Some(&absent), "localhost");
    assert!(matches!(error, TlsFileError::Read { path, source }
        if path == absent && source.kind() == ErrorKind::NotFound));
    let error = load(TargetTls::VerifyCa, Some(&identity.path("server.key")), "localhost");
    assert!(matches!(error, TlsFileError::NoCertificate { .. }));
    let error = load(TargetTls::VerifyFull, Some(&identity.path("ca.pem")), "not a host");
    assert!(matches!(error, TlsFileError::HostName { host } if host == "not a host"));
}

#[tokio::test]
async fn openssl_servers_are_spoken_to() {
    let identity = Identity::new();
    for version in ["-tls1_2", "-tls1_3"] {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-naccept", "1", "-rev", version])
            .args(["-cert", "server.pem", "-key", "server.key", "-alpn", "postgresql"])
            .current_dir(identity.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs the openssl command");
        let mut printed = BufReader::new(child.stdout.take().unwrap()).lines();
        let address =
            printed.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned));
        let socket = TcpStream::connect(address.unwrap()).await.unwrap();
        let ca = identity.path("ca.pem");
        let connector =
            TargetConnector::load(TargetTls::VerifyFull, Some(&ca), "localhost").unwrap();
        let mut stream = connector.connect(socket).await.unwrap();
        assert_eq!(stream.alpn_protocol(), Some(&b"postgresql"[..]));
        stream.write_all(b"drawer\n").await.unwrap();
        assert_eq!(read_exactly(&mut stream, 7, 1000).await, b"reward\n");
        assert_eq!(stream.peer_certificate(), Some(identity.leaf.as_ref()));
        stream.shutdown().await.unwrap();
        tokio::task::spawn_blocking(move || {
            printed.for_each(drop);
            child.wait()
        })
        .await
        .unwrap()
        .unwrap();
    }
}
