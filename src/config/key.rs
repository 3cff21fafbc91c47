//! What a setting consists of, and what it is called in the file, the environment and messages.

use super::value::{Place, Value};

/// Path of the list of database users, whose keys are [`super::entry_keys::ENTRY_KEYS`].
pub(super) const AUTH: &str = "proxy.auth";

/// Prefix of every variable.
pub(super) const VARIABLE_PREFIX: &str = "PGWEIR_";

/// What a key is when nobody sets it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fallback {
    Text(&'static str),
    Integer(i64),
    Flag(bool),
    /// An empty list.
    List,
    /// It must be set; with an example.
    Required(&'static str),
    /// It may be absent; with an example as it would stand in the file.
    Absent(Example),
}

/// An example value of a key that has no default.
#[derive(Clone, Copy, Debug)]
pub(super) enum Example {
    Text(&'static str),
    Integer(i64),
}

impl Fallback {
    /// The default, if there is one.
    pub fn value(self) -> Option<Value<'static>> {
        match self {
            Self::Text(text) => Some(Value::Text(text)),
            Self::Integer(number) => Some(Value::Integer(number)),
            Self::Flag(flag) => Some(Value::Flag(flag)),
            Self::List => Some(Value::List("")),
            Self::Required(_) | Self::Absent(_) => None,
        }
    }
}

/// One setting of an owner `O`.
pub(super) struct Key<O: 'static> {
    /// `section.key`; of an entry of a list the last part only.
    pub path: &'static str,
    pub fallback: Fallback,
    /// One line for the reference, without a full stop.
    pub meaning: &'static str,
    pub place: &'static dyn Place<O>,
    /// PgBouncer's words for it.
    pub pgbouncer: &'static [&'static str],
    /// Whether SIGHUP can change it.
    pub live: bool,
    /// Whether somebody might put a secret there by mistake, so that its values are not repeated in messages.
    pub secret: bool,
}

impl<O> Key<O> {
    pub(super) const fn new(
        path: &'static str,
        fallback: Fallback,
        meaning: &'static str,
        place: &'static dyn Place<O>,
    ) -> Self {
        Self { path, fallback, meaning, place, pgbouncer: &[], live: false, secret: false }
    }

    pub(super) const fn pgbouncer(mut self, words: &'static [&'static str]) -> Self {
        self.pgbouncer = words;
        self
    }

    pub(super) const fn live(mut self) -> Self {
        self.live = true;
        self
    }

    pub(super) const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Section and name: `proxy` and `listen`.
    pub fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

/// The variable of a path: `PGWEIR_PROXY_LISTEN` of `proxy.listen`.
pub(super) fn variable(path: &str) -> String {
    let name = path.replace('.', "_").to_ascii_uppercase();
    format!("{VARIABLE_PREFIX}{name}")
}

/// The variable of a key of an entry: `PGWEIR_PROXY_AUTH_0_SECRET_ARN`.
pub(super) fn entry_variable(index: usize, path: &str) -> String {
    variable(&format!("{AUTH}.{index}.{path}"))
}

/// The name of a key of an entry in messages: `proxy.auth[0].secret_arn`.
pub(super) fn entry_name(index: usize, path: &str) -> String {
    format!("{AUTH}[{index}].{path}")
}
