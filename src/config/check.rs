//! What must be there, what excludes what, and the configuration that comes of it.

use std::net::{IpAddr, SocketAddr};

use super::draft::{Draft, Entry};
use super::errors::{ConfigErrors, Origin};
use super::keys::{self, AUTH, Fallback, KEYS};
use super::settings::{AuthScheme, Config, IamAuth, TargetTls};

/// Of two keys that exclude each other, those that were given.
enum Settled {
    Neither,
    First,
    Second,
    /// Both by the same means, which is a contradiction.
    Both(Origin),
}

impl Draft {
    /// Checks the whole and joins it. `nowhere` is where a key is missing from: the file, or the environment.
    pub fn finish(mut self, nowhere: &Origin) -> Result<Config, ConfigErrors> {
        self.check_required(nowhere);
        self.check_client_tls();
        self.check_target_tls();
        self.check_max_connections();
        self.check_listeners();
        self.check_entries(nowhere);
        self.check_iam();
        if !self.problems.is_empty() {
            return Err(ConfigErrors::new(self.problems));
        }
        let entries = std::mem::take(&mut self.entries);
        let scheme = self.config.proxy.default_auth_scheme;
        let auth: Option<Vec<_>> = entries.into_iter().map(|entry| entry.join(scheme)).collect();
        let joined = auth.zip(self.join()).map(|(auth, mut config)| {
            config.proxy.auth = auth;
            config
        });
        // Unreachable while the checks above cover what `join` refuses; a caller gets an error rather than a panic.
        joined.ok_or_else(|| ConfigErrors::new(vec![contradiction(nowhere)]))
    }

    fn check_required(&mut self, nowhere: &Origin) {
        for key in KEYS {
            let Fallback::Required(example) = key.fallback else {
                continue;
            };
            if self.given.contains_key(key.path) {
                continue;
            }
            let (section, name) = key.split();
            let variable = keys::variable(key.path);
            let right = match nowhere {
                Origin::File { .. } => {
                    format!("write {name} = \"{example}\" below [{section}], or set {variable}")
                }
                _ => format!("set {variable}, to {example} for example"),
            };
            self.complain(nowhere.clone(), key.path, "is missing", right);
        }
    }

    fn check_client_tls(&mut self) {
        const CERTIFICATE: &str = "proxy.tls_certificate";
        const PRIVATE_KEY: &str = "proxy.tls_private_key";
        const REQUIRE: &str = "proxy.require_tls";
        let has_certificate = self.given.contains_key(CERTIFICATE);
        for (key, other) in [(CERTIFICATE, PRIVATE_KEY), (PRIVATE_KEY, CERTIFICATE)] {
            if let Some(origin) = self.given.get(key).cloned()
                && !self.given.contains_key(other)
            {
                self.complain(
                    origin,
                    key,
                    format!("is set without {other}"),
                    "set both or neither",
                );
            }
        }
        if self.config.proxy.require_tls && !has_certificate {
            let origin = self.given.get(REQUIRE).cloned().unwrap_or(Origin::Default);
            let right = format!("set {CERTIFICATE} and {PRIVATE_KEY}, or {REQUIRE} to false");
            self.complain(
                origin,
                REQUIRE,
                "is true, but there is no certificate to offer TLS with",
                right,
            );
        }
    }

    fn check_target_tls(&mut self) {
        const CA: &str = "target.tls_ca";
        if self.config.target.tls != TargetTls::Disable {
            return;
        }
        if let Some(origin) = self.given.get(CA).cloned() {
            let right = "remove it, or set target.tls to verify-full";
            self.complain(origin, CA, "is set, but target.tls is \"disable\"", right);
        }
    }

