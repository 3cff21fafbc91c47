//! Secrets that are rotated while clients come, stay and work: nobody may notice.
//!
//! PostgreSQL is real, and Secrets Manager is moto's. The clients do what Lambdas do: they read the
//! current version of the secret and log in with it. The rotation does what the functions of AWS do, in
//! their order: the new password becomes `AWSPENDING`, then the database's, then `AWSCURRENT`.
//! Four rotations of each kind by default, as many as `TEST_ROTATIONS` says on request.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

#[path = "support/moto.rs"]
mod moto;
mod support;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Credentials as Keys;
use aws_sdk_secretsmanager::operation::get_secret_value::builders::GetSecretValueFluentBuilder;
use moto::Moto;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use support::eventually;
use support::pgweir::{Pgweir, Setup};
use support::postgres::{DATABASE, PASSWORD, PgVersion, Postgres, USER};
use support::raw::RawClient;
use tokio::runtime::Runtime;

const REGION: &str = "us-east-1";
const CLONE: &str = "app_clone";
/// Logins that must go well between two steps of a rotation, of each client that comes and goes: none of them is ever
/// more than one password behind.
const LOGINS: usize = 2;

/// Moto with one secret, and PostgreSQL with its user.
struct World {
    moto: Moto,
    postgres: Postgres,
    aws: Client,
    arn: String,
    runtime: Runtime,
}

impl World {
    fn new() -> Self {
        let (moto, postgres) = (Moto::start(), Postgres::start(PgVersion::Installed));
        let runtime = Runtime::new().unwrap();
        let aws = runtime.block_on(async {
            let config = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new(REGION))
                .endpoint_url(moto.endpoint())
                .credentials_provider(Keys::new("AKIDEXAMPLE", "example", None, None, "test"));
            Client::new(&config.load().await)
        });
        let create = aws.create_secret().name("app").secret_string(secret(USER, PASSWORD)).send();
        let arn = runtime.block_on(create).unwrap().arn.unwrap();
        Self { moto, postgres, aws, arn, runtime }
    }

    /// pgweir with a secret that is read again by itself only once in a day.
    fn pgweir(&self) -> Setup {
        Setup::before_port(self.postgres.port())
            .entry(&format!("secret_arn = {:?}", self.arn))
            .proxy("secret_time_to_live = \"1d\"")
            .target("max_connections = 4")
            .environment("AWS_ENDPOINT_URL", &self.moto.endpoint())
            .environment("AWS_REGION", REGION)
            .environment("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .environment("AWS_SECRET_ACCESS_KEY", "example")
            .environment("AWS_EC2_METADATA_DISABLED", "true")
    }

    /// Rotates to this user and password, and calls `between` after each step.
    fn rotate(&self, user: &str, password: &str, between: impl Fn()) {
        let current = self.runtime.block_on(current_version(&self.aws, &self.arn).send());
        let current = current.unwrap().version_id.unwrap();
        let put = self.aws.put_secret_value().secret_id(&self.arn);
        let put = put.secret_string(secret(user, password)).version_stages("AWSPENDING").send();
        let pending = self.runtime.block_on(put).unwrap().version_id.unwrap();
        between();
        self.postgres.superuser().execute(&format!("ALTER ROLE {user} PASSWORD '{password}'"));
        between();
        let finish = self.aws.update_secret_version_stage().secret_id(&self.arn);
        let finish = finish.version_stage("AWSCURRENT").move_to_version_id(pending);
        self.runtime.block_on(finish.remove_from_version_id(current).send()).unwrap();
        between();
    }
}

fn rotations() -> usize {
    let requested = std::env::var("TEST_ROTATIONS").ok();
    requested.map_or(4, |number| number.parse().expect("it is a number"))
}

fn current_version(aws: &Client, arn: &str) -> GetSecretValueFluentBuilder {
    aws.get_secret_value().secret_id(arn).version_stage("AWSCURRENT")
}

fn secret(user: &str, password: &str) -> String {
    serde_json::json!({ "username": user, "password": password, "port": "5432" }).to_string()
}

