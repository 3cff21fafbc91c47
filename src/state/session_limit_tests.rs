//! What a client may not do, and how little is held of what it may.

use super::*;
use crate::state::test_support::{LIMITS, World, answer, begun, client, frames, frontend, tail};

fn server() -> ServerSide {
    ServerSide::default()
}

#[test]
fn a_client_has_so_many_statements_and_no_more() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.limits.statements_max = 2;
    let words = "Parse a=SELECT 1, Parse b=SELECT 2, Close a, Parse c=SELECT 3, Sync";
    world.send(&mut client, &mut server, words);
    let mut out = Vec::new();
    let done = client.translate(
        &mut server,
        &mut world.table,
        &world.limits,
        &frontend("Parse d=SELECT 4, Sync"),
        &mut out,
    );
    assert_eq!(done, Err(ClientFault::TooManyStatements));
}

#[test]
fn a_statement_without_a_name_takes_room_as_others_do() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.table.full = true;
    let (input, mut out) = (frontend("Parse =SELECT 1, Sync"), Vec::new());
    let done = client.translate(&mut server, &mut world.table, &LIMITS, &input, &mut out);
    assert_eq!(done, Err(ClientFault::StatementsFull));
}

#[test]
fn a_message_over_the_limit_is_refused_before_it_came() {
    let limits = Limits { message_max: 1000, ..LIMITS };
    for tag in [FrontendTag::QUERY, FrontendTag::COPY_DATA, FrontendTag::BIND] {
        let input = begun(tag, 996, b"");
        let too_large = ClientFault::Frame(FrameError::TooLarge { tag: tag.0, frame_len: 1001 });
        let mut one = client(1);
        assert_eq!(one.extent(&input, 100, &limits), Err(too_large));
        assert_eq!(one.skip_batch(&input, &limits), Err(too_large));
        let mut world = World { limits, ..World::default() };
        let done = one.translate(&mut server(), &mut world.table, &limits, &input, &mut Vec::new());
        assert_eq!(done, Err(too_large));
    }
}

#[test]
fn messages_of_names_alone_are_not_waited_for_without_end() {
    for tag in [FrontendTag::DESCRIBE, FrontendTag::CLOSE, FrontendTag::EXECUTE, FrontendTag::SYNC]
    {
        let input = begun(tag, 40_000, b"S");
        assert!(client(1).extent(&input, 100, &LIMITS).is_err());
    }
}

#[test]
fn messages_that_do_not_belong_here_are_refused() {
    let mut world = World::default();
    for tag in (0..=u8::MAX).filter(|tag| !b"PBDECHSQFdcfX".contains(tag)) {
        let input = begun(FrontendTag(tag), 0, b"");
        let unexpected = Err(ClientFault::Unexpected { tag });
        let mut one = client(1);
        let limits = LIMITS;
        assert_eq!(one.extent(&input, 100, &limits).map(|_| ()), unexpected);
        assert_eq!(
            one.translate(&mut server(), &mut world.table, &limits, &input, &mut Vec::new())
                .map(|_| ()),
            unexpected
        );
    }
}

#[test]
fn malformed_messages_are_refused() {
    let mut world = World::default();
    for (tag, body) in [
        (FrontendTag::QUERY, &b"SELECT"[..]),
        (FrontendTag::QUERY, b"SELECT\0x"),
        (FrontendTag::PARSE, b"s\0SELECT"),
        (FrontendTag::PARSE, b"s\0SELECT\0\0\x01"),
        (FrontendTag::BIND, b"\0s"),
        (FrontendTag::DESCRIBE, b"Xs\0"),
        (FrontendTag::CLOSE, b""),
    ] {
        let input = begun(tag, body.len(), body);
        let malformed = ClientFault::Frame(FrameError::Malformed { tag: tag.0 });
        let done =
            client(1).translate(&mut server(), &mut world.table, &LIMITS, &input, &mut Vec::new());
        assert_eq!(done, Err(malformed), "{tag:?} {body:?}");
    }
}

#[test]
fn a_server_keeps_a_bounded_number_of_statements() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.limits.server_statements_max = 4;
    let mut on_server = std::collections::BTreeSet::new();
    for n in 0..100 {
        let words = format!("Parse s{n}=SELECT {n}, Sync");
        for message in world.send(&mut client, &mut server, &words).split(", ") {
            if let Some(name) = message.strip_prefix("Close ") {
                assert!(on_server.remove(name), "{name} was not there");
            } else if let Some((name, _)) = message.trim_start_matches("Parse ").split_once('=') {
                assert!(on_server.insert(name.to_owned()), "{name} was there already");
            }
        }
        assert!(on_server.len() <= 16);
        assert_eq!(on_server.len(), server.statements.len());
    }
}

