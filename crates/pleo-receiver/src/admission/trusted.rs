//! Sources that have delivered something authentic lately.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use core::time::Duration;
use tokio::time::Instant;

use super::source::Source;

/// How long a source stays trusted after an authentic delivery.
const LATELY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How old a record may get before a delivery renews it, so that most deliveries only read.
const RENEWAL: Duration = Duration::from_secs(60);

/// How many sources are remembered. The sender has about ten.
const CAPACITY: usize = 1024;

/// Remembers which sources have proved that they know a secret.
#[derive(Debug, Default)]
pub(crate) struct TrustedSources {
    last_delivery: RwLock<BTreeMap<Source, Instant>>,
}

impl TrustedSources {
    /// Records an authentic delivery.
    pub(crate) fn record(&self, source: Source, now: Instant) {
        if source == Source::Unknown || self.age(source, now).is_some_and(|age| age < RENEWAL) {
            return;
        }
        let mut sources = self
            .last_delivery
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        sources.insert(source, now);
        if sources.len() > CAPACITY
            && let Some(oldest) = sources
                .iter()
                .min_by_key(|(_, at)| **at)
                .map(|(source, _)| *source)
        {
            sources.remove(&oldest);
        }
    }

    /// Returns whether the source delivered something authentic lately.
    pub(crate) fn contains(&self, source: Source, now: Instant) -> bool {
        self.age(source, now).is_some_and(|age| age < LATELY)
    }

    fn age(&self, source: Source, now: Instant) -> Option<Duration> {
        let sources = self
            .last_delivery
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let at = sources.get(&source)?;
        Some(now.saturating_duration_since(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusts_a_source_for_a_week_after_its_last_delivery() {
        let (trusted, now) = (TrustedSources::default(), Instant::now());
        let source = Source::V6(1);
        assert!(!trusted.contains(source, now));
        trusted.record(source, now);
        assert!(trusted.contains(source, now + LATELY - Duration::from_secs(1)));
        assert!(!trusted.contains(source, now + LATELY));
        trusted.record(source, now + LATELY / 2);
        assert!(trusted.contains(source, now + LATELY));
        assert!(!trusted.contains(Source::V6(2), now));
    }

    #[test]
    fn never_trusts_an_unknown_source() {
        let (trusted, now) = (TrustedSources::default(), Instant::now());
        trusted.record(Source::Unknown, now);
        assert!(!trusted.contains(Source::Unknown, now));
    }

    #[test]
    fn forgets_the_oldest_source_when_full() {
        let (trusted, start) = (TrustedSources::default(), Instant::now());
        let count = u64::try_from(CAPACITY).unwrap();
        for number in 0..=count {
            trusted.record(Source::V6(number), start + Duration::from_secs(number));
        }
        let end = start + Duration::from_secs(count);
        assert!(!trusted.contains(Source::V6(0), end));
        assert!(trusted.contains(Source::V6(1), end));
        assert!(trusted.contains(Source::V6(count), end));
    }
}
