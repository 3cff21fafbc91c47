//! The connection of a listener: opened, kept, told what to listen on, opened again.

use super::{Line, Listener, Name};
use crate::pool::account::{self, Attempt};
use crate::pool::mailbox::{Mailbox, Notification};
use crate::pool::{Pools, open};
use crate::server::connect::{ConnectError, Refusal};
use crate::server::login::log_in;
use crate::server::overdue::Overdue;
use crate::server::query::QueryError;
use crate::server::{CloseReason, Server};
use crate::telemetry::clock;
use crate::telemetry::metrics::GaugeKind;
use crate::wire::{BackendTag, backend, encode};
use hashbrown::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest wait for a slot in the budget.
const SLOT_PATIENCE: Duration = Duration::from_secs(3);

/// How often is looked whether a slot is free.
const SLOT_INTERVAL: Duration = Duration::from_millis(5);

/// First pause after a failure; doubles with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// Longest pause between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long the connection is kept when nobody listens any more, unless somebody waits for a server.
const LINGER: Duration = Duration::from_secs(10);

/// How often is looked whether somebody does.
const LINGER_INTERVAL: Duration = Duration::from_millis(20);

/// Longest that the server may take to listen on something.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a closed connection may keep its slot.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Most channels named in one go.
const AT_ONCE: usize = 500;

