//! Tests of retries: when, how often, and dead messages.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use pleo_receiver::inbox::LeaseRequest;
use pleo_receiver::{Delivery, HandlerError, Inbox, Selection, State, handler_fn};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{self, Instant};

use super::{
    Failure, Running, assert_counts, assert_handled, entry, failing_handler, memory, message,
    options, run_until_idle, within,
};

#[tokio::test]
async fn retries_until_success() {
    let (handler, mut deliveries) = failing_handler(2);
    let running = Running::start(options(), handler, [message("a")]).await;
    for attempt in 1..=3 {
        let delivery = within(deliveries.recv()).await.unwrap();
        assert_eq!(
            (delivery.attempt(), &delivery.body()[..]),
            (attempt, &b"a"[..])
        );
    }
    let receiver = running.stop().await;
    let entry = entry(receiver.inbox(), "a").await;
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
    let entry = entry(receiver.inbox(), "a").await;
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

#[tokio::test(start_paused = true)]
async fn last_attempt_that_never_ended_marks_message_dead() {
    let inbox = Arc::new(memory());
    for id in ["a", "b"] {
        inbox.append(message(id)).await.unwrap();
    }
    // Two attempts of `a` and one of `b` start. None ends before its lease.
    for max in [2, 1] {
        let request = LeaseRequest::new(max, Duration::from_secs(10), "killed");
        assert_eq!(inbox.lease(request).await.unwrap().messages.len(), max);
        time::sleep(Duration::from_secs(10)).await;
    }
    let options = options().with_max_attempts(2);
    let (handler, mut deliveries) = failing_handler(0);
    let running = Running::start_with(Arc::clone(&inbox), options.clone(), handler);
    let delivery = within(deliveries.recv()).await.unwrap();
    assert_eq!((delivery.id(), delivery.attempt()), ("b", 2));
    assert!(delivery.is_last_attempt());
    let receiver = running.stop().await;
    assert!(deliveries.try_recv().is_err(), "`a` was dispatched again");
    let entry = entry(&*inbox, "a").await;
    assert_eq!(entry.state, State::Dead);
    let error = entry.last_error.unwrap();
    assert!(error.starts_with("2 of 2 attempts started"), "{error}");
    assert_counts(&receiver, 0, 1, 1).await;
    assert_handled(&receiver, 1, 0, 1);

    assert_eq!(inbox.replay(Selection::dead()).await.unwrap(), 1);
    let (handler, mut deliveries) = failing_handler(0);
    let running = Running::start_with(inbox, options, handler);
    assert_eq!(within(deliveries.recv()).await.unwrap().attempt(), 1);
    assert_counts(&running.stop().await, 0, 2, 0).await;
}

#[tokio::test]
async fn permanent_failure_marks_message_dead_at_once() {
    let handler = handler_fn(async |_| Err(HandlerError::permanent(Failure::default())));
    let running = Running::start(options(), handler, [message("a")]).await;
    run_until_idle().await;
    let receiver = running.stop().await;
    let entry = entry(receiver.inbox(), "a").await;
    assert_eq!((entry.state, entry.attempts), (State::Dead, 1));
    assert_eq!(
        entry.last_error.as_deref(),
        Some("cannot book the export: the ledger refused: the period is closed")
    );
    assert_handled(&receiver, 0, 0, 1);
}

#[tokio::test]
async fn unreadable_event_marks_message_dead_at_once() {
    let handler = handler_fn(async |delivery| {
        delivery.event()?;
        Ok(())
    });
    let running = Running::start(options(), handler, [message("not JSON")]).await;
    run_until_idle().await;
    assert_handled(&running.stop().await, 0, 0, 1);
}

#[tokio::test(start_paused = true)]
async fn handler_chooses_retry_delay_up_to_maximum() {
    for (chosen, expected) in [(0, 0), (90, 90), (3600, 600)] {
        let (sender, mut attempts) = unbounded_channel();
        let handler = handler_fn(move |delivery: Delivery| {
            sender.send((delivery.attempt(), Instant::now())).unwrap();
            async move {
                match delivery.attempt() {
                    1 => Err(HandlerError::retry_after(
                        Duration::from_secs(chosen),
                        "busy",
                    )),
                    _ => Ok(()),
                }
            }
        });
        let options = options().with_max_delay(Duration::from_secs(600));
        let running = Running::start(options, handler, [message("a")]).await;
        let (_, first) = attempts.recv().await.unwrap();
        let (attempt, second) = attempts.recv().await.unwrap();
        assert_eq!(attempt, 2);
        let delay = (second - first).as_secs_f64();
        assert!(
            (delay - f64::from(expected)).abs() < 0.1,
            "{chosen}: {delay}"
        );
        assert_handled(&running.stop().await, 1, 1, 0);
    }
}

#[tokio::test]
async fn chosen_delay_does_not_add_attempts() {
    let (sender, mut attempts) = unbounded_channel();
    let handler = handler_fn(move |delivery: Delivery| {
        sender.send(delivery.attempt()).unwrap();
        async { Err(HandlerError::retry_after(Duration::ZERO, "busy")) }
    });
    let options = options().with_max_attempts(3);
    let running = Running::start(options, handler, [message("a")]).await;
    for attempt in 1..=3 {
        assert_eq!(within(attempts.recv()).await, Some(attempt));
    }
    let receiver = running.stop().await;
    let entry = entry(receiver.inbox(), "a").await;
    assert_eq!((entry.state, entry.attempts), (State::Dead, 3));
    assert_handled(&receiver, 0, 2, 1);
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
    let delay = entry(receiver.inbox(), "a")
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
        handler_fn(move |delivery: Delivery| {
            let result = match healed.load(Ordering::SeqCst) {
                0 => Err(HandlerError::from("broken")),
                _ => Ok(()),
            };
            sender.send(delivery.attempt()).unwrap();
            async { result }
        })
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
