//! TLS streams against rustls's own client and server, on real sockets.

use std::future::poll_fn;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::task::{Context, Poll};

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};

use super::buffer::CHUNK_SIZE;
use super::stream::Stream;
use super::test_support::{
    Client, Dice, Identity, accept_from, client_connection, echo_server, narrow_socket_pair,
    pattern, read_exactly, socket_pair,
};
use super::tls_connector::TargetConnector;
use super::tls_error::TlsError;
use crate::config::TargetTls;

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

fn connector(identity: &Identity) -> TargetConnector {
    TargetConnector::load(TargetTls::VerifyFull, Some(&identity.path("ca.pem")), "localhost")
        .unwrap()
}

/// Both ends are ours.
async fn pair(identity: &Identity) -> (Stream, Stream) {
    let (near, far) = narrow_socket_pair().await;
    let state = identity.acceptor().current();
    let connector = connector(identity);
    let client = async {
        let mut client = connector.connect(near).await.unwrap();
        // The last flight would go with the first message, but the server is waited for before that.
        poll_fn(|cx| client.poll_flush(cx)).await.unwrap();
        client
    };
    let (client, server) = tokio::join!(client, state.accept(far, Vec::new()));
    (client, server.unwrap())
}

/// What the other end of a plain socket gets until the end.
fn all_that_comes(mut socket: &std::net::TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The peer may reset the connection after its last word.
    let _ = socket.read_to_end(&mut bytes);
    bytes
}

#[tokio::test]
async fn bytes_of_any_length_arrive_both_ways() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    for version in VERSIONS {
        let config = identity.client_config(version);
        let (stream, client) = accept_from(&acceptor, &config, |mut client: Client| {
            let sent = pattern(3_000_000);
            let mut dice = Dice(1);
            let mut rest = &sent[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(1 + dice.roll(40_000)));
                client.write_all(now).unwrap();
                rest = later;
            }
            client.flush().unwrap();
            let mut received = vec![0; sent.len()];
            client.read_exact(&mut received).unwrap();
            assert!(received == sent);
        })
        .await;
        let mut stream = stream.unwrap();
        let mut dice = Dice(2);
        let mut bytes = Vec::new();
        while bytes.len() < 3_000_000 {
            // From one byte to a chunk: small buffers get a record in parts.
            let size = [1 + dice.roll(300), 1 + dice.roll(20_000), CHUNK_SIZE][dice.roll(3)];
            let mut buf = vec![0; size];
            let len = stream.read_some(&mut buf).await.unwrap();
            assert!(len > 0);
            bytes.extend_from_slice(&buf[..len]);
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(1 + dice.roll(150_000)));
            stream.write_all(now).await.unwrap();
            rest = later;
        }
        tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap();
        assert_eq!(stream.buffered_bytes(), 0);
    }
}

/// One end of a relay that sends and receives at the same time.
struct Duplex {
    stream: Stream,
    sent: usize,
    received: Vec<u8>,
    dice: Dice,
    buf: Vec<u8>,
    shut: bool,
}

