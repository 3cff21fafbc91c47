//! Secrets in files, as agents, editors and Kubernetes write them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::credentials::Settings;

struct Secrets {
    directory: TempDir,
}

impl Secrets {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }
}

fn file_auth(path: &Path) -> Auth {
    Auth {
        source: SecretSource::File(path.to_owned()),
        client_password_auth_type: ClientPasswordAuthType::ScramSha256,
        iam_auth: IamAuth::Disabled,
        auth_scheme: AuthScheme::Secrets,
    }
}

/// Loads and refreshes with a time to live of a day, so that only a look at the file can tell.
async fn load_and_watch(paths: &[&Path]) -> Arc<Credentials> {
    let auth: Vec<Auth> = paths.iter().map(|path| file_auth(path)).collect();
    let settings =
        Settings { time_to_live: Duration::from_secs(86_400), overlap: OVERLAP, aws: None };
    let (credentials, _) = Credentials::load(&auth, settings).await.unwrap();
    tokio::spawn(Arc::clone(&credentials).run(std::future::pending()));
    credentials
}

/// Waits until another secret is in use, at most ten of paused time's seconds.
async fn next_change(credentials: &Credentials) {
    let mut changes = credentials.changes();
    timeout(Duration::from_secs(10), changes.changed()).await.expect("no change").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_file_written_anew_takes_effect_within_seconds() {
    let secrets = Secrets::new();
    let path = secrets.write("app.json", &json("app", "one"));
    let credentials = load_and_watch(&[&path]).await;
    secrets.write("app.json", &json("app", "another"));
    next_change(&credentials).await;
    assert_eq!(password(&credentials, "app"), "another");
}

#[tokio::test(start_paused = true)]
async fn a_file_renamed_over_the_old_one_takes_effect() {
    let secrets = Secrets::new();
    let path = secrets.write("app.json", &json("app", "one"));
    let credentials = load_and_watch(&[&path]).await;
    let next = secrets.write("next.json", &json("app", "two"));
    fs::rename(next, path).unwrap();
    next_change(&credentials).await;
    assert_eq!(password(&credentials, "app"), "two");
}

#[tokio::test(start_paused = true)]
async fn a_symbolic_link_that_is_swapped_takes_effect() {
    let secrets = Secrets::new();
    let one = secrets.write("one.json", &json("app", "one"));
    let two = secrets.write("two.json", &json("app", "two"));
    let (link, spare) = (secrets.path("app.json"), secrets.path("spare"));
    std::os::unix::fs::symlink(one, &link).unwrap();
    let credentials = load_and_watch(&[&link]).await;
    std::os::unix::fs::symlink(two, &spare).unwrap();
    fs::rename(spare, &link).unwrap();
    next_change(&credentials).await;
    assert_eq!(password(&credentials, "app"), "two");
}

#[tokio::test(start_paused = true)]
async fn a_half_written_file_keeps_the_old_value_until_it_is_whole() {
    let secrets = Secrets::new();
    let path = secrets.write("app.json", &json("app", "one"));
    let credentials = load_and_watch(&[&path]).await;
    let before = credentials.lookup("app").unwrap();
    let text = json("app", "two");
    for half in [&text[..0], &text[..text.len() / 2]] {
        secrets.write("app.json", half);
        sleep(Duration::from_secs(5)).await;
        assert!(Arc::ptr_eq(&before, &credentials.lookup("app").unwrap()));
        let status = credentials.status();
        assert!(status[0].usable);
        assert_eq!(status[0].last_error.as_ref().map(SourceError::as_label), Some("content"));
    }
    secrets.write("app.json", &text);
    next_change(&credentials).await;
    assert_eq!(password(&credentials, "app"), "two");
    assert_eq!(credentials.status()[0].last_error, None);
}

#[tokio::test(start_paused = true)]
async fn a_removed_file_keeps_its_user_and_a_missing_one_gets_its_user_when_it_comes() {
    let secrets = Secrets::new();
    let (app, later) = (secrets.write("app.json", &json("app", "one")), secrets.path("later.json"));
    let credentials = load_and_watch(&[&app, &later]).await;
    assert!(credentials.lookup("later").is_none());
    fs::remove_file(&app).unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(credentials.lookup("app").is_some());
    assert_eq!(
        credentials.status()[0].last_error,
        Some(SourceError::File(std::io::ErrorKind::NotFound))
    );
    secrets.write("later.json", &json("later", "here"));
    next_change(&credentials).await;
    assert_eq!(password(&credentials, "later"), "here");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_touched_but_not_changed_keeps_its_credential() {
    let secrets = Secrets::new();
    let path = secrets.write("app.json", &json("app", "one"));
    let credentials = load_and_watch(&[&path]).await;
    let (before, read) = (credentials.lookup("app").unwrap(), credentials.status()[0].last_success);
    // Rather than writing it again: within a tick of the file system's clock that looks the same.
    fs::File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH).unwrap();
    sleep(Duration::from_secs(5)).await;
    assert!(credentials.status()[0].last_success > read, "it was read again");
    assert!(Arc::ptr_eq(&before, &credentials.lookup("app").unwrap()));
}
