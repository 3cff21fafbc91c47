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
    /// A function called by number is one of those for large objects, or may be anything.
    pub(super) fn observe_function_call(
        &mut self,
        body: &[u8],
        server: &mut ServerSide,
        out: &mut Vec<u8>,
    ) -> Result<(), ClientFault> {
        let oid = body.first_chunk::<4>().map(|oid| u32::from_be_bytes(*oid));
        if oid.is_some_and(|oid| LARGE_OBJECT_FUNCTIONS.contains(&oid)) {
            return Ok(());
        }
        self.pin_for_good(PinReason::Uncertain);
        self.observe_sequences(READS.and(TAKES), server, Moment::InBatch, out)
    }
}