impl Duplex {
    fn new(stream: Stream, seed: u64) -> Self {
        Self {
            stream,
            sent: 0,
            received: Vec::new(),
            dice: Dice(seed),
            buf: vec![0; CHUNK_SIZE],
            shut: false,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<()> {
        while self.sent < bytes.len() {
            let end = bytes.len().min(self.sent + 1 + self.dice.roll(100_000));
            match self.stream.poll_write(cx, &bytes[self.sent..end]) {
                Poll::Ready(taken) => self.sent += taken.unwrap(),
                Poll::Pending => break,
            }
            assert!(self.stream.buffered_bytes() < 3 * CHUNK_SIZE);
        }
        if self.sent == bytes.len() && !self.shut {
            if let Poll::Ready(done) = self.stream.poll_shutdown(cx) {
                done.unwrap();
                self.shut = true;
            }
        }
        loop {
            match self.stream.poll_read(cx, &mut self.buf) {
                Poll::Ready(len) => match len.unwrap() {
                    0 if self.shut => return Poll::Ready(()),
                    0 => return Poll::Pending,
                    len => self.received.extend_from_slice(&self.buf[..len]),
                },
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

#[tokio::test]
async fn both_directions_flow_at_once_through_full_sockets() {
    let identity = Identity::new();
    let (client, server) = pair(&identity).await;
    let (mut client, mut server) = (Duplex::new(client, 3), Duplex::new(server, 4));
    let bytes = pattern(4_000_000);
    tokio::join!(poll_fn(|cx| client.poll(cx, &bytes)), poll_fn(|cx| server.poll(cx, &bytes)));
    assert!(client.received == bytes);
    assert!(server.received == bytes);
    assert_eq!(client.stream.buffered_bytes(), 0);
    assert_eq!(server.stream.buffered_bytes(), 0);
}

#[tokio::test]
async fn a_peer_that_does_not_read_makes_one_chunk_wait_and_no_more() {
    let identity = Identity::new();
    let (mut client, _server) = pair(&identity).await;
    let bytes = pattern(200_000);
    let mut taken = 0;
    poll_fn(|cx| {
        // More than the sockets hold: it must come to a stop.
        for _ in 0..1000 {
            match client.poll_write(cx, &bytes) {
                Poll::Ready(len) => taken += len.unwrap(),
                Poll::Pending => return Poll::Ready(()),
            }
        }
        panic!("{taken} bytes were taken though nobody reads");
    })
    .await;
    assert!(client.buffered_bytes() <= CHUNK_SIZE + 8 * 1024, "{}", client.buffered_bytes());
    assert!(poll_fn(|cx| Poll::Ready(client.poll_flush(cx))).await.is_pending());
}

#[tokio::test]
async fn an_idle_stream_holds_no_buffer_and_its_ticket_went_with_the_first_reply() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    for version in VERSIONS {
        let config = identity.client_config(version);
        let (stream, client) = accept_from(&acceptor, &config, |mut client: Client| {
            client.write_all(b"ping").unwrap();
            let mut reply = [0; 4];
            client.read_exact(&mut reply).unwrap();
            (reply, client)
        })
        .await;
        let mut stream = stream.unwrap();
        assert_eq!(read_exactly(&mut stream, 4, CHUNK_SIZE).await, b"ping");
        // The ticket of TLS 1.3 waits for the reply.
        assert_eq!(stream.buffered_bytes() > 0, *version == TLS13);
        stream.write_all(b"pong").await.unwrap();
        assert_eq!(stream.buffered_bytes(), 0);
        assert!(!stream.has_buffered_input());
        let (reply, _client) =
            tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap();
        assert_eq!(&reply, b"pong");
        assert_eq!(stream.tls_server_end_point(), Some(&[7; 32][..]));
    }
}

#[tokio::test]
async fn a_client_that_returns_resumes_its_session() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    for version in VERSIONS {
        let config = identity.client_config(version);
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
            let (stream, client) = accept_from(&acceptor, &config, |mut client: Client| {
                let mut byte = [0; 1];
                client.read_exact(&mut byte).unwrap();
                client.conn.handshake_kind()
            })
            .await;
            let mut stream = stream.unwrap();
            stream.write_all(b"x").await.unwrap();
            let kind = tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap();
            assert_eq!(kind, Some(expected), "{version:?}");
            assert_eq!(stream.tls().unwrap().is_resumed(), expected == HandshakeKind::Resumed);
        }
    }
}

#[tokio::test]
async fn our_client_speaks_to_a_server_and_resumes_its_session() {
    let identity = Identity::new();
    let connector = connector(&identity);
    for version in VERSIONS {
        let config = identity.server_config(version);
        for resumed in [false, true] {
            let (socket, peer) = socket_pair().await;
            let server = echo_server(&config, peer);
            let mut stream = connector.connect(socket).await.unwrap();
            let bytes = pattern(300_000);
            // The server echoes while we write; its first record also brings the tickets.
            stream.write_all(&bytes[..100]).await.unwrap();
            assert!(read_exactly(&mut stream, 100, CHUNK_SIZE).await == bytes[..100]);
            assert_eq!(stream.tls().unwrap().is_resumed(), resumed, "{version:?}");
            assert_eq!(stream.peer_certificate(), Some(identity.leaf.as_ref()));
            assert_eq!(stream.alpn_protocol(), Some(&b"postgresql"[..]));
            for piece in bytes.chunks(60_000) {
                stream.write_all(piece).await.unwrap();
                assert!(read_exactly(&mut stream, piece.len(), 32 * 1024).await == piece);
            }
            assert_eq!(stream.buffered_bytes(), 0);
            stream.shutdown().await.unwrap();
            assert_eq!(stream.read_some(&mut [0; 10]).await.unwrap(), 0);
            tokio::task::spawn_blocking(|| server.join()).await.unwrap().unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_first_still_ends_its_handshake() {
    let identity = Identity::new();
    let connector = connector(&identity);
    let config = identity.server_config(&TLS13);
    let (socket, peer) = socket_pair().await;
    let connection = rustls::ServerConnection::new(config).unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = rustls::StreamOwned::new(connection, peer);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream.write_all(b"hello").unwrap();
        stream.flush().unwrap();
        stream
    });
    let mut stream = connector.connect(socket).await.unwrap();
    assert_eq!(read_exactly(&mut stream, 5, CHUNK_SIZE).await, b"hello");
    drop(server.join().unwrap());
}

/// The whole of the client's side as bytes: its hello, and after the server's flight the rest with `message` behind.
fn handshake_by_hand(
    mut socket: std::net::TcpStream,
    config: &std::sync::Arc<rustls::ClientConfig>,
    message: &[u8],
    mut send: impl FnMut(&mut std::net::TcpStream, &[u8]),
) -> (rustls::ClientConnection, std::net::TcpStream) {
    let mut connection = client_connection(config);
    connection.writer().write_all(message).unwrap();
    loop {
        let mut flight = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut flight).unwrap();
        }
        send(&mut socket, &flight);
        if !connection.is_handshaking() {
            return (connection, socket);
        }
        while !connection.wants_write() && connection.is_handshaking() {
            assert!(connection.read_tls(&mut socket).unwrap() > 0);
            connection.process_new_packets().unwrap();
        }
    }
}

#[tokio::test]
async fn bytes_behind_the_handshake_in_the_same_segment_are_not_lost() {
    let identity = Identity::new();
    let config = identity.client_config(&TLS13);
    let (socket, peer) = socket_pair().await;
    let client = std::thread::spawn(move || {
        handshake_by_hand(peer, &config, b"startup", |socket, flight| {
            socket.write_all(flight).unwrap();
        })
    });
    let state = identity.acceptor().current();
    let mut stream = state.accept(socket, Vec::new()).await.unwrap();
    assert_eq!(read_exactly(&mut stream, 7, CHUNK_SIZE).await, b"startup");
    drop(client.join().unwrap());
}

#[tokio::test]
async fn a_handshake_may_arrive_byte_by_byte_and_partly_before_it_is_recognised() {
    let identity = Identity::new();
    for version in VERSIONS {
        let config = identity.client_config(version);
        let (mut socket, peer) = socket_pair().await;
        let client = std::thread::spawn(move || {
            handshake_by_hand(peer, &config, b"startup", |socket, flight| {
                for byte in flight {
                    socket.write_all(&[*byte]).unwrap();
                }
            })
        });
        let mut first = vec![0; 3];
        tokio::io::AsyncReadExt::read_exact(&mut socket, &mut first).await.unwrap();
        let state = identity.acceptor().current();
        let mut stream = state.accept(socket, first).await.unwrap();
        assert_eq!(read_exactly(&mut stream, 7, 64).await, b"startup");
        drop(client.join().unwrap());
    }
}

#[tokio::test]
async fn keys_may_be_updated_at_any_time() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    let config = identity.client_config(&TLS13);
    let (stream, client) = accept_from(&acceptor, &config, |mut client: Client| {
        for round in 0..20_u8 {
            client.write_all(&[round]).unwrap();
            client.conn.refresh_traffic_keys().unwrap();
            client.write_all(&[round]).unwrap();
            client.flush().unwrap();
            let mut echo = [0; 2];
            client.read_exact(&mut echo).unwrap();
            assert_eq!(echo, [round; 2]);
        }
        client
    })
    .await;
    let mut stream = stream.unwrap();
    for round in 0..20 {
        let bytes = read_exactly(&mut stream, 2, CHUNK_SIZE).await;
        assert_eq!(bytes, [round; 2]);
        stream.write_all(&bytes).await.unwrap();
    }
    assert_eq!(stream.buffered_bytes(), 0);
    drop(client.join().unwrap());
}

#[tokio::test]
async fn close_notify_is_the_end_and_ours_reaches_the_peer() {
    let identity = Identity::new();
    let acceptor = identity.acceptor();
    for version in VERSIONS {
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
    for version in VERSIONS {
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

/// Moves `stream` to a runtime of its own, on a thread of its own, runs `work` there and brings it back.
async fn elsewhere<F>(stream: Stream, work: F) -> Stream
where
    F: AsyncFnOnce(&mut Stream) + Send + 'static,
{
    let detached = stream.detach().unwrap();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut stream = detached.attach().unwrap();
            work(&mut stream).await;
            stream.detach().unwrap()
        })
    });
    tokio::task::spawn_blocking(|| thread.join()).await.unwrap().unwrap().attach().unwrap()
}

