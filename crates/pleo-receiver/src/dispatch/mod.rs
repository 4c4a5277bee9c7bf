//! Hands messages from the inbox to the handler: at least once, the one that expires first going
//! first, again after a while when it fails, and to the dead letters when it keeps failing.

use core::pin::pin;
use core::time::Duration;
use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use backon::{BackoffBuilder, ExponentialBuilder};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{self, AbortHandle, JoinError, JoinSet};
use tokio::time::{self, Instant};
use tracing::{error, info, warn};

use crate::handler::{Delivery, Handler, HandlerError};
use crate::metrics::Metrics;
use crate::{Inbox, LeaseId, LeaseRequest, LeasedMessage, NewMessage, Outcome};

/// How long a lease outlives the handler's time limit, for the outcome to be recorded.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// How long to wait when the inbox itself fails.
const INBOX_PAUSE: Duration = Duration::from_secs(1);

/// When a failed message comes again, how often, and how many are handed on at once.
///
/// The delay before attempt *n*+1 is `min_delay` · 2ⁿ⁻¹, at most `max_delay`, and a random share of
/// it on top, so that what failed together doesn't come again together.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DispatchOptions {
    /// How many attempts there are before a message is dead. 12 unless set, at least 1. One that was
    /// cut off, since the process was killed, counts too.
    pub max_attempts: u32,
    /// The delay after the first failure. 5 seconds unless set.
    pub min_delay: Duration,
    /// The longest delay. 1 hour unless set.
    pub max_delay: Duration,
    /// How long the handler may take for one message. 5 minutes unless set.
    pub timeout: Duration,
    /// How many messages of one endpoint are handed on at once, so that none keeps the others
    /// waiting; 1 for one after the other. 4 unless set, at least 1.
    pub concurrency: usize,
    /// How many messages are handed on at once, of all endpoints together. 64 unless set, at
    /// least 1.
    pub total_concurrency: usize,
    /// How long handlers may go on after shutdown began; then they are dropped, and their messages
    /// are due again at once. 20 seconds unless set.
    pub grace: Duration,
}

impl Default for DispatchOptions {
    fn default() -> Self {
        Self {
            max_attempts: 12,
            min_delay: Duration::from_secs(5),
            max_delay: Duration::from_secs(3600),
            timeout: Duration::from_secs(300),
            concurrency: 4,
            total_concurrency: 64,
            grace: Duration::from_secs(20),
        }
    }
}

impl DispatchOptions {
    /// What follows when attempt `attempt` (counted from 1) failed at `now`.
    fn after_failure(&self, attempt: u32, now: Timestamp, error: String) -> Outcome {
        if attempt >= self.max_attempts {
            return Outcome::Dead { error };
        }
        let nth = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
        let delays = ExponentialBuilder::default()
            .with_min_delay(self.min_delay)
            .with_max_delay(self.max_delay)
            .with_jitter()
            .without_max_times();
        let delay = delays.build().nth(nth).unwrap_or(self.max_delay);
        Outcome::Retry {
            at: now.checked_add(delay).unwrap_or(Timestamp::MAX),
            error,
        }
    }
}

/// Who gets the messages, and how.
pub(crate) struct Dispatching {
    pub(crate) handler: Option<Arc<dyn Handler>>,
    pub(crate) policy: DispatchOptions,
}

/// Hands messages on as it is said at the time, until `shutdown` resolves.
pub(crate) async fn run(
    inbox: &Arc<dyn Inbox>,
    mut dispatching: watch::Receiver<Arc<Dispatching>>,
    metrics: &Metrics,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let mut dispatcher = Dispatcher {
        inbox,
        current: Arc::clone(&dispatching.borrow_and_update()),
        metrics,
        handlers: JoinSet::new(),
        in_progress: HashMap::new(),
        records: JoinSet::new(),
    };
    loop {
        let wake_at = dispatcher.start_due().await;
        let has_room = dispatcher.has_room();
        let over = dispatcher.next_over();
        tokio::select! {
            () = &mut shutdown => break,
            Ok(()) = dispatching.changed() => {
                dispatcher.call_time();
                dispatcher.current = Arc::clone(&dispatching.borrow_and_update());
            }
            Some(ended) = dispatcher.handlers.join_next_with_id() => dispatcher.complete(ended),
            () = sleep_until_over(over) => dispatcher.stop_over(),
            () = inbox.ready(), if has_room => {}
            () = sleep_until(wake_at), if has_room => {}
        }
        // Those that end together are followed by others together.
        while let Some(ended) = dispatcher.handlers.try_join_next_with_id() {
            dispatcher.complete(ended);
        }
        while dispatcher.records.try_join_next().is_some() {}
    }
    dispatcher.finish().await;
}

type HandlerResult = Result<(), HandlerError>;

