//! The dispatcher: leases messages from the inbox and runs the handler for each, at least once.

mod options;
pub(crate) mod retry;

use core::pin::pin;
use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{self, AbortHandle, JoinError, JoinSet};
use tokio::time::{self, Instant};
use tracing::{error, info, warn};

use crate::error::error_chain;
use crate::handler::{Delivery, Handler, HandlerError};
use crate::inbox::{Inbox, LeaseId, LeaseRequest, LeasedMessage, NewMessage, Outcome};
use crate::metrics::Metrics;

pub use options::DispatchOptions;

/// How long a lease outlasts the handler's time limit, to record the outcome.
const LEASE_MARGIN: Duration = Duration::from_secs(60);

/// The delay before the next lease after the inbox failed.
const INBOX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The current handler, if there is one, and its options.
pub(crate) struct Dispatching {
    pub(crate) handler: Option<Arc<dyn Handler>>,
    pub(crate) options: DispatchOptions,
}

/// Dispatches messages to the current handler until `shutdown` resolves. Then waits for handlers in
/// progress, at most for their grace periods.
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
        completions: JoinSet::new(),
    };
    loop {
        let wake_at = dispatcher.start_ready().await;
        let has_capacity = dispatcher.has_capacity();
        let deadline = dispatcher.next_deadline();
        tokio::select! {
            () = &mut shutdown => break,
            Ok(()) = dispatching.changed() => {
                dispatcher.start_grace_period();
                dispatcher.current = Arc::clone(&dispatching.borrow_and_update());
            }
            Some(ended) = dispatcher.handlers.join_next_with_id() => dispatcher.complete(ended),
            () = sleep_until_instant(deadline) => dispatcher.stop_overdue(),
            () = inbox.ready(), if has_capacity => {}
            () = sleep_until(wake_at), if has_capacity => {}
        }
        // One lease replaces all handlers that ended together.
        while let Some(ended) = dispatcher.handlers.try_join_next_with_id() {
            dispatcher.complete(ended);
        }
        while dispatcher.completions.try_join_next().is_some() {}
    }
    dispatcher.drain().await;
}

type HandlerResult = Result<(), HandlerError>;

struct Dispatcher<'a> {
    inbox: &'a Arc<dyn Inbox>,
    /// The handler and the options of new attempts.
    current: Arc<Dispatching>,
    metrics: &'a Metrics,
    handlers: JoinSet<HandlerResult>,
    /// The attempt of each task in `handlers`, also if it panics or is aborted.
    in_progress: HashMap<task::Id, InProgress>,
    /// Calls of [`Inbox::complete`]. A handler's slot is free before its outcome is recorded, so that
    /// the inbox records many outcomes in one transaction.
    completions: JoinSet<()>,
}

struct InProgress {
    lease: LeaseId,
    attempt: u32,
    endpoint: Arc<str>,
    webhook_id: Arc<str>,
    /// The handler and the options that the attempt started with.
    started_with: Arc<Dispatching>,
    task: AbortHandle,
    /// When the grace period ends, if it has started.
    deadline: Option<Instant>,
}