#[test]
fn a_statement_whose_eviction_was_skipped_is_still_on_the_server() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.limits.server_statements_max = 1;
    let ready = "ParseComplete ReadyForQuery";
    for n in 0..4 {
        let words = format!("Parse s{n}=SELECT {n}, Sync");
        world.batch(&mut client, &mut server, &words, ready);
    }
    let sent = world.send(&mut client, &mut server, "Bind nothing, Parse t=SELECT 5, Sync");
    assert!(sent.contains("Close pgweir_1"), "{sent}");
    answer(&mut client, &mut server, "ErrorResponse ReadyForQuery");
    assert_eq!(world.send(&mut client, &mut server, "Bind s0, Sync"), "Bind pgweir_1, Sync");
}

// Large messages.

/// Sends a message in pieces of `piece` bytes. Returns what the server got, and the most that was
/// held of the client's bytes and of the server's at once.
fn in_pieces(
    client: &mut Session,
    server: &mut ServerSide,
    message: &[u8],
    piece: usize,
) -> (Vec<u8>, usize) {
    let mut world = World::default();
    let (mut held, mut sent, mut most) = (Vec::new(), Vec::new(), 0);
    for bytes in message.chunks(piece) {
        held.extend_from_slice(bytes);
        let (done, out) = world.translate(client, server, &held);
        held.drain(..done.consumed);
        most = most.max(held.len()).max(out.len());
        sent.extend_from_slice(&out);
    }
    assert!(held.is_empty(), "{} bytes are held at the end", held.len());
    (sent, most)
}

const LARGE: usize = 3 << 20;
const PIECE: usize = 60_000;

#[test]
fn large_messages_are_streamed_with_bounded_memory() {
    let text = "x".repeat(LARGE);
    let mut bind = Vec::new();
    encode::bind_text(&mut bind, b"", &[&text]);
    let mut parse = Vec::new();
    encode::parse(&mut parse, b"", &tail(&text));
    for message in [
        frontend(&format!("Query {text}")),
        frontend(&format!("CopyData {text}")),
        frontend(&format!("FunctionCall {text}")),
        parse,
        bind,
    ] {
        let (mut client, mut server) = (client(1), server());
        let (sent, most) = in_pieces(&mut client, &mut server, &message, PIECE);
        assert!(sent == message, "message of type {} was changed", message[0] as char);
        assert!(most <= PIECE * 2, "{most} bytes were held of type {}", message[0] as char);
        assert!(!client.is_streaming());
    }
}

#[test]
fn a_large_statement_keeps_its_client_on_the_server() {
    let text = "x".repeat(LARGE);
    for message in [
        frontend(&format!("Query {text}")),
        frontend(&format!("Parse s={text}")),
        frontend(&format!("Parse ={text}")),
    ] {
        let (mut client, mut server) = (client(1), server());
        in_pieces(&mut client, &mut server, &message, PIECE);
        assert_eq!(client.pin, Some(PinReason::LargeStatement));
    }
    let (mut client, mut server) = (client(1), server());
    in_pieces(&mut client, &mut server, &frontend(&format!("CopyData {text}")), PIECE);
    assert_eq!(client.pin, None);
}

#[test]
fn a_large_bind_is_renamed_in_flight() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.send(&mut client, &mut server, "Parse a_long_name_for_it=SELECT $1");
    let text = "x".repeat(LARGE);
    let mut message = Vec::new();
    encode::bind_text(&mut message, b"a_long_name_for_it", &[&text]);
    let mut expected = Vec::new();
    encode::bind_text(&mut expected, b"pgweir_1", &[&text]);
    let (sent, most) = in_pieces(&mut client, &mut server, &message, PIECE);
    assert!(sent == expected);
    assert!(most <= PIECE * 2);
}

#[test]
fn a_large_statement_takes_no_name_of_another() {
    let text = "x".repeat(LARGE);
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.send(&mut client, &mut server, "Parse known=SELECT 1");
    for (name, on_server) in
        [("s", "s"), ("pgweir_1", "pgweir__1"), ("known", "pgweir_4000000000000001"), ("", "")]
    {
        let (sent, _) =
            in_pieces(&mut client, &mut server, &frontend(&format!("Parse {name}={text}")), PIECE);
        let frames = frames(&sent);
        let name = Parse::read(frames[frames.len() - 1].body()).map(|parse| parse.name.to_vec());
        assert_eq!(name.as_deref(), Some(on_server.as_bytes()));
    }
}

