//! ORMs and the drivers below them, with what they do by habit: each runs one script directly against PostgreSQL, and
//! through pgweir over one server and over three, which must pin nobody.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

mod support;

use support::driver::{Driver, Endpoint};
use support::pgweir::Setup;
use support::postgres::shared;

fn directly(driver: Driver) {
    driver.run(&Endpoint::plain(shared().port()));
}

fn through_one_server(driver: Driver) {
    through_servers(driver, 1);
}

fn through_three_servers(driver: Driver) {
    through_servers(driver, 3);
}

fn through_servers(driver: Driver, servers: u32) {
    let budget = format!("max_connections = {servers}");
    let pgweir = Setup::before(shared()).target(&budget).start();
    driver.run(&Endpoint::plain(pgweir.port()).with_servers_max(servers));
    let reasons: Vec<String> = pgweir
        .log()
        .lines()
        .filter(|line| line.contains("client pinned"))
        .map(|line| line.split_once("reason=").unwrap().1.split(' ').next().unwrap().to_owned())
        .collect();
    let pins = pgweir.metric("pgweir_session_pins_total", "");
    assert_eq!(pins, f64::from(u32::try_from(reasons.len()).unwrap()), "{reasons:?}");
    for reason in reasons {
        assert!(pins_for(driver).contains(&&*reason), "{driver:?} was pinned: {reason}");
    }
    let pinned = "pgweir_database_connections_currently_session_pinned";
    assert_eq!(pgweir.metric(pinned, ""), 0.0);
    assert!(pgweir.metric("pgweir_transactions_total", "") > 0.0);
}

/// What a script keeps on its server for a while, because it asks for that.
fn pins_for(driver: Driver) -> &'static [&'static str] {
    match driver {
        // `iterator()` outside of a transaction, and PDO's scrollable cursors, are WITH HOLD.
        Driver::Django | Driver::Pdo => &["hold_cursor"],
        _ => &[],
    }
}

macro_rules! orm_tests {
    ($($module:ident: $driver:expr;)*) => {$(
        mod $module {
            use super::support::driver::Driver;
            use std::sync::{Mutex, PoisonError};

            /// The runs of one script share their tables.
            static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

            fn alone(run: fn(Driver)) {
                let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
                run($driver);
            }

            #[test]
            fn passes_directly() {
                alone(super::directly);
            }

            #[test]
            fn is_not_pinned_with_one_server() {
                alone(super::through_one_server);
            }

            #[test]
            fn is_not_pinned_with_three_servers() {
                alone(super::through_three_servers);
            }
        }
    )*};
}

orm_tests! {
    sqlalchemy_psycopg: Driver::SqlAlchemyPsycopg;
    sqlalchemy_asyncpg: Driver::SqlAlchemyAsyncpg;
    django: Driver::Django;
    typeorm: Driver::TypeOrm;
    knex: Driver::Knex;
    prisma: Driver::Prisma;
    pdo: Driver::Pdo;
    psqlodbc: Driver::PsqlOdbc;
}
