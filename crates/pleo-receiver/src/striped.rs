//! Numbers that several threads change with each request. Each thread has a cache line of its own, so
//! that no thread waits for the cache of another.

use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// The number of stripes. With more threads, some share one.
const STRIPES: usize = 8;

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static STRIPE: usize = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

/// A value for each of several threads.
#[derive(Debug, Default)]
pub(crate) struct Striped<T>([CacheLine<T>; STRIPES]);

/// Processors load two cache lines of 64 bytes at once.
#[derive(Debug, Default)]
#[repr(align(128))]
struct CacheLine<T>(T);

impl<T> Striped<T> {
    /// Returns the value of this thread.
    pub(crate) fn local(&self) -> &T {
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or(0);
        let CacheLine(value) = &self.0[stripe % STRIPES];
        value
    }

    /// Adds up a number of all threads.
    pub(crate) fn sum(&self, number: impl Fn(&T) -> &AtomicU64) -> u64 {
        let values = self.0.iter().map(|CacheLine(value)| number(value));
        let numbers = values.map(|number| number.load(Ordering::Relaxed));
        numbers.fold(0, u64::wrapping_add)
    }
}

/// A counter. All clones are the same counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct StripedCounter(Arc<Striped<AtomicU64>>);

impl StripedCounter {
    pub(crate) fn inc(&self) {
        self.0.local().fetch_add(1, Ordering::Relaxed);
    }
}

impl TypedMetric for StripedCounter {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for StripedCounter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.0.sum(|count| count), None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// A gauge. All clones are the same gauge.
#[derive(Clone, Debug, Default)]
pub(crate) struct StripedGauge(Arc<Striped<AtomicU64>>);

impl StripedGauge {
    pub(crate) fn inc(&self) {
        self.0.local().fetch_add(1, Ordering::Relaxed);
    }

    /// May be called by another thread than [`inc`](Self::inc): only the sum counts.
    pub(crate) fn dec(&self) {
        self.0.local().fetch_sub(1, Ordering::Relaxed);
    }
}

impl TypedMetric for StripedGauge {
    const TYPE: MetricType = MetricType::Gauge;
}

impl EncodeMetric for StripedGauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        // A thread that decremented more than it incremented has wrapped around.
        encoder.encode_gauge(&self.0.sum(|count| count).cast_signed())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn sums_what_all_threads_counted() {
        let (counter, gauge) = (StripedCounter::default(), StripedGauge::default());
        let mut registry = Registry::default();
        registry.register("requests", "Requests", counter.clone());
        registry.register("open", "Open requests", gauge.clone());
        thread::scope(|scope| {
            for _ in 0..3 * STRIPES {
                scope.spawn(|| {
                    counter.inc();
                    counter.inc();
                    gauge.inc();
                });
            }
        });
        gauge.dec();
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        assert!(page.contains("\nrequests_total 48\n"), "{page}");
        assert!(page.contains("\nopen 23\n"), "{page}");
    }
}
