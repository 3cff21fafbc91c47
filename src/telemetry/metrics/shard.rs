//! One worker's share of the metrics: the list of everything that is counted on the data path.

use super::label::{Label, Labels, QueryProtocol};
use super::sqlstate::SqlStateClasses;
use super::value::{Counter, Family, Histogram, LABELS_MAX};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How one field of a table is shown.
pub(super) struct Entry<Table, Value: 'static> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) get: fn(&Table) -> &Value,
}

/// A struct of values together with the list of their metric names: neither can lack an entry of
/// the other. The documentation of a field is also the help text of its metric.
macro_rules! table {
    (
        $(#[$outer:meta])* $table:ident of $value:ty;
        $($(#[doc = $help:literal])+ $field:ident => $name:literal,)+
    ) => {
        $(#[$outer])*
        #[derive(Debug, Default)]
        pub struct $table {
            $($(#[doc = $help])+ pub $field: $value,)+
        }

        impl $table {
            pub(super) const TABLE: &[Entry<Self, $value>] = &[$(Entry {
                name: concat!("pgweir_", $name),
                help: concat!($($help),+),
                get: |table| &table.$field,
            }),+];
        }
    };
}

table! {
    /// Counters without labels.
    Counters of Counter;

    /// Connections of clients that were accepted.
    client_connections_received => "client_connections_received_total",
    /// Clients that logged in.
    client_connections_setup_succeeded => "client_connections_setup_succeeded_total",
    /// Clients that were refused for their authentication or TLS.
    client_connections_setup_failed_auth => "client_connections_setup_failed_auth_total",
    /// Connections of clients that ended.
    client_connections_closed => "client_connections_closed_total",
    /// Bytes received from clients, after TLS.
    client_bytes_received => "client_bytes_received_total",
    /// Bytes sent to clients, before TLS.
    client_bytes_sent => "client_bytes_sent_total",
    /// Server connections that were begun.
    database_connection_requests => "database_connection_requests_total",
    /// Server connections that were begun with TLS.
    database_connection_requests_with_tls => "database_connection_requests_with_tls_total",
    /// Server connections that were set up.
    database_connections_setup_succeeded => "database_connections_setup_succeeded_total",
    /// Server connections that could not be set up.
    database_connections_setup_failed => "database_connections_setup_failed_total",
    /// Bytes received from servers, after TLS.
    database_bytes_received => "database_bytes_received_total",
    /// Bytes sent to servers, before TLS.
    database_bytes_sent => "database_bytes_sent_total",
    /// How often a client asked for a server.
    database_connections_borrow_requests => "database_connections_borrow_requests_total",
    /// Clients that left before they got a server.
    database_connections_borrow_requests_aborted =>
        "database_connections_borrow_requests_aborted_total",
    /// Clients that got an error because no server became free in time.
    database_connections_borrow_timeouts => "database_connections_borrow_timeouts_total",
    /// Transactions that ended, those of a single statement included.
    transactions => "transactions_total",
    /// Cancel requests that were received.
    cancel_requests => "cancel_requests_total",
    /// Cancel requests that were passed on to a server.
    cancel_requests_forwarded => "cancel_requests_forwarded_total",
    /// Prepared statements that clients made.
    statements_prepared => "statements_prepared_total",
    /// Prepared statements that were parsed again, on a server that lacked them.
    statements_reprepared => "statements_reprepared_total",
    /// Notifications that were handed to clients which listen.
    notifications_delivered => "notifications_delivered_total",
    /// Notifications that a client did not take in time and lost.
    notifications_dropped => "notifications_dropped_total",
}

table! {
    /// Histograms, all in seconds.
    Timings of Histogram;

    /// From the acceptance of a client to the end of its login.
    client_connection_setup => "client_connections_setup_latency_seconds",
    /// From the request for a server to having one, pooled or new.
    borrow => "database_connections_borrow_latency_seconds",
    /// From the beginning of a server connection to the end of its login.
    database_connection_setup => "database_connections_setup_latency_seconds",
    /// From a query received to its response sent, waiting for a server included.
    query_response => "query_response_latency_seconds",
    /// From a query sent to a server to its response received.
    query_database_response => "query_database_response_latency_seconds",
    /// How long a client stayed pinned.
    session_pin => "session_pin_duration_seconds",
}

/// What a [`GaugeGuard`] keeps counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GaugeKind {
    /// A client's connection, from acceptance on.
    ClientConnections,
    /// A client's connection that is not logged in yet.
    ClientConnectionsInSetup,
    /// A client's connection that is logged in and has TLS.
    ClientConnectionsTls,
    /// A client's connection that is logged in and has no TLS.
    ClientConnectionsNoTls,
    /// A server connection with TLS.
    DatabaseConnectionsWithTls,
    /// A client inside a transaction block.
    DatabaseConnectionsInTransaction,
    /// A client that listens on a channel, without a server.
    ClientConnectionsListening,
    /// A server connection that listens for clients.
    DatabaseConnectionsListening,
    /// A server connection by which a client's IAM token is being proven.
    DatabaseConnectionsProving,
}

impl GaugeKind {
    /// Name and help of each kind, in the order of their declaration.
    pub(super) const TABLE: [(Self, &'static str, &'static str); 9] = [
        (Self::ClientConnections, "pgweir_client_connections", "Clients connected now."),
        (
            Self::ClientConnectionsInSetup,
            "pgweir_client_connections_in_setup",
            "Clients that are logging in now.",
        ),
        (
            Self::ClientConnectionsTls,
            "pgweir_client_connections_tls",
            "Clients logged in now, with TLS.",
        ),
        (
            Self::ClientConnectionsNoTls,
            "pgweir_client_connections_no_tls",
            "Clients logged in now, without TLS.",
        ),
        (
            Self::DatabaseConnectionsWithTls,
            "pgweir_database_connections_with_tls",
            "Server connections with TLS now.",
        ),
        (
            Self::DatabaseConnectionsInTransaction,
            "pgweir_database_connections_currently_in_transaction",
            "Server connections inside a transaction block now.",
        ),
        (
            Self::ClientConnectionsListening,
            "pgweir_client_connections_listening",
            "Clients that listen for notifications now, by a connection they share.",
        ),
        (
            Self::DatabaseConnectionsListening,
            "pgweir_database_connections_listening",
            "Server connections that listen for clients now, one per database.",
        ),
        (
            Self::DatabaseConnectionsProving,
            "pgweir_database_connections_proving",
            "Server connections by which clients' IAM tokens are being proven now.",
        ),
    ];
}

/// The metrics of one worker thread.
///
/// Two shards share no cache line, nor the line beside it, which processors fetch together.
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    /// Counters without labels.
    pub count: Counters,
    /// Histograms.
    pub time: Timings,
    /// Errors that clients were sent, by SQLSTATE class.
    pub errors: SqlStateClasses,
    /// How often a client was pinned, by reason.
    pub session_pins: Family,
    /// Closed server connections, by reason.
    pub server_closes: Family,
    /// Clients that were not let in, by reason.
    pub login_rejections: Family,
    /// Position: twice the protocol, plus one for TLS.
    queries: [Counter; 4],
    gauges: [AtomicU64; GaugeKind::TABLE.len()],
    pinned: [AtomicU64; LABELS_MAX],
    pinned_other: AtomicU64,
}

impl Shard {
    pub(super) fn new(labels: &Labels) -> Self {
        Self {
            count: Counters::default(),
            time: Timings::default(),
            errors: SqlStateClasses::new(),
            session_pins: Family::new(&labels.pins),
            server_closes: Family::new(&labels.server_closes),
            login_rejections: Family::new(&labels.login_rejections),
            queries: Default::default(),
            gauges: Default::default(),
            pinned: Default::default(),
            pinned_other: AtomicU64::default(),
        }
    }

    /// The counter of the queries that came by `protocol`, with or without TLS.
    #[must_use]
    pub fn queries(&self, protocol: QueryProtocol, tls: bool) -> &Counter {
        let [simple, simple_tls, extended, extended_tls] = &self.queries;
        match (protocol, tls) {
            (QueryProtocol::Simple, false) => simple,
            (QueryProtocol::Simple, true) => simple_tls,
            (QueryProtocol::Extended, false) => extended,
            (QueryProtocol::Extended, true) => extended_tls,
        }
    }

    /// Counts one more of `kind` until the guard is dropped.
    pub fn enter(self: &Arc<Self>, kind: GaugeKind) -> GaugeGuard {
        GaugeGuard::new(self, Slot::Kind(kind))
    }

    /// Counts one more pin, and one more pinned client until the guard is dropped.
    pub fn enter_pin<L: Label>(self: &Arc<Self>, reason: L) -> GaugeGuard {
        let position = self.session_pins.position(reason);
        self.session_pins.at(position).one();
        let index = u8::try_from(position).unwrap_or(u8::MAX);
        GaugeGuard::new(self, Slot::Pinned(index))
    }

    pub(super) fn gauge(&self, kind: GaugeKind) -> u64 {
        self.slot(Slot::Kind(kind)).load(Ordering::Relaxed)
    }

    /// Clients pinned for the reason at `index`; all beyond the bound together.
    pub(super) fn pinned(&self, index: usize) -> u64 {
        self.pinned.get(index).unwrap_or(&self.pinned_other).load(Ordering::Relaxed)
    }

    fn slot(&self, slot: Slot) -> &AtomicU64 {
        let [
            clients,
            in_setup,
            tls,
            no_tls,
            servers_tls,
            in_transaction,
            listening,
            listeners,
            proving,
        ] = &self.gauges;
        match slot {
            Slot::Kind(GaugeKind::ClientConnections) => clients,
            Slot::Kind(GaugeKind::ClientConnectionsInSetup) => in_setup,
            Slot::Kind(GaugeKind::ClientConnectionsTls) => tls,
            Slot::Kind(GaugeKind::ClientConnectionsNoTls) => no_tls,
            Slot::Kind(GaugeKind::DatabaseConnectionsWithTls) => servers_tls,
            Slot::Kind(GaugeKind::DatabaseConnectionsInTransaction) => in_transaction,
            Slot::Kind(GaugeKind::ClientConnectionsListening) => listening,
            Slot::Kind(GaugeKind::DatabaseConnectionsListening) => listeners,
            Slot::Kind(GaugeKind::DatabaseConnectionsProving) => proving,
            Slot::Pinned(index) => {
                self.pinned.get(usize::from(index)).unwrap_or(&self.pinned_other)
            }
        }
    }
}

/// Which gauge of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slot {
    Kind(GaugeKind),
    /// Position of the reason.
    Pinned(u8),
}

/// Keeps one thing counted in a gauge. It may be dropped on any thread, at an early return or
/// while a panic unwinds: the gauge goes down in each case.
#[must_use = "dropping the guard takes the gauge down again"]
#[derive(Debug)]
pub struct GaugeGuard {
    shard: Arc<Shard>,
    slot: Slot,
}

// Every client holds two of them.
const _: () = assert!(size_of::<GaugeGuard>() <= 16);

impl GaugeGuard {
    fn new(shard: &Arc<Shard>, slot: Slot) -> Self {
        shard.slot(slot).fetch_add(1, Ordering::Relaxed);
        Self { shard: Arc::clone(shard), slot }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.shard.slot(self.slot).fetch_sub(1, Ordering::Relaxed);
    }
}
