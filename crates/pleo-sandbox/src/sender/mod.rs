//! The webhook sender: delivers, retries, disables failing endpoints.

mod client;
mod request;
mod schedule;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use self::client::{Clients, Outcome};
use self::request::SignedRequest;
use self::schedule::Cause;
use crate::error::Error;
use crate::event_stream::SandboxEvent;
use crate::shared::{Shared, sleep_until};
use crate::state::State;
use crate::state::message::{Attempt, Message, MessageState};

/// Delivers messages.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    shared: Arc<Shared>,
    clients: Arc<Clients>,
}

/// Whether an attempt belongs to the schedule or was requested.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trigger {
    Schedule,
    Request,
}

impl Sender {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self, Error> {
        let clients = Arc::new(Clients::new(&shared.options)?);
        Ok(Self { shared, clients })
    }

    /// Delivers messages, with retries. Those of one subscription are sent one after the other in this
    /// order, each `copies` times.
    pub(crate) fn deliver(&self, messages: Vec<Message>, copies: u16) {
        let mut by_subscription = BTreeMap::<_, Vec<_>>::new();
        for message in messages {
            let ids = by_subscription.entry(message.subscription).or_default();
            ids.push(message.id);
        }
        for ids in by_subscription.into_values() {
            let sender = self.clone();
            self.shared.spawn(async move {
                for id in ids {
                    sender.attempt(&id, Trigger::Schedule).await;
                    for _ in 1..copies {
                        sender.attempt(&id, Trigger::Request).await;
                    }
                    sender.retry(id);
                }
            });
        }
    }

    /// Delivers a message once more, without retries.
    pub(crate) fn resend(&self, id: String) {
        let sender = self.clone();
        let task = async move { sender.attempt(&id, Trigger::Request).await };
        self.shared.spawn(task);
    }

    /// Goes on with the messages that are pending in the state.
    pub(crate) fn resume(&self) {
        let state = self.shared.state();
        let pending = state.messages.values();
        let pending = pending.filter(|message| message.state == MessageState::Pending);
        let ids: Vec<_> = pending.map(|message| message.id.clone()).collect();
        drop(state);
        for id in ids {
            self.retry(id);
        }
    }

    /// Attempts a message at its scheduled times, while it is pending.
    fn retry(&self, id: String) {
        let sender = self.clone();
        self.shared.spawn(async move {
            loop {
                let next = {
                    let state = sender.shared.state();
                    state.message(&id).ok().and_then(|one| one.next_attempt_at)
                };
                let Some(next) = next else { return };
                sleep_until(next).await;
                sender.attempt(&id, Trigger::Schedule).await;
            }
        });
    }

    /// Makes one attempt and records it.
    async fn attempt(&self, id: &str, trigger: Trigger) {
        let now = Timestamp::now();
        let prepared = self.shared.change(|state| {
            let message = state.messages.get(id)?;
            if trigger == Trigger::Schedule && message.state != MessageState::Pending {
                return None;
            }
            let subscription = state.subscriptions.get(&message.subscription)?;
            if !subscription.is_active() {
                return None;
            }
            let prefix = self.shared.options.header_prefix;
            let request = SignedRequest::new(message, subscription, prefix, now);
            Some((request, message.subscription, state.next()))
        });
        let Some((request, subscription, sequence)) = prepared else {
            return;
        };
        let outcome = self.clients.post(&request).await;
        let attempt = Attempt {
            message: id.to_owned(),
            subscription,
            sequence,
            at: now,
            duration: Timestamp::now()
                .duration_since(now)
                .try_into()
                .unwrap_or_default(),
            status: outcome.status(),
            error: outcome.error(),
            signatures: request.signatures,
        };
        let events = self
            .shared
            .change(|state| self.record(state, attempt, &outcome, trigger));
        for event in events {
            self.shared.emit(event);
        }
    }

    /// Records an attempt, and schedules the next one. Returns what happened.
    fn record(
        &self,
        state: &mut State,
        attempt: Attempt,
        outcome: &Outcome,
        trigger: Trigger,
    ) -> Vec<SandboxEvent> {
        let mut events = vec![SandboxEvent::Attempt(attempt.clone())];
        let now = Timestamp::now();
        let (id, subscription) = (attempt.message.clone(), attempt.subscription);
        let success = attempt.is_success();
        let must_disable = self.must_disable(state, &attempt, outcome, now);
        let Some(message) = state.messages.get_mut(&id) else {
            return events;
        };
        if success {
            message.state = MessageState::Delivered;
            message.next_attempt_at = None;
        } else if trigger == Trigger::Schedule && message.state == MessageState::Pending {
            message.failures += 1;
            let compression = self.shared.options.compression;
            let delay = schedule::delay(message.failures, outcome.cause(), compression);
            let delay = delay.filter(|_| !outcome.aborts());
            message.next_attempt_at = delay.and_then(|delay| now.checked_add(delay).ok());
            match message.next_attempt_at {
                Some(at) => events.push(SandboxEvent::Retry { message: id, at }),
                None => message.state = MessageState::Failed,
            }
        }
        message.attempts.push(attempt);
        if must_disable && state.set_active(subscription, false, now).is_ok() {
            events.push(SandboxEvent::Disabled { subscription });
        }
        events
    }

    /// Notes whether the endpoint works. Returns `true` if it must be disabled.
    fn must_disable(
        &self,
        state: &mut State,
        attempt: &Attempt,
        outcome: &Outcome,
        now: Timestamp,
    ) -> bool {
        let Ok(subscription) = state.subscription(attempt.subscription) else {
            return false;
        };
        if !subscription.is_active() {
            return false;
        }
        if attempt.is_success() {
            subscription.failing_since = None;
            return false;
        }
        let since = *subscription.failing_since.get_or_insert(attempt.at);
        let limit = schedule::disable_after(self.shared.options.compression);
        let failing = now.duration_since(since);
        outcome.disables() || failing.unsigned_abs() >= limit
    }
}

impl Outcome {
    fn cause(&self) -> Cause {
        match self {
            Self::Response { retry_after, .. } => Cause::Response {
                retry_after: *retry_after,
            },
            Self::Timeout => Cause::Timeout,
            Self::Failed(_) => Cause::Connection,
        }
    }
}
