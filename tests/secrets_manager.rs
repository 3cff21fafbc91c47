//! Credentials from AWS Secrets Manager: against moto's server, and against a server that answers as AWS
//! does in cases that moto does not know.

// Clippy knows the tests themselves as such, and not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/moto.rs"]
mod moto;
mod support;

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Credentials as Keys;
use aws_sdk_secretsmanager::primitives::Blob;
use moto::Moto;
use pgweir::config::{Auth, AuthScheme, ClientPasswordAuthType, IamAuth, SecretSource};
use pgweir::credentials::{Credentials, LoadError, Settings, SourceError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

const REGION: &str = "us-east-1";
/// For things that take well under a second on an idle machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn sdk_config(endpoint: &str, region: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .endpoint_url(endpoint)
        .credentials_provider(Keys::new("AKIDEXAMPLE", "example", None, None, "test"))
        .load()
        .await
}

async fn administrator(moto: &Moto, region: &str) -> Client {
    Client::new(&sdk_config(&moto.endpoint(), region).await)
}

async fn create(client: &Client, name: &str, text: &str) -> String {
    let created = client.create_secret().name(name).secret_string(text).send().await.unwrap();
    created.arn.unwrap()
}

async fn rotate(client: &Client, arn: &str, text: &str) {
    client.put_secret_value().secret_id(arn).secret_string(text).send().await.unwrap();
}

fn json(username: &str, password: &str) -> String {
    serde_json::json!({ "username": username, "password": password }).to_string()
}

fn auth(secret_id: &str) -> Auth {
    Auth {
        source: SecretSource::SecretsManager { arn: secret_id.to_owned() },
        client_password_auth_type: ClientPasswordAuthType::ScramSha256,
        iam_auth: IamAuth::Disabled,
        auth_scheme: AuthScheme::Secrets,
    }
}

async fn settings(endpoint: &str) -> Settings {
    Settings {
        time_to_live: Duration::from_secs(1),
        overlap: PATIENCE * 60,
        aws: Some(sdk_config(endpoint, REGION).await),
    }
}

/// Loads, and refreshes until the test ends.
async fn load_and_run(moto: &Moto, auth: &[Auth]) -> Arc<Credentials> {
    let (credentials, problems) =
        Credentials::load(auth, settings(&moto.endpoint()).await).await.unwrap();
    assert_eq!(problems, []);
    tokio::spawn(Arc::clone(&credentials).run(std::future::pending()));
    credentials
}

fn password(credentials: &Credentials, username: &str) -> String {
    credentials.lookup(username).unwrap().password.expose().to_owned()
}

/// Waits until the user has this password.
async fn until_password_is(credentials: &Credentials, username: &str, expected: &str) {
    let mut changes = credentials.changes();
    let all = async {
        while password(credentials, username) != expected {
            changes.changed().await.unwrap();
        }
    };
    timeout(PATIENCE, all).await.expect("the new password did not take effect");
}

