//! Errors about a prepared statement: a server tells its own name for it, the client hears its.

use super::prepared::{SERVER_NAME_PREFIX, TAKEN};
use super::session::Session;
use super::shape::{MISSING, stale_plan};
use crate::wire::response::ErrorFields;
use crate::wire::{BackendTag, SqlState, encode};
use memchr::memmem;

/// What PostgreSQL answers with the name of a prepared statement in it.
const ABOUT_STATEMENTS: [SqlState; 3] = [
    // Another number of values than it has parameters.
    SqlState::PROTOCOL_VIOLATION,
    // There is none.
    SqlState::INVALID_SQL_STATEMENT_NAME,
    // There is one already.
    SqlState::DUPLICATE_PREPARED_STATEMENT,
];

impl Session {
    /// The `ErrorResponse` with this body as the client should have it, if that is not as it came.
    pub(super) fn retold(&mut self, body: &[u8]) -> Option<Vec<u8>> {
        let refused = self.take_refused();
        let (before, rest) = around(body)?;
        let sqlstate = ErrorFields::read(body).sqlstate;
        if refused && sqlstate == Some(MISSING) {
            return Some(stale_plan());
        }
        if !sqlstate.is_some_and(|code| ABOUT_STATEMENTS.contains(&code)) {
            return None;
        }
        let (own, behind) = match rest.strip_prefix(b"_") {
            // It was given this letter so that it is none of pgweir's.
            Some(behind) => (SERVER_NAME_PREFIX, behind),
            None => {
                let (number, behind) = number(rest)?;
                let id = number & !TAKEN;
                let name = self.statements.name_of(id);
                (name.or_else(|| self.undone.name_of(id))?, behind)
            }
        };
        let mut out = Vec::with_capacity(body.len() + own.len());
        encode::message(&mut out, BackendTag::ERROR_RESPONSE.0, |out| {
            for part in [before, own, behind] {
                out.extend_from_slice(part);
            }
        });
        Some(out)
    }
}

/// The number of the statement of pgweir's own that an error with this body tells of.
pub(super) fn number_in(body: &[u8]) -> Option<u64> {
    number(around(body)?.1).map(|(id, _)| id)
}

/// What stands around the beginning of a name of pgweir's own.
fn around(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memmem::find(body, SERVER_NAME_PREFIX)?;
    let (before, name) = body.split_at_checked(at)?;
    Some((before, name.strip_prefix(SERVER_NAME_PREFIX)?))
}

fn number(rest: &[u8]) -> Option<(u64, &[u8])> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (number, behind) = rest.split_at_checked(digits)?;
    let number = std::str::from_utf8(number).ok()?;
    Some((u64::from_str_radix(number, 16).ok()?, behind))
}
