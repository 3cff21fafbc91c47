//! `SET SESSION AUTHORIZATION`, of which only a superuser's session has much: it follows its client like a role.

use crate::pinned;
use crate::support::eventually;
use crate::support::messages::frontend;
use crate::support::pgweir::{Pgweir, Setup};
use crate::support::postgres::{DATABASE, PASSWORD, shared};
use crate::support::raw::RawClient;
use std::sync::OnceLock;

/// A superuser who logs in.
const BOSS: &str = "auth_boss";

/// An ordinary user whose sessions begin with a role.
const DEPUTY: &str = "auth_deputy";

const WHO: &str = "SELECT current_user, session_user, current_setting('role'), \
     current_setting('session_authorization'), current_setting('is_superuser')";

/// What another client of the same user must find, whatever was set.
const OTHERS: &str = "SELECT current_user, session_user, current_setting('role'), \
     current_setting('session_authorization'), current_setting('is_superuser'), current_setting('work_mem'), \
     current_setting('log_min_duration_statement'), current_setting('dynamic_library_path')";

/// Who there is: an ordinary user and two roles, of which it may take on the first, and another superuser.
fn create_roles() {
    static CREATED: OnceLock<()> = OnceLock::new();
    CREATED.get_or_init(|| {
        shared().superuser().execute(&format!(
            "CREATE ROLE {BOSS} SUPERUSER LOGIN PASSWORD '{PASSWORD}'; CREATE ROLE auth_user; \
             CREATE ROLE auth_role; CREATE ROLE auth_other; CREATE ROLE auth_super SUPERUSER; \
             GRANT auth_role TO auth_user; CREATE ROLE {DEPUTY} LOGIN PASSWORD '{PASSWORD}'; \
             GRANT auth_role TO {DEPUTY}; ALTER ROLE {DEPUTY} SET role = 'auth_role'"
        ));
    });
}

fn pool_of(servers: u32) -> Pgweir {
    create_roles();
    Setup::before(shared())
        .user(BOSS, PASSWORD)
        .user(DEPUTY, PASSWORD)
        .target(&format!("max_connections = {servers}"))
        // Who finds a server kept fails soon, and says so.
        .target("connection_borrow_timeout = \"8s\"")
        .start()
}

fn boss_at(port: u16, startup: &[(&str, &str)]) -> RawClient {
    log_in(port, BOSS, startup)
}

fn log_in(port: u16, user: &str, startup: &[(&str, &str)]) -> RawClient {
    let mut client = RawClient::connect(port);
    let all = [&[("database", DATABASE)], startup].concat();
    client.try_log_in(user, PASSWORD, &all).unwrap();
    client.parameters.sort();
    client
}

/// Others have every server, and find nothing there.
fn pass_on(others: &mut [RawClient], after: &str) {
    for other in others.iter_mut() {
        other.execute("BEGIN");
        let seen = other.execute(OTHERS).concat();
        let expected = [BOSS, BOSS, "none", BOSS, "on", "4MB", "-1", "$libdir"];
        assert_eq!(seen, expected, "after {after}");
    }
    for other in others.iter_mut() {
        assert_eq!(other.query("COMMIT"), ["CommandComplete COMMIT", "ReadyForQuery I"]);
    }
}

/// Each query is answered as on a connection of one's own, with others on all servers after each that ends a
/// transaction; and nobody is pinned.
fn same(startup: &[(&str, &str)], queries: &[&str]) {
    for servers in [1, 2, 3] {
        let pgweir = pool_of(servers);
        let mut pooled = boss_at(pgweir.port(), startup);
        let mut direct = boss_at(shared().port(), startup);
        let mut others: Vec<_> = (0..servers).map(|_| boss_at(pgweir.port(), &[])).collect();
        assert_eq!(pooled.parameters, direct.parameters);
        for sql in queries.iter().flat_map(|sql| [*sql, WHO]) {
            let (answer, expected) = (pooled.query(sql), direct.query(sql));
            assert_eq!(answer, expected, "{sql} of {queries:?} with {servers}");
            if answer.last().unwrap() == "ReadyForQuery I" {
                pass_on(&mut others, sql);
            }
        }
        assert_eq!(pinned(&pgweir), 0.0, "{queries:?}");
        assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0, "{queries:?}");
    }
}

