//! Transcripts of the ledger: what is sent, what comes back, and what the client sees of it.

use super::*;
use crate::wire::encode;

#[path = "pipeline_copy_tests.rs"]
mod copy;
#[path = "pipeline_error_tests.rs"]
mod errors;

/// A ledger and what became of what was put on it.
#[derive(Default)]
struct Player {
    pipeline: Pipeline,
    /// What the client was sent, in order.
    seen: Vec<String>,
    /// What was swallowed, in order.
    swallowed: Vec<String>,
    /// What was taken back, in order.
    undone: Vec<String>,
}

impl Player {
    fn step(&mut self, step: &str) -> Result<(), Surprise> {
        let mut words = step.split_whitespace();
        let side = words.next().expect("a side");
        let name = words.next().expect("a message");
        let argument = words.next();
        match side {
            "F" => self.frontend(name, argument, Fate::Forward),
            "W" => self.frontend(name, argument, Fate::Swallow),
            "A" => self.frontend(name, argument, Fate::Prelude),
            "S" => self.synthesized(name, argument),
            "B" => self.backend(name, argument)?,
            other => panic!("no such side: {other}"),
        }
        self.drain();
        Ok(())
    }

    fn frontend(&mut self, name: &str, argument: Option<&str>, fate: Fate) {
        let expected = match name {
            "Parse" => Expected::ParseComplete,
            "Bind" => Expected::BindComplete,
            "Describe" => Expected::Description,
            "Execute" => Expected::Execution,
            "Close" => Expected::CloseComplete,
            "Sync" => Expected::ReadyForQuery,
            "Query" => Expected::Query,
            "FunctionCall" => Expected::FunctionCall,
            "CopyDone" | "CopyFail" => return self.pipeline.push_copy_end(),
            "CopyData" | "Flush" => return,
            other => panic!("no such message: {other}"),
        };
        self.pipeline.push(expected, fate, undo(name, argument));
    }

    fn synthesized(&mut self, name: &str, argument: Option<&str>) {
        let bytes: &'static [u8] = match name {
            "Parse" => &encode::PARSE_COMPLETE,
            "Close" => &encode::CLOSE_COMPLETE,
            other => panic!("never synthesised: {other}"),
        };
        self.pipeline.push_synthesized(bytes, undo(name, argument));
    }

    fn backend(&mut self, name: &str, argument: Option<&str>) -> Result<(), Surprise> {
        let fate = match name {
            "ErrorResponse" => {
                let undone = &mut self.undone;
                self.pipeline.on_error(|undo, how| {
                    let what = describe(&undo);
                    if !what.is_empty() {
                        undone.push(format!("{what} {how:?}"));
                    }
                })?
            }
            "ReadyForQuery" => {
                let byte = argument.expect("a status").as_bytes()[0];
                let status = TransactionStatus::from_byte(byte).expect("a status");
                self.pipeline.on_ready(status)?
            }
            "NoticeResponse" | "ParameterStatus" => self.pipeline.on_asynchronous(),
            other => self.pipeline.on_reply(tag(other))?,
        };
        if fate == Fate::Forward { &mut self.seen } else { &mut self.swallowed }.push(name.into());
        Ok(())
    }

    fn drain(&mut self) {
        while let Some(bytes) = self.pipeline.next_synthesized() {
            let name = if bytes == encode::PARSE_COMPLETE { "parse" } else { "close" };
            self.seen.push(name.into());
        }
    }

    fn seen(&self) -> String {
        self.seen.join(" ")
    }
}

fn undo(name: &str, argument: Option<&str>) -> Undo {
    let Some(argument) = argument else { return Undo::Nothing };
    match name {
        "Parse" if argument == "unnamed" => Undo::Unnamed(None),
        "Parse" => Undo::Parsed { name: argument.as_bytes().into(), id: 1 },
        _ => Undo::Injected(argument.parse().expect("a number")),
    }
}

fn describe(undo: &Undo) -> String {
    match undo {
        Undo::Parsed { name, .. } => String::from_utf8_lossy(name).into_owned(),
        Undo::Injected(id) => id.to_string(),
        Undo::Unnamed(_) => "unnamed".into(),
        _ => String::new(),
    }
}

