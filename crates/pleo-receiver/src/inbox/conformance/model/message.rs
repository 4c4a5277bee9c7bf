//! The model of a message.

use core::time::Duration;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use crate::inbox::{
    Attempt, AttemptResult, Entry, LeaseId, MAX_ATTEMPTS_KEPT, NewMessage, State, StoredMessage,
};

/// Times that a store rounds differ by less.
pub(super) const ROUNDING: Duration = Duration::from_millis(2);

/// A time that is known between bounds: since the start of the test, without slack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Before this time, the store's time certainly is before it.
    pub(super) from: Duration,
    /// From this time on, the store's time certainly is not.
    pub(super) to: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) new: NewMessage,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) event_type: Option<&'static str>,
    /// Chosen by the store.
    pub(super) sequence: i64,
    /// Chosen by the store.
    pub(super) received_at: Timestamp,
    pub(super) state: State,
    pub(super) attempts: u32,
    pub(super) last_error: Option<String>,
    pub(super) history: Vec<Past>,
    /// When the message is ready if it is not leased.
    pub(super) due: Window,
    /// The delay until then.
    pub(super) delay: Duration,
    /// Whether the time of day at which the message is ready is known, too.
    pub(super) is_due_at_known: bool,
    /// The lease, until it is known that the store ended it.
    pub(super) lease: Option<Lease>,
}

#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    pub(super) attempt: u32,
    pub(super) worker: Arc<str>,
    /// The time of day.
    pub(super) started_at: Timestamp,
    pub(super) started: Duration,
    pub(super) ttl: Duration,
    pub(super) ends: Window,
    /// Whether the store said that the lease is lost.
    pub(super) is_lost: bool,
    /// Whether the clock was set since it may have ended, so that its delay may be over.
    pub(super) is_clock_set: bool,
}

/// An attempt that ended.
#[derive(Clone, Debug)]
pub(super) struct Past {
    number: u32,
    worker: Arc<str>,
    started_at: Timestamp,
    result: AttemptResult,
    error: Option<String>,
    duration: Duration,
}

/// Whether a message is leased, ready or scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Leased,
    /// The lease ended or may have ended, and the store may not have noticed.
    MaybeLost,
    Ready,
    MaybeReady,
    Scheduled,
}

