//! How pgweir reads SQL, against PostgreSQL's own parser over PostgreSQL's own regression scripts: it cuts texts at
//! the same places, and takes no statement for less than it is.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "helpers of tests"
)]

mod support;

use pgweir::state::statement::{Command, Effects, Options, Statement, statements, summarize};
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::OnceLock;
use support::driver::python;
use support::{absent, repository, run, tools_dir};

/// Fewer would mean that scripts or statements are not found any more.
const STATEMENTS_MIN: usize = 20_000;

/// Most statements of 1,000 that PostgreSQL can parse and pgweir is not sure about.
const UNCERTAIN_PER_MILLE_MAX: usize = 2;

/// What the parser said, one value for each statement or batch.
fn corpus() -> &'static [Value] {
    static CORPUS: OnceLock<Vec<Value>> = OnceLock::new();
    CORPUS.get_or_init(|| {
        let scripts = tools_dir().join("corpus");
        let Some(mut command) = python(&repository().join("tests/corpus/read.py")) else {
            return Vec::new();
        };
        if !scripts.is_dir() {
            absent("PostgreSQL's regression scripts");
            return Vec::new();
        }
        let said = run(command.arg(scripts));
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    })
}

fn options() -> Options {
    Options { server_major: 18, ..Options::default() }
}

fn one(text: &str) -> Statement<'_> {
    let all: Vec<Statement<'_>> = statements(text.as_bytes(), options()).collect();
    assert_eq!(all.len(), 1, "{text}");
    all.into_iter().next().unwrap()
}

fn effects_named(name: &str) -> Effects {
    match name {
        "SET_SESSION" => Effects::SET_SESSION,
        "SET_LOCAL" => Effects::SET_LOCAL,
        "SET_ROLE" => Effects::SET_ROLE,
        "SET_SESSION_AUTHORIZATION" => Effects::SET_SESSION_AUTHORIZATION,
        "RESET_ALL" => Effects::RESET_ALL,
        "SET_CONFIG|SET_LOCAL" => Effects::SET_CONFIG.and(Effects::SET_LOCAL),
        "PREPARE" => Effects::PREPARE,
        "EXECUTE" => Effects::EXECUTE,
        "DEALLOCATE" => Effects::DEALLOCATE,
        "LISTEN" => Effects::LISTEN,
        "UNLISTEN" => Effects::UNLISTEN,
        "NOTIFY" => Effects::NOTIFY,
        "DECLARE_CURSOR" => Effects::DECLARE_CURSOR,
        "DECLARE_HOLD" => Effects::DECLARE_HOLD,
        "CLOSE" => Effects::CLOSE,
        "CLOSE_ALL" => Effects::CLOSE_ALL,
        "FETCH" => Effects::FETCH,
        "TEMP_OBJECT" => Effects::TEMP_OBJECT,
        "ADVISORY_LOCK" => Effects::ADVISORY_LOCK,
        "ADVISORY_UNLOCK" => Effects::ADVISORY_UNLOCK,
        "ADVISORY_UNLOCK_ALL" => Effects::ADVISORY_UNLOCK_ALL,
        "LOAD" => Effects::LOAD,
        "DISCARD_ALL" => Effects::DISCARD_ALL,
        "DISCARD_TEMP" => Effects::DISCARD_TEMP,
        "DISCARD_PLANS" => Effects::DISCARD_PLANS,
        "DISCARD_SEQUENCES" => Effects::DISCARD_SEQUENCES,
        "SEQUENCE_NEXT" => Effects::SEQUENCE_NEXT,
        "SEQUENCE_READ" => Effects::SEQUENCE_READ,
        "SESSION_FUNCTION" => Effects::SESSION_FUNCTION,
        "DO" => Effects::DO,
        "CALL" => Effects::CALL,
        "DDL" => Effects::DDL,
        "WRITE" => Effects::WRITE,
        "TRANSACTION_BEGIN" => Effects::TRANSACTION_BEGIN,
        "TRANSACTION_END" => Effects::TRANSACTION_END,
        "SAVEPOINT" => Effects::SAVEPOINT,
        "COPY" => Effects::COPY,
        "EXPLAIN" => Effects::EXPLAIN,
        "SHOW" => Effects::SHOW,
        _ => panic!("{name}"),
    }
}