#[test]
fn a_session_authorization_follows_its_client() {
    same(
        &[],
        &[
            "SET SESSION AUTHORIZATION auth_user",
            "SET work_mem = '77MB'",
            "SHOW work_mem",
            "RESET ALL",
            "SHOW work_mem",
            "RESET SESSION AUTHORIZATION",
            "SET session_authorization = auth_user",
            "SET session_authorization TO DEFAULT",
            "SELECT set_config('session_authorization', 'auth_user', false)",
            "SET SESSION SESSION AUTHORIZATION 'auth_super'",
            "SELECT set_config('session_authorization', NULL, false)",
            "SET SESSION AUTHORIZATION auth_user; SET timezone = 'Asia/Tokyo'; SELECT 1",
            "SHOW timezone",
            "SET SESSION AUTHORIZATION DEFAULT; SET SESSION AUTHORIZATION auth_boss",
            "SHOW timezone",
            "SET SESSION AUTHORIZATION auth_user; SET SESSION AUTHORIZATION auth_super",
            "DISCARD ALL",
            "SHOW timezone",
        ],
    );
}

#[test]
fn a_session_authorization_is_what_the_transaction_made_of_it() {
    same(
        &[],
        &[
            "BEGIN",
            "SET SESSION AUTHORIZATION auth_user",
            "COMMIT",
            "BEGIN",
            "SET SESSION AUTHORIZATION auth_super",
            "SAVEPOINT a",
            "SET SESSION AUTHORIZATION DEFAULT",
            "ROLLBACK TO a",
            "COMMIT",
            "BEGIN; RESET SESSION AUTHORIZATION; ROLLBACK",
            "BEGIN; RESET SESSION AUTHORIZATION; SELECT 1/0",
            "ROLLBACK",
            "SET LOCAL SESSION AUTHORIZATION auth_user",
            "BEGIN",
            "SET LOCAL SESSION AUTHORIZATION auth_user",
            "SET LOCAL work_mem = '3MB'",
            "COMMIT",
            "BEGIN; SET LOCAL SESSION AUTHORIZATION DEFAULT; SET ROLE auth_role; COMMIT",
            "SET SESSION AUTHORIZATION auth_user; SELECT 1/0",
            "SET SESSION AUTHORIZATION auth_user; COMMIT; SET SESSION AUTHORIZATION auth_super; SELECT 1/0",
            "BEGIN; DISCARD ALL",
            "ROLLBACK",
            "DISCARD ALL",
        ],
    );
}

#[test]
fn a_session_authorization_and_a_role_follow_together() {
    same(
        &[],
        &[
            "SET ROLE auth_other",
            "SET SESSION AUTHORIZATION auth_user",
            "SET ROLE auth_role",
            "SET work_mem = '77MB'",
            "SHOW work_mem",
            "SET ROLE NONE",
            "SET ROLE auth_role",
            "RESET ROLE",
            "SET ROLE auth_other",
            "SET ROLE auth_role; SET SESSION AUTHORIZATION auth_user",
            "SET ROLE auth_role; SET SESSION AUTHORIZATION DEFAULT; SHOW work_mem",
            "SET SESSION AUTHORIZATION auth_user; SET ROLE auth_role; SELECT 1",
            "SET SESSION AUTHORIZATION auth_super",
            "SET ROLE auth_other",
            "BEGIN; SET LOCAL SESSION AUTHORIZATION auth_user; COMMIT",
            "BEGIN; SET LOCAL SESSION AUTHORIZATION auth_user; SET LOCAL ROLE auth_role; COMMIT",
            "BEGIN; SET SESSION AUTHORIZATION auth_user; SET ROLE auth_role; ROLLBACK",
            "RESET ALL",
            "DISCARD ALL",
        ],
    );
}