/// Clients at work until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    logins: Vec<Arc<AtomicUsize>>,
    errors: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(world: &World, pgweir: &Pgweir) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            logins: Vec::new(),
            errors: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..3 {
            load.come_and_go(world, pgweir.port());
        }
        for _ in 0..3 {
            load.stay(pgweir.port());
        }
        load
    }

    /// Reads the secret, logs in, works, leaves; again and again.
    fn come_and_go(&mut self, world: &World, port: u16) {
        let (stop, errors) = (self.stop.clone(), self.errors.clone());
        let logins = Arc::<AtomicUsize>::default();
        self.logins.push(Arc::clone(&logins));
        let (aws, arn, handle) =
            (world.aws.clone(), world.arn.clone(), world.runtime.handle().clone());
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let read = handle.block_on(current_version(&aws, &arn).send());
                let text = read.unwrap().secret_string.unwrap();
                let secret: serde_json::Value = serde_json::from_str(&text).unwrap();
                let (user, password) =
                    (secret["username"].as_str().unwrap(), secret["password"].as_str().unwrap());
                let mut client = RawClient::connect(port);
                match client.try_log_in(user, password, &[("database", DATABASE)]) {
                    Ok(()) => work(&mut client, &errors),
                    Err(refusal) => note(&errors, &format!("{user}: {}", refusal.field('M'))),
                }
                logins.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }

    /// Logs in once with what is the secret at the start.
    fn stay(&mut self, port: u16) {
        let (stop, errors) = (self.stop.clone(), self.errors.clone());
        let mut client = RawClient::connect(port);
        client.log_in(USER, PASSWORD, DATABASE);
        self.threads.push(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                work(&mut client, &errors);
            }
        }));
    }

    fn logins(&self) -> Vec<usize> {
        self.logins.iter().map(|each| each.load(Ordering::Relaxed)).collect()
    }

    /// Returns when each has come and gone [`LOGINS`] times.
    fn pass(&self) {
        let before = self.logins();
        eventually("clients come and go", || {
            let mut each = before.iter().zip(self.logins());
            each.all(|(before, now)| now >= before + LOGINS)
        });
    }

    /// Stops them, and says what they had.
    ///
    /// # Panics
    /// When one of them saw an error.
    fn ends_without_an_error(self, rotations: usize) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        assert_eq!(*self.errors.lock().unwrap(), Vec::<String>::new());
        let logins: usize = self.logins.iter().map(|each| each.load(Ordering::Relaxed)).sum();
        println!("{rotations} rotations, {logins} logins and no error");
    }
}

fn work(client: &mut RawClient, errors: &Mutex<Vec<String>>) {
    for lines in [client.query("BEGIN"), client.query("SELECT 1"), client.query("COMMIT")] {
        if lines.iter().any(|line| line.contains("Error")) {
            note(errors, &lines.join(", "));
        }
    }
}

fn note(errors: &Mutex<Vec<String>>, text: &str) {
    errors.lock().unwrap().push(text.to_owned());
}

fn no_password_is_in(log: &str) {
    assert!(!log.contains(PASSWORD) && !log.contains("rotated-"), "a password is in the log");
}

#[test]
fn a_single_user_s_password_is_rotated_under_load_and_no_client_notices() {
    let world = World::new();
    // Servers are opened all the time, also while database and secret disagree.
    let pgweir = world.pgweir().target("connection_lifetime = \"200ms\"").start();
    let load = Load::start(&world, &pgweir);
    load.pass();
    for round in 0..rotations() {
        world.rotate(USER, &format!("rotated-{round}"), || load.pass());
    }
    load.ends_without_an_error(rotations());
    no_password_is_in(&pgweir.log());
}

