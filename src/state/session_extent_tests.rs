//! How a client's stream is cut: what is sent together, what is dropped, what is waited for.

use super::*;
use crate::state::test_support::{LIMITS, World, answer, client, frontend};

fn extent(words: &str) -> Extent {
    client(1).extent(&frontend(words), 1000, &LIMITS).expect("messages of a client")
}

#[test]
fn a_batch_goes_to_the_message_that_the_server_answers() {
    for words in [
        "Parse s=SELECT 1, Bind s, Execute, Sync",
        "Query SELECT 1",
        "Parse s=SELECT 1, Flush",
        "FunctionCall x",
        "CopyData x",
        "CopyDone",
    ] {
        let whole = frontend(words);
        assert_eq!(extent(words), Extent::Batch(whole.len()), "{words}");
        let behind = format!("{words}, Parse t=SELECT 2, Bind t");
        assert_eq!(extent(&behind), Extent::Batch(whole.len()), "{behind}");
        for cut in 0..whole.len() {
            // A piece of copy data may go at once, all else waits for its end.
            if words == "CopyData x" && cut >= crate::wire::HEADER_LEN {
                continue;
            }
            let end = client(1).extent(&whole[..cut], 1000, &LIMITS);
            assert_eq!(end, Ok(Extent::Incomplete), "{cut} bytes of {words}");
        }
    }
}

#[test]
fn a_batch_without_end_goes_in_pieces() {
    let words = "Parse s=SELECT 1, Bind s, Execute, ".repeat(30);
    let bytes = frontend(&words);
    assert!(bytes.len() > 1000);
    assert_eq!(extent(&words), Extent::Piece(bytes.len()));
    assert_eq!(client(1).extent(&bytes, 1 << 20, &LIMITS), Ok(Extent::Incomplete));
}

#[test]
fn a_good_bye_is_seen_at_the_front_only() {
    assert_eq!(extent("Terminate"), Extent::Terminate);
    assert_eq!(extent(""), Extent::Incomplete);
    let query = frontend("Query SELECT 1");
    let Extent::Batch(end) = extent("Query SELECT 1, Terminate") else { panic!("no batch") };
    assert!(end >= query.len());
}

#[test]
fn a_good_bye_behind_a_batch_ends_the_client_after_it() {
    let (mut world, mut client, mut server) = (World::default(), client(1), ServerSide::default());
    let query = frontend("Query SELECT 1");
    let both = [query.as_slice(), &frontend("Terminate")].concat();
    let (done, out) = world.translate(&mut client, &mut server, &both);
    assert!(!done.terminate);
    assert_eq!(done.consumed, query.len());
    assert_eq!(out, query);
    let (done, out) = world.translate(&mut client, &mut server, &both[query.len()..]);
    assert!(done.terminate && out.is_empty());
}

#[test]
fn requests_are_counted_by_protocol() {
    let (mut world, mut client, mut server) = (World::default(), client(1), ServerSide::default());
    let input = frontend(
        "FunctionCall x, Query SELECT 1, Parse s=SELECT 1, Bind s, Execute, Execute, Sync",
    );
    let (done, _) = world.translate(&mut client, &mut server, &input);
    assert_eq!(done.requests, Requests { simple: 2, extended: 2, prepared: 1 });
}

#[test]
fn a_refused_batch_is_skipped_to_its_end() {
    for batch in [
        "Parse s=SELECT 1, Bind s, Execute, Sync",
        "Query SELECT 1",
        "FunctionCall x",
        "Parse s=SELECT 1, Flush, Sync",
    ] {
        let bytes = frontend(batch);
        let input = [bytes.as_slice(), &frontend("Query SELECT 2")].concat();
        for cut in 0..bytes.len() {
            let mut client = client(1);
            let first = client.skip_batch(&input[..cut], &LIMITS).expect("messages");
            assert!(!first.1, "{cut} bytes of {batch} have no end");
            let second = client.skip_batch(&input[first.0..], &LIMITS).expect("messages");
            assert_eq!((first.0 + second.0, second.1), (bytes.len(), true), "{cut} of {batch}");
        }
    }
}

#[test]
fn a_refused_batch_of_large_messages_is_skipped_in_pieces() {
    let large = "x".repeat(3 << 20);
    for batch in [format!("Parse s={large}, Sync"), format!("Query {large}")] {
        let input = frontend(&batch);
        let mut client = client(1);
        let (mut held, mut ends) = (Vec::new(), 0);
        for piece in input.chunks(60_000) {
            held.extend_from_slice(piece);
            let late = client.discard_idle(&held, &LIMITS).expect("messages");
            held.drain(..late);
            let (used, end) = client.skip_batch(&held, &LIMITS).expect("messages");
            held.drain(..used);
            ends += u32::from(end);
            assert!(held.len() < 60_000);
        }
        assert_eq!(ends, 1);
        assert!(held.is_empty() && !client.is_streaming());
    }
}

#[test]
fn copy_messages_that_come_late_are_dropped() {
    let copy = frontend("CopyData one, CopyData two, CopyDone, CopyFail");
    let input = [copy.as_slice(), &frontend("Query SELECT 1")].concat();
    for cut in 0..=copy.len() {
        let mut client = client(1);
        let mut held = input[..cut].to_vec();
        let used = client.discard_idle(&held, &LIMITS).expect("messages");
        held.drain(..used);
        held.extend_from_slice(&input[cut..]);
        let used = client.discard_idle(&held, &LIMITS).expect("messages");
        assert_eq!(&held[used..], &frontend("Query SELECT 1"), "cut at {cut}");
    }
}

