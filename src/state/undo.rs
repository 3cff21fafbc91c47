//! What becomes of a session when messages came to nothing, or when the client throws it away.

use super::pipeline::{Miscarriage, Pipeline, Undo};
use super::session::{ServerSide, ServerUnnamed, Session};
use super::transaction::TransactionStatus;
use std::sync::Arc;

/// Most names of statements that came to nothing.
const UNDONE_MAX: usize = 64;

/// Longest of them, in bytes: PostgreSQL itself looks at less.
const UNDONE_NAME_MAX: usize = 1024;

/// Statements that came to nothing, while what was sent behind them is not answered: errors about them have the
/// client's name for them.
#[derive(Default)]
pub(super) struct Undone(Vec<(u64, Box<[u8]>, usize)>);

impl Undone {
    /// What the client called statement `id`.
    pub(super) fn name_of(&self, id: u64) -> Option<&[u8]> {
        self.0.iter().rev().find(|(undone, ..)| *undone == id).map(|(_, name, _)| &**name)
    }

    /// Adds one that matters until so many batches are answered.
    fn push(&mut self, id: u64, name: Box<[u8]>, batches: usize) {
        if name.len() > UNDONE_NAME_MAX {
            return;
        }
        if self.0.len() >= UNDONE_MAX {
            self.0.remove(0);
        }
        self.0.push((id, name, batches));
    }

    /// A batch is answered, and so many are not.
    fn answered(&mut self, due: usize) {
        for (.., batches) in &mut self.0 {
            *batches = batches.saturating_sub(1).min(due);
        }
        self.0.retain(|(.., batches)| *batches > 0);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Session {
    /// Takes back what was assumed of a message that failed or was skipped.
    pub fn undo(&mut self, server: &mut ServerSide, undo: Undo, how: Miscarriage) {
        match undo {
            // If these were refused, the server is closed.
            Undo::Nothing | Undo::Settings | Undo::Describes(_) => {}
            Undo::Verifies { .. } => self.not_described(),
            Undo::Refuses if how == Miscarriage::Failed => self.note_refused(),
            Undo::Refuses => {}
            Undo::Parsed { name, id } => {
                self.statements.remove(&name);
                server.statements.remove(id);
                self.undone.push(id, name, server.pipeline.batches_due());
            }
            Undo::Named { name, id } => {
                self.statements.remove(&name);
                self.undone.push(id, name, server.pipeline.batches_due());
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
        }
        self.undone.answered(pipeline.batches_due());
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
        self.undone = Undone::default();
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
        self.sequences.forget();
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
