//! What a server is sent for what a client says, in bytes, and what no client can reach.

use super::*;
use crate::state::test_support::{
    World, answer, backend, begun, client, frames, frontend, frontend_words, sort,
};
use crate::wire::BackendTag;

fn server() -> ServerSide {
    ServerSide::default()
}

#[test]
fn a_named_statement_gets_a_name_of_its_own() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    assert_eq!(
        world.send(&mut client, &mut server, "Parse s=SELECT 1, Describe s, Bind s, Execute, Sync"),
        "Parse pgweir_1=SELECT 1, Describe pgweir_1, Bind pgweir_1, Execute, Sync"
    );
}

#[test]
fn a_statement_is_prepared_once_on_each_server() {
    let (mut world, mut client) = (World::default(), client(1));
    let (mut one, mut two) = (server(), server());
    world.batch(&mut client, &mut one, "Parse s=SELECT 1, Sync", "ParseComplete ReadyForQuery");
    assert_eq!(
        world.send(&mut client, &mut two, "Bind s, Execute, Sync"),
        "Parse pgweir_1=SELECT 1, Bind pgweir_1, Execute, Sync"
    );
    let seen = answer(
        &mut client,
        &mut two,
        "ParseComplete BindComplete DataRow CommandComplete ReadyForQuery",
    );
    assert_eq!(seen, "BindComplete DataRow CommandComplete ReadyForQuery");
    for server in [&mut one, &mut two] {
        assert_eq!(
            world.send(&mut client, server, "Bind s, Execute, Sync"),
            "Bind pgweir_1, Execute, Sync"
        );
    }
    assert_eq!((one.reparsed, two.reparsed), (0, 1));
}

#[test]
fn the_same_text_of_another_client_is_answered_here() {
    let (mut world, mut server) = (World::default(), server());
    let (mut one, mut two) = (client(1), client(2));
    world.batch(&mut one, &mut server, "Parse s=SELECT 1, Sync", "ParseComplete ReadyForQuery");
    assert_eq!(
        world.send(&mut two, &mut server, "Parse other=SELECT 1, Bind other, Execute, Sync"),
        "Bind pgweir_1, Execute, Sync"
    );
    assert_eq!(
        answer(&mut two, &mut server, "BindComplete DataRow CommandComplete ReadyForQuery"),
        "ParseComplete BindComplete DataRow CommandComplete ReadyForQuery"
    );
}

#[test]
fn a_closed_statement_stays_on_the_server_and_leaves_the_client() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.batch(&mut client, &mut server, "Parse s=SELECT 1, Sync", "ParseComplete ReadyForQuery");
    assert_eq!(world.send(&mut client, &mut server, "Close s, Sync"), "Sync");
    assert_eq!(answer(&mut client, &mut server, "ReadyForQuery"), "CloseComplete ReadyForQuery");
    assert!(client.statements.is_empty());
    assert_eq!(world.send(&mut client, &mut server, "Bind s, Sync"), "Bind s, Sync");
}

#[test]
fn names_nobody_knows_pass_as_they_are() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    let words = "Bind s, Describe s, Close s, Describe portal, Close portal, Sync";
    assert_eq!(world.send(&mut client, &mut server, words), words);
}

#[test]
fn a_second_statement_of_a_name_is_refused_by_the_server() {
    let (mut world, mut client, mut one, mut two) =
        (World::default(), client(1), server(), server());
    world.batch(&mut client, &mut one, "Parse s=SELECT 1, Sync", "ParseComplete ReadyForQuery");
    // Not under the name that others share, which code may have freed.
    let taken = "pgweir_4000000000000001";
    for server in [&mut one, &mut two] {
        assert_eq!(
            world.send(&mut client, server, "Parse s=SELECT 2, Sync"),
            format!("Close {taken}, Parse {taken}=, Parse {taken}=SELECT 2, Sync")
        );
        let replies = "CloseComplete ParseComplete ErrorResponse ReadyForQuery";
        assert_eq!(answer(&mut client, server, replies), "ErrorResponse ReadyForQuery");
    }
    assert_eq!(
        world.send(&mut client, &mut two, "Bind s, Sync"),
        "Parse pgweir_1=SELECT 1, Bind pgweir_1, Sync"
    );
}

