//! A client beside servers that have changed: it follows what is known of the code in its database, and keeps the
//! defaults that it was told of.

use super::serve::{Attachment, Client};
use std::sync::Arc;

impl Client {
    /// Takes over what its pool has learned up to `seen`.
    pub(super) fn learn_of_pool(&mut self, seen: u32) {
        let suspects = self.pool.suspects();
        let Some(now) = self.pool.baseline() else {
            // It becomes known with the next server that is opened.
            return self.session.learn_of_code(self.session.code_seen, suspects);
        };
        if !Arc::ptr_eq(&self.baseline, &now) {
            // In the middle of a transaction, what it was told is not yet what it has set, nor its default. On a server
            // that it keeps, what it has set is not known.
            let between = match &self.attachment {
                Attachment::Attached(lease) => {
                    lease.server.side.pipeline.is_settled() && !self.session.keeps_server()
                }
                Attachment::Detached | Attachment::Waiting { .. } => true,
            };
            if !between {
                return self.session.learn_of_code(self.session.code_seen, suspects);
            }
            self.session.keep_told(&self.baseline, &now);
            self.baseline = now;
        }
        self.session.learn_of_code(seen, suspects);
    }
}