const TAGS: [(&str, BackendTag); 25] = [
    ("Authentication", BackendTag::AUTHENTICATION),
    ("BackendKeyData", BackendTag::BACKEND_KEY_DATA),
    ("BindComplete", BackendTag::BIND_COMPLETE),
    ("CloseComplete", BackendTag::CLOSE_COMPLETE),
    ("CommandComplete", BackendTag::COMMAND_COMPLETE),
    ("CopyBothResponse", BackendTag::COPY_BOTH_RESPONSE),
    ("CopyData", BackendTag::COPY_DATA),
    ("CopyDone", BackendTag::COPY_DONE),
    ("CopyInResponse", BackendTag::COPY_IN_RESPONSE),
    ("CopyOutResponse", BackendTag::COPY_OUT_RESPONSE),
    ("DataRow", BackendTag::DATA_ROW),
    ("EmptyQueryResponse", BackendTag::EMPTY_QUERY_RESPONSE),
    ("FunctionCallResponse", BackendTag::FUNCTION_CALL_RESPONSE),
    ("NegotiateProtocolVersion", BackendTag::NEGOTIATE_PROTOCOL_VERSION),
    ("NoData", BackendTag::NO_DATA),
    ("ParameterDescription", BackendTag::PARAMETER_DESCRIPTION),
    ("ParseComplete", BackendTag::PARSE_COMPLETE),
    ("PortalSuspended", BackendTag::PORTAL_SUSPENDED),
    ("RowDescription", BackendTag::ROW_DESCRIPTION),
    ("Unknown0", BackendTag(0)),
    ("UnknownB", BackendTag(b'B')),
    ("UnknownQ", BackendTag(b'Q')),
    ("Unknown~", BackendTag(b'~')),
    ("Unknown9", BackendTag(b'9')),
    ("UnknownFF", BackendTag(0xff)),
];

fn tag(name: &str) -> BackendTag {
    let found = TAGS.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("no such reply: {name}")).1
}

/// Plays steps such as `F Query, B CommandComplete, B ReadyForQuery I`. `F` is the client's message, `W` one
/// that pgweir put between, `A` one it sent ahead, `S` one it answers itself, and `B` the server's reply.
fn play(script: &str) -> Player {
    let mut player = Player::default();
    for step in script.split(',').map(str::trim) {
        if let Err(surprise) = player.step(step) {
            panic!("surprise at {step} of {script}: {surprise}");
        }
    }
    player
}

/// Plays steps of which the last one is a surprise.
fn surprise(script: &str) -> Surprise {
    let (before, last) = script.rsplit_once(',').unwrap_or(("", script));
    let mut player = if before.is_empty() { Player::default() } else { play(before) };
    match player.step(last.trim()) {
        Ok(()) => panic!("no surprise at the end of {script}"),
        Err(surprise) => surprise,
    }
}

/// Plays steps after which the server owes nothing.
fn settles(script: &str, seen: &str) {
    let player = play(script);
    assert_eq!(player.seen(), seen, "{script}");
    assert!(player.pipeline.is_settled(), "not settled after {script}");
    assert!(player.pipeline.is_answered(), "not answered after {script}");
    assert!(!player.pipeline.is_tainted(), "tainted after {script}");
}

#[test]
fn a_fresh_server_owes_nothing() {
    let pipeline = Pipeline::default();
    assert!(pipeline.is_settled() && pipeline.is_answered() && pipeline.waits_for_client());
    assert!(!pipeline.is_tainted() && !pipeline.is_skipping() && pipeline.has_room());
}

#[test]
fn a_simple_query_ends_with_its_ready_for_query() {
    settles(
        "F Query, B RowDescription, B DataRow, B DataRow, B CommandComplete, B ReadyForQuery I",
        "RowDescription DataRow DataRow CommandComplete ReadyForQuery",
    );
    settles("F Query, B EmptyQueryResponse, B ReadyForQuery I", "EmptyQueryResponse ReadyForQuery");
    settles(
        "F Query, B CommandComplete, B RowDescription, B DataRow, B CommandComplete, \
         B ErrorResponse, B ReadyForQuery I",
        "CommandComplete RowDescription DataRow CommandComplete ErrorResponse ReadyForQuery",
    );
}

