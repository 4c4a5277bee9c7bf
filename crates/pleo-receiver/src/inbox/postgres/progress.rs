//! The results of earlier scans, with which later ones skip the rows of messages that were leased since.
//!
//! Such rows are dead, and their entries in the indexes are removed soon. But while any transaction of
//! the database stays open, the server keeps them, and a scan that begins at the first entry reads all of
//! them before it finds a message. So a scan begins where the last one found something:
//!
//! - Leases are numbered in the order in which they begin. Those that are held are some of those that
//!   were held at the last scan, which are looked up one by one, and of those that began since.
//! - Ready messages have a [`Floor`] for each endpoint, and retries have one.
//!
//! A message may become ready below the floor of its endpoint: a retry, or one that expires earlier than
//! others before. A full scan finds it. Scans are full as long as that takes little time. Otherwise a full
//! scan runs from time to time beside the others, see [`super::full_scan`].

use core::time::Duration;
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use uuid::Uuid;

use super::error::Failure;

/// A full scan that takes the server less time is quick.
const QUICK: Duration = Duration::from_millis(10);

/// The next scan is full if one of this many full scans was quick: any may be delayed by others
/// on the server's machine.
const MEASURED: usize = 3;

/// How many times longer than a full scan the time until the next one is.
const PAUSE_FACTOR: u32 = 9;

const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The time until the next full scan after one failed, while nothing can be leased without it.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How many messages below the first ready one a floor is, since transactions that store messages end in
/// another order than they begin.
const MARGIN: i64 = 1024;

/// How far apart the times of the statements of a scan may be.
const CLOCK_MARGIN: Duration = Duration::from_secs(1);

/// How late a retry may be scheduled: statements end before.
const DUE_MARGIN: Duration = Duration::from_secs(10);

/// How long what was read counts behind a pooler, where another server may execute the next statement.
const POOLED_TIME: Duration = Duration::from_secs(10);

/// How many leases may begin until those that ended are skipped.
const MAX_UNSEEN: i64 = 1000;

/// The results of the scans over one connection.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The connection. Behind another one may be another server, or one that crashed.
    session: u64,
    /// When all leases that are held were read, or began to be.
    read_at: Option<Instant>,
    pub(super) held: Held,
    /// By endpoint, as stored.
    pub(super) floors: BTreeMap<String, Floor>,
    /// No retry is scheduled before.
    pub(super) due: Option<SystemTime>,
    /// When the next full scan beside the others may begin; `None` if it may at once.
    next_full_scan: Option<Instant>,
    /// How long the last full scans took.
    took: [Duration; MEASURED],
    /// `true` once a full scan has ended, so that others may begin at floors.
    is_known: bool,
    /// `true` if the next full scan reads all leases again.
    is_held_old: bool,
    /// Why the last full scan beside the others failed, until a caller is told.
    failure: Option<Failure>,
}

/// Leases of all processes: each lease that is held is known or greater than `seen`.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) known: Vec<Uuid>,
    pub(super) seen: Uuid,
}

/// Where the ready messages of an endpoint begin, by kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    /// Of the messages that will expire: the expiry and the sequence.
    pub(super) live: (SystemTime, i64),
    /// Of the messages without expiry, which are in the order of their sequence.
    pub(super) lasting: i64,
    /// Of the messages that have expired: the expiry and the sequence.
    pub(super) expired: (SystemTime, i64),
}

/// The first ready messages of an endpoint, by kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct First {
    pub(super) live: Option<(SystemTime, i64)>,
    /// The last sequence if there are none.
    pub(super) lasting: i64,
    pub(super) expired: Option<(SystemTime, i64)>,
    /// When the messages that arrived last expire.
    pub(super) arriving: Option<SystemTime>,
}

impl Default for Floor {
    fn default() -> Self {
        Self {
            live: (SystemTime::UNIX_EPOCH, 0),
            lasting: 0,
            expired: (SystemTime::UNIX_EPOCH, 0),
        }
    }
}

