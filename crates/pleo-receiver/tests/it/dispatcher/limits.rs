//! How many messages a handler has at once, also when another takes its place.

use core::future::pending;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use pleo_receiver::{Delivery, Handler, HandlerError, LeaseRequest};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time;

use super::{Running, assert_counts, assert_handled, message, policy, settle_down, within};
use crate::support::PATH;

#[tokio::test]
async fn as_many_are_handled_at_once_as_allowed_and_no_more() {
    let (entered, mut entries) = unbounded_channel();
    let (release, running_now) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let release = Arc::clone(&release);
        move |_: Delivery| {
            let (release, running_now) = (Arc::clone(&release), Arc::clone(&running_now));
            let entered = entered.clone();
            async move {
                let before = running_now.fetch_add(1, Ordering::SeqCst);
                entered.send(before + 1).unwrap();
                release.acquire().await.unwrap().forget();
                running_now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, HandlerError>(())
            }
        }
    };
    let mut policy = policy();
    policy.concurrency = 3;
    let messages = ["a", "b", "c", "d", "e", "f", "g"].map(message);
    let running = Running::start(policy, handler, messages).await;
    for at_once in 1..=3 {
        assert_eq!(within(entries.recv()).await, Some(at_once));
    }
    settle_down().await;
    assert!(entries.is_empty(), "a fourth started");
    // Each that ends makes room for one.
    for _ in 0..4 {
        release.add_permits(1);
        assert_eq!(within(entries.recv()).await, Some(3));
        settle_down().await;
        assert!(entries.is_empty(), "two started where one ended");
    }
    release.add_permits(3);
    assert_counts(&running.stop().await, 0, 7, 0).await;
}

#[tokio::test]
async fn an_endpoint_whose_handlers_hang_keeps_nobody_waiting() {
    let (entered, mut entries) = unbounded_channel();
    let handler = move |delivery: Delivery| {
        entered.send(delivery.webhook_id).unwrap();
        async move {
            if delivery.endpoint.as_ref() == PATH {
                pending::<()>().await;
            }
            Ok::<_, HandlerError>(())
        }
    };
    let mut policy = policy();
    policy.concurrency = 2;
    policy.grace = Duration::ZERO;
    // All of these would go first.
    let mut messages: Vec<_> = (0..100)
        .map(|number| message(&number.to_string()))
        .collect();
    for id in ["other 1", "other 2", "other 3"] {
        let mut message = message(id);
        message.endpoint = "other".into();
        messages.push(message);
    }
    let running = Running::start(policy, handler, messages).await;
    for id in ["0", "1", "other 1", "other 2", "other 3"] {
        assert_eq!(within(entries.recv()).await.as_deref(), Some(id));
    }
    settle_down().await;
    assert!(entries.is_empty(), "a third of the first endpoint started");
    assert_counts(&running.stop().await, 100, 3, 0).await;
}

#[tokio::test]
async fn all_endpoints_together_get_no_more_than_allowed() {
    let (entered, mut entries) = unbounded_channel();
    let handler = move |_: Delivery| {
        entered.send(()).unwrap();
        pending::<Result<(), HandlerError>>()
    };
    let mut policy = policy();
    policy.total_concurrency = 3;
    policy.grace = Duration::ZERO;
    let messages = (0..10).map(|number| {
        let mut message = message("a");
        message.endpoint = number.to_string().into();
        message
    });
    let running = Running::start(policy, handler, messages).await;
    for _ in 0..3 {
        within(entries.recv()).await.unwrap();
    }
    settle_down().await;
    assert!(entries.is_empty(), "a fourth started");
    assert_counts(&running.stop().await, 10, 0, 0).await;
}

