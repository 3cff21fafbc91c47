//! The metrics as a scrape shows them, read back by a strict parser of the format.

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::thread;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    TemporaryObject,
    Other,
}

impl Label for Pin {
    const ALL: &'static [Self] = &[Self::TemporaryObject, Self::Other];

    fn as_label(self) -> &'static str {
        match self {
            Self::TemporaryObject => "temporary_object",
            Self::Other => "other",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

fn metrics(shards: usize) -> Arc<Metrics> {
    Metrics::new(shards, Labels { pins: LabelSet::of::<Pin>(), ..Labels::none() })
}

fn row(database: &str, user: &str) -> PoolRow {
    PoolRow {
        database: database.into(),
        user: user.into(),
        idle: 1,
        borrowed: 2,
        pinned: 3,
        opening: 4,
        closing: 6,
        waiting: 5,
    }
}

/// A scrape: the value of each series, under its name with labels as they were written.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
}

impl Scrape {
    fn of(metrics: &Metrics) -> Self {
        parse(&metrics.render(&PoolSnapshot::default())).expect("valid text")
    }

    fn get(&self, series: &str) -> &str {
        self.values.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.values))
    }
}

/// Parses the text format and refuses all that the format, or good manners, forbid.
fn parse(text: &str) -> Result<Scrape, String> {
    let mut scrape = Scrape::default();
    let mut current = String::new();
    if !text.ends_with('\n') {
        return Err("the last line has no end".into());
    }
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').ok_or("HELP without text")?;
            check_name(name)?;
            if help.trim().is_empty() || help != help.trim() {
                return Err(format!("bad help: {line:?}"));
            }
            current = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').ok_or("TYPE without type")?;
            if name != current || !["counter", "gauge", "histogram"].contains(&kind) {
                return Err(format!("bad type: {line:?}"));
            }
            if scrape.types.insert(name.to_owned(), kind.to_owned()).is_some() {
                return Err(format!("{name} comes twice"));
            }
        } else {
            sample(line, &current, &mut scrape).map_err(|error| format!("{error}: {line:?}"))?;
        }
    }
    check_histograms(&scrape)?;
    Ok(scrape)
}

fn check_name(name: &str) -> Result<(), String> {
    let letters = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if letters && name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(());
    }
    Err(format!("bad name {name:?}"))
}

fn sample(line: &str, current: &str, scrape: &mut Scrape) -> Result<(), String> {
    let (series, value) = line.rsplit_once(' ').ok_or("no value")?;
    let name = series.split('{').next().unwrap_or_default();
    check_name(name)?;
    let kind = scrape.types.get(current).ok_or("sample before its type")?;
    let suffixes: &[&str] =
        if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
    if !suffixes.iter().any(|suffix| name == format!("{current}{suffix}")) {
        return Err(format!("sample under {current}"));
    }
    if (kind == "counter") != name.ends_with("_total") && kind != "histogram" {
        return Err("counters, and only they, end in _total".into());
    }
    if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
        check_labels(labels)?;
    }
    value.parse::<f64>().map_err(|_| "not a number")?;
    if scrape.values.insert(series.to_owned(), value.to_owned()).is_some() {
        return Err("series comes twice".into());
    }
    Ok(())
}

fn check_labels(labels: &str) -> Result<(), String> {
    let inner = labels.strip_prefix('{').and_then(|l| l.strip_suffix('}')).ok_or("no braces")?;
    let mut rest = inner;
    let mut names = BTreeSet::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or("label without value")?;
        check_name(name)?;
        if !names.insert(name) {
            return Err("label comes twice".into());
        }
        let mut escaped = false;
        let end = after.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let (value, after) = after.split_at(end.ok_or("no end of value")?);
        let plain = value.replace("\\\\", "").replace("\\n", "").replace("\\\"", "");
        if plain.contains('\\') {
            return Err("unknown escape".into());
        }
        rest = after.get(1..).unwrap_or_default();
        if !rest.is_empty() {
            rest = rest.strip_prefix(',').ok_or("no comma")?;
        }
    }
    Ok(())
}

