//! TLS streams against rustls's own client and server, on real sockets.

use std::future::poll_fn;
use std::io::{Read, Write};
use std::task::{Context, Poll};

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};

use super::buffer::CHUNK_SIZE;
use super::stream::Stream;
use super::test_support::{
    Client, Dice, Identity, accept_from, all_that_comes, client_connection, echo_server,
    narrow_socket_pair, pattern, read_exactly, socket_pair,
};
use super::tls_connector::TargetConnector;
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
        if self.sent == bytes.len()
            && !self.shut
            && let Poll::Ready(done) = self.stream.poll_shutdown(cx)
        {
            done.unwrap();
            self.shut = true;
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
async fn messages_of_the_handshake_may_be_cut_into_many_records() {
    let identity = Identity::new();
    for version in VERSIONS {
        let mut config = (*identity.client_config(version)).clone();
        config.max_fragment_size = Some(64);
        let (socket, peer) = socket_pair().await;
        let client = std::thread::spawn(move || {
            handshake_by_hand(peer, &config.into(), b"startup", |socket, flight| {
                for piece in flight.chunks(50) {
                    socket.write_all(piece).unwrap();
                }
            })
        });
        let state = identity.acceptor().current();
        let mut stream = state.accept(socket, Vec::new()).await.unwrap();
        assert_eq!(read_exactly(&mut stream, 7, CHUNK_SIZE).await, b"startup");
        drop(client.join().unwrap());

        let mut config = (*identity.server_config(version)).clone();
        config.max_fragment_size = Some(64);
        let (socket, peer) = socket_pair().await;
        let server = echo_server(&config.into(), peer);
        let mut stream = connector(&identity).connect(socket).await.unwrap();
        let bytes = pattern(20_000);
        stream.write_all(&bytes).await.unwrap();
        assert!(read_exactly(&mut stream, bytes.len(), CHUNK_SIZE).await == bytes);
        stream.shutdown().await.unwrap();
        tokio::task::spawn_blocking(|| server.join()).await.unwrap().unwrap().unwrap();
        assert_eq!(stream.buffered_bytes(), 0);
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
