//! Keeping secrets fresh: in turn, out of turn, and when the configuration changes.
//!
//! Every source has a task of its own that sleeps until the source is due. Whoever reads a source holds
//! its flight, so no source is read twice at a time; a semaphore bounds the reads of all.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::error;

use super::error::{CredentialProblem, LoadError};
use super::source::Source;
use super::{Credentials, problems};
use crate::config::{Auth, SecretSource};

/// How often a file is looked at.
const FILE_POLL: Duration = Duration::from_secs(1);
/// Within this time after a reload, sources that stayed are read again.
const RELOAD_SPREAD: Duration = Duration::from_secs(2);

impl Credentials {
    /// Keeps all secrets fresh until `stop` completes. Must run exactly once.
    pub async fn run(self: Arc<Self>, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut roster = self.roster.subscribe();
        loop {
            let mut tasks = JoinSet::new();
            for source in roster.borrow_and_update().iter() {
                tasks.spawn(Arc::clone(&self).tend(Arc::clone(source)));
            }
            tokio::select! {
                () = &mut stop => return,
                _ = roster.changed() => tasks.shutdown().await,
                Some(Err(panicked)) = tasks.join_next() => {
                    error!(error = %panicked, "refreshing a secret failed; all refreshing starts anew");
                    tasks.shutdown().await;
                }
            }
        }
    }

    /// Reads one source for ever, each time that it is due.
    async fn tend(self: Arc<Self>, source: Arc<Source>) {
        loop {
            self.until_due(&source).await;
            let Ok(_flight) = source.flight.try_lock() else {
                // Somebody else is reading it: that counts.
                drop(source.flight.lock().await);
                continue;
            };
            if self.read(&source).await {
                self.publish();
            }
        }
    }

    async fn until_due(&self, source: &Source) {
        let watched = matches!(source.config.source, SecretSource::File(_));
        loop {
            let (due, now) = (source.due(), Instant::now());
            if due <= now {
                return;
            }
            let wake = if watched { due.min(now + FILE_POLL) } else { due };
            tokio::select! {
                () = sleep_until(wake) => {}
                () = source.rescheduled.notified() => continue,
            }
            if !watched {
                continue;
            }
            let seen = self.reader.fingerprint(&source.config.source).await;
            if source.looks_different(seen) {
                return;
            }
        }
    }

    /// Takes another list of sources into use, for SIGHUP.
    ///
    /// A source that stays keeps its value and generation, and is read again soon. New ones are read
    /// before anything changes. A source of which only the ways to log in changed keeps all its values
    /// too. What is wrong afterwards is returned, and has been logged.
    ///
    /// # Errors
    /// [`LoadError::NoneUsable`] if no user could log in with the new list; the old one stays then.
    ///
    /// # Cancel safety
    /// A dropped call leaves the old list in use.
    pub async fn reload(
        self: &Arc<Self>,
        auth: &[Auth],
    ) -> Result<Vec<CredentialProblem>, LoadError> {
        let _reloading = self.reloading.lock().await;
        let old = self.sources();
        let mut staying = old.to_vec();
        let (mut next, mut fresh) = (Vec::with_capacity(auth.len()), Vec::new());
        for auth in auth {
            if let Some(at) = staying.iter().position(|source| source.config == *auth) {
                next.push(staying.swap_remove(at));
            } else {
                let before = old.iter().find(|source| source.config.source == auth.source);
                let source = Arc::new(Source::new(auth.clone(), before.map(Arc::as_ref)));
                fresh.push(Arc::clone(&source));
                next.push(source);
            }
        }
        self.read_all(&fresh).await;
        if next.iter().all(|source| source.credential().is_none()) {
            return Err(LoadError::NoneUsable { problems: problems(&next) });
        }
        for source in &next {
            source.hasten(RELOAD_SPREAD);
        }
        let next: Arc<[_]> = next.into();
        self.roster.send_replace(Arc::clone(&next));
        self.publish();
        Ok(problems(&next))
    }
}
