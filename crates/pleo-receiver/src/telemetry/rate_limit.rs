//! Limits how often a log line is written, for events that a client without the secret can trigger.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;
use tracing::Level;
use tracing::level_filters::LevelFilter;

/// How many lines of one event may follow each other at once.
const BURST: u32 = 5;

/// After a burst, one line is written in this time.
const INTERVAL: Duration = Duration::from_secs(10);

/// The same for one event text with all codes and endpoints together.
const TOTAL_BURST: u32 = 50;
const TOTAL_INTERVAL: Duration = Duration::from_secs(1);

/// Counts the events that are not logged. The next line of the same event has the count.
#[derive(Debug)]
pub(crate) struct RateLimit(Mutex<Limits>);

#[derive(Debug)]
struct Limits {
    events: BTreeMap<Event, State>,
    /// By event text: when a complete burst with all codes and endpoints is possible again.
    totals: BTreeMap<&'static str, Instant>,
}

/// The events that share a limit. There are few: endpoints are configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Event {
    pub(super) text: &'static str,
    pub(super) code: &'static str,
    /// Empty for an event of no endpoint.
    pub(super) endpoint: Arc<str>,
}

impl Event {
    fn new(text: &'static str, code: &'static str, endpoint: &Arc<str>) -> Self {
        Self {
            text,
            code,
            endpoint: Arc::clone(endpoint),
        }
    }
}

#[derive(Debug)]
struct State {
    /// When a complete burst is possible again.
    full_at: Instant,
    suppressed: u64,
}

impl RateLimit {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Limits {
            events: BTreeMap::new(),
            totals: BTreeMap::new(),
        }))
    }

    /// Returns the field `suppressed` of a line, which is absent if no line was suppressed since the
    /// last one. Returns `None` if no line may be written now, or none of this level is logged.
    pub(super) fn check(
        &self,
        level: Level,
        text: &'static str,
        code: &'static str,
        endpoint: &Arc<str>,
    ) -> Option<Option<u64>> {
        if level > LevelFilter::current() {
            return None;
        }
        let event = Event::new(text, code, endpoint);
        let suppressed = self.permit(event, Instant::now())?;
        Some((suppressed > 0).then_some(suppressed))
    }

    /// Returns `true` if a line of this event may be written now. Counts nothing.
    pub(super) fn is_open(
        &self,
        level: Level,
        text: &'static str,
        code: &'static str,
        endpoint: &Arc<str>,
    ) -> bool {
        let event = Event::new(text, code, endpoint);
        level <= LevelFilter::current() && self.is_open_at(&event, Instant::now())
    }

    fn is_open_at(&self, event: &Event, now: Instant) -> bool {
        let limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = limits.events.get(event).map_or(now, |state| state.full_at);
        let all = limits.totals.get(event.text).copied().unwrap_or(now);
        take(own, now, BURST, INTERVAL).is_some()
            && take(all, now, TOTAL_BURST, TOTAL_INTERVAL).is_some()
    }

    /// Returns `true` if another event may be reported now, whatever the level of the log.
    #[cfg(feature = "otel")]
    pub(crate) fn permits(
        &self,
        text: &'static str,
        code: &'static str,
        endpoint: &Arc<str>,
    ) -> bool {
        self.permit(Event::new(text, code, endpoint), Instant::now())
            .is_some()
    }

    /// Returns how many events were suppressed since the last line, if another line may be written
    /// now. Counts the event as suppressed otherwise.
    fn permit(&self, event: Event, now: Instant) -> Option<u64> {
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Limits { events, totals } = &mut *limits;
        let total = totals.entry(event.text).or_insert(now);
        let state = events.entry(event).or_insert(State {
            full_at: now,
            suppressed: 0,
        });
        let own = take(state.full_at, now, BURST, INTERVAL);
        let all = take(*total, now, TOTAL_BURST, TOTAL_INTERVAL);
        let (Some(own), Some(all)) = (own, all) else {
            state.suppressed += 1;
            return None;
        };
        (state.full_at, *total) = (own, all);
        Some(core::mem::take(&mut state.suppressed))
    }

    /// Returns the events that no line has reported, and their counts.
    pub(super) fn take_suppressed(&self) -> Vec<(Event, u64)> {
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed = limits.events.iter_mut().map(|(event, state)| {
            let count = core::mem::take(&mut state.suppressed);
            (event.clone(), count)
        });
        suppressed.filter(|(_, count)| *count > 0).collect()
    }
}

