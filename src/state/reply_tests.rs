//! A server's stream, sorted: the same for the client however it is cut.

use super::*;
use crate::state::pipeline::{Expected, Undo};
use crate::state::prelude;
use crate::state::session::ServerUnnamed;
use crate::state::test_support::{
    LIMITS, World, answer, backend, backend_words, client, frontend, settings, sort as sort_whole,
};
use crate::wire::encode;
use proptest::prelude::*;

/// Feeds `input` in pieces as a connection does: what is not used comes again with more behind it.
fn sort_in_pieces(
    client: &mut Session,
    server: &mut ServerSide,
    pieces: &[&[u8]],
) -> (Vec<u8>, Vec<String>, usize) {
    let (mut held, mut seen, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    let (mut passing, mut most) = (Passing::Nothing, 0);
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut out = Outgoing::default();
        let used = sort(client, server, &mut passing, &held, &mut out, |event| {
            seen.push(format!("{event:?}"));
        });
        let used = used.expect("replies that are due");
        sent.extend_from_slice(out.bytes(&held));
        held.drain(..used);
        most = most.max(held.len());
    }
    assert!(held.is_empty() && passing == Passing::Nothing, "half a message is left");
    (sent, seen, most)
}

/// A client and a server on whose ledger is every fate: what pgweir sent ahead and in between, what
/// it answers itself, and what is the client's.
fn with_every_fate() -> (Session, ServerSide) {
    let mut world = World::default();
    let utc = settings(&[("timezone", "UTC")]);
    let (mut one, mut server) = (Session::new(1, utc.clone()), ServerSide::default());
    let replies = "ParseComplete ParseComplete ReadyForQuery";
    world.batch(&mut one, &mut server, "Parse a=SELECT 1, Parse b=SELECT 2, Sync", replies);
    let mut two = Session::new(2, utc);
    prelude::write(&mut server, &two.settings, &LIMITS, &mut Vec::new());
    let words = "Parse s=SELECT 1, Describe s, Close s, Parse t=SELECT 2, Bind t, Execute, \
                 Parse u=SELECT 3, Close t, Describe u, Close u, Sync";
    world.send(&mut two, &mut server, words);
    // A batch more, as it would be sent when the first one is answered.
    server.pipeline.push(Expected::Query, Fate::Forward, Undo::Nothing);
    (two, server)
}

fn its_replies() -> Vec<u8> {
    let mut row = Vec::new();
    encode::message(&mut row, BackendTag::DATA_ROW.0, |out| out.extend_from_slice(&[7; 100]));
    [
        // The settings that were sent ahead.
        backend("ParseComplete BindComplete ParameterStatus DataRow CommandComplete"),
        backend("ParseComplete ReadyForQuery ParameterDescription NoData CloseComplete"),
        backend("ParameterDescription RowDescription BindComplete"),
        row,
        backend("DataRow NoticeResponse CommandComplete ParseComplete ParameterStatus"),
        backend("ParameterDescription NoData ReadyForQuery"),
        backend("RowDescription DataRow Deallocated ErrorResponse ReadyForQuery"),
    ]
    .concat()
}

#[test]
fn each_reply_goes_where_it_belongs() {
    let (mut client, mut server) = with_every_fate();
    let input = its_replies();
    let mut events = Vec::new();
    let sent =
        sort_whole(&mut client, &mut server, &input, |event| events.push(format!("{event:?}")));
    let tags: String = crate::state::test_support::frames(&sent)
        .into_iter()
        .map(|frame| char::from(frame.tag))
        .collect();
    assert_eq!(tags, "1tT312DDNC13Stn3ZTDCEZ");
    assert!(server.pipeline.is_settled());
    assert_eq!(
        events,
        [
            r#"ParameterStatus { name: "TimeZone", value: "UTC", ahead: true }"#,
            r#"ParameterStatus { name: "TimeZone", value: "UTC", ahead: false }"#,
            "Ready",
            "Discarded(Statements)",
            "Error { sqlstate: Some(42601), fatal: false }",
            "Ready",
        ]
    );
}

#[test]
fn every_single_cut_gives_the_same() {
    let input = its_replies();
    let (mut client, mut server) = with_every_fate();
    let whole = sort_in_pieces(&mut client, &mut server, &[&input]);
    for cut in 0..=input.len() {
        let (mut client, mut server) = with_every_fate();
        let (one, two) = input.split_at(cut);
        let cut_up = sort_in_pieces(&mut client, &mut server, &[one, two]);
        assert_eq!((&cut_up.0, &cut_up.1), (&whole.0, &whole.1), "cut at {cut}");
    }
}

