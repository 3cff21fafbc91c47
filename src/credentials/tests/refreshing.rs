//! Reading again: in turn, after failures, and out of turn.

use tokio::time::{advance, timeout};

use super::*;

/// Lets paused time pass, and everything that is due in it happen.
async fn pass(time: Duration) {
    sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_is_read_again_when_its_time_to_live_is_over() {
    let (service, auth) = Service::with_users(1);
    let _credentials = load_and_run(&service, &auth).await;
    pass(TIME_TO_LIVE * 20).await;
    let asked = service.asked_for("u0");
    assert!((18..=23).contains(&asked.len()), "{} reads in 20 times to live", asked.len());
    let gaps: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // The timer's millisecond comes on top.
    let allowed = Duration::from_secs(270)..=Duration::from_millis(330_010);
    assert!(gaps.iter().all(|gap| allowed.contains(gap)), "{gaps:?}");
    assert!(gaps.windows(2).any(|pair| pair[0].abs_diff(pair[1]).as_secs() > 0), "no jitter");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_did_not_change_keeps_its_credential() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    let before = credentials.lookup("u0").unwrap();
    let changes = credentials.changes();
    // The same user and password in another text is the same secret.
    let text = r#"{"password":"secret","port":"5432","username":"u0"}"#;
    service.answers("u0", Ok(text.to_owned()));
    pass(TIME_TO_LIVE * 2).await;
    assert!(service.asked_for("u0").len() > 1);
    assert!(Arc::ptr_eq(&before, &credentials.lookup("u0").unwrap()));
    assert!(!changes.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_changed_secret_takes_effect_and_is_announced() {
    let (service, auth) = Service::with_users(2);
    let credentials = load_and_run(&service, &auth).await;
    let (first, other) = (generation(&credentials, "u0"), generation(&credentials, "u1"));
    let mut changes = credentials.changes();
    let revision = *changes.borrow_and_update();
    service.holds("u0", "u0", "rotated");
    timeout(TIME_TO_LIVE * 2, changes.changed()).await.unwrap().unwrap();
    assert!(*changes.borrow() > revision);
    assert_eq!(password(&credentials, "u0"), "rotated");
    assert!(generation(&credentials, "u0") > first.max(other));
    assert_eq!(generation(&credentials, "u1"), other);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_may_change_the_user() {
    let service = Service::new();
    service.holds("a", "app", "one");
    let credentials = load_and_run(&service, &[auth("a")]).await;
    let mut changes = credentials.changes();
    service.holds("a", "app_clone", "two");
    changes.changed().await.unwrap();
    assert_eq!(password(&credentials, "app_clone"), "two");
    assert_eq!(password(&credentials, "app"), "one", "the database knows both users");
}

#[tokio::test(start_paused = true)]
async fn the_old_value_stays_while_the_source_is_away_and_heals_afterwards() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    let before = credentials.lookup("u0").unwrap();
    for error in [away(), SourceError::TimedOut, SourceError::NotFound] {
        service.answers("u0", Err(error.clone()));
        pass(Duration::from_secs(3600)).await;
        assert!(Arc::ptr_eq(&before, &credentials.lookup("u0").unwrap()));
        let status = credentials.status();
        assert!(status[0].usable);
        assert_eq!(status[0].last_error, Some(error));
        assert!(status[0].failures > 1);
    }
    service.holds("u0", "u0", "rotated meanwhile");
    let mut changes = credentials.changes();
    timeout(Duration::from_secs(61), changes.changed()).await.unwrap().unwrap();
    assert_eq!(password(&credentials, "u0"), "rotated meanwhile");
    let status = credentials.status();
    assert_eq!((status[0].last_error.clone(), status[0].failures), (None, 0));
    assert!(status[0].last_success.unwrap().elapsed() < Duration::from_secs(61));
}

#[tokio::test(start_paused = true)]
async fn a_user_whose_source_failed_at_the_start_is_there_once_it_is_repaired() {
    let (service, auth) = Service::with_users(2);
    service.answers("u1", Err(SourceError::NotFound));
    let credentials = load_and_run(&service, &auth).await;
    pass(Duration::from_secs(600)).await;
    assert!(credentials.lookup("u1").is_none());
    let mut changes = credentials.changes();
    service.holds("u1", "u1", "created");
    timeout(Duration::from_secs(61), changes.changed()).await.unwrap().unwrap();
    assert_eq!(password(&credentials, "u1"), "created");
}

#[tokio::test(start_paused = true)]
async fn failing_reads_back_off_to_once_a_minute() {
    let (service, auth) = Service::with_users(1);
    let _credentials = load_and_run(&service, &auth).await;
    service.answers("u0", Err(away()));
    pass(TIME_TO_LIVE + Duration::from_secs(3600)).await;
    let asked = service.asked_for("u0");
    // 30 to 60 seconds between two of them, and a few closer ones at first.
    assert!((60..=130).contains(&asked.len()), "{} reads in an hour", asked.len());
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_being_read_is_not_read_a_second_time() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    let source = Arc::clone(&credentials.sources()[0]);
    let somebody_reads_it = source.flight.lock().await;
    pass(TIME_TO_LIVE * 2).await;
    assert_eq!(service.asked_for("u0").len(), 1);
    drop(somebody_reads_it);
    pass(Duration::from_secs(1)).await;
    assert_eq!(service.asked_for("u0").len(), 2, "it is due, and nobody did it");
}

#[tokio::test(start_paused = true)]
async fn many_refused_logins_cause_one_read_also_when_it_finds_nothing_new() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    service.takes(Duration::from_millis(100));
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let credentials = Arc::clone(&credentials);
            tokio::spawn(async move { credentials.refresh_now("u0").await })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap().is_some());
    }
    assert_eq!(service.asked_for("u0").len(), 2, "at the start, and once for all");
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_that_meets_a_read_in_turn_takes_its_result() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    service.holds("u0", "u0", "rotated");
    service.takes(Duration::from_secs(5));
    while service.running.load(Ordering::SeqCst) == 0 {
        pass(Duration::from_secs(1)).await;
    }
    let seen = credentials.refresh_now("u0").await.unwrap();
    assert_eq!(seen.password.expose(), "rotated");
    assert_eq!(service.asked_for("u0").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_out_of_turn_is_tried_again_soon() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    // The source's task is asleep until its time to live is over.
    pass(Duration::from_secs(1)).await;
    service.answers("u0", Err(away()));
    credentials.refresh_now("u0").await;
    service.holds("u0", "u0", "rotated");
    let mut changes = credentials.changes();
    timeout(Duration::from_secs(2), changes.changed()).await.unwrap().unwrap();
    assert_eq!(password(&credentials, "u0"), "rotated");
}

#[tokio::test(start_paused = true)]
async fn a_refused_password_is_looked_up_at_once_by_one_read_for_all() {
    let (service, auth) = Service::with_users(1);
    let credentials = load_and_run(&service, &auth).await;
    service.holds("u0", "u0", "rotated");
    service.takes(Duration::from_millis(100));
    let (one, two, three) = tokio::join!(
        credentials.refresh_now("u0"),
        credentials.refresh_now("u0"),
        credentials.refresh_now("u0"),
    );
    for seen in [one, two, three] {
        assert_eq!(seen.unwrap().password.expose(), "rotated");
    }
    assert_eq!(service.asked_for("u0").len(), 2, "at the start, and once for the three");
}

#[tokio::test(start_paused = true)]
async fn reads_out_of_turn_are_a_second_apart_and_five_while_the_source_is_away() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    let refused = credentials.lookup("u0").unwrap();
    for _ in 0..10 {
        credentials.alternatives(&refused).await;
        advance(Duration::from_millis(1)).await;
    }
    let asked = service.asked_for("u0");
    assert_eq!(asked.len(), 11);
    assert!(gaps(&asked[1..]).iter().all(|gap| gap.as_secs() >= 1), "{asked:?}");
    service.answers("u0", Err(away()));
    for _ in 0..10 {
        credentials.alternatives(&refused).await;
        advance(Duration::from_millis(1)).await;
    }
    let asked = service.asked_for("u0");
    assert!(gaps(&asked[12..]).iter().all(|gap| gap.as_secs() >= 5), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn reads_for_wrong_passwords_of_clients_get_rarer_until_they_find_something() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    let flood = async |seconds: u32| {
        let before = service.asked_for("u0").len();
        for _ in 0..seconds * 10 {
            credentials.refresh_now("u0").await;
            advance(Duration::from_millis(100)).await;
        }
        service.asked_for("u0").split_off(before)
    };
    let asked = gaps(&flood(600).await);
    let seconds: Vec<u64> = asked.iter().map(Duration::as_secs).collect();
    assert!(seconds.starts_with(&[1, 1, 1, 1]), "{seconds:?}");
    assert!(seconds[10..].iter().all(|gap| *gap >= 29), "{seconds:?}");
    // The target's word is no client's: that is looked up at once.
    let refused = credentials.lookup("u0").unwrap();
    service.holds("u0", "u0", "rotated");
    credentials.alternatives(&refused).await;
    assert_eq!(password(&credentials, "u0"), "rotated");
    let asked = gaps(&flood(4).await);
    assert!(asked.iter().take(4).all(|gap| gap.as_secs() == 1), "{asked:?}");
}

fn gaps(asked: &[Instant]) -> Vec<Duration> {
    asked.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn callers_that_give_up_leave_no_read_behind() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    service.takes(Duration::from_secs(10));
    for _ in 0..100 {
        let call = timeout(Duration::from_millis(10), credentials.refresh_now("u0"));
        assert!(call.await.is_err());
    }
    pass(Duration::from_secs(600)).await;
    assert_eq!(service.asked_for("u0").len(), 2, "at the start, and once for all");
}

#[tokio::test(start_paused = true)]
async fn a_throttling_service_is_not_asked_out_of_turn() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    let throttled = SourceError::Throttled { code: "ThrottlingException".to_owned() };
    service.answers("u0", Err(throttled));
    let mut waits = Vec::new();
    for _ in 0..600 {
        let asked = service.asked_for("u0").len();
        credentials.refresh_now("u0").await;
        if service.asked_for("u0").len() > asked {
            waits.push(Instant::now());
        }
        advance(Duration::from_secs(1)).await;
    }
    let gaps: Vec<u64> = waits.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert!(gaps.len() > 5);
    assert!(gaps[5..].iter().all(|gap| *gap >= 30), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_does_not_end_its_read() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    service.holds("u0", "u0", "rotated");
    service.takes(Duration::from_secs(2));
    let mut changes = credentials.changes();
    let call = timeout(Duration::from_secs(1), credentials.refresh_now("u0"));
    assert!(call.await.is_err(), "the caller went away");
    timeout(Duration::from_secs(2), changes.changed()).await.unwrap().unwrap();
    assert_eq!(password(&credentials, "u0"), "rotated");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_user_causes_no_read() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    assert!(credentials.refresh_now("nobody").await.is_none());
    assert_eq!(service.asked.lock().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refreshing_ends_when_told_to() {
    let (service, auth) = Service::with_users(1);
    let (credentials, _) = load(&service, &auth).await.unwrap();
    let stop = sleep(Duration::from_secs(10));
    timeout(Duration::from_secs(11), Arc::clone(&credentials).run(stop)).await.unwrap();
    pass(TIME_TO_LIVE * 3).await;
    assert_eq!(service.asked_for("u0").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_one_read_does_not_end_refreshing() {
    let (service, auth) = Service::with_users(2);
    let credentials = load_and_run(&service, &auth).await;
    service.has_a_bug.store(true, Ordering::SeqCst);
    pass(TIME_TO_LIVE * 2).await;
    assert!(!service.has_a_bug.load(Ordering::SeqCst));
    for user in ["u0", "u1"] {
        service.holds(user, user, "rotated");
    }
    pass(TIME_TO_LIVE * 2).await;
    assert_eq!(password(&credentials, "u0"), "rotated");
    assert_eq!(password(&credentials, "u1"), "rotated");
}
