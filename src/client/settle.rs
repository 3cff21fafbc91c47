//! The end of a client's transaction: what it left is asked for, and its server given back or kept.

use super::backlog::{Backlog, give_buffer, take_buffer};
use super::registry::Activity;
use super::serve::{Attachment, Client, End};
use crate::pool::{BorrowError, CountedPin};
use crate::server::CloseReason;
use crate::state::defaults::IS_SUPERUSER;
use crate::state::reply::Passing;
use crate::state::settings::ROLE;
use crate::state::{PinReason, TransactionStatus};
use crate::telemetry::clock;
use crate::telemetry::metrics::{GaugeGuard, GaugeKind, Label};
use crate::wire::{ErrorResponse, SqlState, encode};
use std::time::Instant;

impl Label for PinReason {
    const ALL: &'static [Self] = &Self::ALL;

    fn as_label(self) -> &'static str {
        Self::as_label(self)
    }

    fn index(self) -> usize {
        Self::index(self)
    }
}

/// Since when, and why, a client keeps its server.
pub(super) struct PinnedSince {
    since: Instant,
    reason: PinReason,
    /// The client was told, if it is to be.
    told: bool,
    _gauge: GaugeGuard,
    _counted: CountedPin,
}

impl Client {
    pub(super) fn pin_if_due(&mut self) {
        let Some(reason) = self.session.pin else { return };
        if self.pinned.is_some() {
            return;
        }
        let statement = self.session.take_cause_of_pin();
        tracing::info!(
            client = self.session.id,
            database = %self.pool.database,
            user = %self.pool.user,
            reason = reason.as_label(),
            advice = reason.advice(),
            statement,
            "client pinned"
        );
        self.pinned = Some(Box::new(PinnedSince {
            since: clock::now(),
            reason,
            told: false,
            _gauge: self.worker.shard.enter_pin(reason),
            _counted: CountedPin::of(&self.pool),
        }));
    }

    /// Tells the client, between two messages of its server, that it is pinned, if the operator wants that.
    pub(super) fn tell_of_pin(&mut self) {
        let Some(pinned) = self.pinned.as_mut().filter(|pinned| !pinned.told) else { return };
        let Attachment::Attached(lease) = &self.attachment else { return };
        if lease.server.passing != Passing::Nothing {
            return;
        }
        pinned.told = true;
        if !self.worker.shared.live().pin_notice {
            return;
        }
        let message =
            format!("session is pinned to its server connection: {}", pinned.reason.as_label());
        let notice = ErrorResponse::notice(SqlState::SUCCESSFUL_COMPLETION, message)
            .with_detail("Nobody else can use the connection until what keeps it is gone.")
            .with_hint(pinned.reason.advice());
        self.say(notice.to_bytes());
    }

    /// Says something between two messages of the server: before the client may go on, if that came last.
    fn say(&mut self, message: Vec<u8>) {
        let came_last = match &self.attachment {
            Attachment::Attached(lease) => lease.server.side.pipeline.is_answered(),
            Attachment::Detached | Attachment::Waiting { .. } => true,
        };
        if came_last {
            self.to_client.insert_before(message, &encode::READY_IDLE);
        } else {
            // A row may end with the same bytes.
            self.to_client.push(message);
        }
    }

