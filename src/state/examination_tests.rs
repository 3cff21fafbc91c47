//! What is asked, when, and what is concluded from the answers of a server.

use super::*;
use crate::state::code_question::CodeQuestion;
use crate::state::prelude;
use crate::state::reply::Event;
use crate::state::test_support::{LIMITS, World, backend, client, frontend_words, settings, sort};
use crate::wire::BackendTag;

const DONE: &str = "CommandComplete ReadyForQuery";

fn data_row(columns: &[Option<&str>]) -> Vec<u8> {
    let mut out = Vec::new();
    encode::message(&mut out, BackendTag::DATA_ROW.0, |out| {
        out.extend_from_slice(&u16::try_from(columns.len()).expect("few").to_be_bytes());
        for column in columns {
            let length = column.map_or(-1, |text| i32::try_from(text.len()).expect("short"));
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(column.unwrap_or_default().as_bytes());
        }
    });
    out
}

/// What comes before it: whom the session acts as is asked for, and it acts as the login.
fn preliminaries(known: bool) -> Vec<u8> {
    let parsed = if known { "" } else { "ParseComplete " };
    backend(&format!("{parsed}BindComplete CommandComplete ").repeat(2))
}

/// The answer with these rows.
fn answer(rows: &[(&str, &str, Option<&str>)]) -> Vec<u8> {
    let mut out = backend("ParseComplete BindComplete");
    for (kind, name, value) in rows {
        out.extend(data_row(&[Some(kind), Some(name), *value]));
    }
    out.extend(backend(DONE));
    out
}

struct Case {
    world: World,
    client: Session,
    server: ServerSide,
    lose_settings: bool,
    /// It was asked before.
    asked: bool,
}

impl Case {
    fn of(client: Session) -> Self {
        Self {
            world: World::default(),
            client,
            server: ServerSide::default(),
            lose_settings: false,
            asked: false,
        }
    }

    /// Runs a query that succeeds; whether the server is to be asked then.
    fn query(&mut self, sql: &str) -> bool {
        let mut query = Vec::new();
        encode::query(&mut query, sql);
        self.world.send_bytes(&mut self.client, &mut self.server, &query);
        sort(&mut self.client, &mut self.server, &backend(DONE), |_| ());
        self.client.is_examination_due()
    }

    /// Asks, and is answered so. Yields what was sent.
    fn examine(&mut self, reply: &[u8]) -> String {
        let mut out = Vec::new();
        self.client.examine(&mut self.server, "app", ["code.name"], &mut out);
        assert!(self.client.is_examined() && !self.server.pipeline.is_settled());
        let mut examined = 0;
        let known = std::mem::replace(&mut self.asked, true);
        let reply = [preliminaries(known).as_slice(), reply].concat();
        let forwarded = sort(&mut self.client, &mut self.server, &reply, |event| {
            assert_eq!(event, Event::Examined, "nothing else is news");
            examined += 1;
        });
        assert!(forwarded.is_empty(), "the client sees nothing of it");
        assert_eq!(examined, 1);
        self.client.conclude(&mut self.server, false, self.lose_settings);
        assert!(self.server.pipeline.is_settled() && !self.client.is_examined());
        frontend_words(&out)
    }
}

#[test]
fn statements_without_state_are_not_looked_into() {
    let mut case = Case::of(client(1));
    for sql in ["SELECT 1", "INSERT INTO t VALUES (1)", "SET LOCAL work_mem = '1MB'", "BEGIN"] {
        assert!(!case.query(sql), "{sql}");
        assert!(!case.client.keeps_server(), "{sql}");
    }
}

