//! Compares statistics with the model.

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::message::{
    Message,
    Phase::{self, Leased, MaybeLost, MaybeReady, Ready, Scheduled},
    ROUNDING,
};
use super::operation::ENDPOINTS;
use super::state::Model;
use crate::inbox::{EndpointStats, State};

impl Model {
    pub(super) fn check_stats(
        &self,
        stats: &[EndpointStats],
        time_of_day: Timestamp,
    ) -> Result<(), TestCaseError> {
        let mut endpoints = self.paused.clone();
        for name in ENDPOINTS {
            if self
                .messages
                .iter()
                .any(|message| *message.new.endpoint == *name)
            {
                endpoints.insert(name);
            }
        }
        let names = stats.iter().map(|stats| &*stats.endpoint);
        prop_assert_eq!(Vec::from_iter(names), Vec::from_iter(endpoints));
        for stats in stats {
            self.check_endpoint_stats(stats, time_of_day)?;
        }
        Ok(())
    }

    fn check_endpoint_stats(
        &self,
        stats: &EndpointStats,
        time_of_day: Timestamp,
    ) -> Result<(), TestCaseError> {
        let messages = self.messages.iter();
        let all = messages.filter(|message| message.new.endpoint == stats.endpoint);
        let all = Vec::from_iter(all);
        let in_state = |state| {
            let count = all.iter().filter(|message| message.state == state).count();
            u64::try_from(count).unwrap()
        };
        prop_assert_eq!(stats.paused, self.paused.contains(&*stats.endpoint));
        prop_assert_eq!(stats.pending(), in_state(State::Pending), "{:?}", stats);
        prop_assert_eq!(stats.done, in_state(State::Done), "{:?}", stats);
        prop_assert_eq!(stats.dead, in_state(State::Dead), "{:?}", stats);
        let pending = Vec::from_iter(all.iter().filter(|message| message.is_pending()));
        let in_phases = |phases: &[Phase]| {
            // A store may notice only in a lease that its clock was set back.
            let phase = |message: &Message| match message.phase(self.now) {
                Ready if !message.is_due_at_known => MaybeReady,
                phase => phase,
            };
            let count = pending
                .iter()
                .filter(|message| phases.contains(&phase(message)))
                .count();
            u64::try_from(count).unwrap()
        };
        for (name, count, certain, possible) in [
            (
                "ready",
                stats.ready,
                &[Ready][..],
                &[Ready, MaybeReady, MaybeLost][..],
            ),
            ("leased", stats.leased, &[Leased], &[Leased, MaybeLost]),
            (
                "scheduled",
                stats.scheduled,
                &[Scheduled],
                &[Scheduled, MaybeReady, MaybeLost],
            ),
        ] {
            let expected = in_phases(certain)..=in_phases(possible);
            prop_assert!(
                expected.contains(&count),
                "{name} of {stats:?}, expected {expected:?}"
            );
        }
        let oldest = pending.iter().min_by_key(|message| message.sequence);
        let oldest = oldest.map(|message| {
            let age = time_of_day.duration_since(message.received_at);
            age.max(SignedDuration::ZERO).unsigned_abs()
        });
        let is_near = match (oldest, stats.oldest_pending) {
            (Some(expected), Some(age)) => age.abs_diff(expected) <= self.slack + ROUNDING,
            (expected, age) => expected == age,
        };
        prop_assert!(is_near, "{stats:?}, expected {oldest:?}");
        // An expiry that is now may be over or not.
        let expiries = Vec::from_iter(pending.iter().filter_map(|message| message.expires_at));
        let by = time_of_day + self.slack;
        let expired = |by| expiries.iter().filter(|at| **at <= by).count();
        let range = expired(time_of_day)..=expired(by);
        prop_assert!(
            range.contains(&usize::try_from(stats.expired).unwrap()),
            "{stats:?}"
        );
        let nearest = |by| expiries.iter().filter(|at| **at > by).min().copied();
        let expected = [nearest(time_of_day), nearest(by)];
        prop_assert!(
            expected.contains(&stats.nearest_expiry),
            "{stats:?} {expected:?}"
        );
        Ok(())
    }
}
