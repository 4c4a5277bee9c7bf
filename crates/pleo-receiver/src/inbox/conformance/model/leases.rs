//! Checks the messages that a store leases: their order, and that they are as many as possible.

use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;

use super::message::{Lease, Message, Phase, window};
use super::operation::ENDPOINTS;
use super::state::Model;
use crate::inbox::{LeaseRequest, Leased, LeasedMessage, State};

/// The dispatch order of the messages of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Expires(Timestamp, i64),
    Never(i64),
    Expired(Timestamp, i64),
}

/// Tracks the turns of endpoints.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// How many messages of other endpoints were leased while this endpoint had a ready one.
    waits: BTreeMap<&'static str, usize>,
    /// Whether the last message was not the most urgent.
    was_by_turn: bool,
}

impl Model {
    /// Checks the result of a lease, and follows it.
    pub(super) fn lease(
        &mut self,
        request: &LeaseRequest,
        leased: &Leased,
        time_of_day: Timestamp,
    ) -> Result<(), TestCaseError> {
        let limit = request.max.min(request.total).min(request.per_endpoint);
        if limit > 0 {
            self.notice_lost_leases();
        }
        for endpoint in ENDPOINTS {
            if !self.is_waiting(request, endpoint) {
                self.turns.waits.remove(endpoint);
            }
        }
        prop_assert!(leased.messages.len() <= request.max);
        for message in &leased.messages {
            self.check_order(request, message, time_of_day)?;
            self.start_lease(request, message, time_of_day)?;
        }
        if leased.messages.len() < request.max && limit > 0 {
            let ready = ENDPOINTS.map(|endpoint| self.is_waiting(request, endpoint));
            prop_assert_eq!(ready, [false; 3], "a ready message was not leased");
        }
        self.check_next_due_in(leased.next_due_in)
    }

    /// Ends the leases that the store must have noticed to be lost.
    fn notice_lost_leases(&mut self) {
        let (now, slack) = (self.now, self.slack);
        for message in &mut self.messages {
            if message
                .lease
                .as_ref()
                .is_some_and(|lease| now >= lease.ends.to)
            {
                message.lose_lease(now, slack);
            }
        }
    }

    /// Returns `true` if a message of the endpoint certainly can be leased.
    fn is_waiting(&self, request: &LeaseRequest, endpoint: &str) -> bool {
        let is_leased = |message: &&Message| message.lease.is_some();
        let total = self.messages.iter().filter(is_leased).count();
        let leases = self.of(endpoint).filter(is_leased).count();
        total < request.total
            && leases < request.per_endpoint
            && !self.paused.contains(endpoint)
            && self.ready(endpoint).next().is_some()
    }

    /// Returns the messages of the endpoint that are certainly ready.
    fn ready(&self, endpoint: &str) -> impl Iterator<Item = &Message> {
        let ready = self.of(endpoint).filter(|message| message.is_pending());
        ready.filter(|message| message.phase(self.now) == Phase::Ready)
    }

    fn of(&self, endpoint: &str) -> impl Iterator<Item = &Message> {
        let messages = self.messages.iter();
        messages.filter(move |message| *message.new.endpoint == *endpoint)
    }

    fn rank(&self, message: &Message, time_of_day: Timestamp) -> Rank {
        match message.expires_at {
            Some(at) if at > time_of_day => Rank::Expires(at, message.sequence),
            None => Rank::Never(message.sequence),
            Some(at) => Rank::Expired(at, message.sequence),
        }
    }

    /// Returns `true` if `first` certainly goes before `second`.
    fn is_before(&self, first: &Message, second: &Message, time_of_day: Timestamp) -> bool {
        let expires_now = |message: &Message| {
            let left = message.expires_at.map(|at| at.duration_since(time_of_day));
            left.is_some_and(|left| left.unsigned_abs() <= self.slack && !self.slack.is_zero())
        };
        !expires_now(first)
            && !expires_now(second)
            && self.rank(first, time_of_day) < self.rank(second, time_of_day)
    }

