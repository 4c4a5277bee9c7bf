//! The attempts in progress: starts, ends and stops their handlers.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::{self, AbortHandle, JoinError, JoinSet};
use tokio::time::{self, Instant};

use super::leases::Leases;
use super::outcomes::Outcomes;
use super::{Dispatching, SHUTDOWN_TIMEOUT, retry, sleep_until};
use crate::handler::Delivery;
use crate::inbox::{Inbox, InboxError, Key, LeaseId, LeaseRequest, LeasedMessage, Outcome};
use crate::telemetry::{self, HandlerAttempt, Telemetry};
use crate::trace::{AttemptSpan, Tracing};

/// The outcome if the handler failed. Its task describes the error, whose methods may panic.
type HandlerResult = Result<(), Outcome>;

pub(super) struct Attempts {
    telemetry: Arc<Telemetry>,
    tracing: Tracing,
    handlers: JoinSet<HandlerResult>,
    /// The attempt of each task in `handlers`, also if it panics or is aborted.
    running: HashMap<task::Id, Running>,
    /// The leases of all attempts until their outcomes are recorded.
    leases: Leases,
    outcomes: Outcomes,
}

struct Running {
    lease: LeaseId,
    attempt: u32,
    key: Key,
    event_type: Option<String>,
    started: Instant,
    /// The handler and the options that the attempt started with.
    started_with: Arc<Dispatching>,
    task: AbortHandle,
    span: AttemptSpan,
    /// When the grace period ends, if it has started.
    grace_ends: Option<Instant>,
    is_lost: bool,
    /// Locked while the handler runs.
    turn: Arc<Mutex<()>>,
}

impl Running {
    /// Returns the fields of the attempt's events.
    fn telemetry(&self) -> HandlerAttempt<'_> {
        HandlerAttempt {
            endpoint: &self.key.endpoint,
            webhook_id: &self.key.webhook_id,
            event_type: self.event_type.as_deref(),
            attempt: self.attempt,
            elapsed: self.started.elapsed(),
        }
    }
}

impl Attempts {
    pub(super) fn new(inbox: Arc<dyn Inbox>, telemetry: Arc<Telemetry>, tracing: Tracing) -> Self {
        Self {
            telemetry,
            tracing,
            handlers: JoinSet::new(),
            running: HashMap::new(),
            leases: Leases::new(Arc::clone(&inbox)),
            outcomes: Outcomes::new(inbox),
        }
    }

    /// Returns `true` if there is a handler and capacity for another message.
    pub(super) fn can_start(&self, current: &Dispatching) -> bool {
        current.handler.is_some() && self.running.len() < current.options.total_concurrency.max(1)
    }

