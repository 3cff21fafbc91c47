//! Telling the service manager when pgweir is ready, reloads and stops: a unit with `Type=notify`.
//!
//! One datagram each, to the socket that systemd names in the environment; without that name, nothing.
//! Source: <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable with the socket's name.
const SOCKET: &str = "NOTIFY_SOCKET";

/// What the service manager should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Clients are accepted, with the configuration that was read last.
    Ready,
    /// The configuration is being read again; [`State::Ready`] follows.
    Reloading,
    /// The way down has begun.
    Stopping,
}

impl State {
    fn message(self) -> &'static [u8] {
        match self {
            Self::Ready => b"READY=1\n",
            Self::Reloading => b"RELOADING=1\n",
            Self::Stopping => b"STOPPING=1\n",
        }
    }
}

/// Tells it, if there is somebody to tell. Never waits.
pub(super) fn notify(state: State) {
    let Some(name) = std::env::var_os(SOCKET).filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&name, state) {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, ?state, "the service manager was not told");
    }
}

fn send(name: &OsStr, state: State) -> io::Result<()> {
    let address = match name.as_bytes() {
        // An abstract name, whose first byte is zero, is written with an `@`.
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.message(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_socket_is_found_by_its_path_and_by_its_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), State::Ready).unwrap();
        assert_eq!(received(&by_path), "READY=1\n");

        let name = format!("pgweir-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), State::Stopping).unwrap();
        assert_eq!(received(&by_name), "STOPPING=1\n");
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(send(directory.path().join("notify").as_os_str(), State::Ready).is_err());
        assert!(send(OsStr::new(""), State::Ready).is_err());
    }
}