/// Each statement of the corpus that is read otherwise than it should be, by `problem`.
fn fails(what: &str, problem: impl Fn(&Value, &Statement<'_>) -> Option<String>) {
    let (mut count, mut failures, mut report) = (0, 0, String::new());
    for value in corpus() {
        let Some(text) = value["text"].as_str() else { continue };
        count += 1;
        if let Some(problem) = problem(value, &one(text)) {
            failures += 1;
            let _ = writeln!(report, "{}: {problem}:\n{text}\n", value["file"]);
        }
    }
    eprintln!("{count} statements");
    assert!(corpus().is_empty() || count >= STATEMENTS_MIN, "{count} statements");
    assert!(failures == 0, "{failures} of {count} {what}\n{report}");
}

#[test]
fn texts_are_cut_where_postgresql_cuts_them() {
    let mut count = 0;
    for value in corpus() {
        let Some(batch) = value["batch"].as_str() else { continue };
        let slices = value["slices"].as_array().unwrap();
        let found: Vec<Statement<'_>> = statements(batch.as_bytes(), options()).collect();
        assert_eq!(found.len(), slices.len(), "{}: {batch}", value["file"]);
        let summary = summarize(batch.as_bytes(), options());
        assert_eq!(usize::from(summary.statements), slices.len(), "{batch}");
        for (statement, slice) in found.iter().zip(slices) {
            let at = |which: usize| usize::try_from(slice[which].as_u64().unwrap()).unwrap();
            let (span, text) = (statement.span(), String::from_utf8_lossy(statement.text()));
            assert!(at(0) <= span.start && span.end <= at(1), "{text}\nof\n{batch}");
            count += 1;
        }
    }
    assert!(corpus().is_empty() || count >= STATEMENTS_MIN, "{count} statements");
}

#[test]
fn no_statement_is_taken_for_less_than_it_is() {
    fails("are taken for less than they are", |value, statement| {
        let effects = statement.effects();
        if effects.intersects(Effects::UNCERTAIN) {
            return None;
        }
        let needs = value["needs"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
        let missing: Vec<&str> =
            needs.filter(|name| !effects.intersects(effects_named(name))).collect();
        (!missing.is_empty()).then(|| format!("lacks {missing:?}, has {effects:?}"))
    });
}

#[test]
fn commands_and_names_are_those_of_postgresql() {
    fails("are taken for others", |value, statement| {
        let command = format!("{:?}", statement.command());
        if value["command"].as_str().is_some_and(|expected| expected != command) {
            return Some(format!("{} is taken for {command}", value["command"]));
        }
        let name = statement.name().map(|name| String::from_utf8_lossy(&name).into_owned());
        let expected = value["name"].as_str();
        let differs = expected.is_some_and(|expected| {
            !name.as_deref().unwrap_or_default().eq_ignore_ascii_case(expected)
        });
        differs.then(|| format!("the name is {name:?} instead of {expected:?}"))
    });
}

#[test]
fn few_statements_are_uncertain() {
    let all = corpus().iter().filter_map(|value| value["text"].as_str());
    let (mut count, mut uncertain) = (0, String::new());
    for text in all {
        count += 1;
        let statement = one(text);
        if statement.effects().intersects(Effects::UNCERTAIN)
            || statement.command() == Command::Unknown
        {
            let _ = writeln!(uncertain, "{text}\n--------");
        }
    }
    let number = uncertain.matches("\n--------\n").count();
    assert!(number * 1000 <= count * UNCERTAIN_PER_MILLE_MAX, "{number} of {count}:\n{uncertain}");
}
