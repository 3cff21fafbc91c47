//! A client beside servers that have changed: it follows what is known of the code in its database, and keeps the
//! defaults that it was told of.

use super::serve::{Attachment, Client};

impl Client {
    /// Takes over what its pool has learned up to `seen`.
    pub(super) fn learn_of_pool(&mut self, seen: u32) {
        let suspects = self.pool.suspects();
        // In the middle of a transaction, what it was told is not yet what it has set, nor its default.
        let between = match &self.attachment {
            Attachment::Attached(lease) => {
                lease.server.side.pipeline.is_settled() && !self.session.keeps_server()
            }
            Attachment::Detached | Attachment::Waiting { .. } => true,
        };
        let Some(now) = self.pool.baseline().filter(|_| between) else {
            // It becomes known with the next server that is opened, or when the client has let go of its own.
            return self.session.learn_of_code(self.session.code_seen, suspects);
        };
        self.session.learn_of_code(seen, suspects);
        self.session.keep_told(&self.baseline, &now);
        self.baseline = now;
    }
}
