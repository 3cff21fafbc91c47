//! What a client asks for in its startup packet is so in each of its transactions.

use crate::support::messages::frontend;
use crate::support::pgweir::Setup;
use crate::support::postgres::{DATABASE, PASSWORD, USER, shared};
use crate::support::raw::RawClient;

/// Name of the setting, how one client wants it, and how the other.
const SETTINGS: [(&str, &str, &str); 5] = [
    ("application_name", "first", "second"),
    ("datestyle", "German, DMY", "ISO, YMD"),
    ("timezone", "Asia/Tokyo", "America/New_York"),
    ("work_mem", "5MB", "7MB"),
    ("search_path", "pg_catalog, public", "\"a b\", 'c\"d'"),
];

#[test]
fn startup_parameters_hold_in_each_transaction_of_interleaved_clients() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let first: Vec<_> = SETTINGS.iter().map(|(name, value, _)| (*name, *value)).collect();
    let second: Vec<_> = SETTINGS.iter().map(|(name, _, value)| (*name, *value)).collect();
    let mut direct = [direct_with(&first), direct_with(&second), direct_with(&[])];
    let mut pooled = [pgweir.client_with(&first), pgweir.client_with(&second), pgweir.client()];
    for _ in 0..3 {
        for (pooled, direct) in pooled.iter_mut().zip(&mut direct) {
            for (name, ..) in SETTINGS {
                let show = format!("SHOW {name}");
                assert_eq!(pooled.value(&show), direct.value(&show), "{name}");
            }
        }
    }
    let servers =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND pid = pg_backend_pid()";
    assert_eq!(pooled[0].value(servers), "1");
}

fn direct_with(parameters: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::connect(shared().port());
    let all = [&[("database", DATABASE)], parameters].concat();
    client.try_log_in(USER, PASSWORD, &all).unwrap();
    client
}

#[test]
fn options_hold_in_each_transaction_and_lose_to_the_packets_own() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let options = r"-c geqo=off -cstatement_timeout=12345 --work-mem=6MB -c search_path=a,\ b -c timezone=UTC";
    let mut client = pgweir.client_with(&[("timezone", "Asia/Tokyo"), ("options", options)]);
    let mut other = pgweir.client();
    for _ in 0..3 {
        assert_eq!(client.value("SHOW geqo"), "off");
        assert_eq!(other.value("SHOW geqo"), "on");
        assert_eq!(client.value("SHOW statement_timeout"), "12345ms");
        assert_eq!(other.value("SHOW statement_timeout"), "0");
        assert_eq!(client.value("SHOW work_mem"), "6MB");
        assert_eq!(client.value("SHOW search_path"), "a, b");
        assert_eq!(client.value("SHOW timezone"), "Asia/Tokyo");
        assert_eq!(other.value("SHOW work_mem"), "4MB");
    }
}

#[test]
fn a_setting_with_a_default_of_the_role_comes_back_when_another_had_it_changed() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let mut plain = pgweir.client();
    let before = plain.value("SHOW timezone");
    let mut tokyo = pgweir.client_with(&[("timezone", "Asia/Tokyo")]);
    assert_eq!(tokyo.value("SHOW timezone"), "Asia/Tokyo");
    assert_eq!(plain.value("SHOW timezone"), before);
}

#[test]
fn the_welcome_says_what_the_startup_parameters_came_to() {
    let pgweir = Setup::before(shared()).start();
    for parameters in [
        vec![("timezone", "asia/tokyo"), ("datestyle", "german")],
        vec![("client_encoding", "latin1")],
        vec![("application_name", "with 'quotes' and \u{e9}")],
        vec![("application_name", "x")],
    ] {
        let mut direct = direct_with(&parameters).parameters;
        direct.sort();
        // Once asked of a server, once remembered.
        for _ in 0..2 {
            let mut pooled = pgweir.client_with(&parameters).parameters;
            pooled.sort();
            assert_eq!(pooled, direct);
        }
    }
}

#[test]
fn an_invalid_setting_gives_postgresqls_own_fatal_error() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    for (name, value) in [("timezone", "Nowhere"), ("no_such_setting", "1"), ("work_mem", "many")] {
        let refuse = |port| {
            let mut client = RawClient::connect(port);
            let parameters = [("database", DATABASE), (name, value)];
            let refusal = client.try_log_in(USER, PASSWORD, &parameters).unwrap_err();
            assert_eq!(client.until_closed(), Vec::<String>::new());
            (refusal.line(), refusal.field('M'))
        };
        assert_eq!(refuse(pgweir.port()), refuse(shared().port()), "{name}");
    }
    assert_eq!(pgweir.client().value("SELECT 1"), "1");
}

#[test]
fn invalid_options_are_refused() {
    let pgweir = Setup::before(shared()).start();
    let mut client = RawClient::connect(pgweir.port());
    let parameters = [("database", DATABASE), ("options", "-Z what")];
    let refusal = client.try_log_in(USER, PASSWORD, &parameters).unwrap_err();
    assert_eq!(refusal.line(), "ErrorResponse FATAL 42601");
}

#[test]
fn a_setting_changed_in_the_session_is_reported_and_stays_the_clients() {
    let pgweir = Setup::before(shared()).target("max_connections = 2").start();
    let mut client = pgweir.client();
    let transcript = client.query("SET timezone = 'Asia/Tokyo'");
    assert!(transcript.contains(&"ParameterStatus TimeZone=Asia/Tokyo".to_owned()));
    let mut others = [pgweir.client(), pgweir.client()];
    for _ in 0..3 {
        assert_eq!(client.value("SHOW timezone"), "Asia/Tokyo");
        for other in &mut others {
            assert_ne!(other.value("SHOW timezone"), "Asia/Tokyo");
        }
    }
}

#[test]
fn a_setting_local_to_a_transaction_ends_with_it() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let mut client = pgweir.client();
    client.send(&frontend::query("BEGIN"));
    client.until_ready();
    client.execute("SET LOCAL work_mem = '9MB'");
    assert_eq!(client.value("SHOW work_mem"), "9MB");
    client.execute("COMMIT");
    assert_eq!(pgweir.client().value("SHOW work_mem"), "4MB");
    assert_eq!(client.value("SHOW work_mem"), "4MB");
}