#[test]
fn what_only_a_superuser_may_set_is_kept_under_another() {
    same(
        &[],
        &[
            "SET log_min_duration_statement = '1h'",
            "SET dynamic_library_path = '/nowhere'",
            "SET SESSION AUTHORIZATION auth_user",
            "SHOW log_min_duration_statement",
            "SET log_min_duration_statement = '2h'",
            "SHOW dynamic_library_path",
            "SET work_mem = '77MB'",
            "RESET SESSION AUTHORIZATION",
            "SHOW dynamic_library_path",
            "SET ROLE auth_role",
            "SHOW dynamic_library_path",
            "SET work_mem = '78MB'",
            "RESET ROLE; SHOW dynamic_library_path",
            "SET SESSION AUTHORIZATION auth_user; SET ROLE auth_role",
            "SET work_mem = '79MB'",
            "RESET SESSION AUTHORIZATION",
            "SHOW dynamic_library_path",
            "SHOW log_min_duration_statement",
            "SET SESSION AUTHORIZATION auth_user",
            "RESET ALL",
            "SHOW log_min_duration_statement",
            "RESET SESSION AUTHORIZATION",
            "SHOW dynamic_library_path",
        ],
    );
}

#[test]
fn a_session_authorization_of_a_do_block_follows() {
    same(
        &[],
        &[
            "DO $$BEGIN SET SESSION AUTHORIZATION auth_user; END$$",
            "DO $$BEGIN RESET SESSION AUTHORIZATION; END$$",
            "DO $$BEGIN PERFORM set_config('session_authorization', 'auth_user', false); END$$",
            "DO $$BEGIN SET SESSION AUTHORIZATION auth_super; SET ROLE auth_other; END$$",
            "DO $$BEGIN SET LOCAL SESSION AUTHORIZATION auth_user; END$$",
            "DO $$BEGIN SET SESSION AUTHORIZATION auth_user; RAISE 'no'; EXCEPTION WHEN OTHERS THEN NULL; END$$",
            "DO $$BEGIN SET SESSION AUTHORIZATION DEFAULT; END$$",
        ],
    );
}

#[test]
fn a_session_authorization_that_is_refused_leaves_things_as_they_are() {
    same(
        &[],
        &[
            "SET SESSION AUTHORIZATION auth_nobody",
            "SET SESSION AUTHORIZATION 'default'",
            "SET SESSION AUTHORIZATION auth_user",
            "SET SESSION AUTHORIZATION auth_nobody",
            "BEGIN",
            "SET SESSION AUTHORIZATION auth_nobody",
            "COMMIT",
            "SET ROLE auth_other",
            "SELECT pg_read_file('PG_VERSION')",
            "RESET SESSION AUTHORIZATION",
        ],
    );
}

/// An ordinary user may only be itself.
#[test]
fn a_session_authorization_of_ones_own_changes_nothing() {
    create_roles();
    crate::same_alone(
        &[],
        &[
            "SET SESSION AUTHORIZATION app",
            "SET SESSION AUTHORIZATION auth_user",
            "SELECT set_config('session_authorization', 'app', false)",
            "BEGIN; SET SESSION AUTHORIZATION DEFAULT; SET ROLE app; SET SESSION AUTHORIZATION app; COMMIT",
            "SELECT current_user, session_user, current_setting('role')",
        ],
    );
}

