//! `pgweir health`: asks a running pgweir how it is, for where there is no other HTTP client: a container's health
//! check.

use super::StartError;
use super::check::Report;
use crate::config::Config;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for each step: below the 5 s that a container's health check has by default.
const PATIENCE: Duration = Duration::from_secs(3);

/// Most bytes read of an answer.
const ANSWER_MAX: u64 = 64 * 1024;

/// Asks the admin endpoint that the configuration names, on this machine.
///
/// `ready`: whether clients should be sent there, and not only whether the process works.
///
/// # Errors
/// Nobody answers there.
pub fn ask(config: &Config, ready: bool) -> Result<Report, StartError> {
    let Some(listen) = config.admin.listen else {
        let text = "admin.listen is off: there is nobody to ask\n".to_owned();
        return Ok(Report { text, ok: false });
    };
    let path = if ready { "/readyz" } else { "/healthz" };
    let address = reachable(listen);
    let answer = get(address, path).map_err(StartError::io(format!("cannot ask {address}")))?;
    let body = answer.split_once("\r\n\r\n").map_or("no HTTP answer\n", |(_, body)| body);
    Ok(Report { text: body.to_owned(), ok: is_ok(&answer) })
}

/// Where a listener on all addresses is reached from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn is_ok(answer: &str) -> bool {
    answer.split(' ').nth(1) == Some("200")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        let reached = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:9127"), "127.0.0.1:9127");
        assert_eq!(reached("[::]:9127"), "[::1]:9127");
        assert_eq!(reached("10.0.0.1:9127"), "10.0.0.1:9127");
    }

    #[test]
    fn only_200_is_well() {
        assert!(is_ok("HTTP/1.1 200 OK\r\n\r\nok\n"));
        for answer in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "SSH-2.0-x", "200", ""] {
            assert!(!is_ok(answer), "{answer}");
        }
    }
}
