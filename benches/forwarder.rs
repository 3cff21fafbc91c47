//! The floor: transaction pooling on tokio by nothing but the headers of messages.
//!
//! It lets everybody in, and knows no TLS, no session, no prepared statement, no limit and no
//! cancel. A column of `benches/compare --variants forwarder`: what of a pooler's cost is that of
//! moving bytes between sockets. Each thread has a runtime, a listener and servers of its own.

#![allow(missing_docs, reason = "a program, not a library")]

use socket2::{Domain, Socket, Type};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HEADER_LEN: usize = 5;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 64 * 1024]);
}

/// What it is told: `forwarder LISTEN SERVER USER DATABASE SERVERS THREADS`.
struct Arguments {
    listen: SocketAddr,
    server: SocketAddr,
    user: String,
    database: String,
    servers: usize,
    threads: usize,
}

impl Arguments {
    fn read() -> Option<Self> {
        let mut given = std::env::args().skip(1);
        let mut next = || given.next();
        Some(Self {
            listen: next()?.parse().ok()?,
            server: next()?.parse().ok()?,
            user: next()?,
            database: next()?,
            servers: next()?.parse().ok()?,
            threads: next()?.parse().ok()?,
        })
    }
}

#[derive(Default)]
struct Servers {
    idle: Vec<TcpStream>,
    waiting: VecDeque<Waker>,
}

/// The parts of a client's way through a transaction.
enum State {
    Idle,
    Waits(Vec<u8>),
    Attached(TcpStream),
}

struct Client {
    socket: TcpStream,
    servers: Rc<RefCell<Servers>>,
    state: State,
}

impl Client {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let state = std::mem::replace(&mut self.state, State::Idle);
            self.state = match state {
                State::Idle => match BUFFER.with_borrow_mut(|buffer| self.poll_request(cx, buffer))
                {
                    Poll::Ready(next) => next?,
                    Poll::Pending => return Poll::Pending,
                },
                State::Waits(request) => {
                    let server = self.servers.borrow_mut().idle.pop();
                    if let Some(mut server) = server {
                        write_now(cx, &mut server, &request)?;
                        State::Attached(server)
                    } else {
                        self.servers.borrow_mut().waiting.push_back(cx.waker().clone());
                        self.state = State::Waits(request);
                        return Poll::Pending;
                    }
                }
                State::Attached(mut server) => {
                    let ended = BUFFER.with_borrow_mut(|buffer| {
                        poll_reply(cx, &mut server, &mut self.socket, buffer)
                    });
                    match ended {
                        Poll::Ready(Ok(true)) => {
                            let mut servers = self.servers.borrow_mut();
                            servers.idle.push(server);
                            if let Some(waker) = servers.waiting.pop_front() {
                                waker.wake();
                            }
                            State::Idle
                        }
                        Poll::Ready(Ok(false)) => State::Attached(server),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            // The client may be inside a transaction block.
                            let asked = BUFFER
                                .with_borrow_mut(|buffer| self.poll_more(cx, &mut server, buffer));
                            self.state = State::Attached(server);
                            ready!(asked)?;
                            continue;
                        }
                    }
                }
            };
        }
    }

    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut TcpStream,
        buffer: &mut [u8],
    ) -> Poll<io::Result<()>> {
        let read = ready!(poll_read(cx, &mut self.socket, buffer))?;
        let request = buffer.get(..read).unwrap_or_default();
        if request.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(write_now(cx, server, request))
    }

    fn poll_request(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<State>> {
        let read = ready!(poll_read(cx, &mut self.socket, buffer))?;
        let request = buffer.get(..read).unwrap_or_default();
        if request.is_empty() || request.first() == Some(&b'X') {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        scan(request).ok_or(io::ErrorKind::InvalidData)?;
        let server = self.servers.borrow_mut().idle.pop();
        let Some(mut server) = server else {
            return Poll::Ready(Ok(State::Waits(request.to_vec())));
        };
        write_now(cx, &mut server, request)?;
        Poll::Ready(Ok(State::Attached(server)))
    }
}

/// Passes on what the server says. Yields whether the transaction is over.
fn poll_reply(
    cx: &mut Context<'_>,
    server: &mut TcpStream,
    client: &mut TcpStream,
    buffer: &mut [u8],
) -> Poll<io::Result<bool>> {
    let read = ready!(poll_read(cx, server, buffer))?;
    let reply = buffer.get(..read).unwrap_or_default();
    if reply.is_empty() {
        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
    }
    write_now(cx, client, reply)?;
    let last = scan(reply);
    Poll::Ready(Ok(last == Some([b'Z', b'I'])))
}

/// Type and first byte of the last message, if the bytes end with one.
fn scan(mut bytes: &[u8]) -> Option<[u8; 2]> {
    let mut last = [0, 0];
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let [tag, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        last = [tag, *bytes.get(HEADER_LEN).unwrap_or(&0)];
        bytes = bytes.get(1 + length..)?;
    }
    bytes.is_empty().then_some(last)
}

fn poll_read(
    cx: &mut Context<'_>,
    socket: &mut TcpStream,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut received = ReadBuf::new(buffer);
    ready!(Pin::new(socket).poll_read(cx, &mut received))?;
    Poll::Ready(Ok(received.filled().len()))
}

/// Writes small messages, for which there is always room.
fn write_now(cx: &mut Context<'_>, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    match Pin::new(socket).poll_write(cx, bytes) {
        Poll::Ready(Ok(written)) if written == bytes.len() => Ok(()),
        Poll::Ready(Err(error)) => Err(error),
        _ => Err(io::ErrorKind::WouldBlock.into()),
    }
}

