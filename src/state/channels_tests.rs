//! Tests of what LISTEN and UNLISTEN come to, as PostgreSQL's own conversation has it.

use super::*;
use crate::state::pipeline::Pipeline;
use crate::state::session::{ServerSide, Session};
use crate::state::statement;
use crate::state::test_support::{LIMITS, Table, client, frontend, frontend_words};

/// A client for which pgweir listens at once on whatever it asks for.
struct Played(Channels);

impl Played {
    fn new() -> Self {
        let mut channels = Channels::default();
        channels.set_encoding("UTF8");
        Self(channels)
    }

    /// A simple query, the tags it is answered with (`!` for an error), and the status after it.
    fn query(&mut self, text: &str, tags: &str, status: char) -> &mut Self {
        let effects = statement::effects(text.as_bytes(), Options::default());
        loop {
            match self.0.before(effects, text.as_bytes(), Options::default(), By::Query, false) {
                Verdict::Send(_) => break,
                Verdict::Wait => {
                    assert!(self.0.take_wait());
                    self.0.grant();
                }
                Verdict::Refuse => panic!("{text} is refused"),
            }
        }
        for tag in tags.split(',').filter(|tag| !tag.is_empty()) {
            match tag {
                "!" => self.0.failed(),
                tag => self.0.completed(format!("{tag}\0").as_bytes()),
            }
        }
        let status = u8::try_from(status).expect("a byte");
        self.0.ready(TransactionStatus::from_byte(status).expect("a status"));
        self
    }