fn check_histograms(scrape: &Scrape) -> Result<(), String> {
    for (name, _) in scrape.types.iter().filter(|(_, kind)| *kind == "histogram") {
        let prefix = format!("{name}_bucket{{le=\"");
        let mut buckets: Vec<(f64, u64)> = scrape
            .values
            .iter()
            .filter_map(|(series, value)| {
                let bound = series.strip_prefix(&prefix)?.strip_suffix("\"}")?;
                Some((bound.parse().ok()?, value.parse().ok()?))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        if !buckets.is_sorted_by(|a, b| a.1 <= b.1) {
            return Err(format!("{name} is not cumulative"));
        }
        let (bound, count) = buckets.last().ok_or("no buckets")?;
        let shown = scrape.values.get(&format!("{name}_count"));
        if bound.is_finite() || shown != Some(&count.to_string()) {
            return Err(format!("{name} does not end in +Inf with the count"));
        }
    }
    Ok(())
}

#[test]
fn the_parser_of_these_tests_refuses_what_is_wrong() {
    let head = "# HELP a A.\n# TYPE a gauge\n";
    for wrong in [
        "a 1\n",
        "# HELP a A.\n# TYPE b gauge\n",
        &format!("{head}b 1\n"),
        &format!("{head}a 1"),
        &format!("{head}a x\n"),
        &format!("{head}a 1\na 2\n"),
        &format!("{head}a{{x=\"1}} 2\n"),
        &format!("{head}a{{x=\"\\q\"}} 2\n"),
        &format!("{head}a{{x=\"1\",x=\"2\"}} 2\n"),
        &format!("{head}{head}"),
        "# HELP a A.\n# TYPE a counter\na 1\n",
        "# HELP a A.\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_sum 1\na_count 1\n",
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
    assert!(parse(&format!("{head}a{{x=\"\\\"\\n\\\\\",y=\"\"}} 2\n")).is_ok());
}

#[test]
fn an_empty_and_a_full_scrape_are_valid_and_have_the_same_metrics() {
    let metrics = metrics(2);
    let empty = Scrape::of(&metrics);
    let shard = metrics.shard(1);
    let _held = (shard.enter(GaugeKind::ClientConnections), shard.enter_pin(Pin::Other));
    shard.time.borrow.observe(Duration::from_millis(3));
    shard.errors.of(b"42P01").one();
    let hostile = row("a\"b\\c\nd{}=, 1", "é");
    let pools = PoolSnapshot {
        rows: vec![hostile, row("app", "app"), row("app", "app")],
        max_database_connections_allowed: 80,
        availability_percentage: 99.5,
        probes: 400,
        probes_answered: 398,
        target_writable: true,
        fleet: Some(FleetNumbers { tasks: 4, share: 21 }),
        secrets: SecretNumbers {
            fresh: 3,
            problems: [("denied", 2)].into(),
            oldest_age: Some(Duration::from_millis(1500)),
            ..SecretNumbers::default()
        },
    };
    let text = metrics.render(&pools);
    let full = parse(&text).expect("valid text");
    let mut names = empty.types;
    for more in ["secret_age_seconds", "fleet_tasks", "fleet_share_connections"] {
        names.insert(format!("pgweir_{more}"), "gauge".into());
    }
    assert_eq!(full.types, names);
    assert_eq!(full.get(r#"pgweir_waiting_clients{database="app",user="app"}"#), "10");
    assert_eq!(full.get("pgweir_database_connections_currently_borrowed"), "15");
    assert_eq!(full.get("pgweir_availability_percentage"), "99.5");
    assert_eq!(full.get("pgweir_secret_age_seconds"), "1.5");
    assert_eq!(full.get("pgweir_target_writable"), "1");
    assert_eq!(full.get("pgweir_fleet_tasks"), "4");
    assert_eq!(full.get("pgweir_fleet_share_connections"), "21");
    assert_eq!(full.get(r#"pgweir_secrets{state="fresh"}"#), "3");
    assert_eq!(full.get(r#"pgweir_secret_problems{reason="denied"}"#), "2");
    let hostile = r#"pgweir_waiting_clients{database="a\"b\\c\nd{}=, 1",user="é"}"#;
    assert_eq!(full.get(hostile), "5");
}

/// The metrics of RDS Proxy, so that its users find their dashboards again.
#[test]
fn every_metric_of_rds_proxy_has_its_counterpart() {
    let types = Scrape::of(&metrics(1)).types;
    for name in [
        "availability_percentage",
        "client_connections",
        "client_connections_in_setup",
        "client_connections_received_total",
        "client_connections_setup_succeeded_total",
        "client_connections_setup_failed_auth_total",
        "client_connections_closed_total",
        "client_connections_tls",
        "client_connections_no_tls",
        "database_connections",
        "database_connections_with_tls",
        "database_connection_requests_total",
        "database_connection_requests_with_tls_total",
        "database_connections_setup_succeeded_total",
        "database_connections_setup_failed_total",
        "database_connections_borrow_latency_seconds",
        "database_connections_borrow_requests_total",
        "database_connections_borrow_requests_aborted_total",
        "database_connections_currently_borrowed",
        "database_connections_currently_in_transaction",
        "database_connections_currently_session_pinned",
        "max_database_connections_allowed",
        "query_requests_total",
        "query_response_latency_seconds",
        "query_database_response_latency_seconds",
    ] {
        assert!(types.contains_key(&format!("pgweir_{name}")), "{name}");
    }
}

#[test]
fn the_text_of_one_state_never_changes() {
    let metrics = metrics(2);
    let forwards = PoolSnapshot { rows: vec![row("a", "x"), row("b", "x")], ..Default::default() };
    let mut backwards = forwards.clone();
    backwards.rows.reverse();
    let without_process = |pools| {
        let text = metrics.render(pools);
        text.lines().filter(|line| !line.starts_with("process_")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(without_process(&forwards), without_process(&backwards));
}

#[test]
fn shards_written_by_many_threads_add_up() {
    const THREADS: u64 = 4;
    const TIMES: u64 = 10_000;
    let metrics = metrics(3);
    thread::scope(|scope| {
        for index in 0..THREADS {
            let shard = metrics.shard(usize::try_from(index).unwrap());
            scope.spawn(move || {
                for _ in 0..TIMES {
                    let _guard = shard.enter(GaugeKind::DatabaseConnectionsInTransaction);
                    shard.count.client_bytes_sent.add(3);
                    shard.queries(QueryProtocol::Extended, true).one();
                    shard.time.query_response.observe(Duration::from_millis(1));
                }
            });
        }
    });
    let scrape = Scrape::of(&metrics);
    let times = "40000";
    assert_eq!(scrape.get("pgweir_client_bytes_sent_total"), "120000");
    let queries = r#"pgweir_query_requests_total{protocol="extended",tls="true"}"#;
    assert_eq!(scrape.get(queries), times);
    assert_eq!(scrape.get("pgweir_query_response_latency_seconds_count"), times);
    assert_eq!(scrape.get("pgweir_query_response_latency_seconds_sum"), "40");
    assert_eq!(scrape.get("pgweir_database_connections_currently_in_transaction"), "0");
}

#[test]
fn workers_have_shards_of_their_own_and_surplus_workers_share() {
    let metrics = metrics(2);
    assert!(!Arc::ptr_eq(metrics.shard(0), metrics.shard(1)));
    assert!(Arc::ptr_eq(metrics.shard(1), metrics.shard(3)));
    assert_eq!(align_of::<Shard>(), 128);
    let none = Metrics::new(0, Labels::none());
    assert!(Arc::ptr_eq(none.shard(0), none.shard(7)));
}

#[test]
fn a_gauge_goes_down_at_an_early_return_in_a_panic_and_on_another_thread() {
    let metrics = metrics(1);
    let series = "pgweir_client_connections_in_setup";
    let shard = Arc::clone(metrics.shard(0));
    let kind = GaugeKind::ClientConnectionsInSetup;

    let setup = |fails: bool| -> Result<GaugeGuard, ()> {
        let guard = shard.enter(kind);
        assert_eq!(Scrape::of(&metrics).get(series), "1");
        if fails { Err(()) } else { Ok(guard) }
    };
    assert!(setup(true).is_err());
    assert_eq!(Scrape::of(&metrics).get(series), "0");

    let held = setup(false).unwrap();
    thread::spawn(move || drop(held)).join().unwrap();
    assert_eq!(Scrape::of(&metrics).get(series), "0");

    let inside = Arc::clone(&shard);
    let panicked = thread::spawn(move || {
        let _guard = inside.enter(kind);
        panic!("expected in this test");
    });
    assert!(panicked.join().is_err());
    assert_eq!(Scrape::of(&metrics).get(series), "0");
}

#[test]
fn pins_are_counted_by_reason_and_a_reason_called_other_is_shown_once() {
    let metrics = metrics(2);
    let total = |reason: &str| {
        let scrape = Scrape::of(&metrics);
        ["pgweir_session_pins_total", "pgweir_database_connections_currently_session_pinned"]
            .map(|name| scrape.get(&format!("{name}{{reason=\"{reason}\"}}")).to_owned())
    };
    let first = metrics.shard(0).enter_pin(Pin::TemporaryObject);
    let second = metrics.shard(1).enter_pin(Pin::TemporaryObject);
    let third = metrics.shard(1).enter_pin(Pin::Other);
    assert_eq!(total("temporary_object"), ["2", "2"]);
    assert_eq!(total("other"), ["1", "1"]);
    drop((first, second, third));
    assert_eq!(total("temporary_object"), ["2", "0"]);
    assert_eq!(total("other"), ["1", "0"]);
}

#[test]
fn without_label_lists_every_reason_is_other() {
    let metrics = Metrics::new(1, Labels::none());
    let _pin = metrics.shard(0).enter_pin(Pin::TemporaryObject);
    metrics.shard(0).server_closes.of(Pin::TemporaryObject).one();
    let scrape = Scrape::of(&metrics);
    assert_eq!(scrape.get(r#"pgweir_session_pins_total{reason="other"}"#), "1");
    let pinned = r#"pgweir_database_connections_currently_session_pinned{reason="other"}"#;
    assert_eq!(scrape.get(pinned), "1");
    assert_eq!(scrape.get(r#"pgweir_database_connections_closed_total{reason="other"}"#), "1");
}

#[test]
fn every_gauge_kind_moves_the_metric_of_its_name_only() {
    for (kind, name, _) in GaugeKind::TABLE {
        let metrics = metrics(1);
        let _guard = metrics.shard(0).enter(kind);
        let scrape = Scrape::of(&metrics);
        for (_, other, _) in GaugeKind::TABLE {
            assert_eq!(scrape.get(other), if other == name { "1" } else { "0" }, "{other}");
        }
    }
}

#[test]
fn an_availability_that_is_no_percentage_is_bounded() {
    for (given, shown) in [(f64::NAN, "0"), (-1.0, "0"), (1e9, "100"), (42.0, "42")] {
        let pools = PoolSnapshot { availability_percentage: given, ..Default::default() };
        let scrape = parse(&metrics(1).render(&pools)).expect("valid text");
        assert_eq!(scrape.get("pgweir_availability_percentage"), shown);
    }
}
