//! The first read of all sources, and what logins find afterwards.

use super::*;
use std::num::NonZeroU32;

use crate::auth::channel_binding::ServerBinding;
use crate::auth::md5::Md5Verifier;
use crate::auth::scram::{
    Nonce, RAW_NONCE_LEN, SCRAM_SHA_256, ScramKeys, ScramParameters, ScramVerifier,
};
use crate::auth::scram_client::ScramClient;
use crate::auth::scram_server::ScramServer;
use crate::auth::secret::Password;
use crate::credentials::Credential;

#[tokio::test(start_paused = true)]
async fn sources_are_read_in_parallel_but_eight_at_most() {
    let (service, auth) = Service::with_users(20);
    service.takes(Duration::from_secs(1));
    let start = Instant::now();
    let (credentials, problems) = load(&service, &auth).await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 3, "20 reads of one second, eight at a time");
    assert_eq!(service.running_max.load(Ordering::SeqCst), 8);
    assert_eq!(problems, []);
    assert!((0..20).all(|number| credentials.lookup(&format!("u{number}")).is_some()));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_be_read_disables_its_own_user_only() {
    let (service, auth) = Service::with_users(3);
    service.answers("u1", Err(SourceError::NotFound));
    let (credentials, problems) = load(&service, &auth).await.unwrap();
    assert!(credentials.lookup("u0").is_some());
    assert!(credentials.lookup("u1").is_none());
    assert!(credentials.lookup("u2").is_some());
    let expected = CredentialProblem {
        origin: "u1".to_owned(),
        error: SourceError::NotFound,
        user_disabled: true,
    };
    assert_eq!(problems, [expected]);
    let usable: Vec<bool> = credentials.status().iter().map(|status| status.usable).collect();
    assert_eq!(usable, [true, false, true]);
}

/// Members of a fleet know each other by the first: it stays who it is when others are added.
#[tokio::test(start_paused = true)]
async fn users_are_in_the_order_of_the_configuration() {
    let service = Service::new();
    for user in ["app", "another", "first"] {
        service.answers(user, Ok(json(user, "secret")));
    }
    let (credentials, _) =
        load(&service, &[auth("first"), auth("another"), auth("app")]).await.unwrap();
    assert_eq!(credentials.usernames(), ["first", "another", "app"]);
}

#[tokio::test(start_paused = true)]
async fn without_any_usable_secret_there_is_an_error_with_all_problems() {
    let service = Service::new();
    service.answers("b", Err(away()));
    let Err(LoadError::NoneUsable { problems }) = load(&service, &[auth("a"), auth("b")]).await
    else {
        panic!("loaded nothing without an error");
    };
    let origins: Vec<&str> = problems.iter().map(|problem| problem.origin.as_str()).collect();
    assert_eq!(origins, ["a", "b"]);
    assert!(problems[1].to_string().starts_with("b: Secrets Manager cannot be reached"));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_does_not_keep_the_others_from_starting() {
    let (service, auth) = Service::with_users(2);
    service.takes(Duration::from_secs(3600));
    let start = Instant::now();
    let Err(LoadError::NoneUsable { problems }) = load(&service, &auth).await else {
        panic!("loaded what never answered");
    };
    assert_eq!(start.elapsed(), Duration::from_secs(15));
    assert!(problems.iter().all(|problem| problem.error == SourceError::TimedOut));

    let (service, auth) = Service::with_users(100);
    service.takes(Duration::from_secs(10));
    let start = Instant::now();
    let (_, problems) = load(&service, &auth).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(60), "all reads would take 130 seconds");
    assert!((52..=60).contains(&problems.len()), "{} of 100 were not read", problems.len());
}

#[tokio::test(start_paused = true)]
async fn of_two_sources_for_a_user_the_first_is_used_and_the_second_is_a_problem() {
    let service = Service::new();
    service.holds("a", "app", "first");
    service.holds("b", "app", "second");
    let (credentials, problems) = load(&service, &[auth("a"), auth("b")]).await.unwrap();
    assert_eq!(password(&credentials, "app"), "first");
    let error = SourceError::DuplicateUser { username: "app".to_owned(), first: "a".to_owned() };
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].origin.as_str(), &problems[0].error), ("b", &error));
}

