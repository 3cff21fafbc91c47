//! IAM tokens: those that pgweir signs for the database, and those that clients bring along.
//!
//! There is no IAM here, so a database stands in that is told which token is good: PostgreSQL with a
//! role whose password is the token, or a scripted server that takes any.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod support;

use pgweir::auth::rds_token::{SigningKeys, TokenClaims, TokenRequest, sign};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use support::certificates::Authority;
use support::driver::{Endpoint, node, python};
use support::messages::{Message, backend};
use support::pgweir::{Pgweir, Setup};
use support::postgres::{CLEARTEXT_USER, DATABASE, OTHER_USER, PgVersion, Postgres, USER};
use support::raw::RawClient;
use support::scripted::{First, ScriptedServer, mentions};
use support::{eventually, repository, run, tools_dir};

const REGION: &str = "eu-central-1";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token as a client of that name would sign it.
fn token_of(client: &str, port: u16, user: &str, signed_at: u64) -> String {
    let keys = SigningKeys {
        access_key_id: "AKIDEXAMPLE",
        secret_access_key: client,
        session_token: Some("session/token+of=the/role"),
    };
    let request = TokenRequest { host: "127.0.0.1", port, user, region: REGION };
    sign(&request, &keys, signed_at).to_string()
}

/// A login over TLS; the refusal if it fails.
fn log_in(
    pgweir: &Pgweir,
    authority: &Authority,
    user: &str,
    token: &str,
) -> Result<RawClient, Message> {
    let mut client = RawClient::connect_tls(pgweir.port(), authority);
    client.try_log_in(user, token, &[("database", DATABASE)]).map(|()| client)
}

fn with_iam(setup: Setup, authority: &Authority) -> Setup {
    authority.write_into(setup.dir());
    setup
        .tls(&authority.sign_loopback())
        .target("tls = \"verify-full\"")
        .target("tls_ca = \"ca.pem\"")
        .target("max_connections = 3")
}

#[test]
fn a_client_s_token_is_proven_by_the_database_and_then_good_until_it_expires() {
    let postgres = Postgres::start(PgVersion::Installed);
    let (port, authority) = (postgres.port(), postgres.authority());
    let token = token_of("lambda", port, CLEARTEXT_USER, now());
    let mut superuser = postgres.superuser();
    superuser.execute(&format!("ALTER ROLE {CLEARTEXT_USER} PASSWORD '{token}'"));
    // The role of pgweir may not log in itself: nothing but the client's token can have opened the server.
    let entry = format!("username = \"{CLEARTEXT_USER}\"\niam_auth = \"REQUIRED\"");
    let pgweir = with_role(with_iam(Setup::before_port(port).entry(&entry), authority)).start();

    let mut client = log_in(&pgweir, authority, CLEARTEXT_USER, &token).ok().unwrap();
    assert_eq!(client.value("SELECT current_user"), CLEARTEXT_USER);
    superuser.execute(&format!("ALTER ROLE {CLEARTEXT_USER} PASSWORD 'another'"));
    let mut again = log_in(&pgweir, authority, CLEARTEXT_USER, &token).ok().unwrap();
    assert_eq!(again.value("SELECT 1"), "1", "the token is known, the server is there");

    // As good in form, and not what the database takes.
    for (signer, target, user, signed_at, detail) in [
        ("stranger", port, CLEARTEXT_USER, now(), ""),
        ("lambda", port + 1, CLEARTEXT_USER, now(), "another endpoint"),
        ("lambda", port, USER, now(), "another database user"),
        ("lambda", port, CLEARTEXT_USER, now() - 900, "expired"),
        ("lambda", port, CLEARTEXT_USER, now() + 3600, "future"),
    ] {
        let bad = token_of(signer, target, user, signed_at);
        let refusal = log_in(&pgweir, authority, CLEARTEXT_USER, &bad).err().unwrap();
        assert_eq!(refusal.field('C'), "28P01");
        let text = format!("IAM authentication failed for user {CLEARTEXT_USER}.");
        assert!(refusal.field('M').starts_with(&text), "{}", refusal.field('M'));
        assert!(detail.is_empty() || refusal.field('D').contains(detail), "{detail}");
    }
    let refusal = log_in(&pgweir, authority, CLEARTEXT_USER, "a password").err().unwrap();
    assert_eq!(refusal.field('C'), "28P01");

    let mut plain = RawClient::connect(pgweir.port());
    let refusal = plain.try_log_in(CLEARTEXT_USER, &token, &[("database", DATABASE)]).unwrap_err();
    assert_eq!(refusal.field('C'), "28000");
    assert_eq!(refusal.field('M'), "IAM authentication is allowed only with SSL connections.");
    let log = pgweir.log();
    assert!(!log.contains("X-Amz-Signature") && !log.contains(&token), "a token is in the log");
}

