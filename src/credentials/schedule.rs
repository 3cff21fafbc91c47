//! When a source is read next. Pure but for the jitter, which keeps many tasks that started together
//! from asking together.

use std::time::Duration;

use super::error::SourceError;

/// Time to live outside of these bounds is moved to the nearer one.
const TIME_TO_LIVE_MIN: Duration = Duration::from_secs(1);
const TIME_TO_LIVE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Wait after the first failure; it doubles with each further one.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// Wait after the first refusal for too many requests.
const BACK_OFF_THROTTLED: Duration = Duration::from_secs(8);
/// Longest wait after failures, and so the longest until a repaired secret is noticed.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// How long the value of a source is taken as fresh.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    time_to_live: Duration,
}

impl Schedule {
    /// With a time to live within sensible bounds.
    pub fn new(time_to_live: Duration) -> Self {
        Self { time_to_live: time_to_live.clamp(TIME_TO_LIVE_MIN, TIME_TO_LIVE_MAX) }
    }

    /// Until the next read after one that succeeded: the time to live, 10 % more or less.
    pub fn after_success(&self, chance: f64) -> Duration {
        self.time_to_live.mul_f64(0.9 + 0.2 * chance)
    }

    /// Until the next read after `failures` in a row, the last of them `error`: doubling, at most
    /// [`BACK_OFF_MAX`] or the time to live, of which the last half is left to chance.
    pub fn after_failure(&self, failures: u32, error: &SourceError, chance: f64) -> Duration {
        let first = match error {
            SourceError::Throttled { .. } => BACK_OFF_THROTTLED,
            _ => BACK_OFF_FIRST,
        };
        let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let limit = self.time_to_live.min(BACK_OFF_MAX).max(first);
        doubled.min(limit).mul_f64(0.5 + 0.5 * chance)
    }
}

/// A random number from 0 to 1; one half if the system has none to give.
pub fn chance() -> f64 {
    let mut bytes = [0; 4];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_value_is_read_again_within_a_tenth_of_its_time_to_live() {
        let schedule = Schedule::new(Duration::from_secs(300));
        assert_eq!(schedule.after_success(0.0), Duration::from_secs(270));
        assert_eq!(schedule.after_success(0.5), Duration::from_secs(300));
        assert_eq!(schedule.after_success(1.0), Duration::from_secs(330));
    }

    #[test]
    fn failures_double_the_wait_up_to_a_minute() {
        let schedule = Schedule::new(Duration::from_secs(300));
        let wait = |failures| schedule.after_failure(failures, &SourceError::TimedOut, 1.0);
        let seconds: Vec<u64> = (1..=8).map(|failures| wait(failures).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait(u32::MAX), Duration::from_secs(60));
        let least = schedule.after_failure(3, &SourceError::TimedOut, 0.0);
        assert_eq!(least, Duration::from_secs(2));
    }

    #[test]
    fn the_wait_after_failures_never_exceeds_a_short_time_to_live() {
        let schedule = Schedule::new(Duration::from_secs(5));
        assert_eq!(schedule.after_failure(9, &SourceError::TimedOut, 1.0), Duration::from_secs(5));
    }

    #[test]
    fn throttling_is_answered_with_a_longer_wait() {
        let throttled = SourceError::Throttled { code: "ThrottlingException".to_owned() };
        let schedule = Schedule::new(Duration::from_secs(300));
        assert_eq!(schedule.after_failure(1, &throttled, 1.0), Duration::from_secs(8));
        assert_eq!(schedule.after_failure(9, &throttled, 1.0), Duration::from_secs(60));
        let hasty = Schedule::new(Duration::from_secs(1));
        assert_eq!(hasty.after_failure(9, &throttled, 1.0), Duration::from_secs(8));
    }

    #[test]
    fn extreme_times_to_live_are_bounded() {
        assert_eq!(Schedule::new(Duration::ZERO).after_success(0.5), TIME_TO_LIVE_MIN);
        assert_eq!(Schedule::new(Duration::MAX).after_success(0.5), TIME_TO_LIVE_MAX);
    }

    #[test]
    fn chance_lies_between_zero_and_one_and_varies() {
        let draws: Vec<f64> = (0..100).map(|_| chance()).collect();
        assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
        assert!(draws.windows(2).any(|pair| (pair[0] - pair[1]).abs() > f64::EPSILON));
    }
}
