//! The only place where a clock is read; everybody else calls [`now`] or is handed an instant.
//!
//! The monotonic clock is tokio's, because tests pause and advance that one: a timeout computed
//! here and a timer that waits for it then agree. Outside tests it is `std`'s clock.

use std::time::{Instant, SystemTime};

/// The monotonic clock: for durations, deadlines and ages.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, which may jump: only for what is shown to people or compared with dates made
/// elsewhere (certificates, tokens).
#[must_use]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::now;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_clock_follows_the_paused_time_of_a_test() {
        let before = now();
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(now().duration_since(before), Duration::from_secs(3600));
    }

    #[test]
    fn the_clock_needs_no_runtime() {
        let before = now();
        assert!(now() >= before);
    }
}