struct Dispatcher<'a> {
    inbox: &'a Arc<dyn Inbox>,
    /// What attempts begin under.
    current: Arc<Dispatching>,
    metrics: &'a Metrics,
    handlers: JoinSet<HandlerResult>,
    /// What each of them has in hand, also for when it panics or is stopped.
    in_progress: HashMap<task::Id, InHand>,
    /// Outcomes on their way into the inbox. A handler's place is free before its outcome is
    /// recorded, so that the inbox records many at once.
    records: JoinSet<()>,
}

struct InHand {
    lease: LeaseId,
    attempt: u32,
    endpoint: Arc<str>,
    webhook_id: Arc<str>,
    /// What it began under, and ends under.
    under: Arc<Dispatching>,
    task: AbortHandle,
    /// When it is stopped; `None` as long as it may go on.
    over: Option<Instant>,
}

impl Dispatcher<'_> {
    fn has_room(&self) -> bool {
        self.current.handler.is_some() && self.handlers.len() < self.total()
    }

    fn total(&self) -> usize {
        self.current.policy.total_concurrency.max(1)
    }

    fn room(&self) -> LeaseRequest {
        let mut in_progress = HashMap::new();
        for held in self.in_progress.values() {
            *in_progress.entry(Arc::clone(&held.endpoint)).or_insert(0) += 1;
        }
        LeaseRequest {
            total: self.total().saturating_sub(self.handlers.len()),
            per_endpoint: self.current.policy.concurrency.max(1),
            in_progress,
        }
    }

    /// Starts as many due messages as there is room for; says when to look again at the latest.
    async fn start_due(&mut self) -> Option<Timestamp> {
        let current = Arc::clone(&self.current);
        let handler = current.handler.as_ref().filter(|_| self.has_room())?;
        let lease = current.policy.timeout.saturating_add(LEASE_MARGIN);
        let lease = self.inbox.lease(self.room(), Timestamp::now(), lease);
        match lease.await {
            Ok(lease) => {
                let mut all_started = true;
                for leased in lease.messages {
                    all_started &= self.start(leased, handler);
                }
                if all_started {
                    lease.next_due
                } else {
                    // Others may have been kept back for those that didn't.
                    Some(Timestamp::now())
                }
            }
            Err(error) => {
                error!(%error, "cannot take messages from the inbox; trying again");
                Timestamp::now().checked_add(INBOX_PAUSE).ok()
            }
        }
    }

    /// Whether it took a place among those in hand.
    fn start(&mut self, leased: LeasedMessage, handler: &Arc<dyn Handler>) -> bool {
        let LeasedMessage {
            lease,
            message,
            attempt,
        } = leased;
        let mut in_progress = self.in_progress.values_mut();
        if let Some(held) = in_progress.find(|held| held.lease.message == lease.message) {
            // The lease ended by the clock of the day, which was set, or went on while the machine
            // slept. The handler is still at it: this is its new lease.
            (held.lease, held.attempt) = (lease, attempt);
            return false;
        }
        if attempt > self.current.policy.max_attempts.max(1) {
            self.give_up(lease, &message, attempt);
            return false;
        }
        let (endpoint, webhook_id) = (Arc::clone(&message.endpoint), message.webhook_id.clone());
        let delivery = Delivery::new(message, attempt);
        if delivery.expired {
            warn!(%endpoint, webhook_id = &*webhook_id, expires_at = ?delivery.expires_at, "handed on after its job expired");
            self.metrics.expired(&endpoint);
        }
        let (handler, limit) = (Arc::clone(handler), self.current.policy.timeout);
        let task = self.handlers.spawn(async move {
            time::timeout(limit, handler.handle(delivery))
                .await
                .unwrap_or_else(|_| Err(format!("took longer than {limit:?}").into()))
        });
        let in_progress = InHand {
            lease,
            attempt,
            endpoint,
            webhook_id,
            under: Arc::clone(&self.current),
            task,
            over: None,
        };
        self.in_progress.insert(in_progress.task.id(), in_progress);
        true
    }

    /// A message whose last attempt began and never ended would otherwise come again for ever, and
    /// may be what kills the process each time.
    fn give_up(&mut self, lease: LeaseId, message: &NewMessage, attempt: u32) {
        let (endpoint, webhook_id) = (&message.endpoint, &message.webhook_id);
        let (began, most) = (attempt - 1, self.current.policy.max_attempts.max(1));
        let error = format!(
            "{began} attempts began, of {most} at most, and none is known to have succeeded; the \
             last may have ended with the receiver"
        );
        error!(%endpoint, webhook_id = &**webhook_id, error, "no attempt is left");
        self.metrics.handled(endpoint, "dead");
        self.record(lease, Outcome::Exhausted { error });
    }

    fn complete(&mut self, ended: Result<(task::Id, HandlerResult), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            Err(error) if error.is_cancelled() => (error.id(), None),
            Err(error) => (error.id(), Some(Err("panicked".into()))),
        };
        let Some(InHand {
            lease,
            attempt,
            endpoint,
            webhook_id,
            under,
            ..
        }) = self.in_progress.remove(&id)
        else {
            return;
        };
        let outcome = match result {
            None => Outcome::Release,
            Some(Ok(())) => Outcome::Done,
            Some(Err(error)) => {
                let policy = &under.policy;
                policy.after_failure(attempt, Timestamp::now(), chain(&*error))
            }
        };
        match &outcome {
            Outcome::Done => {
                info!(%endpoint, webhook_id = &*webhook_id, attempt, "handled");
                self.metrics.handled(&endpoint, "done");
            }
            Outcome::Retry { at, error } => {
                warn!(%endpoint, webhook_id = &*webhook_id, attempt, retry_at = %at, error, "handler failed");
                self.metrics.handled(&endpoint, "retry");
            }
            Outcome::Dead { error } => {
                error!(%endpoint, webhook_id = &*webhook_id, attempt, error, "handler failed for the last time");
                self.metrics.handled(&endpoint, "dead");
            }
            Outcome::Release | Outcome::Exhausted { .. } => {}
        }
        self.record(lease, outcome);
    }

    /// Records an outcome, while others are claimed. Where that fails, the lease ends by itself and
    /// the message comes again.
    fn record(&mut self, lease: LeaseId, outcome: Outcome) {
        let inbox = Arc::clone(self.inbox);
        self.records.spawn(async move {
            if let Err(error) = inbox.complete(lease, outcome).await {
                error!(%error, "cannot record what became of a message; it comes again");
            }
        });
    }

    /// From now on, what is in hand has no more than the grace that it began under.
    fn call_time(&mut self) {
        for held in self.in_progress.values_mut() {
            let over = Instant::now().checked_add(held.under.policy.grace);
            held.over = held.over.into_iter().chain(over).min();
        }
    }

    fn next_over(&self) -> Option<Instant> {
        self.in_progress.values().filter_map(|held| held.over).min()
    }

    /// Stops those whose time is over. Each is settled when it ended, which it does at once unless it
    /// never waits for anything.
    fn stop_over(&mut self) {
        let now = Instant::now();
        let mut handlers = 0;
        for held in self.in_progress.values_mut() {
            if held.over.take_if(|over| *over <= now).is_some() {
                held.task.abort();
                handlers += 1;
            }
        }
        if handlers > 0 {
            warn!(
                handlers,
                "handlers outlasted the grace period; their messages come again"
            );
        }
    }

    /// Waits for the handlers in hand, no longer than the grace period, and gives back the rest.
    async fn finish(mut self) {
        self.call_time();
        while !self.handlers.is_empty() {
            let over = self.next_over();
            tokio::select! {
                Some(ended) = self.handlers.join_next_with_id() => self.complete(ended),
                () = sleep_until_over(over) => self.stop_over(),
            }
        }
        // The inbox answers soon, if only that it can't.
        while self.records.join_next().await.is_some() {}
    }
}

