//! Leasing messages: limits and several processes.

use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{TTL, dead, ids, message_to, request, retry};
use crate::inbox::{LeaseRequest, Outcome, State};

pub async fn leases_message_once<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b"]).await;
    let leased = suite.lease(10).await;
    assert_eq!(ids(&leased), ["a", "b"]);
    assert_ne!(leased[0].lease, leased[1].lease);
    for leased in &leased {
        assert_eq!(leased.attempt.get(), 1);
        assert_eq!(leased.message.entry.attempts, 1);
        assert!(leased.message.attempts.is_empty());
        let entry = suite.entry(&leased.message.entry.webhook_id).await;
        assert_eq!((entry.state, entry.leased), (State::Pending, true));
        assert_eq!((entry.attempts, entry.due_at), (1, None));
    }
    assert!(suite.lease(10).await.is_empty());
}

pub async fn leases_up_to_limits<H: Harness>(suite: Suite<H>) {
    for id in 0..4 {
        for endpoint in ["", "one", "two"] {
            suite.store(message_to(endpoint, &id.to_string())).await;
        }
    }
    let request = |max, total, per_endpoint| {
        let request = LeaseRequest::new(max, TTL, "worker").with_total(total);
        request.with_per_endpoint(per_endpoint)
    };
    let mut leases = 0;
    for (request, expected) in [
        (request(0, 9, 9), 0),
        (request(9, 0, 9), 0),
        (request(9, 9, 0), 0),
        (request(9, 9, 1), 3),
        (request(9, 9, 1), 0),
        // Two more in total.
        (request(9, 5, 9), 2),
        (request(9, 5, 9), 0),
        (request(1, 99, 99), 1),
        (request(99, 99, 3), 3),
        (request(usize::MAX, usize::MAX, usize::MAX), 3),
    ] {
        let leased = suite.lease_with(request.clone()).await.messages;
        assert_eq!(leased.len(), expected, "{request:?}");
        leases += leased.len();
    }
    assert_eq!(leases, 12);
}

pub async fn counts_leases_until_they_end<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b", "c", "d", "e"]).await;
    let one = request(10).with_per_endpoint(1);
    let total = request(10).with_total(1);
    let lease = |request: &LeaseRequest| suite.lease_with(request.clone());
    for outcome in [Outcome::Done, retry(1_000_000), dead()] {
        let leased = lease(&one).await.messages;
        assert_eq!(leased.len(), 1);
        assert!(lease(&one).await.messages.is_empty());
        assert!(lease(&total).await.messages.is_empty());
        suite.complete(leased[0].lease, outcome).await;
    }
    assert_eq!(ids(&lease(&total).await.messages), ["d"]);
    suite.advance(TTL.as_secs() * 2).await;
    // The lost lease counts no longer.
    assert_eq!(ids(&lease(&one).await.messages), ["d"]);
}

pub async fn processes_lease_each_message_once<H: Harness>(suite: Suite<H>) {
    for id in 0..200 {
        let endpoint = format!("endpoint {}", id % 4);
        suite.store(message_to(&endpoint, &id.to_string())).await;
    }
    let leased = Arc::new(Mutex::new((HashSet::new(), HashSet::new())));
    let mut processes = Vec::new();
    for inbox in suite.replicas().await.into_iter().cycle().take(4) {
        let all = Arc::clone(&leased);
        processes.push(tokio::spawn(async move {
            loop {
                let leased = inbox.lease(request(3)).await.unwrap().messages;
                if leased.is_empty() {
                    break;
                }
                let (messages, leases) = &mut *all.lock().unwrap();
                for leased in leased {
                    assert!(messages.insert(leased.message.entry.key()), "leased twice");
                    assert!(leases.insert(leased.lease), "lease id reused");
                }
            }
        }));
    }
    for process in processes {
        process.await.unwrap();
    }
    // Messages that another process examined may have been left out.
    let rest = suite.lease(200).await.len();
    assert_eq!(leased.lock().unwrap().0.len() + rest, 200);
}

