//! Renewal and loss of leases, delays, and clocks that are set.

use core::time::Duration;

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{TTL, ids, message, request, retry};
use crate::inbox::{Completed, LeaseId, LeaseRequest, Outcome};

/// Half a lease.
const HALF: u64 = TTL.as_secs() / 2;

pub async fn redelivers_after_lease_ends<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let first = suite.lease_one().await;
    suite.advance(TTL.as_secs() - 10).await;
    assert!(suite.lease(1).await.is_empty());
    suite.advance(20).await;
    let second = suite.lease_one().await;
    assert_eq!((first.attempt.get(), second.attempt.get()), (1, 2));
    assert_ne!(first.lease, second.lease);
    assert_eq!(second.message.body, "a");
}

pub async fn renewal_extends_lease<H: Harness>(suite: Suite<H>) {
    suite.store_all(["renewed", "other"]).await;
    let renewed = suite.lease(2).await[0].lease;
    for _ in 0..4 {
        suite.advance(HALF).await;
        assert_eq!(suite.inbox.renew(vec![renewed], TTL).await.unwrap(), []);
    }
    assert_eq!(ids(&suite.lease(2).await), ["other"]);
    suite.complete(renewed, Outcome::Done).await;
}

pub async fn renewed_lease_ends<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    suite.advance(HALF).await;
    assert_eq!(suite.inbox.renew(vec![lease], TTL).await.unwrap(), []);
    suite.advance(TTL.as_secs() - 10).await;
    assert!(suite.lease(1).await.is_empty());
    suite.advance(20).await;
    assert_eq!(suite.lease_one().await.attempt.get(), 2);
}

pub async fn renewal_shortens_lease<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    let short = TTL / 5;
    assert_eq!(suite.inbox.renew(vec![lease], short).await.unwrap(), []);
    let next_due_in = suite.lease_with(request(1)).await.next_due_in;
    assert!(next_due_in.is_some_and(|due| due <= short + Duration::from_millis(1)));
    suite.advance(short.as_secs() + 10).await;
    assert_eq!(suite.lease_one().await.attempt.get(), 2);
}

pub async fn renewal_returns_lost_leases<H: Harness>(suite: Suite<H>) {
    suite.store_all(["done", "lost", "held"]).await;
    let leased = suite.lease(3).await;
    let [done, lost, held] = [0, 1, 2].map(|n: usize| leased[n].lease);
    suite.complete(done, Outcome::Done).await;
    suite.advance(HALF).await;
    assert_eq!(suite.inbox.renew(vec![held], TTL).await.unwrap(), []);
    suite.advance(HALF + 10).await;
    let again = suite.lease_one().await.lease;
    let unknown = LeaseId::new(again.get() ^ (1 << 100));
    let leases = vec![done, again, lost, held, unknown];
    let mut returned = suite.inbox.renew(leases, TTL).await.unwrap();
    returned.sort_unstable();
    let mut expected = vec![done, lost, unknown];
    expected.sort_unstable();
    assert_eq!(returned, expected);
    assert_eq!(suite.inbox.renew(vec![], TTL).await.unwrap(), []);
    // The renewal of a lost lease changes nothing.
    for lease in [again, held] {
        suite.complete(lease, Outcome::Done).await;
    }
    assert_eq!(suite.counts().await, [0, 3, 0]);
}

/// The message was not leased again. Either answer is right, but it must be the true one.
pub async fn renewal_revives_ended_lease_or_reports_it_lost<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    suite.advance(TTL.as_secs() * 2).await;
    let lost = suite.inbox.renew(vec![lease], TTL).await.unwrap();
    if lost.is_empty() {
        assert!(suite.lease(1).await.is_empty());
        suite.complete(lease, Outcome::Done).await;
    } else {
        assert_eq!(lost, [lease]);
        let completed = suite.inbox.complete(lease, Outcome::Done).await.unwrap();
        assert_eq!(completed, Completed::Lost);
        assert_eq!(suite.lease_one().await.attempt.get(), 2);
    }
}

pub async fn clock_steps_neither_end_nor_prolong_leases<H: Harness>(suite: Suite<H>) {
    for hours in [24 * 365, -24 * 365, -24 * 365, 24 * 365] {
        let id = format!("step {hours} at {}", suite.counts().await[1]);
        suite.store(message(&id)).await;
        let lease = suite.lease_one().await.lease;
        if !suite.step_clock_hours(hours) {
            return;
        }
        assert!(suite.lease(1).await.is_empty());
        assert_eq!(suite.inbox.renew(vec![lease], TTL).await.unwrap(), []);
        suite.advance(TTL.as_secs() - 10).await;
        assert!(suite.lease(1).await.is_empty());
        suite.advance(20).await;
        let again = suite.lease_one().await;
        assert_eq!(again.attempt.get(), 2);
        suite.complete(again.lease, Outcome::Done).await;
    }
}

