//! A client's wanted settings, and what must be told to a server so that it has them.
//!
//! Names are compared as PostgreSQL compares them (ASCII letters without case) and values are
//! never pasted into a text: they travel as parameters of `set_config`.
//!
//! Source: <https://www.postgresql.org/docs/current/runtime-config.html>

use std::hash::{DefaultHasher, Hash, Hasher};

/// Longest name of a setting, as `NAMEDATALEN` allows, with room for a custom prefix.
const NAME_MAX: usize = 127;

/// `SET ROLE`, which is a setting like others but for what it allows.
pub const ROLE: &str = "role";

/// `SET SESSION AUTHORIZATION`, which decides what roles there are to choose from, and puts the role back.
///
/// Source: <https://www.postgresql.org/docs/current/sql-set-session-authorization.html>
pub const SESSION_AUTHORIZATION: &str = "session_authorization";

/// The settings by which a session acts as somebody else, in the order in which they are set. `RESET ALL` leaves them.
const IDENTITY: [&str; 2] = [SESSION_AUTHORIZATION, ROLE];

/// What a transaction takes over when it begins, and may have to wait for: one that is deferrable is given its first
/// snapshot when no other can disturb it any more.
pub(super) const GOVERNS: [&str; 3] = [
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
];

/// The setting that has PostgreSQL end a session between transactions, and whoever has its server then.
///
/// Source: <https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT>
pub const IDLE_SESSION_TIMEOUT: &str = "idle_session_timeout";

/// Settings that differ from what a fresh connection of this user has, sorted by name.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    entries: Box<[(Box<str>, Box<str>)]>,
    hash: u64,
    /// One of [`GOVERNS`] is among them.
    governs: bool,
    /// [`IDLE_SESSION_TIMEOUT`] is among them, and is not 0.
    ends_idle: bool,
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.entries == other.entries
    }
}

impl Eq for Settings {}

impl Hash for Settings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// A name that no setting can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid configuration parameter name")]
pub struct InvalidName;

impl Settings {
    /// Settings from pairs in the order they were given: the last value of a name counts.
    ///
    /// # Errors
    /// [`InvalidName`] if a name is no identifier (with dots, as custom settings have them).
    pub fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, InvalidName> {
        let mut map = std::collections::BTreeMap::new();
        for (name, value) in pairs {
            if !is_name(name) {
                return Err(InvalidName);
            }
            map.insert(name.to_ascii_lowercase().into_boxed_str(), value.into());
        }
        let entries: Box<[(Box<str>, Box<str>)]> = map.into_iter().collect();
        let mut hasher = DefaultHasher::new();
        entries.hash(&mut hasher);
        // Nothing set hashes to 0, so that the empty default needs no computation.
        let hash = if entries.is_empty() { 0 } else { hasher.finish() };
        let governs = entries.iter().any(|(name, _)| GOVERNS.contains(&&**name));
        let ends_idle = entries.iter().any(|(name, value)| {
            **name == *IDLE_SESSION_TIMEOUT && value.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
        });
        Ok(Self { entries, hash, governs, ends_idle })
    }

    /// True if a fresh connection needs nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// True if they have a say in how a transaction begins.
    #[must_use]
    pub(super) fn governs(&self) -> bool {
        self.governs
    }

    /// True if they have PostgreSQL end the session once it has been idle for a time.
    #[must_use]
    pub fn ends_idle(&self) -> bool {
        self.ends_idle
    }

    /// A number that is equal for equal settings.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.hash
    }

    /// The value wanted for `name` (in lower case).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.entries.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        self.entries.get(at).map(|(_, value)| &**value)
    }

    /// Name and value, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.iter().map(|(name, _)| name)
    }

    /// These settings, but as in `found` where that has them. With `reset`, a custom setting that is
    /// found empty was reset, and is as it was here.
    #[must_use]
    pub fn overlaid(&self, found: &Self, reset: bool) -> Self {
        let was_reset = |name: &str, value: &str| {
            reset && value.is_empty() && name.contains('.') && self.get(name).is_some()
        };
        let found = found.iter().filter(|(name, value)| !was_reset(name, value));
        // Names that came from settings are valid.
        Self::new(self.iter().chain(found)).unwrap_or_default()
    }

    /// These settings but that of this name.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        Self::new(self.iter().filter(|(other, _)| *other != name)).unwrap_or_default()
    }

    /// Those by which the session acts as somebody else, which `RESET ALL` leaves, in the order in which they are
    /// reset: the role first, as it is taken on by the session's user.
    pub fn identity(&self) -> impl Iterator<Item = &str> {
        IDENTITY.into_iter().rev().filter(|name| self.get(name).is_some())
    }

    /// The statements that put all of these back to what a fresh connection has.
    #[must_use]
    pub fn reset_text(&self) -> String {
        // Whoever it acts as may not be allowed to change the others.
        let others = self.names().filter(|name| !IDENTITY.contains(name));
        let all = self.identity().chain(others);
        all.fold(String::new(), |text, name| text + "RESET " + &quoted(name) + ";")
    }

    /// What takes a server from `applied` to these settings.
    ///
    /// Nothing else is changed while it acts as another than the login.
    #[must_use]
    pub fn change_from<'a>(&'a self, applied: &'a Self) -> Change<'a> {
        let mut reset: Vec<String> = applied
            .names()
            .filter(|name| !IDENTITY.contains(name) && self.get(name).is_none())
            .map(quoted)
            .collect();
        let mut set: Vec<(&str, &str)> = self
            .iter()
            .filter(|(name, value)| !IDENTITY.contains(name) && applied.get(name) != Some(value))
            .collect();
        let changes = !reset.is_empty() || !set.is_empty();
        if changes || IDENTITY.iter().any(|name| applied.get(name) != self.get(name)) {
            reset.splice(0..0, applied.identity().map(quoted));
            set.extend(IDENTITY.into_iter().filter_map(|name| Some((name, self.get(name)?))));
        }
        Change { reset, set }
    }
}

