//! The model of a store.

use core::time::Duration;
use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::leases::Turns;
use super::message::{Message, Phase, ROUNDING, Window, window};
use super::operation::{Body, Selected};
use crate::inbox::{
    Appended, AttemptResult, Completed, Entry, LeaseId, NewMessage, Outcome, Page, State,
};

#[derive(Debug)]
pub(super) struct Model {
    /// The time that passed since the start, without slack.
    pub(super) now: Duration,
    pub(super) slack: Duration,
    /// In the order of arrival.
    pub(super) messages: Vec<Message>,
    pub(super) paused: BTreeSet<&'static str>,
    /// All leases that the store returned.
    pub(super) leases: Vec<LeaseId>,
    pub(super) turns: Turns,
    last_sequence: i64,
}

impl Model {
    pub(super) fn new(slack: Duration) -> Self {
        Self {
            now: Duration::ZERO,
            slack,
            messages: Vec::new(),
            paused: BTreeSet::new(),
            leases: Vec::new(),
            turns: Turns::default(),
            last_sequence: i64::MIN,
        }
    }

    /// Follows an append whose result is right. The next [`check_entries`](Self::check_entries) adopts
    /// what the store chose.
    pub(super) fn append(
        &mut self,
        new: NewMessage,
        body: Body,
        expires_at: Option<Timestamp>,
        appended: Appended,
    ) -> Result<(), TestCaseError> {
        let stored = self
            .messages
            .iter()
            .find(|message| message.new.key() == new.key());
        let expected = match stored {
            None => Appended::Stored,
            Some(stored) if stored.new.body == new.body => Appended::Duplicate,
            Some(_) => Appended::Conflict,
        };
        prop_assert_eq!(appended, expected);
        if stored.is_none() {
            self.messages.push(Message {
                new,
                expires_at,
                event_type: matches!(body, Body::Job(_)).then_some("type"),
                sequence: i64::MIN,
                received_at: Timestamp::MIN,
                state: State::Pending,
                attempts: 0,
                last_error: None,
                history: Vec::new(),
                due: Window {
                    from: self.now,
                    to: self.now,
                },
                delay: Duration::ZERO,
                is_due_at_known: true,
                lease: None,
            });
        }
        Ok(())
    }

    /// Follows a renewal. A lease that ended may be lost or not.
    pub(super) fn renew(
        &mut self,
        leases: &[LeaseId],
        ttl: Duration,
        lost: &[LeaseId],
    ) -> Result<(), TestCaseError> {
        prop_assert!(lost.iter().all(|id| leases.contains(id)));
        for id in leases {
            let is_lost = lost.contains(id);
            let (now, slack) = (self.now, self.slack);
            let Some(message) = self.leased(*id) else {
                prop_assert!(is_lost, "renewed a lost lease");
                continue;
            };
            let phase = message.phase(now);
            prop_assert!(
                !is_lost || phase == Phase::MaybeLost,
                "lost a lease too early"
            );
            let lease = message.lease.as_mut().unwrap();
            prop_assert!(
                is_lost || !lease.is_lost,
                "renewed a lease that was reported lost"
            );
            if is_lost {
                lease.is_lost = true;
            } else {
                lease.ttl = ttl;
                lease.ends = window(now, ttl, slack);
            }
        }
        Ok(())
    }

    /// Follows a completion. A lease that ended may be lost or not.
    pub(super) fn complete(
        &mut self,
        id: LeaseId,
        outcome: &Outcome,
        completed: Completed,
    ) -> Result<(), TestCaseError> {
        let (now, slack) = (self.now, self.slack);
        let is_lost = completed == Completed::Lost;
        let Some(message) = self.leased(id) else {
            prop_assert!(is_lost, "completed a lost lease");
            return Ok(());
        };
        let phase = message.phase(now);
        prop_assert!(
            !is_lost || phase == Phase::MaybeLost,
            "lost a lease too early"
        );
        let lease = message.lease.as_mut().unwrap();
        prop_assert!(
            is_lost || !lease.is_lost,
            "completed a lease that was reported lost"
        );
        if is_lost {
            lease.is_lost = true;
            return Ok(());
        }
        let (state, result, error) = match outcome {
            Outcome::Done => (State::Done, AttemptResult::Done, None),
            Outcome::Retry { error, .. } => (State::Pending, AttemptResult::Retry, Some(&**error)),
            Outcome::Dead { error } => (State::Dead, AttemptResult::Dead, Some(&**error)),
            Outcome::Release => (State::Pending, AttemptResult::Released, None),
        };
        message.state = state;
        message.end_lease(now, result, error);
        let delay = match outcome {
            Outcome::Retry { after, .. } => *after,
            _ => Duration::ZERO,
        };
        message.schedule(now, delay, slack);
        if result == AttemptResult::Released {
            message.attempts -= 1;
        }
        Ok(())
    }