proptest! {
    #[test]
    fn any_cut_of_a_stream_gives_the_same(cuts in proptest::collection::vec(0..400_usize, 0..20)) {
        let input = its_replies();
        let (mut client, mut server) = with_every_fate();
        let whole = sort_in_pieces(&mut client, &mut server, &[&input]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
        let (mut client, mut server) = with_every_fate();
        let cut_up = sort_in_pieces(&mut client, &mut server, &pieces);
        prop_assert_eq!(cut_up.0, whole.0);
        prop_assert_eq!(cut_up.1, whole.1);
    }
}

/// A client that asked with a `Query`.
fn asked() -> (Session, ServerSide) {
    let (mut client, mut server) = (client(1), ServerSide::default());
    World::default().send(&mut client, &mut server, "Query SELECT 1");
    (client, server)
}

#[test]
fn a_huge_row_passes_in_pieces_and_is_never_held() {
    let (mut client, mut server) = asked();
    let mut input = backend("RowDescription");
    encode::message(&mut input, BackendTag::DATA_ROW.0, |out| out.resize(10 << 20, 7));
    input.extend(backend("CommandComplete ReadyForQuery"));
    let pieces: Vec<&[u8]> = input.chunks(10_000).collect();
    let (sent, _, most) = sort_in_pieces(&mut client, &mut server, &pieces);
    assert!(sent == input);
    assert!(most < HEADER_LEN, "{most} bytes were held");
}

#[test]
fn what_is_forwarded_as_it_came_is_not_copied() {
    let (mut client, mut server) = asked();
    let input = backend("RowDescription DataRow CommandComplete ReadyForQuery");
    let mut out = Outgoing::default();
    let used = sort(&mut client, &mut server, &mut Passing::Nothing, &input, &mut out, |_| ());
    assert_eq!(used, Ok(input.len()));
    assert_eq!(out.into_parts(), (0..input.len(), Vec::new()));
}

#[test]
fn an_error_is_held_until_it_is_whole_unless_it_is_huge() {
    let (mut client, mut server) = asked();
    let mut error = Vec::new();
    encode::message(&mut error, BackendTag::ERROR_RESPONSE.0, |out| {
        out.extend_from_slice(b"SERROR\0C22P02\0M");
        out.resize(40_000, b'x');
        out.extend_from_slice(b"\0\0");
    });
    error.extend(backend("ReadyForQuery"));
    let (_, events, most) =
        sort_in_pieces(&mut client, &mut server, &error.chunks(1000).collect::<Vec<_>>());
    assert_eq!(events, ["Error { sqlstate: Some(22P02), fatal: false }", "Ready"]);
    assert!(most < 1000, "{most} bytes were held");
    let (mut client, mut server) = asked();
    let error = backend("Fatal");
    let mut out = Outgoing::default();
    let last = error.len() - 1;
    let part = &error[..last];
    let used = sort(&mut client, &mut server, &mut Passing::Nothing, part, &mut out, |_| {
        panic!("half an error is no error");
    });
    assert_eq!(used, Ok(0));
    assert!(out.bytes(part).is_empty());
}

#[test]
fn a_reply_of_ours_waits_for_the_end_of_the_message_before_it() {
    let mut world = World::default();
    let (mut client, mut server) = (client(1), ServerSide::default());
    let words = "Parse s=SELECT 1, Describe s, Close s, Sync";
    world.send(&mut client, &mut server, words);
    let mut input = backend("ParseComplete ParameterDescription");
    encode::message(&mut input, BackendTag::ROW_DESCRIPTION.0, |out| out.resize(100_000, 7));
    let mut expected = input.clone();
    input.extend(backend("ReadyForQuery"));
    expected.extend(backend("CloseComplete ReadyForQuery"));
    let pieces: Vec<&[u8]> = input.chunks(30_000).collect();
    let (sent, ..) = sort_in_pieces(&mut client, &mut server, &pieces);
    assert!(sent == expected);
}

#[test]
fn a_swallowed_reply_leaves_no_trace_in_pieces_either() {
    let mut world = World::default();
    let (mut client, mut one, mut two) = (client(1), ServerSide::default(), ServerSide::default());
    let ready = "ParseComplete ReadyForQuery";
    world.batch(&mut client, &mut one, "Parse s=SELECT 1, Sync", ready);
    world.send(&mut client, &mut two, "Describe portal, Bind s, Sync");
    let input = backend("NoData ParseComplete BindComplete ReadyForQuery");
    let pieces: Vec<&[u8]> = input.chunks(1).collect();
    let (sent, ..) = sort_in_pieces(&mut client, &mut two, &pieces);
    assert_eq!(backend_words(&sent), "NoData BindComplete ReadyForQuery");
}

#[test]
fn a_discard_makes_the_server_forget_and_says_what_was_thrown_away() {
    for (word, discarded) in [("Discarded", Discarded::All), ("Deallocated", Discarded::Statements)]
    {
        let mut world = World::default();
        let (mut client, mut server) = (client(1), ServerSide::default());
        let ready = "ParseComplete ReadyForQuery";
        world.batch(&mut client, &mut server, "Parse s=SELECT 1, Sync", ready);
        world.send(&mut client, &mut server, "Query DISCARD ALL");
        let mut events = Vec::new();
        let input = backend(word);
        sort_whole(&mut client, &mut server, &input, |event| {
            events.push(event == Event::Discarded(discarded));
        });
        assert_eq!(events, [true]);
        assert!(server.statements.is_empty() && client.statements.is_empty());
        assert_eq!(server.unnamed, ServerUnnamed::Unknown);
    }
}

#[test]
fn the_end_of_a_connection_is_told() {
    let (mut client, mut server) = asked();
    let mut fatal = false;
    let input = backend("Fatal");
    let sent = sort_whole(&mut client, &mut server, &input, |event| {
        fatal |= matches!(event, Event::Error { fatal: true, .. });
    });
    assert!(fatal);
    assert_eq!(sent, input);
}

#[test]
fn malformed_messages_are_surprises() {
    for (tag, body) in [
        (BackendTag::READY_FOR_QUERY, &b""[..]),
        (BackendTag::READY_FOR_QUERY, b"X"),
        (BackendTag::READY_FOR_QUERY, b"II"),
        (BackendTag::PARAMETER_STATUS, b"TimeZone"),
        (BackendTag::PARAMETER_STATUS, b"TimeZone\0UTC\0x"),
        (BackendTag::PARAMETER_STATUS, b"\xff\0UTC\0"),
    ] {
        let (mut client, mut server) = asked();
        let mut input = Vec::new();
        encode::message(&mut input, tag.0, |out| out.extend_from_slice(body));
        assert_eq!(
            surprise(&mut client, &mut server, &input),
            Surprise::Malformed { tag: tag.0 },
            "{tag:?} {body:?}"
        );
    }
    for length in [&b"D\0\0\0\x03"[..], b"D\x40\0\0\x10", b"D\xff\xff\xff\xff"] {
        let (mut client, mut server) = asked();
        let malformed = Surprise::Malformed { tag: b'D' };
        assert_eq!(surprise(&mut client, &mut server, length), malformed);
    }
}

fn surprise(client: &mut Session, server: &mut ServerSide, input: &[u8]) -> Surprise {
    let mut out = Outgoing::default();
    match sort(client, server, &mut Passing::Nothing, input, &mut out, |_| ()) {
        Ok(used) => panic!("{used} bytes were taken for replies"),
        Err(surprise) => surprise,
    }
}

#[test]
fn a_reply_nobody_asked_for_is_a_surprise() {
    let (mut client, mut server) = (client(1), ServerSide::default());
    for word in ["DataRow", "ReadyForQuery", "CommandComplete", "ParseComplete"] {
        let input = backend(word);
        let tag = input[0];
        assert_eq!(surprise(&mut client, &mut server, &input), Surprise::NotDue { tag });
    }
    assert_eq!(answer(&mut client, &mut server, "NoticeResponse"), "NoticeResponse");
    assert!(frontend("").is_empty());
}

#[test]
fn settings_the_server_refuses_are_no_error_of_the_client() {
    let mut client = Session::new(1, settings(&[("timezone", "nowhere")]));
    let mut server = ServerSide::default();
    prelude::write(&mut server, &client.settings, &LIMITS, &mut Vec::new());
    let input = backend("ParseComplete BindComplete ErrorResponse");
    assert_eq!(surprise(&mut client, &mut server, &input), Surprise::Prelude);
}
