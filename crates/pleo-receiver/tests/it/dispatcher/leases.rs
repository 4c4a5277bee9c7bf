//! Tests of leases: renewal, loss, and outcomes that are recorded late. Time is paused.

use core::time::Duration;
use std::sync::Arc;

use pleo_receiver::{AttemptResult, DispatchOptions, Handler, Inbox, InboxErrorKind, State};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{self, Instant};

use super::faults::{Behavior, FaultyInbox};
use super::{
    NotifyOnDrop, Running, assert_handled, entry, handled, message, options, run_until_idle, within,
};
use crate::support::stored;
use pleo_receiver::{Delivery, handler_fn};

/// Longer than any lease in these tests.
const LONG: Duration = Duration::from_secs(600);

/// A handler that runs until it gets a permit.
pub(super) struct SlowHandler {
    pub(super) attempts: UnboundedReceiver<u32>,
    pub(super) dropped: UnboundedReceiver<()>,
    pub(super) permits: Arc<Semaphore>,
}

impl SlowHandler {
    pub(super) fn new() -> (impl Handler, Self) {
        let (started, attempts) = unbounded_channel();
        let (sender, dropped) = unbounded_channel();
        let permits = Arc::new(Semaphore::new(0));
        let handler = {
            let permits = Arc::clone(&permits);
            handler_fn(move |delivery: Delivery| {
                let on_drop = NotifyOnDrop(sender.clone());
                let permits = Arc::clone(&permits);
                started.send(delivery.attempt()).unwrap();
                async move {
                    permits.acquire().await.unwrap().forget();
                    drop(on_drop);
                    Ok(())
                }
            })
        };
        let control = Self {
            attempts,
            dropped,
            permits,
        };
        (handler, control)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_for_blocking_handler_that_lost_its_lease() {
    let inbox = Arc::new(FaultyInbox::new());
    inbox.append(message("a")).await.unwrap();
    inbox.renew.set(Behavior::Fail(InboxErrorKind::Unavailable));
    let (started, mut attempts) = unbounded_channel();
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let blocked = Arc::new(blocked);
    let handler = handler_fn(move |delivery: Delivery| {
        let (started, blocked) = (started.clone(), Arc::clone(&blocked));
        async move {
            started.send(delivery.attempt()).unwrap();
            if delivery.attempt() == 1 {
                let _ = blocked.lock().unwrap().recv();
            }
            Ok(())
        }
    });
    let options = options().with_lease_ttl(Duration::from_secs(1));
    let running = Running::start_with(Arc::clone(&inbox), options, handler);
    assert_eq!(within(attempts.recv()).await, Some(1));
    // The message is leased again.
    while entry(&*inbox, "a").await.attempts < 2 {
        time::sleep(Duration::from_millis(5)).await;
    }
    let early = time::timeout(Duration::from_millis(200), attempts.recv()).await;
    assert!(early.is_err(), "{early:?}");
    unblock.send(()).unwrap();
    assert!(within(attempts.recv()).await >= Some(2));
    running.stop().await;
}

fn long_options() -> DispatchOptions {
    options().with_timeout(10 * LONG)
}

/// Starts a dispatcher with one message whose handler runs.
async fn start() -> (Arc<FaultyInbox>, Running, SlowHandler) {
    let inbox = Arc::new(FaultyInbox::new());
    inbox.append(message("a")).await.unwrap();
    let (handler, mut control) = SlowHandler::new();
    let running = Running::start_with(Arc::clone(&inbox), long_options(), handler);
    assert_eq!(control.attempts.recv().await, Some(1));
    (inbox, running, control)
}

#[tokio::test(start_paused = true)]
async fn renews_lease_while_handler_runs() {
    let (inbox, running, mut handler) = start().await;
    time::sleep(LONG).await;
    assert!(entry(&*inbox, "a").await.leased);
    handler.permits.add_permits(1);
    handler.dropped.recv().await.unwrap();
    let receiver = running.stop().await;
    let stored = stored(&*inbox, "a").await;
    assert_eq!(
        (stored.entry.state, stored.entry.attempts),
        (State::Done, 1)
    );
    assert_handled(&receiver, 1, 0, 0);
    // The default lease lasts 30 seconds and is renewed after 10.
    assert_eq!(inbox.renew.calls(), LONG.as_secs() / 10);
}

#[tokio::test(start_paused = true)]
async fn stops_handler_whose_lease_is_lost() {
    let (inbox, running, mut handler) = start().await;
    inbox.renew.set(Behavior::Lose);
    let start = Instant::now();
    handler.dropped.recv().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 10);
    inbox.renew.set(Behavior::Work);
    // The store redelivers the message when the lease that was not renewed ends.
    assert_eq!(handler.attempts.recv().await, Some(2));
    assert_eq!(start.elapsed().as_secs(), 30);
    assert_eq!(inbox.complete.calls(), 0, "the outcome was recorded");
    handler.permits.add_permits(1);
    handler.dropped.recv().await.unwrap();
    let receiver = running.stop().await;
    assert_eq!(
        results(&inbox).await,
        [AttemptResult::Lost, AttemptResult::Done]
    );
    assert_eq!(handled(&receiver, "lost"), 1);
    assert_handled(&receiver, 1, 0, 0);
}

#[tokio::test(start_paused = true)]
async fn stops_handler_whose_lease_is_not_renewed_in_time() {
    let unavailable = Behavior::Fail(InboxErrorKind::Unavailable);
    for behavior in [unavailable, Behavior::Hang] {
        let (inbox, running, mut handler) = start().await;
        let start = Instant::now();
        inbox.renew.set(behavior);
        inbox.lease.set(unavailable);
        handler.dropped.recv().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 30, "{behavior:?}");
        time::sleep(LONG).await;
        assert_eq!(inbox.complete.calls(), 0, "the outcome was recorded");
        inbox.renew.set(Behavior::Work);
        inbox.lease.set(Behavior::Work);
        assert_eq!(handler.attempts.recv().await, Some(2));
        handler.permits.add_permits(1);
        handler.dropped.recv().await.unwrap();
        let receiver = running.stop().await;
        assert_eq!(
            results(&inbox).await,
            [AttemptResult::Lost, AttemptResult::Done]
        );
        assert_eq!(handled(&receiver, "lost"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn keeps_handler_whose_lease_is_renewed_late() {
    // All renewals fail, or one hangs.
    for (behavior, seconds) in [
        (Behavior::Fail(InboxErrorKind::Busy), 28),
        (Behavior::Hang, 15),
    ] {
        let (inbox, running, mut handler) = start().await;
        inbox.renew.set(behavior);
        time::sleep(Duration::from_secs(seconds)).await;
        inbox.renew.set(Behavior::Work);
        time::sleep(LONG).await;
        assert!(handler.dropped.is_empty(), "{behavior:?}");
        handler.permits.add_permits(1);
        handler.dropped.recv().await.unwrap();
        assert_handled(&running.stop().await, 1, 0, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn repeats_outcome_while_lease_is_renewed() {
    for behavior in [Behavior::Fail(InboxErrorKind::Unavailable), Behavior::Hang] {
        let (inbox, running, mut handler) = start().await;
        inbox.complete.set(behavior);
        handler.permits.add_permits(1);
        handler.dropped.recv().await.unwrap();
        time::sleep(LONG).await;
        assert!(entry(&*inbox, "a").await.leased, "{behavior:?}");
        inbox.complete.set(Behavior::Work);
        time::sleep(Duration::from_secs(31)).await;
        let entry = entry(&*inbox, "a").await;
        assert_eq!((entry.state, entry.attempts), (State::Done, 1));
        assert!(handler.attempts.is_empty(), "the handler ran again");
        assert_handled(&running.stop().await, 1, 0, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn renews_no_lease_after_its_outcome_is_recorded() {
    let (inbox, running, mut handler) = start().await;
    handler.permits.add_permits(1);
    handler.dropped.recv().await.unwrap();
    run_until_idle().await;
    time::sleep(LONG).await;
    assert_eq!(inbox.renew.calls(), 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn renews_shortest_lease_in_time_after_options_change() {
    let (inbox, running, mut handler) = start().await;
    // The message of the new handler has a shorter lease than the one of the old handler.
    let (other, mut new) = SlowHandler::new();
    let options = long_options()
        .with_grace(10 * LONG)
        .with_lease_ttl(Duration::from_secs(3));
    inbox.append(message("b")).await.unwrap();
    handler.attempts.recv().await.unwrap();
    running
        .receiver
        .replace_handler(Some(Arc::new(other)), options);
    run_until_idle().await;
    inbox.append(message("c")).await.unwrap();
    new.attempts.recv().await.unwrap();
    // All are renewed for 3 seconds from now on. The old handlers end first after their grace.
    time::sleep(Duration::from_secs(15)).await;
    for id in ["a", "b", "c"] {
        assert!(entry(&*inbox, id).await.leased, "{id}");
    }
    inbox.renew.set(Behavior::Fail(InboxErrorKind::Unavailable));
    time::sleep(Duration::from_secs(4)).await;
    assert_eq!((handler.dropped.len(), new.dropped.len()), (2, 1));
    running.dispatch.abort();
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_outcome_to_be_recorded() {
    let (inbox, running, mut handler) = start().await;
    inbox.complete.set(Behavior::Fail(InboxErrorKind::Busy));
    handler.permits.add_permits(1);
    handler.dropped.recv().await.unwrap();
    let recover = async {
        time::sleep(Duration::from_secs(4)).await;
        inbox.complete.set(Behavior::Work);
    };
    tokio::join!(running.stop(), recover);
    assert_eq!(entry(&*inbox, "a").await.state, State::Done);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_if_outcome_cannot_be_recorded() {
    let (inbox, running, mut handler) = start().await;
    inbox.complete.set(Behavior::Hang);
    handler.permits.add_permits(1);
    handler.dropped.recv().await.unwrap();
    let start = Instant::now();
    running.stop().await;
    assert_eq!(start.elapsed().as_secs(), 5);
    assert!(entry(&*inbox, "a").await.leased);
}

#[tokio::test(start_paused = true)]
async fn shutdown_renews_lease_during_grace() {
    let (inbox, running, mut handler) = start().await;
    let release = async {
        time::sleep(Duration::from_secs(19)).await;
        let entry = entry(&*inbox, "a").await;
        assert!(entry.leased);
        assert_eq!(inbox.renew.calls(), 1);
        handler.permits.add_permits(1);
        handler.dropped.recv().await.unwrap();
    };
    let (receiver, ()) = within(async { tokio::join!(running.stop(), release) }).await;
    assert_handled(&receiver, 1, 0, 0);
}

/// Returns how the attempts of message `a` ended.
async fn results(inbox: &FaultyInbox) -> Vec<AttemptResult> {
    let attempts = stored(inbox, "a").await.attempts;
    attempts.iter().map(|attempt| attempt.result).collect()
}
