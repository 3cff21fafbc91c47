//! RDS Proxy's metrics under their own names, in CloudWatch's embedded metric format: one line of
//! JSON, from which CloudWatch Logs makes the metrics.
//!
//! As RDS Proxy does, gauges are shown each time, and counters and latencies only where something
//! happened. A counter is what came since the last line; a latency is the mean since then.
//!
//! Sources:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>,
//! <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/rds-proxy.monitoring.html>

use super::Metrics;
use super::label::QueryProtocol;
use super::shard::{Counters, GaugeKind, Timings};
use super::snapshot::{PoolRow, PoolSnapshot};
use super::value::{Counter, Histogram, HistogramTotal, LABELS_MAX};
use std::fmt::{self, Write as _};

/// What the metrics of one pgweir are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudWatchNames {
    /// The namespace; `AWS/RDS` with RDS Proxy.
    pub namespace: String,
    /// `ProxyName`.
    pub proxy_name: String,
    /// `Target`: the host.
    pub target: String,
}

/// Dimensions by which RDS Proxy shows a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Client,
    Server,
    Both,
    Role,
}

impl By {
    const ALL: [Self; 4] = [Self::Client, Self::Server, Self::Both, Self::Role];

    /// The sets of dimensions, as JSON.
    fn sets(self) -> &'static str {
        match self {
            Self::Client => r#"["ProxyName"],["ProxyName","EndpointName"]"#,
            Self::Server => concat!(
                r#"["ProxyName"],["ProxyName","TargetGroup","Target"],"#,
                r#"["ProxyName","TargetGroup","TargetRole"]"#
            ),
            Self::Both => concat!(
                r#"["ProxyName"],["ProxyName","EndpointName"],"#,
                r#"["ProxyName","TargetGroup","Target"],"#,
                r#"["ProxyName","TargetGroup","TargetRole"]"#
            ),
            Self::Role => r#"["ProxyName","TargetGroup","TargetRole"]"#,
        }
    }
}

/// Where a metric's value comes from.
#[derive(Clone, Copy)]
enum Source {
    Gauge(fn(&Metrics, &PoolSnapshot) -> u64),
    Counter(fn(&Metrics) -> u64),
    /// Number and sum in nanoseconds.
    Latency(fn(&Metrics) -> (u64, u128)),
    Availability,
}

/// One metric of RDS Proxy.
struct Entry {
    name: &'static str,
    by: By,
    source: Source,
}

const fn gauge(name: &'static str, by: By, of: fn(&Metrics, &PoolSnapshot) -> u64) -> Entry {
    Entry { name, by, source: Source::Gauge(of) }
}

const fn counter(name: &'static str, by: By, of: fn(&Metrics) -> u64) -> Entry {
    Entry { name, by, source: Source::Counter(of) }
}

const fn latency(name: &'static str, by: By, of: fn(&Metrics) -> (u64, u128)) -> Entry {
    Entry { name, by, source: Source::Latency(of) }
}

fn kind(metrics: &Metrics, kind: GaugeKind) -> u64 {
    metrics.sum(|shard| shard.gauge(kind))
}

fn count(metrics: &Metrics, of: fn(&Counters) -> &Counter) -> u64 {
    metrics.sum(|shard| of(&shard.count).get())
}

fn queries(metrics: &Metrics, tls: &[bool]) -> u64 {
    let of = |tls: bool| {
        let protocols = [QueryProtocol::Simple, QueryProtocol::Extended];
        protocols.map(|protocol| metrics.sum(|shard| shard.queries(protocol, tls).get()))
    };
    tls.iter().flat_map(|tls| of(*tls)).fold(0, u64::wrapping_add)
}

fn time(metrics: &Metrics, of: fn(&Timings) -> &Histogram) -> (u64, u128) {
    let mut total = HistogramTotal::default();
    metrics.shards().for_each(|shard| of(&shard.time).add_to(&mut total));
    (total.buckets.iter().sum::<u64>() + total.over, total.nanos)
}

fn rows(pools: &PoolSnapshot, of: fn(&PoolRow) -> u64) -> u64 {
    pools.rows.iter().map(of).sum()
}

fn pinned(metrics: &Metrics) -> u64 {
    metrics.sum(|shard| (0..=LABELS_MAX).map(|index| shard.pinned(index)).sum())
}