pub async fn limits_hold_for_all_processes<H: Harness>(suite: Suite<H>) {
    const PER_ENDPOINT: usize = 2;
    const TOTAL: usize = 3;
    for id in 0..60 {
        let endpoint = if id % 6 == 0 { "quiet" } else { "busy" };
        suite.store(message_to(endpoint, &id.to_string())).await;
    }
    let running = Arc::new(Mutex::new(HashMap::<Arc<str>, usize>::new()));
    let mut processes = Vec::new();
    for inbox in suite.replicas().await.into_iter().cycle().take(4) {
        let running = Arc::clone(&running);
        processes.push(tokio::spawn(async move {
            let mut handled = 0;
            let mut idle = 0;
            while idle < 20 {
                let request = request(5).with_total(TOTAL).with_per_endpoint(PER_ENDPOINT);
                let leased = inbox.lease(request).await.unwrap().messages;
                idle = if leased.is_empty() { idle + 1 } else { 0 };
                for leased in &leased {
                    let mut running = running.lock().unwrap();
                    let endpoint = Arc::clone(&leased.message.entry.endpoint);
                    let count = running.entry(endpoint).or_default();
                    *count += 1;
                    assert!(*count <= PER_ENDPOINT, "more leases than per endpoint");
                    assert!(
                        running.values().sum::<usize>() <= TOTAL,
                        "more leases than in total"
                    );
                }
                tokio::task::yield_now().await;
                for leased in leased {
                    let endpoint = &leased.message.entry.endpoint;
                    *running.lock().unwrap().get_mut(endpoint).unwrap() -= 1;
                    inbox.complete(leased.lease, Outcome::Done).await.unwrap();
                    handled += 1;
                }
            }
            handled
        }));
    }
    let mut handled = 0;
    for process in processes {
        handled += process.await.unwrap();
    }
    assert_eq!(suite.counts().await, [60 - handled, handled, 0]);
    assert!(handled > 0);
}

pub async fn says_when_next_message_is_due<H: Harness>(suite: Suite<H>) {
    let slack = suite.harness.slack() + Duration::from_millis(2);
    let next_due_in = |max: usize| {
        let lease = suite.lease_with(request(max));
        async { lease.await.next_due_in }
    };
    let assert_near = |actual: Option<Duration>, seconds: u64| {
        let expected = Duration::from_secs(seconds);
        let is_near = actual.is_some_and(|actual| actual.abs_diff(expected) <= slack);
        assert!(is_near, "{actual:?} is not {expected:?}");
    };
    assert_eq!(next_due_in(1).await, None);
    suite.store_all(["a", "b", "c"]).await;
    // A ready message is not due later.
    assert_eq!(next_due_in(0).await, None);
    let first = suite.lease(1).await.remove(0);
    assert_near(next_due_in(0).await, 100);
    suite.advance(40).await;
    assert_near(next_due_in(1).await, 60);
    suite.complete(first.lease, retry(30)).await;
    assert_near(next_due_in(0).await, 30);
    suite.advance(60).await;
    // Now the lease of b is the next to end.
    assert_near(next_due_in(1).await, 40);
}

pub async fn accepts_longest_durations<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b"]).await;
    let request = LeaseRequest::new(2, Duration::MAX, "worker");
    let leased = suite.lease_with(request).await.messages;
    let leases = vec![leased[0].lease, leased[1].lease];
    let lost = suite.inbox.renew(leases, Duration::MAX).await.unwrap();
    assert_eq!(lost, []);
    let after = Duration::MAX;
    let error = String::new();
    suite
        .complete(leased[0].lease, Outcome::Retry { after, error })
        .await;
    suite.advance(1_000_000).await;
    assert!(suite.lease(2).await.is_empty());
    assert_eq!(suite.entries(crate::inbox::Selection::all()).await.len(), 2);
    assert_eq!(suite.counts().await, [2, 0, 0]);
    suite.complete(leased[1].lease, Outcome::Done).await;
}