#[test]
fn a_server_that_has_lost_a_name_that_is_not_known_is_for_nobody_else() {
    for (sql, stained) in [("DEALLOCATE s", false), ("DEALLOCATE U&\"pgweir\\005f1\"", true)] {
        let (mut world, mut client, mut server) = (World::default(), client(1), server());
        world.send(&mut client, &mut server, &format!("Query {sql}"));
        let mut replies = Vec::new();
        let tag = BackendTag::COMMAND_COMPLETE.0;
        encode::message(&mut replies, tag, |out| out.extend_from_slice(b"DEALLOCATE\0"));
        replies.extend(backend("ReadyForQuery"));
        sort(&mut client, &mut server, &replies, |_| ());
        assert_eq!(server.stained, stained, "{sql}");
    }
}

#[test]
fn a_statement_that_failed_is_no_statement() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    let words = "Parse s=SELECT bad, Parse t=SELECT 1, Sync";
    world.batch(&mut client, &mut server, words, "ErrorResponse ReadyForQuery");
    assert!(client.statements.is_empty());
    assert!(server.statements.is_empty());
    assert_eq!(
        world.send(&mut client, &mut server, "Parse s=SELECT 1, Bind s, Sync"),
        "Parse pgweir_2=SELECT 1, Bind pgweir_2, Sync"
    );
}

#[test]
fn a_close_that_was_skipped_closed_nothing() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.batch(&mut client, &mut server, "Parse s=SELECT 1, Sync", "ParseComplete ReadyForQuery");
    let words = "Parse =SELECT bad, Close s, Sync";
    world.batch(&mut client, &mut server, words, "ErrorResponse ReadyForQuery");
    assert_eq!(world.send(&mut client, &mut server, "Bind s, Sync"), "Bind pgweir_1, Sync");
}

#[test]
fn a_known_statement_that_was_skipped_is_still_on_the_server() {
    let (mut world, mut server) = (World::default(), server());
    let (mut one, mut two) = (client(1), client(2));
    world.batch(&mut one, &mut server, "Parse s=SELECT 1, Sync", "ParseComplete ReadyForQuery");
    let words = "Parse =SELECT bad, Parse s=SELECT 1, Sync";
    world.batch(&mut two, &mut server, words, "ErrorResponse ReadyForQuery");
    assert!(two.statements.is_empty());
    assert_eq!(world.send(&mut two, &mut server, "Parse s=SELECT 1, Sync"), "Sync");
}

#[test]
fn what_a_client_says_before_the_sync_of_a_failed_batch_is_not_sent() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    world.batch(&mut client, &mut server, "Parse s=SELECT bad, Flush", "ErrorResponse");
    assert_eq!(
        world.send(
            &mut client,
            &mut server,
            "Bind s, Execute, Parse t=SELECT 1, Query SELECT 1, Flush, Sync"
        ),
        "Sync"
    );
    assert_eq!(answer(&mut client, &mut server, "ReadyForQuery"), "ReadyForQuery");
    assert!(server.pipeline.is_settled());
    assert!(client.statements.is_empty());
}

#[test]
fn discarded_statements_are_gone_from_both() {
    for (query, reply) in [("DISCARD ALL", "Discarded"), ("DEALLOCATE ALL", "Deallocated")] {
        let (mut world, mut client, mut server) = (World::default(), client(1), server());
        let ready = "ParseComplete ReadyForQuery";
        world.batch(&mut client, &mut server, "Parse s=SELECT 1, Sync", ready);
        let replies = format!("{reply} ReadyForQuery");
        world.batch(&mut client, &mut server, &format!("Query {query}"), &replies);
        assert_eq!(
            world.send(&mut client, &mut server, "Bind s, Parse s=SELECT 1, Sync"),
            "Bind s, Parse pgweir_1=SELECT 1, Sync"
        );
    }
}