/// All of them, in the order of RDS Proxy's documentation.
static TABLE: [Entry; 27] = [
    Entry { name: "AvailabilityPercentage", by: By::Role, source: Source::Availability },
    gauge("ClientConnections", By::Client, |m, _| kind(m, GaugeKind::ClientConnections)),
    counter("ClientConnectionsClosed", By::Client, |m| count(m, |c| &c.client_connections_closed)),
    gauge("ClientConnectionsInSetup", By::Client, |m, _| {
        kind(m, GaugeKind::ClientConnectionsInSetup)
    }),
    gauge("ClientConnectionsNoTLS", By::Client, |m, _| kind(m, GaugeKind::ClientConnectionsNoTls)),
    counter("ClientConnectionsReceived", By::Client, |m| {
        count(m, |c| &c.client_connections_received)
    }),
    counter("ClientConnectionsSetupFailedAuth", By::Client, |m| {
        count(m, |c| &c.client_connections_setup_failed_auth)
    }),
    counter("ClientConnectionsSetupSucceeded", By::Client, |m| {
        count(m, |c| &c.client_connections_setup_succeeded)
    }),
    gauge("ClientConnectionsTLS", By::Client, |m, _| kind(m, GaugeKind::ClientConnectionsTls)),
    counter("DatabaseConnectionRequests", By::Server, |m| {
        count(m, |c| &c.database_connection_requests)
    }),
    counter("DatabaseConnectionRequestsWithTLS", By::Server, |m| {
        count(m, |c| &c.database_connection_requests_with_tls)
    }),
    gauge("DatabaseConnections", By::Server, |m, pools| {
        rows(pools, |row| row.idle + row.borrowed + row.pinned + row.opening + row.closing)
            + kind(m, GaugeKind::DatabaseConnectionsListening)
            + kind(m, GaugeKind::DatabaseConnectionsProving)
    }),
    latency("DatabaseConnectionsBorrowLatency", By::Client, |m| time(m, |t| &t.borrow)),
    counter("DatabaseConnectionsBorrowRequests", By::Role, |m| {
        count(m, |c| &c.database_connections_borrow_requests)
    }),
    counter("DatabaseConnectionsBorrowRequestsAborted", By::Role, |m| {
        count(m, |c| &c.database_connections_borrow_requests_aborted)
    }),
    gauge("DatabaseConnectionsCurrentlyBorrowed", By::Server, |_, pools| {
        rows(pools, |row| row.borrowed + row.pinned)
    }),
    gauge("DatabaseConnectionsCurrentlyInTransaction", By::Server, |m, _| {
        kind(m, GaugeKind::DatabaseConnectionsInTransaction)
    }),
    gauge("DatabaseConnectionsCurrentlySessionPinned", By::Server, |m, _| pinned(m)),
    counter("DatabaseConnectionsSetupFailed", By::Server, |m| {
        count(m, |c| &c.database_connections_setup_failed)
    }),
    counter("DatabaseConnectionsSetupSucceeded", By::Server, |m| {
        count(m, |c| &c.database_connections_setup_succeeded)
    }),
    gauge("DatabaseConnectionsWithTLS", By::Server, |m, _| {
        kind(m, GaugeKind::DatabaseConnectionsWithTls)
    }),
    gauge("MaxDatabaseConnectionsAllowed", By::Server, |_, pools| {
        pools.max_database_connections_allowed
    }),
    latency("QueryDatabaseResponseLatency", By::Both, |m| time(m, |t| &t.query_database_response)),
    counter("QueryRequests", By::Client, |m| queries(m, &[false, true])),
    counter("QueryRequestsNoTLS", By::Client, |m| queries(m, &[false])),
    counter("QueryRequestsTLS", By::Client, |m| queries(m, &[true])),
    latency("QueryResponseLatency", By::Client, |m| time(m, |t| &t.query_response)),
];

/// A value to be shown.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Count(u64),
    /// In nanoseconds, shown as microseconds.
    Micros(u128),
    Percent(f64),
}

impl Value {
    fn unit(self) -> &'static str {
        match self {
            Self::Count(_) => "Count",
            Self::Micros(_) => "Microseconds",
            Self::Percent(_) => "Percent",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Micros(nanos) => write!(f, "{}.{:03}", nanos / 1000, nanos % 1000),
            // The shortest text that reads as the same number.
            Self::Percent(percent) => write!(f, "{percent}"),
        }
    }
}

