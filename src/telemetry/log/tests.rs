//! Lines as a reader of the log gets them.

use super::*;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tracing::{debug, error, info, info_span, subscriber::with_default, trace, warn};

const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(format: LogFormat, level: LogLevel, story: impl FnOnce(&LogControl)) -> Vec<String> {
    let sink = Sink::default();
    let (subscriber, control) = subscriber(Log { format, level }, sink.clone()).unwrap();
    with_default(subscriber, || story(&control));
    assert!(control.flush(LONG));
    let text = String::from_utf8(sink.0.lock().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn json(line: &str) -> Map<String, Value> {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn json_lines_are_flat_and_carry_the_fields_of_the_spans() {
    let lines = logged(LogFormat::Json, LogLevel::Info, |_| {
        let client =
            info_span!("client", client = 7_u64, user = "app", database = tracing::field::Empty);
        client.record("database", "shop");
        let _inside = client.entered();
        info!(reason = %"temporary_object", ok = true, elapsed_ms = 1.5, user = "inner", "client pinned");
    });
    let line = json(&lines[0]);
    let names: Vec<_> = line.keys().map(String::as_str).collect();
    let expected = [
        "client",
        "database",
        "elapsed_ms",
        "level",
        "message",
        "ok",
        "reason",
        "target",
        "timestamp",
        "user",
    ];
    assert_eq!(names, expected);
    assert_eq!(line["message"], "client pinned");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["target"], module_path!());
    assert_eq!(line["client"], 7);
    assert_eq!(line["database"], "shop");
    assert_eq!(line["user"], "inner");
    assert_eq!(line["ok"], true);
    assert_eq!(line["elapsed_ms"], 1.5);
    let timestamp = line["timestamp"].as_str().unwrap();
    assert_eq!((timestamp.len(), &timestamp[10..11], &timestamp[26..]), (27, "T", "Z"));
    assert_eq!(lines[0].matches("\"user\"").count(), 1, "no name stands twice");
}

#[test]
fn text_lines_are_words_after_the_message() {
    let lines = logged(LogFormat::Text, LogLevel::Info, |_| {
        let _inside = info_span!("client", client = 7).entered();
        warn!(user = "two words", empty = "", equals = "a=b", "target refuses");
    });
    let (timestamp, rest) = lines[0].split_once(' ').unwrap();
    assert_eq!(timestamp.len(), 27);
    let expected = format!(
        " WARN {}: target refuses client=7 user=\"two words\" empty=\"\" equals=\"a=b\"",
        module_path!()
    );
    assert_eq!(rest, expected);
}

#[test]
fn no_value_can_forge_a_line_or_steer_a_terminal() {
    let hostile = "app\n2026-01-01T00:00:00Z ERROR forged \u{1b}[31m\r\u{85}\"";
    for format in [LogFormat::Text, LogFormat::Json] {
        let lines = logged(format, LogLevel::Info, |_| {
            info!(plain = hostile, display = %hostile, "about {hostile}");
        });
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains(['\n', '\r', '\u{1b}']), "{}", lines[0]);
        if format == LogFormat::Json {
            assert_eq!(json(&lines[0])["display"], hostile);
        }
    }
}

#[test]
fn a_field_named_like_a_fixed_one_gets_a_name_of_its_own() {
    let lines = logged(LogFormat::Json, LogLevel::Info, |_| {
        let _inside = info_span!("client", message = "of the span").entered();
        info!(level = 3, target = "x", "hello");
    });
    let line = json(&lines[0]);
    assert_eq!((&line["level"], &line["field_level"]), (&"INFO".into(), &3.into()));
    assert_eq!(line["field_target"], "x");
    assert_eq!(line["message"], "hello");
}

#[test]
fn a_long_value_is_cut_at_a_character() {
    let lines = logged(LogFormat::Json, LogLevel::Info, |_| {
        info!(long = %format!("x{}", "é".repeat(5000)), "hello");
    });
    let line = json(&lines[0]);
    let shown = line["long"].as_str().unwrap();
    assert_eq!(shown.len(), line::VALUE_MAX - 1 + '…'.len_utf8());
    assert!(shown.ends_with("é…"));
}

#[test]
fn an_error_is_shown_with_its_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot connect")]
    struct Outer(#[source] io::Error);
    let outer = Outer(io::Error::other("connection refused"));
    let lines = logged(LogFormat::Json, LogLevel::Info, |_| {
        error!(error = &outer as &dyn std::error::Error, "server lost");
    });
    assert_eq!(json(&lines[0])["error"], "cannot connect: connection refused");
}

#[test]
fn the_level_changes_while_the_process_runs() {
    let lines = logged(LogFormat::Text, LogLevel::Warn, |control| {
        for level in [LogLevel::Debug, LogLevel::Error, LogLevel::Trace] {
            info!("info before {level:?}");
            control.set_level(level).unwrap();
            debug!("debug at {level:?}");
            trace!("trace at {level:?}");
        }
    });
    let messages: Vec<_> = lines.iter().map(|line| line.split_once(": ").unwrap().1).collect();
    let expected = ["debug at Debug", "info before Error", "debug at Trace", "trace at Trace"];
    assert_eq!(messages, expected);
}

#[test]
fn other_crates_are_heard_only_from_warnings_on() {
    let lines = logged(LogFormat::Text, LogLevel::Trace, |_| {
        info!(target: "aws_smithy_runtime", "body of a secret");
        warn!(target: "aws_smithy_runtime", "retries are used up");
        trace!(target: "pgweir::client", "ours");
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("retries are used up"));
    assert!(lines[1].ends_with("ours"));
    let quiet = logged(LogFormat::Text, LogLevel::Error, |_| warn!(target: "hyper", "noise"));
    assert!(quiet.is_empty(), "{quiet:?}");
}

/// `init` is for a whole process, so the test runs one: this very program, for the story below.
#[test]
fn a_process_logs_to_stderr_and_its_last_line_is_not_lost() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "telemetry::log::tests::story_of_a_process"])
        .args(["--ignored", "--nocapture"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    let messages: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| json(line)["message"].clone())
        .collect();
    assert_eq!(messages, ["first", "second", "last"], "{stderr}");
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn story_of_a_process() {
    let log = Log { format: LogFormat::Json, level: LogLevel::Info };
    let control = init(log).unwrap();
    info!("first");
    debug!("too fine");
    assert!(matches!(init(log), Err(LogError::AlreadySet(_))));
    control.set_level(LogLevel::Debug).unwrap();
    debug!("second");
    info!("last");
    drop(control);
}
