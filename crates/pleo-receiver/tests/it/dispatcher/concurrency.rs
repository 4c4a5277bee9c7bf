//! Tests of the concurrency limits, also when the handler is replaced.

use core::future::pending;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use pleo_receiver::{Delivery, Handler, HandlerError, LeaseRequest};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time;

use super::{Running, assert_counts, assert_handled, message, options, run_until_idle, within};
use crate::support::PATH;

#[tokio::test]
async fn limits_concurrency_per_endpoint() {
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
    let options = options().with_concurrency(3);
    let messages = ["a", "b", "c", "d", "e", "f", "g"].map(message);
    let running = Running::start(options, handler, messages).await;
    for at_once in 1..=3 {
        assert_eq!(within(entries.recv()).await, Some(at_once));
    }
    run_until_idle().await;
    assert!(entries.is_empty(), "a fourth handler started");
    // Each handler that ends is replaced by one.
    for _ in 0..4 {
        release.add_permits(1);
        assert_eq!(within(entries.recv()).await, Some(3));
        run_until_idle().await;
        assert!(entries.is_empty(), "two handlers replaced one");
    }
    release.add_permits(3);
    assert_counts(&running.stop().await, 0, 7, 0).await;
}

#[tokio::test]
async fn hanging_endpoint_does_not_delay_others() {
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
    let options = options().with_concurrency(2).with_grace(Duration::ZERO);
    // All of these come first in dispatch order.
    let mut messages: Vec<_> = (0..100)
        .map(|number| message(&number.to_string()))
        .collect();
    for id in ["other 1", "other 2", "other 3"] {
        let mut message = message(id);
        message.endpoint = "other".into();
        messages.push(message);
    }
    let running = Running::start(options, handler, messages).await;
    for id in ["0", "1", "other 1", "other 2", "other 3"] {
        assert_eq!(within(entries.recv()).await.as_deref(), Some(id));
    }
    run_until_idle().await;
    assert!(
        entries.is_empty(),
        "a third handler of the first endpoint started"
    );
    assert_counts(&running.stop().await, 100, 3, 0).await;
}

#[tokio::test]
async fn limits_total_concurrency() {
    let (entered, mut entries) = unbounded_channel();
    let handler = move |_: Delivery| {
        entered.send(()).unwrap();
        pending::<Result<(), HandlerError>>()
    };
    let options = options()
        .with_total_concurrency(3)
        .with_grace(Duration::ZERO);
    let messages = (0..10).map(|number| {
        let mut message = message("a");
        message.endpoint = number.to_string().into();
        message
    });
    let running = Running::start(options, handler, messages).await;
    for _ in 0..3 {
        within(entries.recv()).await.unwrap();
    }
    run_until_idle().await;
    assert!(entries.is_empty(), "a fourth handler started");
    assert_counts(&running.stop().await, 10, 0, 0).await;
}

/// A handler that reports each attempt to the test and ends it when it gets a permit.
fn blocking_handler(
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
async fn counts_attempts_of_replaced_handler() {
    let of_one_endpoint = ["a", "b"].map(message);
    let mut of_two = of_one_endpoint.clone();
    of_two[1].endpoint = "other".into();
    for (messages, concurrency, total_concurrency) in [(of_one_endpoint, 1, 64), (of_two, 4, 1)] {
        let (entered, mut entries) = unbounded_channel();
        let release = Arc::new(Semaphore::new(0));
        let options = options()
            .with_concurrency(concurrency)
            .with_total_concurrency(total_concurrency);
        let old = blocking_handler("old", &entered, &release);
        let running = Running::start(options.clone(), old, messages).await;
        assert_eq!(within(entries.recv()).await.unwrap(), "old has a 1");
        let new = Arc::new(blocking_handler("new", &entered, &release));
        running.receiver.replace_handler(Some(new), options);
        run_until_idle().await;
        assert!(entries.is_empty(), "{:?}", entries.try_recv());
        release.add_permits(1);
        assert_eq!(within(entries.recv()).await.unwrap(), "new has b 1");
        release.add_permits(1);
        assert_counts(&running.stop().await, 0, 2, 0).await;
    }
}

#[tokio::test]
async fn redelivers_to_new_handler_after_old_grace() {
    let (entered, mut entries) = unbounded_channel();
    let (never, at_once) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(9)));
    let options = options()
        .with_concurrency(1)
        .with_grace(Duration::from_secs(10));
    let old = blocking_handler("old", &entered, &never);
    let running = Running::start(options.clone(), old, [message("a")]).await;
    assert_eq!(within(entries.recv()).await.unwrap(), "old has a 1");
    time::pause();
    let options = options.with_grace(Duration::ZERO);
    let new = Arc::new(blocking_handler("new", &entered, &at_once));
    running.receiver.replace_handler(Some(new), options);
    run_until_idle().await;
    time::advance(Duration::from_millis(9900)).await;
    run_until_idle().await;
    assert!(entries.is_empty(), "{:?}", entries.try_recv());
    time::advance(Duration::from_millis(200)).await;
    time::resume();
    assert_eq!(within(entries.recv()).await.unwrap(), "new has a 1");
    assert_counts(&running.stop().await, 0, 1, 0).await;
}

#[tokio::test]
async fn does_not_redeliver_while_handler_runs_after_lease_ended() {
    let (entered, mut entries) = unbounded_channel();
    let release = Arc::new(Semaphore::new(0));
    let options = options().with_max_attempts(1);
    let handler = blocking_handler("one", &entered, &release);
    let running = Running::start(options, handler, [message("a")]).await;
    assert_eq!(within(entries.recv()).await.unwrap(), "one has a 1");
    // The lease ends while the handler runs, for instance because the machine slept.
    let tomorrow = Timestamp::now() + Duration::from_secs(24 * 3600);
    let inbox = running.receiver.inbox();
    let nothing = inbox
        .lease(LeaseRequest::new(0), tomorrow, Duration::ZERO)
        .await;
    assert!(nothing.unwrap().messages.is_empty());
    inbox.append(message("b")).await.unwrap();
    assert_eq!(within(entries.recv()).await.unwrap(), "one has b 1");
    run_until_idle().await;
    assert!(entries.is_empty(), "{:?}", entries.try_recv());
    release.add_permits(2);
    let receiver = running.stop().await;
    assert_counts(&receiver, 0, 2, 0).await;
    assert_handled(&receiver, 2, 0, 0);
}