#[tokio::test]
async fn plain_rds_and_binary_secrets_are_read_and_bad_ones_disable_their_own_user_only() {
    let moto = Moto::start();
    let client = administrator(&moto, REGION).await;
    let rds = r#"{"engine":"postgres","host":"db.example","username":"rds","password":"pw-rds",
                  "dbname":"postgres","port":"5432","dbInstanceIdentifier":"db"}"#;
    let binary = client.create_secret().name("binary");
    let binary = binary.secret_binary(Blob::new(json("binary", "pw-binary"))).send().await.unwrap();
    let foreign = administrator(&moto, "eu-west-1").await;
    let good = [
        create(&client, "plain", &json("plain", "pw-plain")).await,
        create(&client, "rds", rds).await,
        binary.arn.unwrap(),
        create(&foreign, "elsewhere", &json("elsewhere", "pw-elsewhere")).await,
        "by-name".to_owned(),
    ];
    create(&client, "by-name", &json("by-name", "pw-by-name")).await;
    let missing = "arn:aws:secretsmanager:us-east-1:123456789012:secret:missing-AbCdEf".to_owned();
    let without_value = client.create_secret().name("without-value").send().await.unwrap();
    let deleted = create(&client, "deleted", &json("deleted", "pw")).await;
    client.delete_secret().secret_id(&deleted).send().await.unwrap();
    let bad = [
        (missing, "not_found"),
        (without_value.arn.unwrap(), "not_found"),
        (deleted, "refused"),
        (create(&client, "not-json", "hunter2").await, "content"),
        (create(&client, "blank", " ").await, "content"),
        (create(&client, "keyless", r#"{"passwort":"hunter2"}"#).await, "content"),
    ];

    let all: Vec<Auth> =
        good.iter().chain(bad.iter().map(|(arn, _)| arn)).map(|id| auth(id)).collect();
    let (credentials, problems) =
        Credentials::load(&all, settings(&moto.endpoint()).await).await.unwrap();
    for user in ["plain", "rds", "binary", "elsewhere", "by-name"] {
        assert_eq!(password(&credentials, user), format!("pw-{user}"));
    }
    let found: Vec<(String, &str)> =
        problems.iter().map(|problem| (problem.origin.clone(), problem.error.as_label())).collect();
    assert_eq!(found, bad);
    assert!(problems.iter().all(|problem| problem.user_disabled));
    assert!(!format!("{problems:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_rotation_takes_effect_after_the_time_to_live_or_at_once_when_asked_for() {
    let moto = Moto::start();
    let client = administrator(&moto, REGION).await;
    let arn = create(&client, "app", &json("app", "one")).await;
    let credentials = load_and_run(&moto, &[auth(&arn)]).await;
    let first = credentials.lookup("app").unwrap().generation;
    rotate(&client, &arn, &json("app", "two")).await;
    until_password_is(&credentials, "app", "two").await;
    assert!(credentials.lookup("app").unwrap().generation > first);

    let slow = Settings { time_to_live: PATIENCE * 60, ..settings(&moto.endpoint()).await };
    let (credentials, _) = Credentials::load(&[auth(&arn)], slow).await.unwrap();
    rotate(&client, &arn, &json("app", "three")).await;
    let refreshed = credentials.refresh_now("app").await.unwrap();
    assert_eq!(refreshed.password.expose(), "three");
    assert_eq!(password(&credentials, "app"), "three");
}

#[tokio::test]
async fn the_old_value_stays_while_the_service_is_away_and_heals_when_it_is_back() {
    let moto = Moto::start();
    let client = administrator(&moto, REGION).await;
    create(&client, "app", &json("app", "one")).await;
    let credentials = load_and_run(&moto, &[auth("app")]).await;
    let before = credentials.lookup("app").unwrap();

    let port = moto.stop();
    let during = timeout(PATIENCE, credentials.refresh_now("app")).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&before, &during));
    let status = credentials.status();
    assert!(status[0].usable);
    let error = status[0].last_error.as_ref().expect("the service is away");
    assert_eq!(error.as_label(), "unavailable", "{error}");

    let moto = Moto::start_on(port);
    create(&administrator(&moto, REGION).await, "app", &json("app", "two")).await;
    until_password_is(&credentials, "app", "two").await;
    assert_eq!(credentials.status()[0].last_error, None);
}

#[tokio::test]
async fn two_hundred_secrets_are_loaded() {
    let moto = Moto::start();
    let client = administrator(&moto, REGION).await;
    let names: Vec<String> = (0..200).map(|number| format!("user{number}")).collect();
    let mut creations = JoinSet::new();
    for name in names.clone() {
        let client = client.clone();
        creations.spawn(async move { create(&client, &name, &json(&name, &name)).await });
    }
    let arns = creations.join_all().await;
    let all: Vec<Auth> = arns.iter().map(|arn| auth(arn)).collect();
    let (credentials, problems) =
        Credentials::load(&all, settings(&moto.endpoint()).await).await.unwrap();
    assert_eq!(problems, []);
    assert!(names.iter().all(|name| password(&credentials, name) == *name));
}

/// Runs itself in a process with another environment, since one's own cannot be changed safely.
#[test]
fn endpoint_region_and_credentials_come_from_the_environment() {
    const TEST: &str = "endpoint_region_and_credentials_come_from_the_environment";
    const INSIDE: &str = "PGWEIR_TEST_INSIDE";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if std::env::var_os(INSIDE).is_some() {
        runtime.block_on(async {
            let settings = Settings { time_to_live: PATIENCE, overlap: PATIENCE, aws: None };
            let (credentials, _) = Credentials::load(&[auth("app")], settings).await.unwrap();
            assert_eq!(password(&credentials, "app"), "one");
        });
        return;
    }
    let moto = Moto::start();
    runtime.block_on(async {
        create(&administrator(&moto, "eu-central-1").await, "app", &json("app", "one")).await;
    });
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE, "1")
        .env("AWS_ENDPOINT_URL", moto.endpoint())
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "example")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

