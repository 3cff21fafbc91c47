//! How TLS streams and handshakes end: as they should, cut, forged, or never begun.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use rustls::version::{TLS12, TLS13};

use super::buffer::CHUNK_SIZE;
use super::test_support::{
    Client, Identity, accept_from, all_that_comes, read_exactly, socket_pair,
};
use super::tls_error::TlsError;

#[tokio::test]
async fn close_notify_is_the_end_and_ours_reaches_the_peer() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    for version in [&TLS12, &TLS13] {
        let config = identity.client_config(version);
        let (stream, client) = accept_from(&acceptor, &config, |mut client: Client| {
            client.write_all(b"last words").unwrap();
            client.conn.send_close_notify();
            client.flush().unwrap();
            let mut rest = Vec::new();
            // An end without close_notify would be an error.
            client.read_to_end(&mut rest).unwrap();
            rest
        })
        .await;
        let mut stream = stream.unwrap();
        assert_eq!(read_exactly(&mut stream, 10, CHUNK_SIZE).await, b"last words");
        for _ in 0..2 {
            assert_eq!(stream.read_some(&mut [0; 100]).await.unwrap(), 0);
        }
        // The other half is still open.
        stream.write_all(b"goodbye").await.unwrap();
        stream.shutdown().await.unwrap();
        let rest = tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap();
        assert_eq!(rest, b"goodbye");
        let refused = stream.write_all(b"more").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
    }
}

#[tokio::test]
async fn a_cut_stream_is_told_from_a_closed_one() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    for whole_record in [true, false] {
        let config = identity.client_config(&TLS13);
        let (stream, client) = accept_from(&acceptor, &config, move |mut client: Client| {
            client.write_all(b"whole").unwrap();
            if !whole_record {
                let mut record = Vec::new();
                client.conn.writer().write_all(b"half").unwrap();
                client.conn.write_tls(&mut record).unwrap();
                client.sock.write_all(&record[..record.len() / 2]).unwrap();
            }
            client.sock.shutdown(Shutdown::Write).unwrap();
            client
        })
        .await;
        let mut stream = stream.unwrap();
        let mut buf = vec![0; CHUNK_SIZE];
        assert_eq!(read_exactly(&mut stream, 5, CHUNK_SIZE).await, b"whole");
        let error = stream.read_some(&mut buf).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        drop(client.join().unwrap());
    }
}

#[tokio::test]
async fn a_forged_record_ends_the_stream_behind_what_was_genuine() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    for version in [&TLS12, &TLS13] {
        let config = identity.client_config(version);
        let (stream, client) = accept_from(&acceptor, &config, |mut client: Client| {
            let mut records = Vec::new();
            client.conn.complete_io(&mut client.sock).unwrap();
            client.conn.writer().write_all(b"genuine").unwrap();
            client.conn.write_tls(&mut records).unwrap();
            let genuine = records.len();
            client.conn.writer().write_all(b"forged").unwrap();
            client.conn.write_tls(&mut records).unwrap();
            records[genuine + 8] ^= 1;
            client.sock.write_all(&records).unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).unwrap_err().to_string()
        })
        .await;
        let mut stream = stream.unwrap();
        assert_eq!(read_exactly(&mut stream, 7, CHUNK_SIZE).await, b"genuine");
        for _ in 0..2 {
            let error = stream.read_some(&mut [0; 100]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
        let refused = stream.write_all(b"to a broken stream").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
        let told = tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap();
        assert!(told.contains("BadRecordMac"), "{told}");
    }
}

#[tokio::test]
async fn garbage_instead_of_a_hello_is_answered_by_an_alert() {
    let identity = Identity::new();
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 64],
        &[0x16, 3, 1, 0, 4, 9, 0, 0, 0],
        &[0x16, 3, 1, 0xff, 0xff],
    ];
    for bytes in garbage {
        let (socket, mut peer) = socket_pair().await;
        peer.write_all(bytes).unwrap();
        let error = identity.acceptor().current().accept(socket, Vec::new()).await.err().unwrap();
        assert!(matches!(error, TlsError::Protocol(_)), "{error:?}");
        let answer = all_that_comes(&peer);
        assert_eq!(answer.first(), Some(&0x15), "{answer:?} to {bytes:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut() {
    let identity = Identity::new();
    let (socket, mut peer) = socket_pair().await;
    // A ClientHello that claims 60,000 bytes, in records of 4,000.
    let mut bytes = vec![0x16, 3, 1, 0x0f, 0xa0, 1, 0, 0xea, 0x60];
    bytes.resize(4_005, 0);
    for _ in 0..10 {
        bytes.extend_from_slice(&[0x16, 3, 1, 0x0f, 0xa0]);
        bytes.resize(bytes.len() + 4_000, 0);
    }
    peer.write_all(&bytes).unwrap();
    let error = identity.acceptor().current().accept(socket, Vec::new()).await.err().unwrap();
    assert!(matches!(error, TlsError::TooLong { .. }), "{error:?}");
}

#[tokio::test]
async fn a_client_that_leaves_during_the_handshake_is_noticed() {
    let identity = Identity::new();
    for sent in [&[][..], &[0x16, 3, 1, 1, 0, 1]] {
        let (socket, mut peer) = socket_pair().await;
        peer.write_all(sent).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let error = identity.acceptor().current().accept(socket, Vec::new()).await.err().unwrap();
        assert!(matches!(error, TlsError::Closed), "{error:?}");
    }
}