    /// Checks that a leased message is the first of its endpoint, and that endpoints take turns.
    fn check_order(
        &mut self,
        request: &LeaseRequest,
        leased: &LeasedMessage,
        time_of_day: Timestamp,
    ) -> Result<(), TestCaseError> {
        let entry = &leased.message.entry;
        let found = self
            .messages
            .iter()
            .position(|message| message.new.key() == entry.key());
        prop_assert!(
            found.is_some(),
            "leased a message that is not stored: {:?}",
            entry
        );
        let message = &self.messages[found.unwrap()];
        prop_assert!(
            !self.paused.contains(&*entry.endpoint),
            "endpoint is paused"
        );
        prop_assert_eq!(message.state, State::Pending, "leased {:?}", entry);
        let phase = message.phase(self.now);
        prop_assert!(
            matches!(phase, Phase::Ready | Phase::MaybeReady | Phase::MaybeLost),
            "leased {:?} while {:?}",
            entry,
            phase
        );
        let is_leased = |message: &&Message| message.phase(self.now) == Phase::Leased;
        let leases = self.of(&entry.endpoint).filter(is_leased).count();
        prop_assert!(
            leases < request.per_endpoint,
            "more leases than per endpoint"
        );
        let leases = self.messages.iter().filter(is_leased).count();
        prop_assert!(leases < request.total, "more leases than in total");
        let is_before = |other: &Message| self.is_before(other, message, time_of_day);
        if let Some(first) = self.ready(&entry.endpoint).find(|other| is_before(other)) {
            let first = &first.new.webhook_id;
            return Err(TestCaseError::fail(format!(
                "leased before `{first}`: {entry:?}"
            )));
        }
        let waiting = ENDPOINTS
            .into_iter()
            .filter(|endpoint| self.is_waiting(request, endpoint));
        let waiting = Vec::from_iter(waiting);
        let is_by_turn = (waiting.iter()).any(|endpoint| self.ready(endpoint).any(is_before));
        let was_by_turn = core::mem::replace(&mut self.turns.was_by_turn, is_by_turn);
        prop_assert!(
            !(is_by_turn && was_by_turn),
            "two leases in a row that were not the most urgent: {:?}",
            entry
        );
        for endpoint in waiting {
            let waits = self.turns.waits.entry(endpoint).or_default();
            *waits = if *endpoint == *entry.endpoint {
                0
            } else {
                *waits + 1
            };
            let waits = *waits;
            prop_assert!(
                waits < 2 * ENDPOINTS.len(),
                "`{endpoint}` waits for {waits} leases"
            );
        }
        Ok(())
    }

    fn start_lease(
        &mut self,
        request: &LeaseRequest,
        leased: &LeasedMessage,
        time_of_day: Timestamp,
    ) -> Result<(), TestCaseError> {
        let (now, slack) = (self.now, self.slack);
        let key = leased.message.entry.key();
        let mut messages = self.messages.iter_mut();
        let message = messages.find(|message| message.new.key() == key).unwrap();
        if message.lease.is_some() {
            message.lose_lease(now, slack);
            let phase = message.phase(now);
            prop_assert!(phase != Phase::Scheduled, "leased again without a delay");
        }
        message.attempts += 1;
        prop_assert_eq!(leased.attempt.get(), message.attempts);
        prop_assert!(!self.leases.contains(&leased.lease), "lease id used again");
        self.leases.push(leased.lease);
        message.lease = Some(Lease {
            id: leased.lease,
            attempt: message.attempts,
            worker: Arc::clone(&request.worker),
            started_at: time_of_day,
            started: now,
            ttl: request.ttl,
            ends: window(now, request.ttl, slack),
            is_lost: false,
            is_clock_set: false,
        });
        let stored = &leased.message;
        prop_assert_eq!(&stored.body, &message.new.body);
        prop_assert_eq!(&stored.headers, &message.new.headers);
        prop_assert_eq!(&stored.attempts, &[]);
        message.check(&stored.entry, now, time_of_day, slack)
    }

    fn check_next_due_in(&self, next_due_in: Option<Duration>) -> Result<(), TestCaseError> {
        let pending = self.messages.iter().filter(|message| message.is_pending());
        let windows = pending.map(|message| {
            let ends = message.lease.as_ref().map(|lease| lease.ends);
            (message, ends.unwrap_or(message.due))
        });
        // The messages that may be due later, and those that certainly are. A lost lease may not be noticed yet.
        let later =
            windows.filter(|(message, window)| self.now < window.to || message.lease.is_some());
        let later = Vec::from_iter(later);
        let certain = later.iter().filter(|(message, window)| {
            self.now < window.from && !self.paused.contains(&*message.new.endpoint)
        });
        let earliest = later
            .iter()
            .map(|(_, window)| window.from.saturating_sub(self.now))
            .min();
        let latest = certain.map(|(_, window)| window.to - self.now).min();
        let is_early = next_due_in.is_some_and(|due| earliest.is_none_or(|from| due < from));
        let is_late = latest.is_some_and(|latest| next_due_in.is_none_or(|due| due > latest));
        prop_assert!(
            !is_early && !is_late,
            "next due in {:?}, expected {:?} to {:?}",
            next_due_in,
            earliest,
            latest
        );
        Ok(())
    }
}
