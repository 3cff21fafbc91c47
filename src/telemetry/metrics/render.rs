//! From the shards and the snapshot to the text: which metric is shown when, and under what name.

use super::Metrics;
use super::exposition::{Exposition, Kind, Seconds};
use super::label::{LabelSet, QueryProtocol};
use super::process::Process;
use super::shard::{Counters, GaugeKind, Shard, Timings};
use super::snapshot::{Numbers, PoolSnapshot, Rows, SecretNumbers, bounded};
use super::sqlstate::{self, SqlStateClasses};
use super::value::{Family, HistogramTotal, LABELS_MAX};

/// About the size of a text, so that it is rarely moved while it grows.
const CAPACITY: usize = 64 * 1024;

pub(super) fn render(metrics: &Metrics, pools: &PoolSnapshot) -> String {
    let mut out = Exposition::with_capacity(CAPACITY);
    build(&mut out);
    for &(kind, name, help) in &GaugeKind::TABLE {
        out.single(name, Kind::Gauge, help, metrics.sum(|shard| shard.gauge(kind)));
    }
    for entry in Counters::TABLE {
        let value = metrics.sum(|shard| (entry.get)(&shard.count).get());
        out.single(entry.name, Kind::Counter, entry.help.trim(), value);
    }
    queries(&mut out, metrics);
    reasons(&mut out, metrics);
    errors(&mut out, metrics);
    for entry in Timings::TABLE {
        let mut total = HistogramTotal::default();
        metrics.shards().for_each(|shard| (entry.get)(&shard.time).add_to(&mut total));
        out.histogram(entry.name, entry.help.trim(), &total);
    }
    snapshot(&mut out, pools);
    process(&mut out, metrics, &Process::read());
    out.finish()
}

fn build(out: &mut Exposition) {
    let name = "pgweir_build_info";
    out.open(name, Kind::Gauge, "Always 1; the label says which version runs.");
    out.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
}

fn queries(out: &mut Exposition, metrics: &Metrics) {
    let name = "pgweir_query_requests_total";
    out.open(name, Kind::Counter, "Queries received.");
    for (protocol, as_label) in
        [(QueryProtocol::Simple, "simple"), (QueryProtocol::Extended, "extended")]
    {
        for (tls, tls_label) in [(false, "false"), (true, "true")] {
            let value = metrics.sum(|shard| shard.queries(protocol, tls).get());
            out.sample(name, &[("protocol", as_label), ("tls", tls_label)], value);
        }
    }
}

fn reasons(out: &mut Exposition, metrics: &Metrics) {
    let labels = &metrics.labels;
    let family = |of: fn(&Shard) -> &Family| {
        move |index: Option<usize>| {
            metrics.sum(|shard| match index {
                Some(index) => of(shard).at(index).get(),
                None => of(shard).other().get(),
            })
        }
    };
    let name = "pgweir_session_pins_total";
    out.open(name, Kind::Counter, "How often a client was pinned to its server.");
    by_reason(out, name, &labels.pins, family(|shard| &shard.session_pins));

    let name = "pgweir_database_connections_currently_session_pinned";
    out.open(name, Kind::Gauge, "Clients that are pinned to their server now.");
    by_reason(out, name, &labels.pins, |index| {
        // A position beyond the bound is where a shard keeps the others.
        metrics.sum(|shard| shard.pinned(index.unwrap_or(LABELS_MAX)))
    });

    let name = "pgweir_database_connections_closed_total";
    out.open(name, Kind::Counter, "Server connections that were closed.");
    by_reason(out, name, &labels.server_closes, family(|shard| &shard.server_closes));

    let name = "pgweir_client_logins_rejected_total";
    out.open(name, Kind::Counter, "Clients that were not let in.");
    by_reason(out, name, &labels.login_rejections, family(|shard| &shard.login_rejections));
}

/// One sample per reason, and the rest as `other` (`None`), which may itself be a listed reason.
fn by_reason(
    out: &mut Exposition,
    name: &str,
    labels: &LabelSet,
    value: impl Fn(Option<usize>) -> u64,
) {
    let mut rest = value(None);
    for (index, &reason) in labels.values.iter().take(LABELS_MAX).enumerate() {
        let counted = value(Some(index));
        if reason == "other" {
            rest += counted;
        } else {
            out.sample(name, &[("reason", reason)], counted);
        }
    }
    out.sample(name, &[("reason", "other")], rest);
}

