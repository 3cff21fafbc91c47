//! Lines for CloudWatch, byte by byte and as their reader takes them.

use super::super::Labels;
use super::*;
use serde_json::Value as Read;
use std::time::Duration;

fn names() -> CloudWatchNames {
    CloudWatchNames {
        namespace: "pgweir".into(),
        proxy_name: "orders".into(),
        target: "db.example.com".into(),
    }
}

fn read(line: &str) -> Read {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

const GAUGES: &str = concat!(
    r#"{"_aws":{"Timestamp":1700000000123,"CloudWatchMetrics":["#,
    r#"{"Namespace":"pgweir","Dimensions":[["ProxyName"],["ProxyName","EndpointName"]],"Metrics":["#,
    r#"{"Name":"ClientConnections","Unit":"Count"},"#,
    r#"{"Name":"ClientConnectionsInSetup","Unit":"Count"},"#,
    r#"{"Name":"ClientConnectionsNoTLS","Unit":"Count"},"#,
    r#"{"Name":"ClientConnectionsTLS","Unit":"Count"}]},"#,
    r#"{"Namespace":"pgweir","Dimensions":[["ProxyName"],["ProxyName","TargetGroup","Target"],"#,
    r#"["ProxyName","TargetGroup","TargetRole"]],"Metrics":["#,
    r#"{"Name":"DatabaseConnections","Unit":"Count"},"#,
    r#"{"Name":"DatabaseConnectionsCurrentlyBorrowed","Unit":"Count"},"#,
    r#"{"Name":"DatabaseConnectionsCurrentlyInTransaction","Unit":"Count"},"#,
    r#"{"Name":"DatabaseConnectionsCurrentlySessionPinned","Unit":"Count"},"#,
    r#"{"Name":"DatabaseConnectionsWithTLS","Unit":"Count"},"#,
    r#"{"Name":"MaxDatabaseConnectionsAllowed","Unit":"Count"}]},"#,
    r#"{"Namespace":"pgweir","Dimensions":[["ProxyName","TargetGroup","TargetRole"]],"Metrics":["#,
    r#"{"Name":"AvailabilityPercentage","Unit":"Percent"}]}]},"#,
    r#""ProxyName":"orders","EndpointName":"default","TargetGroup":"default","#,
    r#""Target":"db.example.com","TargetRole":"READ_WRITE","#,
    r#""AvailabilityPercentage":0,"ClientConnections":1,"ClientConnectionsInSetup":0,"#,
    r#""ClientConnectionsNoTLS":0,"ClientConnectionsTLS":0,"DatabaseConnections":16,"#,
    r#""DatabaseConnectionsCurrentlyBorrowed":5,"DatabaseConnectionsCurrentlyInTransaction":0,"#,
    r#""DatabaseConnectionsCurrentlySessionPinned":0,"DatabaseConnectionsWithTLS":0,"#,
    r#""MaxDatabaseConnectionsAllowed":80}"#
);

#[test]
fn where_nothing_happened_only_gauges_are_shown() {
    let metrics = Metrics::new(2, Labels::none());
    let _client = metrics.shard(1).enter(GaugeKind::ClientConnections);
    let _listens = metrics.shard(0).enter(GaugeKind::DatabaseConnectionsListening);
    let row =
        PoolRow { idle: 1, borrowed: 2, pinned: 3, opening: 4, closing: 5, ..PoolRow::default() };
    let pools = PoolSnapshot {
        rows: vec![row],
        max_database_connections_allowed: 80,
        ..PoolSnapshot::default()
    };
    let line = CloudWatch::new(names()).line(&metrics, &pools, 1_700_000_000_123);
    assert_eq!(line, GAUGES);
}

#[test]
fn a_counter_is_what_came_since_the_last_line_and_a_latency_its_mean() {
    let metrics = Metrics::new(2, Labels::none());
    let pools = PoolSnapshot::default();
    let mut cloudwatch = CloudWatch::new(names());
    let mut line = || read(&cloudwatch.line(&metrics, &pools, 0));

    metrics.shard(0).count.client_connections_received.add(3);
    metrics.shard(1).count.client_connections_received.add(4);
    metrics.shard(0).queries(QueryProtocol::Simple, true).one();
    metrics.shard(0).queries(QueryProtocol::Extended, false).one();
    for micros in [100, 200, 601] {
        metrics.shard(micros % 2).time.borrow.observe(Duration::from_micros(micros as u64));
    }
    let first = line();
    assert_eq!(first["ClientConnectionsReceived"], 7);
    assert_eq!(first["QueryRequests"], 2);
    assert_eq!(first["QueryRequestsTLS"], 1);
    assert_eq!(first["QueryRequestsNoTLS"], 1);
    assert_eq!(first["DatabaseConnectionsBorrowLatency"], 300.333);

    metrics.shard(0).time.borrow.observe(Duration::from_nanos(40));
    let second = line();
    assert_eq!(second["ClientConnectionsReceived"], Read::Null);
    assert_eq!(second["QueryRequests"], Read::Null);
    assert_eq!(second["DatabaseConnectionsBorrowLatency"], 0.04);
    assert_eq!(line()["DatabaseConnectionsBorrowLatency"], Read::Null);
}

#[test]
fn availability_is_that_of_the_time_since_the_last_line() {
    let metrics = Metrics::new(1, Labels::none());
    let mut cloudwatch = CloudWatch::new(names());
    let mut available = |probes, probes_answered| {
        let pools = PoolSnapshot { probes, probes_answered, ..PoolSnapshot::default() };
        read(&cloudwatch.line(&metrics, &pools, 0))["AvailabilityPercentage"].as_f64()
    };
    assert_eq!(available(4, 3), Some(75.0));
    assert_eq!(available(7, 5), Some(66.66));
    assert_eq!(available(7, 5), Some(66.66), "nobody has asked since");
    assert_eq!(available(9, 7), Some(100.0));
}

/// CloudWatch ignores a metric without a value, and a value without a metric is none.
#[test]
fn each_metric_that_is_announced_has_a_value_and_each_dimension_too() {
    let metrics = Metrics::new(1, Labels::none());
    let count = &metrics.shard(0).count;
    for entry in Counters::TABLE {
        (entry.get)(count).one();
    }
    let time = &metrics.shard(0).time;
    for entry in Timings::TABLE {
        (entry.get)(time).observe(Duration::from_millis(1));
    }
    for tls in [false, true] {
        metrics.shard(0).queries(QueryProtocol::Simple, tls).one();
    }
    let hostile = CloudWatchNames { proxy_name: "a\"b\\c".into(), ..names() };
    let line = CloudWatch::new(hostile).line(&metrics, &PoolSnapshot::default(), 1);
    assert!(!line.contains('\n'), "one line is one event");
    let line = read(&line);
    assert_eq!(line["ProxyName"], "a\"b\\c");
    let directives = line["_aws"]["CloudWatchMetrics"].as_array().expect("directives");
    let mut announced = Vec::new();
    for directive in directives {
        for metric in directive["Metrics"].as_array().expect("metrics") {
            announced.push(metric["Name"].as_str().expect("a name"));
        }
        for set in directive["Dimensions"].as_array().expect("sets") {
            for dimension in set.as_array().expect("a set") {
                assert!(line[dimension.as_str().expect("a name")].is_string(), "{dimension}");
            }
        }
    }
    announced.sort_unstable();
    let all: Vec<_> = TABLE.iter().map(|entry| entry.name).collect();
    assert_eq!(announced, all, "all of them, each once, in the order of the table");
    assert!(all.iter().all(|name| line[name].is_number()));
}