#[test]
fn an_extended_batch_is_answered_message_by_message() {
    settles(
        "F Parse, F Describe, F Bind, F Describe, F Execute, F Close, F Sync, B ParseComplete, \
         B ParameterDescription, B RowDescription, B BindComplete, B NoData, B DataRow, \
         B CommandComplete, B CloseComplete, B ReadyForQuery I",
        "ParseComplete ParameterDescription RowDescription BindComplete NoData DataRow \
         CommandComplete CloseComplete ReadyForQuery",
    );
    settles(
        "F Bind, F Execute, F Execute, F Sync, B BindComplete, B DataRow, B PortalSuspended, \
         B DataRow, B CommandComplete, B ReadyForQuery I",
        "BindComplete DataRow PortalSuspended DataRow CommandComplete ReadyForQuery",
    );
}

#[test]
fn a_query_inside_a_batch_is_answered_in_its_place_or_skipped_with_it() {
    settles(
        "F Parse, F Query, F Bind, F Sync, B ParseComplete, B CommandComplete, \
         B ReadyForQuery I, B BindComplete, B ReadyForQuery I",
        "ParseComplete CommandComplete ReadyForQuery BindComplete ReadyForQuery",
    );
    settles(
        "F Parse, F Query, F FunctionCall, F Sync, B ErrorResponse, B ReadyForQuery I",
        "ErrorResponse ReadyForQuery",
    );
}

#[test]
fn what_comes_behind_the_end_of_a_batch_is_not_what_its_answer_waits_for() {
    for script in ["F Query, F Parse", "F Execute, F Sync, F Bind"] {
        assert!(!play(script).pipeline.waits_for_client(), "{script}");
    }
    assert!(play("F Query, F Parse, B ReadyForQuery I").pipeline.waits_for_client());
}

#[test]
fn an_open_block_keeps_the_server_until_it_ends() {
    for status in ["T", "E"] {
        let player = play(&format!("F Query, B CommandComplete, B ReadyForQuery {status}"));
        assert!(!player.pipeline.is_settled());
        assert!(player.pipeline.is_answered());
        assert!(player.pipeline.waits_for_client());
    }
    settles(
        "F Query, B CommandComplete, B ReadyForQuery T, F Query, B CommandComplete, \
         B ReadyForQuery I",
        "CommandComplete ReadyForQuery CommandComplete ReadyForQuery",
    );
}

#[test]
fn a_batch_without_its_sync_is_not_over_though_all_of_it_is_answered() {
    // The implicit transaction of the batch ends with the Sync.
    let copied = "F Bind, F Execute, F Sync, B BindComplete, B CopyInResponse, F CopyDone, \
                  B CommandComplete";
    for script in [
        "F Parse, F Describe, B ParseComplete, B NoData",
        "F Query, F Bind, F Execute, B CommandComplete, B ReadyForQuery I, B BindComplete, \
         B CommandComplete",
        "F Sync, S Close, B ReadyForQuery I",
        copied,
    ] {
        let player = play(script);
        assert!(player.pipeline.owes_nothing(), "{script}");
        assert!(!player.pipeline.is_settled() && !player.pipeline.is_answered(), "{script}");
        assert!(!player.pipeline.is_tainted() && player.pipeline.waits_for_client(), "{script}");
        let player = play(&format!("{script}, F Sync, B ReadyForQuery I"));
        assert!(player.pipeline.is_settled(), "{script}");
    }
    let ended = "F Parse, B ParseComplete, F Query, B CommandComplete, B ReadyForQuery I";
    assert!(play(ended).pipeline.is_settled());
}

#[test]
fn a_function_call_is_answered_once() {
    settles(
        "F FunctionCall, B FunctionCallResponse, B ReadyForQuery I",
        "FunctionCallResponse ReadyForQuery",
    );
    settles("F FunctionCall, B ErrorResponse, B ReadyForQuery I", "ErrorResponse ReadyForQuery");
}

#[test]
fn synthesised_replies_come_when_it_is_their_turn() {
    settles(
        "F Parse, S Parse a, F Bind, S Close, F Execute, F Sync, B ParseComplete, \
         B BindComplete, B CommandComplete, B ReadyForQuery I",
        "ParseComplete parse BindComplete close CommandComplete ReadyForQuery",
    );
    settles(
        "S Parse a, F Bind, F Execute, F Sync, S Close, F Sync, B BindComplete, B DataRow, \
         B CommandComplete, B ReadyForQuery I, B ReadyForQuery I",
        "parse BindComplete DataRow CommandComplete ReadyForQuery close ReadyForQuery",
    );
}