#[test]
fn what_was_set_follows_and_the_server_is_free() {
    let mut case = Case::of(client(1));
    assert!(case.query("SET work_mem = '1MB'; SET my.tenant = 7"));
    let rows = [
        ("s", "work_mem", Some("1MB")),
        ("s", "my.tenant", Some("7")),
        ("s", "role", Some("none")),
    ];
    let sent = case.examine(&answer(&rows));
    assert!(sent.starts_with("Parse pgweir_fffffffffffffffb=SELECT"), "{sent}");
    assert!(sent.contains("Execute, Parse pgweir_ffffffffffffffff=SELECT"), "{sent}");
    assert!(sent.ends_with("Bind pgweir_ffffffffffffffff, Execute, Sync"), "{sent}");
    assert!(!case.client.keeps_server());
    assert_eq!(case.client.settings, settings(&[("work_mem", "1MB"), ("my.tenant", "7")]));
    assert_eq!(case.server.applied, case.client.settings);
    // Nothing to tell that server, and everything to another.
    let (mut out, mut other) = (Vec::new(), ServerSide::default());
    prelude::write(&mut case.server, &case.client.settings, &LIMITS, &mut out);
    assert!(out.is_empty());
    prelude::write(&mut other, &case.client.settings, &LIMITS, &mut out);
    assert!(!out.is_empty());
}

#[test]
fn what_is_left_pins_and_is_asked_for_ever_more_seldom() {
    let mut case = Case::of(client(1));
    assert!(case.query("CREATE TEMP TABLE t (id int)"));
    let rows = answer(&[("k", "temporary_object", None)]);
    // The statement of the question is there from now on.
    let parsed = &rows[backend("ParseComplete").len()..];
    case.examine(&rows);
    assert_eq!(case.client.pin, Some(PinReason::TemporaryObject));
    let mut asked = Vec::new();
    for transaction in 1..=20 {
        if case.query("SELECT 1") {
            asked.push(transaction);
            case.examine(parsed);
        }
    }
    assert_eq!(asked, [1, 3, 7, 15]);
    assert!(case.query("DROP TABLE t"), "that may be the end of it");
    case.examine(&answer(&[])[backend("ParseComplete").len()..]);
    assert!(!case.client.keeps_server());
}

#[test]
fn an_answer_that_is_not_understood_pins() {
    for reply in [
        backend("ErrorResponse ReadyForQuery"),
        answer(&[("k", "no such reason", None)]),
        answer(&[("x", "work_mem", Some("1MB"))]),
        answer(&[("s", "no name", Some("1MB"))]),
        answer(&[("s", "search_path", Some(&"x".repeat(SETTINGS_BYTES_MAX)))]),
        [backend("ParseComplete BindComplete DataRow"), backend(DONE)].concat(),
    ] {
        let mut case = Case::of(client(1));
        assert!(case.query("SET work_mem = '1MB'"));
        case.examine(&reply);
        assert_eq!(case.client.pin, Some(PinReason::Setting));
    }
}

#[test]
fn a_reset_brings_back_the_settings_of_the_startup() {
    let startup = settings(&[("timezone", "Asia/Tokyo"), ("my.tenant", "7")]);
    let mut case = Case::of(Session::new(1, startup.clone()));
    assert!(case.query("RESET ALL; SELECT 1"));
    case.examine(&answer(&[("s", "my.tenant", Some(""))]));
    assert_eq!(case.client.settings, startup);
    assert!(case.client.take_retell() && !case.client.take_retell());
    assert!(case.query("RESET timezone; SELECT 1"));
    case.examine(&answer(&[("s", "my.tenant", Some("8"))])[backend("ParseComplete").len()..]);
    assert_eq!(case.client.settings.get("timezone"), Some("Asia/Tokyo"));
    assert_eq!(case.client.settings.get("my.tenant"), Some("8"));
}

