//! What becomes of a session when messages came to nothing, or when the client throws it away.

use super::pipeline::{Miscarriage, Pipeline, Undo};
use super::session::{ServerSide, ServerUnnamed, Session};
use super::transaction::TransactionStatus;
use std::sync::Arc;

impl Session {
    /// Takes back what was assumed of a message that failed or was skipped.
    pub fn undo(&mut self, server: &mut ServerSide, undo: Undo, how: Miscarriage) {
        match undo {
            // If these were refused, the server is closed.
            Undo::Nothing | Undo::Settings => {}
            Undo::Parsed { name, id } => {
                self.statements.remove(&name);
                server.statements.remove(id);
                self.undone.push((id, name));
            }
            Undo::Named { name, id } => {
                self.statements.remove(&name);
                self.undone.push((id, name));
            }
            Undo::Injected(id) => server.statements.remove(id),
            Undo::Sequences => server.sequences.not_forgotten(),
            Undo::Evicted(id) => server.statements.insert(id),
            Undo::Closed { name, statement } => self.statements.insert(name, statement),
            Undo::OwnName(name) => self.own(server).unsure(&name),
            Undo::SqlClosed { name, statement } => {
                self.sql.insert(&name, statement);
                self.own(server).unsure(&name);
            }
            Undo::Unnamed(previous) => {
                // PostgreSQL drops the old unnamed statement before it looks at the new one.
                let previous = if how == Miscarriage::Failed { None } else { previous };
                // A batch behind this one may have replaced it again.
                if let Some(found) = server.pipeline.next_unnamed() {
                    *found = previous;
                } else {
                    self.unnamed = previous;
                    server.unnamed = ServerUnnamed::Unknown;
                }
            }
            Undo::ServerUnnamed => {
                if server.pipeline.next_unnamed().is_none() {
                    server.unnamed = ServerUnnamed::Unknown;
                }
            }
        }
    }

    /// The client is told that it may go on.
    pub(super) fn ready(&mut self, pipeline: &Pipeline, status: TransactionStatus) {
        if !pipeline.owes_a_batch() {
            self.channels.ready(status);
        }
        if !pipeline.owes_the_client() {
            self.portals_end(status);
        }
        if pipeline.is_answered() {
            self.reading.answered(status);
            self.undone = Vec::new();
        }
    }

    /// All that was sent is answered. With their transaction, portals end.
    pub(super) fn portals_end(&mut self, status: TransactionStatus) {
        self.sql.ready(status);
        self.may_discard &= status != TransactionStatus::Idle;
    }

    /// Takes back what was assumed of messages that never ran.
    pub fn abandon(&mut self, server: &mut ServerSide) {
        let mut undone = Vec::new();
        server.pipeline.abandon(|undo| undone.push(undo));
        for undo in undone {
            self.undo(server, undo, Miscarriage::Skipped);
        }
        self.discarding = false;
        self.portals_end(TransactionStatus::Idle);
        self.undone = Vec::new();
        self.channels.failed();
        self.channels.ready(TransactionStatus::Idle);
    }

    /// The client's `DISCARD ALL` or `DEALLOCATE ALL` succeeded.
    pub fn deallocated_all(&mut self, settings_too: bool) {
        self.statements.clear();
        self.sql.clear();
        if !settings_too {
            return;
        }
        self.channels.clear();
        self.settings_touched = false;
        self.settings = Arc::clone(&self.startup);
        self.retell = !self.startup.is_empty();
        if self.pin.is_none_or(|reason| !reason.survives_discard_all()) {
            self.audit.forget();
            self.pin = None;
            if let Some(reason) = self.keeps_by_itself() {
                self.pin_for_good(reason);
            }
        }
    }
}