#[test]
fn a_synthesised_reply_behind_an_error_is_skipped() {
    let player = play(
        "F Bind, S Parse a, S Close, F Sync, S Close, F Sync, B ErrorResponse, \
         B ReadyForQuery I, B ReadyForQuery I",
    );
    assert_eq!(player.seen(), "ErrorResponse ReadyForQuery close ReadyForQuery");
    assert_eq!(player.undone, ["a Skipped"]);
}

#[test]
fn what_failed_and_what_was_skipped_is_taken_back_last_first() {
    let player = play(
        "F Parse a, F Parse b, W Close 7, F Parse unnamed, F Bind, F Sync, F Parse c, \
         B ParseComplete, B ErrorResponse",
    );
    assert_eq!(player.undone, ["unnamed Skipped", "7 Skipped", "b Failed"]);
}

#[test]
fn replies_to_what_pgweir_sent_are_swallowed() {
    let player = play(
        "A Parse, A Bind, A Execute, A Sync, W Parse, F Bind, F Execute, F Sync, \
         B ParseComplete, B BindComplete, B ParameterStatus, B NoticeResponse, B DataRow, \
         B CommandComplete, B ReadyForQuery I, B ParseComplete, B NoticeResponse, \
         B BindComplete, B CommandComplete, B ReadyForQuery I",
    );
    assert_eq!(player.seen(), "NoticeResponse BindComplete CommandComplete ReadyForQuery");
    assert_eq!(
        player.swallowed.join(" "),
        "ParseComplete BindComplete ParameterStatus NoticeResponse DataRow CommandComplete \
         ReadyForQuery ParseComplete"
    );
    assert!(player.pipeline.is_settled());
}

#[test]
fn the_last_words_of_a_server_are_the_clients() {
    assert_eq!(play("B ErrorResponse").seen(), "ErrorResponse");
    assert_eq!(
        play("B NoticeResponse, B ParameterStatus").seen(),
        "NoticeResponse ParameterStatus"
    );
}

/// Every reply that is in place for each message, first.
const IN_PLACE: [(&str, &[&str]); 8] = [
    ("Parse", &["ParseComplete"]),
    ("Bind", &["BindComplete"]),
    ("Describe", &["ParameterDescription", "RowDescription", "NoData"]),
    (
        "Execute",
        &[
            "DataRow",
            "CommandComplete",
            "EmptyQueryResponse",
            "PortalSuspended",
            "CopyInResponse",
            "CopyOutResponse",
            "CopyData",
            "CopyDone",
        ],
    ),
    ("Close", &["CloseComplete"]),
    ("Sync", &[]),
    (
        "Query",
        &[
            "RowDescription",
            "DataRow",
            "CommandComplete",
            "EmptyQueryResponse",
            "CopyInResponse",
            "CopyOutResponse",
            "CopyData",
            "CopyDone",
        ],
    ),
    ("FunctionCall", &["FunctionCallResponse"]),
];

#[test]
fn every_reply_that_is_not_due_is_a_surprise() {
    for (message, in_place) in IN_PLACE {
        for (reply, tag) in TAGS {
            let script = format!("F {message}, B {reply}");
            if in_place.contains(&reply) {
                assert_eq!(play(&script).seen(), reply, "{script}");
            } else {
                assert_eq!(surprise(&script), Surprise::NotDue { tag: tag.0 }, "{script}");
            }
        }
    }
    for (reply, tag) in TAGS {
        assert_eq!(surprise(&format!("B {reply}")), Surprise::NotDue { tag: tag.0 });
    }
}

#[test]
fn a_ready_for_query_that_is_not_due_is_a_surprise() {
    let not_due = Surprise::NotDue { tag: b'Z' };
    assert_eq!(surprise("B ReadyForQuery I"), not_due);
    assert_eq!(surprise("F Parse, B ReadyForQuery I"), not_due);
    assert_eq!(surprise("F Execute, F Sync, B ReadyForQuery I"), not_due);
    assert_eq!(
        surprise("F Query, B CommandComplete, B ReadyForQuery I, B ReadyForQuery I"),
        not_due
    );
}

#[test]
fn a_client_too_far_ahead_waits() {
    let mut pipeline = Pipeline::default();
    for _ in 0..REPLIES_DUE_MAX {
        assert!(pipeline.has_room());
        pipeline.push(Expected::ReadyForQuery, Fate::Forward, Undo::Nothing);
    }
    assert!(!pipeline.has_room());
    assert!(pipeline.on_ready(TransactionStatus::Idle).is_ok());
    assert!(pipeline.has_room());
}