/// RDS, as far as IAM goes: it takes the tokens of `lambda` and of `role`, and nothing else of anybody.
struct Rds {
    server: ScriptedServer,
    shown: Arc<Mutex<Vec<String>>>,
}

/// What a client says to have its server closed.
const CLOSE: &str = "SELECT 'close'";

impl Rds {
    fn start(authority: &Authority) -> Self {
        let shown: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = shown.clone();
        let server = ScriptedServer::start_tls(&authority.sign_loopback(), move |server| {
            let First::Startup(parameters) = server.read_first()? else { return Ok(()) };
            server.send(&backend::authentication_cleartext())?;
            let password = server.read_message()?.strings().remove(0);
            seen.lock().unwrap().push(password.clone());
            if !is_genuine(&password, &parameters) {
                let text = "PAM authentication failed for user";
                return server.send(&backend::error("FATAL", "28000", text));
            }
            if !parameters.contains(&format!("database={DATABASE}")) {
                return server.send(&backend::error("FATAL", "3D000", "database does not exist"));
            }
            server.send(&server.welcome())?;
            let close = server.behave_until(|message| mentions(message, CLOSE))?;
            server.answer(&close)
        });
        Self { server, shown }
    }

    fn port(&self) -> u16 {
        self.server.port()
    }

    /// Every password that it was shown so far.
    fn shown(&self) -> Vec<String> {
        self.shown.lock().unwrap().clone()
    }
}

fn is_genuine(password: &str, parameters: &[String]) -> bool {
    let Ok(claims) = TokenClaims::read(password.as_bytes()) else { return false };
    parameters.contains(&format!("user={}", claims.user))
        && ["lambda", "role"].iter().any(|client| is_of(client, password))
}

fn is_of(client: &str, token: &str) -> bool {
    let claims = TokenClaims::read(token.as_bytes()).unwrap();
    let port = claims.endpoint.rsplit(':').next().unwrap().parse().unwrap();
    parts(&token_of(client, port, &claims.user, claims.signed_at)) == parts(token)
}