impl Message {
    /// Returns the phase of a pending message.
    pub(super) fn phase(&self, now: Duration) -> Phase {
        match &self.lease {
            Some(lease) if now < lease.ends.from && !lease.is_lost => Phase::Leased,
            Some(_) => Phase::MaybeLost,
            None if now >= self.due.to => Phase::Ready,
            None if now >= self.due.from => Phase::MaybeReady,
            None => Phase::Scheduled,
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.state == State::Pending
    }

    /// Makes the message ready after the delay.
    pub(super) fn schedule(&mut self, now: Duration, delay: Duration, slack: Duration) {
        self.delay = delay;
        self.is_due_at_known = true;
        self.due = if delay.is_zero() {
            Window { from: now, to: now }
        } else {
            window(now, delay, slack)
        };
    }

    /// Ends the lease and records its attempt.
    pub(super) fn end_lease(&mut self, now: Duration, result: AttemptResult, error: Option<&str>) {
        let lease = self.lease.take().unwrap();
        self.history.push(Past {
            number: lease.attempt,
            worker: lease.worker,
            started_at: lease.started_at,
            result,
            error: error.map(Into::into),
            duration: now - lease.started,
        });
        if let Some(error) = error {
            self.last_error = Some(error.into());
        }
    }

    /// Ends a lease that was lost. The delay starts when the lease ended, or when the store noticed
    /// that.
    pub(super) fn lose_lease(&mut self, now: Duration, slack: Duration) {
        let lease = self.lease.as_ref().unwrap();
        let (ended, is_clock_set) = (lease.ends.from.min(now), lease.is_clock_set);
        self.end_lease(now, AttemptResult::Lost, None);
        let (shortest, longest) = delays_after_loss(self.attempts);
        self.is_due_at_known = false;
        self.delay = longest;
        self.due = Window {
            from: if is_clock_set {
                ended
            } else {
                ended + shortest
            },
            to: if longest.is_zero() {
                now
            } else {
                window(now, longest, slack).to
            },
        };
    }

    /// Compares the message with what the store lists.
    pub(super) fn check(
        &self,
        entry: &Entry,
        now: Duration,
        time_of_day: Timestamp,
        slack: Duration,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(&entry.key(), &self.new.key());
        prop_assert_eq!(entry.sequence, self.sequence);
        prop_assert_eq!(entry.received_at, self.received_at);
        prop_assert_eq!(entry.expires_at, self.expires_at);
        prop_assert_eq!(entry.event_type.as_deref(), self.event_type);
        prop_assert_eq!(entry.origin, self.new.origin);
        prop_assert_eq!(entry.source, self.new.source);
        prop_assert_eq!(entry.state, self.state, "state of {:?}", entry);
        prop_assert_eq!(entry.attempts, self.attempts, "attempts of {:?}", entry);
        prop_assert_eq!(&entry.last_error, &self.last_error);
        prop_assert_eq!(
            usize::try_from(entry.body_len).unwrap(),
            self.new.body.len()
        );
        if !self.is_pending() {
            prop_assert!(!entry.leased && entry.due_at.is_none(), "{:?}", entry);
            return Ok(());
        }
        match self.phase(now) {
            Phase::Leased => {
                prop_assert!(entry.leased && entry.due_at.is_none(), "{:?}", entry);
            }
            Phase::Scheduled => {
                prop_assert!(!entry.leased, "{:?}", entry);
                prop_assert!(
                    entry.due_at.is_some(),
                    "scheduled without a time: {:?}",
                    entry
                );
                let due_at = entry.due_at.unwrap();
                let earliest = time_of_day + (self.due.from - now);
                let latest = time_of_day + (self.due.to - now) + slack;
                prop_assert!(
                    !self.is_due_at_known || (earliest..=latest).contains(&due_at),
                    "{due_at} is not within {earliest} to {latest}: {:?}",
                    entry
                );
            }
            Phase::Ready | Phase::MaybeReady => prop_assert!(!entry.leased, "{:?}", entry),
            Phase::MaybeLost => {}
        }
        Ok(())
    }

    /// Compares the message with what the store returns for its key.
    pub(super) fn check_stored(
        &self,
        stored: &StoredMessage,
        slack: Duration,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(&stored.body, &self.new.body);
        prop_assert_eq!(&stored.headers, &self.new.headers);
        let attempts = &stored.attempts[..];
        let mut expected = self.history.clone();
        // The loss may be recorded already.
        if let (Some(lease), Some(last)) = (&self.lease, attempts.last())
            && last.result == AttemptResult::Lost
            && attempts.len() > expected.len()
        {
            prop_assert_eq!(last.number.get(), lease.attempt);
            let mut lost = self.clone();
            lost.lose_lease(lease.started, slack);
            expected = lost.history;
        }
        let skipped = expected.len().saturating_sub(MAX_ATTEMPTS_KEPT);
        prop_assert_eq!(
            attempts.len(),
            expected.len() - skipped,
            "{:?}\n{:?}",
            attempts,
            expected
        );
        for (attempt, past) in attempts.iter().zip(&expected[skipped..]) {
            past.check(attempt, slack)?;
        }
        Ok(())
    }
}

impl Past {
    fn check(&self, attempt: &Attempt, slack: Duration) -> Result<(), TestCaseError> {
        let Attempt { duration, .. } = attempt;
        prop_assert_eq!(attempt.number.get(), self.number, "number of {:?}", attempt);
        prop_assert_eq!(&attempt.worker, &self.worker);
        prop_assert_eq!(attempt.result, self.result);
        prop_assert_eq!(&attempt.error, &self.error);
        let late = attempt
            .started_at
            .duration_since(self.started_at)
            .unsigned_abs();
        prop_assert!(
            late <= slack + ROUNDING,
            "start of {:?}, expected {:?}",
            attempt,
            self
        );
        if self.result != AttemptResult::Lost {
            prop_assert!(duration.is_some(), "{:?}", attempt);
            let excess = duration.unwrap().abs_diff(self.duration);
            prop_assert!(
                excess <= slack + ROUNDING,
                "{:?}, expected {:?}",
                attempt,
                self
            );
        }
        Ok(())
    }
}

/// Returns when a delay from now ends.
pub(super) fn window(now: Duration, delay: Duration, slack: Duration) -> Window {
    let end = now + delay;
    Window {
        from: end.saturating_sub(slack),
        to: end + slack + ROUNDING,
    }
}

/// Returns the shortest and the longest delay after a lease was lost in this attempt.
fn delays_after_loss(attempt: u32) -> (Duration, Duration) {
    let Some(doublings) = attempt.checked_sub(3) else {
        return (Duration::ZERO, Duration::ZERO);
    };
    let shortest = (5 << doublings.min(10)).min(3600);
    (
        Duration::from_secs(shortest),
        Duration::from_secs(shortest * 2),
    )
}
