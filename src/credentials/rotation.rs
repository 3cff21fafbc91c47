//! What is read of a secret beside its current version, and when a rotation makes that necessary.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info};

use super::credential::Credential;
use super::reader::Stage;
use super::source::{Previous, RefusedBy, Source};
use super::{Credentials, SourceError};
use crate::auth::secret::Secret;

/// What the rotation functions of AWS append to the name of the second of two alternating users.
const CLONE_SUFFIX: &str = "_clone";

impl Credentials {
    /// The version before the current one, and until when clients may present it.
    ///
    /// Of the same user until `overlap` after the current one was made; of another user, which the
    /// database still lets in, until the secret changes again.
    pub(super) async fn previous(
        &self,
        source: &Source,
        current: &str,
        created: Option<SystemTime>,
        overlap: Duration,
    ) -> Previous {
        if overlap.is_zero() {
            return Previous::Read(None);
        }
        let previous = match self.read_version(source, Stage::Previous).await {
            Ok(Some(previous)) => previous,
            Ok(None) => return Previous::Read(None),
            Err(_) => return Previous::Owed,
        };
        if previous.username != current {
            return Previous::Read(Some((previous, None)));
        }
        let age = created.and_then(|at| SystemTime::now().duration_since(at).ok());
        let left = overlap.saturating_sub(age.unwrap_or_default());
        let until = Instant::now().checked_add(left);
        Previous::Read((!left.is_zero()).then_some((previous, until)))
    }

    /// A version that need not be there.
    async fn read_version(
        &self,
        source: &Source,
        stage: Stage,
    ) -> Result<Option<Arc<Credential>>, SourceError> {
        let read = async {
            let value = self.read_stage(source, stage).await?;
            let secret = Secret::from_json(&value.bytes)?;
            self.credential_of(source, secret).await
        };
        match read.await {
            Ok(credential) => Ok(Some(credential)),
            Err(SourceError::NotFound) => Ok(None),
            Err(error) => {
                debug!(source = source.origin(), %error, ?stage, "version of a secret not read");
                Err(error)
            }
        }
    }

    /// Reads the user's secret out of turn, and yields what is known then.
    ///
    /// For a client's password that is none of those accepted: it may be newer than what is known. The
    /// user may be unknown too, as the second of two alternating users is at first.
    ///
    /// At most one such read per source in a second, after some that found nothing new up to 30 seconds
    /// apart, and only one at a time: others wait for the one under way if it began after they asked, and
    /// for the next otherwise, if it is near. Takes up to 15 seconds while the source is away.
    ///
    /// # Cancel safety
    /// A read that began goes on when the call is dropped.
    pub async fn refresh_now(self: &Arc<Self>, username: &str) -> Option<Arc<Credential>> {
        let seen = self.lookup(username);
        let source = self.source_of(username)?;
        self.read_out_of_turn(&source, seen.as_ref(), RefusedBy::Pgweir).await;
        self.lookup(username)
    }

    /// What could be tried in place of `refused`, which the target did not take (`28P01`): the secret
    /// is read again, and its pending version too. The same bounds hold as for
    /// [`Credentials::refresh_now`], but that reads do not get rarer: no client can cause this.
    ///
    /// # Cancel safety
    /// A read that began goes on when the call is dropped.
    pub async fn alternatives(self: &Arc<Self>, refused: &Arc<Credential>) -> Vec<Arc<Credential>> {
        let Some(source) = self.source_of(&refused.username) else { return Vec::new() };
        self.read_out_of_turn(&source, Some(refused), RefusedBy::Target).await;
        source.candidates(|candidates| candidates.alternatives(refused, Instant::now()))
    }

    /// The target took this one when it had refused another: it goes first from now on.
    pub fn note_proven(&self, credential: &Arc<Credential>) {
        let Some(source) = self.source_of(&credential.username) else { return };
        if source.candidates(|candidates| candidates.prove(credential, Instant::now())) {
            let (user, generation) = (&credential.username, credential.generation);
            info!(source = source.origin(), user, generation, "the target takes another version");
            self.publish();
        }
    }

    fn source_of(&self, username: &str) -> Option<Arc<Source>> {
        let table = self.table.read();
        let sibling = || match username.strip_suffix(CLONE_SUFFIX) {
            Some(first) => table.get(first),
            None => table.get(&format!("{username}{CLONE_SUFFIX}")),
        };
        let known = table.get(username).or_else(sibling)?;
        Some(Arc::clone(&known.source))
    }

    /// Reads the current version and the pending one, unless that was done since the caller asked, or
    /// something else than `seen` is in use already.
    async fn read_out_of_turn(
        self: &Arc<Self>,
        source: &Arc<Source>,
        seen: Option<&Arc<Credential>>,
        refused_by: RefusedBy,
    ) {
        let asked = Instant::now();
        // Whoever gives up here leaves no task behind, however many ask.
        let flight = Arc::clone(&source.flight).lock_owned().await;
        let now = seen.and_then(|seen| self.lookup(&seen.username));
        let replaced = now.zip(seen).is_some_and(|(now, seen)| !Arc::ptr_eq(&now, seen));
        if replaced || source.was_forced_since(asked) {
            return;
        }
        let Some(from) = source.forced_from(refused_by) else { return };
        sleep_until(from).await;
        let (this, source) = (Arc::clone(self), Arc::clone(source));
        let read = tokio::spawn(async move {
            let _flight = flight;
            source.note_forced(refused_by);
            let changed = this.read(&source).await;
            let pending = {
                let _permit = this.reads.acquire().await;
                this.read_version(&source, Stage::Pending).await
            };
            source.candidates(|candidates| candidates.set_pending(pending.ok().flatten()));
            if changed {
                this.publish();
            }
        });
        if let Err(panicked) = read.await {
            error!(error = %panicked, "reading a secret out of turn failed");
        }
    }
}
