//! The defaults of sessions (`ALTER ROLE ... SET`, `ALTER DATABASE ... SET`): whose are changed, and what a client
//! that was there before keeps.
//!
//! A session has the defaults of its beginning to its end. Those that a client was told of (`ParameterStatus`) are kept
//! for it as settings of its own where servers have others by now.
//!
//! Source: <https://www.postgresql.org/docs/current/config-setting.html#CONFIG-SETTING-SQL>

use super::session::Session;
use super::settings::Settings;
use memchr::memmem;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most bytes of texts that are kept until their transaction is over.
const TEXTS_MAX: usize = 64 * 1024;

/// Settings that are reported and can be set.
const REPORTED: [&str; 9] = [
    "application_name",
    "client_encoding",
    "datestyle",
    "default_transaction_read_only",
    "intervalstyle",
    "scram_iterations",
    "search_path",
    "standard_conforming_strings",
    "timezone",
];

/// Reported too, and is what the role makes it.
pub const IS_SUPERUSER: &str = "is_superuser";

/// Statements that change defaults, until others can see what came of them.
#[derive(Default)]
pub struct ChangedDefaults {
    /// Without upper case; none where anybody may be concerned.
    texts: Option<Vec<u8>>,
}

impl ChangedDefaults {
    /// Adds a text, if it changes defaults.
    fn note(changed: &mut Option<Box<Self>>, text: &[u8]) {
        let folded = text.to_ascii_lowercase();
        if !speaks_of_defaults(&folded) {
            return;
        }
        let none = || Box::new(Self { texts: Some(Vec::new()) });
        let changed = changed.get_or_insert_with(none);
        let names_nobody: [&[u8]; 5] =
            [b"current_user", b"current_role", b"session_user", b"u&\"", b"execute"];
        let fits =
            changed.texts.as_ref().is_some_and(|texts| texts.len() + folded.len() < TEXTS_MAX);
        let all = folded.split(|byte| !byte.is_ascii_alphabetic()).any(|word| word == b"all");
        if !fits || all || names_nobody.iter().any(|word| memmem::find(&folded, word).is_some()) {
            changed.texts = None;
        }
        if let Some(texts) = &mut changed.texts {
            texts.extend_from_slice(&folded);
        }
    }

    /// True unless sessions of `user` in `database` have the defaults that they had.
    #[must_use]
    pub fn concerns(&self, database: &str, user: &str) -> bool {
        let Some(texts) = &self.texts else { return true };
        [database, user].into_iter().any(|name| {
            // A quote in a name is written twice.
            name.contains('"')
                || memmem::find(texts, name.to_ascii_lowercase().as_bytes()).is_some()
        })
    }
}

/// True if a text may change what sessions begin with.
fn speaks_of_defaults(folded: &[u8]) -> bool {
    const OF: [&[u8]; 3] = [b"role", b"user", b"database"];
    memmem::find(folded, b"set").is_some()
        && memmem::find_iter(folded, b"alter").any(|at| {
            let behind = folded.get(at + b"alter".len()..).unwrap_or_default();
            let next = behind.trim_ascii_start();
            next.len() < behind.len() && OF.iter().any(|word| next.starts_with(word))
        })
}

/// Settings as a server reports them.
pub(super) type Reports = Vec<(Box<str>, Box<str>)>;

/// What a client was told of its settings after its login, by their names in lower case.
pub(super) type Told = BTreeMap<&'static str, Box<str>>;

impl Session {
    /// A statement with this text, which defines something, is about to run.
    pub(super) fn note_defaults(&mut self, text: &[u8]) {
        ChangedDefaults::note(&mut self.changed_defaults, text);
    }

    /// The client was told that `name` is `value`.
    pub fn note_told(&mut self, name: &str, value: &str) {
        let mut reported = REPORTED.into_iter().chain([IS_SUPERUSER]);
        if let Some(known) = reported.find(|known| known.eq_ignore_ascii_case(name)) {
            self.told.get_or_insert_default().insert(known, value.into());
        }
    }

    /// What the client was told last that `name` is, if it was told since its login.
    #[must_use]
    pub fn told_of(&self, name: &str) -> Option<&str> {
        self.told.as_ref()?.get(name).map(|value| &**value)
    }

    /// Servers that are fresh `now` may report other defaults than those `then`, which the client began with: it keeps
    /// the latter. Its settings must be known: it keeps no server.
    pub fn keep_told<N: AsRef<str>, V: AsRef<str>>(&mut self, then: &[(N, V)], now: &[(N, V)]) {
        let mut kept: Vec<(&str, &str)> = Vec::new();
        for (name, began_with) in then {
            let is_it = |known: &&str| known.eq_ignore_ascii_case(name.as_ref());
            let Some(known) = REPORTED.into_iter().find(is_it) else { continue };
            if self.startup.get(known).is_some() {
                continue;
            }
            let is_now = now.iter().find(|(name, _)| is_it(&name.as_ref()));
            let Some(is_now) = is_now.map(|(_, value)| value.as_ref()) else { continue };
            // A server that has read its configuration again may have told it of the new one.
            let told = self.told.as_ref().and_then(|told| told.get(known));
            let knows =
                self.settings.get(known).is_none() && told.is_some_and(|told| **told == *is_now);
            if is_now != began_with.as_ref() && !knows {
                kept.push((known, began_with.as_ref()));
            }
        }
        if kept.is_empty() {
            return;
        }
        let with = |settings: &Settings| {
            let all = kept.iter().copied().chain(settings.iter());
            Arc::new(Settings::new(all).unwrap_or_default())
        };
        let before = self.kept.iter().flat_map(|kept| kept.iter());
        let all = kept.iter().copied().chain(before);
        self.kept = Settings::new(all).ok().map(Box::new);
        let (startup, settings) = (with(&self.startup), with(&self.settings));
        self.settings = if settings == startup { Arc::clone(&startup) } else { settings };
        self.startup = startup;
    }