/// What was read of a growing value when the last line was written.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    count: u64,
    nanos: u128,
}

/// Writes a line now and then, and remembers what the last one said.
#[derive(Debug)]
pub struct CloudWatch {
    names: CloudWatchNames,
    before: Vec<Before>,
    probes: u64,
    probes_answered: u64,
    availability: f64,
}

impl CloudWatch {
    /// All that was counted so far is part of the first line.
    #[must_use]
    pub fn new(names: CloudWatchNames) -> Self {
        let before = vec![Before::default(); TABLE.len()];
        Self { names, before, probes: 0, probes_answered: 0, availability: 0.0 }
    }

    /// The next line, without its end. `now_ms` is in milliseconds since 1970.
    pub fn line(&mut self, metrics: &Metrics, pools: &PoolSnapshot, now_ms: u64) -> String {
        self.availability = self.available(pools);
        let availability = Value::Percent(self.availability);
        let shown: Vec<(&Entry, Value)> = TABLE
            .iter()
            .zip(&mut self.before)
            .filter_map(|(entry, before)| {
                let value = match entry.source {
                    Source::Availability => Some(availability),
                    Source::Gauge(of) => Some(Value::Count(of(metrics, pools))),
                    Source::Counter(of) => {
                        let more = advance(&mut before.count, of(metrics));
                        (more > 0).then_some(Value::Count(more))
                    }
                    Source::Latency(of) => {
                        let (count, nanos) = of(metrics);
                        let more = advance(&mut before.count, count);
                        let sum = nanos.saturating_sub(std::mem::replace(&mut before.nanos, nanos));
                        sum.checked_div(u128::from(more)).map(Value::Micros)
                    }
                };
                Some((entry, value?))
            })
            .collect();
        write_line(&self.names, &shown, now_ms)
    }

    /// In percent since the last line, or as it was when nobody has asked since.
    fn available(&mut self, pools: &PoolSnapshot) -> f64 {
        let probes = advance(&mut self.probes, pools.probes);
        let answered = advance(&mut self.probes_answered, pools.probes_answered);
        // In hundredths, which is exact enough for a number of probes.
        let hundredths = answered.saturating_mul(10_000).checked_div(probes);
        let hundredths = hundredths.and_then(|hundredths| u16::try_from(hundredths).ok());
        hundredths.map_or(self.availability, |hundredths| f64::from(hundredths) / 100.0)
    }
}

/// By how much a value has grown; it never shrinks but when it wraps.
fn advance(before: &mut u64, now: u64) -> u64 {
    now.saturating_sub(std::mem::replace(before, now))
}

fn write_line(names: &CloudWatchNames, shown: &[(&Entry, Value)], now_ms: u64) -> String {
    let mut line = String::with_capacity(6 * 1024);
    let namespace = Json(&names.namespace);
    // Writing to a String cannot fail.
    let _ = write!(line, "{{\"_aws\":{{\"Timestamp\":{now_ms},\"CloudWatchMetrics\":[");
    let mut first = true;
    for by in By::ALL {
        let mut metrics = shown.iter().filter(|(entry, _)| entry.by == by).peekable();
        if metrics.peek().is_none() {
            continue;
        }
        line.push_str(if std::mem::take(&mut first) { "" } else { "," });
        let sets = by.sets();
        let _ = write!(line, "{{\"Namespace\":{namespace},\"Dimensions\":[{sets}],\"Metrics\":[");
        for (position, (entry, value)) in metrics.enumerate() {
            let comma = if position == 0 { "" } else { "," };
            let (name, unit) = (entry.name, value.unit());
            let _ = write!(line, "{comma}{{\"Name\":\"{name}\",\"Unit\":\"{unit}\"}}");
        }
        line.push_str("]}");
    }
    let _ = write!(
        line,
        "]}},\"ProxyName\":{},\"EndpointName\":\"default\",\"TargetGroup\":\"default\",\
         \"Target\":{},\"TargetRole\":\"READ_WRITE\"",
        Json(&names.proxy_name),
        Json(&names.target)
    );
    for (entry, value) in shown {
        let _ = write!(line, ",\"{}\":{value}", entry.name);
    }
    line.push('}');
    line
}

/// A text as JSON, with its quotes.
struct Json<'a>(&'a str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", serde_json::Value::from(self.0))
    }
}

#[cfg(test)]
#[path = "emf_tests.rs"]
mod tests;