#[tokio::test]
async fn a_stream_moves_between_runtimes_in_the_middle_of_a_record() {
    let identity = Identity::new();
    let config = identity.client_config(&TLS13);
    let (socket, peer) = socket_pair().await;
    let client = std::thread::spawn(move || {
        handshake_by_hand(peer, &config, b"1", |socket, flight| socket.write_all(flight).unwrap())
    });
    let state = identity.acceptor().current();
    let mut stream = state.accept(socket, Vec::new()).await.unwrap();
    let (mut connection, mut peer) =
        tokio::task::spawn_blocking(|| client.join()).await.unwrap().unwrap();
    let mut record = Vec::new();
    connection.writer().write_all(b"the second record").unwrap();
    connection.write_tls(&mut record).unwrap();
    peer.write_all(&record[..20]).unwrap();
    assert_eq!(read_exactly(&mut stream, 1, CHUNK_SIZE).await, b"1");
    let half_read = poll_fn(|cx| Poll::Ready(stream.poll_read(cx, &mut [0; 100]))).await;
    assert!(half_read.is_pending());
    peer.write_all(&record[20..]).unwrap();
    let mut stream = elsewhere(stream, async |stream: &mut Stream| {
        assert_eq!(read_exactly(stream, 17, CHUNK_SIZE).await, b"the second record");
        stream.write_all(b"from elsewhere").await.unwrap();
    })
    .await;
    stream.write_all(b", and back").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut client = rustls::StreamOwned::new(connection, peer);
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from elsewhere, and back");
}

#[tokio::test]
async fn a_plain_stream_moves_between_runtimes_too() {
    let (socket, mut peer) = socket_pair().await;
    peer.write_all(b"hello").unwrap();
    let mut stream = elsewhere(Stream::Plain(socket), async |stream: &mut Stream| {
        assert_eq!(read_exactly(stream, 5, 100).await, b"hello");
    })
    .await;
    stream.write_all(b"bye").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(all_that_comes(&peer), b"bye");
    assert!(!stream.is_tls());
}
