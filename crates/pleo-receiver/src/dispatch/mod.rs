//! The dispatcher: leases messages from the inbox and runs the handler for each, at least once.

mod attempts;
mod leases;
mod options;
mod outcomes;
mod retry;

use core::fmt;
use core::pin::pin;
use core::time::Duration;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{self, Instant};

use self::attempts::Attempts;
use crate::handler::Handler;
use crate::inbox::{Inbox, InboxError, InboxErrorKind, InboxFuture, Leased, Version};
use crate::telemetry::{self, Telemetry};
use crate::trace::Tracing;

pub use options::DispatchOptions;

/// The delay before a call of the inbox is repeated after an error.
const INBOX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// How long a dispatcher that panicked waits before it restarts.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// How long a shutdown waits for the inbox: for a lease request, and for the last outcomes.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// The current handler, if there is one, and its options.
pub(crate) struct Dispatching {
    pub(crate) handler: Option<Arc<dyn Handler>>,
    pub(crate) options: DispatchOptions,
}

/// The state that a dispatcher shares with its receiver.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) dispatching: watch::Receiver<Arc<Dispatching>>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) tracing: Tracing,
    /// The fatal error of the inbox, once there is one.
    pub(crate) failure: watch::Receiver<Option<InboxError>>,
    /// Whether [`Dispatcher::run`] dispatches messages.
    pub(crate) is_running: Arc<AtomicBool>,
}

/// Dispatches the messages of a [`Receiver`](crate::Receiver) to its handler. There is one per
/// receiver: it cannot be cloned, and [`run`](Self::run) consumes it.
///
/// ```compile_fail,E0382
/// # async fn run(dispatcher: pleo_receiver::Dispatcher) {
/// tokio::join!(
///     dispatcher.run(core::future::pending()),
///     dispatcher.run(core::future::pending()),
/// );
/// # }
/// ```
///
/// ```compile_fail,E0599
/// # fn clone(dispatcher: pleo_receiver::Dispatcher) {
/// dispatcher.clone();
/// # }
/// ```
///
/// The compiler warns of a dispatcher that is not used:
///
/// ```compile_fail
/// #![deny(unused_variables)]
/// # fn build(builder: pleo_receiver::ReceiverBuilder) -> Result<(), pleo_receiver::BuildError> {
/// let (receiver, dispatcher) = builder.build()?;
/// # receiver.start_shutdown();
/// # Ok(())
/// # }
/// ```
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # fn build(builder: pleo_receiver::ReceiverBuilder) -> Result<(), pleo_receiver::BuildError> {
/// builder.build()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "messages are dispatched only while `run` runs; or pass it to a `Server`"]
pub struct Dispatcher {
    shared: Shared,
}

impl Dispatcher {
    pub(crate) const fn new(shared: Shared) -> Self {
        Self { shared }
    }

    /// Dispatches messages until `shutdown` resolves, then waits for the handlers in progress, for
    /// the grace period at most.
    ///
    /// A panic of the [`Inbox`] is logged and counted, and dispatching restarts after a second.
    /// Handlers in progress are stopped, and their messages are redelivered when their leases end.
    /// (A panic of the [`Handler`] is a failed attempt.)
    ///
    /// Dropping the future stops all handlers at their next await point.
    ///
    /// # Errors
    /// An error of the kind [`Fatal`](InboxErrorKind::Fatal) if the inbox failed, also while it
    /// appended. Handlers in progress are stopped, because no outcome can be recorded. No message can
    /// be stored or dispatched until the inbox is opened again.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), InboxError> {
        let mut shutdown = pin!(shutdown);
        loop {
            // A `JoinSet` aborts the task when this future is dropped.
            let mut task = JoinSet::new();
            let (stop, stopped) = oneshot::channel();
            task.spawn(dispatch(self.shared.clone(), Until::Dropped(stopped)));
            let running = Running::new(&self.shared.is_running);
            let (is_shutdown, ended) = tokio::select! {
                () = &mut shutdown => {
                    drop(stop);
                    (true, task.join_next().await)
                }
                ended = task.join_next() => (false, ended),
            };
            drop(running);
            match ended {
                Some(Err(error)) => {
                    self.shared.telemetry.dispatcher_panicked(error);
                }
                Some(Ok(result)) => return result,
                None => return Ok(()),
            }
            if is_shutdown {
                return Ok(());
            }
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                () = time::sleep(RESTART_DELAY) => {}
            }
        }
    }

    /// Dispatches all ready messages, and returns when none is ready and no handler runs. Does not
    /// wait for scheduled retries. For tests, and for programs that run on a schedule.
    ///
    /// # Errors
    /// An error of the kind [`Fatal`](InboxErrorKind::Fatal) if the inbox failed.
    ///
    /// # Panics
    /// The inbox panicked.
    pub async fn run_until_idle(&mut self) -> Result<(), InboxError> {
        dispatch(self.shared.clone(), Until::Idle).await
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").finish_non_exhaustive()
    }
}

/// Sets a flag until it is dropped.
struct Running<'f>(&'f AtomicBool);

