//! What the clients of a pool do with the values of sequences, and so what is done about them.
//!
//! It is learned from their statements and from the code in the database, and holds as long as pgweir runs.

use super::Pool;
use crate::state::session::SequenceCare;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// How often servers forget the values of sequences between two clients of which none has read any yet.
/// Whoever reads at all has mostly done so by then.
const TRIAL: u32 = 1000;

/// What is known of the clients of a pool.
#[derive(Default)]
pub(super) struct SequenceUse {
    reads: AtomicBool,
    reads_later: AtomicBool,
    tried: AtomicU32,
}

impl SequenceUse {
    /// Code in the database reads values.
    pub(super) fn note_code(&self) {
        self.reads.store(true, Ordering::Relaxed);
    }
}

impl Pool {
    /// What is to be done about them.
    #[must_use]
    pub fn sequence_care(&self) -> SequenceCare {
        let known = &self.sequences;
        if known.reads_later.load(Ordering::Relaxed) {
            SequenceCare::Keep
        } else if known.reads.load(Ordering::Relaxed) || known.tried.load(Ordering::Relaxed) < TRIAL
        {
            SequenceCare::Separate
        } else {
            SequenceCare::None
        }
    }

    /// A server was told to forget.
    pub fn note_separation(&self) {
        if !self.sequences.reads.load(Ordering::Relaxed) {
            self.sequences.tried.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client has asked for a value, `later` than in the transaction that took one.
    pub fn note_sequence_read(&self, later: bool) {
        self.sequences.reads.store(true, Ordering::Relaxed);
        if later && !self.sequences.reads_later.swap(true, Ordering::Relaxed) {
            tracing::info!(
                database = %self.database,
                user = %self.user,
                "currval or lastval is used after the transaction of nextval: clients with such values keep their servers \
                 from now on (use INSERT ... RETURNING)"
            );
        }
    }
}