/// Tells the test who has which message, and keeps it until a permit comes.
fn keeping(
    name: &'static str,
    entered: &UnboundedSender<String>,
    release: &Arc<Semaphore>,
) -> impl Handler + use<> {
    let (entered, release) = (entered.clone(), Arc::clone(release));
    move |delivery: Delivery| {
        let (entered, release) = (entered.clone(), Arc::clone(&release));
        async move {
            let Delivery {
                webhook_id,
                attempt,
                ..
            } = delivery;
            entered
                .send(format!("{name} has {webhook_id} {attempt}"))
                .unwrap();
            release.acquire().await.unwrap().forget();
            Ok::<_, HandlerError>(())
        }
    }
}

#[tokio::test]
async fn what_the_old_handler_has_in_hand_counts_for_the_new_one() {
    let of_one_endpoint = ["a", "b"].map(message);
    let mut of_two = of_one_endpoint.clone();
    of_two[1].endpoint = "other".into();
    for (messages, concurrency, total_concurrency) in [(of_one_endpoint, 1, 64), (of_two, 4, 1)] {
        let (entered, mut entries) = unbounded_channel();
        let release = Arc::new(Semaphore::new(0));
        let mut policy = policy();
        policy.concurrency = concurrency;
        policy.total_concurrency = total_concurrency;
        let old = keeping("old", &entered, &release);
        let running = Running::start(policy.clone(), old, messages).await;
        assert_eq!(within(entries.recv()).await.unwrap(), "old has a 1");
        let new = Arc::new(keeping("new", &entered, &release));
        running.receiver.replace_handler(Some(new), policy);
        settle_down().await;
        assert!(entries.is_empty(), "{:?}", entries.try_recv());
        release.add_permits(1);
        assert_eq!(within(entries.recv()).await.unwrap(), "new has b 1");
        release.add_permits(1);
        assert_counts(&running.stop().await, 0, 2, 0).await;
    }
}

#[tokio::test]
async fn what_the_old_handler_keeps_beyond_the_old_grace_is_the_new_ones() {
    let (entered, mut entries) = unbounded_channel();
    let (never, at_once) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(9)));
    let mut policy = policy();
    (policy.concurrency, policy.grace) = (1, Duration::from_secs(10));
    let old = keeping("old", &entered, &never);
    let running = Running::start(policy.clone(), old, [message("a")]).await;
    assert_eq!(within(entries.recv()).await.unwrap(), "old has a 1");
    time::pause();
    policy.grace = Duration::ZERO;
    let new = Arc::new(keeping("new", &entered, &at_once));
    running.receiver.replace_handler(Some(new), policy);
    settle_down().await;
    time::advance(Duration::from_millis(9900)).await;
    settle_down().await;
    assert!(entries.is_empty(), "{:?}", entries.try_recv());
    time::advance(Duration::from_millis(200)).await;
    time::resume();
    assert_eq!(within(entries.recv()).await.unwrap(), "new has a 1");
    assert_counts(&running.stop().await, 0, 1, 0).await;
}

#[tokio::test]
async fn what_outlasts_its_lease_in_a_handler_is_not_handed_on_beside_it() {
    let (entered, mut entries) = unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    let mut policy = policy();
    policy.max_attempts = 1;
    let handler = keeping("one", &entered, &release);
    let running = Running::start(policy, handler, [message("a")]).await;
    assert_eq!(within(entries.recv()).await.unwrap(), "one has a 1");
    // As after a night in which the machine slept: the lease is over.
    let tomorrow = Timestamp::now() + Duration::from_secs(24 * 3600);
    let inbox = running.receiver.inbox();
    let nothing = inbox
        .lease(LeaseRequest::new(0), tomorrow, Duration::ZERO)
        .await;
    assert!(nothing.unwrap().messages.is_empty());
    inbox.append(message("b")).await.unwrap();
    assert_eq!(within(entries.recv()).await.unwrap(), "one has b 1");
    settle_down().await;
    assert!(entries.is_empty(), "{:?}", entries.try_recv());
    release.add_permits(2);
    let receiver = running.stop().await;
    assert_counts(&receiver, 0, 2, 0).await;
    assert_handled(&receiver, 2, 0, 0);
}