#[test]
fn what_follows_a_discard_waits_for_it() {
    for (words, sent, replies) in [
        ("Query DISCARD ALL", "Query DISCARD ALL", "Discarded ReadyForQuery"),
        (
            "Parse =DEALLOCATE ALL, Bind, Execute",
            "Parse =DEALLOCATE ALL, Bind, Execute, Flush",
            "ParseComplete BindComplete Deallocated",
        ),
    ] {
        let (mut world, mut client, mut server) = (World::default(), client(1), server());
        let ready = "ParseComplete ReadyForQuery";
        world.batch(&mut client, &mut server, "Parse s=SELECT 1, Sync", ready);
        let first = frontend(words);
        let second = frontend("Parse s=SELECT 1, Bind s, Execute, Sync");
        let both = [first.as_slice(), &second].concat();
        let (done, out) = world.translate(&mut client, &mut server, &both);
        assert_eq!(done.consumed, first.len());
        assert_eq!(frontend_words(&out), sent);
        let (done, out) = world.translate(&mut client, &mut server, &second);
        assert_eq!((done.consumed, out.len()), (0, 0));
        answer(&mut client, &mut server, replies);
        assert_eq!(
            frontend_words(&world.send_bytes(&mut client, &mut server, &second)),
            "Parse pgweir_1=SELECT 1, Bind pgweir_1, Execute, Sync"
        );
    }
}

// The unnamed statement.

#[test]
fn an_unnamed_statement_is_parsed_again_on_another_server() {
    let (mut world, mut client, mut one, mut two) =
        (World::default(), client(1), server(), server());
    let words = "Parse =SELECT 1, Describe, Sync";
    world.batch(&mut client, &mut one, words, "ParseComplete NoData ReadyForQuery");
    assert_eq!(world.send(&mut client, &mut one, "Bind, Execute, Sync"), "Bind, Execute, Sync");
    assert_eq!(
        world.send(&mut client, &mut two, "Bind, Execute, Sync"),
        "Parse =SELECT 1, Bind, Execute, Sync"
    );
}

#[test]
fn a_query_drops_the_unnamed_statement() {
    let (mut world, mut client, mut one, mut two) =
        (World::default(), client(1), server(), server());
    world.batch(&mut client, &mut one, "Parse =SELECT 1, Sync", "ParseComplete ReadyForQuery");
    world.batch(&mut client, &mut one, "Query SELECT 2", "CommandComplete ReadyForQuery");
    for server in [&mut one, &mut two] {
        assert_eq!(world.send(&mut client, server, "Bind, Sync"), "Bind, Sync");
    }
}

#[test]
fn a_failed_parse_drops_the_unnamed_statement_and_a_skipped_one_does_not() {
    for (words, then) in [
        ("Parse =SELECT bad, Sync", "Close, Bind, Sync"),
        ("Bind s, Parse =SELECT 2, Sync", "Parse =SELECT 1, Bind, Sync"),
        ("Bind s, Close, Sync", "Parse =SELECT 1, Bind, Sync"),
        ("Bind s, Query SELECT 2, Sync", "Parse =SELECT 1, Bind, Sync"),
    ] {
        let (mut world, mut client, mut server) = (World::default(), client(1), server());
        let ready = "ParseComplete ReadyForQuery";
        world.batch(&mut client, &mut server, "Parse =SELECT 1, Sync", ready);
        world.batch(&mut client, &mut server, words, "ErrorResponse ReadyForQuery");
        assert_eq!(world.send(&mut client, &mut server, "Bind, Sync"), then, "{words}");
    }
}

