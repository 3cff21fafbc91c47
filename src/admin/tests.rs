//! The endpoint over real sockets, as a client sees it that writes its requests by hand.

use super::serve::{CONNECTION_TIMEOUT, CONNECTIONS_MAX, HEADER_TIMEOUT, connection};
use super::*;
use crate::telemetry::clock;
use parking_lot::{Condvar, Mutex};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Long enough for any machine; reached only by a test that fails.
const LONG: Duration = Duration::from_secs(60);

const METRICS: &str = "# HELP a A.\n# TYPE a gauge\na 1\n";

#[derive(Default)]
struct Source {
    dead: AtomicBool,
    draining: AtomicBool,
    broken: AtomicBool,
    big: AtomicBool,
    gate: (Mutex<Gate>, Condvar),
}

/// Holds up those who want metrics.
#[derive(Default)]
struct Gate {
    closed: bool,
    waiting: usize,
}

impl AdminSource for Source {
    fn metrics_text(&self) -> String {
        assert!(!self.broken.load(Ordering::Relaxed), "broken in this test");
        let mut gate = self.gate.0.lock();
        gate.waiting += 1;
        self.gate.1.wait_while(&mut gate, |gate| gate.closed);
        drop(gate);
        if self.big.load(Ordering::Relaxed) {
            return "x".repeat(4 << 20);
        }
        METRICS.into()
    }

    fn alive(&self) -> bool {
        !self.dead.load(Ordering::Relaxed)
    }

    fn readiness(&self) -> Readiness {
        let draining = self.draining.load(Ordering::Relaxed);
        Readiness::of(vec![
            Check { name: "target", ok: true, detail: "reachable".into() },
            Check { name: "accepting", ok: !draining, detail: "\"quoted\"".into() },
        ])
    }
}

struct Endpoint {
    address: SocketAddr,
    source: Arc<Source>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

async fn endpoint() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let source = Arc::new(Source::default());
    let (stop, stopped) = oneshot::channel();
    let shown = Arc::clone(&source) as Arc<dyn AdminSource>;
    let served = tokio::spawn(serve(listener, shown, async {
        let _ = stopped.await;
    }));
    Endpoint { address, source, stop, served }
}

impl Endpoint {
    /// Everything that comes back on a connection on which `request` is sent.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        // The server may answer and close before all is sent.
        let _ = stream.write_all(request).await;
        read_all(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await
    }
}

