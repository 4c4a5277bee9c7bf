//! Waiting for changes.

use core::future::poll_fn;
use core::task::Poll;
use std::sync::Arc;

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{TTL, dead, message, message_to, request, retry, soon};
use crate::inbox::{LeaseRequest, Outcome, Selection, Version};

pub async fn resolves_after_each_kind_of_change<H: Harness>(suite: Suite<H>) {
    let [inbox, other] = suite.replicas().await;
    let seen = async || inbox.lease(request(0)).await.unwrap().version;
    let wait = async |what: &str, seen: Version| soon(what, inbox.changed(seen)).await;

    let version = seen().await;
    suite.store(message("a")).await;
    wait("append", version).await;

    let version = seen().await;
    let leased = other.lease(request(1)).await.unwrap();
    wait("lease by another process", version).await;

    let mut lease = leased.messages[0].lease;
    for outcome in [Outcome::Release, retry(0), dead()] {
        let version = seen().await;
        other.complete(lease, outcome.clone()).await.unwrap();
        wait(&format!("{outcome:?}"), version).await;
        if !matches!(outcome, Outcome::Dead { .. }) {
            lease = suite.lease_one().await.lease;
        }
    }

    let version = seen().await;
    other.replay(Selection::dead()).await.unwrap();
    wait("replay", version).await;

    for paused in [true, false] {
        let version = seen().await;
        other.set_paused("books".into(), paused).await.unwrap();
        wait("pause or resume", version).await;
    }
}

/// Also if another process took it and ended.
pub async fn lost_message_is_announced<H: Harness>(suite: Suite<H>) {
    let [inbox, other] = suite.replicas().await;
    suite.store(message("a")).await;
    let idle = inbox.lease(request(0)).await.unwrap();
    assert_eq!(idle.next_due_in, None);
    let ttl = TTL / 2;
    let taken = other
        .lease(LeaseRequest::new(1, ttl, "other"))
        .await
        .unwrap();
    assert_eq!(taken.messages.len(), 1);
    soon("lease by another process", inbox.changed(idle.version)).await;
    let next_due_in = inbox.lease(request(1)).await.unwrap().next_due_in;
    assert!(next_due_in.is_some_and(|due| due <= ttl), "{next_due_in:?}");
}

pub async fn resolves_at_once_for_earlier_version<H: Harness>(suite: Suite<H>) {
    let first = suite.lease_with(request(1)).await.version;
    suite.store_all(["a", "b"]).await;
    let second = suite.lease_with(request(1)).await.version;
    assert_ne!(first, second);
    suite.store(message("c")).await;
    for _ in 0..3 {
        soon("first version", suite.inbox.changed(first)).await;
        soon("second version", suite.inbox.changed(second)).await;
    }
}

/// So that a caller that waits does not spin.
pub async fn settles_without_changes<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b"]).await;
    for max in [1, 1, 1, 0] {
        suite.lease(max).await;
    }
    let mut resolved = 0;
    for _ in 0..100 {
        let version = suite.lease_with(request(1)).await.version;
        let mut changed = suite.inbox.changed(version);
        let poll = poll_fn(|context| Poll::Ready(changed.as_mut().poll(context)));
        resolved += i32::from(poll.await.is_ready());
    }
    assert!(
        resolved < 50,
        "{resolved} of 100 waits resolved without a change"
    );
}

pub async fn wakes_all_waiters<H: Harness>(suite: Suite<H>) {
    for round in 0..20 {
        let version = suite.lease_with(request(0)).await.version;
        let mut waiters = Vec::new();
        for inbox in suite.replicas().await.into_iter().cycle().take(8) {
            waiters.push(tokio::spawn(async move { inbox.changed(version).await }));
        }
        tokio::task::yield_now().await;
        suite.store(message(&round.to_string())).await;
        for waiter in waiters {
            soon("one of several waiters", waiter).await.unwrap();
        }
    }
}

/// A waiter that is dropped takes no wake-up away from another, and a later one is woken too.
pub async fn dropped_waiter_loses_no_change<H: Harness>(suite: Suite<H>) {
    for round in 0..20 {
        let version = suite.lease_with(request(0)).await.version;
        let inbox = Arc::clone(&suite.inbox);
        let waiter = tokio::spawn(async move { inbox.changed(version).await });
        let mut dropped = [suite.inbox.changed(version), suite.inbox.changed(version)];
        for dropped in &mut dropped {
            let _ = poll_fn(|context| Poll::Ready(dropped.as_mut().poll(context))).await;
        }
        suite.store(message_to("sales", &round.to_string())).await;
        drop(dropped);
        soon("waiter", waiter).await.unwrap();
        soon("later waiter", suite.inbox.changed(version)).await;
    }
}

pub async fn close_wakes_waiters<H: Harness>(suite: Suite<H>) {
    let version = suite.lease_with(request(0)).await.version;
    let inbox = Arc::clone(&suite.inbox);
    let waiter = tokio::spawn(async move { inbox.changed(version).await });
    tokio::task::yield_now().await;
    suite.inbox.close().await.unwrap();
    soon("waiter of a closed store", waiter).await.unwrap();
}
