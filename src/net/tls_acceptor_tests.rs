//! Loading and reloading certificates, and what clients see of it.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::CertificateParams;
use rustls::CipherSuite;
use rustls::version::{TLS12, TLS13};

use super::*;
use crate::net::test_support::{Client, Identity, accept_from};

fn load(files: &TlsFiles) -> Result<TlsAcceptor, TlsFileError> {
    TlsAcceptor::load(files, |leaf| Some(leaf.to_vec()))
}

fn error_of(identity: &Identity) -> TlsFileError {
    load(&identity.files()).err().unwrap()
}

/// A second certificate of the same authority's kind, in the first one's files.
fn replace_certificate(identity: &Identity) -> Identity {
    let next = Identity::new();
    identity.write("server.pem", &fs::read_to_string(next.path("server.pem")).unwrap());
    identity.write("server.key", &next.key.serialize_pem());
    next
}

/// Connects with `config` and says whether the session was resumed.
async fn resumes(acceptor: &TlsAcceptor, config: &Arc<rustls::ClientConfig>) -> bool {
    let (stream, client) = accept_from(acceptor, config, |mut client: Client| {
        let mut byte = [0; 1];
        client.read_exact(&mut byte).unwrap();
    })
    .await;
    let mut stream = stream.unwrap();
    stream.write_all(b"x").await.unwrap();
    tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap();
    stream.tls().unwrap().is_resumed()
}

#[tokio::test]
async fn a_client_that_prefers_aes_256_gets_the_cheaper_suite() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    for version in [&TLS12, &TLS13] {
        let config = identity.client_config(version);
        let first = config.crypto_provider().cipher_suites[0].suite();
        assert_eq!(first, CipherSuite::TLS13_AES_256_GCM_SHA384);
        let (stream, client) = accept_from(&acceptor, &config, |mut client: Client| {
            let mut byte = [0; 1];
            client.read_exact(&mut byte).unwrap();
            client.conn.negotiated_cipher_suite().unwrap().suite()
        })
        .await;
        stream.unwrap().write_all(b"x").await.unwrap();
        let suite = tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap();
        let cheap = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        assert!(cheap.contains(&suite), "{suite:?}");
    }
}

#[test]
fn every_encoding_of_a_private_key_is_read() {
    let identity = Identity::new();
    // rcgen writes PKCS #8; OpenSSL turns an EC key into SEC 1, and makes an RSA key in PKCS #1.
    let openssl = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).current_dir(identity.path("")).output();
        let done = done.expect("this test needs the openssl command");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    load(&identity.files()).unwrap();
    openssl(&["ec", "-in", "server.key", "-out", "sec1.key"]);
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-days",
        "1",
        "-keyout",
        "rsa.key",
        "-out",
        "rsa.pem",
    ]);
    openssl(&["rsa", "-in", "rsa.key", "-traditional", "-out", "pkcs1.key"]);
    let kinds = [("server.pem", "sec1.key", "EC PRIVATE"), ("rsa.pem", "pkcs1.key", "RSA PRIVATE")];
    for (certificate, key, marker) in kinds {
        assert!(fs::read_to_string(identity.path(key)).unwrap().contains(marker));
        let files = TlsFiles {
            certificate: Pem::File(identity.path(certificate)),
            private_key: Pem::File(identity.path(key)),
        };
        load(&files).unwrap();
    }
}

#[test]
fn what_is_given_as_text_is_used_and_called_by_its_setting() {
    let identity = Identity::new();
    let text = |name: &str| fs::read_to_string(identity.path(name)).unwrap().into();
    let files = TlsFiles {
        certificate: Pem::Text(text("server.pem")),
        private_key: Pem::Text(text("server.key")),
    };
    let acceptor = load(&files).unwrap();
    assert!(!acceptor.reload_if_changed().unwrap());
    assert_eq!(format!("{files:?}"), "TlsFiles { certificate: Text(..), private_key: Text(..) }");
    let swapped =
        TlsFiles { certificate: files.certificate.clone(), private_key: files.certificate };
    let error = load(&swapped).err().unwrap().to_string();
    assert_eq!(error, "proxy.tls_private_key holds no unencrypted private key");
}