#[test]
fn alternating_users_are_rotated_under_load_and_no_client_notices() {
    let world = World::new();
    world.postgres.superuser().execute(&format!("CREATE ROLE {CLONE} LOGIN IN ROLE {USER}"));
    let pgweir = world.pgweir().target("connection_lifetime = \"200ms\"").start();
    let load = Load::start(&world, &pgweir);
    load.pass();
    for round in 0..rotations() {
        let user = if round % 2 == 0 { CLONE } else { USER };
        world.rotate(user, &format!("rotated-{round}"), || load.pass());
    }
    load.ends_without_an_error(rotations());
    no_password_is_in(&pgweir.log());
}

#[test]
fn servers_of_the_old_secret_are_replaced_while_their_clients_stay() {
    let world = World::new();
    let pgweir = world.pgweir().proxy("secret_time_to_live = \"1s\"").start();
    let mut clients: Vec<RawClient> = (0..3)
        .map(|_| {
            let mut client = RawClient::connect(pgweir.port());
            client.log_in(USER, PASSWORD, DATABASE);
            client
        })
        .collect();
    // Each holds a server, so that there are three.
    let process_ids = |clients: &mut [RawClient]| -> Vec<String> {
        for client in &mut *clients {
            client.execute("BEGIN");
        }
        let ids = clients.iter_mut().map(|client| client.value("SELECT pg_backend_pid()"));
        let ids = ids.collect();
        for client in &mut *clients {
            client.execute("COMMIT");
        }
        ids
    };
    let old = process_ids(&mut clients);
    world.rotate(USER, "rotated-once", || ());
    eventually("all servers are others", || {
        process_ids(&mut clients).iter().all(|id| !old.contains(id))
    });
    let closed = pgweir.metric("pgweir_database_connections_closed_total", "secret_changed");
    assert!(closed >= 3.0, "{closed}");
}

/// They go from client to client, and no sweep ever finds them idle.
#[test]
fn servers_of_the_old_secret_are_replaced_while_clients_wait_for_them() {
    let world = World::new();
    let pgweir =
        world.pgweir().proxy("secret_time_to_live = \"1s\"").target("max_connections = 2").start();
    let load = Load::start(&world, &pgweir);
    let pids = format!("SELECT pid FROM pg_stat_activity WHERE usename = '{USER}' ORDER BY pid");
    let mut superuser = world.postgres.superuser();
    let mut servers = || superuser.execute(&pids).concat();
    load.pass();
    let old = servers();
    assert_eq!(old.len(), 2);
    world.rotate(USER, "rotated-once", || ());
    eventually("all servers are others", || {
        load.pass();
        servers().iter().all(|pid| !old.contains(pid))
    });
    load.ends_without_an_error(1);
}

#[test]
fn an_outage_of_secrets_manager_is_noticed_by_the_operator_and_by_no_client() {
    let mut world = World::new();
    // By name, as a secret made anew has another ARN.
    world.arn = "app".to_owned();
    let pgweir = world.pgweir().proxy("secret_time_to_live = \"1s\"").start();
    let mut stays = RawClient::connect(pgweir.port());
    stays.log_in(USER, PASSWORD, DATABASE);
    let World { moto, postgres, aws, runtime, .. } = world;
    let port = moto.stop();

    let readiness = || pgweir.http_get("/readyz").unwrap();
    eventually("the outage is seen", || readiness().contains("the last value is in use"));
    assert!(readiness().starts_with("HTTP/1.1 200"), "{}", readiness());
    assert_eq!(pgweir.metric("pgweir_secrets", "stale"), 1.0);
    for _ in 0..20 {
        let mut comes = RawClient::connect(pgweir.port());
        comes.log_in(USER, PASSWORD, DATABASE);
        assert_eq!(comes.value("SELECT 1"), "1");
        assert_eq!(stays.value("SELECT 1"), "1");
    }

    postgres.superuser().execute(&format!("ALTER ROLE {USER} PASSWORD 'rotated-meanwhile'"));
    let _moto = Moto::start_on(port);
    let secret = secret(USER, "rotated-meanwhile");
    let create = aws.create_secret().name("app").secret_string(secret).send();
    runtime.block_on(create).unwrap();
    eventually("it heals by itself", || readiness().contains("\"1 of 1 secrets usable\""));
    let mut comes = RawClient::connect(pgweir.port());
    comes.log_in(USER, "rotated-meanwhile", DATABASE);
    assert_eq!(comes.value("SELECT 1"), "1");
    assert_eq!(stays.value("SELECT 1"), "1");
    no_password_is_in(&pgweir.log());
}

