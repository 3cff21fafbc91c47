//! A `CancelRequest` reaches exactly the query that its client is running, or nothing.

use crate::support::certificates::Authority;
use crate::support::eventually;
use crate::support::messages::{SSL_REQUEST, frontend};
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::shared;
use crate::support::raw::{RawClient, cancel};

fn start() -> Pgweir {
    Setup::before(shared()).target("max_connections = 2").start()
}

fn sleeps(marker: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE '%/* {marker} */%'"
    );
    shared().superuser().value(&sql) == "1"
}

fn sleep(client: &mut RawClient, marker: &str) {
    client.send(&frontend::query(&format!("SELECT pg_sleep(60) /* {marker} */")));
    eventually("it sleeps", || sleeps(marker));
}

const CANCELLED: [&str; 3] =
    ["RowDescription pg_sleep", "ErrorResponse ERROR 57014", "ReadyForQuery I"];

#[test]
fn a_cancel_hits_its_clients_query_and_no_other() {
    let pgweir = start();
    let (mut one, mut other) = (pgweir.client(), pgweir.client());
    sleep(&mut one, "hit");
    sleep(&mut other, "spared");
    cancel(pgweir.port(), one.process_id, &one.key);
    assert_eq!(one.until_ready(), CANCELLED);
    assert!(sleeps("spared"));
    cancel(pgweir.port(), other.process_id, &other.key);
    assert_eq!(other.until_ready(), CANCELLED);
    assert_eq!(one.value("SELECT 'alive'"), "alive");
    assert_eq!(pgweir.metric("pgweir_cancel_requests_forwarded_total", ""), 2.0);
}

#[test]
fn a_cancel_over_tls_works() {
    let authority = Authority::new();
    let pgweir = Setup::before(shared()).tls(&authority.sign_loopback()).start();
    let mut client = pgweir.client();
    sleep(&mut client, "tls");
    let mut canceller = RawClient::connect(pgweir.port());
    canceller.send(&frontend::untagged(SSL_REQUEST, &[]));
    assert_eq!(canceller.read_byte(), b'S');
    drop(canceller);
    let mut canceller = RawClient::connect_tls(pgweir.port(), &authority);
    canceller.send(&frontend::cancel(client.process_id, &client.key));
    assert_eq!(canceller.until_closed(), Vec::<String>::new());
    assert_eq!(client.until_ready(), CANCELLED);
}

#[test]
fn a_cancel_with_a_wrong_key_is_ignored() {
    let pgweir = start();
    let mut client = pgweir.client();
    sleep(&mut client, "wrong key");
    let mut wrong = client.key.clone();
    wrong[0] ^= 1;
    cancel(pgweir.port(), client.process_id, &wrong);
    cancel(pgweir.port(), client.process_id ^ 1, &client.key);
    cancel(pgweir.port(), client.process_id, &[&client.key[..], &[0; 28]].concat());
    assert!(sleeps("wrong key"));
    assert_eq!(pgweir.metric("pgweir_cancel_requests_forwarded_total", ""), 0.0);
    cancel(pgweir.port(), client.process_id, &client.key);
    assert_eq!(client.until_ready(), CANCELLED);
}

/// The server that it last used may be another's by now.
#[test]
fn a_cancel_of_an_idle_client_hits_nobody() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let mut idle = pgweir.client();
    idle.execute("SELECT 1");
    let mut other = pgweir.client();
    sleep(&mut other, "not idle");
    for _ in 0..20 {
        cancel(pgweir.port(), idle.process_id, &idle.key);
    }
    assert!(sleeps("not idle"));
    assert_eq!(idle.key.len(), 4);
    cancel(pgweir.port(), other.process_id, &other.key);
    assert_eq!(other.until_ready(), CANCELLED);
    assert_eq!(idle.value("SELECT 'not cancelled'"), "not cancelled");
}

#[test]
fn a_cancel_takes_a_waiting_client_out_of_the_queue() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let mut holder = pgweir.client();
    holder.execute("BEGIN");
    let mut client = pgweir.client();
    client.send(&frontend::query("SELECT 'never'"));
    eventually("it waits", || pgweir.metric("pgweir_waiting_clients", "") >= 1.0);
    cancel(pgweir.port(), client.process_id, &client.key);
    assert_eq!(client.until_ready(), ["ErrorResponse ERROR 57014", "ReadyForQuery I"]);
    assert_eq!(pgweir.metric("pgweir_waiting_clients", ""), 0.0);
    holder.execute("COMMIT");
    assert_eq!(client.value("SELECT 'later'"), "later");
}

/// Short queries and cancels that come too early, too late and in between: only the client that was
/// cancelled may see it, whoever has the server next.
#[test]
fn late_cancels_hit_nobody_else() {
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    let mut victim = pgweir.client();
    let (port, process_id, key) = (pgweir.port(), victim.process_id, victim.key.clone());
    std::thread::scope(|scope| {
        let canceller = scope.spawn(move || {
            for _ in 0..100 {
                cancel(port, process_id, &key);
            }
        });
        let bystander = scope.spawn(|| {
            let mut client = pgweir.client();
            for _ in 0..200 {
                assert_eq!(client.value("SELECT 'spared'"), "spared");
            }
        });
        let mut cancelled = 0;
        while !canceller.is_finished() {
            let transcript = victim.query("SELECT pg_sleep(0.002)");
            assert_eq!(transcript.last().unwrap(), "ReadyForQuery I");
            cancelled += u32::from(transcript.contains(&"ErrorResponse ERROR 57014".to_owned()));
        }
        bystander.join().unwrap();
        assert!(cancelled > 0, "no cancel hit at all");
    });
}