#[tokio::test(start_paused = true)]
async fn content_that_is_no_secret_is_reported_without_being_shown() {
    let (service, _) = Service::with_users(1);
    let contents =
        ["", "hunter2", "[\"hunter2\"]", "{\"password\": \"hunter2\"}", "{\"username\": \"hunter2"];
    for content in contents {
        service.answers("bad", Ok(content.to_owned()));
        let (_, problems) = load(&service, &[auth("u0"), auth("bad")]).await.unwrap();
        assert_eq!(problems.len(), 1, "{content}");
        assert_eq!(problems[0].error.as_label(), "content", "{content}");
        let shown = format!("{} {:?}", problems[0], problems[0]);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn debug_output_of_a_credential_shows_user_and_generation_only() {
    let service = Service::new();
    service.holds("a", "app", "hunter2");
    let (credentials, _) = load(&service, &[auth("a")]).await.unwrap();
    let credential = credentials.lookup("app").unwrap();
    assert_eq!(format!("{credential:?}"), "Credential { username: \"app\", generation: 1, .. }");
}

/// Whether a client that knows `password` gets in.
fn logs_in(verifier: &ScramVerifier, password: &str) -> bool {
    let nonce = Nonce::from_random(&[7; RAW_NONCE_LEN]);
    let (client, first) = ScramClient::start([SCRAM_SHA_256], None, &nonce).unwrap();
    let binding = ServerBinding::NoTls;
    let (server, challenge) =
        ScramServer::start(&binding, client.mechanism(), &first, verifier, &nonce).unwrap();
    let challenge = client.challenge(&challenge).unwrap();
    let password = Password::new(password.to_owned());
    let keys = ScramKeys::derive(&password, challenge.parameters());
    let (proof, last) = challenge.respond(&keys);
    server.finish(&last).is_ok_and(|last| proof.finish(&last).is_ok())
}

#[tokio::test(start_paused = true)]
async fn clients_log_in_with_the_password_of_the_secret_and_no_other() {
    let service = Service::new();
    service.holds("a", "app", "hunter2");
    let (credentials, _) = load(&service, &[auth("a")]).await.unwrap();
    let credential = credentials.lookup("app").unwrap();
    assert!(logs_in(&credential.verifier, "hunter2"));
    assert!(!logs_in(&credential.verifier, "hunter3"));
    let md5 = Md5Verifier::derive(&Password::new("hunter2".to_owned()), "app");
    assert!(credential.md5.stored() == md5.stored());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_user_looks_like_one_with_another_password() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    let (real, mock) =
        (&credentials.lookup("u0").unwrap().verifier, credentials.mock_verifier("nobody"));
    assert_eq!(mock.iterations(), real.iterations());
    assert_eq!(mock.salt(), credentials.mock_verifier("nobody").salt());
    assert_ne!(mock.salt(), credentials.mock_verifier("somebody").salt());
    assert!(!logs_in(&mock, "secret"));
    let salt_kept = credentials.mock_verifier("u0");
    assert_eq!(salt_kept.salt(), real.salt(), "a user who comes or goes keeps the salt");
    let (another_process, _) = load(&service, &auth).await.unwrap();
    assert_ne!(mock.salt(), another_process.mock_verifier("nobody").salt());
}

async fn keys(credential: &Arc<Credential>, salt: u8, iterations: u32) -> Arc<ScramKeys> {
    let iterations = NonZeroU32::new(iterations).unwrap();
    let parameters = ScramParameters { salt: Box::new([salt; 16]), iterations };
    credential.keys_for(&parameters).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn keys_towards_the_target_are_derived_once_for_a_salt_and_count() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    let credential = credentials.lookup("u0").unwrap();
    let (first, at_once) = tokio::join!(keys(&credential, 1, 4096), keys(&credential, 1, 4096));
    assert!(Arc::ptr_eq(&first, &at_once));
    assert!(!Arc::ptr_eq(&first, &keys(&credential, 1, 4097).await));
    assert!(!Arc::ptr_eq(&first, &keys(&credential, 2, 4096).await));
    assert!(Arc::ptr_eq(&first, &keys(&credential, 1, 4096).await));
}

#[tokio::test(start_paused = true)]
async fn a_target_accepts_a_login_with_the_keys() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    let credential = credentials.lookup("u0").unwrap();
    // The target's own verifier of the same password.
    let stored =
        ScramVerifier::derive(&credential.password, [3; 16], NonZeroU32::new(5000).unwrap());
    let nonce = Nonce::from_random(&[7; RAW_NONCE_LEN]);
    let (client, first) = ScramClient::start([SCRAM_SHA_256], None, &nonce).unwrap();
    let (server, challenge) =
        ScramServer::start(&ServerBinding::NoTls, SCRAM_SHA_256, &first, &stored, &nonce).unwrap();
    let challenge = client.challenge(&challenge).unwrap();
    let keys = credential.keys_for(challenge.parameters()).await.unwrap();
    let (proof, last) = challenge.respond(&keys);
    assert!(proof.finish(&server.finish(&last).unwrap()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_target_that_changes_its_salt_each_time_fills_no_memory() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    let credential = credentials.lookup("u0").unwrap();
    let first = Arc::downgrade(&keys(&credential, 0, 1).await);
    for salt in 1..=3 {
        keys(&credential, salt, 1).await;
    }
    assert!(first.upgrade().is_some(), "four sets are kept");
    keys(&credential, 4, 1).await;
    assert!(first.upgrade().is_none(), "the fifth replaces the oldest");
}
