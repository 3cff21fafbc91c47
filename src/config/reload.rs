//! What SIGHUP can change of a running configuration.

use super::draft::Draft;
use super::entry_keys::ENTRY_KEYS;
use super::keys::{AUTH, KEYS};
use super::settings::Config;

impl Config {
    /// The keys in which `new` differs: first those that can change while the program runs, then those that need a
    /// restart. Both in the order of the reference.
    ///
    /// Files are compared by name: a certificate or secret with new content is no difference here.
    #[must_use]
    pub fn live_differences(&self, new: &Self) -> (Vec<&'static str>, Vec<&'static str>) {
        let (old, next) = (Draft::of(self.clone()), Draft::of(new.clone()));
        let differing = KEYS.iter().filter(|key| key.place.differs(&old, &next));
        let list = (self.proxy.auth != new.proxy.auth).then_some((AUTH, is_list_live()));
        let (live, restart): (Vec<_>, Vec<_>) =
            differing.map(|key| (key.path, key.live)).chain(list).partition(|(_, live)| *live);
        let paths =
            |keys: Vec<(&'static str, bool)>| keys.into_iter().map(|(path, _)| path).collect();
        (paths(live), paths(restart))
    }

    /// This configuration with those settings of `new` that can change while the program runs.
    ///
    /// It is what runs after SIGHUP, and what the next `new` is to be compared with.
    #[must_use]
    pub fn with_live_settings_of(&self, new: &Self) -> Self {
        let next = Draft::of(new.clone());
        let mut changed = Draft::of(self.clone());
        for key in KEYS.iter().filter(|key| key.live) {
            key.place.copy(&next, &mut changed);
        }
        // Both halves of each joined setting are live (a test shows it), so that what was joined joins again.
        let mut config = changed.join().unwrap_or_else(|| self.clone());
        if is_list_live() {
            config.proxy.auth.clone_from(&new.proxy.auth);
        }
        config
    }
}

fn is_list_live() -> bool {
    ENTRY_KEYS.iter().all(|key| key.live)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else a reload could leave one half of a joined setting without the other.
    #[test]
    fn both_halves_of_a_joined_setting_change_together() {
        let live = |path| KEYS.iter().find(|key| key.path == path).unwrap().live;
        assert_eq!(live("proxy.tls_certificate"), live("proxy.tls_private_key"));
        assert_eq!(live("target.max_connections"), live("target.max_connections_percent"));
        assert_eq!(live("target.tls"), live("target.tls_ca"));
        assert_eq!(live("proxy.listen"), live("admin.listen"));
    }
}