    fn in_force(&self) -> String {
        let Some(state) = &self.0.state else { return String::new() };
        let names = state.in_force.iter().map(|name| String::from_utf8_lossy(name).into_owned());
        names.collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn listen_is_in_force_at_once_outside_of_a_block() {
    let mut played = Played::new();
    played.query("LISTEN a", "LISTEN", 'I');
    assert_eq!(played.in_force(), "a");
    played.query("LISTEN \"My Channel\"; LISTEN B", "LISTEN,LISTEN", 'I');
    assert_eq!(played.in_force(), "My Channel a b");
    played.query("UNLISTEN a", "UNLISTEN", 'I');
    assert_eq!(played.in_force(), "My Channel b");
    played.query("UNLISTEN *", "UNLISTEN", 'I');
    assert_eq!(played.in_force(), "");
    assert_eq!(played.0.take_unwanted().len(), 3);
    assert!(played.0.state.is_none(), "nothing is kept of it");
}

#[test]
fn listen_is_in_force_when_its_block_commits_and_not_before() {
    let mut played = Played::new();
    played.query("BEGIN", "BEGIN", 'T').query("LISTEN a", "LISTEN", 'T');
    assert_eq!(played.in_force(), "");
    assert!(played.0.take_unwanted().is_empty(), "it may still be wanted");
    played.query("COMMIT", "COMMIT", 'I');
    assert_eq!(played.in_force(), "a");
}

#[test]
fn listen_of_a_block_that_rolls_back_is_not_in_force() {
    for (text, tags) in [("ROLLBACK", "ROLLBACK"), ("ABORT", "ROLLBACK"), ("END", "!")] {
        let mut played = Played::new();
        played.query("BEGIN", "BEGIN", 'T').query("LISTEN a", "LISTEN", 'T').query(text, tags, 'I');
        assert_eq!(played.in_force(), "", "{text}");
        assert_eq!(played.0.take_unwanted().len(), 1);
    }
}

#[test]
fn commit_of_a_failed_block_is_a_rollback() {
    let mut played = Played::new();
    played.query("BEGIN", "BEGIN", 'T').query("LISTEN a", "LISTEN", 'T');
    played.query("SELECT 1/0", "!", 'E').query("COMMIT", "ROLLBACK", 'I');
    assert_eq!(played.in_force(), "");
}

#[test]
fn an_error_takes_back_what_stands_in_the_same_text() {
    let mut played = Played::new();
    played.query("LISTEN a; SELECT 1/0", "LISTEN,!", 'I');
    assert_eq!(played.in_force(), "");
    let text = "BEGIN; LISTEN a; COMMIT; LISTEN b; SELECT 1/0";
    played.query(text, "BEGIN,LISTEN,COMMIT,LISTEN,!", 'I');
    assert_eq!(played.in_force(), "a");
}

#[test]
fn a_savepoint_takes_back_what_came_after_it() {
    let mut played = Played::new();
    played.query("BEGIN", "BEGIN", 'T').query("LISTEN a", "LISTEN", 'T');
    played.query("SAVEPOINT s", "SAVEPOINT", 'T').query("LISTEN b", "LISTEN", 'T');
    played.query("ROLLBACK TO SAVEPOINT s", "ROLLBACK", 'T').query("LISTEN c", "LISTEN", 'T');
    played.query("COMMIT", "COMMIT", 'I');
    assert_eq!(played.in_force(), "a c");
}

#[test]
fn a_savepoint_from_before_the_first_listen_takes_back_everything() {
    let mut played = Played::new();
    played.query("BEGIN", "BEGIN", 'T').query("SAVEPOINT s", "SAVEPOINT", 'T');
    played.query("LISTEN a", "LISTEN", 'T').query("SELECT 1/0", "!", 'E');
    played.query("ROLLBACK TO s", "ROLLBACK", 'T').query("COMMIT", "COMMIT", 'I');
    assert_eq!(played.in_force(), "");
}

#[test]
fn a_released_savepoint_leaves_its_actions_to_the_one_around_it() {
    let mut played = Played::new();
    played.query("BEGIN; LISTEN a; SAVEPOINT s; LISTEN b", "BEGIN,LISTEN,SAVEPOINT,LISTEN", 'T');
    played.query("SAVEPOINT s; LISTEN c; RELEASE s", "SAVEPOINT,LISTEN,RELEASE", 'T');
    // That of the outer s: the inner one is gone.
    played.query("ROLLBACK TO s", "ROLLBACK", 'T').query("COMMIT", "COMMIT", 'I');
    assert_eq!(played.in_force(), "a");
}

#[test]
fn unlisten_of_a_block_that_rolls_back_comes_to_nothing() {
    let mut played = Played::new();
    played.query("LISTEN a", "LISTEN", 'I');
    played.query("BEGIN; UNLISTEN *; LISTEN b", "BEGIN,UNLISTEN,LISTEN", 'T');
    played.query("ROLLBACK", "ROLLBACK", 'I');
    assert_eq!(played.in_force(), "a");
    played.query("BEGIN; UNLISTEN *; LISTEN b; COMMIT", "BEGIN,UNLISTEN,LISTEN,COMMIT", 'I');
    assert_eq!(played.in_force(), "b");
}

#[test]
fn a_chained_transaction_is_followed_further() {
    let mut played = Played::new();
    played.query("BEGIN; LISTEN a", "BEGIN,LISTEN", 'T').query("COMMIT AND CHAIN", "COMMIT", 'T');
    assert_eq!(played.in_force(), "a");
    played.query("LISTEN b", "LISTEN", 'T').query("ROLLBACK AND CHAIN", "ROLLBACK", 'T');
    played.query("LISTEN c", "LISTEN", 'T').query("COMMIT", "COMMIT", 'I');
    assert_eq!(played.in_force(), "a c");
}

#[test]
fn a_name_is_cut_as_postgresql_cuts_it() {
    let mut played = Played::new();
    played.query(&format!("LISTEN {}", "N".repeat(70)), "LISTEN", 'I');
    assert_eq!(played.in_force(), "n".repeat(63));
}

#[test]
fn in_another_encoding_the_own_server_listens() {
    let mut channels = Channels::default();
    channels.set_encoding("LATIN1");
    let verdict =
        channels.before(Effects::LISTEN, b"LISTEN a", Options::default(), By::Query, false);
    assert_eq!(verdict, Verdict::Send(Effects::LISTEN));
}

#[test]
fn more_channels_than_the_bound_are_left_to_the_own_server() {
    let mut played = Played::new();
    for number in 0..CHANNELS_MAX {
        played.query(&format!("LISTEN c{number}"), "LISTEN", 'I');
    }
    let text = b"LISTEN another";
    let verdict = played.0.before(Effects::LISTEN, text, Options::default(), By::Query, false);
    assert_eq!(verdict, Verdict::Send(Effects::LISTEN));
}

#[test]
fn a_text_with_more_statements_than_the_bound_is_left_to_the_own_server_or_refused() {
    let before = |played: &mut Played, text: &str| {
        let effects = statement::effects(text.as_bytes(), Options::default());
        played.0.before(effects, text.as_bytes(), Options::default(), By::Query, false)
    };
    let listens = "LISTEN a;".repeat(STEPS_MAX) + "LISTEN z";
    let both = "UNLISTEN *; LISTEN a;".repeat(STEPS_MAX / 2) + "LISTEN z";
    for text in [&listens, &both] {
        let verdict = before(&mut Played::new(), text);
        assert!(matches!(verdict, Verdict::Send(left) if left.intersects(Effects::LISTEN)));
    }
    let mut played = Played::new();
    played.query("LISTEN x", "LISTEN", 'I');
    assert_eq!(before(&mut played, &listens), Verdict::Send(Effects::LISTEN));
    played.0.ready(TransactionStatus::Idle);
    assert_eq!(played.in_force(), "x");
    // The own server cannot take over the channel that another listens on, and what becomes of it would be lost.
    let unlistens = "UNLISTEN a;".repeat(STEPS_MAX) + "UNLISTEN x";
    for text in [&both, &unlistens] {
        while before(&mut played, text) == Verdict::Wait {
            played.0.grant();
        }
        assert_eq!(before(&mut played, text), Verdict::Refuse);
    }
}

#[test]
fn what_makes_no_difference_in_a_block_takes_no_memory() {
    let mut played = Played::new();
    played.query("LISTEN a; LISTEN b", "LISTEN,LISTEN", 'I').query("BEGIN", "BEGIN", 'T');
    let (text, tags) =
        ("UNLISTEN c; UNLISTEN a; UNLISTEN a; LISTEN b", "UNLISTEN,UNLISTEN,UNLISTEN,LISTEN");
    for _ in 0..100 {
        played.query(text, tags, 'T').query("SAVEPOINT s", "SAVEPOINT", 'T');
    }
    assert_eq!(played.0.state.as_ref().expect("it listens").done.len(), 1);
    for _ in 0..100 {
        played.query("UNLISTEN *; UNLISTEN *", "UNLISTEN,UNLISTEN", 'T');
    }
    assert_eq!(played.0.state.as_ref().expect("it listens").done.len(), 2);
    played.query("ROLLBACK TO s", "ROLLBACK", 'T').query("COMMIT", "COMMIT", 'I');
    assert_eq!(played.in_force(), "b");
}

#[test]
fn more_portals_than_the_bound_are_left_to_the_own_server() {
    let mut played = Played::new();
    played.query("LISTEN a", "LISTEN", 'I');
    let mut bind = |number: usize| {
        let effects = Effects::LISTEN;
        let verdict = played.0.before(effects, b"LISTEN a", Options::default(), By::Bind, false);
        assert!(played.0.bind(format!("p{number}").as_bytes()));
        verdict
    };
    for number in 0..BOUND_MAX {
        assert_eq!(bind(number), Verdict::Send(Effects::NONE));
    }
    assert_eq!(bind(BOUND_MAX), Verdict::Send(Effects::LISTEN));
    let savepoint = Effects::SAVEPOINT;
    played.0.before(savepoint, b"SAVEPOINT s", Options::default(), By::Bind, false);
    assert!(!played.0.bind(b"another"), "what it is about is lost");
    played.0.ready(TransactionStatus::Idle);
    assert!(played.0.bind(b"another"));
    assert!(played.0.take_unwanted().is_empty());
}

#[test]
fn what_is_under_way_comes_before_a_channel_ends() {
    for text in ["UNLISTEN a", "UNLISTEN *", "DISCARD ALL", "LISTEN b; UNLISTEN a"] {
        let mut played = Played::new();
        let verdict = |played: &mut Played, text: &str| {
            let effects = statement::effects(text.as_bytes(), Options::default());
            played.0.before(effects, text.as_bytes(), Options::default(), By::Query, false)
        };
        assert_ne!(verdict(&mut played, "UNLISTEN a"), Verdict::Wait, "there is none");
        played.0.ready(TransactionStatus::Idle);
        played.query("LISTEN a", "LISTEN", 'I');
        assert_eq!(verdict(&mut played, text), Verdict::Wait, "{text}");
        assert!(played.0.is_taking_leave() && played.0.wanted().is_empty());
        // Whether or not that can be had.
        played.0.refuse();
        assert!(!played.0.is_taking_leave());
        played.query(text, "", 'I');
        // Each message that may end one.
        assert_eq!(verdict(&mut played, "UNLISTEN *"), Verdict::Wait, "{text}");
    }
}

#[test]
fn what_is_under_way_is_asked_for_anew_after_a_message_that_was_not_sent() {
    let mut played = Played::new();
    played.query("LISTEN a", "LISTEN", 'I');
    for _ in 0..2 {
        for _ in 0..2 {
            let effects = Effects::UNLISTEN;
            let text = b"UNLISTEN a";
            let verdict = played.0.before(effects, text, Options::default(), By::Query, false);
            assert_eq!(verdict, Verdict::Wait);
            assert!(played.0.is_taking_leave());
        }
        assert!(played.0.begins_to_take_leave() && !played.0.begins_to_take_leave());
        assert!(played.0.is_taking_leave());
        played.0.give_up();
        assert!(!played.0.is_asking());
        // Nor is it enough that it was asked for an earlier one that was not sent.
        played.0.before(Effects::UNLISTEN, b"UNLISTEN a", Options::default(), By::Query, false);
        played.0.grant();
        played.0.give_up();
    }
}

#[test]
fn a_listen_that_is_never_sent_is_left_and_asked_for_anew() {
    let mut played = Played::new();
    let before = |played: &mut Played| {
        played.0.before(Effects::LISTEN, b"LISTEN a", Options::default(), By::Query, false)
    };
    assert_eq!(before(&mut played), Verdict::Wait);
    played.0.give_up();
    assert!(!played.0.is_asking());
    assert_eq!(before(&mut played), Verdict::Wait, "nobody has said that pgweir listens");
    assert!(played.0.take_unwanted().is_empty(), "it is wanted again");
    played.0.refuse();
    played.0.give_up();
    assert_eq!(before(&mut played), Verdict::Wait, "it may be had by now");
    played.0.give_up();
    assert_eq!(played.0.take_unwanted().len(), 1);
    assert!(played.0.state.is_none(), "nothing is kept of it");
}

#[test]
fn a_block_hears_nothing_before_it_ends_a_channel() {
    let mut played = Played::new();
    played.query("LISTEN a", "LISTEN", 'I').query("BEGIN", "BEGIN", 'T');
    let effects = Effects::UNLISTEN;
    let verdict = played.0.before(effects, b"UNLISTEN a", Options::default(), By::Query, false);
    assert_eq!(verdict, Verdict::Send(effects));
}

fn translate(session: &mut Session, server: &mut ServerSide, words: &str) -> (usize, String) {
    let (mut out, input) = (Vec::new(), frontend(words));
    let mut table = Table::default();
    let done = session.translate(server, &mut table, &LIMITS, &input, &mut out).expect("no fault");
    (done.consumed, frontend_words(&out))
}

fn listening_client() -> Session {
    let mut session = client(1);
    session.learn_of_server([("client_encoding", "UTF8")]);
    session
}

#[test]
fn nothing_is_sent_before_pgweir_listens_and_nobody_is_pinned() {
    let (mut session, mut server) = (listening_client(), ServerSide::default());
    let words = "Query LISTEN a, Query SELECT 1";
    assert_eq!(translate(&mut session, &mut server, words), (0, String::new()));
    assert_eq!(session.channels.wanted(), [Name::from(&b"a"[..])]);
    session.channels.grant();
    let (_, sent) = translate(&mut session, &mut server, words);
    assert_eq!(sent, "Query LISTEN a", "the next batch waits for the answer");
    assert_eq!(session.pin, None);
    assert!(server.may_listen);
}

#[test]
fn a_listen_that_is_skipped_is_not_waited_for() {
    let (mut session, mut server) = (listening_client(), ServerSide::default());
    let (used, sent) = translate(&mut session, &mut server, "Bind s, Query LISTEN a, Sync");
    assert_eq!(sent, "Bind s");
    assert_eq!(session.channels.wanted().len(), 1);
    assert!(server.pipeline.on_error(|_, _| ()).is_ok());
    let words = "Query LISTEN a, Sync";
    assert_eq!(translate(&mut session, &mut server, words).1, "Sync", "behind {used} bytes");
    assert!(session.channels.wanted().is_empty());
    session.channels.ready(TransactionStatus::Idle);
    assert_eq!(session.channels.take_unwanted().len(), 1);
}

#[test]
fn a_prepared_listen_waits_with_its_whole_batch() {
    let (mut session, mut server) = (listening_client(), ServerSide::default());
    let words = "Parse =LISTEN a, Bind, Execute, Sync";
    assert_eq!(translate(&mut session, &mut server, words), (0, String::new()));
    session.channels.grant();
    assert_eq!(translate(&mut session, &mut server, words).1, words);
    session.channels.completed(b"LISTEN\0");
    session.channels.ready(TransactionStatus::Idle);
    assert!(session.channels.is_in_force(b"a"));
    assert_eq!(session.pin, None);
}

#[test]
fn a_listen_that_was_prepared_before_waits_at_its_bind() {
    let (mut session, mut server) = (listening_client(), ServerSide::default());
    let parse = "Parse s=LISTEN a, Sync";
    translate(&mut session, &mut server, parse);
    session.channels.grant();
    translate(&mut session, &mut server, parse);
    server.pipeline = Pipeline::default();
    assert_eq!(session.channels.take_unwanted().len(), 1, "it was not executed");
    assert_eq!(translate(&mut session, &mut server, "Bind s, Execute, Sync").0, 0);
    session.channels.grant();
    translate(&mut session, &mut server, "Bind s, Execute, Sync");
    session.channels.completed(b"LISTEN\0");
    session.channels.ready(TransactionStatus::Idle);
    assert!(session.channels.is_in_force(b"a"));
}

#[test]
fn where_pgweir_cannot_listen_the_client_is_pinned() {
    let (mut session, mut server) = (listening_client(), ServerSide::default());
    assert_eq!(translate(&mut session, &mut server, "Query LISTEN a").0, 0);
    session.channels.refuse();
    assert_eq!(translate(&mut session, &mut server, "Query LISTEN a").1, "Query LISTEN a");
    // The server is asked, and says that it listens.
    assert!(session.is_examination_due() && server.may_listen);
}

#[test]
fn unlisten_of_a_client_that_listens_on_nothing_costs_nothing() {
    let (mut session, mut server) = (listening_client(), ServerSide::default());
    assert_eq!(translate(&mut session, &mut server, "Query UNLISTEN *").1, "Query UNLISTEN *");
    assert!(session.channels.state.is_none() && !server.may_listen && session.pin.is_none());
}

#[test]
fn what_a_batch_begins_with_is_asked_for_without_a_server() {
    let asks =
        |session: &mut Session, words: &str| session.asks_first(&frontend(words), &LIMITS, || true);
    let mut session = listening_client();
    for words in ["Query SELECT 1", "Query UNLISTEN *", "Parse =LOCK t, Sync", "Bind , Sync"] {
        assert!(!asks(&mut session, words), "{words}");
        assert!(session.channels.state.is_none(), "{words}");
    }
    for words in ["Query  listen a; SELECT 1", "Parse =LISTEN a, Bind, Execute, Sync"] {
        assert!(asks(&mut session, words) && asks(&mut session, words), "{words}");
        assert_eq!(session.channels.wanted(), [Name::from(&b"a"[..])]);
        session.channels.give_up();
    }
    assert!(!session.asks_first(&frontend("Query LISTEN a"), &LIMITS, || false), "nor by whom");
    assert!(asks(&mut session, "Query LISTEN a"));
    session.channels.grant();
    assert!(!asks(&mut session, "Query LISTEN a"), "it is heard");
    let mut server = ServerSide::default();
    assert_eq!(translate(&mut session, &mut server, "Query LISTEN a").1, "Query LISTEN a");
    session.channels.completed(b"LISTEN\0");
    session.channels.ready(TransactionStatus::Idle);
    // Of a client that listens, each text is looked at.
    for words in ["Query SELECT 1; UNLISTEN a", "Parse =UNLISTEN a, Sync", "Query DISCARD ALL"] {
        assert!(asks(&mut session, words), "{words}");
        assert!(session.channels.begins_to_take_leave());
        session.channels.give_up();
    }
}
