//! Tests of the concurrency limits, also when the handler is replaced.

use core::future::pending;
use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pleo_receiver::{Delivery, Handler, Inbox, NewMessage, handler_fn};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time;

use super::{Running, assert_counts, memory, message, options, run_until_idle, within};
use crate::support::PATH;

#[tokio::test]
async fn limits_concurrency_per_endpoint() {
    let (entered, mut entries) = unbounded_channel();
    let (release, running_now) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let release = Arc::clone(&release);
        handler_fn(move |_| {
            let (release, running_now) = (Arc::clone(&release), Arc::clone(&running_now));
            let entered = entered.clone();
            async move {
                let before = running_now.fetch_add(1, Ordering::SeqCst);
                entered.send(before + 1).unwrap();
                release.acquire().await.unwrap().forget();
                running_now.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        })
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
    let handler = handler_fn(move |delivery: Delivery| {
        entered.send(delivery.id().to_owned()).unwrap();
        async move {
            if delivery.endpoint() == PATH {
                pending::<()>().await;
            }
            Ok(())
        }
    });
    let options = options().with_concurrency(2).with_grace(Duration::ZERO);
    // All of these arrive first.
    let mut messages: Vec<_> = (0..100)
        .map(|number| message(&number.to_string()))
        .collect();
    for id in ["other 1", "other 2", "other 3"] {
        messages.push(NewMessage::new("other", id, "{}"));
    }
    let running = Running::start(options, handler, messages).await;
    let mut entered = Vec::new();
    for _ in 0..5 {
        entered.push(within(entries.recv()).await.unwrap());
    }
    entered.sort();
    assert_eq!(entered, ["0", "1", "other 1", "other 2", "other 3"]);
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
    let handler = handler_fn(move |_| {
        entered.send(()).unwrap();
        pending()
    });
    let options = options()
        .with_total_concurrency(3)
        .with_grace(Duration::ZERO);
    let messages = (0..10).map(|number| NewMessage::new(number.to_string(), "a", "{}"));
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
    handler_fn(move |delivery: Delivery| {
        let (entered, release) = (entered.clone(), Arc::clone(&release));
        async move {
            let (id, attempt) = (delivery.id(), delivery.attempt());
            entered.send(format!("{name} has {id} {attempt}")).unwrap();
            release.acquire().await.unwrap().forget();
            Ok(())
        }
    })
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
async fn limits_concurrency_of_all_processes_that_share_inbox() {
    for (concurrency, total_concurrency) in [(1, 64), (4, 1)] {
        let inbox = Arc::new(memory());
        for id in ["a", "b"] {
            inbox.append(message(id)).await.unwrap();
        }
        let (entered, mut entries) = unbounded_channel();
        let release = Arc::new(Semaphore::new(0));
        let options = options()
            .with_concurrency(concurrency)
            .with_total_concurrency(total_concurrency);
        let [first, second] = [(); 2].map(|()| {
            let handler = blocking_handler("one", &entered, &release);
            Running::start_with(Arc::clone(&inbox), options.clone(), handler)
        });
        assert_eq!(within(entries.recv()).await.unwrap(), "one has a 1");
        run_until_idle().await;
        assert!(entries.is_empty(), "{:?}", entries.try_recv());
        release.add_permits(2);
        assert_eq!(within(entries.recv()).await.unwrap(), "one has b 1");
        first.stop().await;
        assert_counts(&second.stop().await, 0, 2, 0).await;
    }
}