    /// Returns `true` if no handler runs and all outcomes are recorded.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty() && self.outcomes.is_empty()
    }

    pub(super) fn lease_request(&self, current: &Dispatching) -> LeaseRequest {
        let options = &current.options;
        let total = options.total_concurrency.max(1);
        let free = total.saturating_sub(self.running.len());
        LeaseRequest::new(free, options.lease_ttl(), Arc::clone(&options.worker))
            .with_total(total)
            .with_per_endpoint(options.concurrency.max(1))
    }

    /// Starts the handler for a message that was requested at this time.
    pub(super) fn start(
        &mut self,
        leased: LeasedMessage,
        current: &Arc<Dispatching>,
        requested: Instant,
        ttl: Duration,
    ) {
        let Some(handler) = current.handler.clone() else {
            return self.release(leased, requested, ttl);
        };
        let LeasedMessage {
            lease,
            attempt,
            message,
            ..
        } = leased;
        self.leases.hold(lease, requested, ttl);
        let options = &current.options;
        let attempt = attempt.get();
        let key = message.entry.key();
        let event_type = message.entry.event_type.clone();
        if retry::is_exhausted(options, attempt) {
            let (started, max) = (attempt - 1, options.max_attempts.max(1));
            let error = format!(
                "{started} of {max} attempts started and none completed; the receiver may have \
                 stopped during the last one"
            );
            self.telemetry
                .attempts_exhausted(&key, event_type.as_deref(), &error);
            return self.outcomes.record(lease, key, Outcome::Dead { error });
        }
        let is_last = retry::is_last(options, attempt);
        let limit = options.timeout;
        let span = self.tracing.attempt(&message, attempt);
        let delivery = Delivery::new(message, attempt, is_last, limit);
        if delivery.is_expired() {
            let expires_at = delivery.expires_at();
            self.telemetry
                .expired(&key, event_type.as_deref(), expires_at);
        }
        // A handler whose lease was lost may run until its next await point.
        let mut stopped = self.running.values().filter(|attempt| attempt.is_lost);
        let stopped = stopped.find(|attempt| attempt.key == key);
        let turn = stopped.map_or_else(Arc::default, |attempt| Arc::clone(&attempt.turn));
        let started_with = Arc::clone(current);
        let own_turn = Arc::clone(&turn);
        let (telemetry, endpoint) = (Arc::clone(&self.telemetry), Arc::clone(&key.endpoint));
        let own_span = span.clone();
        let task = self.handlers.spawn(async move {
            let _turn = own_turn.lock().await;
            let _measured = telemetry.meters.handler(&endpoint);
            let handled = own_span.enter(async { handler.handle(delivery).await });
            let handled = time::timeout(limit, handled).await;
            let handled = handled
                .unwrap_or_else(|_| Err(format!("handler timed out after {limit:?}").into()));
            handled.map_err(|error| retry::outcome(&started_with.options, attempt, &error))
        });
        let running = Running {
            lease,
            attempt,
            key,
            event_type,
            started: Instant::now(),
            started_with: Arc::clone(current),
            task,
            span,
            grace_ends: None,
            is_lost: false,
            turn,
        };
        self.running.insert(running.task.id(), running);
    }

    /// Releases a message that is not started.
    pub(super) fn release(&mut self, leased: LeasedMessage, requested: Instant, ttl: Duration) {
        let LeasedMessage { lease, message, .. } = leased;
        self.leases.hold(lease, requested, ttl);
        let key = message.entry.key();
        self.outcomes.record(lease, key, Outcome::Release);
    }

    /// Waits for the next event and handles it. Returns `true` if an outcome was recorded.
    ///
    /// # Errors
    /// The inbox failed permanently.
    pub(super) async fn progress(&mut self) -> Result<bool, InboxError> {
        let grace_ends = self
            .running
            .values()
            .filter_map(|attempt| attempt.grace_ends);
        let grace_ends = grace_ends.min();
        tokio::select! {
            Some(ended) = self.handlers.join_next_with_id() => self.complete(ended),
            recorded = self.outcomes.recorded() => {
                self.leases.forget(recorded?);
                return Ok(true);
            }
            lost = self.leases.lost() => self.stop_lost(&lost?),
            () = sleep_until(grace_ends) => self.stop_overdue(),
        }
        Ok(false)
    }

    /// Handles all handlers that ended, and forgets all attempts whose outcomes are recorded.
    ///
    /// # Errors
    /// The inbox failed permanently.
    pub(super) fn collect_ended(&mut self) -> Result<(), InboxError> {
        while let Some(ended) = self.handlers.try_join_next_with_id() {
            self.complete(ended);
        }
        while let Some(lease) = self.outcomes.try_recorded()? {
            self.leases.forget(lease);
        }
        Ok(())
    }

    /// Starts the grace period of all attempts in progress.
    pub(super) fn start_grace_period(&mut self) {
        for attempt in self.running.values_mut() {
            let ends = Instant::now().checked_add(attempt.started_with.options.grace);
            attempt.grace_ends = attempt.grace_ends.into_iter().chain(ends).min();
        }
    }

    /// Waits for the handlers in progress, at most for the grace period that has started, and for
    /// their outcomes to be recorded.
    ///
    /// # Errors
    /// The inbox failed permanently.
    pub(super) async fn drain(mut self) -> Result<(), InboxError> {
        while !self.handlers.is_empty() {
            self.progress().await?;
        }
        let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
        while !self.outcomes.is_empty() {
            tokio::select! {
                result = self.progress() => { result?; }
                () = time::sleep_until(deadline) => {
                    let outcomes = self.outcomes.len();
                    telemetry::outcomes_abandoned(outcomes);
                    break;
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, ended: Result<(task::Id, HandlerResult), JoinError>) {
        let (id, ended) = match ended {
            Ok((id, result)) => (id, Ok(result)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(running) = self.running.remove(&id) else {
            return;
        };
        if running.is_lost {
            return;
        }
        let options = &running.started_with.options;
        let outcome = match ended {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(outcome)) => outcome,
            Err(error) if error.is_cancelled() => Outcome::Release,
            Err(_) => retry::outcome(options, running.attempt, &"handler panicked".into()),
        };
        self.telemetry.attempt_ended(running.telemetry(), &outcome);
        running.span.ended(&outcome);
        self.outcomes.record(running.lease, running.key, outcome);
    }

    /// Aborts handlers whose leases are lost, since another process may get their messages. Their
    /// outcomes are not recorded.
    fn stop_lost(&mut self, leases: &[LeaseId]) {
        let running = self.running.values_mut();
        for running in running.filter(|running| leases.contains(&running.lease)) {
            // A handler that already ended succeeded or failed under its lease.
            if running.task.is_finished() {
                continue;
            }
            running.is_lost = true;
            running.task.abort();
            self.telemetry.lease_lost(running.telemetry());
            running.span.lost();
        }
    }

    /// Aborts handlers whose grace period is over. Each ends at its next await point, and
    /// [`complete`](Self::complete) then releases its message.
    fn stop_overdue(&mut self) {
        let now = Instant::now();
        let mut handlers = 0;
        for attempt in self.running.values_mut() {
            if attempt.grace_ends.take_if(|ends| *ends <= now).is_some() {
                attempt.task.abort();
                handlers += 1;
            }
        }
        if handlers > 0 {
            telemetry::grace_period_over(handlers);
        }
    }
}