    fn check_max_connections(&mut self) {
        const ABSOLUTE: &str = "target.max_connections";
        const PERCENT: &str = "target.max_connections_percent";
        match self.settle(ABSOLUTE, PERCENT) {
            Settled::Neither | Settled::First => {}
            Settled::Second => self.max_connections = None,
            Settled::Both(origin) => {
                let wrong = format!("is set together with {PERCENT}");
                self.complain(origin, ABSOLUTE, wrong, "keep one of the two");
            }
        }
    }

    fn check_listeners(&mut self) {
        const PROXY: &str = "proxy.listen";
        const ADMIN: &str = "admin.listen";
        if self.has_problem(PROXY) || self.has_problem(ADMIN) {
            return;
        }
        let proxy = self.config.proxy.listen;
        if let Some(admin) = self.config.admin.listen.filter(|admin| collide(proxy, *admin)) {
            let origin = [ADMIN, PROXY].iter().find_map(|key| self.given.get(*key));
            let origin = origin.cloned().unwrap_or(Origin::Default);
            let wrong = format!("{admin} collides with {PROXY}, {proxy}");
            self.complain(origin, ADMIN, wrong, "give one of them another port");
        }
    }

    fn check_entries(&mut self, nowhere: &Origin) {
        if self.entries.is_empty()
            && !self.problems.iter().any(|problem| names_the_list(problem.key.as_deref()))
        {
            let variable = keys::entry_variable(0, "secret_arn");
            let right = match nowhere {
                Origin::File { .. } => format!(
                    "write [[{AUTH}]] and secret_file or secret_arn below, or set {variable}"
                ),
                _ => format!("set {variable} or {}", keys::entry_variable(0, "secret_file")),
            };
            self.complain(
                nowhere.clone(),
                AUTH,
                "has no entry, so that nobody could log in",
                right,
            );
        }
        for index in 0..self.entries.len() {
            self.check_source(index);
            self.check_unique(index);
        }
    }

    /// An entry has one source.
    fn check_source(&mut self, index: usize) {
        let file = keys::entry_name(index, "secret_file");
        let arn = keys::entry_name(index, "secret_arn");
        let settled = self.settle(&file, &arn);
        let has_username = self.given.contains_key(&keys::entry_name(index, "username"));
        let Some(entry) = self.entries.get_mut(index) else {
            return;
        };
        let name = format!("{AUTH}[{index}]");
        match settled {
            Settled::First => entry.secret_arn = None,
            Settled::Second => entry.secret_file = None,
            Settled::Neither if has_username => {}
            Settled::Neither => {
                let origin = entry.origin.clone();
                self.complain(origin, &name, "has no secret", "set secret_file or secret_arn");
            }
            Settled::Both(origin) => {
                let wrong = "has both secret_file and secret_arn";
                self.complain(origin, &name, wrong, "keep one of the two");
            }
        }
    }