/// What leads to none on a server leads to that of the startup, unless the client meant none.
#[test]
fn a_role_of_the_startup_is_left_by_who_becomes_another() {
    let with_role = || Case::of(Session::new(1, settings(&[("role", "r")])));
    let none = ("s", "role", Some("none"));
    let other = ("s", "session_authorization", Some("u"));
    for (sql, rows, role) in [
        ("DO $$ BEGIN PERFORM f(); END $$", &[none, other][..], "none"),
        ("DO $$ BEGIN PERFORM f(); END $$", &[none], "r"),
        ("SET SESSION AUTHORIZATION u", &[none, other], "none"),
        ("SET SESSION AUTHORIZATION app", &[none], "none"),
        ("SET SESSION AUTHORIZATION app; RESET SESSION AUTHORIZATION", &[none], "r"),
        ("SET SESSION AUTHORIZATION nobody", &[("s", "role", Some("r"))], "r"),
    ] {
        let mut case = with_role();
        assert!(case.query(sql));
        case.examine(&answer(rows));
        assert!(!case.client.keeps_server());
        assert_eq!(case.client.settings.get("role"), Some(role), "{sql}");
        let acts = rows.contains(&other).then_some("u");
        assert_eq!(case.client.settings.get("session_authorization"), acts, "{sql}");
    }
    let mut case = with_role();
    case.query("SET SESSION AUTHORIZATION u");
    case.examine(&answer(&[none, other]));
    case.query("DO $$ BEGIN PERFORM f(); END $$");
    case.examine(&answer(&[none])[backend("ParseComplete").len()..]);
    assert_eq!(case.client.settings, settings(&[("role", "r")]), "it is itself again");
}

#[test]
fn a_role_that_is_a_default_is_left_where_there_is_none() {
    let none = ("s", "role", Some("none"));
    for (rows, role) in [(&[none, ("d", "role", None)][..], Some("none")), (&[none], None)] {
        let mut case = Case::of(client(1));
        assert!(case.query("SET ROLE NONE"));
        case.examine(&answer(rows));
        assert!(!case.client.keeps_server());
        assert_eq!(case.client.settings.get("role"), role);
        assert_eq!(case.server.applied.get("role"), role);
    }
}

/// Of the two the one depends on the other, and is perhaps gone by now.
#[test]
fn a_server_that_acts_as_another_with_a_role_is_told_anew() {
    let mut case = Case::of(client(1));
    assert!(case.query("SET SESSION AUTHORIZATION u; SET ROLE r"));
    let rows = [("s", "role", Some("r")), ("s", "session_authorization", Some("u"))];
    case.examine(&answer(&rows));
    let mut out = Vec::new();
    prelude::write(&mut case.server, &case.client.settings, &LIMITS, &mut out);
    let told = frontend_words(&out);
    let resets = "Parse =RESET role, Bind, Execute, Parse =RESET session_authorization, Bind, Execute, \
                  Parse =RESET ALL, Bind, Execute, ";
    assert!(told.starts_with(resets), "{told}");
    assert!(told.contains("set_config($1,$2,false),pg_catalog.set_config($3,$4,false)"), "{told}");
}

#[test]
fn custom_settings_that_nobody_can_name_are_wiped_before_the_next_client() {
    let mut case = Case::of(client(1));
    assert!(case.query("DO $$ BEGIN PERFORM f(); END $$"));
    case.examine(&answer(&[]));
    assert!(!case.client.keeps_server());
    let mut out = Vec::new();
    prelude::write(&mut case.server, &settings(&[]), &LIMITS, &mut out);
    assert_eq!(
        frontend_words(&out),
        "Parse =RESET ALL, Bind, Execute, Parse pgweir_guard_1=, Sync, \
         Describe pgweir_guard_1, Close pgweir_guard_1"
    );
}

#[test]
fn a_name_that_is_put_together_keeps_its_client() {
    let mut case = Case::of(client(1));
    assert!(case.query("DO $$ BEGIN EXECUTE 'SET my.' || f(); END $$"));
    case.examine(&answer(&[]));
    assert_eq!(case.client.pin, Some(PinReason::Setting));
    assert!(!case.query("SELECT 1") && case.client.keeps_server());
}

