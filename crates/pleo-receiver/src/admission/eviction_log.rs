//! Logs evictions, at most one a second.

use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;
use tracing::warn;

use super::source::Source;

/// How long after a line the next one may be logged.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts the evictions between two log lines: an attacker decides how many there are.
#[derive(Debug, Default)]
pub(super) struct EvictionLog {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl EvictionLog {
    /// Logs an eviction, or counts it for the next line.
    pub(super) fn log(&self, what: &'static str, source: Source, now: Instant) {
        if let Some(suppressed) = self.suppressed(now) {
            warn!(what, %source, suppressed, "evicted for another source");
        }
    }

    /// Returns how many lines were suppressed since the last one, if it is time for the next.
    fn suppressed(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(core::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_one_line_a_second_with_the_count_of_others() {
        let (log, start) = (EvictionLog::default(), Instant::now());
        let after = |millis| log.suppressed(start + Duration::from_millis(millis));
        assert_eq!(after(0), Some(0));
        assert_eq!(after(1), None);
        assert_eq!(after(999), None);
        assert_eq!(after(1000), Some(2));
        assert_eq!(after(1001), None);
        assert_eq!(after(2500), Some(1));
    }
}