#[test]
fn a_large_message_behind_an_error_is_not_sent() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.batch(&mut client, &mut server, "Parse s=SELECT bad, Flush", "ErrorResponse");
    let text = "x".repeat(LARGE);
    for message in [frontend(&format!("Query {text}")), frontend(&format!("CopyData {text}"))] {
        let (sent, most) = in_pieces(&mut client, &mut server, &message, PIECE);
        assert!(sent.is_empty());
        assert!(most <= PIECE);
    }
    assert_eq!(world.send(&mut client, &mut server, "Sync"), "Sync");
}

#[test]
fn what_is_produced_in_one_go_is_bounded() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    let mut input = Vec::new();
    for _ in 0..50 {
        input.extend(frontend(&format!("Query {}", "x".repeat(100_000))));
    }
    let (done, out) = world.translate(&mut client, &mut server, &input);
    assert!(out.len() <= OUT_MAX + 100_006, "{} bytes", out.len());
    assert!(done.consumed > 0 && done.consumed < input.len());
}

#[test]
fn what_may_have_to_be_taken_back_is_bounded() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    let message = frontend(&format!("Parse ={}", "x".repeat(STATEMENT_MAX - 100)));
    let mut taken = 0;
    for _ in 0..1000 {
        taken += usize::from(world.translate(&mut client, &mut server, &message).0.consumed > 0);
    }
    assert!(taken <= 40, "{taken} statements of a mebibyte are held");
}

#[test]
fn a_text_has_a_bounded_number_of_bytes_prepared_ahead_of_it() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    let text = "x".repeat(STATEMENT_MAX - 100);
    for n in 0..20 {
        world.send(&mut client, &mut server, &format!("Parse s{n}={n}{text}, Sync"));
        answer(&mut client, &mut server, "ParseComplete ReadyForQuery");
    }
    let texts = (0..20).map(|n| format!("EXECUTE s{n};")).collect::<Vec<_>>().concat();
    for words in [
        format!("Query {texts}"),
        format!("Parse ={texts}, Sync"),
        format!("Parse x={texts}, Bind x, Sync"),
    ] {
        let mut out = Vec::new();
        let (table, input) = (&mut world.table, frontend(&words));
        let done = client.translate(&mut server, table, &world.limits, &input, &mut out);
        assert_eq!(done, Err(ClientFault::TooMuchAhead));
        assert!(out.len() < 8 * STATEMENT_MAX, "{} bytes", out.len());
        client.abandon(&mut server);
        server = ServerSide::default();
    }
}

#[test]
fn a_text_has_a_bounded_number_of_statements_prepared_ahead_of_it() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.limits.statements_max = 10_000;
    world.limits.server_statements_max = 10_000;
    let words: Vec<_> = (0..1100).map(|n| format!("Parse s{n}=SELECT {n}, ")).collect();
    world.send(&mut client, &mut server, &format!("{} Sync", words.concat()));
    answer(&mut client, &mut server, &format!("{} ReadyForQuery", "ParseComplete ".repeat(1100)));
    for (named, refused) in [(1000, false), (1100, true)] {
        let texts = (0..named).map(|n| format!("EXECUTE s{n};")).collect::<Vec<_>>().concat();
        let (table, input) = (&mut world.table, frontend(&format!("Query {texts}")));
        let (mut server, mut out) = (ServerSide::default(), Vec::new());
        let done = client.translate(&mut server, table, &world.limits, &input, &mut out);
        assert_eq!(done.err(), refused.then_some(ClientFault::TooMuchAhead));
        client.abandon(&mut server);
    }
}

/// Some batch is always under way.
#[test]
fn the_names_of_statements_that_came_to_nothing_are_bounded() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.limits.statements_max = 10_000;
    let name = "n".repeat(100);
    let runs = "Parse =SELECT 1, Bind , Execute, Sync";
    let ran = "ParseComplete BindComplete CommandComplete ReadyForQuery";
    world.send(&mut client, &mut server, runs);
    for n in 0..1000 {
        world.send(&mut client, &mut server, &format!("Parse {name}{n}=x{n}, Sync"));
        answer(&mut client, &mut server, ran);
        world.send(&mut client, &mut server, runs);
        answer(&mut client, &mut server, "ErrorResponse ReadyForQuery");
        assert!(client.undone.len() <= 2, "{} names", client.undone.len());
    }
    let fails: Vec<_> = (0..1000).map(|n| format!("Parse {name}{n}=x{n}, ")).collect();
    world.send(&mut client, &mut server, &format!("{} Sync, {runs}", fails.concat()));
    answer(&mut client, &mut server, ran);
    answer(&mut client, &mut server, "ErrorResponse ReadyForQuery");
    assert!(client.undone.len() <= 100, "{} names", client.undone.len());
}