pub async fn retry_is_ready_after_its_delay<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let before = suite.harness.now().await;
    suite
        .complete(suite.lease_one().await.lease, retry(60))
        .await;
    let after = suite.harness.now().await;
    let entry = suite.entry("a").await;
    assert_eq!((entry.attempts, entry.leased), (1, false));
    let due_at = entry.due_at.unwrap() - Duration::from_secs(60);
    let rounding = Duration::from_millis(1);
    assert!(
        before - rounding <= due_at && due_at <= after + rounding,
        "{due_at}"
    );
    suite.advance(45).await;
    assert!(suite.lease(1).await.is_empty());
    suite.advance(25).await;
    let leased = suite.lease_one().await;
    assert_eq!(leased.attempt.get(), 2);
    assert_eq!(suite.entry("a").await.due_at, None);
    suite.complete(leased.lease, retry(0)).await;
    assert_eq!(suite.lease_one().await.attempt.get(), 3);
}

/// Fractions of a millisecond are not cut off.
pub async fn retry_is_not_ready_a_nanosecond_early<H: Harness>(suite: Suite<H>) {
    if !suite.harness.slack().is_zero() {
        return;
    }
    suite.store(message("a")).await;
    let error = String::new();
    let after = Duration::new(50, 1);
    suite
        .complete(
            suite.lease_one().await.lease,
            Outcome::Retry { after, error },
        )
        .await;
    suite.advance(50).await;
    let leased = suite.lease_with(request(1)).await;
    assert!(leased.messages.is_empty());
    assert!(leased.next_due_in.is_some_and(|due| !due.is_zero()));
    suite.harness.advance(leased.next_due_in.unwrap()).await;
    suite.lease_one().await;
}

pub async fn retry_from_year_ahead_is_ready_within_its_delay<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    if !suite.step_clock_hours(24 * 365) {
        return;
    }
    suite.complete(lease, retry(60)).await;
    suite.step_clock_hours(-24 * 365);
    suite.advance(70).await;
    assert_eq!(suite.lease_one().await.attempt.get(), 2);
}

pub async fn reopened_store_retries_after_delay<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    suite.complete(lease, retry(60)).await;
    let Some(suite) = suite.reopen().await else {
        return;
    };
    assert!(suite.lease(1).await.is_empty());
    suite.advance(70).await;
    assert_eq!(suite.lease_one().await.attempt.get(), 2);
}

pub async fn reopened_store_retries_within_delay_after_clock_is_set_back<H: Harness>(
    suite: Suite<H>,
) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    if !suite.step_clock_hours(24 * 365) {
        return;
    }
    suite.complete(lease, retry(60)).await;
    suite.inbox.close().await.unwrap();
    suite.step_clock_hours(-24 * 365);
    let Some(suite) = suite.crash().await else {
        return;
    };
    suite.lease(0).await;
    suite.advance(70).await;
    assert_eq!(suite.lease_one().await.attempt.get(), 2);
}

/// A message that may crash its process is delayed.
pub async fn delays_message_after_repeated_losses<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let slack = suite.harness.slack().as_secs();
    let mut leased = suite.lease_one().await;
    // The shortest and the longest delay in seconds.
    for (attempt, shortest, longest) in [
        (1, 0_u64, 0_u64),
        (2, 0, 0),
        (3, 5, 10),
        (4, 10, 20),
        (5, 20, 40),
        (6, 40, 80),
    ] {
        assert_eq!(leased.attempt.get(), attempt);
        suite.advance(TTL.as_secs() + slack).await;
        let mut next = suite.lease_with(request(1)).await;
        if next.messages.is_empty() {
            let due_in = next.next_due_in.unwrap().as_secs();
            let earliest = shortest.saturating_sub(2 * slack);
            assert!(
                (earliest..=longest).contains(&due_in),
                "attempt {attempt}: due in {due_in} s"
            );
            let entry = suite.entry("a").await;
            assert!(!entry.leased && entry.due_at.is_some(), "{entry:?}");
            suite.advance(longest + 1 + slack).await;
            next = suite.lease_with(request(1)).await;
        } else {
            assert!(shortest <= 2 * slack, "attempt {attempt}: not delayed");
        }
        leased = next.messages.remove(0);
    }
}

pub async fn lost_lease_can_be_replaced_by_other_process<H: Harness>(suite: Suite<H>) {
    let [first, second] = suite.replicas().await;
    suite.store(message("a")).await;
    let lease = |worker| LeaseRequest::new(1, TTL, worker);
    let lost = first
        .lease(lease("first"))
        .await
        .unwrap()
        .messages
        .remove(0)
        .lease;
    assert!(
        second
            .lease(lease("second"))
            .await
            .unwrap()
            .messages
            .is_empty()
    );
    suite.advance(TTL.as_secs() + 10).await;
    let held = second
        .lease(lease("second"))
        .await
        .unwrap()
        .messages
        .remove(0)
        .lease;
    assert_eq!(first.renew(vec![lost], TTL).await.unwrap(), [lost]);
    let completed = first.complete(lost, Outcome::Done).await.unwrap();
    assert_eq!(completed, Completed::Lost);
    suite.complete(held, Outcome::Done).await;
    assert_eq!(*suite.get("a").await.attempts[0].worker, *"first");
}
