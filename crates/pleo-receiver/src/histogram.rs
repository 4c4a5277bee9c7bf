//! A histogram that threads fill without waiting for each other, since each request adds to several.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use crate::striped::Striped;

/// The most bounds that a scale has.
const MAX_BOUNDS: usize = 13;

/// The distribution of measured values.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Distribution {
    /// Upper bounds, ascending, each with the number of values up to it and above the bound before.
    /// The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// The sum of all values.
    pub sum: f64,
}

impl Distribution {
    /// Creates a distribution.
    #[must_use]
    pub const fn new(buckets: Vec<(f64, u64)>, sum: f64) -> Self {
        Self { buckets, sum }
    }

    /// Returns the number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }
}

/// Counts integer values by size.
#[derive(Debug)]
pub(crate) struct Histogram {
    scale: &'static Scale,
    counts: Striped<Counts>,
}

/// The counts of one stripe.
#[derive(Debug, Default)]
struct Counts {
    /// One more than bounds, for larger values.
    buckets: [AtomicU64; MAX_BOUNDS + 1],
    sum: AtomicU64,
}

/// The bounds of a histogram.
#[derive(Debug)]
pub(crate) struct Scale {
    /// Ascending.
    pub(crate) bounds: &'static [u64],
    /// How many integer units are one unit of the distribution.
    pub(crate) units: f64,
}

/// Bounds in bytes, as large as bodies are.
pub(crate) static BYTES: Scale = Scale {
    bounds: &[256, 1024, 2048, 4096, 16_384, 65_536, 262_144, 1_048_576],
    units: 1.0,
};

/// Bounds of times in microseconds: 1 ms to 10 s.
pub(crate) static SHORT_TIMES: Scale = Scale {
    bounds: &[
        1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
        5_000_000, 10_000_000,
    ],
    units: 1e6,
};

/// Bounds of times in microseconds: 10 ms to 10 min.
pub(crate) static LONG_TIMES: Scale = Scale {
    bounds: &[
        10_000,
        50_000,
        100_000,
        500_000,
        1_000_000,
        5_000_000,
        10_000_000,
        30_000_000,
        60_000_000,
        300_000_000,
        600_000_000,
    ],
    units: 1e6,
};

/// Bounds of numbers: 1 to 1024.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) static NUMBERS: Scale = Scale {
    bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
    units: 1.0,
};

impl Histogram {
    pub(crate) fn new(scale: &'static Scale) -> Self {
        Self {
            scale,
            counts: Striped::default(),
        }
    }

    /// Adds a value.
    pub(crate) fn add(&self, value: u64) {
        let bounds = self.scale.bounds;
        let above = bounds.iter().position(|bound| value <= *bound);
        let counts = self.counts.local();
        if let Some(count) = counts.buckets.get(above.unwrap_or(bounds.len())) {
            count.fetch_add(1, Ordering::Relaxed);
            counts.sum.fetch_add(value, Ordering::Relaxed);
        }
    }

    /// Adds a time, in a scale of microseconds.
    pub(crate) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds a number of bytes or messages.
    pub(crate) fn add_size(&self, size: usize) {
        self.add(u64::try_from(size).unwrap_or(u64::MAX));
    }

    pub(crate) fn distribution(&self) -> Distribution {
        let units = self.scale.units;
        let bounds = self.scale.bounds.iter().map(|bound| to_f64(*bound) / units);
        let total = |bucket: usize| self.counts.sum(|counts| &counts.buckets[bucket]);
        let counts = (0..=MAX_BOUNDS).map(total);
        let buckets = bounds.chain([f64::INFINITY]).zip(counts).collect();
        Distribution::new(
            buckets,
            to_f64(self.counts.sum(|counts| &counts.sum)) / units,
        )
    }
}

#[allow(
    clippy::as_conversions,
    reason = "there is no other conversion, and the rounding of large sums does not matter"
)]
pub(crate) const fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_bucket_for_each_bound() {
        for scale in [&BYTES, &SHORT_TIMES, &LONG_TIMES] {
            assert!(scale.bounds.len() <= MAX_BOUNDS);
        }
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
        assert!(NUMBERS.bounds.len() <= MAX_BOUNDS);
    }

    #[test]
    fn counts_value_in_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&SHORT_TIMES);
        for micros in [0, 1000, 1001, 10_000_000, 10_000_001, 60_000_000] {
            histogram.add_time(Duration::from_micros(micros));
        }
        let distribution = histogram.distribution();
        let filled = distribution.buckets.iter().filter(|(_, count)| *count > 0);
        let filled: Vec<_> = filled.copied().collect();
        let expected = [(0.001, 2), (0.0025, 1), (10.0, 1), (f64::INFINITY, 2)];
        assert_eq!(filled, expected);
        assert_eq!(distribution.count(), 6);
        assert!(
            (distribution.sum - 80.002_002).abs() < 1e-9,
            "{distribution:?}"
        );
    }
}
