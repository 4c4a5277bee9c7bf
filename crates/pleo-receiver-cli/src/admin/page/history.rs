//! What happened in the last hour, by minute, and the rejections by source. In memory, from the start
//! of the program.

use core::time::Duration;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use pleo_receiver::{Receiver, Rejected};
use tokio::time;

/// How many minutes are kept.
pub(super) const MINUTES: usize = 60;

/// How many minutes the clock may be set back without a loss of counts.
const STEP: i64 = 5;

/// How often the counters are read.
const INTERVAL: Duration = Duration::from_secs(5);

/// The maximum time to read the backlog.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of sources with rejections in a minute. Others are counted together.
const SOURCES: usize = 64;

/// The outcomes of deliveries, as the page names them. All but `rejected` are labels of a metric, where
/// `duplicate` is `known`.
pub(super) const OUTCOMES: [&str; 4] = ["stored", "duplicate", "conflict", "rejected"];

/// The outcomes of attempts.
pub(super) const ATTEMPTS: [&str; 4] = ["done", "retry", "dead", "lost"];

/// Counts since the start of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    deliveries: [u64; 4],
    attempts: [u64; 4],
}

/// What happened in a minute.
#[derive(Clone, Debug)]
pub(super) struct Minute {
    /// The number of the minute since 1970.
    pub(super) number: i64,
    /// Deliveries by [`OUTCOMES`].
    pub(super) deliveries: [u64; 4],
    /// Attempts by [`ATTEMPTS`].
    pub(super) attempts: [u64; 4],
    /// The pending messages at the end of the minute; `None` if the inbox did not say.
    pub(super) backlog: Option<u64>,
    /// Rejections by code and source; `None` for an unknown source, or one of too many.
    rejections: HashMap<(&'static str, Option<IpAddr>), u64>,
}

/// The last hour.
pub(crate) struct History {
    pub(super) started_at: Timestamp,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    minutes: VecDeque<Minute>,
    totals: Totals,
}

/// Rejections of the last hour with one code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rejections {
    pub(super) code: &'static str,
    pub(super) count: u64,
    /// The sources, the one with the most first.
    pub(super) sources: Vec<(Option<IpAddr>, u64)>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            started_at: Timestamp::now(),
            state: Mutex::default(),
        }
    }

    /// Reads the counters of a receiver until the program ends.
    pub(crate) async fn run(&self, receiver: &Receiver) {
        let mut interval = time::interval(INTERVAL);
        loop {
            interval.tick().await;
            let stats = time::timeout(TIMEOUT, receiver.inbox().stats()).await;
            let stats = stats.ok().and_then(Result::ok);
            let backlog = stats.map(|stats| stats.iter().map(|stats| stats.pending()).sum());
            let totals = Totals::parse(&receiver.metrics());
            self.update(Timestamp::now(), totals, backlog);
        }
    }

    /// Counts a rejected request.
    pub(crate) fn rejected(&self, rejected: Rejected<'_>) {
        self.count_rejection(
            Timestamp::now(),
            rejected.rejection.code(),
            rejected.source.map(|source| source.to_canonical()),
        );
    }

    /// Returns the last minutes, the oldest first; those in which nothing was read are missing.
    pub(super) fn minutes(&self, now: Timestamp) -> Vec<Minute> {
        let minutes = self.lock(now);
        minutes.minutes.iter().cloned().collect()
    }

    /// Returns the rejections of the last hour, the most frequent code first.
    pub(super) fn rejections(&self, now: Timestamp) -> Vec<Rejections> {
        let mut codes: BTreeMap<&'static str, HashMap<Option<IpAddr>, u64>> = BTreeMap::new();
        for minute in &self.lock(now).minutes {
            for (&(code, source), count) in &minute.rejections {
                *codes.entry(code).or_default().entry(source).or_default() += count;
            }
        }
        let mut rejections: Vec<_> = codes
            .into_iter()
            .map(|(code, sources)| {
                let mut sources: Vec<_> = sources.into_iter().collect();
                sources.sort_by_key(|&(source, count)| (u64::MAX - count, source));
                let count = sources.iter().map(|(_, count)| count).sum();
                Rejections {
                    code,
                    count,
                    sources,
                }
            })
            .collect();
        rejections.sort_by_key(|rejections| u64::MAX - rejections.count);
        rejections
    }

    fn update(&self, now: Timestamp, totals: Totals, backlog: Option<u64>) {
        let mut state = self.lock(now);
        let before = core::mem::replace(&mut state.totals, totals);
        let Some(minute) = state.minutes.back_mut() else {
            return;
        };
        let add = |counts: &mut [u64; 4], before: &[u64; 4], after: &[u64; 4]| {
            for ((count, before), after) in counts.iter_mut().zip(before).zip(after) {
                *count += after.saturating_sub(*before);
            }
        };
        add(
            &mut minute.deliveries,
            &before.deliveries,
            &totals.deliveries,
        );
        add(&mut minute.attempts, &before.attempts, &totals.attempts);
        minute.backlog = backlog.or(minute.backlog);
    }

    fn count_rejection(&self, now: Timestamp, code: &'static str, source: Option<IpAddr>) {
        let mut state = self.lock(now);
        let Some(minute) = state.minutes.back_mut() else {
            return;
        };
        let has_room = minute.rejections.len() < SOURCES;
        let source = source
            .filter(|source| has_room || minute.rejections.contains_key(&(code, Some(*source))));
        *minute.rejections.entry((code, source)).or_default() += 1;
    }

    /// Locks the minutes: the last is the present one, and none is older than an hour.
    fn lock(&self, now: Timestamp) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let number = now.as_second().div_euclid(60);
        // If the clock was set back, the last minute goes on. If it was far ahead, its minutes are wrong.
        let is_wrong = |minute: &Minute| minute.number > number.saturating_add(STEP);
        while state.minutes.back().is_some_and(is_wrong) {
            state.minutes.pop_back();
        }
        if state.minutes.back().is_none_or(|last| last.number < number) {
            state.minutes.push_back(Minute {
                number,
                deliveries: [0; 4],
                attempts: [0; 4],
                backlog: None,
                rejections: HashMap::new(),
            });
        }
        let oldest = number - i64::try_from(MINUTES).unwrap_or(i64::MAX);
        let is_old = |minute: &Minute| minute.number <= oldest;
        while state.minutes.front().is_some_and(is_old) || state.minutes.len() > MINUTES {
            state.minutes.pop_front();
        }
        state
    }
}

