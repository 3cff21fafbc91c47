//! Reset queries of a client that holds no server: they cost no server either.

use super::backlog::{Backlog, give_buffer, take_buffer};
use super::registry::Activity;
use super::serve::Client;
use super::welcome::reported_at_login;
use crate::telemetry::clock;
use crate::telemetry::metrics::QueryProtocol;

impl Client {
    /// Answers the reset query that `bytes` begins with, if that can be done here. Yields its length.
    pub(super) fn answer_reset(&mut self, bytes: &[u8]) -> Option<usize> {
        let seen = self.pool.code_seen();
        if self.session.code_seen != seen {
            self.learn_of_pool(seen);
        }
        let mut out = take_buffer();
        let pool = &self.pool;
        let reported = |startup: &_| reported_at_login(pool, startup);
        let Some(used) = self.session.answer_reset(bytes, reported, &mut out) else {
            give_buffer(out);
            return None;
        };
        match self.to_client {
            Backlog::Empty => self.to_client = Backlog::Bytes(out, 0),
            _ => self.to_client.push(out),
        }
        let shard = &self.worker.shard;
        shard.queries(QueryProtocol::Simple, self.stream.is_tls()).one();
        shard.count.transactions.one();
        self.mark(Activity::Idle, clock::now());
        Some(used)
    }
}