async fn sleep_until_over(over: Option<Instant>) {
    match over {
        None => core::future::pending().await,
        Some(over) => time::sleep_until(over).await,
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        None => core::future::pending().await,
        Some(at) => {
            let wait = at.duration_since(Timestamp::now());
            time::sleep(wait.try_into().unwrap_or_default()).await;
        }
    }
}

/// An error and what caused it, on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_then_the_message_is_dead() {
        let policy = DispatchOptions::default();
        let now = Timestamp::UNIX_EPOCH;
        for (attempt, shortest, longest) in [
            (1, 5, 10),
            (2, 10, 20),
            (3, 20, 40),
            (10, 2560, 5120),
            (11, 3600, 7200),
            (12, 0, 0),
        ] {
            match policy.after_failure(attempt, now, "why".into()) {
                Outcome::Retry { at, error } => {
                    let delay = at.as_second();
                    assert!((shortest..=longest).contains(&delay), "{attempt}: {delay}");
                    assert_eq!(error, "why");
                }
                outcome => assert!(
                    attempt == 12 && matches!(outcome, Outcome::Dead { .. }),
                    "{attempt}: {outcome:?}"
                ),
            }
        }
    }

    #[test]
    fn what_failed_together_does_not_come_again_together() {
        let policy = DispatchOptions::default();
        let delay = || match policy.after_failure(1, Timestamp::UNIX_EPOCH, String::new()) {
            Outcome::Retry { at, .. } => at,
            outcome => panic!("{outcome:?}"),
        };
        let first = delay();
        assert!((0..100).any(|_| delay() != first));
    }
}
