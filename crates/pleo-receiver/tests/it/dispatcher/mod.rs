//! Tests of the dispatcher: success, failure, order, shutdown.

mod concurrency;
mod delivery;
mod faults;
mod leases;
mod outcome_log;
mod retries;

use core::future::pending;
use core::time::Duration;
use std::sync::Arc;

use crate::support::clock::TokioClock;
use crate::support::job::job;
use crate::support::{PATH, count, counted, endpoint, entry, run_until_idle, within};
use jiff::{Timestamp, ToSpan};
use leases::SlowHandler;
use pleo_receiver::{
    Delivery, DispatchOptions, Dispatcher, Handler, Inbox, InboxError, MemoryInbox, NewMessage,
    Receiver, State, handler_fn,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time;

/// Options with short retry delays.
fn options() -> DispatchOptions {
    DispatchOptions::default()
        .with_min_delay(Duration::from_millis(1))
        .with_max_delay(Duration::from_millis(2))
}

/// An empty inbox that follows the time of tokio.
fn memory() -> MemoryInbox {
    MemoryInbox::with_clock(Arc::new(TokioClock::new()))
}

fn build(
    inbox: impl Inbox,
    options: DispatchOptions,
    handler: impl Handler,
) -> (Receiver, Dispatcher) {
    let builder = Receiver::builder(inbox)
        .endpoint(endpoint())
        .handler(handler);
    builder.dispatch_options(options).build().unwrap()
}

/// A receiver with a running dispatcher.
struct Running {
    receiver: Receiver,
    stop: oneshot::Sender<()>,
    dispatch: JoinHandle<Result<(), InboxError>>,
}

impl Running {
    async fn start(
        options: DispatchOptions,
        handler: impl Handler,
        messages: impl IntoIterator<Item = NewMessage>,
    ) -> Self {
        let inbox = memory();
        for message in messages {
            inbox.append(message).await.unwrap();
        }
        Self::start_with(inbox, options, handler)
    }

    fn start_with(inbox: impl Inbox, options: DispatchOptions, handler: impl Handler) -> Self {
        let (receiver, dispatcher) = build(inbox, options, handler);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        Self {
            receiver,
            stop,
            dispatch: tokio::spawn(dispatcher.run(shutdown)),
        }
    }

    /// Shuts down gracefully, so that all outcomes are recorded.
    async fn stop(self) -> Receiver {
        self.stop.send(()).unwrap();
        within(self.dispatch).await.unwrap().unwrap();
        self.receiver
    }
}

fn message(id: &str) -> NewMessage {
    NewMessage::new(PATH, id, id.to_owned())
}

async fn assert_counts(receiver: &Receiver, pending: u64, done: u64, dead: u64) {
    for (state, expected) in [
        (State::Pending, pending),
        (State::Done, done),
        (State::Dead, dead),
    ] {
        assert_eq!(count(receiver.inbox(), state).await, expected, "{state}");
    }
}

#[track_caller]
fn assert_handled(receiver: &Receiver, done: u64, retry: u64, dead: u64) {
    for (outcome, expected) in [("done", done), ("retry", retry), ("dead", dead)] {
        assert_eq!(handled(receiver, outcome), expected, "{outcome}");
    }
}

/// Reads the number of attempts with this outcome.
fn handled(receiver: &Receiver, outcome: &str) -> u64 {
    let line = format!("pleo_receiver_handled_total{{endpoint=\"{PATH}\",outcome=\"{outcome}\"}}");
    counted(receiver, &line)
}

/// A handler that sends each delivery to the test and fails the first `failures` attempts.
fn failing_handler(failures: u32) -> (impl Handler, UnboundedReceiver<Delivery>) {
    let (sender, deliveries) = unbounded_channel();
    let handler = handler_fn(move |delivery: Delivery| {
        let fails = delivery.attempt() <= failures;
        let _ = sender.send(delivery);
        async move {
            if fails {
                Err(Failure::default())?;
            }
            Ok(())
        }
    });
    (handler, deliveries)
}

#[derive(Debug, Default, thiserror::Error)]
#[error("cannot book the export")]
struct Failure(#[source] Cause);

#[derive(Debug, Default, thiserror::Error)]
#[error("the ledger refused")]
struct Cause(#[source] RootCause);

#[derive(Debug, Default, thiserror::Error)]
#[error("the period is closed")]
struct RootCause;

#[derive(Debug)]
struct PanickingError;

impl core::fmt::Display for PanickingError {
    fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        panic!("this panic is part of the test")
    }
}

impl core::error::Error for PanickingError {}

/// Notifies the test when it is dropped.
struct NotifyOnDrop(UnboundedSender<()>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn completes_message_after_success() {
    let (handler, mut deliveries) = failing_handler(0);
    let sent = NewMessage::new(PATH, "a", job(Timestamp::MAX));
    let before = Timestamp::now();
    let running = Running::start(options(), handler, [sent.clone()]).await;
    let delivery = within(deliveries.recv()).await.unwrap();
    assert_eq!((delivery.endpoint(), delivery.id()), (PATH, "a"));
    assert_eq!(delivery.event_type(), Some("type"));
    assert_eq!(delivery.event_id(), Some("event"));
    assert_eq!((delivery.attempt(), delivery.is_last_attempt()), (1, false));
    let age = delivery.received_at().duration_since(before);
    assert!((-1..60).contains(&age.as_secs()), "{age}");
    let limit = delivery.deadline().duration_since(before).as_secs();
    assert!((300..360).contains(&limit), "{limit}");
    let expiry = delivery.expires_at().unwrap();
    assert_eq!(expiry.as_millisecond(), Timestamp::MAX.as_millisecond());
    assert_eq!(delivery.body(), &sent.body);

    let receiver = running.stop().await;
    let entry = entry(receiver.inbox(), "a").await;
    let recorded = (entry.state, entry.attempts, entry.last_error);
    assert_eq!(recorded, (State::Done, 1, None));
    assert_handled(&receiver, 1, 0, 0);
}

#[tokio::test]
async fn dispatches_message_that_arrives_while_idle() {
    let (handler, mut deliveries) = failing_handler(0);
    let running = Running::start(options(), handler, []).await;
    for id in ["a", "b", "c"] {
        run_until_idle().await;
        running.receiver.inbox().append(message(id)).await.unwrap();
        assert_eq!(within(deliveries.recv()).await.unwrap().id(), id);
    }
    let receiver = running.stop().await;
    assert_counts(&receiver, 0, 3, 0).await;
}

#[tokio::test]
async fn counts_panic_as_failure() {
    let (sender, mut deliveries) = unbounded_channel();
    let handler = handler_fn(move |delivery: Delivery| {
        sender.send(delivery.attempt()).unwrap();
        // Panics before the future is returned, then inside the future.
        assert!(delivery.attempt() != 1, "this panic is part of the test");
        async move {
            assert!(delivery.attempt() != 2, "this panic is part of the test");
            // The description of the error panics.
            Err(PanickingError.into())
        }
    });
    let options = options().with_max_attempts(3);
    let running = Running::start(options, handler, [message("a")]).await;
    for attempt in [1, 2, 3] {
        assert_eq!(within(deliveries.recv()).await, Some(attempt));
    }
    let receiver = running.stop().await;
    let entry = entry(receiver.inbox(), "a").await;
    assert_eq!(entry.state, State::Dead);
    assert_eq!(entry.last_error.as_deref(), Some("handler panicked"));
    assert_handled(&receiver, 0, 2, 1);
}

#[tokio::test]
async fn drops_handler_at_timeout_and_counts_failure() {
    let (sender, mut dropped) = unbounded_channel();
    let handler = handler_fn(move |delivery: Delivery| {
        let on_drop = NotifyOnDrop(sender.clone());
        async move {
            if delivery.attempt() == 1 {
                pending::<()>().await;
            }
            drop(on_drop);
            Ok(())
        }
    });
    let options = options().with_timeout(Duration::from_millis(10));
    let running = Running::start(options, handler, [message("a")]).await;
    for _ in 0..2 {
        within(dropped.recv()).await.unwrap();
    }
    let receiver = running.stop().await;
    let entry = entry(receiver.inbox(), "a").await;
    assert_eq!((entry.state, entry.attempts), (State::Done, 2));
    assert_eq!(
        entry.last_error.as_deref(),
        Some("handler timed out after 10ms")
    );
    assert_handled(&receiver, 1, 1, 0);
}

#[tokio::test]
async fn marks_and_counts_expired_job() {
    let (handler, mut deliveries) = failing_handler(0);
    let messages = [("over", Timestamp::UNIX_EPOCH), ("in time", Timestamp::MAX)];
    let messages = messages.map(|(id, expires_at)| NewMessage::new(PATH, id, job(expires_at)));
    let running = Running::start(options(), handler, messages).await;
    for (id, is_expired) in [("in time", false), ("over", true)] {
        let delivery = within(deliveries.recv()).await.unwrap();
        assert_eq!((delivery.id(), delivery.is_expired()), (id, is_expired));
    }
    let receiver = running.stop().await;
    assert_counts(&receiver, 0, 2, 0).await;
    let line = format!("pleo_receiver_expired_total{{endpoint=\"{PATH}\"}}");
    assert_eq!(counted(&receiver, &line), 1);
}

#[tokio::test]
async fn dispatches_by_expiry() {
    let (handler, mut deliveries) = failing_handler(0);
    let options = options().with_concurrency(1);
    let expires_in =
        |id, hours: i64| NewMessage::new(PATH, id, job(Timestamp::now() + hours.hours()));
    let messages = [
        expires_in("over", -1),
        expires_in("late", 20),
        message("never"),
        expires_in("soon", 10),
    ];
    let running = Running::start(options, handler, messages).await;
    for id in ["soon", "late", "never", "over"] {
        assert_eq!(within(deliveries.recv()).await.unwrap().id(), id);
    }
    assert_counts(&running.stop().await, 0, 4, 0).await;
}

#[tokio::test]
async fn shutdown_waits_for_handler_and_starts_no_other() {
    let (entered, mut entries) = unbounded_channel();
    let release = Arc::new(Notify::new());
    let handler = {
        let release = Arc::clone(&release);
        handler_fn(move |delivery: Delivery| {
            entered.send(delivery.id().to_owned()).unwrap();
            let release = Arc::clone(&release);
            async move {
                release.notified().await;
                Ok(())
            }
        })
    };
    let options = options().with_concurrency(1);
    let running = Running::start(options, handler, ["a", "b"].map(message)).await;
    assert_eq!(within(entries.recv()).await.as_deref(), Some("a"));
    running.stop.send(()).unwrap();
    run_until_idle().await;
    // Most of the grace period passes.
    time::pause();
    time::advance(Duration::from_secs(19)).await;
    run_until_idle().await;
    assert!(!running.dispatch.is_finished());
    time::resume();
    release.notify_one();
    within(running.dispatch).await.unwrap().unwrap();
    assert_counts(&running.receiver, 1, 1, 0).await;
    assert_eq!(entry(running.receiver.inbox(), "b").await.attempts, 0);
    assert!(entries.try_recv().is_err(), "another handler started");
}

#[tokio::test]
async fn shutdown_drops_handler_after_grace_without_counting_attempt() {
    let (entered, mut entries) = unbounded_channel();
    let (sender, mut dropped) = unbounded_channel();
    let handler = handler_fn(move |_| {
        entered.send(()).unwrap();
        let on_drop = NotifyOnDrop(sender.clone());
        async move {
            pending::<()>().await;
            drop(on_drop);
            Ok(())
        }
    });
    let options = options().with_grace(Duration::from_millis(10));
    let running = Running::start(options, handler, [message("a")]).await;
    within(entries.recv()).await.unwrap();
    let receiver = running.stop().await;
    assert_eq!(dropped.try_recv(), Ok(()));
    let entry = entry(receiver.inbox(), "a").await;
    let recorded = (entry.state, entry.attempts, entry.due_at, entry.last_error);
    assert_eq!(recorded, (State::Pending, 0, None, None));
    assert_handled(&receiver, 0, 0, 0);
}

#[tokio::test]
async fn accepts_maximum_durations() {
    let (handler, mut deliveries) = failing_handler(1);
    let options = options()
        .with_timeout(Duration::MAX)
        .with_grace(Duration::MAX)
        .with_max_delay(Duration::MAX)
        .with_lease_ttl(Duration::MAX);
    let running = Running::start(options, handler, [message("a")]).await;
    for _ in 0..2 {
        within(deliveries.recv()).await.unwrap();
    }
    assert_counts(&running.stop().await, 0, 1, 0).await;
}

#[tokio::test]
async fn keeps_messages_pending_without_handler() {
    let builder = Receiver::builder(memory()).endpoint(endpoint());
    let (receiver, dispatcher) = builder.build().unwrap();
    receiver.inbox().append(message("a")).await.unwrap();
    within(dispatcher.run(run_until_idle())).await.unwrap();
    assert_counts(&receiver, 1, 0, 0).await;
    assert_eq!(entry(receiver.inbox(), "a").await.attempts, 0);
}

#[tokio::test]
async fn run_until_idle_dispatches_all_that_is_ready() {
    let (handler, mut deliveries) = failing_handler(1);
    let options = options().with_concurrency(2);
    let options = options.with_min_delay(Duration::from_secs(1000));
    let options = options.with_max_delay(Duration::from_secs(1000));
    let (receiver, mut dispatcher) = build(memory(), options, handler);
    for _ in 0..2 {
        within(dispatcher.run_until_idle()).await.unwrap();
    }
    for ids in [["a", "b", "c"], ["d", "e", "f"]] {
        for id in ids {
            receiver.inbox().append(message(id)).await.unwrap();
        }
        within(dispatcher.run_until_idle()).await.unwrap();
        for id in ids {
            assert_eq!(deliveries.try_recv().unwrap().id(), id);
            // The retry is scheduled, and not waited for.
            let entry = entry(receiver.inbox(), id).await;
            assert_eq!((entry.leased, entry.attempts), (false, 1), "{id}");
        }
    }
    assert_handled(&receiver, 0, 6, 0);
}

#[tokio::test]
async fn run_until_idle_dispatches_what_arrives_while_handler_runs() {
    let (handler, mut slow) = SlowHandler::new();
    let options = options().with_concurrency(1);
    let (receiver, mut dispatcher) = build(memory(), options, handler);
    receiver.inbox().append(message("a")).await.unwrap();
    let append = async {
        slow.attempts.recv().await.unwrap();
        receiver.inbox().append(message("b")).await.unwrap();
        // The endpoint is at its limit: a lease request returns nothing.
        run_until_idle().await;
        slow.permits.add_permits(2);
    };
    let (result, ()) = within(async { tokio::join!(dispatcher.run_until_idle(), append) }).await;
    result.unwrap();
    assert_counts(&receiver, 0, 2, 0).await;
}

#[tokio::test]
async fn run_until_idle_returns_without_handler() {
    let builder = Receiver::builder(memory()).endpoint(endpoint());
    let (receiver, mut dispatcher) = builder.build().unwrap();
    receiver.inbox().append(message("a")).await.unwrap();
    within(dispatcher.run_until_idle()).await.unwrap();
    assert_counts(&receiver, 1, 0, 0).await;
}