    pub(super) fn unpin(&mut self) {
        if let Some(pinned) = self.pinned.take() {
            let held = clock::now().saturating_duration_since(pinned.since);
            self.worker.shard.time.session_pin.observe(held);
            tracing::debug!(
                client = self.session.id,
                reason = pinned.reason.as_label(),
                held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX),
                "client unpinned"
            );
        }
    }

    pub(super) fn unpin_if_free(&mut self) {
        if self.session.pin.is_none() {
            self.unpin();
        }
    }

    /// Tells the client what its settings are, where a reset has told it of other defaults: between two messages of
    /// its server, or else at the end of its next batch, of which it has the beginning.
    pub(super) fn retell(&mut self) {
        if let Attachment::Attached(lease) = &self.attachment
            && lease.server.passing != Passing::Nothing
        {
            return;
        }
        if !self.session.take_retell() {
            return;
        }
        let startup = &self.session.startup;
        let of = |own: &_| {
            let learned = self.learned.as_deref().cloned();
            learned.or_else(|| super::welcome::foreseen(&self.baseline, own))
        };
        let reported = self.session.reported_at_login(of);
        let mut out = take_buffer();
        // With its role came this.
        let role = startup.get(ROLE).filter(|role| self.session.settings.get(ROLE) == Some(role));
        let told = role.and_then(|_| self.session.told_of(IS_SUPERUSER));
        let is_untrue = |name: &str, value: &str| {
            name == IS_SUPERUSER && told.is_some_and(|told| told != value)
        };
        let mut of_role = None;
        for (name, value) in reported.iter().flatten() {
            if is_untrue(name, value) {
                of_role = Some(value);
            } else if startup.get(&name.to_ascii_lowercase()).is_none() {
                continue;
            }
            encode::parameter_status(&mut out, name, value);
        }
        if let Some(value) = of_role {
            self.session.note_told(IS_SUPERUSER, value);
        }
        if out.is_empty() {
            give_buffer(out);
        } else {
            self.say(out);
        }
    }

    /// The server has said what the client left there, or what the code in the database may leave.
    pub(super) fn conclude(&mut self) -> Result<(), End> {
        if let Some(told) = self.session.take_told_of_code() {
            self.pool.told_of_code(&told, clock::now());
            self.examine();
            return Ok(());
        }
        let Attachment::Attached(lease) = &mut self.attachment else { return Ok(()) };
        let lose_settings = self.worker.shared.live().session_pinning_filters.variable_sets;
        let opaque = self.pool.has_opaque_code();
        self.session.conclude(&mut lease.server.side, opaque, lose_settings);
        if self.session.pin.is_some() {
            self.entered.seat.begin(&lease.server.cancel);
        }
        self.unpin_if_free();
        self.pin_if_due();
        self.tell_of_pin();
        self.retell();
        self.let_go(clock::now())
    }

    /// Asks what the client has left, or gives the server back, if the transaction is over.
    pub(super) fn settle(&mut self, now: Instant) -> Result<(), End> {
        let Attachment::Attached(lease) = &mut self.attachment else { return Ok(()) };
        let settled = lease.server.side.pipeline.is_settled();
        if settled {
            self.worker.shard.count.transactions.one();
            if let Some(seen) = self.session.take_changed_plans() {
                self.pool.note_ddl(seen);
            }
            if self.session.take_changed_code() {
                self.pool.note_code();
            }
            if let Some(changed) = self.session.take_changed_defaults() {
                self.pool.pools().note_changed_defaults(&changed);
            }
        }
        if lease.server.side.pipeline.status() == TransactionStatus::Idle {
            self.in_transaction = None;
        } else if self.in_transaction.is_none() {
            let kind = GaugeKind::DatabaseConnectionsInTransaction;
            self.in_transaction = Some(self.worker.shard.enter(kind));
        }
        let quiet = settled && self.to_server.is_empty() && !self.session.is_streaming();
        if quiet && self.session.is_examination_due() {
            // A cancel that comes late is not for the question.
            self.entered.seat.end();
            let asks = self.session.has_run_code();
            if let Some(question) = asks.then(|| self.pool.question_of_code()).flatten() {
                let mut out = take_buffer();
                self.session.ask_for_code(&mut lease.server.side, question, &mut out);
                self.to_server = Backlog::Bytes(out, 0);
            } else {
                self.examine();
            }
            return Ok(());
        }
        self.let_go(now)
    }

    /// Asks the server what the client has left there.
    fn examine(&mut self) {
        let Attachment::Attached(lease) = &mut self.attachment else { return };
        let mut out = take_buffer();
        let names = self.pool.settings_in_code();
        let names = names.iter().map(|name| &**name);
        self.session.examine(&mut lease.server.side, &self.pool.user, names, &mut out);
        self.to_server = Backlog::Bytes(out, 0);
    }

    /// A cancel has struck what was sent ahead of the client's batch, which has not run: it is
    /// refused as a whole. What the server has is not known, and so it is closed.
    pub(super) fn cancelled_ahead(&mut self) {
        let attachment = std::mem::replace(&mut self.attachment, Attachment::Detached);
        let Attachment::Attached(mut lease) = attachment else { return };
        self.entered.seat.end();
        let side = &mut lease.server.side;
        let ended = side.pipeline.owes_the_client();
        self.session.abandon(side);
        self.session.released();
        self.to_server = Backlog::Empty;
        lease.close(CloseReason::NotClean);
        self.refuse_batch(&BorrowError::Cancelled);
        if ended {
            self.end_refused_batch();
        }
    }

    /// Gives the server back, if the transaction is over and nothing keeps it.
    fn let_go(&mut self, now: Instant) -> Result<(), End> {
        let Attachment::Attached(lease) = &self.attachment else { return Ok(()) };
        let side = &lease.server.side;
        let tainted = side.pipeline.is_tainted();
        if tainted && self.session.keeps_server() {
            // What the client has there goes with the server, and it must not go on without it.
            return Err(End::ServerLost);
        }
        if !tainted && (!side.pipeline.is_settled() || self.session.keeps_server()) {
            return Ok(());
        }
        if let Passing::Forward(_) = lease.server.passing {
            // The rest of a message that the client has the beginning of goes with the server.
            return Err(End::ServerLost);
        }
        let clean = lease.server.passing == Passing::Nothing
            && self.to_server.is_empty()
            && !self.session.is_streaming();
        let attachment = std::mem::replace(&mut self.attachment, Attachment::Detached);
        let Attachment::Attached(lease) = attachment else { return Ok(()) };
        self.entered.seat.end();
        self.session.released();
        self.mark(Activity::Idle, now);
        if tainted || !clean {
            // What is left of a copy that failed is for nobody, least of all for the next server.
            self.to_server = Backlog::Empty;
            lease.close(CloseReason::NotClean);
        } else {
            lease.give_back(now);
        }
        Ok(())
    }
}
