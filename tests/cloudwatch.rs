//! RDS Proxy's metrics in the log, as CloudWatch takes them out of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use serde_json::Value;
use support::driver::python;
use support::pgweir::{Pgweir, Setup};
use support::postgres::shared;
use support::{eventually, repository, run};

/// Lines in the log that are events in the embedded metric format.
fn lines(pgweir: &Pgweir) -> Vec<String> {
    pgweir.log().lines().filter(|line| line.starts_with("{\"_aws\":")).map(str::to_owned).collect()
}

/// The sum of a metric over all lines.
fn sum(lines: &[String], metric: &str) -> u64 {
    let value = |line: &String| -> u64 {
        let event: Value = serde_json::from_str(line).unwrap();
        event[metric].as_u64().unwrap_or_default()
    };
    lines.iter().map(value).sum()
}

fn start(format: &str) -> Pgweir {
    Setup::before(shared())
        .environment("PGWEIR_LOG_FORMAT", format)
        .environment("PGWEIR_METRICS_CLOUDWATCH_EMF", "on")
        .environment("PGWEIR_METRICS_CLOUDWATCH_NAMESPACE", "Shop/Proxy")
        .environment("PGWEIR_METRICS_CLOUDWATCH_PROXY_NAME", "orders")
        .environment("PGWEIR_METRICS_CLOUDWATCH_INTERVAL", "1s")
        .start()
}

#[test]
fn what_clients_did_is_told_once_and_validates() {
    for format in ["json", "text"] {
        let mut pgweir = start(format);
        for _ in 0..3 {
            let mut client = pgweir.client();
            client.execute("SELECT 1");
            client.execute("SELECT 2");
        }
        let mut pinned = pgweir.client();
        pinned.execute("CREATE TEMP TABLE mine (id int)");
        eventually("it is told that a client is pinned", || {
            lines(&pgweir).iter().any(|line| {
                line.contains("\"DatabaseConnectionsCurrentlySessionPinned\":1,")
                    && line.contains("\"ClientConnections\":1,")
            })
        });
        drop(pinned);
        assert_eq!(pgweir.stop().code(), Some(0));
        let lines = lines(&pgweir);
        assert_eq!(sum(&lines, "ClientConnectionsReceived"), 4);
        assert_eq!(sum(&lines, "ClientConnectionsSetupSucceeded"), 4);
        assert_eq!(sum(&lines, "ClientConnectionsClosed"), 4, "the last line is the last word");
        assert_eq!(sum(&lines, "QueryRequests"), 7);
        assert!(lines.iter().any(|line| line.contains("\"QueryDatabaseResponseLatency\":")));
        assert!(lines.iter().all(|line| {
            line.contains("{\"Namespace\":\"Shop/Proxy\",")
                && line.contains("\"ProxyName\":\"orders\",")
                && line.contains("\"MaxDatabaseConnectionsAllowed\":3")
        }));
        if format == "json" {
            for line in pgweir.log().lines() {
                assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
            }
        }
        validate(&pgweir, &lines);
    }
}

#[test]
fn nothing_is_told_to_whoever_did_not_ask() {
    let mut pgweir =
        Setup::before(shared()).environment("PGWEIR_METRICS_CLOUDWATCH_INTERVAL", "1s").start();
    pgweir.client().execute("SELECT 1");
    assert_eq!(pgweir.stop().code(), Some(0));
    assert_eq!(lines(&pgweir), [] as [&str; 0]);
}

fn validate(pgweir: &Pgweir, lines: &[String]) {
    let Some(mut validator) = python(&repository().join("tests/drivers/emf.py")) else { return };
    let file = pgweir.dir().join("lines.json");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let said = run(validator.arg(repository().join("tests/data/emf/schema.json")).arg(&file));
    assert_eq!(said, format!("{} lines are valid\n", lines.len()));
}
