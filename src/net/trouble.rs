//! Times in which the system refuses something again and again: said when they begin and when they are
//! over, not each time.

use std::time::{Duration, Instant};

/// After so long without a refusal it is over.
const CALM: Duration = Duration::from_secs(10);

/// Whether something is refused now and then.
#[derive(Debug, Default)]
pub struct Trouble(Option<Episode>);

#[derive(Debug)]
struct Episode {
    begun: Instant,
    last: Instant,
    failures: u64,
}

impl Trouble {
    /// One more refusal. True if it is the first.
    pub fn note(&mut self, now: Instant) -> bool {
        let episode = self.0.get_or_insert(Episode { begun: now, last: now, failures: 0 });
        episode.last = now;
        episode.failures += 1;
        episode.failures == 1
    }

    /// If it is over: how many refusals there were, and for how long. Once.
    pub fn take_past(&mut self, now: Instant) -> Option<(u64, Duration)> {
        let is_past = |episode: &mut Episode| now.saturating_duration_since(episode.last) >= CALM;
        let Episode { begun, last, failures } = self.0.take_if(is_past)?;
        Some((failures, last.saturating_duration_since(begun)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_when_it_begins_and_when_it_is_over() {
        let (mut trouble, begun) = (Trouble::default(), Instant::now());
        assert_eq!(trouble.take_past(begun), None);
        assert!(trouble.note(begun));
        let later = begun + Duration::from_secs(2);
        assert!(!trouble.note(later));
        assert_eq!(trouble.take_past(later + CALM / 2), None);
        assert_eq!(trouble.take_past(later + CALM), Some((2, Duration::from_secs(2))));
        assert_eq!(trouble.take_past(later + CALM), None);
        assert!(trouble.note(later + CALM), "the next one begins anew");
    }
}