/// A service that gives the same answer to every request, with the endpoint to reach it.
async fn service_that_answers(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, status, body));
        }
    });
    endpoint
}

/// Answers one request, and closes. The small request is in the first segments, and its end of no interest.
async fn answer(mut stream: TcpStream, status: &str, body: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
}

async fn problem_with(endpoint: &str) -> SourceError {
    let Err(LoadError::NoneUsable { mut problems }) =
        Credentials::load(&[auth("app")], settings(endpoint).await).await
    else {
        panic!("loaded what the service refused");
    };
    assert_eq!(problems.len(), 1);
    problems.remove(0).error
}

#[tokio::test]
async fn a_refusal_says_which_permission_is_missing() {
    let endpoint = service_that_answers(
        "400 Bad Request",
        "{\"__type\":\"AccessDeniedException\",\"Message\":\"User: arn:aws:sts::1:assumed-role/task \
         is not authorized to perform: secretsmanager:GetSecretValue on resource: app\"}",
    );
    let error = problem_with(&endpoint.await).await;
    assert!(
        matches!(&error, SourceError::Denied { permission: "secretsmanager:GetSecretValue", .. }),
        "{error:?}"
    );
    let endpoint = service_that_answers(
        "400 Bad Request",
        r#"{"__type":"AccessDeniedException","Message":"Access to KMS is not allowed"}"#,
    );
    let error = problem_with(&endpoint.await).await;
    assert!(matches!(&error, SourceError::Denied { permission: "kms:Decrypt", .. }), "{error:?}");
}

#[tokio::test]
async fn answers_of_a_service_in_trouble_have_their_kinds() {
    let cases = [
        (
            "400 Bad Request",
            r#"{"__type":"ThrottlingException","message":"Rate exceeded"}"#,
            "throttled",
        ),
        ("429 Too Many Requests", "{}", "throttled"),
        ("500 Internal Server Error", r#"{"__type":"InternalServiceError"}"#, "unavailable"),
        ("503 Service Unavailable", "<html>", "unavailable"),
        (
            "400 Bad Request",
            r#"{"__type":"ExpiredTokenException","message":"expired"}"#,
            "identity",
        ),
        ("200 OK", r#"{"SecretString":"hunter2"#, "garbled"),
        ("200 OK", r#"{"SecretString":["hunter2"]}"#, "garbled"),
        ("200 OK", r#"{"SecretString":""}"#, "content"),
        ("200 OK", "{}", "content"),
    ];
    for (status, body, label) in cases {
        let error = problem_with(&service_that_answers(status, body).await).await;
        assert_eq!(error.as_label(), label, "{status} {body}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

/// Paused time runs ahead while nothing else happens, so the timeouts take no time.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let start = tokio::time::Instant::now();
    assert_eq!(problem_with(&endpoint).await, SourceError::TimedOut);
    assert!(start.elapsed() <= Duration::from_secs(15), "{:?}", start.elapsed());
}
