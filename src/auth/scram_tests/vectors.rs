//! What the RFC and PostgreSQL itself say.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::super::scram::ITERATIONS_DEFAULT;
use super::*;

/// RFC 7677, section 3. PostgreSQL's salts have 16 bytes, and so has this one.
#[test]
fn the_example_of_rfc_7677_is_reproduced_by_both_roles() {
    const CLIENT_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &[u8] = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const CLIENT_FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &[u8] = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
    let verifier = ScramVerifier::derive(&password("pencil"), salt, ITERATIONS_DEFAULT);
    let server_nonce = Nonce::from_text("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    let (server, server_first) = ScramServer::start(
        &ServerBinding::NoTls,
        SCRAM_SHA_256,
        CLIENT_FIRST,
        &verifier,
        &server_nonce,
    )
    .ok()
    .unwrap();
    assert_eq!(server_first, SERVER_FIRST);
    assert_eq!(server.finish(CLIENT_FINAL).unwrap(), SERVER_FINAL);

    let nonce = Nonce::from_text("rOprNGfwEbeRWgbNEkqO");
    let client = ScramClient::with_username("user", &nonce);
    let challenge = client.challenge(SERVER_FIRST).ok().unwrap();
    let keys = keys(&challenge, "pencil");
    let (proof, client_final) = challenge.respond(&keys);
    assert_eq!(client_final, CLIENT_FINAL);
    proof.finish(SERVER_FINAL).unwrap();
}

/// `rolpassword` of roles made in PostgreSQL 15, with passwords that are normalised and ones that are not.
#[test]
fn verifiers_are_the_ones_that_postgresql_stores() {
    let table = [
        (
            "correct horse",
            "SCRAM-SHA-256$4096:0NDbuGpboaKU8mbPP7ZeFg==$YtcNiXqtbdQKgdpXCm+2kY1lsB+97zpLthBJfc7pHsY=:rYqNYDDsE8Zb4GaPiRtV1MhK5Oi2dzvONR52H+Nztqo=",
        ),
        (
            "I\u{AD}X \u{2168} \u{E9}\u{3000}",
            "SCRAM-SHA-256$4096:a5+3XUnJk09pWY8FQyqmLw==$HBcUtjDOBdkRfv022GzUGrEZEPVQI86cIGLpSdJaAq8=:In/Dl9b/Dk0EZNPzKhIGI62q+il9YHwLfL2gdLUYGN4=",
        ),
        (
            "\u{5D0}\u{2122}\u{5D0}",
            "SCRAM-SHA-256$4096:b6RrMcnUYYbdiU027hFnqA==$W9Anmyg4YxvNSfrL9NRgDp2BRvMUkQb0JZ4xPZ2qOIA=:3+o3IZ7sZ38F8HDfc55A/4w25kmPqcuvSpFuVXb6cj8=",
        ),
        (
            "\u{340}\u{AA}",
            "SCRAM-SHA-256$4096:iKGL2cliXPYk4ZwwIIj2eQ==$QlGdhxXH0b1pLwY0WesbygzLT7qULyjvosse1+89ZT0=:YZz6cUC0zHZMFSVpuCJc4dp/Tfk58NdkSv9scGOUMco=",
        ),
        (
            "\u{AD}",
            "SCRAM-SHA-256$4096:K+r43WG94epMVnbqy0QZuQ==$oxyIuvhcJrjhpCD/D2KA6IUFsfRg2RMX/20srqR2nbo=:ni5pF7V8/kBCrMsPgh7RJ4V8mT91PlWwK5g2Z+CcVZk=",
        ),
        (
            "p\u{E4}ss\u{7}",
            "SCRAM-SHA-256$4096:b+3T07d5Ym6eakF7R48EpA==$lR6Olh6Lsp88WcZW1+A1M73IFbgqyP86GtGZA3dMwuA=:JTH0fYx6UcMgPCRdXAhL3t863VGbReCe8uaB8JxmWk4=",
        ),
    ];
    for (text, stored) in table {
        let (salt, _) = stored[19..].split_once('$').unwrap();
        let salt = STANDARD.decode(salt).unwrap().try_into().unwrap();
        let derived = ScramVerifier::derive(&password(text), salt, ITERATIONS_DEFAULT);
        assert_eq!(in_pg_authid_form(&derived), stored, "{text:?}");
    }
}

fn in_pg_authid_form(verifier: &ScramVerifier) -> String {
    format!(
        "SCRAM-SHA-256${}:{}${}:{}",
        verifier.iterations(),
        STANDARD.encode(verifier.salt()),
        STANDARD.encode(verifier.stored_key.as_slice()),
        STANDARD.encode(verifier.server_key.as_slice()),
    )
}

/// Our client's nonce is fixed, so a login recorded from PostgreSQL 15 can be played again.
#[test]
fn a_login_recorded_from_postgresql_is_reproduced() {
    const NONCE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBOvObXthR01Ui0AHKrvOWYzIl";
    let server_first = format!("r={NONCE},s=0NDbuGpboaKU8mbPP7ZeFg==,i=4096");
    let client_final = format!("c=biws,r={NONCE},p=apw6O55eCEMfM9xbXXKj+9bOpk8chFyParT/Onb5Mj8=");
    let server_final = b"v=mFve1ctBFFN8UZJTSvuTfwmnnH2F+kDDUdcUpnnICMs=";

    let challenge = started_client().challenge(server_first.as_bytes()).ok().unwrap();
    let keys = keys(&challenge, "correct horse");
    let (proof, response) = challenge.respond(&keys);
    assert_eq!(response, client_final.as_bytes());
    proof.finish(server_final).unwrap();
}