#[test]
fn the_rest_of_a_copy_message_that_was_begun_on_a_server_is_dropped_too() {
    let (mut world, mut client, mut server) = (World::default(), client(1), ServerSide::default());
    world.send(&mut client, &mut server, "Query COPY t FROM STDIN");
    answer(&mut client, &mut server, "CopyInResponse");
    let data = frontend("CopyData a line of data");
    let (done, out) = world.translate(&mut client, &mut server, &data[..10]);
    assert_eq!((done.consumed, out.as_slice()), (10, &data[..10]));
    // The copy fails, and the client, which does not know, has lost its server.
    answer(&mut client, &mut server, "ErrorResponse ReadyForQuery");
    assert!(server.pipeline.is_settled());
    let late = [&data[10..], &frontend("CopyDone, Query SELECT 1")].concat();
    let used = client.discard_idle(&late, &LIMITS).expect("messages");
    assert_eq!(&late[used..], &frontend("Query SELECT 1"));
    assert!(!client.is_streaming());
}

#[test]
fn a_flush_behind_an_answer_of_ours_makes_the_server_speak() {
    let (mut world, mut server) = (World::default(), ServerSide::default());
    let (mut one, mut two) = (client(1), client(2));
    let ready = "ParseComplete ReadyForQuery";
    world.batch(&mut one, &mut server, "Parse s=SELECT 1, Sync", ready);
    // Nothing of it needs the server, and yet the client waits.
    let sent = world.send(&mut two, &mut server, "Parse s=SELECT 1, Flush");
    assert_eq!(sent, "Close pgweir_, Flush");
    assert_eq!(answer(&mut two, &mut server, "CloseComplete"), "ParseComplete");
    assert_eq!(world.send(&mut two, &mut server, "Bind s, Flush"), "Bind pgweir_1, Flush");
}

#[test]
fn a_name_in_doubt_is_waited_for() {
    // In each, the second batch means another thing if the first one failed.
    for (first, second) in [
        ("Bind nothing, Close s, Sync", "Bind s, Sync"),
        ("Bind nothing, Parse t=SELECT 2, Sync", "Bind t, Sync"),
        ("Parse t=SELECT bad, Sync", "Parse t=SELECT 2, Sync"),
        ("Bind nothing, Parse =SELECT 2, Sync", "Bind, Sync"),
    ] {
        let (mut world, mut client, mut server) =
            (World::default(), client(1), ServerSide::default());
        let replies = "ParseComplete ParseComplete ReadyForQuery";
        world.batch(&mut client, &mut server, "Parse s=SELECT 1, Parse =SELECT 1, Sync", replies);
        world.send(&mut client, &mut server, first);
        let input = frontend(second);
        let (done, out) = world.translate(&mut client, &mut server, &input);
        assert_eq!((done.consumed, out.len()), (0, 0), "{first} then {second}");
        answer(&mut client, &mut server, "ErrorResponse ReadyForQuery");
        let (done, _) = world.translate(&mut client, &mut server, &input);
        assert_eq!(done.consumed, input.len(), "{first} then {second}");
    }
}

/// To the server, both names are one statement, which it was told to forget before the new one was refused.
#[test]
fn a_name_for_a_statement_that_is_parsed_again_by_another_name_is_in_doubt() {
    let (mut world, mut client, mut server) = (World::default(), client(1), ServerSide::default());
    let replies = "ParseComplete ErrorResponse ReadyInFailed";
    world.batch(&mut client, &mut server, "Parse t=SELECT 1, Bind nothing, Sync", replies);
    let sent = world.send(&mut client, &mut server, "Parse s=SELECT 1, Sync");
    assert_eq!(sent, "Close pgweir_1, Parse pgweir_1=SELECT 1, Sync");
    answer(&mut client, &mut server, "CloseComplete");
    let input = frontend("Bind t, Sync");
    let (done, out) = world.translate(&mut client, &mut server, &input);
    assert_eq!((done.consumed, out.len()), (0, 0));
    answer(&mut client, &mut server, "ErrorResponse ReadyInFailed");
    let sent = world.send(&mut client, &mut server, "Bind t, Sync");
    assert_eq!(sent, "Parse pgweir_1=SELECT 1, Bind pgweir_1, Sync");
}

#[test]
fn a_pipeline_of_statements_is_sent_without_waiting() {
    let (mut world, mut client, mut server) = (World::default(), client(1), ServerSide::default());
    let unnamed = "Parse =SELECT 1, Bind, Describe portal, Execute, Sync, ".repeat(100);
    let named = "Bind s, Execute, Sync, ".repeat(100);
    let input = frontend(&format!("{unnamed}{named}"));
    let (done, _) = world.translate(&mut client, &mut server, &input);
    assert_eq!(done.consumed, input.len());
}

#[test]
fn a_copy_is_not_waited_for_because_of_a_discard_that_was_only_bound() {
    let (mut world, mut client, mut server) = (World::default(), client(1), ServerSide::default());
    let words = "Parse =DEALLOCATE ALL, Bind, Sync, Parse =COPY t FROM STDIN, Bind, Execute, \
                 CopyDone, Sync";
    let input = frontend(words);
    let (done, _) = world.translate(&mut client, &mut server, &input);
    assert_eq!(done.consumed, input.len());
}
