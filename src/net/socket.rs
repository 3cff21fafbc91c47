//! TCP sockets: listening, connecting, and the options that find dead peers.
//!
//! The options are set on the *listener*: Linux gives them to each accepted socket, so accepting a client needs no
//! further system call. They are set on an outgoing socket before it connects, so that they hold for the connect too.
//!
//! Source: <https://man7.org/linux/man-pages/man7/tcp.7.html>

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

/// Keepalive probes that may stay unanswered before the connection is dead.
const KEEPALIVE_PROBES: u32 = 4;

/// How the kernel notices that a peer has gone without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Silence after which the kernel probes the peer, four times at a quarter of this; whole seconds, at least 1.
    /// Zero turns the probes off.
    pub keepalive: Duration,
    /// How long sent bytes may stay unacknowledged before the connection is dead; zero: the system's default.
    pub user_timeout: Duration,
}

impl SocketOptions {
    fn apply(&self, socket: &SockRef<'_>) -> io::Result<()> {
        // Messages are written whole, so Nagle's algorithm could only delay them.
        socket.set_tcp_nodelay(true)?;
        if self.keepalive.is_zero() {
            socket.set_keepalive(false)?;
        } else {
            let interval = (self.keepalive / KEEPALIVE_PROBES).max(Duration::from_secs(1));
            let keepalive = TcpKeepalive::new()
                .with_time(self.keepalive.max(Duration::from_secs(1)))
                .with_interval(interval)
                .with_retries(KEEPALIVE_PROBES);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        if self.user_timeout.is_zero() {
            return Ok(());
        }
        set_user_timeout(socket, self.user_timeout)
    }
}

#[cfg(target_os = "linux")]
fn set_user_timeout(socket: &SockRef<'_>, timeout: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(timeout))
}

#[cfg(not(target_os = "linux"))]
fn set_user_timeout(_socket: &SockRef<'_>, _timeout: Duration) -> io::Result<()> {
    Ok(())
}

/// Opens a non-blocking listener whose accepted sockets inherit `options`.
///
/// The unspecified IPv6 address accepts IPv4 as well. With `reuse_port` several listeners share the port and the
/// kernel spreads the clients over them. `backlog` is in connections; the kernel caps it at `net.core.somaxconn`.
/// The result is registered with no runtime: pass it to [`tokio::net::TcpListener::from_std`] in the one that accepts.
///
/// # Errors
/// The address is in use or not of this machine, or may not be bound by this user.
pub fn listen(
    address: SocketAddr,
    reuse_port: bool,
    backlog: u16,
    options: &SocketOptions,
) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait until the old connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    options.apply(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    socket.listen(i32::from(backlog))?;
    Ok(socket.into())
}

/// Why no connection to a host could be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name could not be resolved.
    #[error("the host name could not be resolved")]
    Resolve(#[source] io::Error),
    /// The name has no address.
    #[error("the host name has no address")]
    NoAddress,
    /// Every address refused; this is what the last one said.
    #[error("connecting to {address} failed")]
    Refused {
        /// The last address tried.
        address: SocketAddr,
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// No address answered in time.
    #[error("no connection within {timeout:?}")]
    Timeout {
        /// How long was waited in all.
        timeout: Duration,
    },
}

/// Connects to `host`, a name or an IP address, trying its addresses in turn.
///
/// `timeout` bounds the whole, name resolution included; an address that does not answer gets an equal share of what
/// is left, so that a dead first address does not keep the second from being tried.
///
/// # Cancel safety
/// Dropping the future closes the socket it was connecting.
///
/// # Errors
/// See [`ConnectError`].
pub async fn connect(
    host: &str,
    port: u16,
    timeout: Duration,
    options: &SocketOptions,
) -> Result<TcpStream, ConnectError> {
    let deadline = Instant::now() + timeout;
    let resolved = tokio::time::timeout_at(deadline, tokio::net::lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match resolved {
        Err(_) => return Err(ConnectError::Timeout { timeout }),
        Ok(Err(source)) => return Err(ConnectError::Resolve(source)),
        Ok(Ok(addresses)) => addresses.collect(),
    };
    let mut last = ConnectError::NoAddress;
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let share = deadline.saturating_duration_since(Instant::now()) / left.max(1);
        left = left.saturating_sub(1);
        match tokio::time::timeout(share, open(address, options)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => last = ConnectError::Refused { address, source },
            Err(_) => last = ConnectError::Timeout { timeout },
        }
    }
    Err(last)
}

/// Connects to `address` within `timeout`.
///
/// # Cancel safety
/// Dropping the future closes the socket it was connecting.
///
/// # Errors
/// [`ConnectError::Refused`] and [`ConnectError::Timeout`].
pub async fn connect_to(
    address: SocketAddr,
    timeout: Duration,
    options: &SocketOptions,
) -> Result<TcpStream, ConnectError> {
    match tokio::time::timeout(timeout, open(address, options)).await {
        Ok(opened) => opened.map_err(|source| ConnectError::Refused { address, source }),
        Err(_) => Err(ConnectError::Timeout { timeout }),
    }
}

async fn open(address: SocketAddr, options: &SocketOptions) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    options.apply(&SockRef::from(&socket))?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: SocketOptions =
        SocketOptions { keepalive: Duration::from_secs(60), user_timeout: Duration::from_secs(30) };

    const PATIENCE: Duration = Duration::from_secs(10);

    fn assert_options(stream: &TcpStream) {
        let socket = SockRef::from(stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(15));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
    }

    fn loopback() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn accepted_and_connected_sockets_have_the_options() {
        let listener = listen(loopback(), false, 16, &OPTIONS).unwrap();
        let port = listener.local_addr().unwrap().port();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let outgoing = connect("127.0.0.1", port, PATIENCE, &OPTIONS).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert_options(&accepted);
        assert_options(&outgoing);
    }

    #[tokio::test]
    async fn zero_leaves_the_probes_off_and_the_timeout_to_the_system() {
        let options = SocketOptions { keepalive: Duration::ZERO, user_timeout: Duration::ZERO };
        let listener = listen(loopback(), false, 16, &options).unwrap();
        let socket = SockRef::from(&listener);
        assert!(!socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }

    #[tokio::test]
    async fn two_listeners_share_a_port_only_when_asked() {
        let first = listen(loopback(), true, 16, &OPTIONS).unwrap();
        let address = first.local_addr().unwrap();
        listen(address, true, 16, &OPTIONS).unwrap();
        let refused = listen(address, false, 16, &OPTIONS).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn the_unspecified_ipv6_address_takes_ipv4_clients() {
        let Ok(listener) = listen("[::]:0".parse().unwrap(), false, 16, &OPTIONS) else {
            return; // This machine has no IPv6.
        };
        let port = listener.local_addr().unwrap().port();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let _outgoing = connect("127.0.0.1", port, PATIENCE, &OPTIONS).await.unwrap();
        let (_, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip().to_canonical(), "127.0.0.1".parse::<std::net::IpAddr>().unwrap());
    }

    #[tokio::test]
    async fn a_name_with_several_addresses_is_tried_in_turn() {
        // "localhost" is ::1 and 127.0.0.1 on most machines, and only the latter listens.
        let listener = listen(loopback(), false, 16, &OPTIONS).unwrap();
        let port = listener.local_addr().unwrap().port();
        connect("localhost", port, PATIENCE, &OPTIONS).await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_port_is_reported_with_its_address() {
        let port = listen(loopback(), false, 16, &OPTIONS).unwrap().local_addr().unwrap().port();
        let error = connect("127.0.0.1", port, PATIENCE, &OPTIONS).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused { address, .. } if address.port() == port));
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_is_an_error_of_resolution() {
        let error = connect("no\0name", 5432, PATIENCE, &OPTIONS).await.unwrap_err();
        assert!(matches!(error, ConnectError::Resolve(_)), "{error:?}");
    }

    #[tokio::test]
    async fn connecting_ends_with_its_timeout() {
        // Nobody accepts: once the backlog is full the kernel answers no more.
        let listener = listen(loopback(), false, 1, &OPTIONS).unwrap();
        let port = listener.local_addr().unwrap().port();
        let timeout = Duration::from_millis(200);
        let mut open = Vec::new();
        let error = loop {
            match connect("127.0.0.1", port, timeout, &OPTIONS).await {
                Ok(stream) => open.push(stream),
                Err(error) => break error,
            }
            assert!(open.len() < 100, "the backlog has no end");
        };
        assert!(
            matches!(error, ConnectError::Timeout { timeout: reported } if reported == timeout)
        );
    }
}