    /// Follows a replay. Messages whose leases ended may be replayed or not; `entries` are those of
    /// the store afterwards.
    pub(super) fn replay(
        &mut self,
        selected: &Selected,
        time_of_day: Timestamp,
        replayed: u64,
        entries: &[Entry],
    ) -> Result<(), TestCaseError> {
        let (now, slack) = (self.now, self.slack);
        let mut expected = 0;
        let limit = selected.limit.unwrap_or(u64::MAX);
        for message in &mut self.messages {
            if !selected.matches(message, time_of_day) || expected == limit {
                continue;
            }
            let entry = entries
                .iter()
                .find(|entry| entry.key() == message.new.key());
            match message.lease {
                Some(_) if message.phase(now) == Phase::Leased => continue,
                Some(_) if entry.is_some_and(|entry| entry.attempts > 0) => continue,
                Some(_) => message.lose_lease(now, slack),
                None => {}
            }
            message.state = State::Pending;
            message.attempts = 0;
            message.schedule(now, Duration::ZERO, slack);
            expected += 1;
        }
        prop_assert_eq!(replayed, expected);
        Ok(())
    }

    pub(super) fn prune(
        &mut self,
        selected: &Selected,
        time_of_day: Timestamp,
        pruned: u64,
    ) -> Result<(), TestCaseError> {
        let mut expected = 0;
        let limit = selected.limit.unwrap_or(u64::MAX);
        self.messages.retain(|message| {
            let is_pruned =
                !message.is_pending() && expected < limit && selected.matches(message, time_of_day);
            expected += u64::from(is_pruned);
            !is_pruned
        });
        prop_assert_eq!(pruned, expected);
        Ok(())
    }

    /// Follows a clock that was set: delays may be over or start again.
    pub(super) fn step_clock(&mut self) {
        let (now, slack) = (self.now, self.slack);
        for message in &mut self.messages {
            message.is_due_at_known = false;
            if let Some(lease) = &mut message.lease {
                lease.is_clock_set |= now >= lease.ends.from;
            }
            if now < message.due.to {
                message.due.from = message.due.from.min(now);
                message.due.to = message.due.to.max(window(now, message.delay, slack).to);
            }
        }
    }

    /// Follows a store that was closed and opened: leases may have ended or start again, and delays
    /// may start again.
    pub(super) fn reopen(&mut self) {
        let (now, slack) = (self.now, self.slack);
        self.turns = Turns::default();
        for message in &mut self.messages {
            if let Some(lease) = &mut message.lease {
                lease.ends.from = lease.ends.from.min(now);
                lease.ends.to = lease.ends.to.max(window(now, lease.ttl, slack).to);
            } else if now < message.due.to || !message.is_due_at_known {
                message.is_due_at_known = false;
                message.due.to = message.due.to.max(window(now, message.delay, slack).to);
            }
        }
    }

    /// Compares all messages with those that the store lists, and adopts what the store chose.
    pub(super) fn check_entries(
        &mut self,
        entries: &[Entry],
        time_of_day: Timestamp,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(entries.len(), self.messages.len(), "{:?}", entries);
        for (message, entry) in self.messages.iter_mut().zip(entries) {
            if message.sequence == i64::MIN {
                prop_assert!(entry.sequence > self.last_sequence, "sequence used again");
                self.last_sequence = entry.sequence;
                message.sequence = entry.sequence;
                let age = time_of_day.duration_since(entry.received_at).unsigned_abs();
                prop_assert!(age <= self.slack + ROUNDING, "arrival of {:?}", entry);
                message.received_at = entry.received_at;
            }
            message.check(entry, self.now, time_of_day, self.slack)?;
        }
        Ok(())
    }

    /// Compares a page with the one after a position, with a limit, in an order.
    pub(super) fn check_page(
        &self,
        selected: &Selected,
        time_of_day: Timestamp,
        (limit, after, newest_first): (u32, Option<i64>, bool),
        page: &Page,
    ) -> Result<(), TestCaseError> {
        let is_after = |message: &&Message| {
            after.is_none_or(|after| match newest_first {
                false => message.sequence > after,
                true => message.sequence < after,
            })
        };
        let messages = self.messages.iter().filter(is_after);
        let messages = messages.filter(|message| selected.matches(message, time_of_day));
        let mut expected = Vec::from_iter(messages.map(|message| message.sequence));
        if newest_first {
            expected.reverse();
        }
        let limit = usize::try_from(limit).unwrap();
        let has_more = expected.len() > limit && limit > 0;
        expected.truncate(limit);
        let listed = page.entries.iter().map(|entry| entry.sequence);
        prop_assert_eq!(Vec::from_iter(listed), expected);
        let next = page.entries.last().filter(|_| has_more).map(Entry::cursor);
        prop_assert_eq!(page.next, next);
        Ok(())
    }

    fn leased(&mut self, id: LeaseId) -> Option<&mut Message> {
        let has_lease = |message: &Message| message.lease.as_ref().is_some_and(|l| l.id == id);
        self.messages.iter_mut().find(|message| has_lease(message))
    }
}

impl Selected {
    pub(super) fn matches(&self, message: &Message, time_of_day: Timestamp) -> bool {
        let before = |seconds| time_of_day - Duration::from_secs(seconds);
        self.id
            .is_none_or(|id| *message.new.webhook_id == *id.to_string())
            && self
                .endpoint
                .is_none_or(|endpoint| *message.new.endpoint == *endpoint)
            && self
                .event_type
                .is_none_or(|event_type| message.event_type == Some(event_type))
            && self.state.is_none_or(|state| message.state == state)
            && self
                .since
                .is_none_or(|seconds| message.received_at >= before(seconds))
            && self
                .until
                .is_none_or(|seconds| message.received_at < before(seconds))
    }
}