    /// What the client is told of its settings at its login. `of` tells it of those that it has asked for.
    pub fn reported_at_login(
        &self,
        of: impl FnOnce(&Settings) -> Option<Reports>,
    ) -> Option<Reports> {
        let Some(kept) = &self.kept else { return of(&self.startup) };
        let own = self.startup.iter().filter(|(name, _)| kept.get(name).is_none());
        let mut reported = of(&Settings::new(own).ok()?)?;
        for (name, value) in &mut reported {
            if let Some(told) = kept.get(&name.to_ascii_lowercase()) {
                *value = told.into();
            }
        }
        Some(reported)
    }

    /// The statements of a transaction that is over which may have changed defaults, once.
    pub fn take_changed_defaults(&mut self) -> Option<Box<ChangedDefaults>> {
        self.changed_defaults.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(texts: &[&str]) -> Option<Box<ChangedDefaults>> {
        let mut changed = None;
        for text in texts {
            ChangedDefaults::note(&mut changed, text.as_bytes());
        }
        changed
    }

    #[test]
    fn defaults_are_changed_by_what_alters_roles_and_databases() {
        for text in [
            "ALTER ROLE app SET work_mem = '8MB'",
            "alter\n  user app in database d reset all",
            "ALTER DATABASE d SET timezone TO 'UTC'",
            "DO $$ BEGIN EXECUTE 'ALTER ROLE ' || quote_ident(r) || ' SET a.b = 1'; END $$",
        ] {
            assert!(changed(&[text]).is_some(), "{text}");
        }
        for text in [
            "ALTER TABLE users ALTER id SET DEFAULT 1",
            "ALTER TABLE t SET (fillfactor = 70)",
            "CREATE ROLE app",
            "ALTER ROLE app PASSWORD 'x'",
        ] {
            assert!(changed(&[text]).is_none(), "{text}");
        }
    }

    #[test]
    fn whom_it_concerns_is_read_from_the_names() {
        let one = changed(&["ALTER ROLE App SET work_mem = '8MB'"]).unwrap();
        assert!(one.concerns("d", "app") && !one.concerns("d", "other"));
        let one = changed(&["ALTER DATABASE \"My d\" RESET ALL"]).unwrap();
        assert!(one.concerns("My d", "other"), "RESET ALL, of one database");
        let two = changed(&["ALTER ROLE a1 SET x.y = 1", "ALTER ROLE a2 SET x.y = 1"]).unwrap();
        assert!(two.concerns("d", "a1") && two.concerns("d", "a2") && !two.concerns("d", "a3"));
        for everybody in [
            "ALTER ROLE ALL SET work_mem = '8MB'",
            "ALTER ROLE\n  ALL SET work_mem = '8MB'",
            "ALTER ROLE CURRENT_USER SET work_mem = '8MB'",
            r#"ALTER ROLE U&"\0061pp" SET work_mem = '8MB'"#,
            "DO $$ BEGIN EXECUTE 'ALTER ROLE ' || r || ' SET a.b = 1'; END $$",
        ] {
            assert!(changed(&[everybody]).unwrap().concerns("d", "u"), "{everybody}");
        }
        let long = format!("ALTER ROLE app SET a.b = '{}'", "x".repeat(TEXTS_MAX));
        assert!(changed(&[&long]).unwrap().concerns("d", "other"));
    }

    const THEN: [(&str, &str); 3] =
        [("TimeZone", "UTC"), ("DateStyle", "ISO, MDY"), ("server_version", "15")];
    const NOW: [(&str, &str); 3] =
        [("TimeZone", "Asia/Tokyo"), ("DateStyle", "ISO, MDY"), ("server_version", "15.1")];

    fn session(startup: &[(&str, &str)]) -> Session {
        Session::new(1, Arc::new(Settings::new(startup.iter().copied()).unwrap()))
    }

    #[test]
    fn a_client_keeps_what_it_was_told() {
        let mut client = session(&[("work_mem", "5MB")]);
        client.keep_told(&THEN, &THEN);
        assert_eq!(client.settings.names().collect::<Vec<_>>(), ["work_mem"]);
        client.keep_told(&THEN, &NOW);
        for settings in [&client.settings, &client.startup] {
            assert_eq!(settings.get("timezone"), Some("UTC"));
            assert_eq!(settings.names().count(), 2);
        }
    }

    #[test]
    fn what_it_has_set_or_was_told_since_counts_more() {
        let mut set = session(&[("timezone", "Europe/Paris")]);
        set.keep_told(&THEN, &NOW);
        assert_eq!(set.settings.get("timezone"), Some("Europe/Paris"));
        let mut changed = session(&[]);
        let paris = Settings::new([("timezone", "Europe/Paris")]).unwrap();
        changed.settings = Arc::new(paris);
        changed.note_told("TimeZone", "Europe/Paris");
        changed.keep_told(&THEN, &NOW);
        assert_eq!(changed.settings.get("timezone"), Some("Europe/Paris"));
        assert_eq!(changed.startup.get("timezone"), Some("UTC"), "a RESET leads there");
        let mut told = session(&[]);
        told.note_told("TimeZone", "Asia/Tokyo");
        told.note_told("is_superuser", "on");
        assert_eq!((told.told_of("is_superuser"), told.told_of("datestyle")), (Some("on"), None));
        told.keep_told(&THEN, &NOW);
        assert!(told.settings.is_empty(), "a server told it of the new default");
    }
}