/// Reads to the end of the stream, a reset included.
async fn read_all(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the end comes");
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status(response: &str) -> &str {
    response.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or("none")
}

fn body(response: &str) -> &str {
    response.split_once("\r\n\r\n").expect("a body").1
}

fn header<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let head = response.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn metrics_come_with_the_content_type_of_prometheus() {
    let endpoint = endpoint().await;
    let response = endpoint.get("/metrics?name=ignored").await;
    assert_eq!(status(&response), "200");
    let content_type = header(&response, "content-type");
    assert_eq!(content_type, Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(body(&response), METRICS);
    assert_eq!(header(&response, "connection"), Some("close"));
}

#[tokio::test]
async fn health_follows_the_process() {
    let endpoint = endpoint().await;
    let response = endpoint.get("/healthz").await;
    assert_eq!((status(&response), body(&response)), ("200", "ok\n"));
    endpoint.source.dead.store(true, Ordering::Relaxed);
    assert_eq!(status(&endpoint.get("/healthz").await), "503");
}

#[tokio::test]
async fn readiness_tells_its_checks_and_is_503_while_draining() {
    let endpoint = endpoint().await;
    assert_eq!(status(&endpoint.get("/readyz").await), "200");
    endpoint.source.draining.store(true, Ordering::Relaxed);
    let response = endpoint.get("/readyz").await;
    assert_eq!(status(&response), "503");
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_str(body(&response)).unwrap();
    let expected = serde_json::json!({
        "ready": false,
        "checks": [
            {"name": "target", "ok": true, "detail": "reachable"},
            {"name": "accepting", "ok": false, "detail": "\"quoted\""},
        ],
    });
    assert_eq!(json, expected);
}

#[tokio::test]
async fn the_index_lists_paths_that_exist() {
    let endpoint = endpoint().await;
    let index = endpoint.get("/").await;
    let paths: Vec<_> = body(&index)
        .lines()
        .filter_map(|line| line.split_whitespace().next().filter(|word| word.starts_with('/')))
        .collect();
    assert_eq!(paths, ["/metrics", "/healthz", "/readyz"]);
    for path in paths {
        assert_eq!(status(&endpoint.get(path).await), "200", "{path}");
    }
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let endpoint = endpoint().await;
    let response = endpoint.exchange(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!((status(&response), body(&response)), ("200", ""));
    let length = METRICS.len().to_string();
    assert_eq!(header(&response, "content-length"), Some(length.as_str()));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let endpoint = endpoint().await;
    for path in ["/metric", "/metrics/", "//metrics", "/%6detrics", "/..//metrics"] {
        assert_eq!(status(&endpoint.get(path).await), "404", "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let request =
            format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        let response = endpoint.exchange(request.as_bytes()).await;
        assert_eq!(status(&response), "405", "{method}");
        assert_eq!(header(&response, "allow"), Some("GET, HEAD"), "{method}");
    }
}

#[tokio::test]
async fn garbage_is_refused_and_the_endpoint_goes_on() {
    let endpoint = endpoint().await;
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(10_000));
    let endless_body = [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n".as_slice(),
        &vec![b'x'; 8 << 20],
    ]
    .concat();
    for (garbage, accepted) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &["400", "none"][..]),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", &["400", "none"]),
        (b"GET / HTTP/9.9\r\n\r\n", &["400", "none"]),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", &["400", "none"]),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["400", "none"]),
        (long_line.as_bytes(), &["414", "431", "400", "none"]),
        (many_headers.as_bytes(), &["431", "400", "none"]),
        (&endless_body, &["200", "none"]),
    ] {
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        let (mut from, mut to) = stream.split();
        let sending = async {
            let _ = to.write_all(garbage).await;
            let _ = to.shutdown().await;
        };
        let (response, ()) = tokio::join!(read_all(&mut from), sending);
        assert!(accepted.contains(&status(&response)), "{response}");
        assert_eq!(status(&endpoint.get("/healthz").await), "200");
    }
}

#[tokio::test]
async fn a_panic_of_the_source_is_answered_and_the_endpoint_goes_on() {
    let endpoint = endpoint().await;
    endpoint.source.broken.store(true, Ordering::Relaxed);
    assert_eq!(status(&endpoint.get("/metrics").await), "500");
    endpoint.source.broken.store(false, Ordering::Relaxed);
    assert_eq!(status(&endpoint.get("/metrics").await), "200");
}

#[tokio::test]
async fn one_connection_carries_one_request() {
    let endpoint = endpoint().await;
    let twice = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    let response = endpoint.exchange(&twice).await;
    assert_eq!(response.matches("HTTP/1.1").count(), 1, "{response}");
}

#[tokio::test]
async fn whoever_asks_finds_a_place_among_those_who_are_silent() {
    let endpoint = endpoint().await;
    let mut silent = Vec::new();
    for number in 0..2 * CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        // Half a request is none.
        let said: &[u8] = if number % 2 == 0 { b"" } else { b"GET /healthz HTTP/1.1\r\n" };
        stream.write_all(said).await.unwrap();
        silent.push(stream);
        assert_eq!(status(&endpoint.get("/healthz").await), "200");
    }
    // The oldest of them had to go.
    assert_eq!(read_all(&mut silent[0]).await, "");
    let youngest = silent.last_mut().unwrap();
    youngest.write_all(b"Host: x\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_all(youngest).await), "200");
}

#[tokio::test]
async fn nobody_who_has_asked_goes_for_another() {
    let endpoint = endpoint().await;
    *endpoint.source.gate.0.lock() = Gate { closed: true, waiting: 0 };
    let mut asked = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        asked.push(stream);
    }
    while endpoint.source.gate.0.lock().waiting < CONNECTIONS_MAX {
        tokio::task::yield_now().await;
    }
    let mut surplus = TcpStream::connect(endpoint.address).await.unwrap();
    assert_eq!(status(&read_all(&mut surplus).await), "503");
    endpoint.source.gate.0.lock().closed = false;
    endpoint.source.gate.1.notify_all();
    for mut stream in asked {
        assert_eq!(body(&read_all(&mut stream).await), METRICS);
    }
    assert_eq!(status(&endpoint.get("/healthz").await), "200");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_its_header_too_slowly_is_cut() {
    let (mut client, server) = duplex(1024);
    let serving = tokio::spawn(connection(server, Arc::new(Source::default()), Arc::default()));
    let began = clock::now();
    let slowly = async {
        for byte in b"GET / HTTP/1.1\r\nA: ".iter().chain(std::iter::repeat(&b'a')) {
            if client.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(LONG, slowly).await.expect("the connection is cut");
    serving.await.unwrap();
    let lived = clock::now() - began;
    assert!(lived < HEADER_TIMEOUT + Duration::from_secs(2), "{lived:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_cut() {
    let (mut client, server) = duplex(1024);
    let serving = tokio::spawn(connection(server, Arc::new(Source::default()), Arc::default()));
    let began = clock::now();
    assert_eq!(read_all(&mut client).await, "");
    assert_eq!((clock::now() - began).as_secs(), HEADER_TIMEOUT.as_secs());
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_response_is_cut() {
    let source = Arc::new(Source::default());
    source.big.store(true, Ordering::Relaxed);
    let (mut client, server) = duplex(1024);
    let serving = tokio::spawn(connection(server, source, Arc::default()));
    let began = clock::now();
    client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    serving.await.unwrap();
    assert_eq!((clock::now() - began).as_secs(), CONNECTION_TIMEOUT.as_secs());
    assert!(read_all(&mut client).await.len() < 4096);
}

#[tokio::test]
async fn stopping_ends_the_endpoint_and_frees_its_port() {
    let endpoint = endpoint().await;
    assert_eq!(status(&endpoint.get("/healthz").await), "200");
    endpoint.stop.send(()).unwrap();
    timeout(LONG, endpoint.served).await.expect("it ends").unwrap();
    assert!(TcpStream::connect(endpoint.address).await.is_err());
}

#[tokio::test]
async fn a_request_under_way_is_answered_when_the_endpoint_stops() {
    let endpoint = endpoint().await;
    endpoint.source.big.store(true, Ordering::Relaxed);
    let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    // The first byte shows that the request is being answered; most of the answer is to come.
    assert_eq!(stream.read_u8().await.unwrap(), b'H');
    endpoint.stop.send(()).unwrap();
    let response = read_all(&mut stream).await;
    assert_eq!(body(&response).len(), 4 << 20);
    timeout(LONG, endpoint.served).await.expect("it ends").unwrap();
}
