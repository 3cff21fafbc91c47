//! Transcripts of copies: what the server reads as data, and which `Sync` it eats.

use super::*;
#[test]
fn a_copy_to_the_client_passes() {
    settles(
        "F Query, B CopyOutResponse, B CopyData, B CopyData, B CopyDone, B CommandComplete, \
         B ReadyForQuery I",
        "CopyOutResponse CopyData CopyData CopyDone CommandComplete ReadyForQuery",
    );
    settles(
        "F Bind, F Execute, F Sync, B BindComplete, B CopyOutResponse, B CopyData, \
         B ErrorResponse, B ReadyForQuery I",
        "BindComplete CopyOutResponse CopyData ErrorResponse ReadyForQuery",
    );
}

#[test]
fn a_copy_from_the_client_by_a_simple_query_ends_well_or_badly() {
    settles(
        "F Query, B CopyInResponse, F CopyData, F CopyDone, B CommandComplete, B ReadyForQuery I",
        "CopyInResponse CommandComplete ReadyForQuery",
    );
    let failed = "CopyInResponse ErrorResponse ReadyForQuery";
    settles("F Query, B CopyInResponse, F CopyFail, B ErrorResponse, B ReadyForQuery I", failed);
    // It fails while the client still sends.
    settles(
        "F Query, B CopyInResponse, F CopyData, B ErrorResponse, F CopyDone, B ReadyForQuery I",
        failed,
    );
    settles(
        "F Query, B CopyInResponse, B ErrorResponse, B ReadyForQuery I, F CopyData, F CopyDone",
        failed,
    );
}

#[test]
fn a_copy_of_which_the_server_reads_is_waited_for() {
    let player = play("F Query, B CopyInResponse");
    assert!(player.pipeline.waits_for_client());
    assert!(!player.pipeline.is_answered() && !player.pipeline.is_settled());
    assert!(!play("F Query, B CopyInResponse, F CopyDone").pipeline.waits_for_client());
}

#[test]
fn a_copy_sent_ahead_of_its_response_ends_where_it_was_ended() {
    settles(
        "F Query, F CopyData, F CopyDone, B CopyInResponse, B CommandComplete, B ReadyForQuery I",
        "CopyInResponse CommandComplete ReadyForQuery",
    );
    settles(
        "F Query, F CopyDone, F CopyDone, B CopyInResponse, B CommandComplete, \
         B CopyInResponse, B CommandComplete, B ReadyForQuery I",
        "CopyInResponse CommandComplete CopyInResponse CommandComplete ReadyForQuery",
    );
    // The command failed: what was meant for its copy is ignored.
    settles(
        "F Query, F CopyDone, B ErrorResponse, B ReadyForQuery I",
        "ErrorResponse ReadyForQuery",
    );
    settles(
        "F Query, F CopyDone, F Query, B ErrorResponse, B ReadyForQuery I, B CopyInResponse, \
         F CopyDone, B CommandComplete, B ReadyForQuery I",
        "ErrorResponse ReadyForQuery CopyInResponse CommandComplete ReadyForQuery",
    );
    settles(
        "F Bind, F Execute, F CopyDone, F Sync, B BindComplete, B CopyInResponse, \
         B CommandComplete, B ReadyForQuery I",
        "BindComplete CopyInResponse CommandComplete ReadyForQuery",
    );
    settles(
        "F Bind, F Execute, F CopyDone, F Sync, B ErrorResponse, B ReadyForQuery I",
        "ErrorResponse ReadyForQuery",
    );
}

#[test]
fn a_copy_eats_the_sync_that_libpq_sends_with_the_execute() {
    // The response comes before, between or after what ends the copy.
    for script in [
        "F Bind, F Execute, F Sync, B BindComplete, B CopyInResponse, F CopyData, F CopyDone, \
         F Sync, B CommandComplete, B ReadyForQuery I",
        "F Bind, F Execute, B BindComplete, B CopyInResponse, F Sync, F CopyData, F CopyDone, \
         F Sync, B CommandComplete, B ReadyForQuery I",
        "F Bind, F Execute, F Sync, F CopyDone, B BindComplete, B CopyInResponse, F Sync, \
         B CommandComplete, B ReadyForQuery I",
        "F Bind, F Execute, F Sync, F CopyDone, F Sync, B BindComplete, B CopyInResponse, \
         B CommandComplete, B ReadyForQuery I",
    ] {
        settles(script, "BindComplete CopyInResponse CommandComplete ReadyForQuery");
    }
}

#[test]
fn a_failed_copy_that_may_have_eaten_a_sync_taints_its_server() {
    let eaten = play(
        "F Bind, F Execute, F Sync, B BindComplete, B CopyInResponse, B ErrorResponse, \
         F CopyDone, F Sync, B ReadyForQuery I",
    );
    assert_eq!(eaten.seen(), "BindComplete CopyInResponse ErrorResponse ReadyForQuery");
    assert!(eaten.pipeline.is_tainted());
    assert!(!eaten.pipeline.is_settled() && !eaten.pipeline.is_answered());
    // It had not eaten it after all.
    settles(
        "F Bind, F Execute, F Sync, B BindComplete, B CopyInResponse, B ErrorResponse, \
         B ReadyForQuery I",
        "BindComplete CopyInResponse ErrorResponse ReadyForQuery",
    );
    settles(
        "F Bind, F Execute, F Sync, B BindComplete, B CopyInResponse, B ErrorResponse, F Sync, \
         B ReadyForQuery I, B ReadyForQuery I",
        "BindComplete CopyInResponse ErrorResponse ReadyForQuery ReadyForQuery",
    );
}

#[test]
fn a_failed_copy_without_a_sync_in_it_leaves_its_server_clean() {
    settles(
        "F Bind, F Execute, F Flush, B BindComplete, B CopyInResponse, F CopyData, \
         B ErrorResponse, F CopyDone, F Sync, B ReadyForQuery I",
        "BindComplete CopyInResponse ErrorResponse ReadyForQuery",
    );
}
