//! What nobody believes yet: the bytes before a client is logged in.

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::messages::{
    CANCEL_REQUEST, GSSENC_REQUEST, PROTOCOL_3_0, SSL_REQUEST, frontend,
};
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{DATABASE, PASSWORD, USER, shared};
use crate::support::raw::RawClient;
use std::time::{Duration, Instant};

/// `client_login_timeout` of these tests.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(3);

fn start() -> Pgweir {
    Setup::before(shared()).proxy("client_login_timeout = \"3s\"").start()
}

/// Sends these bytes and returns what comes back before the end.
fn answer_to(pgweir: &Pgweir, bytes: &[u8]) -> Vec<String> {
    let mut client = RawClient::connect(pgweir.port());
    client.send(bytes);
    client.until_closed()
}

fn still_serves(pgweir: &Pgweir) {
    assert_eq!(pgweir.client().value("SELECT 1"), "1");
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let pgweir = start();
    for length in [0, 4, 7, 10_001, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        let bytes = [length.to_be_bytes(), PROTOCOL_3_0.to_be_bytes()].concat();
        assert_eq!(answer_to(&pgweir, &bytes), ["ErrorResponse FATAL 08P01"], "{length}");
    }
    still_serves(&pgweir);
}

#[test]
fn what_is_no_startup_packet_is_refused() {
    let pgweir = start();
    let malformed = "ErrorResponse FATAL 08P01";
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(answer_to(&pgweir, http), [malformed]);
    let unterminated = frontend::untagged(PROTOCOL_3_0, b"user\0app");
    assert_eq!(answer_to(&pgweir, &unterminated), [malformed]);
    let trailing = frontend::untagged(PROTOCOL_3_0, b"user\0app\0\0trailing");
    assert_eq!(answer_to(&pgweir, &trailing), [malformed]);
    let no_utf8 = frontend::untagged(PROTOCOL_3_0, b"user\0\xff\0\0");
    assert_eq!(answer_to(&pgweir, &no_utf8), [malformed]);
    let odd = frontend::untagged(PROTOCOL_3_0, b"user\0\0");
    assert_eq!(answer_to(&pgweir, &odd).len(), 1);
    let long_request = frontend::untagged(SSL_REQUEST, b"more");
    assert_eq!(answer_to(&pgweir, &long_request), [malformed]);
    still_serves(&pgweir);
}

#[test]
fn broken_cancel_requests_are_dropped() {
    let pgweir = start();
    for key in [&b""[..], b"abc", &[7; 257], &[7; 9000]] {
        let rest = [&1_u32.to_be_bytes(), key].concat();
        let answer = answer_to(&pgweir, &frontend::untagged(CANCEL_REQUEST, &rest));
        assert!(answer.is_empty() || answer == ["ErrorResponse FATAL 08P01"], "{answer:?}");
    }
    still_serves(&pgweir);
}

#[test]
fn silence_at_any_point_of_the_login_ends_with_the_login_timeout() {
    let pgweir = start();
    let startup = frontend::startup(PROTOCOL_3_0, &[("user", USER), ("database", DATABASE)]);
    let mut waiting = Vec::new();
    for part in [&b""[..], &startup[..3], &startup[..startup.len() - 1], &startup] {
        let mut client = RawClient::connect(pgweir.port());
        client.send(part);
        waiting.push(client);
    }
    // Half a password message.
    let mut client = RawClient::connect(pgweir.port());
    client.send(&startup);
    assert_eq!(client.read_message().line(), "Authentication 10");
    client.send(b"p\0\0\0\x40half");
    waiting.push(client);
    for client in &mut waiting {
        client.until_closed();
    }
    eventually("each is counted", || {
        pgweir.metric("pgweir_client_logins_rejected_total", "timeout") >= 5.0
    });
    still_serves(&pgweir);
}

/// A byte now and then is no progress: the time runs from the first.
#[test]
fn a_slow_loris_is_cut_off() {
    let pgweir = start();
    let startup = frontend::startup(PROTOCOL_3_0, &[("user", USER), ("database", DATABASE)]);
    let mut client = RawClient::connect(pgweir.port());
    let begun = Instant::now();
    let mut bytes = startup.iter().cycle();
    eventually("the slow client is cut off", || {
        // Never the whole packet: its last byte is not sent.
        let _ = client.try_send(&[*bytes.next().unwrap()]);
        begun.elapsed() > LOGIN_TIMEOUT
            && pgweir.metric("pgweir_client_logins_rejected_total", "timeout") >= 1.0
    });
    still_serves(&pgweir);
}

#[test]
fn silence_inside_the_tls_handshake_ends_with_the_login_timeout() {
    let authority = Authority::new();
    let pgweir = Setup::before(shared())
        .tls(&authority.sign_loopback())
        .proxy("client_login_timeout = \"3s\"")
        .start();
    let mut client = RawClient::connect(pgweir.port());
    client.send(&frontend::untagged(SSL_REQUEST, &[]));
    assert_eq!(client.read_byte(), b'S');
    client.send(b"\x16\x03\x01\x02\x00\x01");
    client.until_closed();
    // What is no TLS at all.
    let mut client = RawClient::connect(pgweir.port());
    client.send(&frontend::untagged(SSL_REQUEST, &[]));
    assert_eq!(client.read_byte(), b'S');
    client.send(&frontend::startup(PROTOCOL_3_0, &[("user", USER)]));
    client.until_closed();
    still_serves(&pgweir);
}

