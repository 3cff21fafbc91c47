//! What is told of the secrets: to `/readyz` in words, to `/metrics` in numbers.

use crate::admin::Check;
use crate::credentials::SourceStatus;
use crate::telemetry::metrics::SecretNumbers;
use std::fmt::Write as _;

/// Most secrets that are named in the detail; of the others their number is told.
const NAMED_MAX: usize = 10;

/// Whether clients can log in at all, and which of them cannot.
///
/// One bad secret is no reason to take the whole task out of service: its user could not log in
/// anywhere else either.
pub(super) fn check(statuses: &[SourceStatus]) -> Check {
    let usable = statuses.iter().filter(|status| status.usable).count();
    let mut detail = format!("{usable} of {} secrets usable", statuses.len());
    let troubled = statuses.iter().filter_map(|status| Some((status, status.last_error.as_ref()?)));
    let mut unnamed = 0_usize;
    for (at, (status, error)) in troubled.enumerate() {
        if at >= NAMED_MAX {
            unnamed += 1;
            continue;
        }
        let consequence = if status.usable { "the last value is in use" } else { "user disabled" };
        let _ = write!(detail, "; {} ({consequence}): {error}", status.origin);
    }
    if unnamed > 0 {
        let _ = write!(detail, "; and {unnamed} more");
    }
    Check { name: "secrets", ok: usable > 0, detail }
}

/// The same in numbers.
pub(super) fn numbers(statuses: &[SourceStatus]) -> SecretNumbers {
    let mut numbers = SecretNumbers::default();
    for status in statuses {
        match (status.usable, &status.last_error) {
            (true, None) => numbers.fresh += 1,
            (true, Some(_)) => numbers.stale += 1,
            (false, _) => numbers.disabled += 1,
        }
        if let Some(error) = &status.last_error {
            *numbers.problems.entry(error.as_label()).or_default() += 1;
        }
    }
    let ages = statuses.iter().filter_map(|status| status.last_success.map(|at| at.elapsed()));
    numbers.oldest_age = ages.max();
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::SourceError;

    fn status(origin: &str, usable: bool, last_error: Option<SourceError>) -> SourceStatus {
        SourceStatus {
            origin: origin.to_owned(),
            username: None,
            generation: None,
            usable,
            last_success: None,
            last_error,
            failures: 0,
        }
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_named_with_what_is_missing() {
        let denied = SourceError::Denied { permission: "kms:Decrypt", detail: "no".to_owned() };
        let check = check(&[
            status("arn:good", true, None),
            status("arn:bad", false, Some(denied)),
            status("arn:old", true, Some(SourceError::TimedOut)),
        ]);
        assert!(check.ok);
        assert_eq!(
            check.detail,
            "2 of 3 secrets usable; arn:bad (user disabled): the permission kms:Decrypt is missing: no; \
             arn:old (the last value is in use): not read in time"
        );
    }

    #[test]
    fn without_a_usable_secret_nobody_should_come_here() {
        let check = check(&[status("arn:bad", false, Some(SourceError::NotFound))]);
        assert!(!check.ok);
    }

    #[test]
    fn the_detail_is_bounded() {
        let all: Vec<_> = (0..1000)
            .map(|n| status(&format!("s{n}"), false, Some(SourceError::NotFound)))
            .collect();
        let check = check(&all);
        assert!(check.detail.ends_with("; and 990 more"), "{}", check.detail);
        assert_eq!(numbers(&all).problems.get("not_found"), Some(&1000));
    }

    #[test]
    fn numbers_tell_fresh_stale_and_disabled_secrets_apart() {
        let numbers = numbers(&[
            status("a", true, None),
            status("b", true, Some(SourceError::TimedOut)),
            status("c", false, Some(SourceError::TimedOut)),
        ]);
        assert_eq!((numbers.fresh, numbers.stale, numbers.disabled), (1, 1, 1));
        assert_eq!(numbers.problems.get("timed_out"), Some(&2));
    }
}
