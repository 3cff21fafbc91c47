//! TLS to the target: what each mode accepts, and what it refuses.

use crate::support::certificates::Authority;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{
    CLEARTEXT_USER, DATABASE, PASSWORD, PgVersion, Postgres, PostgresOptions, USER, shared,
};
use crate::support::raw::RawClient;
use std::sync::OnceLock;

/// A server that offers no TLS.
fn without_tls() -> &'static Postgres {
    static WITHOUT: OnceLock<Postgres> = OnceLock::new();
    WITHOUT.get_or_init(|| {
        Postgres::start_with(&PostgresOptions {
            version: PgVersion::Installed,
            tls: false,
            ..PostgresOptions::default()
        })
    })
}

/// In front of `postgres` with this mode; `ca.pem` is that of `authority`.
fn setup(postgres: &Postgres, mode: &str, authority: Option<&Authority>) -> Setup {
    let mut setup = Setup::before(postgres).target(&format!("tls = \"{mode}\""));
    if let Some(authority) = authority {
        authority.write_into(setup.dir());
        setup = setup.target("tls_ca = \"ca.pem\"");
    }
    setup
}

/// `t` or `f`: whether the server's own connection is encrypted.
fn encrypted(pgweir: &Pgweir) -> String {
    pgweir.client().value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
}

/// Tries to log in to a pgweir that cannot open a server.
fn refused(setup: Setup) -> String {
    let pgweir = setup.target("fail_fast_after = \"0s\"").launch();
    crate::support::eventually("pgweir answers", || pgweir.http_status("/healthz") == Some(200));
    let mut client = RawClient::connect(pgweir.port());
    let refusal = client.try_log_in(USER, PASSWORD, &[("database", DATABASE)]).unwrap_err();
    assert_eq!(pgweir.http_status("/readyz"), Some(503));
    refusal.line()
}

#[test]
fn each_mode_is_satisfied_by_a_server_that_suits_it() {
    let authority = shared().authority();
    for (mode, ssl) in [("disable", "f"), ("prefer", "t"), ("require", "t")] {
        assert_eq!(encrypted(&setup(shared(), mode, None).start()), ssl, "{mode}");
    }
    for mode in ["verify-ca", "verify-full"] {
        let pgweir = setup(shared(), mode, Some(authority)).start();
        assert_eq!(encrypted(&pgweir), "t", "{mode}");
    }
    let pgweir = setup(shared(), "verify-full", Some(authority)).target("host = \"localhost\"");
    assert_eq!(encrypted(&pgweir.start()), "t");
}

#[test]
fn prefer_goes_without_tls_where_there_is_none_and_require_does_not() {
    assert_eq!(encrypted(&setup(without_tls(), "prefer", None).start()), "f");
    assert_eq!(refused(setup(without_tls(), "require", None)), "ErrorResponse FATAL 08001");
}

#[test]
fn a_certificate_of_another_authority_is_refused_where_it_is_verified() {
    let stranger = Authority::new();
    for mode in ["verify-ca", "verify-full"] {
        let answer = refused(setup(shared(), mode, Some(&stranger)));
        assert_eq!(answer, "ErrorResponse FATAL 08001", "{mode}");
    }
}

#[test]
fn a_certificate_for_another_name_is_refused_by_verify_full_only() {
    let authority = Authority::new();
    let postgres =
        Postgres::start_with(&PostgresOptions { settings: vec![], ..PostgresOptions::default() });
    let misnamed = authority.sign(&["elsewhere.example"]);
    let dir = postgres.dir();
    for (name, text) in
        [("server.pem", &misnamed.certificate), ("server.key", &misnamed.private_key)]
    {
        // In place, so that owner and mode stay PostgreSQL's.
        std::fs::write(dir.join(name), text).unwrap();
    }
    postgres.stop();
    postgres.start_again();
    assert_eq!(encrypted(&setup(&postgres, "verify-ca", Some(&authority)).start()), "t");
    let answer = refused(setup(&postgres, "verify-full", Some(&authority)));
    assert_eq!(answer, "ErrorResponse FATAL 08001");
}

#[test]
fn a_password_is_not_sent_in_the_clear() {
    let pgweir = setup(shared(), "disable", None).target("fail_fast_after = \"0s\"").start();
    let mut client = RawClient::connect(pgweir.port());
    let parameters = [("database", DATABASE)];
    let refusal = client.try_log_in(CLEARTEXT_USER, PASSWORD, &parameters).unwrap_err();
    assert_eq!(refusal.line(), "ErrorResponse FATAL 08001");
    assert_eq!(pgweir.client().value("SELECT 1"), "1");
}