/// What a server must be told.
#[derive(Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// First put these back to what a fresh connection has; as identifiers, quoted.
    pub reset: Vec<String>,
    /// Then set these.
    pub set: Vec<(&'a str, &'a str)>,
}

impl Change<'_> {
    /// True if the server already is as wanted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.reset.is_empty() && self.set.is_empty()
    }
}

/// A name as SQL wants it. A name holds no quotes: [`is_name`] has seen to that.
pub(super) fn quoted(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(|part| format!("\"{part}\"")).collect();
    parts.join(".")
}

/// True if a setting can have this name.
pub(super) fn is_name(name: &str) -> bool {
    let start = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80;
    let part = |part: &str| {
        part.bytes().next().is_some_and(start)
            && part.bytes().all(|byte| start(byte) || byte.is_ascii_digit() || byte == b'$')
    };
    name.len() <= NAME_MAX && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        Settings::new(pairs.iter().copied()).expect("valid names")
    }

    #[test]
    fn names_have_no_case_and_the_last_value_counts() {
        let one = settings(&[("DateStyle", "ISO"), ("work_mem", "1MB"), ("datestyle", "SQL")]);
        let two = settings(&[("work_mem", "1MB"), ("DATESTYLE", "SQL")]);
        assert_eq!(one, two);
        assert_eq!(one.fingerprint(), two.fingerprint());
        assert_eq!(one.get("datestyle"), Some("SQL"));
    }

    #[test]
    fn only_what_differs_is_sent() {
        let applied = settings(&[("a", "1"), ("b", "2")]);
        let wanted = settings(&[("a", "1"), ("b", "3"), ("c", "4")]);
        assert_eq!(
            wanted.change_from(&applied),
            Change { reset: vec![], set: vec![("b", "3"), ("c", "4")] }
        );
        assert!(applied.change_from(&applied).is_empty());
    }

    #[test]
    fn a_setting_nobody_wants_any_more_is_reset() {
        let applied = settings(&[("my.a", "1"), ("b", "2")]);
        let wanted = settings(&[("b", "2")]);
        let reset = vec!["\"my\".\"a\"".to_owned()];
        assert_eq!(wanted.change_from(&applied), Change { reset, set: vec![] });
    }

    #[test]
    fn everything_else_is_changed_by_the_login() {
        let role = settings(&[("a", "1"), ("role", "r")]);
        let both = settings(&[("a", "1"), ("role", "s"), ("session_authorization", "u")]);
        let quoted = |names: &[&str]| names.iter().map(|name| quoted(name)).collect::<Vec<_>>();
        assert_eq!(
            both.change_from(&role),
            Change {
                reset: quoted(&["role"]),
                set: vec![("session_authorization", "u"), ("role", "s")]
            }
        );
        assert_eq!(
            role.change_from(&both),
            Change { reset: quoted(&["role", "session_authorization"]), set: vec![("role", "r")] }
        );
        let other = settings(&[("b", "2"), ("session_authorization", "u")]);
        assert_eq!(
            other.change_from(&settings(&[("a", "1"), ("session_authorization", "u")])),
            Change {
                reset: quoted(&["session_authorization", "a"]),
                set: vec![("b", "2"), ("session_authorization", "u")]
            }
        );
        assert!(both.change_from(&both).is_empty());
        let text = "RESET \"role\";RESET \"session_authorization\";RESET \"a\";";
        assert_eq!(both.reset_text(), text);
        assert_eq!(both.identity().collect::<Vec<_>>(), ["role", "session_authorization"]);
        assert_eq!(both.without("session_authorization").without("a"), settings(&[("role", "s")]));
    }

    #[test]
    fn names_that_are_no_identifiers_are_refused() {
        for bad in ["", "a b", "a;b", "1a", "a.", ".a", "a-b", "a\"b", &"x".repeat(128)] {
            assert_eq!(Settings::new([(bad, "1")]), Err(InvalidName), "{bad}");
        }
        assert!(Settings::new([("myapp.tenant_id", "1")]).is_ok());
    }
}