/// CVE-2021-3935: what came in the clear must not count as encrypted.
#[test]
fn bytes_behind_a_request_for_encryption_close_the_connection() {
    let authority = Authority::new();
    let with_tls = Setup::before(shared()).tls(&authority.sign_loopback()).start();
    let without = Setup::before(shared()).start();
    let startup = frontend::startup(PROTOCOL_3_0, &[("user", USER), ("database", DATABASE)]);
    for pgweir in [&with_tls, &without] {
        for request in [SSL_REQUEST, GSSENC_REQUEST] {
            let smuggled = [frontend::untagged(request, &[]), startup.clone()].concat();
            assert_eq!(answer_to(pgweir, &smuggled), Vec::<String>::new());
        }
        still_serves(pgweir);
    }
}

#[test]
fn endless_negotiation_ends() {
    let pgweir = start();
    let mut client = RawClient::connect(pgweir.port());
    let mut answers = 0;
    for round in 0..100 {
        let request = if round % 2 == 0 { SSL_REQUEST } else { GSSENC_REQUEST };
        if client.try_send(&frontend::untagged(request, &[])).is_err()
            || client.try_read_byte().is_none()
        {
            break;
        }
        answers += 1;
    }
    assert!((1..=4).contains(&answers), "{answers} answers");
    still_serves(&pgweir);
}

#[test]
fn tls_inside_tls_is_declined() {
    let authority = Authority::new();
    let pgweir = Setup::before(shared()).tls(&authority.sign_loopback()).start();
    let mut client = RawClient::connect_tls(pgweir.port(), &authority);
    client.send(&frontend::untagged(SSL_REQUEST, &[]));
    assert_eq!(client.read_byte(), b'N');
    client.log_in(USER, PASSWORD, DATABASE);
}

#[test]
fn anything_but_a_password_is_refused_where_one_is_due() {
    let pgweir = start();
    let malformed = ["ErrorResponse FATAL 08P01"];
    let mechanism = |name: &str, data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        frontend::password(&[name.as_bytes(), b"\0", &length, data].concat())
    };
    let cases = [
        frontend::query("SELECT 1"),
        b"p\xff\xff\xff\xff".to_vec(),
        b"p\0\0\0\0".to_vec(),
        b"p\x7f\xff\xff\xff".to_vec(),
        frontend::password(b""),
        frontend::password(b"SCRAM-SHA-256\0"),
        mechanism("SCRAM-SHA-256-PLUS", b"p=tls-server-end-point,,n=,r=abc"),
        mechanism("OAUTHBEARER", b"n,,"),
        mechanism("SCRAM-SHA-256", b"nonsense"),
    ];
    for bytes in cases {
        let mut client = RawClient::connect(pgweir.port());
        let parameters = [("user", USER), ("database", DATABASE)];
        client.send(&frontend::startup(PROTOCOL_3_0, &parameters));
        assert_eq!(client.read_message().line(), "Authentication 10");
        client.send(&bytes);
        assert_eq!(client.until_closed(), malformed, "{bytes:?}");
    }
    still_serves(&pgweir);
}

/// Who guesses learns nothing but that the guess was wrong, whoever it was for.
#[test]
fn unknown_users_and_wrong_passwords_get_identical_answers() {
    for method in ["POSTGRES_SCRAM_SHA_256", "POSTGRES_MD5"] {
        let pgweir = Setup::before_port(shared().port()).user_by(USER, PASSWORD, method).start();
        // Names of the same length, so that what names them has the same length too.
        let known = guess(&pgweir, USER);
        let unknown = guess(&pgweir, "apq");
        assert_eq!(known.len(), unknown.len());
        for (known, unknown) in known.iter().zip(&unknown) {
            assert_eq!(known.replace(USER, "***"), unknown.replace("apq", "***"));
        }
        assert_eq!(salt(&pgweir, USER, method), salt(&pgweir, USER, method));
        assert_eq!(salt(&pgweir, "apq", method), salt(&pgweir, "apq", method));
        assert_eq!(salt(&pgweir, USER, method).len(), salt(&pgweir, "apq", method).len());
    }
}

/// Everything the server says to a wrong password, with what is random taken out.
fn guess(pgweir: &Pgweir, user: &str) -> Vec<String> {
    let mut client = RawClient::connect(pgweir.port());
    let refusal = client.try_log_in(user, "guess", &[("database", DATABASE)]).unwrap_err();
    let mut said = refusal.strings();
    said.extend(client.until_closed());
    said
}

/// What SCRAM tells of the user: salt and iterations. With MD5 the salt is random: nothing.
fn salt(pgweir: &Pgweir, user: &str, method: &str) -> String {
    let mut client = RawClient::connect(pgweir.port());
    let parameters = [("user", user), ("database", DATABASE)];
    client.send(&frontend::startup(PROTOCOL_3_0, &parameters));
    let request = client.read_message();
    if method == "POSTGRES_MD5" {
        assert_eq!(request.line(), "Authentication 5");
        return String::new();
    }
    let first = b"n,,n=,r=abcdefgh";
    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
    client.send(&frontend::password(&[b"SCRAM-SHA-256\0", &length[..], first].concat()));
    let server_first = String::from_utf8(client.read_message().body[4..].to_vec()).unwrap();
    server_first.split_once(",s=").unwrap().1.to_owned()
}