/// The credentials that pgweir signs its own tokens with.
fn with_role(setup: Setup) -> Setup {
    setup
        .environment("AWS_REGION", REGION)
        .environment("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .environment("AWS_SECRET_ACCESS_KEY", "role")
        .environment("AWS_SESSION_TOKEN", "session/token+of=the/role")
        .environment("AWS_EC2_METADATA_DISABLED", "true")
}

/// The handlers for Lambda, with the role of their function: AWS' own libraries sign for the database's endpoint.
#[test]
fn a_handler_logs_in_with_the_token_of_its_role() {
    let authority = Authority::new();
    let scripts = repository().join("tests/lambda");
    let handlers = [python(&scripts.join("connect.py")), node(&scripts.join("connect.cjs"))];
    for mut handler in handlers.into_iter().flatten() {
        let rds = Rds::start(&authority);
        let pgweir = before(&rds, &authority, &[USER]);
        let endpoint = Endpoint::tls(pgweir.port(), &authority);
        endpoint.describe_to_lambda(&mut handler);
        handler
            .env_remove("DB_PASSWORD")
            .env("DB_USER", USER)
            .env("DB_IAM", "true")
            .env("DB_IAM_HOST", "127.0.0.1")
            .env("DB_IAM_PORT", rds.port().to_string())
            .env("AWS_REGION", REGION)
            .env("AWS_DEFAULT_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "lambda")
            .env("AWS_SESSION_TOKEN", "session/token+of=the/role");
        assert_eq!(run(&mut handler), "connected\n");
        let of_handler = rds.shown().into_iter().filter(|shown| is_of("lambda", shown)).count();
        assert_eq!(of_handler, 1, "the database is asked about a token once");
    }
}

/// A user who has `rds_iam` cannot log in by a password any more, so what the secret holds is of no use there.
#[test]
fn servers_of_clients_with_tokens_are_opened_with_tokens() {
    let authority = Authority::new();
    let rds = Rds::start(&authority);
    let setup = Setup::before_port(rds.port());
    let secret = serde_json::json!({ "username": USER, "password": "not for RDS" });
    std::fs::write(setup.dir().join("app.json"), secret.to_string()).unwrap();
    let setup = setup.entry("secret_file = \"app.json\"\niam_auth = \"REQUIRED\"");
    let pgweir = with_role(with_iam(setup, &authority)).start();
    let token = token_of("lambda", rds.port(), USER, now());
    let mut client = log_in(&pgweir, &authority, USER, &token).ok().unwrap();
    // That was the server which has proven the token; the next one is pgweir's own.
    client.query(CLOSE);
    client.query("SELECT 1");

    let shown = rds.shown();
    assert!(shown.contains(&token), "the database was not asked about the client's token");
    let own: Vec<&String> = shown.iter().filter(|shown| **shown != token).collect();
    assert!(!own.is_empty(), "pgweir did not log in by itself");
    for own in own {
        let claims = TokenClaims::read(own.as_bytes()).expect("a token, not a password");
        assert_eq!(*own, token_of("role", rds.port(), USER, claims.signed_at));
    }
}

/// In front of `rds`, for users who have `rds_iam`.
fn before(rds: &Rds, authority: &Authority, users: &[&str]) -> Pgweir {
    let setup = users.iter().fold(Setup::before_port(rds.port()), |setup, user| {
        setup.entry(&format!("username = \"{user}\"\niam_auth = \"REQUIRED\""))
    });
    with_role(with_iam(setup, authority)).start()
}

/// Anybody can name databases and make up tokens, so nothing is kept of that; nor does a refusal tell who exists.
#[test]
fn wrong_tokens_leave_nothing_and_are_told_the_same_as_those_of_nobody() {
    let authority = Authority::new();
    let rds = Rds::start(&authority);
    let pgweir = before(&rds, &authority, &[USER]);
    let refusals: Vec<Message> = std::thread::scope(|scope| {
        let logins = [(USER, "made-up-0"), (USER, "made-up-1"), ("nobody", DATABASE)];
        let logins = logins.map(|(user, database)| {
            let token = token_of("stranger", rds.port(), user, now());
            let (pgweir, authority) = (&pgweir, &authority);
            scope.spawn(move || {
                let mut client = RawClient::connect_tls(pgweir.port(), authority);
                client.try_log_in(user, &token, &[("database", database)]).unwrap_err()
            })
        });
        logins.map(|login| login.join().unwrap()).into()
    });
    assert!(!pgweir.http_get("/metrics").unwrap().contains("made-up"), "a stranger made a pool");
    let text = |refusal: &Message| {
        let text = ['C', 'M', 'D', 'H'].map(|field| refusal.field(field)).join("|");
        text.replace("nobody", USER)
    };
    assert!(refusals.iter().all(|refusal| text(refusal) == text(&refusals[0])));
    assert_eq!(refusals[0].field('C'), "28P01");
    assert_eq!(rds.shown().iter().filter(|shown| is_of("stranger", shown)).count(), 2);

    let token = token_of("lambda", rds.port(), USER, now());
    log_in(&pgweir, &authority, USER, &token).ok().unwrap();
    let counted = |name: &str| format!("{}", pgweir.metric(&format!("pgweir_database_{name}"), ""));
    assert_eq!(counted("connection_requests_total"), "3");
    assert_eq!(counted("connections_setup_succeeded_total"), "1");
    assert_eq!(counted("connections_setup_failed_total"), "2");
}

/// Whoever has shown a token waits for the next server, and not for one that nobody needs.
#[test]
fn a_token_is_proven_where_all_servers_are_always_in_use() {
    let authority = Authority::new();
    let rds = Rds::start(&authority);
    let setup = Setup::before_port(rds.port())
        .entry(&format!("username = \"{USER}\"\niam_auth = \"REQUIRED\""))
        .target("max_connections = 2");
    let pgweir = with_role(with_iam(setup, &authority)).start();
    let token = token_of("lambda", rds.port(), USER, now());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut client = log_in(&pgweir, &authority, USER, &token).ok().unwrap();
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Acquire) {
                    client.query("SELECT 1");
                }
            });
        }
        let other = token_of("lambda", rds.port(), USER, now() - 60);
        let outcome = log_in(&pgweir, &authority, USER, &other);
        done.store(true, Ordering::Release);
        assert!(outcome.is_ok(), "{:?}", outcome.err().map(|refusal| refusal.field('M')));
    });
}

