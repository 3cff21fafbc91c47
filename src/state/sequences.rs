//! Values of sequences: `currval` and `lastval` tell what the session itself took last, and nothing of others.
//!
//! A server remembers the values that `nextval` and `setval` gave on it, whoever asked. Each client has a
//! mark, a new one whenever it begins to take values on another server; a server keeps the mark of the one
//! client that alone can have taken values on it. Where the marks agree, what the server tells is the
//! client's own and its latest. Where they do not, the server forgets everything before the client reads
//! (`DISCARD SEQUENCES`), and the answer is PostgreSQL's own for a session without a value (55000).
//!
//! What a pool does about it grows with what its clients do:
//!
//! 1. Nobody reads: nothing. A client that writes pays for no more than the comparison of its mark.
//! 2. Somebody reads, or the pool is new: whoever borrows a server with values of others has them
//!    forgotten in the same write, so that what it takes in its transaction can be told in it.
//! 3. Somebody reads in a later transaction than it took the value in, as PDO's `lastInsertId` does: a client
//!    that has a value, which its server is asked for, keeps the server.
//!
//! Sources: <https://www.postgresql.org/docs/current/functions-sequence.html>,
//! <https://www.postgresql.org/docs/current/sql-discard.html>

use super::pipeline::{Expected, Fate, Undo};
use super::prelude;
use super::server_side::ServerSide;
use super::session::{ClientFault, Limits, Moment, Session};
use super::statement::Effects;
use super::transaction::TransactionStatus;
use crate::wire::{FrontendTag, encode};

/// What may take a value, by its name or by a default or trigger.
pub(super) const TAKES: Effects =
    Effects::WRITE.and(Effects::CODE).and(Effects::SEQUENCE_NEXT).and(Effects::DDL);

/// What may read one. Functions that do are found in the catalogue.
pub(super) const READS: Effects = Effects::SEQUENCE_READ.and(Effects::UNCERTAIN).and(Effects::DO);

/// What is done about the values of sequences in a pool; see the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCare {
    /// Nothing: nobody asks for them.
    None,
    /// Servers forget them between two clients.
    Separate,
    /// And who has one keeps its server.
    Keep,
}

/// A client, and how often it began to take values on another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    client: u64,
    number: u64,
}

/// Whose values `currval` and `lastval` could tell on a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sequences {
    /// Who took values last; `None` if nobody did.
    of: Option<Mark>,
    /// Others did before.
    mixed: bool,
}

/// What a client has to do with sequences.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OwnSequences {
    number: u64,
    took: Took,
    /// It has read what it took in an earlier transaction.
    reads_later: bool,
    /// Its server has what it took in an earlier transaction, and it reads that.
    pub(super) stays: bool,
    /// It has sent what may end the failure of its block.
    revives: bool,
}

/// When a client may have taken a value last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Took {
    #[default]
    Never,
    /// In an earlier transaction.
    Before,
    /// Since it got its server.
    Now,
}

impl OwnSequences {
    /// The client gives its server back.
    pub(super) fn released(&mut self) {
        if self.took == Took::Now {
            self.took = Took::Before;
        }
        self.revives = false;
    }

    /// The client has thrown its values away, wherever they are.
    pub(super) fn forget(&mut self) {
        *self = Self { number: self.number + 1, ..Self::default() };
    }
}

impl Session {
    fn mark(&self) -> Mark {
        Mark { client: self.id, number: self.sequences.number }
    }

    /// Makes `server`, which owes nothing, forget the values of others, if that is wanted. Yields whether a
    /// batch was begun with that, which [`super::prelude::write`] goes on with.
    pub fn separate_sequences(
        &self,
        server: &mut ServerSide,
        limits: &Limits,
        out: &mut Vec<u8>,
    ) -> bool {
        let Some(of) = server.sequences.of else { return false };
        let wanted =
            limits.sequences != SequenceCare::None && (of != self.mark() || server.sequences.mixed);
        if wanted {
            discard(server, Fate::Prelude, out);
        }
        wanted
    }

    /// Takes note of a statement that may read or take values, and is about to run.
    pub(super) fn observe_sequences(
        &mut self,
        effects: Effects,
        server: &mut ServerSide,
        moment: Moment,
        out: &mut Vec<u8>,
    ) -> Result<(), ClientFault> {
        if effects.intersects(READS) {
            self.before_read(effects, server, moment, out)?;
        }
        if effects.intersects(TAKES) {
            if server.sequences.of != Some(self.mark()) {
                self.sequences.number += 1;
                server.sequences.mixed |= server.sequences.of.is_some();
                server.sequences.of = Some(self.mark());
            }
            self.sequences.took = Took::Now;
        }
        Ok(())
    }

    /// True if a statement at the beginning of a batch has to wait, because values of others are to be forgotten before
    /// it, and whether a block is open, or has failed, is not known before the batches sent are answered.
    pub(super) fn awaits_sequences(&mut self, effects: Effects, server: &ServerSide) -> bool {
        let waits = effects.intersects(READS)
            && self.may_read_of_others(server)
            && !server.pipeline.is_mid_batch()
            && server.pipeline.awaits_outcome();
        if waits {
            self.channels.wait();
        }
        waits
    }

