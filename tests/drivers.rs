//! Real drivers: each runs one script directly against PostgreSQL, which shows that the script is
//! right, and through pgweir with and without TLS, over three servers.

mod support;

use support::certificates::Authority;
use support::driver::{Driver, Endpoint, python};
use support::pgweir::Setup;
use support::postgres::shared;

const SERVERS_MAX: u32 = 3;

fn directly(driver: Driver) {
    driver.run(&Endpoint::tls(shared().port(), shared().authority()));
}

fn through_pgweir(driver: Driver) {
    let pgweir = Setup::before(shared()).start();
    driver.run(&Endpoint::plain(pgweir.port()).with_servers_max(SERVERS_MAX));
    // A text of 5 MB is too large to be looked at; scripts that send one mean to.
    let pins = |labels: &str| pgweir.metric("pgweir_session_pins_total", labels);
    assert!(pins("") <= pins("large_statement"), "{driver:?} was pinned:\n{}", pgweir.log());
}

fn through_pgweir_with_tls(driver: Driver) {
    let authority = Authority::new();
    let pgweir =
        Setup::before(shared()).tls(&authority.sign_loopback()).proxy("require_tls = true").start();
    let endpoint = Endpoint::tls(pgweir.port(), &authority);
    driver.run(&endpoint.with_servers_max(SERVERS_MAX));
}

/// Its reset query takes no server: each use of a connection of its pool is one transaction.
#[test]
fn a_pool_of_asyncpg_costs_no_server_to_reset_and_is_not_pinned() {
    const ROUNDS: f64 = 20.0;
    let script = support::repository().join("tests/drivers/asyncpg_pool.py");
    let Some(mut command) = python(&script) else { return };
    let pgweir = Setup::before(shared()).target("max_connections = 1").start();
    Endpoint::plain(pgweir.port()).describe_to(&mut command);
    assert_eq!(support::run(&mut command).trim(), "all passed");
    let lent = pgweir.metric("pgweir_database_connections_borrow_requests_total", "");
    assert!((ROUNDS..ROUNDS + 4.0).contains(&lent), "{lent}");
    let simple = pgweir.metric("pgweir_query_requests_total", "simple");
    assert!(simple >= ROUNDS, "{simple}");
    assert_eq!(pgweir.metric("pgweir_session_pins_total", "").to_bits(), 0);
}

macro_rules! driver_tests {
    ($($module:ident: $driver:expr;)*) => {$(
        mod $module {
            use super::support::driver::Driver;

            #[test]
            fn passes_directly() {
                $driver.alone(super::directly);
            }

            #[test]
            fn passes_through_pgweir() {
                $driver.alone(super::through_pgweir);
            }

            #[test]
            fn passes_through_pgweir_with_tls() {
                $driver.alone(super::through_pgweir_with_tls);
            }
        }
    )*};
}

driver_tests! {
    psycopg: Driver::Psycopg;
    asyncpg: Driver::Asyncpg;
    node_postgres: Driver::NodePostgres;
    postgres_js: Driver::PostgresJs;
    jdbc: Driver::Jdbc;
}
