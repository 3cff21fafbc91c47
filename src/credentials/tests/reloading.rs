//! Another list of sources, as after SIGHUP.

use tokio::time::timeout;

use super::*;

#[tokio::test(start_paused = true)]
async fn sources_come_and_go_and_those_that_stay_keep_their_credential() {
    let (service, auth) = Service::with_users(3);
    let credentials = load_and_run(&service, &auth[..2]).await;
    let stays = credentials.lookup("u1").unwrap();
    let changes = credentials.changes();
    let problems = credentials.reload(&auth[1..]).await.unwrap();
    assert_eq!(problems, []);
    assert!(credentials.lookup("u0").is_none());
    assert!(Arc::ptr_eq(&stays, &credentials.lookup("u1").unwrap()));
    assert!(credentials.lookup("u2").is_some());
    assert!(changes.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_new_source_is_refreshed_and_a_removed_one_is_not() {
    let (service, auth) = Service::with_users(2);
    let credentials = load_and_run(&service, &auth[..1]).await;
    credentials.reload(&auth[1..]).await.unwrap();
    sleep(TIME_TO_LIVE * 5).await;
    assert_eq!(service.asked_for("u0").len(), 1);
    assert!(service.asked_for("u1").len() >= 4);
}

#[tokio::test(start_paused = true)]
async fn sources_that_stay_are_read_again_soon() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    service.holds("u0", "u0", "rotated");
    credentials.reload(&auth).await.unwrap();
    let mut changes = credentials.changes();
    timeout(Duration::from_secs(3), changes.changed()).await.unwrap().unwrap();
    assert_eq!(password(&credentials, "u0"), "rotated");
}

#[tokio::test(start_paused = true)]
async fn another_auth_type_takes_effect_even_while_the_source_is_away() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    service.answers("u0", Err(away()));
    let auth_type = ClientPasswordAuthType::Md5;
    let auth = [Auth { client_password_auth_type: auth_type, ..auth[0].clone() }];
    let problems = credentials.reload(&auth).await.unwrap();
    assert_eq!(problems.len(), 1);
    assert!(!problems[0].user_disabled);
    assert_eq!(credentials.lookup("u0").unwrap().client_password_auth_type, auth_type);
    assert_eq!(credentials.mock_auth_type(), auth_type);
}

#[tokio::test(start_paused = true)]
async fn another_auth_type_leaves_all_passwords_in_force() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    service.holds("u0", "u0", "rotated");
    credentials.refresh_now("u0").await;
    let auth_type = ClientPasswordAuthType::Md5;
    let auth = [Auth { client_password_auth_type: auth_type, ..auth[0].clone() }];
    credentials.reload(&auth).await.unwrap();
    let accepted = credentials.accepted("u0");
    let passwords: Vec<_> = accepted.iter().map(|known| known.password.expose()).collect();
    assert_eq!(passwords, ["rotated", "secret"]);
    assert!(accepted.iter().all(|known| known.client_password_auth_type == auth_type));
}

#[tokio::test(start_paused = true)]
async fn a_list_with_which_nobody_could_log_in_is_refused() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    let refused = credentials.reload(&[super::auth("none")]).await;
    assert!(matches!(refused, Err(LoadError::NoneUsable { .. })));
    assert!(credentials.lookup("u0").is_some());
    assert_eq!(credentials.status()[0].origin, "u0");
}

#[tokio::test(start_paused = true)]
async fn the_second_source_of_a_user_takes_over_when_the_first_is_removed() {
    let service = Service::new();
    service.holds("a", "app", "first");
    service.holds("b", "app", "second");
    let both = [auth("a"), auth("b")];
    let credentials = load_and_run(&service, &both).await;
    assert_eq!(password(&credentials, "app"), "first");
    assert_eq!(credentials.reload(&both[1..]).await.unwrap(), []);
    assert_eq!(password(&credentials, "app"), "second");
}

#[tokio::test(start_paused = true)]
async fn the_same_entry_twice_stays_one_user_and_one_problem() {
    let (service, auth) = Service::with_users(1);
    let twice = [auth[0].clone(), auth[0].clone()];
    let (credentials, problems) = load(&service, &twice).await.unwrap();
    assert_eq!(problems.len(), 1);
    assert_eq!(credentials.reload(&twice).await.unwrap().len(), 1);
    let usable: Vec<bool> = credentials.status().iter().map(|status| status.usable).collect();
    assert_eq!(usable, [true, false]);
    assert_eq!(credentials.reload(&auth).await.unwrap(), []);
}
