//! Many secrets, and a Secrets Manager that is slow, silent, away or refuses: pgweir before a real PostgreSQL, and a
//! gate before moto that answers as AWS does in trouble.
//!
//! 200 secrets by default, as many as `TEST_SECRETS` says; an outage of 12 times the secrets' time to live, which is an
//! hour with the default of five minutes, or of as many seconds as `TEST_OUTAGE_SECONDS` says. What was seen is printed:
//! `TEST_SECRETS=999 TEST_OUTAGE_SECONDS=60 tests/run --test secrets_in_trouble -- --nocapture --test-threads 1`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::float_cmp,
    clippy::print_stdout,
    reason = "helpers of tests; metrics that count hold whole numbers"
)]

#[path = "support/gate.rs"]
mod gate;
#[path = "support/moto.rs"]
#[allow(dead_code, reason = "this moto is not stopped")]
mod moto;
mod support;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Credentials as Keys;
use aws_sdk_secretsmanager::primitives::Blob;
use gate::{Gate, Request, Trouble};
use moto::Moto;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::eventually;
use support::pgweir::{Pgweir, Setup};
use support::postgres::{DATABASE, PASSWORD, PgVersion, Postgres, USER};
use support::raw::RawClient;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const REGION: &str = "us-east-1";
/// Most requests that pgweir may have under way.
const AT_ONCE_MAX: usize = 8;
/// The least that pgweir keeps quiet after it was throttled: half of its first pause.
const QUIET_MIN: Duration = Duration::from_secs(4);

/// Moto behind a gate, with the secret of [`USER`] and others.
struct World {
    postgres: Postgres,
    gate: Gate,
    aws: Client,
    runtime: Runtime,
    _moto: Moto,
    /// What pgweir is told of, in this order.
    secrets: Vec<String>,
}

impl World {
    /// With `others` more secrets besides that of [`USER`], which comes last.
    fn new(others: usize) -> Self {
        let moto = Moto::start();
        let port = moto.endpoint().rsplit(':').next().unwrap().parse().unwrap();
        let (runtime, gate) = (Runtime::new().unwrap(), Gate::before(port));
        let aws = runtime.block_on(async {
            let config = aws_config::defaults(BehaviorVersion::latest())
                .region(Region::new(REGION))
                .endpoint_url(moto.endpoint())
                .credentials_provider(Keys::new("AKIDEXAMPLE", "example", None, None, "test"));
            Client::new(&config.load().await)
        });
        let postgres = Postgres::start(PgVersion::Installed);
        // Any of them is good enough to ask the database for its limits.
        let roles = format!(
            "DO $$ BEGIN FOR n IN 0..{others} LOOP \
             EXECUTE format('CREATE ROLE user%s LOGIN PASSWORD ''pw''', n); END LOOP; END $$"
        );
        postgres.superuser().execute(&roles);
        let mut world = Self { postgres, gate, aws, runtime, _moto: moto, secrets: Vec::new() };
        let mut users: Vec<(String, &str)> =
            (0..others).map(|number| (format!("user{number}"), "pw")).collect();
        users.push((USER.to_owned(), PASSWORD));
        world.secrets = world.create(&users);
        world
    }

    /// Makes secrets of these users and passwords; yields their ARNs.
    fn create(&self, users: &[(String, &str)]) -> Vec<String> {
        let mut creations = JoinSet::new();
        self.runtime.block_on(async {
            for (at, (user, password)) in users.iter().enumerate() {
                let secret = serde_json::json!({ "username": user, "password": password });
                let create = self.aws.create_secret().name(user).secret_string(secret.to_string());
                creations.spawn(async move { (at, create.send().await.unwrap().arn.unwrap()) });
            }
            let mut created = creations.join_all().await;
            created.sort();
            created.into_iter().map(|(_, arn)| arn).collect()
        })
    }

    fn create_text(&self, name: &str, text: &str) -> String {
        let create = self.aws.create_secret().name(name).secret_string(text).send();
        self.runtime.block_on(create).unwrap().arn.unwrap()
    }

    fn create_binary(&self, name: &str, bytes: &[u8]) -> String {
        let create = self.aws.create_secret().name(name).secret_binary(Blob::new(bytes)).send();
        self.runtime.block_on(create).unwrap().arn.unwrap()
    }