async fn open_server(arguments: &Arguments) -> io::Result<TcpStream> {
    let mut server = TcpStream::connect(arguments.server).await?;
    server.set_nodelay(true)?;
    let (user, database) = (&arguments.user, &arguments.database);
    let words = format!("\0\x03\0\0user\0{user}\0database\0{database}\0\0");
    let length = u32::try_from(words.len() + 4).map_err(io::Error::other)?;
    server.write_all(&[&length.to_be_bytes(), words.as_bytes()].concat()).await?;
    let mut said = Vec::new();
    while scan(&said) != Some([b'Z', b'I']) {
        if server.read_buf(&mut said).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(server)
}

async fn serve(mut socket: TcpStream, servers: Rc<RefCell<Servers>>) -> io::Result<()> {
    /// Length of an `SSLRequest` or `GSSENCRequest`, which a startup message is longer than.
    const REQUEST_LEN: usize = 8;
    socket.set_nodelay(true)?;
    let mut startup = [0; 1024];
    while socket.read(&mut startup).await? == REQUEST_LEN {
        socket.write_all(b"N").await?;
    }
    let mut welcome = b"R\0\0\0\x08\0\0\0\0".to_vec();
    for (name, value) in [
        ("client_encoding", "UTF8"),
        ("server_encoding", "UTF8"),
        ("server_version", "15.0"),
        ("standard_conforming_strings", "on"),
        ("integer_datetimes", "on"),
    ] {
        let length = u32::try_from(name.len() + value.len() + 6).map_err(io::Error::other)?;
        welcome.push(b'S');
        welcome.extend(length.to_be_bytes());
        welcome.extend(format!("{name}\0{value}\0").bytes());
    }
    welcome.extend(b"Z\0\0\0\x05I");
    socket.write_all(&welcome).await?;
    let mut client = Client { socket, servers, state: State::Idle };
    poll_fn(|cx| client.poll(cx)).await
}

async fn listen(arguments: &Arguments) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_port(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&arguments.listen.into())?;
    socket.listen(1024)?;
    let listener = TcpListener::from_std(socket.into())?;
    let servers = Rc::new(RefCell::new(Servers::default()));
    for _ in 0..arguments.servers / arguments.threads {
        let server = open_server(arguments).await?;
        servers.borrow_mut().idle.push(server);
    }
    loop {
        let (client, _) = listener.accept().await?;
        let served = serve(client, Rc::clone(&servers));
        tokio::task::spawn_local(async move {
            // How a client ends is of no interest here.
            let _ = served.await;
        });
    }
}

fn work(arguments: &Arguments) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, listen(arguments))
}

fn main() -> io::Result<()> {
    let arguments = Arguments::read().ok_or(io::ErrorKind::InvalidInput)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..arguments.threads).map(|_| scope.spawn(|| work(&arguments))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
        })
    })
}