#[test]
fn settings_that_cannot_follow_pin_unless_they_may_be_lost() {
    for lose_settings in [false, true] {
        let mut case = Case::of(client(1));
        case.lose_settings = lose_settings;
        assert!(case.query("DO $$ BEGIN EXECUTE 'SET ' || 'my' || '.x = 1'; END $$"));
        case.examine(&answer(&[("s", "work_mem", Some("5MB"))]));
        assert_eq!(case.client.keeps_server(), !lose_settings);
        assert_eq!(case.server.wipe, lose_settings, "nobody else finds the other");
        assert_eq!(case.client.settings.get("work_mem"), Some("5MB"));
    }
}

#[test]
fn the_statement_that_pinned_is_told_without_its_literals() {
    let mut case = Case::of(client(1));
    case.query("SET work_mem = '5MB'");
    case.query("CREATE TEMP TABLE scratch AS SELECT 'secret' AS x");
    case.query("SELECT 'more secrets'");
    case.examine(&answer(&[("k", "temporary_object", None)]));
    let cause = case.client.take_cause_of_pin();
    assert_eq!(cause.as_deref(), Some("create temp table scratch as select $1 as x"));
    // Who knows what is a literal in this.
    let mut case = Case::of(client(1));
    case.query("SELECT 'secret");
    case.examine(&answer(&[("k", "temporary_object", None)]));
    assert_eq!(case.client.take_cause_of_pin(), None);
}

#[test]
fn the_code_in_the_database_is_asked_for_ahead_of_that() {
    let row = data_row(&[Some("t"), Some("f"), None]);
    let columns = vec![Some("t".to_owned()), Some("f".to_owned()), None];
    for (reply, told) in [
        (row.clone(), Some(columns)),
        (Vec::new(), None),
        (backend("ErrorResponse"), None),
        ([row, backend("ErrorResponse")].concat(), None),
    ] {
        let mut case = Case::of(client(1));
        assert!(case.query("SET work_mem = '1MB'"));
        let mut out = Vec::new();
        let question = CodeQuestion { text: "SELECT 1", as_of: 0 };
        case.client.ask_for_code(&mut case.server, question, &mut out);
        assert_eq!(frontend_words(&out), "Query SELECT 1");
        assert!(case.client.is_examined() && !case.server.pipeline.is_settled());
        let end = if told.is_some() { DONE } else { "ReadyForQuery" };
        let reply = [&backend("CommandComplete")[..], &reply, &backend(end)].concat();
        let forwarded = sort(&mut case.client, &mut case.server, &reply, |event| {
            assert_eq!(event, Event::Examined);
        });
        assert!(forwarded.is_empty(), "the client sees nothing of it");
        assert_eq!(case.client.take_told_of_code().map(|told| told.row), Some(told));
        assert!(!case.client.is_examined() && case.client.keeps_server());
        case.examine(&answer(&[]));
        assert!(!case.client.keeps_server());
    }
}

#[test]
fn only_channels_on_which_pgweir_does_not_listen_pin() {
    let rows = |names: &[&str]| {
        let rows: Vec<_> = names.iter().map(|name| ("k", "listen", Some(*name))).collect();
        answer(&rows)
    };
    for (listened, pin) in [(&["b"][..], true), (&["a", "b"], true), (&["a"], false), (&[], false)]
    {
        let mut session = client(1);
        session.learn_of_server([("client_encoding", "UTF8")]);
        let mut case = Case::of(session);
        let mut listen = Vec::new();
        encode::query(&mut listen, "LISTEN a");
        assert!(case.client.asks_first(&listen, &LIMITS, || true));
        case.client.channels.grant();
        case.world.send_bytes(&mut case.client, &mut case.server, &listen);
        case.client.channels.completed(b"LISTEN\0");
        sort(&mut case.client, &mut case.server, &backend(DONE), |_| ());
        assert!(case.client.channels.is_in_force(b"a"));
        assert!(case.query("DO $$ BEGIN PERFORM f(); END $$"));
        // It may have been lent to the client only now.
        case.server.may_listen = false;
        case.examine(&rows(listened));
        assert_eq!(case.client.pin, pin.then_some(PinReason::Listen), "{listened:?}");
        assert_eq!(case.server.may_listen, !listened.is_empty(), "it is told to stop");
    }
}