#[test]
fn a_role_of_the_startup_comes_back_with_the_session_authorization() {
    same(
        &[("options", "-c role=auth_role -c log_min_duration_statement=-1 -c work_mem=4MB")],
        &[
            "SET SESSION AUTHORIZATION auth_user",
            "SET work_mem = '77MB'",
            "RESET work_mem",
            "SET ROLE auth_role",
            "SET ROLE NONE",
            "RESET ROLE",
            "SET SESSION AUTHORIZATION auth_boss",
            "SELECT set_config('session_authorization', 'auth_boss', false)",
            "SET SESSION AUTHORIZATION DEFAULT",
            "SET ROLE NONE",
            "RESET SESSION AUTHORIZATION",
            "DO $$BEGIN SET SESSION AUTHORIZATION auth_user; END$$",
            "BEGIN; SET SESSION AUTHORIZATION auth_user; COMMIT",
            "BEGIN",
            "RESET SESSION AUTHORIZATION",
            "ROLLBACK",
            "BEGIN",
            "SET LOCAL SESSION AUTHORIZATION DEFAULT",
            "COMMIT",
            "DISCARD ALL",
        ],
    );
}

/// What leads to that role is seen when it is over: the client was told what the login is by then.
#[test]
fn a_role_of_the_startup_is_told_of_in_the_end() {
    let startup = [("options", "-c role=auth_role")];
    let pgweir = pool_of(1);
    let [mut pooled, mut direct] =
        [pgweir.port(), shared().port()].map(|port| boss_at(port, &startup));
    let mut told = ["off".to_owned(), "off".to_owned()];
    for sql in [
        "SELECT 1; RESET ROLE",
        "SET SESSION AUTHORIZATION auth_super",
        "SET SESSION AUTHORIZATION DEFAULT; SELECT 1",
        "SET SESSION AUTHORIZATION auth_user",
        "DO $$BEGIN RESET SESSION AUTHORIZATION; END$$",
        "SET ROLE NONE",
        "SELECT 1; RESET work_mem",
        "SELECT 1; RESET ROLE",
    ] {
        for (client, told) in [&mut pooled, &mut direct].into_iter().zip(&mut told) {
            // The second answer comes behind whatever is told late.
            for line in [client.query(sql), client.query(WHO)].concat() {
                if let Some(value) = line.strip_prefix("ParameterStatus is_superuser=") {
                    value.clone_into(told);
                }
            }
        }
        assert_eq!(told[0], told[1], "{sql}");
        assert_eq!(pooled.query(WHO), direct.query(WHO), "{sql}");
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

/// PostgreSQL looks whether it could be, and leaves it.
#[test]
fn a_session_authorization_given_at_connect_is_none() {
    for options in ["-c session_authorization=auth_user", "-c session_authorization=auth_boss"] {
        same(&[("options", options)], &["SET work_mem = '77MB'", "RESET ALL", "DISCARD ALL"]);
    }
    same(
        &[("options", "-c role=auth_role"), ("session_authorization", "auth_super")],
        &["RESET ROLE", "SET ROLE NONE", "RESET SESSION AUTHORIZATION"],
    );
    let pgweir = pool_of(1);
    for user in ["app", BOSS] {
        for name in ["auth_user", "auth_nobody", ""] {
            let startup = [("database", DATABASE), ("session_authorization", name)];
            let [pooled, direct] = [pgweir.port(), shared().port()].map(|port| {
                let mut client = RawClient::connect(port);
                let refused = client.try_log_in(user, PASSWORD, &startup).err();
                refused.map(|error| (error.line(), error.field('M')))
            });
            assert_eq!(pooled, direct, "{user} as {name:?}");
        }
    }
}

#[test]
fn session_authorizations_of_pipelined_batches_follow() {
    let pgweir = pool_of(1);
    let mut others = [boss_at(pgweir.port(), &[])];
    let mut clients = [pgweir.port(), shared().port()].map(|port| boss_at(port, &[]));
    let batch = |sql: &str, values: &[Option<&str>]| {
        [
            frontend::parse("", sql),
            frontend::bind("", "", values),
            frontend::execute("", 0),
            frontend::sync(),
        ]
        .concat()
    };
    let sets = "SELECT set_config($1, $2, false)";
    let messages = [
        batch("SET SESSION AUTHORIZATION auth_super", &[]),
        [batch("SET SESSION AUTHORIZATION auth_user", &[]), batch("SELECT 1/0", &[])].concat(),
        batch("RESET SESSION AUTHORIZATION", &[]),
        batch(sets, &[Some("session_authorization"), Some("auth_user")]),
        batch(sets, &[Some("role"), Some("auth_role")]),
        batch(WHO, &[]),
    ]
    .concat();
    let [pooled, direct] = clients.each_mut().map(|client| {
        client.send(&messages);
        (0..7).map(|_| client.until_ready()).collect::<Vec<_>>()
    });
    assert_eq!(pooled, direct);
    for _ in 0..2 {
        pass_on(&mut others, "batches");
        let [pooled, direct] = clients.each_mut().map(|client| client.query(WHO));
        assert_eq!(pooled, direct);
    }
    assert_eq!(pinned(&pgweir), 0.0);
}

#[test]
fn a_role_that_is_a_default_can_be_left_by_one_client_alone() {
    let pgweir = pool_of(1);
    let mut direct = log_in(shared().port(), DEPUTY, &[]);
    let [mut pooled, mut other] = [(), ()].map(|()| log_in(pgweir.port(), DEPUTY, &[]));
    for sql in [
        "SET ROLE NONE",
        "SET work_mem = '77MB'",
        "RESET ALL",
        "RESET ROLE",
        "BEGIN; SET ROLE NONE; ROLLBACK",
        "DO $$BEGIN SET ROLE NONE; END$$",
        "DISCARD ALL",
        "SET ROLE NONE; SELECT 1",
        "SET SESSION AUTHORIZATION DEFAULT",
    ] {
        for sql in [sql, WHO] {
            assert_eq!(pooled.query(sql), direct.query(sql), "{sql}");
            let seen = other.execute("SELECT current_user, current_setting('role')").concat();
            assert_eq!(seen, ["auth_role", "auth_role"], "after {sql}");
        }
    }
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

/// An idle server that acts as another is asked for the code in the database, and for the defaults of its login.
#[test]
fn the_defaults_of_the_session_user_are_not_those_of_the_pool() {
    let pgweir = pool_of(1);
    shared().superuser().execute("ALTER ROLE auth_user SET lock_timeout = '1h'");
    let mut client = boss_at(pgweir.port(), &[]);
    client.execute("CREATE FUNCTION public.auth_first() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    let server = client.value("SELECT pg_backend_pid()");
    client.execute("SET SESSION AUTHORIZATION auth_user");
    client.execute("CREATE FUNCTION public.auth_second() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    for _ in 0..3 {
        assert_eq!(client.value("SELECT pg_backend_pid()"), server);
        assert_eq!(client.value("SHOW lock_timeout"), "0");
    }
    assert_eq!(pgweir.metric("pgweir_session_pins_total", ""), 0.0);
}

/// Another server would not let the session user take it on.
#[test]
fn a_role_that_its_session_user_could_not_take_on_pins() {
    let pgweir = pool_of(2);
    let [mut pooled, mut direct] = [pgweir.port(), shared().port()].map(|port| boss_at(port, &[]));
    let mut others = [boss_at(pgweir.port(), &[])];
    for sql in [
        "SET SESSION AUTHORIZATION auth_user",
        "BEGIN; SET LOCAL SESSION AUTHORIZATION auth_super; SET ROLE auth_other; COMMIT",
        WHO,
        WHO,
    ] {
        assert_eq!(pooled.query(sql), direct.query(sql), "{sql}");
        pass_on(&mut others, sql);
    }
    assert_eq!(pinned(&pgweir), 1.0);
    assert_eq!(pgweir.metric("pgweir_session_pins_total", "role"), 1.0);
    for sql in ["RESET ROLE", WHO] {
        assert_eq!(pooled.query(sql), direct.query(sql), "{sql}");
        pass_on(&mut others, sql);
    }
    eventually("it is let go", || pinned(&pgweir) == 0.0);
}