    /// A name instead of a secret is enough where IAM proves the user on both sides. Tokens go only where
    /// somebody is known to be who they should be: over TLS, and to nobody but the target.
    fn check_iam(&mut self) {
        const TLS: &str = "target.tls";
        let default = self.config.proxy.default_auth_scheme;
        let client_tls = self.given.contains_key("proxy.tls_certificate");
        let mut problems = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let to_target = entry.scheme(default) == AuthScheme::IamAuth;
            let from_client = entry.iam_auth == IamAuth::Required;
            // Whether or not with a value that can be used.
            let has = |key| self.given.contains_key(&keys::entry_name(index, key));
            let (has_name, has_secret) = (has("username"), has("secret_file") || has("secret_arn"));
            let mut complain = |wrong: &str, right: &str| {
                problems.push((index, entry.origin.clone(), wrong.to_owned(), right.to_owned()));
            };
            if has_name && has_secret {
                complain("has both a secret and username", "keep one of the two");
            } else if has_name && !from_client {
                let right = "set iam_auth = \"REQUIRED\", or name a secret";
                complain("has a username and no password for it", right);
            }
            if from_client && !to_target {
                let wrong = "has iam_auth = \"REQUIRED\" and auth_scheme = \"SECRETS\", but who logs in \
                    to RDS by IAM cannot do so by password";
                complain(wrong, "remove auth_scheme, or set iam_auth to DISABLED");
            }
            if from_client && !client_tls {
                let right = "set proxy.tls_certificate and proxy.tls_private_key";
                complain("has iam_auth = \"REQUIRED\", but there is no TLS for clients", right);
            }
            if (to_target || from_client) && self.config.target.tls != TargetTls::VerifyFull {
                let wrong =
                    format!("sends IAM tokens to the target, but {TLS} is not \"verify-full\"");
                complain(
                    &wrong,
                    "set target.tls to verify-full, and target.tls_ca to the RDS bundle",
                );
            }
        }
        for (index, origin, wrong, right) in problems {
            self.complain(origin, &format!("{AUTH}[{index}]"), wrong, right);
        }
    }

    /// No entry has the source of an earlier one.
    fn check_unique(&mut self, index: usize) {
        let Some((entry, earlier)) = self.entries.get(..=index).and_then(<[_]>::split_last) else {
            return;
        };
        let same = earlier.iter().position(|other| {
            let sources =
                |of: &Entry| (of.secret_file.clone(), of.secret_arn.clone(), of.username.clone());
            sources(entry) != (None, None, None) && sources(entry) == sources(other)
        });
        if let Some(same) = same {
            let origin = entry.origin.clone();
            let wrong = format!("has the same secret as {AUTH}[{same}]");
            self.complain(origin, &format!("{AUTH}[{index}]"), wrong, "remove one of the two");
        }
    }

    /// The environment's key beats the file's. Two of the same place contradict each other, at the later line.
    fn settle(&self, first: &str, second: &str) -> Settled {
        match (self.given.get(first), self.given.get(second)) {
            (None, None) => Settled::Neither,
            (Some(_), None) | (Some(Origin::Variable(_)), Some(Origin::File { .. })) => {
                Settled::First
            }
            (None, Some(_)) | (Some(Origin::File { .. }), Some(Origin::Variable(_))) => {
                Settled::Second
            }
            (Some(a), Some(b)) => Settled::Both(a.max(b).clone()),
        }
    }
}

/// Whether a problem is already about the list or one of its entries.
fn names_the_list(key: Option<&str>) -> bool {
    key.is_some_and(|key| key == AUTH || key.starts_with("proxy.auth["))
}

fn contradiction(nowhere: &Origin) -> super::errors::Problem {
    super::errors::Problem {
        origin: nowhere.clone(),
        key: None,
        wrong: "contradicts itself".to_owned(),
        right: "this is a mistake in pgweir; please report it".to_owned(),
    }
}

/// Whether two listeners could not be bound at once. Port 0 is any free port.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let (a_ip, b_ip) = (a.ip(), b.ip());
    let overlap = a_ip == b_ip || covers(a_ip, b_ip) || covers(b_ip, a_ip);
    a.port() == b.port() && a.port() != 0 && overlap
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_collide_on_one_port_of_overlapping_addresses() {
        let collide = |a: &str, b: &str| collide(a.parse().unwrap(), b.parse().unwrap());
        for (a, b) in [
            ("127.0.0.1:5432", "127.0.0.1:5432"),
            ("0.0.0.0:5432", "127.0.0.1:5432"),
            ("10.0.0.1:5432", "0.0.0.0:5432"),
            ("[::]:5432", "127.0.0.1:5432"),
            ("[::]:5432", "[::1]:5432"),
        ] {
            assert!(collide(a, b) && collide(b, a), "{a} {b}");
        }
        for (a, b) in [
            ("127.0.0.1:5432", "127.0.0.1:9127"),
            ("127.0.0.1:5432", "127.0.0.2:5432"),
            ("0.0.0.0:5432", "[::1]:5432"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert!(!collide(a, b) && !collide(b, a), "{a} {b}");
        }
    }
}
