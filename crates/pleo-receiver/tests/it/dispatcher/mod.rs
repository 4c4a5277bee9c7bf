//! Tests of the dispatcher: success, failure, order, shutdown.

mod concurrency;
mod retries;

use core::future::pending;
use core::time::Duration;
use std::sync::Arc;

use crate::support::job::job;
use crate::support::{PATH, counted, endpoint, run_until_idle, within};
use jiff::Timestamp;
use pleo_receiver::{
    Delivery, DispatchOptions, Entry, Handler, HandlerError, MemoryInbox, NewMessage, Receiver,
    State,
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

/// Builds a receiver with these messages in its inbox.
async fn receiver_with(
    options: DispatchOptions,
    handler: impl Handler,
    messages: impl IntoIterator<Item = NewMessage>,
) -> Receiver {
    let receiver = Receiver::builder()
        .endpoint(endpoint())
        .inbox(MemoryInbox::new())
        .handler(handler)
        .dispatch_options(options)
        .build()
        .unwrap();
    for message in messages {
        receiver.inbox().append(message).await.unwrap();
    }
    receiver
}

/// A receiver with a running dispatcher.
struct Running {
    receiver: Receiver,
    stop: oneshot::Sender<()>,
    dispatch: JoinHandle<()>,
}

impl Running {
    async fn start(
        options: DispatchOptions,
        handler: impl Handler,
        messages: impl IntoIterator<Item = NewMessage>,
    ) -> Self {
        let receiver = receiver_with(options, handler, messages).await;
        let (stop, stopped) = oneshot::channel();
        let dispatch = tokio::spawn({
            let receiver = receiver.clone();
            async move {
                let shutdown = async { drop(stopped.await) };
                receiver.dispatch(shutdown).await;
            }
        });
        Self {
            receiver,
            stop,
            dispatch,
        }
    }

    /// Shuts down gracefully, so that all outcomes are recorded.
    async fn stop(self) -> Receiver {
        self.stop.send(()).unwrap();
        within(self.dispatch).await.unwrap();
        self.receiver
    }
}

fn message(id: &str) -> NewMessage {
    NewMessage {
        received_at: Timestamp::UNIX_EPOCH,
        ..NewMessage::new(PATH, id, id.to_owned())
    }
}

async fn entry(receiver: &Receiver, id: &str) -> Entry {
    receiver.inbox().show(id.into()).await.unwrap().remove(0).0
}

async fn assert_counts(receiver: &Receiver, pending: u64, done: u64, dead: u64) {
    let counts = receiver.inbox().counts().await.unwrap();
    let counts = (counts.pending, counts.done, counts.dead);
    assert_eq!(counts, (pending, done, dead));
}

fn assert_handled(receiver: &Receiver, done: u64, retry: u64, dead: u64) {
    for (outcome, expected) in [("done", done), ("retry", retry), ("dead", dead)] {
        let line =
            format!("pleo_receiver_handled_total{{endpoint=\"{PATH}\",outcome=\"{outcome}\"}}");
        assert_eq!(counted(receiver, &line), expected, "{outcome}");
    }
}

/// A handler that sends each delivery to the test and fails the first `failures` attempts.
fn failing_handler(failures: u32) -> (impl Handler, UnboundedReceiver<Delivery>) {
    let (sender, deliveries) = unbounded_channel();
    let handler = move |delivery: Delivery| {
        let result = if delivery.attempt <= failures {
            Err(Failure::default())
        } else {
            Ok(())
        };
        let _ = sender.send(delivery);
        async { result }
    };
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
    let mut sent = message("a");
    sent.body = job(Timestamp::MAX);
    let running = Running::start(options(), handler, [sent.clone()]).await;
    let delivery = within(deliveries.recv()).await.unwrap();
    assert_eq!(delivery.endpoint, sent.endpoint);
    assert_eq!(delivery.webhook_id, "a");
    assert_eq!(delivery.event_type.as_deref(), Some("type"));
    assert_eq!(delivery.event_id.as_deref(), Some("event"));
    assert_eq!(delivery.attempt, 1);
    assert_eq!(delivery.received_at, sent.received_at);
    assert_eq!(delivery.expires_at, Some(Timestamp::MAX));
    assert_eq!(delivery.body, sent.body);

    let receiver = running.stop().await;
    let entry = entry(&receiver, "a").await;
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
        assert_eq!(within(deliveries.recv()).await.unwrap().webhook_id, id);
    }
    let receiver = running.stop().await;
    assert_counts(&receiver, 0, 3, 0).await;
}

