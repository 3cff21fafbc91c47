//! Transcripts with errors.

use super::*;

#[test]
fn an_error_that_nobody_asked_for_leaves_the_server_unsettled_until_the_next_sync() {
    let mut player = Player::default();
    player.step("B ErrorResponse").expect("an error");
    assert!(player.pipeline.is_skipping() && !player.pipeline.is_settled());
    player.step("F Sync").expect("a message");
    player.step("B ReadyForQuery I").expect("the end");
    assert!(player.pipeline.is_settled());
    assert_eq!(player.seen(), "ErrorResponse ReadyForQuery");
    // One that comes for what was answered in the server's place is behind it.
    player.step("F Parse").expect("a message");
    player.step("B ParseComplete").expect("its answer");
    player.step("B ErrorResponse").expect("an error");
    player.step("F Bind").expect("a message");
    assert!(!player.pipeline.is_settled());
}

#[test]
fn an_error_skips_the_rest_of_its_batch_wherever_it_comes() {
    let batch = ["Parse", "Bind", "Describe", "Execute"];
    let replies = ["ParseComplete", "BindComplete", "NoData", "CommandComplete"];
    for at in 0..batch.len() {
        let mut script: Vec<String> = batch.iter().map(|name| format!("F {name}")).collect();
        script.push("F Sync".into());
        script.extend(replies[..at].iter().map(|name| format!("B {name}")));
        script.push("B ErrorResponse".into());
        script.push("B ReadyForQuery I".into());
        let mut seen = replies[..at].to_vec();
        seen.extend(["ErrorResponse", "ReadyForQuery"]);
        settles(&script.join(", "), &seen.join(" "));
    }
}

#[test]
fn an_error_at_the_sync_itself_is_followed_by_its_ready_for_query() {
    // A deferred constraint fails when the implicit transaction commits.
    settles(
        "F Bind, F Execute, F Sync, B BindComplete, B CommandComplete, B ErrorResponse, \
         B ReadyForQuery I",
        "BindComplete CommandComplete ErrorResponse ReadyForQuery",
    );
}

#[test]
fn an_error_before_the_sync_was_sent_skips_until_it_is() {
    let player = play("F Parse, F Bind, B ErrorResponse");
    assert!(player.pipeline.is_skipping());
    assert!(!player.pipeline.is_settled() && !player.pipeline.is_answered());
    settles(
        "F Parse, F Bind, B ErrorResponse, F Sync, B ReadyForQuery I",
        "ErrorResponse ReadyForQuery",
    );
}

#[test]
fn an_error_in_one_batch_leaves_the_batches_behind_it_alone() {
    settles(
        "F Parse, F Bind, F Execute, F Sync, F Query, F Bind, F Execute, F Sync, \
         B ErrorResponse, B ReadyForQuery I, B CommandComplete, B ReadyForQuery I, \
         B BindComplete, B CommandComplete, B ReadyForQuery I",
        "ErrorResponse ReadyForQuery CommandComplete ReadyForQuery BindComplete \
         CommandComplete ReadyForQuery",
    );
    settles(
        "F Query, F Query, F Query, B CommandComplete, B ReadyForQuery I, B ErrorResponse, \
         B ReadyForQuery I, B CommandComplete, B ReadyForQuery I",
        "CommandComplete ReadyForQuery ErrorResponse ReadyForQuery CommandComplete ReadyForQuery",
    );
}

#[test]
fn an_error_of_a_query_takes_nothing_back() {
    let player = play("F Query, F Parse a, F Sync, B ErrorResponse, B ReadyForQuery I");
    assert!(player.undone.is_empty());
    assert!(!player.pipeline.is_answered());
}

#[test]
fn an_error_of_what_was_put_between_is_the_clients() {
    settles(
        "W Parse, F Bind, F Execute, F Sync, B ErrorResponse, B ReadyForQuery I",
        "ErrorResponse ReadyForQuery",
    );
}

#[test]
fn an_error_of_what_was_sent_ahead_is_a_surprise() {
    assert_eq!(surprise("A Parse, A Sync, F Query, B ErrorResponse"), Surprise::Prelude);
    assert_eq!(surprise("A Sync, F Query, B ErrorResponse"), Surprise::Prelude);
}