#[test]
fn the_unnamed_statement_of_another_client_is_out_of_reach() {
    for probe in ["Bind", "Describe"] {
        let (mut world, mut server) = (World::default(), server());
        let (mut one, mut two) = (client(1), client(2));
        let words = "Parse =SELECT secret, Sync";
        world.batch(&mut one, &mut server, words, "ParseComplete ReadyForQuery");
        assert_eq!(
            world.send(&mut two, &mut server, &format!("{probe}, Sync")),
            format!("Close, {probe}, Sync")
        );
        let seen = answer(&mut two, &mut server, "CloseComplete ErrorResponse ReadyForQuery");
        assert_eq!(seen, "ErrorResponse ReadyForQuery");
    }
}

#[test]
fn the_unnamed_statement_of_another_client_is_out_of_reach_behind_an_error() {
    // What was put before the Bind may have been skipped with it.
    for first in ["Bind nothing, Bind, Sync", "Bind nothing, Parse =SELECT 2, Sync"] {
        for pipelined in [false, true] {
            let (mut world, mut server) = (World::default(), server());
            let (mut one, mut two) = (client(1), client(2));
            let words = "Parse =SELECT secret, Sync";
            world.batch(&mut one, &mut server, words, "ParseComplete ReadyForQuery");
            let mut model = Reach { statement: Reached::Foreign, ..Reach::default() };
            model.play(&world.send_bytes(&mut two, &mut server, &frontend(first)));
            if !pipelined {
                settle(&mut two, &mut server, &model);
            }
            let (_, out) = world.translate(&mut two, &mut server, &frontend("Bind, Execute, Sync"));
            model.play(&out);
            assert!(!model.reached_foreign, "{first} then Bind (pipelined: {pipelined})");
        }
    }
}

#[test]
fn an_own_statement_behind_an_error_is_the_one_prepared_last() {
    let (mut world, mut client, mut one, mut two) =
        (World::default(), client(1), server(), server());
    let ready = "ParseComplete ReadyForQuery";
    world.batch(&mut client, &mut one, "Parse =SELECT old, Sync", ready);
    world.batch(&mut client, &mut two, "Parse =SELECT new, Sync", ready);
    // On the first server again: the parse that is put in between is skipped.
    world.send(&mut client, &mut one, "Bind nothing, Bind, Sync");
    answer(&mut client, &mut one, "ErrorResponse ReadyForQuery");
    assert_eq!(
        world.send(&mut client, &mut one, "Bind, Execute, Sync"),
        "Parse =SELECT new, Bind, Execute, Sync"
    );
}

#[test]
fn an_unnamed_statement_behind_a_failed_batch_is_the_one_prepared_last() {
    let ready = "ParseComplete ReadyForQuery";
    for (words, replies, then) in [
        // The first one is skipped, the second one holds.
        (
            "Bind nothing, Parse =SELECT 2, Sync, Parse =SELECT 3, Sync",
            "ErrorResponse ReadyForQuery ParseComplete ReadyForQuery",
            "Parse =SELECT 3, Bind, Sync",
        ),
        (
            "Parse =SELECT bad, Sync, Parse =SELECT 3, Sync",
            "ErrorResponse ReadyForQuery ParseComplete ReadyForQuery",
            "Parse =SELECT 3, Bind, Sync",
        ),
        // Both are skipped.
        (
            "Bind nothing, Parse =SELECT 2, Sync, Bind nothing, Parse =SELECT 3, Sync",
            "ErrorResponse ReadyForQuery ErrorResponse ReadyForQuery",
            "Parse =SELECT 1, Bind, Sync",
        ),
    ] {
        let (mut world, mut client, mut one, mut two) =
            (World::default(), client(1), server(), server());
        world.batch(&mut client, &mut one, "Parse =SELECT 1, Sync", ready);
        world.batch(&mut client, &mut one, words, replies);
        assert_eq!(world.send(&mut client, &mut two, "Bind, Sync"), then, "{words}");
    }
}