impl<'f> Running<'f> {
    fn new(flag: &'f AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// When dispatching ends.
enum Until {
    /// After the sender is dropped.
    Dropped(oneshot::Receiver<()>),
    /// When no message is ready and no handler runs.
    Idle,
}

impl Until {
    const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    async fn dropped(&mut self) {
        match self {
            Self::Dropped(sender) => drop(sender.await),
            Self::Idle => core::future::pending().await,
        }
    }
}

/// A lease request in progress.
type Leasing = JoinSet<Result<Leased, InboxError>>;

/// Dispatches messages to the current handler.
async fn dispatch(shared: Shared, mut until: Until) -> Result<(), InboxError> {
    let Shared {
        inbox,
        mut dispatching,
        telemetry,
        tracing,
        mut failure,
        ..
    } = shared;
    let mut current = Arc::clone(&dispatching.borrow_and_update());
    let mut attempts = Attempts::new(Arc::clone(&inbox), telemetry, tracing);
    // The request runs in a task, so that a request that hangs delays no other event.
    let mut leasing = Leasing::new();
    let (mut requested, mut ttl) = (Instant::now(), current.options.lease_ttl());
    let mut is_outdated = false;
    let (mut seen, mut wake_at) = (None, Some(requested));
    loop {
        let can_lease = leasing.is_empty() && attempts.can_start(&current);
        if until.is_idle() && current.handler.is_none() && attempts.is_empty() {
            break;
        }
        tokio::select! {
            () = until.dropped() => break,
            error = fatal_error(&mut failure) => return Err(error),
            Ok(()) = dispatching.changed() => {
                attempts.start_grace_period();
                current = Arc::clone(&dispatching.borrow_and_update());
                is_outdated = true;
                wake_at = Some(Instant::now());
            }
            recorded = attempts.progress() => {
                // The message's lease ended: another one may be leased.
                if recorded? {
                    wake_at = Some(Instant::now());
                }
            }
            () = ready(&*inbox, seen, wake_at), if can_lease => {
                // One request replaces all attempts that ended together.
                attempts.collect_ended()?;
                (requested, ttl) = (Instant::now(), current.options.lease_ttl());
                is_outdated = false;
                let (inbox, request) = (Arc::clone(&inbox), attempts.lease_request(&current));
                leasing.spawn(async move { limit(ttl, inbox.lease(request)).await });
                wake_at = None;
            }
            Some(joined) = leasing.join_next() => match unwind(joined) {
                None => {}
                Some(Ok(Leased { messages, next_due_in, version, .. })) => {
                    seen = Some(version);
                    let due_at = next_due_in.and_then(|delay| requested.checked_add(delay));
                    wake_at = wake_at.into_iter().chain(due_at).min();
                    if until.is_idle() && messages.is_empty() && attempts.is_empty() {
                        break;
                    }
                    for message in messages {
                        // The old options may allow more concurrency than the new ones.
                        if is_outdated {
                            attempts.release(message, requested, ttl);
                        } else {
                            attempts.start(message, &current, requested, ttl);
                        }
                    }
                }
                Some(Err(error)) if error.kind() == InboxErrorKind::Fatal => return Err(error),
                Some(Err(error)) => {
                    telemetry::lease_request_failed(&error);
                    // A change of the inbox does not shorten the delay.
                    seen = None;
                    wake_at = Instant::now().checked_add(INBOX_RETRY_DELAY);
                }
            }
        }
    }
    attempts.start_grace_period();
    let deadline = Instant::now().checked_add(SHUTDOWN_TIMEOUT);
    while !leasing.is_empty() {
        tokio::select! {
            Some(joined) = leasing.join_next() => {
                if let Some(Ok(leased)) = unwind(joined) {
                    for message in leased.messages {
                        attempts.release(message, requested, ttl);
                    }
                }
            }
            result = attempts.progress() => { result?; }
            () = sleep_until(deadline) => {
                telemetry::lease_request_abandoned();
                break;
            }
        }
    }
    attempts.drain().await
}

/// Resolves when messages may be ready: after the inbox changed, or at this time.
async fn ready(inbox: &dyn Inbox, seen: Option<Version>, at: Option<Instant>) {
    let changed = async {
        match seen {
            None => core::future::pending().await,
            Some(version) => inbox.changed(version).await,
        }
    };
    tokio::select! {
        () = changed => {}
        () = sleep_until(at) => {}
    }
}

/// Resolves with the fatal error of the inbox.
async fn fatal_error(failure: &mut watch::Receiver<Option<InboxError>>) -> InboxError {
    loop {
        if let Some(error) = &*failure.borrow_and_update() {
            return error.clone();
        }
        if failure.changed().await.is_err() {
            // The receiver was dropped.
            core::future::pending().await
        }
    }
}

/// Ends a call of the inbox that hangs with an error after which it is repeated.
async fn limit<T>(after: Duration, call: InboxFuture<'_, T>) -> Result<T, InboxError> {
    let timeout = |_| {
        let text = format!("no response within {after:?}");
        Err(InboxError::new(InboxErrorKind::Unavailable, text))
    };
    time::timeout(after, call).await.unwrap_or_else(timeout)
}

/// Returns the result of a task, `None` if it was cancelled. Passes on a panic of the inbox, which
/// restarts the dispatcher.
fn unwind<T>(joined: Result<T, JoinError>) -> Option<T> {
    match joined {
        Ok(result) => Some(result),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(_) => None,
        },
    }
}

/// Resolves at this time. Unlike [`time::sleep_until`], which rounds up to milliseconds, resolves at
/// once if the time has come.
async fn sleep_until(at: Option<Instant>) {
    match at {
        None => core::future::pending().await,
        Some(at) if at <= Instant::now() => {}
        Some(at) => time::sleep_until(at).await,
    }
}