    fn pgweir(&self) -> Setup {
        let setup = Setup::before_port(self.postgres.port())
            .target("max_connections = 4")
            .environment("AWS_ENDPOINT_URL", &self.gate.endpoint())
            .environment("AWS_REGION", REGION)
            .environment("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .environment("AWS_SECRET_ACCESS_KEY", "example")
            .environment("AWS_EC2_METADATA_DISABLED", "true");
        let entry = |setup: Setup, arn: &String| setup.entry(&format!("secret_arn = {arn:?}"));
        self.secrets.iter().fold(setup, entry)
    }
}

fn requested(variable: &str, default: usize) -> usize {
    let number = std::env::var(variable).ok();
    number.map_or(default, |number| number.parse().expect("it is a number"))
}

fn readiness(pgweir: &Pgweir) -> String {
    pgweir.http_get("/readyz").unwrap()
}

/// Waits until all secrets are usable.
fn until_all_are_usable(pgweir: &Pgweir, secrets: usize) {
    let begun = Instant::now();
    let all = format!("\"{secrets} of {secrets} secrets usable\"");
    while !readiness(pgweir).contains(&all) {
        assert!(begun.elapsed() < Duration::from_secs(150), "{}", readiness(pgweir));
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("all of {secrets} secrets usable {:?} later", begun.elapsed());
}

fn serves(pgweir: &Pgweir) {
    assert_eq!(pgweir.client().value("SELECT 'served'"), "served");
}

#[test]
fn many_secrets_are_read_at_once_and_not_too_many_and_not_again_in_step() {
    let others = requested("TEST_SECRETS", 200);
    let world = World::new(others);
    let begun = Instant::now();
    let pgweir = world.pgweir().proxy("secret_time_to_live = \"5s\"").start();
    println!("{} secrets read and ready {:?} after the start", others + 1, begun.elapsed());
    until_all_are_usable(&pgweir, others + 1);
    serves(&pgweir);
    let most = world.gate.most_at_once();
    assert!((2..=AT_ONCE_MAX).contains(&most), "{most} at once");
    assert_eq!(world.gate.secrets(), others + 1);

    // The second time, each comes when it is due.
    let read = world.gate.requests().len();
    let of_second_round = || world.gate.requests().split_off(read);
    eventually("all are read again", || of_second_round().len() > others);
    assert!(world.gate.most_at_once() <= AT_ONCE_MAX);
    let second = of_second_round();
    let spread = second.last().unwrap().at - second[0].at;
    println!("read again within {spread:?}");
    // A tenth of the time to live, more or less.
    assert!(spread >= Duration::from_millis(500), "{spread:?}");
}

/// How long it took to ask for one secret four times in vain, at the least.
///
/// The three tries of one read come close to each other; between two reads there is a pause.
fn fastest_four(requests: &[Request]) -> Option<Duration> {
    let mut in_vain: HashMap<&str, Vec<Instant>> = HashMap::new();
    let mut fastest = None;
    for request in requests {
        let times = in_vain.entry(&request.secret).or_default();
        if request.passed {
            times.clear();
            continue;
        }
        times.push(request.at);
        if let [.., first, _, _, last] = times[..] {
            fastest = fastest.into_iter().chain([last - first]).min();
        }
    }
    fastest
}

#[test]
fn a_service_that_throttles_is_left_in_peace_and_all_users_come_in_time() {
    let others = requested("TEST_SECRETS", 40).min(200);
    let world = World::new(others);
    world.gate.set(Trouble::TwoOfThreeAreTooMany);
    let pgweir = world.pgweir().start();
    let disabled = pgweir.metric("pgweir_secrets", "disabled");
    println!("started with {disabled} of {} secrets throttled", others + 1);
    assert!(disabled > 0.0, "two of three were refused");
    assert!(readiness(&pgweir).contains("throttles the requests (ThrottlingException)"));
    eventually("it is asked again", || pgweir.metric("pgweir_secrets", "disabled") < disabled);
    world.gate.set(Trouble::None);
    until_all_are_usable(&pgweir, others + 1);
    serves(&pgweir);
    let fastest = fastest_four(&world.gate.requests());
    assert!(fastest.is_none_or(|took| took >= QUIET_MIN), "{fastest:?}");
    assert!(world.gate.most_at_once() <= AT_ONCE_MAX);
}

#[test]
fn an_endpoint_that_hangs_for_some_keeps_nobody_else_waiting() {
    let mut world = World::new(3);
    let hangs = world.create_text("hangs", r#"{"username":"later","password":"pw"}"#);
    world.secrets.push(hangs.clone());
    world.gate.hang(&hangs);
    let begun = Instant::now();
    let pgweir = world.pgweir().start();
    println!("started {:?} after the start, with one secret that hangs", begun.elapsed());
    serves(&pgweir);
    let told = format!("{hangs} (user disabled): not read in time");
    assert!(readiness(&pgweir).contains(&told), "{}", readiness(&pgweir));
    world.gate.let_go();
    until_all_are_usable(&pgweir, 5);
}

/// Clients that come and go, and clients that stay, until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    logins: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(pgweir: &Pgweir) -> Self {
        let (stop, logins) = (Arc::new(AtomicBool::new(false)), Arc::<AtomicUsize>::default());
        let port = pgweir.port();
        let clients = (0..6).map(|number| {
            let (stop, logins) = (Arc::clone(&stop), Arc::clone(&logins));
            let stays = number % 2 == 0;
            std::thread::spawn(move || {
                let mut client = log_in(port);
                while !stop.load(Ordering::Relaxed) {
                    if !stays {
                        client = log_in(port);
                        logins.fetch_add(1, Ordering::Relaxed);
                    }
                    client.execute("BEGIN");
                    assert_eq!(client.value("SELECT 1"), "1");
                    client.execute("COMMIT");
                }
            })
        });
        Self { threads: clients.collect(), stop, logins }
    }

    /// Stops them; yields how many logins there were.
    ///
    /// # Panics
    /// When one of them saw an error.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no client sees an error");
        }
        self.logins.load(Ordering::Relaxed)
    }
}