#[tokio::test]
async fn counts_panic_as_failure() {
    let (sender, mut deliveries) = unbounded_channel();
    let handler = move |delivery: Delivery| {
        sender.send(delivery.attempt).unwrap();
        // Panics before the future is returned, then inside the future.
        assert!(delivery.attempt != 1, "this panic is part of the test");
        async move {
            assert!(delivery.attempt != 2, "this panic is part of the test");
            Err::<(), _>("no more panics")
        }
    };
    let options = options().with_max_attempts(2);
    let running = Running::start(options, handler, [message("a")]).await;
    for attempt in [1, 2] {
        assert_eq!(within(deliveries.recv()).await, Some(attempt));
    }
    let receiver = running.stop().await;
    let entry = entry(&receiver, "a").await;
    assert_eq!(entry.state, State::Dead);
    assert_eq!(entry.last_error.as_deref(), Some("handler panicked"));
    assert_handled(&receiver, 0, 1, 1);
}

#[tokio::test]
async fn drops_handler_at_timeout_and_counts_failure() {
    let (sender, mut dropped) = unbounded_channel();
    let handler = move |delivery: Delivery| {
        let on_drop = NotifyOnDrop(sender.clone());
        async move {
            if delivery.attempt == 1 {
                pending::<()>().await;
            }
            drop(on_drop);
            Ok::<_, HandlerError>(())
        }
    };
    let options = options().with_timeout(Duration::from_millis(10));
    let running = Running::start(options, handler, [message("a")]).await;
    for _ in 0..2 {
        within(dropped.recv()).await.unwrap();
    }
    let receiver = running.stop().await;
    let entry = entry(&receiver, "a").await;
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
    let messages = messages.map(|(id, expires_at)| NewMessage {
        body: job(expires_at),
        ..message(id)
    });
    let running = Running::start(options(), handler, messages).await;
    for (id, expired) in [("over", true), ("in time", false)] {
        let delivery = within(deliveries.recv()).await.unwrap();
        assert_eq!((&*delivery.webhook_id, delivery.expired), (id, expired));
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
    let messages = [("late", 20), ("never", 0), ("soon", 10)].map(|(id, second)| {
        let mut message = message(id);
        if second > 0 {
            message.body = job(Timestamp::from_second(second).unwrap());
        }
        message
    });
    let running = Running::start(options, handler, messages).await;
    for id in ["soon", "late", "never"] {
        assert_eq!(within(deliveries.recv()).await.unwrap().webhook_id, id);
    }
    assert_counts(&running.stop().await, 0, 3, 0).await;
}

#[tokio::test]
async fn shutdown_waits_for_handler_and_starts_no_other() {
    let (entered, mut entries) = unbounded_channel();
    let release = Arc::new(Notify::new());
    let handler = {
        let release = Arc::clone(&release);
        move |delivery: Delivery| {
            entered.send(delivery.webhook_id).unwrap();
            let release = Arc::clone(&release);
            async move {
                release.notified().await;
                Ok::<_, HandlerError>(())
            }
        }
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
    within(running.dispatch).await.unwrap();
    assert_counts(&running.receiver, 1, 1, 0).await;
    assert_eq!(entry(&running.receiver, "b").await.attempts, 0);
    assert!(entries.try_recv().is_err(), "another handler started");
}

#[tokio::test]
async fn shutdown_drops_handler_after_grace_without_counting_attempt() {
    let (entered, mut entries) = unbounded_channel();
    let (sender, mut dropped) = unbounded_channel();
    let handler = move |_: Delivery| {
        entered.send(()).unwrap();
        let on_drop = NotifyOnDrop(sender.clone());
        async move {
            pending::<()>().await;
            drop(on_drop);
            Ok::<_, HandlerError>(())
        }
    };
    let options = options().with_grace(Duration::from_millis(10));
    let running = Running::start(options, handler, [message("a")]).await;
    within(entries.recv()).await.unwrap();
    let receiver = running.stop().await;
    assert_eq!(dropped.try_recv(), Ok(()));
    let entry = entry(&receiver, "a").await;
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
        .with_max_delay(Duration::MAX);
    let receiver = receiver_with(options, handler, [message("a")]).await;
    let twice = async {
        for _ in 0..2 {
            deliveries.recv().await.unwrap();
        }
    };
    within(receiver.dispatch(twice)).await;
    assert_counts(&receiver, 0, 1, 0).await;
}

#[tokio::test]
async fn keeps_messages_pending_without_handler() {
    let receiver = Receiver::builder()
        .endpoint(endpoint())
        .inbox(MemoryInbox::new())
        .build()
        .unwrap();
    receiver.inbox().append(message("a")).await.unwrap();
    within(receiver.dispatch(run_until_idle())).await;
    assert_counts(&receiver, 1, 0, 0).await;
    assert_eq!(entry(&receiver, "a").await.attempts, 0);
}
