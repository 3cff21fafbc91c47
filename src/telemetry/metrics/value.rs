//! The values behind the metrics: counters, histograms and families of counters.
//!
//! An update is one or two relaxed additions to memory that no other worker thread writes; there
//! is no lock, allocation, float or clock here. Readers may see one value newer than another.

use super::label::{Label, LabelSet};
use std::any::TypeId;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Something that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds one.
    pub fn one(&self) {
        self.add(1);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bound of the first bucket, in nanoseconds: below it lies what the proxy itself costs.
const FIRST_BOUND: u64 = 50_000;

/// Buckets with an upper bound; each bound is twice the one before. The last is 419 s, above the
/// longest wait that RDS Proxy allows (300 s).
pub(super) const BUCKETS: usize = 24;

/// The upper bound (inclusive) of bucket `index`, in nanoseconds.
pub(super) const fn bound_nanos(index: usize) -> u64 {
    FIRST_BOUND << index
}

/// How durations are distributed: a histogram of fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    /// Above the last bound.
    over: Counter,
    nanos: Counter,
}

impl Histogram {
    /// Records one duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = duration
            .as_secs()
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(duration.subsec_nanos()))
            .min(LONGEST);
        self.buckets.get(bucket(nanos)).unwrap_or(&self.over).one();
        self.nanos.add(nanos);
    }

    /// Adds what is in here to `total`.
    pub(super) fn add_to(&self, total: &mut HistogramTotal) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.get();
        }
        total.over += self.over.get();
        total.nanos += u128::from(self.nanos.get());
    }
}

/// The longest duration that is counted in full (about 52 days), so that one absurd value does not
/// make the sum wrap.
const LONGEST: u64 = 1 << 52;

/// The bucket of a duration: the number of binary digits of how often the first bound fits in.
fn bucket(nanos: u64) -> usize {
    let steps = nanos.saturating_sub(1) / FIRST_BOUND;
    (u64::BITS - steps.leading_zeros()) as usize
}

/// The sum of one histogram over all shards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HistogramTotal {
    /// Not cumulative.
    pub(super) buckets: [u64; BUCKETS],
    pub(super) over: u64,
    pub(super) nanos: u128,
}

/// Most values one label may have; those beyond are counted as `other`.
pub(super) const LABELS_MAX: usize = 32;

/// One counter per value of a label.
#[derive(Debug)]
pub struct Family {
    owner: Option<TypeId>,
    counters: [Counter; LABELS_MAX],
    other: Counter,
}

impl Family {
    pub(super) fn new(labels: &LabelSet) -> Self {
        Self { owner: labels.owner, counters: Default::default(), other: Counter::default() }
    }

    /// The counter of `label`.
    pub fn of<L: Label>(&self, label: L) -> &Counter {
        self.at(self.position(label))
    }

    /// The position of `label`; one beyond the bound where this family was given no labels.
    pub(super) fn position<L: Label>(&self, label: L) -> usize {
        debug_assert!(
            self.owner.is_none_or(|owner| owner == TypeId::of::<L>()),
            "a label of another family: {}",
            label.as_label(),
        );
        if self.owner.is_some() { label.index() } else { LABELS_MAX }
    }

    /// The counter at a position in the list of labels.
    pub(super) fn at(&self, index: usize) -> &Counter {
        self.counters.get(index).unwrap_or(&self.other)
    }

    pub(super) fn other(&self) -> &Counter {
        &self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(histogram: &Histogram) -> HistogramTotal {
        let mut total = HistogramTotal::default();
        histogram.add_to(&mut total);
        total
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_one_nanosecond_more_to_the_next() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(bound_nanos(index)), index, "bound {index}");
            assert_eq!(bucket(bound_nanos(index) + 1), index + 1, "above bound {index}");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(1), 0);
    }

    #[test]
    fn bounds_reach_from_50_microseconds_to_beyond_300_seconds() {
        assert_eq!(Duration::from_nanos(bound_nanos(0)), Duration::from_micros(50));
        assert!(Duration::from_nanos(bound_nanos(BUCKETS - 1)) > Duration::from_secs(300));
    }

    #[test]
    fn observations_are_counted_in_their_buckets_and_summed_exactly() {
        let histogram = Histogram::default();
        for micros in [10, 50, 51, 100, 1_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let total = total(&histogram);
        assert_eq!(total.buckets[0], 2);
        assert_eq!(total.buckets[1], 2);
        assert_eq!(total.buckets.iter().sum::<u64>(), 5);
        assert_eq!(total.over, 0);
        assert_eq!(total.nanos, 1_000_211_000);
    }

    #[test]
    fn the_longest_possible_duration_is_counted_without_overflow() {
        let histogram = Histogram::default();
        histogram.observe(Duration::MAX);
        histogram.observe(Duration::MAX);
        let total = total(&histogram);
        assert_eq!(total.over, 2);
        assert_eq!(total.nanos, 2 * u128::from(LONGEST));
    }

    #[derive(Clone, Copy)]
    struct Wide(usize);

    impl Label for Wide {
        const ALL: &'static [Self] = &[Self(0), Self(1)];
        fn as_label(self) -> &'static str {
            if self.0 == 0 { "zero" } else { "more" }
        }
        fn index(self) -> usize {
            self.0
        }
    }

    #[test]
    fn a_label_beyond_the_bound_is_counted_as_other() {
        let family = Family::new(&LabelSet::of::<Wide>());
        family.of(Wide(LABELS_MAX)).one();
        family.of(Wide(usize::MAX)).one();
        family.of(Wide(1)).one();
        assert_eq!(family.other().get(), 2);
        assert_eq!(family.at(1).get(), 1);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "a label of another family")]
    fn a_label_of_another_family_is_a_mistake_that_tests_see() {
        #[derive(Clone, Copy)]
        struct Stranger;
        impl Label for Stranger {
            const ALL: &'static [Self] = &[Self];
            fn as_label(self) -> &'static str {
                "stranger"
            }
            fn index(self) -> usize {
                0
            }
        }
        Family::new(&LabelSet::of::<Wide>()).of(Stranger).one();
    }
}