impl Totals {
    /// Adds up the counters of a receiver's metrics.
    fn parse(metrics: &str) -> Self {
        let mut totals = Self::default();
        for line in metrics.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else {
                continue;
            };
            let Some((name, labels)) = name.split_once('{') else {
                continue;
            };
            // The endpoint, which may contain anything, is the first label.
            let outcome = labels
                .rsplit_once("outcome=\"")
                .map(|(_, outcome)| outcome.trim_end_matches("\"}"));
            let position = |outcomes: [&str; 4]| {
                let outcome = if outcome == Some("known") {
                    Some("duplicate")
                } else {
                    outcome
                };
                outcomes.iter().position(|other| Some(*other) == outcome)
            };
            let count = match name {
                "pleo_receiver_accepted_total" => {
                    position(OUTCOMES).and_then(|at| totals.deliveries.get_mut(at))
                }
                "pleo_receiver_rejected_total" => totals.deliveries.last_mut(),
                "pleo_receiver_handled_total" => {
                    position(ATTEMPTS).and_then(|at| totals.attempts.get_mut(at))
                }
                _ => None,
            };
            if let Some(count) = count {
                *count += value.parse().unwrap_or(0);
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60 + 7).unwrap()
    }

    #[test]
    fn adds_up_counters_of_all_endpoints() {
        let metrics = "# TYPE x counter\n\
            pleo_receiver_accepted_total{endpoint=\"/a\",outcome=\"stored\"} 3\n\
            pleo_receiver_accepted_total{endpoint=\"x\\\"outcome=\\\"known\",outcome=\"stored\"} 4\n\
            pleo_receiver_accepted_total{endpoint=\"/a\",outcome=\"known\"} 2\n\
            pleo_receiver_rejected_total{endpoint=\"\",reason=\"no_such_path\"} 5\n\
            pleo_receiver_rejected_total{endpoint=\"/a\",reason=\"not_json\"} 1\n\
            pleo_receiver_handled_total{endpoint=\"/a\",outcome=\"dead\"} 6\n\
            pleo_receiver_in_flight 9\n# EOF\n";
        let totals = Totals {
            deliveries: [7, 2, 0, 6],
            attempts: [0, 0, 6, 0],
        };
        assert_eq!(Totals::parse(metrics), totals);
    }

    #[test]
    fn keeps_one_hour_by_minute() {
        let history = History::new();
        for minute in 0..100_u64 {
            let totals = Totals {
                deliveries: [minute * minute, 0, 0, 0],
                attempts: [0; 4],
            };
            let now = at(i64::try_from(minute).unwrap());
            history.update(now, totals, Some(minute));
        }
        let minutes = history.minutes(at(99));
        assert_eq!(minutes.len(), MINUTES);
        let last = minutes.last().unwrap();
        assert_eq!((last.number, last.backlog), (99, Some(99)));
        assert_eq!(last.deliveries, [99 * 99 - 98 * 98, 0, 0, 0]);
        assert_eq!(history.minutes(at(200)).len(), 1, "an hour later");
    }

    #[test]
    fn goes_on_after_clock_was_far_ahead() {
        let history = History::new();
        let count = |minute| {
            history.count_rejection(at(minute), "not_json", None);
            let minutes = history.minutes(at(minute));
            minutes
                .iter()
                .map(|minute| minute.number)
                .collect::<Vec<_>>()
        };
        assert_eq!(count(100), [100]);
        assert_eq!(count(98), [100], "a small step");
        assert_eq!(count(100_000), [100_000]);
        assert_eq!(count(101), [101]);
        assert_eq!(count(102), [101, 102]);
    }

    #[test]
    fn counts_rejections_by_source_in_bounded_memory() {
        let history = History::new();
        for number in 0..1000_u32 {
            let source = IpAddr::from(number.to_be_bytes());
            history.count_rejection(at(1), "not_json", Some(source));
        }
        let source = IpAddr::from([0, 0, 0, 1]);
        history.count_rejection(at(2), "not_json", Some(source));
        history.count_rejection(at(2), "no_such_path", None);
        let rejections = history.rejections(at(2));
        let [first, second] = &rejections[..] else {
            panic!("{rejections:?}");
        };
        assert_eq!((first.code, first.count), ("not_json", 1001));
        assert_eq!(first.sources.len(), SOURCES + 1);
        assert_eq!(first.sources[0], (None, 1000 - 64));
        assert_eq!(first.sources[1], (Some(source), 2));
        assert_eq!((second.code, second.count), ("no_such_path", 1));
        assert_eq!(history.rejections(at(61)).len(), 2);
        assert_eq!(history.rejections(at(62)), []);
    }
}