/// Why the connection cannot listen.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("no slot of the budget became free")]
    NoSlot,
    #[error("nobody listens any more")]
    Unused,
    #[error("cannot open the connection")]
    Connect(#[from] ConnectError),
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the server refuses to listen")]
    Refused(#[from] QueryError),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the server sent a message of type {0:#04x} that nobody asked for")]
    Unexpected(u8),
}

/// Sees to the connection of `listener` in the background, for as long as somebody listens.
pub(super) fn begin(listener: &Arc<Listener>, pools: &Arc<Pools>, worker: usize) {
    let keeper = Keeper {
        listener: Arc::clone(listener),
        pools: Arc::clone(pools),
        worker,
        concerned: Vec::new(),
    };
    match pools.runtime(worker) {
        Some(runtime) => drop(runtime.spawn(keeper.keep())),
        None => listener.set_line(Line::Closed),
    }
}

struct Keeper {
    listener: Arc<Listener>,
    pools: Arc<Pools>,
    worker: usize,
    /// Those who listened when the connection was lost, and have not been told.
    concerned: Vec<Arc<Mailbox>>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut tries = 0;
        while !self.listener.close_if_unused() && !self.is_stopping() {
            let failure = match self.open(tries).await {
                Ok((mut server, user)) => {
                    let gauge = self
                        .pools
                        .metrics
                        .shard(self.worker)
                        .enter(GaugeKind::DatabaseConnectionsListening);
                    let end = self.listen(&mut server, &mut tries).await;
                    self.concerned.extend(self.listener.lost());
                    self.account_for(&server, &user, &end);
                    server.close(CLOSE_PATIENCE).await;
                    drop(gauge);
                    self.vacate();
                    match end {
                        Ok(()) => continue,
                        Err(failure) => failure,
                    }
                }
                Err(LineError::Unused) => continue,
                Err(failure) => failure,
            };
            let backoff = BACKOFF_MIN.saturating_mul(1 << tries.min(10)).min(BACKOFF_MAX);
            let pause = backoff.mul_f64(0.75 + 0.5 * open::chance());
            tracing::warn!(
                database = %self.listener.database,
                error = &failure as &dyn std::error::Error,
                retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "the listening connection is away"
            );
            if tries > 0 || !matches!(failure, LineError::Io(_)) {
                // Whoever waits for it is pinned instead.
                self.listener.set_line(Line::Down);
            }
            tries += 1;
            tokio::time::sleep(pause).await;
        }
    }

    fn account_for(&self, server: &Server, user: &str, end: &Result<(), LineError>) {
        let reason = match end {
            Ok(()) if self.is_stopping() => CloseReason::Shutdown,
            Ok(()) if self.pools.core.lock().waiting() > 0 => CloseReason::MakeRoom,
            Ok(()) => CloseReason::Idle,
            Err(LineError::Io(_)) => CloseReason::ClosedByServer,
            Err(LineError::Unexpected(_)) => CloseReason::Protocol,
            Err(_) => CloseReason::NotClean,
        };
        account::closed(&self.pools, server, (&self.listener.database, user), reason);
    }

    fn is_stopping(&self) -> bool {
        self.pools.stopping.load(Ordering::Relaxed)
    }

    fn vacate(&self) {
        self.pools.core.lock().vacate_listener();
        self.pools.grow(self.worker);
    }

    fn vacate_after(&self, overdue: Overdue) {
        let (pools, worker) = (Arc::clone(&self.pools), self.worker);
        tokio::spawn(async move {
            overdue.ended().await;
            pools.core.lock().vacate_listener();
            pools.grow(worker);
        });
    }

    /// The server, and its user.
    async fn open(&self, turn: usize) -> Result<(Server, Box<str>), LineError> {
        let pool = self.listener.pool(turn).ok_or(LineError::Unused)?;
        if !self.take_slot().await {
            return Err(LineError::NoSlot);
        }
        let attempt = Attempt::begin(&self.pools, self.worker);
        let (endpoint, credentials) = (self.pools.endpoint(), &self.pools.credentials);
        match log_in(&endpoint, &self.listener.database, credentials, &pool.user).await {
            Ok((mut server, _)) => {
                server.worker = self.worker;
                attempt.succeeded(&mut server);
                Ok((server, pool.user.clone()))
            }
            Err(mut error) => {
                drop(attempt);
                match error.take_overdue() {
                    Some(overdue) => self.vacate_after(overdue),
                    None => self.vacate(),
                }
                Err(error.into())
            }
        }
    }

    async fn take_slot(&self) -> bool {
        // Since this was last looked at, those of other databases may have been opened.
        if !self.pools.core.lock().want_listener() {
            return false;
        }
        let begun = clock::now();
        loop {
            let now = clock::now();
            let evicted = {
                let mut core = self.pools.core.lock();
                if core.reserve_listener() {
                    return true;
                }
                core.evict_beside(now)
            };
            if let Some((id, server)) = evicted
                && let Some(pool) = self.pools.pool_by_id(id)
            {
                pool.see_off(server, CloseReason::MakeRoom);
            }
            if now.saturating_duration_since(begun) >= SLOT_PATIENCE {
                self.pools.core.lock().give_up_listener();
                self.pools.grow(self.worker);
                return false;
            }
            tokio::time::sleep(SLOT_INTERVAL).await;
        }
    }

    /// Listens until nobody wants it any more.
    async fn listen(&mut self, server: &mut Server, tries: &mut usize) -> Result<(), LineError> {
        // Clients with another encoding are pinned instead.
        answered(server.query("SET client_encoding TO 'UTF8'")).await??;
        let mut heard = HashSet::new();
        loop {
            let number = self.listener.unsettled();
            let (mut more, mut less) = self.listener.difference(&heard);
            if more.is_empty() && less.is_empty() {
                // Whoever waits for an answer, all listen again who did.
                *tries = 0;
                self.listener.set_up();
                for mailbox in self.concerned.drain(..) {
                    mailbox.interrupted();
                }
            }
            if number.is_some() || !more.is_empty() || !less.is_empty() {
                more.truncate(AT_ONCE);
                less.truncate(AT_ONCE);
                if more.is_empty() && less.is_empty() {
                    // Nothing changes by what is asked.
                    more.extend(heard.iter().next().cloned());
                }
                answered(self.change(server, &more, &less)).await??;
                heard.retain(|name| !less.contains(name));
                self.listener.confirm(more.iter(), number);
                heard.extend(more);
                continue;
            }
            if self.is_stopping() {
                return Ok(());
            }
            let news = self.news(server);
            if !heard.is_empty() {
                news.await?;
                continue;
            }
            tokio::select! {
                news = news => news?,
                () = self.linger() => {
                    if self.listener.is_unused() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits for as long as a connection of use to nobody is kept.
    async fn linger(&self) {
        let begun = clock::now();
        while clock::now().saturating_duration_since(begun) < LINGER {
            tokio::time::sleep(LINGER_INTERVAL).await;
            if self.pools.core.lock().waiting() > 0 {
                return;
            }
        }
    }

    /// Hands out what comes, until there is something else to do.
    async fn news(&self, server: &mut Server) -> Result<(), LineError> {
        loop {
            let (tag, body) = tokio::select! {
                message = Server::read_message(&mut server.stream, &mut server.held) => message?,
                () = self.listener.changed.notified() => return Ok(()),
            };
            self.hear(tag, &body)?;
        }
    }

    fn hear(&self, tag: BackendTag, body: &[u8]) -> Result<(), LineError> {
        match tag {
            BackendTag::NOTIFICATION_RESPONSE => {
                let channel = backend::channel(body).ok_or(LineError::Unexpected(tag.0))?;
                let mut message = Vec::with_capacity(body.len() + 5);
                encode::message(&mut message, tag.0, |out| out.extend_from_slice(body));
                let notification =
                    Notification { channel: channel.into(), message: message.into() };
                let lost = self.listener.deliver(notification);
                if lost > 0 {
                    let shard = self.pools.metrics.shard(self.worker);
                    shard.count.notifications_dropped.add(lost);
                }
                Ok(())
            }
            BackendTag::NOTICE_RESPONSE | BackendTag::PARAMETER_STATUS => Ok(()),
            BackendTag::ERROR_RESPONSE => {
                Err(io::Error::from(io::ErrorKind::ConnectionAborted).into())
            }
            BackendTag(tag) => Err(LineError::Unexpected(tag)),
        }
    }

    /// Has the server listen on `more`, and no longer on `less`.
    ///
    /// Even if both are empty: it answers behind the notifications that it was told of before.
    async fn change(
        &self,
        server: &mut Server,
        more: &[Name],
        less: &[Name],
    ) -> Result<(), LineError> {
        server.stream.write_all(&change_query(more, less)).await?;
        loop {
            let (tag, body) = Server::read_message(&mut server.stream, &mut server.held).await?;
            match tag {
                BackendTag::READY_FOR_QUERY => return Ok(()),
                BackendTag::COMMAND_COMPLETE | BackendTag::EMPTY_QUERY_RESPONSE => {}
                BackendTag::ERROR_RESPONSE => {
                    let sqlstate = crate::wire::response::ErrorFields::read(&body).sqlstate;
                    return Err(QueryError::Refused(Refusal { sqlstate, body: body.into() }).into());
                }
                tag => self.hear(tag, &body)?,
            }
        }
    }
}

async fn answered<T>(answer: impl Future<Output = T>) -> Result<T, LineError> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| LineError::Timeout)
}

/// A `Query` of LISTEN and UNLISTEN. Names are bytes in the client's encoding, which is ours.
fn change_query(more: &[Name], less: &[Name]) -> Vec<u8> {
    let mut query = Vec::new();
    encode::message(&mut query, b'Q', |out| {
        for (verb, names) in [("LISTEN", more), ("UNLISTEN", less)] {
            for name in names {
                out.extend_from_slice(verb.as_bytes());
                out.extend_from_slice(b" \"");
                for &byte in name {
                    out.extend(std::iter::repeat_n(byte, if byte == b'"' { 2 } else { 1 }));
                }
                out.extend_from_slice(b"\";");
            }
        }
        out.push(0);
    });
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let query =
            change_query(&[Name::from(&b"a\"; DROP TABLE t"[..])], &[Name::from(&b"b"[..])]);
        assert_eq!(&query[5..], b"LISTEN \"a\"\"; DROP TABLE t\";UNLISTEN \"b\";\0");
    }
}