impl Progress {
    /// Forgets everything if this is another connection. Behind a pooler, also reads all leases again
    /// after some time: at once if full scans are quick, otherwise with one beside the others.
    pub(super) fn begin(&mut self, session: u64, is_pooled: bool) {
        let is_old = || {
            let age = self.read_at.map(|read_at| read_at.elapsed());
            is_pooled && age.is_none_or(|age| age > POOLED_TIME)
        };
        let read_at = Some(Instant::now());
        if self.session != session || self.is_quick() && is_old() {
            *self = Self {
                session,
                read_at,
                ..Self::default()
            };
        } else if is_old() {
            self.is_held_old = true;
            self.next_full_scan = None;
            self.read_at = read_at;
        }
    }

    /// Notes the leases that a full scan beside the others found.
    pub(super) fn found_held(&mut self, held: Held) {
        self.held = held;
        self.is_held_old = false;
        self.read_at = Some(Instant::now());
    }

    pub(super) const fn session(&self) -> u64 {
        self.session
    }

    /// Returns `true` if full scans take little time.
    pub(super) fn is_quick(&self) -> bool {
        self.took.iter().any(|took| *took < QUICK)
    }

    /// Returns `true` if scans can begin at floors.
    pub(super) const fn is_known(&self) -> bool {
        self.is_known
    }

    /// Returns `true` if the next full scan beside the others must read all leases.
    pub(super) const fn needs_held(&self) -> bool {
        !self.is_known || self.is_held_old
    }

    /// Returns the time until the next full scan beside the others; `None` if it may begin, or if all
    /// scans are full.
    pub(super) fn pause(&self) -> Option<Duration> {
        if self.is_quick() {
            return None;
        }
        self.next_full_scan?.checked_duration_since(Instant::now())
    }

    /// Returns `true` if it is time for a full scan beside the others.
    pub(super) fn is_full_scan_due(&self) -> bool {
        !self.is_quick() && self.pause().is_none()
    }

    /// Notes how long a full scan took the server.
    pub(super) fn full_scan_ended(&mut self, took: Duration) {
        self.took.rotate_right(1);
        self.took[0] = took;
        self.is_known = true;
        self.next_full_scan = Instant::now().checked_add(self.usual_pause());
    }

    /// Notes that a full scan beside the others failed.
    pub(super) fn full_scan_failed(&mut self, failure: Failure) {
        let pause = if self.is_known {
            self.usual_pause()
        } else {
            RETRY_PAUSE
        };
        self.next_full_scan = Instant::now().checked_add(pause);
        self.failure = Some(failure);
    }

    fn usual_pause(&self) -> Duration {
        (self.took[0] * PAUSE_FACTOR).min(MAX_PAUSE)
    }

    /// Returns why the last full scan beside the others failed, once.
    pub(super) const fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// Notes that a scan took too long, so that a full scan beside the others is needed at once.
    pub(super) fn gave_up(&mut self) {
        self.took = [MAX_PAUSE; MEASURED];
        self.next_full_scan = None;
    }

    /// Notes the first ready messages of an endpoint. `is_all` says that there are no more, so that other
    /// messages expire after `now`.
    pub(super) fn found(
        &mut self,
        endpoint: &str,
        messages: &[(Option<SystemTime>, i64)],
        now: SystemTime,
        is_all: bool,
    ) {
        let floor = self.floors.entry(endpoint.to_owned()).or_default();
        let first = |is_kind: &dyn Fn(Option<SystemTime>) -> bool| {
            let message = messages.iter().find(|(expires_at, _)| is_kind(*expires_at));
            message.map(|(expires_at, sequence)| (expires_at.unwrap_or(now), sequence - MARGIN))
        };
        if let Some(live) = first(&|expires_at| expires_at.is_some_and(|at| at > now)) {
            floor.live = live;
        }
        if let Some((_, sequence)) = first(&|expires_at| expires_at.is_none()) {
            floor.lasting = sequence;
        }
        if let Some(expired) = first(&|expires_at| expires_at.is_some_and(|at| at <= now)) {
            floor.expired = expired;
        } else if is_all {
            floor.expired = floor.expired.max((now - CLOCK_MARGIN, 0));
        }
    }