#[test]
fn a_proven_token_lets_nobody_in_who_is_gone() {
    let authority = Authority::new();
    let rds = Rds::start(&authority);
    let pgweir = before(&rds, &authority, &[OTHER_USER, USER]);
    let token = token_of("lambda", rds.port(), USER, now());
    log_in(&pgweir, &authority, USER, &token).ok().unwrap();
    let file = pgweir.dir().join("pgweir.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let entry = format!("[[proxy.auth]]\nusername = \"{USER}\"\niam_auth = \"REQUIRED\"\n");
    assert!(text.contains(&entry));
    std::fs::write(&file, text.replace(&entry, "")).unwrap();
    pgweir.signal("HUP");
    eventually("it reloads", || pgweir.log().contains("configuration reloaded"));
    let refusal = log_in(&pgweir, &authority, USER, &token).err().unwrap();
    assert_eq!(refusal.field('C'), "28P01");
}

/// As in `pg_hba.conf`: `trust`. Then it has not looked at the token.
#[test]
fn a_target_that_asks_for_no_password_proves_no_token() {
    let authority = Authority::new();
    let target = ScriptedServer::start_tls(&authority.sign_loopback(), |server| {
        server.accept_login()?;
        server.behave()
    });
    let setup = Setup::before_port(target.port())
        .entry(&format!("username = \"{USER}\"\niam_auth = \"REQUIRED\""));
    let pgweir = with_role(with_iam(setup, &authority)).start();
    let token = token_of("stranger", target.port(), USER, now());
    assert!(log_in(&pgweir, &authority, USER, &token).is_err());
}

/// The same parameters, in whatever order.
fn parts(token: &str) -> (String, Vec<String>) {
    let (endpoint, query) = token.split_once("/?").unwrap();
    let mut parameters: Vec<String> = query.split('&').map(str::to_owned).collect();
    parameters.sort();
    (endpoint.to_owned(), parameters)
}

#[test]
fn a_token_is_the_one_that_botocore_would_generate() {
    const SCRIPT: &str = "
import sys, botocore.session
host, user, region, key, secret, token = sys.argv[1:]
session = botocore.session.Session()
session.set_credentials(key, secret, token or None)
client = session.create_client('rds', region_name=region)
print(client.generate_db_auth_token(DBHostname=host, Port=5432, DBUsername=user, Region=region))
";
    let host = "db.abc123.eu-central-1.rds.amazonaws.com";
    for (user, session_token) in [("app", ""), ("app user/ü+&=~", ""), ("app", "tok/en+=")] {
        let (key, secret) = ("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let arguments = [host, user, REGION, key, secret, session_token];
        let python = tools_dir().join("venv/bin/python");
        let theirs = run(Command::new(python).args(["-c", SCRIPT]).args(arguments));
        let theirs = theirs.trim();
        let claims = TokenClaims::read(theirs.as_bytes()).unwrap();
        assert_eq!(claims.user, user);
        let keys = SigningKeys {
            access_key_id: key,
            secret_access_key: secret,
            session_token: (!session_token.is_empty()).then_some(session_token),
        };
        let request = TokenRequest { host, port: 5432, user, region: REGION };
        let ours = sign(&request, &keys, claims.signed_at);
        assert_eq!(parts(&ours), parts(theirs), "{user}");
    }
}
