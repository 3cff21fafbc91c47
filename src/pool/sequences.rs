//! What the clients of a pool do with the values of sequences, and so what is done about them.
//!
//! It is learned from their statements and from the code in the database, and holds as long as pgweir runs.

use super::Pool;
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
    /// True if servers are to forget the values of sequences between two clients.
    #[must_use]
    pub fn separates_sequences(&self) -> bool {
        self.sequences.reads.load(Ordering::Relaxed)
            || self.sequences.tried.load(Ordering::Relaxed) < TRIAL
    }

    /// True if a client that has such a value is to keep its server.
    #[must_use]
    pub fn keeps_sequences(&self) -> bool {
        self.sequences.reads_later.load(Ordering::Relaxed)
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