#[test]
fn each_unusable_file_is_named() {
    let identity = Identity::new();
    let good = fs::read_to_string(identity.path("server.pem")).unwrap();
    let key = identity.key.serialize_pem();

    identity.write("server.key", &Identity::new().key.serialize_pem());
    assert!(matches!(error_of(&identity), TlsFileError::KeyMismatch { .. }));

    identity.write("server.key", "");
    assert!(matches!(error_of(&identity), TlsFileError::NoPrivateKey { .. }));

    identity.write("server.key", &key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    assert!(matches!(error_of(&identity), TlsFileError::NoPrivateKey { .. }));

    identity.write("server.key", &key[..key.len() / 2]);
    assert!(matches!(error_of(&identity), TlsFileError::Pem { .. }));

    identity.write("server.key", &key);
    identity.write("server.pem", &good[..good.len() / 3]);
    assert!(matches!(error_of(&identity), TlsFileError::Pem { .. }));

    identity.write("server.pem", "no certificate\n");
    assert!(matches!(error_of(&identity), TlsFileError::NoCertificate { .. }));

    identity.write("server.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let error = error_of(&identity);
    assert!(
        matches!(&error, TlsFileError::Unusable { path, .. } if *path == identity.path("server.pem"))
    );

    fs::remove_file(identity.path("server.pem")).unwrap();
    let error = error_of(&identity);
    assert!(
        matches!(error, TlsFileError::Read { path, .. } if path == identity.path("server.pem"))
    );
}

#[test]
fn an_error_shows_no_part_of_the_key() {
    let identity = Identity::new();
    let key = identity.key.serialize_pem().replace('M', "*");
    identity.write("server.key", &key);
    let error = error_of(&identity);
    let shown = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
    for line in key.lines().filter(|line| !line.starts_with("-----")) {
        for at in 0..line.len().saturating_sub(6) {
            assert!(!shown.contains(&line[at..at + 6]), "{shown}");
        }
    }
    assert!(!shown.contains("42"), "the offending byte is named: {shown}");
}

#[test]
fn unchanged_files_are_not_loaded_again() {
    let identity = Identity::new();
    let acceptor = load(&identity.files()).unwrap();
    let before = acceptor.current();
    assert!(!acceptor.reload_if_changed().unwrap());
    // Written anew, with the same content.
    identity.write("server.key", &identity.key.serialize_pem());
    assert!(!acceptor.reload_if_changed().unwrap());
    assert!(Arc::ptr_eq(&before, &acceptor.current()));
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_clients() {
    let identity = Identity::new();
    let acceptor = load(&identity.files()).unwrap();
    assert!(!resumes(&acceptor, &identity.client_config(&TLS13)).await);
    let next = replace_certificate(&identity);
    assert!(acceptor.reload_if_changed().unwrap());
    assert!(!acceptor.reload_if_changed().unwrap());
    assert_eq!(acceptor.current().tls_server_end_point(), Some(next.leaf.as_ref()));
    // This client trusts only the new one's authority.
    assert!(!resumes(&acceptor, &next.client_config(&TLS13)).await);
}

#[tokio::test]
async fn half_written_files_leave_the_old_certificate_in_use_and_are_tried_again() {
    let identity = Identity::new();
    let acceptor = load(&identity.files()).unwrap();
    let before = acceptor.current();
    let next = Identity::new();
    let chain = fs::read_to_string(next.path("server.pem")).unwrap();
    identity.write("server.pem", &chain[..100]);
    assert!(matches!(acceptor.reload_if_changed(), Err(TlsFileError::Pem { .. })));
    identity.write("server.pem", &chain);
    // The key is still the old one's.
    for _ in 0..2 {
        assert!(matches!(acceptor.reload_if_changed(), Err(TlsFileError::KeyMismatch { .. })));
    }
    assert!(Arc::ptr_eq(&before, &acceptor.current()));
    assert!(!resumes(&acceptor, &identity.client_config(&TLS13)).await);
    identity.write("server.key", &next.key.serialize_pem());
    assert!(acceptor.reload_if_changed().unwrap());
    assert!(!resumes(&acceptor, &next.client_config(&TLS13)).await);
}

#[tokio::test]
async fn tickets_outlive_a_reload_but_not_their_certificate() {
    for version in [&TLS12, &TLS13] {
        let identity = Identity::new();
        let acceptor = load(&identity.files()).unwrap();
        let config = identity.client_config(version);
        assert!(!resumes(&acceptor, &config).await);
        // The same certificate, with a chain that says less.
        let chain = fs::read_to_string(identity.path("server.pem")).unwrap();
        let first_end = chain.find("-----END CERTIFICATE-----\n").unwrap() + 26;
        identity.write("server.pem", &chain[..first_end]);
        assert!(acceptor.reload_if_changed().unwrap());
        assert!(resumes(&acceptor, &config).await, "{version:?}");
        // The same key with another certificate of the same authority would do as well: what counts is the leaf.
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let own = params.self_signed(&identity.key).unwrap();
        identity.write("server.pem", &own.pem());
        assert!(acceptor.reload_if_changed().unwrap());
        let (stream, client) = accept_from(&acceptor, &config, |mut client: Client| {
            client.flush().unwrap_err().to_string()
        })
        .await;
        // A full handshake, in which this client refuses the new certificate.
        assert!(stream.is_err());
        let error = tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap();
        assert!(error.contains("certificate"), "{error}");
    }
}

#[tokio::test]
async fn the_application_protocol_is_postgresql_or_none() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    let offers =
        [("", None), ("postgresql", Some("postgresql")), ("h2 postgresql", Some("postgresql"))];
    for (offered, expected) in offers {
        let mut config = (*identity.client_config(&TLS13)).clone();
        config.alpn_protocols = offered.split_whitespace().map(Into::into).collect();
        let (stream, client) =
            accept_from(&acceptor, &Arc::new(config), |mut client: Client| client.flush()).await;
        assert_eq!(stream.unwrap().alpn_protocol(), expected.map(str::as_bytes));
        tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap().unwrap();
    }
    let mut config = (*identity.client_config(&TLS13)).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (stream, client) =
        accept_from(&acceptor, &Arc::new(config), |mut client: Client| client.flush()).await;
    assert!(matches!(stream.err().unwrap(), TlsError::Protocol(Error::NoApplicationProtocol)));
    tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap().unwrap_err();
}

/// Runs `openssl s_client`, sends a line, and returns what it printed when the server has closed.
async fn openssl_client(acceptor: &TlsAcceptor, arguments: &[&str]) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &address, "-servername", "localhost", "-alpn", "postgresql"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test needs the openssl command");
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"hello from openssl\n").unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let mut stream = acceptor.current().accept(socket, Vec::new()).await.unwrap();
    let mut buf = vec![0; crate::net::CHUNK_SIZE];
    let len = stream.read_some(&mut buf).await.unwrap();
    stream.write_all(&buf[..len]).await.unwrap();
    let output = tokio::task::spawn_blocking(move || {
        // Held open till here: the end of its input would make it leave early.
        let output = child.wait_with_output();
        drop(input);
        output
    });
    stream.write_all(&vec![b'.'; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    String::from_utf8_lossy(&output.await.unwrap().unwrap().stdout).into_owned()
}

#[tokio::test]
async fn openssl_clients_connect_and_resume() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    let authority = identity.path("ca.pem").display().to_string();
    let session = identity.path("session").display().to_string();
    for version in ["-tls1_2", "-tls1_3"] {
        let trust = [version, "-CAfile", &authority, "-verify_return_error"];
        let first =
            openssl_client(&acceptor, &[&trust[..], &["-sess_out", &session]].concat()).await;
        assert!(first.contains("hello from openssl"), "{first}");
        assert!(first.contains("ALPN protocol: postgresql"), "{first}");
        assert!(first.contains("New, "), "{first}");
        assert!(first.contains(&".".repeat(100_000)));
        let second =
            openssl_client(&acceptor, &[&trust[..], &["-sess_in", &session]].concat()).await;
        assert!(second.contains("Reused, "), "{version}: {second}");
    }
}