#[test]
fn one_usable_secret_is_enough_to_start_and_the_others_are_named() {
    let world = World::new();
    let put = world.aws.create_secret().name("bad").secret_string("hunter2").send();
    world.runtime.block_on(put).unwrap();
    let pgweir = world
        .pgweir()
        .entry("secret_arn = \"bad\"")
        .entry("secret_arn = \"arn:aws:secretsmanager:eu-west-1:1:secret:elsewhere-AbCdEf\"")
        .start();
    let mut client = RawClient::connect(pgweir.port());
    client.log_in(USER, PASSWORD, DATABASE);
    let readiness = pgweir.http_get("/readyz").unwrap();
    for told in [
        "1 of 3 secrets usable",
        "bad (user disabled): the secret is not JSON",
        "secret:elsewhere-AbCdEf (user disabled): Secrets Manager has no such secret",
    ] {
        assert!(readiness.contains(told), "{readiness}");
    }
    assert_eq!(pgweir.metric("pgweir_secrets", "disabled"), 2.0);
    assert!(!readiness.contains("hunter2") && !pgweir.log().contains("hunter2"));
}

#[test]
fn new_and_old_password_are_good_during_the_overlap_by_either_method() {
    let postgres = Postgres::start(PgVersion::Installed);
    let parameters = [("database", DATABASE)];
    for method in ["POSTGRES_SCRAM_SHA_256", "POSTGRES_MD5"] {
        let setup = Setup::before_port(postgres.port()).user_by(USER, PASSWORD, method);
        let pgweir = setup.target("max_connections = 2").start();
        postgres.superuser().execute(&format!("ALTER ROLE {USER} PASSWORD 'rotated-file'"));
        pgweir.change_secret(USER, "rotated-file");
        for password in ["rotated-file", PASSWORD] {
            let mut client = RawClient::connect(pgweir.port());
            client.log_in(USER, password, DATABASE);
            assert_eq!(client.value("SELECT 1"), "1", "{method}");
        }
        let mut guess = RawClient::connect(pgweir.port());
        let refusal = guess.try_log_in(USER, "guess", &parameters).unwrap_err();
        assert_eq!(refusal.field('C'), "28P01");
        postgres.superuser().execute(&format!("ALTER ROLE {USER} PASSWORD '{PASSWORD}'"));
    }
}

/// The user that is gone would be the first to ask as.
#[test]
fn the_target_is_asked_as_a_user_whose_secret_can_still_be_used() {
    let postgres = Postgres::start(PgVersion::Installed);
    postgres.superuser().execute(&format!("CREATE ROLE renamed LOGIN PASSWORD '{PASSWORD}'"));
    postgres.stop();
    let pgweir = Setup::before_port(postgres.port())
        .user(USER, PASSWORD)
        .proxy("secret_overlap = \"1s\"")
        .target("max_connections = 2")
        .target("fail_fast_after = \"0s\"")
        .launch();
    eventually("it is known to be away", || {
        let detail = pgweir.http_get("/readyz");
        pgweir.log().contains("cannot ask the target") && detail.is_some()
    });
    pgweir.rename_user(USER, "renamed");
    let refused = |user: &str| {
        let mut client = RawClient::connect(pgweir.port());
        let refusal = client.try_log_in(user, PASSWORD, &[("database", DATABASE)]).unwrap_err();
        refusal.field('C')
    };
    // Whose password is good is told that the target is away.
    eventually("the secret is read", || refused("renamed") == "08001");
    eventually("its overlap is over", || refused(USER) == "28P01");
    postgres.start_again();
    eventually("the target is reached", || pgweir.http_status("/readyz") == Some(200));
    let mut client = pgweir.client_as("renamed", DATABASE);
    assert_eq!(client.value("SELECT current_user"), "renamed");
}