impl Dispatcher<'_> {
    fn has_capacity(&self) -> bool {
        self.current.handler.is_some() && self.handlers.len() < self.total_concurrency()
    }

    fn total_concurrency(&self) -> usize {
        self.current.options.total_concurrency.max(1)
    }

    fn lease_request(&self) -> LeaseRequest {
        let mut in_progress = HashMap::new();
        for attempt in self.in_progress.values() {
            let endpoint = Arc::clone(&attempt.endpoint);
            *in_progress.entry(endpoint).or_insert(0) += 1;
        }
        LeaseRequest::new(self.total_concurrency().saturating_sub(self.handlers.len()))
            .with_per_endpoint(self.current.options.concurrency.max(1))
            .with_in_progress(in_progress)
    }

    /// Leases ready messages and starts their handlers, as far as there is capacity. Returns when to
    /// lease again at the latest.
    async fn start_ready(&mut self) -> Option<Timestamp> {
        let current = Arc::clone(&self.current);
        let handler = current.handler.as_ref().filter(|_| self.has_capacity())?;
        let lease = current.options.timeout.saturating_add(LEASE_MARGIN);
        let request = self.lease_request();
        match self.inbox.lease(request, Timestamp::now(), lease).await {
            Ok(leased) => {
                let mut all_started = true;
                for message in leased.messages {
                    all_started &= self.start(message, handler);
                }
                if all_started {
                    leased.next_due
                } else {
                    // There is capacity left for other messages.
                    Some(Timestamp::now())
                }
            }
            Err(error) => {
                error!(
                    error = error_chain(&error),
                    "cannot lease messages; retrying"
                );
                Timestamp::now().checked_add(INBOX_RETRY_DELAY).ok()
            }
        }
    }

    /// Starts the handler for a message. Returns `false` if it was not started.
    fn start(&mut self, leased: LeasedMessage, handler: &Arc<dyn Handler>) -> bool {
        let LeasedMessage {
            lease,
            message,
            attempt,
        } = leased;
        let mut in_progress = self.in_progress.values_mut();
        if let Some(running) = in_progress.find(|running| running.lease.message == lease.message) {
            // The lease ended early: the clock was set, or the machine slept. The running handler
            // gets the new lease.
            (running.lease, running.attempt) = (lease, attempt);
            return false;
        }
        if retry::is_exhausted(&self.current.options, attempt) {
            self.exhaust(lease, &message, attempt);
            return false;
        }
        let (endpoint, webhook_id) = (Arc::clone(&message.endpoint), message.webhook_id.clone());
        let delivery = Delivery::new(message, attempt);
        if delivery.expired {
            warn!(%endpoint, webhook_id = &*webhook_id, expires_at = ?delivery.expires_at, "export job expired before dispatch");
            self.metrics.expired(&endpoint);
        }
        let (handler, limit) = (Arc::clone(handler), self.current.options.timeout);
        let task = self.handlers.spawn(async move {
            time::timeout(limit, handler.handle(delivery))
                .await
                .unwrap_or_else(|_| Err(format!("handler timed out after {limit:?}").into()))
        });
        let in_progress = InProgress {
            lease,
            attempt,
            endpoint,
            webhook_id,
            started_with: Arc::clone(&self.current),
            task,
            deadline: None,
        };
        self.in_progress.insert(in_progress.task.id(), in_progress);
        true
    }

    /// Marks a message dead whose last attempt never ended. It may crash the receiver each time.
    fn exhaust(&mut self, lease: LeaseId, message: &NewMessage, attempt: u32) {
        let (endpoint, webhook_id) = (&message.endpoint, &message.webhook_id);
        let (started, max) = (attempt - 1, self.current.options.max_attempts.max(1));
        let error = format!(
            "{started} of {max} attempts started and none completed; the receiver may have stopped \
             during the last one"
        );
        error!(%endpoint, webhook_id = &**webhook_id, error, "no attempts left; message is dead");
        self.metrics.handled(endpoint, "dead");
        self.record(lease, Outcome::Exhausted { error });
    }

    fn complete(&mut self, ended: Result<(task::Id, HandlerResult), JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            Err(error) if error.is_cancelled() => (error.id(), None),
            Err(error) => (error.id(), Some(Err("handler panicked".into()))),
        };
        let Some(InProgress {
            lease,
            attempt,
            endpoint,
            webhook_id,
            started_with,
            ..
        }) = self.in_progress.remove(&id)
        else {
            return;
        };
        let outcome = match result {
            None => Outcome::Release,
            Some(Ok(())) => Outcome::Done,
            Some(Err(error)) => failure(&started_with.options, attempt, error_chain(&*error)),
        };
        match &outcome {
            Outcome::Done => {
                info!(%endpoint, webhook_id = &*webhook_id, attempt, "message handled");
                self.metrics.handled(&endpoint, "done");
            }
            Outcome::Retry { at, error } => {
                warn!(%endpoint, webhook_id = &*webhook_id, attempt, retry_at = %at, error, "handler failed");
                self.metrics.handled(&endpoint, "retry");
            }
            Outcome::Dead { error } => {
                error!(%endpoint, webhook_id = &*webhook_id, attempt, error, "handler failed; message is dead");
                self.metrics.handled(&endpoint, "dead");
            }
            Outcome::Release | Outcome::Exhausted { .. } => {}
        }
        self.record(lease, outcome);
    }

    /// Records an outcome in the background. If that fails, the lease ends by itself and the message
    /// is redelivered.
    fn record(&mut self, lease: LeaseId, outcome: Outcome) {
        let inbox = Arc::clone(self.inbox);
        self.completions.spawn(async move {
            if let Err(error) = inbox.complete(lease, outcome).await {
                let error = error_chain(&error);
                error!(error, "cannot record outcome; message will be redelivered");
            }
        });
    }

    /// Starts the grace period of all attempts in progress.
    fn start_grace_period(&mut self) {
        for attempt in self.in_progress.values_mut() {
            let deadline = Instant::now().checked_add(attempt.started_with.options.grace);
            attempt.deadline = attempt.deadline.into_iter().chain(deadline).min();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let attempts = self.in_progress.values();
        attempts.filter_map(|attempt| attempt.deadline).min()
    }

    /// Aborts handlers whose grace period is over. Each ends at its next await point, and
    /// [`complete`](Self::complete) then releases its message.
    fn stop_overdue(&mut self) {
        let now = Instant::now();
        let mut handlers = 0;
        for attempt in self.in_progress.values_mut() {
            if (attempt.deadline.take_if(|deadline| *deadline <= now)).is_some() {
                attempt.task.abort();
                handlers += 1;
            }
        }
        if handlers > 0 {
            warn!(handlers, "grace period over; handlers stopped");
        }
    }

    /// Waits for the handlers in progress, at most for the grace period, and for their outcomes to be
    /// recorded.
    async fn drain(mut self) {
        self.start_grace_period();
        while !self.handlers.is_empty() {
            let deadline = self.next_deadline();
            tokio::select! {
                Some(ended) = self.handlers.join_next_with_id() => self.complete(ended),
                () = sleep_until_instant(deadline) => self.stop_overdue(),
            }
        }
        while self.completions.join_next().await.is_some() {}
    }
}

/// Returns the outcome of failed attempt `attempt`.
fn failure(options: &DispatchOptions, attempt: u32, error: String) -> Outcome {
    match retry::delay_after_failure(options, attempt) {
        None => Outcome::Dead { error },
        Some(delay) => Outcome::Retry {
            at: Timestamp::now()
                .checked_add(delay)
                .unwrap_or(Timestamp::MAX),
            error,
        },
    }
}

async fn sleep_until_instant(deadline: Option<Instant>) {
    match deadline {
        None => core::future::pending().await,
        Some(deadline) => time::sleep_until(deadline).await,
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        None => core::future::pending().await,
        Some(at) => {
            let delay = at.duration_since(Timestamp::now());
            time::sleep(delay.try_into().unwrap_or_default()).await;
        }
    }
}
