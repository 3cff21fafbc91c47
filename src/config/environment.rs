//! The environment: every key by a variable, which beats the file.
//!
//! `PGWEIR_` and the key's path in capitals with `_` for `.`: `PGWEIR_TARGET_HOST`. The entries of the list of
//! database users are counted from 0: `PGWEIR_PROXY_AUTH_0_SECRET_ARN`. An entry that the file has too is changed
//! key by key, and the next number adds one.

use std::path::Path;

use super::draft::Draft;
use super::errors::Origin;
use super::file::entry_key;
use super::keys::{self, AUTH, AUTH_MAX, KEYS, VARIABLE_PREFIX};
use super::suggest;
use super::value::{Given, Value};

/// Names the configuration file itself, for whoever calls [`super::Config::load`]; no setting.
pub const CONFIG_VARIABLE: &str = "PGWEIR_CONFIG";

/// Puts what the environment says into the draft. Variables of others are left alone.
pub(super) fn read(variables: impl Iterator<Item = (String, String)>, draft: &mut Draft) {
    let own =
        |(name, _): &(String, String)| name.starts_with(VARIABLE_PREFIX) && name != CONFIG_VARIABLE;
    let mut variables: Vec<_> = variables.filter(own).collect();
    variables.sort();
    let mut of_entries = Vec::new();
    for (name, value) in &variables {
        if let Some(key) = KEYS.iter().find(|key| keys::variable(key.path) == *name) {
            draft.put(key, &given(value), Origin::Variable(name.clone()));
        } else if let Some((index, key)) = of_entry(name) {
            of_entries.push((index, key, name, value));
        } else if !is_service_link(name, value) {
            let right = suggest::variable(name).map_or_else(
                || "unset it, or give it another name".to_owned(),
                |suggestion| suggestion.to_string(),
            );
            draft.problems.push(super::errors::Problem {
                origin: Origin::Variable(name.clone()),
                key: None,
                wrong: "is not a setting".to_owned(),
                right,
            });
        }
    }
    of_entries.sort_by_key(|(index, ..)| *index);
    for (index, key, name, value) in of_entries {
        let origin = Origin::Variable(name.clone());
        if index > draft.entries.len() {
            let next = draft.entries.len();
            let wrong = format!("comes after a gap: there is no entry {next}");
            draft.complain(
                origin,
                &keys::entry_name(index, key.path),
                wrong,
                "number the entries from 0 without gaps",
            );
            continue;
        }
        if index == draft.entries.len() {
            draft.begin_entry(origin.clone());
        }
        draft.put_in_entry(index, key, &given(value), origin);
    }
}

/// Relative paths start from the working directory.
fn given(value: &str) -> Given<'_> {
    Given { value: Value::Variable(value), directory: Path::new("") }
}

/// Index and key of `PGWEIR_PROXY_AUTH_<index>_<KEY>`.
fn of_entry(name: &str) -> Option<(usize, &'static keys::Key<super::draft::Entry>)> {
    let rest = name.strip_prefix(&keys::variable(AUTH))?.strip_prefix('_')?;
    let (digits, key) = rest.split_once('_')?;
    let index: usize = digits.parse().ok()?;
    // Leading zeros and signs would make two names of one entry.
    if index.to_string() != digits || index >= AUTH_MAX {
        return None;
    }
    let key = entry_key(&key.to_ascii_lowercase())?;
    (keys::entry_variable(index, key.path) == name).then_some((index, key))
}

/// Whether Kubernetes or Docker put the variable there because a service is called `pgweir`, or `pgweir-...`.
///
/// <https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables>
fn is_service_link(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && is_url)
        || is_port_of_link(name)
}

/// `..._PORT_5432_TCP`, and the same with `_PROTO`, `_PORT` or `_ADDR`.
fn is_port_of_link(name: &str) -> bool {
    let Some((_, rest)) = name.split_once("_PORT_") else {
        return false;
    };
    let mut parts = rest.split('_');
    let is_port = parts.next().is_some_and(|port| port.parse::<u16>().is_ok());
    let is_protocol = parts.next().is_some_and(|name| matches!(name, "TCP" | "UDP" | "SCTP"));
    is_port && is_protocol && matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_entries_have_one_spelling() {
        let index = |name| of_entry(name).map(|(index, key)| (index, key.path));
        assert_eq!(index("PGWEIR_PROXY_AUTH_0_SECRET_ARN"), Some((0, "secret_arn")));
        assert_eq!(
            index("PGWEIR_PROXY_AUTH_12_CLIENT_PASSWORD_AUTH_TYPE"),
            Some((12, "client_password_auth_type"))
        );
        for name in [
            "PGWEIR_PROXY_AUTH",
            "PGWEIR_PROXY_AUTH_",
            "PGWEIR_PROXY_AUTH_0",
            "PGWEIR_PROXY_AUTH_0_",
            "PGWEIR_PROXY_AUTH_00_SECRET_ARN",
            "PGWEIR_PROXY_AUTH_+1_SECRET_ARN",
            "PGWEIR_PROXY_AUTH_0_secret_arn",
            "PGWEIR_PROXY_AUTH_1000_SECRET_ARN",
            "PGWEIR_PROXY_AUTH_99999999999999999999_SECRET_ARN",
            "PGWEIR_PROXY_AUTHX_0_SECRET_ARN",
        ] {
            assert_eq!(index(name), None, "{name}");
        }
    }

    #[test]
    fn what_kubernetes_adds_for_a_service_is_not_mistaken_for_a_setting() {
        for (name, value) in [
            ("PGWEIR_SERVICE_HOST", "10.0.0.7"),
            ("PGWEIR_SERVICE_PORT", "5432"),
            ("PGWEIR_SERVICE_PORT_POSTGRES", "5432"),
            ("PGWEIR_PORT", "tcp://10.0.0.7:5432"),
            ("PGWEIR_PORT_5432_TCP", "tcp://10.0.0.7:5432"),
            ("PGWEIR_PORT_5432_TCP_ADDR", "10.0.0.7"),
            ("PGWEIR_RO_PORT_5432_TCP_PROTO", "tcp"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        assert!(!is_service_link("PGWEIR_PORT", "5432"));
        assert!(!is_service_link("PGWEIR_PORT_X_TCP", ""));
        assert!(!is_service_link("PGWEIR_TARGET_HOSTS", "10.0.0.7"));
    }
}
