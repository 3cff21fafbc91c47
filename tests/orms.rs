//! ORMs, and drivers that do much by themselves, with what they do by habit: each runs one script directly against
//! PostgreSQL, and through pgweir over one server and over three, which must pin nobody without need.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

mod support;

use support::driver::{Driver, Endpoint};
use support::eventually;
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
    let pins = pgweir.metric("pgweir_session_pins_total", "");
    let mut reasons = Vec::new();
    eventually("the log tells of each", || {
        let log = pgweir.log();
        let pinned = log.lines().filter(|line| line.contains("client pinned"));
        let after = pinned.filter_map(|line| line.split_once("reason="));
        reasons = after.map(|(_, after)| after.split(' ').next().unwrap().to_owned()).collect();
        pins == f64::from(u32::try_from(reasons.len()).unwrap())
    });
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
        // Migrations, and whoever asks for the same, hold a lock of the session.
        Driver::Sqlx => &["advisory_lock"],
        _ => &[],
    }
}

macro_rules! orm_tests {
    ($($module:ident: $driver:expr;)*) => {$(
        mod $module {
            use super::support::driver::Driver;

            #[test]
            fn passes_directly() {
                $driver.alone(super::directly);
            }

            #[test]
            fn is_not_pinned_with_one_server() {
                $driver.alone(super::through_one_server);
            }

            #[test]
            fn is_not_pinned_with_three_servers() {
                $driver.alone(super::through_three_servers);
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
    sqlx: Driver::Sqlx;
    pdo: Driver::Pdo;
    psqlodbc: Driver::PsqlOdbc;
}