    /// Notes what a full scan beside the others found of an endpoint.
    pub(super) fn found_first(&mut self, endpoint: String, first: &First, now: SystemTime) {
        let below = |(expires_at, sequence)| (expires_at, sequence - MARGIN);
        let arriving = first.arriving.unwrap_or(now);
        let floor = Floor {
            live: first.live.map_or((arriving, 0), below),
            lasting: first.lasting - MARGIN,
            expired: first.expired.map_or((now - CLOCK_MARGIN, 0), below),
        };
        self.floors.insert(endpoint, floor);
    }

    /// Notes that the first retry is scheduled at this time, or that none is before.
    pub(super) fn found_due(&mut self, first: Option<SystemTime>, now: SystemTime) {
        self.due = Some(first.unwrap_or(now).min(now) - DUE_MARGIN);
    }
}

impl Held {
    /// Notes all leases that are held.
    pub(super) fn found(&mut self, leases: impl Iterator<Item = Uuid>) {
        self.known = leases.collect();
        self.seen = self.known.iter().copied().fold(self.seen, Ord::max);
    }

    /// Notes that `found` had all leases up to this number.
    pub(super) fn has_seen(&mut self, last: i64) {
        let last = u128::from(last.unsigned_abs()) << 64 | u128::from(u64::MAX);
        self.seen = self.seen.max(Uuid::from_u128(last));
    }

    /// Returns `true` if many leases that began since may have ended, or if the server has lost leases
    /// that were seen.
    pub(super) fn is_stale(&self, last: i64) -> bool {
        last - self.last_seen() > MAX_UNSEEN || self.has_lost(last)
    }

    /// Returns `true` if the server has lost leases that were seen.
    pub(super) fn has_lost(&self, last: i64) -> bool {
        last < self.last_seen()
    }

    fn last_seen(&self) -> i64 {
        i64::try_from(self.seen.as_u128() >> 64).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(took: Duration, age: Duration) -> Progress {
        let mut progress = Progress::default();
        progress.begin(1, true);
        (0..MEASURED).for_each(|_| progress.full_scan_ended(took));
        progress.held.has_seen(7);
        progress.read_at = Instant::now().checked_sub(age);
        progress
    }

    #[test]
    fn forgets_leases_of_pooler_after_some_time() {
        let quick = Duration::from_millis(1);
        for (session, is_pooled, age, is_forgotten) in [
            (1, true, Duration::ZERO, false),
            (1, true, POOLED_TIME, true),
            (1, false, POOLED_TIME, false),
            (2, false, Duration::ZERO, true),
        ] {
            let mut progress = progress(quick, age);
            progress.begin(session, is_pooled);
            let is_default = progress.held.seen == Held::default().seen;
            assert_eq!(is_default, is_forgotten, "{session} {is_pooled} {age:?}");
        }
    }

    #[test]
    fn leases_go_on_behind_pooler_while_slow_full_scan_reads_them_again() {
        let slow = Duration::from_secs(20);
        let mut progress = progress(slow, POOLED_TIME);
        assert!(!progress.is_full_scan_due());
        progress.begin(1, true);
        assert!(progress.is_full_scan_due() && progress.needs_held() && progress.is_known());
        // The scan takes longer than leases count.
        progress.read_at = Instant::now().checked_sub(POOLED_TIME);
        progress.begin(1, true);
        progress.found_held(Held::default());
        progress.full_scan_ended(slow);
        progress.begin(1, true);
        assert!(!progress.is_full_scan_due() && !progress.needs_held() && progress.is_known());
    }

    #[test]
    fn failed_full_scan_is_repeated_soon_if_nothing_can_be_leased_without() {
        let mut progress = Progress::default();
        progress.begin(1, false);
        progress.gave_up();
        assert!(progress.is_full_scan_due());
        progress.full_scan_failed(Failure::Lost);
        assert!(progress.pause().is_some_and(|pause| pause <= RETRY_PAUSE));
        progress.full_scan_ended(MAX_PAUSE);
        progress.full_scan_failed(Failure::Lost);
        assert!(progress.pause().is_some_and(|pause| pause > RETRY_PAUSE));
    }
}