fn errors(out: &mut Exposition, metrics: &Metrics) {
    let name = "pgweir_errors_total";
    out.open(name, Kind::Counter, "Errors that clients were sent, by class of SQLSTATE.");
    let sum = |of: &dyn Fn(&SqlStateClasses) -> u64| metrics.sum(|shard| of(&shard.errors));
    for (index, &class) in sqlstate::CLASSES.iter().enumerate() {
        out.sample(name, &[("sqlstate_class", class)], sum(&|errors| errors.at(index).get()));
    }
    out.sample(name, &[("sqlstate_class", "other")], sum(&|errors| errors.other().get()));
}

fn snapshot(out: &mut Exposition, pools: &PoolSnapshot) {
    let (mut rows, sum) = bounded(&pools.rows);
    if rows.is_empty() {
        // To Prometheus an empty label is no label: this is the zero of a proxy without pools.
        rows.insert(("", ""), Numbers::default());
    }
    connections(out, &rows);
    let name = "pgweir_waiting_clients";
    out.open(name, Kind::Gauge, "Clients that wait for a server now.");
    for (&(database, user), numbers) in &rows {
        out.sample(name, &[("database", database), ("user", user)], numbers.waiting);
    }
    out.single(
        "pgweir_database_connections_currently_borrowed",
        Kind::Gauge,
        "Server connections that a client holds now, pinned ones included.",
        sum.borrowed + sum.pinned,
    );
    out.single(
        "pgweir_max_database_connections_allowed",
        Kind::Gauge,
        "Most server connections over all pools.",
        pools.max_database_connections_allowed,
    );
    let available = pools.availability_percentage;
    out.single(
        "pgweir_availability_percentage",
        Kind::Gauge,
        "Share of time in which the target was available, 0 to 100.",
        if available.is_nan() { 0.0 } else { available.clamp(0.0, 100.0) },
    );
    out.single(
        "pgweir_target_writable",
        Kind::Gauge,
        "1 if the target took writes when it was asked last, else 0.",
        u64::from(pools.target_writable),
    );
    if let Some(fleet) = pools.fleet {
        let help = "Members of the fleet that this one sees, itself included.";
        out.single("pgweir_fleet_tasks", Kind::Gauge, help, u64::from(fleet.tasks));
        let help = "Connections of the fleet's budget that this member may have.";
        out.single("pgweir_fleet_share_connections", Kind::Gauge, help, u64::from(fleet.share));
    }
    secrets(out, &pools.secrets);
}

fn secrets(out: &mut Exposition, secrets: &SecretNumbers) {
    let name = "pgweir_secrets";
    out.open(name, Kind::Gauge, "Secrets of database users, by whether they could be read.");
    for (state, value) in
        [("fresh", secrets.fresh), ("stale", secrets.stale), ("disabled", secrets.disabled)]
    {
        out.sample(name, &[("state", state)], value);
    }
    let name = "pgweir_secret_problems";
    out.open(name, Kind::Gauge, "Secrets that are not as they should be, by the kind of problem.");
    for (&reason, &value) in &secrets.problems {
        out.sample(name, &[("reason", reason)], value);
    }
    if let Some(age) = secrets.oldest_age {
        out.single(
            "pgweir_secret_age_seconds",
            Kind::Gauge,
            "Time since the secret that was read longest ago was read.",
            Seconds(age.as_nanos()),
        );
    }
}

fn connections(out: &mut Exposition, rows: &Rows<'_>) {
    let name = "pgweir_database_connections";
    out.open(name, Kind::Gauge, "Server connections now, those being opened included.");
    for (&(database, user), numbers) in rows {
        for (state, value) in [
            ("idle", numbers.idle),
            ("borrowed", numbers.borrowed),
            ("pinned", numbers.pinned),
            ("opening", numbers.opening),
            ("closing", numbers.closing),
        ] {
            let labels = [("database", database), ("user", user), ("state", state)];
            out.sample(name, &labels, value);
        }
    }
}

/// The names here are those that all Prometheus clients use, without our prefix.
fn process(out: &mut Exposition, metrics: &Metrics, process: &Process) {
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", process.resident_bytes),
        ("process_threads", "Threads.", process.threads),
        ("process_open_fds", "Open file descriptors.", process.open_fds),
        ("process_max_fds", "Most file descriptors that may be open.", process.max_fds),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            out.single(name, Kind::Gauge, help, value);
        }
    }
    if let Some(nanos) = process.cpu_nanos {
        let name = "process_cpu_seconds_total";
        out.single(name, Kind::Counter, "User and system time.", Seconds(nanos));
    }
    out.single(
        "process_start_time_seconds",
        Kind::Gauge,
        "Start of the process, in seconds since 1970.",
        Seconds(metrics.started.as_nanos()),
    );
}