/// Whose unnamed statement a server has.
#[derive(Clone, Copy, Default, PartialEq)]
enum Reached {
    #[default]
    Nothing,
    Own,
    Foreign,
}

/// A server that knows one thing: whose unnamed statement a Bind reaches. Every named one is missing.
#[derive(Default)]
struct Reach {
    statement: Reached,
    skipping: bool,
    reached_foreign: bool,
    replies: Vec<u8>,
}

impl Reach {
    fn play(&mut self, bytes: &[u8]) {
        for frame in frames(bytes) {
            let words = frontend_words(frame.bytes);
            let reply = match words.as_str() {
                "Sync" => {
                    self.skipping = false;
                    "ReadyForQuery"
                }
                _ if self.skipping => continue,
                "Close" => {
                    self.statement = Reached::Nothing;
                    "CloseComplete"
                }
                words if words.starts_with("Parse =") => {
                    self.statement = Reached::Own;
                    "ParseComplete"
                }
                "Bind" if self.statement == Reached::Own => "BindComplete",
                "Execute" => "CommandComplete",
                words => {
                    self.reached_foreign |= words == "Bind" && self.statement == Reached::Foreign;
                    self.skipping = true;
                    "ErrorResponse"
                }
            };
            self.replies.extend(backend(reply));
        }
    }
}

fn settle(client: &mut Session, server: &mut ServerSide, model: &Reach) {
    sort(client, server, &model.replies, |_| ());
    assert!(server.pipeline.is_settled());
}

#[test]
fn the_named_statement_of_another_client_is_out_of_reach() {
    let (mut world, mut server) = (World::default(), server());
    let (mut one, mut two) = (client(1), client(2));
    let words = "Parse s=SELECT secret, Sync";
    world.batch(&mut one, &mut server, words, "ParseComplete ReadyForQuery");
    // Its name on the server can be guessed, and is no name there for anybody else.
    assert_eq!(
        world.send(
            &mut two,
            &mut server,
            "Bind pgweir_1, Describe pgweir_1, Close pgweir_1, Bind pgweir_, Bind pgweir__1, Sync"
        ),
        "Bind pgweir__1, Describe pgweir__1, Close pgweir__1, Bind pgweir__, Bind pgweir___1, Sync"
    );
    let mut large = begun(FrontendTag::BIND, 100_000, b"\0pgweir_1\0");
    large.resize(40_000, b'x');
    let out = world.send_bytes(&mut two, &mut server, &large);
    assert_eq!(&out[..16], b"B\0\x01\x86\xa5\0pgweir__1\0");
}

#[test]
fn a_client_may_call_its_statement_as_pgweir_would() {
    let (mut world, mut client, mut server) = (World::default(), client(1), server());
    assert_eq!(
        world.send(&mut client, &mut server, "Parse pgweir_7=SELECT 1, Bind pgweir_7, Sync"),
        "Parse pgweir_1=SELECT 1, Bind pgweir_1, Sync"
    );
}

#[test]
fn names_of_sql_are_closed_before_another_client_comes() {
    let mut world = World::default();
    let (mut one, mut two, mut server) = (client(1), client(2), ServerSide::default());
    let mut out = Vec::new();
    world.send(&mut one, &mut server, "Query PREPARE q AS SELECT 1");
    // Whether or not it succeeded.
    answer(&mut one, &mut server, "ErrorResponse ReadyForQuery");
    one.close_foreign(&mut server, &mut out);
    assert!(out.is_empty());
    two.close_foreign(&mut server, &mut out);
    assert_eq!(frontend_words(&out), "Close q");
    assert_eq!(world.send(&mut two, &mut server, "Query SELECT 1"), "Query SELECT 1");
    out.clear();
    two.close_foreign(&mut server, &mut out);
    assert!(out.is_empty());
}
