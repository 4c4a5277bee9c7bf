//! Tests of retries: when, how often, and dead messages.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use pleo_receiver::{Delivery, HandlerError, LeaseRequest, Selection, State};
use tokio::sync::mpsc::unbounded_channel;

use super::{
    Running, assert_counts, assert_handled, entry, failing_handler, message, options,
    receiver_with, run_until_idle, within,
};

#[tokio::test]
async fn retries_until_success() {
    let (handler, mut deliveries) = failing_handler(2);
    let running = Running::start(options(), handler, [message("a")]).await;
    for attempt in 1..=3 {
        let delivery = within(deliveries.recv()).await.unwrap();
        assert_eq!((delivery.attempt, &*delivery.body), (attempt, &b"a"[..]));
    }
    let receiver = running.stop().await;
    let entry = entry(&receiver, "a").await;
    assert_eq!((entry.state, entry.attempts), (State::Done, 3));
    assert_handled(&receiver, 1, 2, 0);
    assert!(deliveries.try_recv().is_err(), "redelivered after success");
}

#[tokio::test]
async fn last_failure_marks_message_dead_with_error_chain() {
    let (handler, mut deliveries) = failing_handler(u32::MAX);
    let options = options().with_max_attempts(3);
    let running = Running::start(options, handler, [message("a")]).await;
    for _ in 0..3 {
        within(deliveries.recv()).await.unwrap();
    }
    let receiver = running.stop().await;
    let entry = entry(&receiver, "a").await;
    let recorded = (entry.state, entry.attempts, entry.due_at);
    assert_eq!(recorded, (State::Dead, 3, None));
    assert_eq!(
        entry.last_error.as_deref(),
        Some("cannot book the export: the ledger refused: the period is closed")
    );
    assert_handled(&receiver, 0, 2, 1);
    assert!(
        deliveries.try_recv().is_err(),
        "redelivered after it was dead"
    );
}

#[tokio::test]
async fn attempts_at_least_once() {
    let (handler, mut deliveries) = failing_handler(1);
    let options = options()
        .with_max_attempts(0)
        .with_concurrency(0)
        .with_total_concurrency(0);
    let running = Running::start(options, handler, [message("a")]).await;
    within(deliveries.recv()).await.unwrap();
    assert_counts(&running.stop().await, 0, 0, 1).await;
}

#[tokio::test]
async fn last_attempt_that_never_ended_marks_message_dead() {
    let (handler, mut deliveries) = failing_handler(0);
    let options = options().with_max_attempts(2);
    let receiver = receiver_with(options, handler, ["a", "b"].map(message)).await;
    // Two attempts of `a` and one of `b` start. None ends before its lease.
    for (second, messages) in [(0, 2), (100, 1)] {
        let now = Timestamp::from_second(second).unwrap();
        let lease =
            receiver
                .inbox()
                .lease(LeaseRequest::new(messages), now, Duration::from_secs(10));
        assert_eq!(lease.await.unwrap().messages.len(), messages);
    }
    let mut dispatched = Vec::new();
    let done = async { dispatched.push(deliveries.recv().await.unwrap()) };
    within(receiver.dispatch(done)).await;
    let dispatched = dispatched.remove(0);
    assert_eq!((&*dispatched.webhook_id, dispatched.attempt), ("b", 2));
    assert!(deliveries.try_recv().is_err(), "`a` was dispatched again");
    let entry = entry(&receiver, "a").await;
    assert_eq!((entry.state, entry.attempts), (State::Dead, 2));
    let error = entry.last_error.unwrap();
    assert!(error.starts_with("2 of 2 attempts started"), "{error}");
    assert_counts(&receiver, 0, 1, 1).await;
    assert_handled(&receiver, 1, 0, 1);

    assert_eq!(receiver.inbox().replay(Selection::dead()).await.unwrap(), 1);
    let again = async { assert_eq!(deliveries.recv().await.unwrap().attempt, 1) };
    within(receiver.dispatch(again)).await;
    assert_counts(&receiver, 0, 2, 0).await;
}

#[tokio::test]
async fn waits_for_retry_delay() {
    let (handler, mut deliveries) = failing_handler(1);
    let options = options()
        .with_min_delay(Duration::from_secs(1000))
        .with_max_delay(Duration::from_secs(1000));
    let before = Timestamp::now();
    let running = Running::start(options, handler, [message("a")]).await;
    within(deliveries.recv()).await.unwrap();
    let receiver = running.stop().await;
    let delay = entry(&receiver, "a")
        .await
        .due_at
        .unwrap()
        .duration_since(before);
    assert!((1000..2100).contains(&delay.as_secs()), "{delay}");
    assert_counts(&receiver, 1, 0, 0).await;
    assert!(deliveries.try_recv().is_err());
}

#[tokio::test]
async fn dispatches_dead_message_after_replay() {
    let (sender, mut deliveries) = unbounded_channel();
    let healed = Arc::new(AtomicUsize::new(0));
    let handler = {
        let healed = Arc::clone(&healed);
        move |delivery: Delivery| {
            let result = match healed.load(Ordering::SeqCst) {
                0 => Err(HandlerError::from("broken")),
                _ => Ok(()),
            };
            sender.send(delivery.attempt).unwrap();
            async { result }
        }
    };
    let options = options().with_max_attempts(1);
    let running = Running::start(options, handler, [message("a")]).await;
    assert_eq!(within(deliveries.recv()).await, Some(1));
    run_until_idle().await;
    assert_counts(&running.receiver, 0, 0, 1).await;

    healed.store(1, Ordering::SeqCst);
    let replayed = running
        .receiver
        .inbox()
        .replay(Selection::dead())
        .await
        .unwrap();
    assert_eq!(replayed, 1);
    assert_eq!(within(deliveries.recv()).await, Some(1));
    let receiver = running.stop().await;
    assert_counts(&receiver, 0, 1, 0).await;
    assert_handled(&receiver, 1, 0, 1);
}