/// Takes one line of a burst that is complete again at `full_at`. Returns when it is complete after that,
/// or `None` if no line is left.
fn take(full_at: Instant, now: Instant, burst: u32, interval: Duration) -> Option<Instant> {
    let full_at = full_at.max(now);
    (full_at - now <= interval * (burst - 1)).then(|| full_at + interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(endpoint: &str, code: &'static str) -> Event {
        Event {
            text: "delivery rejected",
            code,
            endpoint: endpoint.into(),
        }
    }

    #[test]
    fn permits_burst_and_then_one_line_per_interval_with_count_of_suppressed() {
        let (limit, start) = (RateLimit::new(), Instant::now());
        let after = |millis| {
            let now = start + Duration::from_millis(millis);
            limit.permit(event("/a", "not_json"), now)
        };
        for millis in 0..5 {
            assert_eq!(after(millis), Some(0), "{millis}");
        }
        for millis in 5..105 {
            assert_eq!(after(millis), None, "{millis}");
        }
        assert_eq!(after(9_999), None);
        assert_eq!(after(10_000), Some(101));
        assert_eq!(after(19_999), None);
        assert_eq!(after(20_000), Some(1));
        // After a quiet minute, a complete burst.
        for millis in 80_000..80_005 {
            assert_eq!(after(millis), Some(0), "{millis}");
        }
        assert_eq!(after(80_005), None);
    }

    #[test]
    fn limits_each_code_and_endpoint_apart() {
        let (limit, now) = (RateLimit::new(), Instant::now());
        for _ in 0..100 {
            limit.permit(event("/a", "not_json"), now);
        }
        assert_eq!(limit.permit(event("/a", "not_json"), now), None);
        assert_eq!(limit.permit(event("/a", "body_broken"), now), Some(0));
        assert_eq!(limit.permit(event("/b", "not_json"), now), Some(0));
    }

    #[test]
    fn limits_an_event_of_many_endpoints_in_total() {
        let (limit, start) = (RateLimit::new(), Instant::now());
        let permitted = |now| {
            let name = |number| format!("/{number}");
            let permitted =
                (0..300).map(|number| limit.permit(event(&name(number), "not_json"), now));
            permitted.flatten().count()
        };
        assert_eq!(permitted(start), 50);
        assert_eq!(permitted(start), 0);
        assert_eq!(permitted(start + Duration::from_secs(7)), 7);
        // Another event is not suppressed with them.
        let other = Event {
            text: "append failed",
            ..event("/1", "")
        };
        assert_eq!(limit.permit(other, start), Some(0));
    }

    #[test]
    fn is_open_exactly_if_a_line_is_permitted() {
        let (limit, start) = (RateLimit::new(), Instant::now());
        let mut open = 0;
        for tenths in 0..600 {
            let now = start + Duration::from_millis(tenths * 100);
            for endpoint in ["/a", "/b"] {
                let event = event(endpoint, "signature_mismatch");
                let is_open = limit.is_open_at(&event, now);
                assert_eq!(is_open, limit.is_open_at(&event, now), "counts nothing");
                assert_eq!(is_open, limit.permit(event, now).is_some(), "{tenths}");
                open += u32::from(is_open);
            }
        }
        assert_eq!(open, 2 * (5 + 5), "a burst, then one in ten seconds");
    }

    #[test]
    fn takes_each_suppressed_count_once() {
        let (limit, now) = (RateLimit::new(), Instant::now());
        for _ in 0..12 {
            limit.permit(event("/a", "not_json"), now);
        }
        limit.permit(event("/b", "not_json"), now);
        assert_eq!(limit.take_suppressed(), [(event("/a", "not_json"), 7)]);
        assert_eq!(limit.take_suppressed(), []);
        let later = now + Duration::from_secs(10);
        assert_eq!(limit.permit(event("/a", "not_json"), later), Some(0));
    }
}
