//! Functions that are called by their number, as `PQfn` does.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-FUNCTION-CALL>

use super::pin::PinReason;
use super::sequences::{READS, TAKES};
use super::session::{ClientFault, Moment, ServerSide, Session};

/// `lo_create`, `lo_open` and so on: what drivers call by number. They leave nothing behind.
///
/// Source: <https://github.com/postgres/postgres/blob/master/src/include/catalog/pg_proc.dat>
const LARGE_OBJECT_FUNCTIONS: [u32; 14] =
    [715, 764, 952, 953, 954, 955, 956, 957, 958, 964, 1004, 3170, 3171, 3172];

impl Session {
    /// A function called by number is one of those for large objects, or may be anything. False: not yet.
    pub(super) fn observe_function_call(
        &mut self,
        body: &[u8],
        server: &mut ServerSide,
        out: &mut Vec<u8>,
    ) -> Result<bool, ClientFault> {
        let oid = body.first_chunk::<4>().map(|oid| u32::from_be_bytes(*oid));
        if oid.is_some_and(|oid| LARGE_OBJECT_FUNCTIONS.contains(&oid)) {
            return Ok(true);
        }
        if server.pipeline.awaits_outcome() {
            self.channels.wait();
            return Ok(false);
        }
        self.pin_for_good(PinReason::Uncertain);
        // It is no part of a batch: PostgreSQL would skip it behind an error ahead of it, up to a Sync that nobody sends.
        let in_batch = server.pipeline.is_mid_batch();
        let moment = if in_batch { Moment::InBatch } else { Moment::BetweenBatches };
        self.observe_sequences(READS.and(TAKES), server, moment, out)?;
        Ok(true)
    }
}