    fn may_read_of_others(&self, server: &ServerSide) -> bool {
        server.sequences.of.is_some_and(|of| of != self.mark() || server.sequences.mixed)
    }

    /// Takes note of a DO that is about to be parsed, and is likely to be executed in the same batch.
    pub(super) fn before_do(
        &mut self,
        server: &mut ServerSide,
        out: &mut Vec<u8>,
    ) -> Result<(), ClientFault> {
        if is_between_transactions(server) {
            self.before_read(Effects::DO, server, Moment::BetweenBatches, out)?;
        }
        Ok(())
    }

    fn before_read(
        &mut self,
        effects: Effects,
        server: &mut ServerSide,
        moment: Moment,
        out: &mut Vec<u8>,
    ) -> Result<(), ClientFault> {
        let own = &mut self.sequences;
        let later = own.took == Took::Before
            && effects.intersects(Effects::SEQUENCE_READ)
            && !effects.intersects(TAKES);
        own.reads_later |= later;
        if !self.may_read_of_others(server) {
            self.sequences.stays = later;
            return Ok(());
        }
        if server.pipeline.status() != TransactionStatus::Failed {
            // What runs ahead of a DO in its own batch would forbid it to COMMIT.
            let ahead = is_between_transactions(server);
            match if ahead { Moment::BetweenBatches } else { moment } {
                Moment::InBatch => discard(server, Fate::Swallow, out),
                Moment::BetweenBatches if server.pipeline.status() == TransactionStatus::Idle => {
                    // The client must not read if this fails.
                    discard(server, Fate::Prelude, out);
                    prelude::guard(server, Fate::Prelude, Fate::Prelude, out);
                }
                Moment::BetweenBatches => {
                    // The block fails if this does, and nothing is read.
                    discard(server, Fate::Swallow, out);
                    out.extend_from_slice(&encode::SYNC);
                    server.pipeline.push(Expected::ReadyForQuery, Fate::Swallow, Undo::Nothing);
                }
            }
            return Ok(());
        }
        // Nothing runs in a failed block, and so nothing is told, unless the failure ends on the way.
        self.sequences.revives &= !server.pipeline.is_settled();
        if self.sequences.revives || effects.intersects(Effects::TRANSACTION_CONTROL) {
            return Err(ClientFault::Sequences);
        }
        Ok(())
    }

    /// The client's `DISCARD SEQUENCES` has come to an end on `server`: what it has on others is void, too. What it has
    /// there by now it took behind that.
    pub(super) fn discarded_sequences(&mut self, server: &mut ServerSide) {
        let before = self.mark();
        self.sequences.number += 1;
        if self.sequences.took == Took::Before {
            self.sequences.took = Took::Never;
        }
        let of = server.sequences.of.filter(|of| *of == before).map(|_| self.mark());
        server.sequences = Sequences { of, mixed: false };
    }

    /// Takes note of what may end the failure of a block.
    pub(super) fn note_revival(&mut self) {
        self.sequences.revives = true;
    }

    /// True, once, if the client has read a value that it took in an earlier transaction, or would have.
    pub fn take_reads_later(&mut self) -> bool {
        std::mem::take(&mut self.sequences.reads_later)
    }
}

/// True if no block is open, and nothing of a batch was sent.
fn is_between_transactions(server: &ServerSide) -> bool {
    server.pipeline.status() == TransactionStatus::Idle && !server.pipeline.is_mid_batch()
}

/// Makes the server forget the values of all sequences, as part of a batch.
fn discard(server: &mut ServerSide, fate: Fate, out: &mut Vec<u8>) {
    const NAME: &[u8] = b"pgweir_discard_sequences";
    encode::parse(out, NAME, b"DISCARD SEQUENCES\0\0\0");
    encode::message(out, FrontendTag::BIND.0, |out| {
        encode::cstr(out, b"pgweir");
        encode::cstr(out, NAME);
        out.extend_from_slice(&[0; 6]);
    });
    encode::message(out, FrontendTag::EXECUTE.0, |out| {
        encode::cstr(out, b"pgweir");
        out.extend_from_slice(&[0; 4]);
    });
    encode::close_statement(out, NAME);
    for (expected, undo) in [
        (Expected::ParseComplete, Undo::Nothing),
        (Expected::BindComplete, Undo::Nothing),
        (Expected::Execution, Undo::Sequences),
        (Expected::CloseComplete, Undo::Nothing),
    ] {
        server.pipeline.push(expected, fate, undo);
    }
    server.sequences = Sequences::default();
}

impl Sequences {
    /// What was to be forgotten was not.
    pub(super) fn not_forgotten(&mut self) {
        // The mark of nobody, where there is none.
        self.of.get_or_insert(Mark { client: u64::MAX, number: u64::MAX });
        self.mixed = true;
    }
}

#[cfg(test)]
#[path = "sequences_tests.rs"]
mod tests;