fn log_in(port: u16) -> RawClient {
    let mut client = RawClient::connect(port);
    client.log_in(USER, PASSWORD, DATABASE);
    client
}

#[test]
fn an_outage_of_an_hour_is_noticed_by_no_client() {
    let world = World::new(3);
    // Servers are opened all the time, too.
    let pgweir = world
        .pgweir()
        .proxy("secret_time_to_live = \"1s\"")
        .target("connection_lifetime = \"200ms\"")
        .start();
    let load = Load::on(&pgweir);
    let seconds = u64::try_from(requested("TEST_OUTAGE_SECONDS", 12)).unwrap();
    let kinds = [Trouble::Closes, Trouble::BadGateway, Trouble::TooMany, Trouble::Hangs];
    let each = Duration::from_secs(seconds) / 4;
    let begun = Instant::now();
    for (number, kind) in (1_u32..).zip(kinds) {
        world.gate.set(kind);
        eventually("the outage is seen", || pgweir.metric("pgweir_secrets", "stale") == 4.0);
        while begun.elapsed() < each * number {
            assert!(readiness(&pgweir).starts_with("HTTP/1.1 200"), "{}", readiness(&pgweir));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let during = world.gate.requests();
    world.gate.set(Trouble::None);
    until_all_are_usable(&pgweir, 4);
    eventually("all are fresh", || pgweir.metric("pgweir_secrets", "fresh") == 4.0);
    println!("{} logins and no error in an outage of {:?}", load.end(), begun.elapsed());
    // Not more than three tries a second for each secret.
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let most = 4 * 3 * seconds;
    assert!(during.len() <= most, "{} requests", during.len());
    assert!(!pgweir.log().contains(PASSWORD));
}

#[test]
fn each_secret_that_cannot_be_used_is_named_with_what_is_missing_and_nothing_of_it() {
    let mut world = World::new(0);
    let elsewhere = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:elsewhere-AbCdEf";
    let missing = "arn:aws:secretsmanager:us-east-1:123456789012:secret:missing-AbCdEf";
    let denied = r#"{"__type":"AccessDeniedException","Message":"User: arn:aws:sts::1:assumed-role/task is not authorized to perform: secretsmanager:GetSecretValue"}"#;
    let key = r#"{"__type":"AccessDeniedException","Message":"Access to KMS is not allowed"}"#;
    let skew = r#"{"__type":"InvalidSignatureException","message":"Signature expired: 20260101T000000Z is now earlier than 20260101T001000Z (20260101T001500Z - 5 min.)"}"#;
    let empty = r#"{"Name":"empty","SecretString":""}"#;
    for (name, body) in [("denied", denied), ("key", key), ("skew", skew), ("empty", empty)] {
        let status = if name == "empty" { "200 OK" } else { "400 Bad Request" };
        world.gate.answer(name, status, body);
    }
    let bad = [
        (missing.to_owned(), "no such secret", "not_found"),
        (elsewhere.to_owned(), "check name, account and region", "not_found"),
        ("empty".to_owned(), "the secret is", "content"),
        (world.create_text("not-json", "hunter2"), "is not JSON", "content"),
        (world.create_text("no-password", r#"{"username":"hunter2"}"#), "password", "content"),
        (world.create_text("no-user", r#"{"password":"hunter2"}"#), "username", "content"),
        (world.create_text("number", r#"{"username":"u","password":2}"#), "password", "content"),
        (world.create_binary("binary", b"\xff\x00hunter2"), "the secret is", "content"),
        ("denied".to_owned(), "permission secretsmanager:GetSecretValue is missing", "denied"),
        ("key".to_owned(), "permission kms:Decrypt is missing", "denied"),
        ("skew".to_owned(), "AWS credentials or clock (InvalidSignatureException)", "identity"),
    ];
    world.secrets.extend(bad.iter().map(|(arn, ..)| arn.clone()));
    let pgweir = world.pgweir().start();
    serves(&pgweir);
    let (readiness, log) = (readiness(&pgweir), pgweir.log());
    assert!(readiness.contains("1 of 12 secrets usable"), "{readiness}");
    assert!(readiness.contains("and 1 more"), "{readiness}");
    for (number, (origin, told, label)) in (1..).zip(&bad) {
        let source = format!("source={origin} ");
        let line = log.lines().find(|line| line.contains("WARN") && line.contains(&source));
        let line = line.unwrap_or_else(|| panic!("{origin} is not in the log:\n{log}"));
        assert!(line.contains(told), "{line}: {told}");
        // Ten are told there, and how many more there are.
        let named = |text: &str| text.starts_with(&format!("{origin} (user disabled): "));
        let named = readiness.split("; ").find(|text| named(text));
        assert!(number > 10 || named.is_some_and(|text| text.contains(told)), "{readiness}");
        assert!(pgweir.metric("pgweir_secret_problems", label) >= 1.0, "{label}");
    }
    assert!(!readiness.contains("hunter2") && !log.contains("hunter2"));
}
