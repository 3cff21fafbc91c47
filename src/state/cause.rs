//! The statement for which a client is pinned, for the log: without its literals.
//!
//! Often it is known only when the transaction is over that something is left. Until then a part of the
//! text is kept.

use super::audit::Audit;
use super::pin::PinReason;
use super::session::Session;
use super::statement::{Effects, Options, digest};

/// Most bytes kept of a text: a digest is no longer than half of them.
const KEPT_MAX: usize = 512;

/// A statement that may have left something.
pub(super) struct Cause {
    reason: PinReason,
    text: Box<[u8]>,
    options: Options,
}

impl Audit {
    /// Takes note of a statement that may pin. Of several, the one with the weightier reason is kept.
    pub(super) fn note_cause(&mut self, effects: Effects, text: &[u8], options: Options) {
        let reason = PinReason::of(effects).unwrap_or(PinReason::Hidden);
        let rank = |reason: PinReason| (reason == PinReason::Hidden, reason == PinReason::Setting);
        if self.cause.as_ref().is_some_and(|known| rank(known.reason) <= rank(reason)) {
            return;
        }
        let text = text.get(..KEPT_MAX).unwrap_or(text).into();
        self.cause = Some(Box::new(Cause { reason, text, options }));
    }
}

impl Session {
    /// The statement that pinned the client, without its literals, where it is known and was understood.
    pub fn take_cause_of_pin(&mut self) -> Option<String> {
        let cause = self.audit.cause.take()?;
        if cause.reason == PinReason::Uncertain {
            return None;
        }
        let mut shown = String::new();
        digest(&cause.text, cause.options, &mut shown);
        (!shown.is_empty()).then_some(shown)
    }
}
