//! Rotation: which passwords are accepted, and what is tried when the target refuses one.

use super::*;

fn accepted(credentials: &Credentials, username: &str) -> Vec<String> {
    let accepted = credentials.accepted(username);
    accepted.iter().map(|credential| credential.password.expose().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_version_before_is_accepted_also_by_a_process_that_has_not_seen_it_in_force() {
    let (service, auth) = Service::with_users(1);
    service.holds("u0/Previous", "u0", "before");
    *service.created.lock() = Some(SystemTime::now());
    let (credentials, _) = load(&service, &auth).await.unwrap();
    assert_eq!(accepted(&credentials, "u0"), ["secret", "before"]);
    assert_eq!(password(&credentials, "u0"), "secret", "servers are opened with the current one");
    sleep(OVERLAP + Duration::from_secs(1)).await;
    assert_eq!(accepted(&credentials, "u0"), ["secret"]);
}

#[tokio::test(start_paused = true)]
async fn a_version_before_that_could_not_be_read_is_made_up_for() {
    for (previous, until_next) in [(None, TIME_TO_LIVE * 2), (Some("app_clone"), OVERLAP * 2)] {
        let service = Service::new();
        service.holds("a", "app", "one");
        service.answers("a/Previous", Err(away()));
        *service.created.lock() = Some(SystemTime::now());
        let credentials = load_and_run(&service, &[auth("a")]).await;
        assert_eq!(accepted(&credentials, "app"), ["one"]);
        let user = previous.unwrap_or("app");
        service.holds("a/Previous", user, "before");
        sleep(until_next).await;
        assert!(accepted(&credentials, user).contains(&"before".to_owned()), "{user}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_given_another_user_does_not_keep_the_old_one() {
    let service = Service::new();
    service.holds("a", "app", "one");
    let credentials = load_and_run(&service, &[auth("a")]).await;
    service.holds("a", "other", "two");
    sleep(TIME_TO_LIVE * 2).await;
    assert_eq!(accepted(&credentials, "other"), ["two"]);
    assert_eq!(
        accepted(&credentials, "app"),
        ["one"],
        "that may be clients who have read it before"
    );
    assert_eq!(credentials.usernames(), ["app", "other"]);
    sleep(OVERLAP).await;
    assert!(accepted(&credentials, "app").is_empty());
    assert!(credentials.lookup("app").is_none());
    assert_eq!(credentials.usernames(), ["other"]);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_long_ago_has_no_overlap() {
    let (service, auth) = Service::with_users(1);
    service.holds("u0/Previous", "u0", "before");
    *service.created.lock() = Some(SystemTime::now() - OVERLAP * 2);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    assert_eq!(accepted(&credentials, "u0"), ["secret"]);
}

#[tokio::test(start_paused = true)]
async fn both_of_two_alternating_users_are_known_from_the_start() {
    let service = Service::new();
    service.holds("a", "app", "one");
    service.holds("a/Previous", "app_clone", "two");
    *service.created.lock() = Some(SystemTime::now() - OVERLAP * 1000);
    let (credentials, _) = load(&service, &[auth("a")]).await.unwrap();
    assert_eq!(accepted(&credentials, "app"), ["one"]);
    assert_eq!(accepted(&credentials, "app_clone"), ["two"]);
    assert_eq!(credentials.usernames(), ["app", "app_clone"]);
}

#[tokio::test(start_paused = true)]
async fn a_user_with_a_secret_of_its_own_is_not_taken_for_the_other_one_of_two() {
    let service = Service::new();
    service.holds("a", "app", "one");
    service.holds("a/Previous", "other", "old");
    service.holds("b", "other", "own");
    let (credentials, problems) = load(&service, &[auth("a"), auth("b")]).await.unwrap();
    assert_eq!(problems, []);
    assert_eq!(accepted(&credentials, "other"), ["own"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_target_refuses_is_read_again_and_the_pending_version_is_tried() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    let refused = credentials.lookup("u0").unwrap();
    service.holds("u0/Pending", "u0", "coming");
    let others = credentials.alternatives(&refused).await;
    assert_eq!(others.len(), 1);
    assert_eq!(others[0].password.expose(), "coming");
    assert_eq!(accepted(&credentials, "u0"), ["secret"], "the target has not taken it yet");

    credentials.note_proven(&others[0]);
    assert_eq!(password(&credentials, "u0"), "coming");
    assert_eq!(accepted(&credentials, "u0"), ["coming", "secret"]);
    let generation = generation(&credentials, "u0");
    sleep(TIME_TO_LIVE * 2).await;
    assert_eq!(password(&credentials, "u0"), "coming", "reading the old one again changes nothing");

    service.holds("u0", "u0", "coming");
    sleep(TIME_TO_LIVE * 2).await;
    assert_eq!(super::generation(&credentials, "u0"), generation, "servers need not be replaced");
    assert_eq!(accepted(&credentials, "u0"), ["coming", "secret"]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_ahead_of_the_database_falls_back_to_the_one_before() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    let old = credentials.lookup("u0").unwrap();
    service.holds("u0", "u0", "not yet");
    let new = credentials.refresh_now("u0").await.unwrap();
    assert_eq!(new.password.expose(), "not yet");
    let others = credentials.alternatives(&new).await;
    assert!(others.len() == 1 && Arc::ptr_eq(&others[0], &old));
    credentials.note_proven(&old);
    assert!(Arc::ptr_eq(&credentials.lookup("u0").unwrap(), &old));
    // Now the database has caught up, and refuses the old one.
    let others = credentials.alternatives(&old).await;
    assert!(others.len() == 1 && Arc::ptr_eq(&others[0], &new));
}

#[tokio::test(start_paused = true)]
async fn the_second_of_two_users_is_looked_up_when_it_comes_for_the_first_time() {
    let service = Service::new();
    service.holds("a", "app", "one");
    let (credentials, _) = load(&service, &[auth("a")]).await.unwrap();
    service.holds("a", "app_clone", "two");
    assert!(credentials.refresh_now("app_clone").await.is_some());
    assert_eq!(accepted(&credentials, "app_clone"), ["two"]);
    assert_eq!(accepted(&credentials, "app"), ["one"]);
}

#[tokio::test(start_paused = true)]
async fn all_passwords_of_a_user_have_one_salt() {
    let (service, auth) = Service::with_users(1);
    service.holds("u0/Previous", "u0", "before");
    let (credentials, _) = load(&service, &auth).await.unwrap();
    let mock = credentials.mock_verifier("u0");
    let accepted = credentials.accepted("u0");
    assert_eq!(accepted.len(), 2);
    assert!(accepted.iter().all(|credential| credential.verifier.salt() == mock.salt()));
}
