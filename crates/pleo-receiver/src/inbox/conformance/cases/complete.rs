//! Completing leases, and the history of attempts.

use core::time::Duration;

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{TTL, dead, message, request, retry};
use crate::inbox::{
    Attempt, AttemptResult, Completed, LeaseId, LeaseRequest, MAX_ATTEMPTS_KEPT, MAX_ERROR_LEN,
    Outcome, Selection, State,
};

pub async fn done_message_is_not_leased<H: Harness>(suite: Suite<H>) {
    suite.store_with("a", Outcome::Done).await;
    let entry = suite.entry("a").await;
    assert_eq!((entry.state, entry.leased), (State::Done, false));
    assert_eq!((entry.attempts, entry.due_at), (1, None));
    suite.advance(TTL.as_secs() * 10).await;
    let leased = suite.lease_with(request(10)).await;
    assert!(leased.messages.is_empty() && leased.next_due_in.is_none());
    assert_eq!(suite.counts().await, [0, 1, 0]);
}

pub async fn dead_message_is_not_leased<H: Harness>(suite: Suite<H>) {
    suite.store_with("a", dead()).await;
    let entry = suite.entry("a").await;
    assert_eq!((entry.state, entry.leased), (State::Dead, false));
    assert_eq!((entry.attempts, entry.due_at), (1, None));
    assert_eq!(entry.last_error.as_deref(), Some("failed"));
    suite.advance(TTL.as_secs() * 10).await;
    let leased = suite.lease_with(request(10)).await;
    assert!(leased.messages.is_empty() && leased.next_due_in.is_none());
    assert_eq!(suite.counts().await, [0, 0, 1]);
}

pub async fn keeps_last_error_after_success<H: Harness>(suite: Suite<H>) {
    suite.store_with("a", retry(10)).await;
    suite.advance(30).await;
    suite
        .complete(suite.lease_one().await.lease, Outcome::Done)
        .await;
    let entry = suite.entry("a").await;
    assert_eq!(entry.last_error.as_deref(), Some("failed"));
    assert_eq!((entry.state, entry.attempts), (State::Done, 2));
}

pub async fn release_does_not_count_attempt<H: Harness>(suite: Suite<H>) {
    suite.store_with("a", Outcome::Release).await;
    let entry = suite.entry("a").await;
    assert_eq!((entry.state, entry.leased), (State::Pending, false));
    assert_eq!(
        (entry.attempts, entry.due_at, entry.last_error),
        (0, None, None)
    );
    assert_eq!(suite.lease_one().await.attempt.get(), 1);
}

pub async fn completes_lease_once<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    suite.complete(lease, Outcome::Done).await;
    for outcome in [Outcome::Done, dead(), retry(0), Outcome::Release] {
        assert_lost(&suite, lease, outcome).await;
    }
    assert_eq!(suite.counts().await, [0, 1, 0]);
}

pub async fn refuses_completion_of_earlier_lease<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let released = suite.lease_one().await.lease;
    suite.complete(released, Outcome::Release).await;
    assert_lost(&suite, released, Outcome::Done).await;
    let lost = suite.lease_one().await.lease;
    assert_lost(&suite, released, Outcome::Done).await;
    suite.advance(TTL.as_secs() * 2).await;
    let held = suite.lease_one().await.lease;
    for outcome in [Outcome::Done, dead(), retry(0), Outcome::Release] {
        assert_lost(&suite, lost, outcome).await;
    }
    suite.complete(held, Outcome::Done).await;
    assert_eq!(suite.inbox.replay(Selection::id("a")).await.unwrap(), 1);
    assert_lost(&suite, held, dead()).await;
    let replayed = suite.lease_one().await.lease;
    assert_lost(&suite, held, dead()).await;
    suite.complete(replayed, Outcome::Done).await;
}

pub async fn refuses_completion_of_unknown_lease<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    for unknown in [
        0,
        u128::MAX,
        lease.get().wrapping_add(1),
        lease.get() ^ (1 << 64),
    ] {
        assert_lost(&suite, LeaseId::new(unknown), Outcome::Done).await;
    }
    suite.complete(lease, Outcome::Done).await;
}

/// Completes a lease that is lost, which must change nothing.
async fn assert_lost<H: Harness>(suite: &Suite<H>, lease: LeaseId, outcome: Outcome) {
    let before = suite.get("a").await;
    let completed = suite.inbox.complete(lease, outcome).await.unwrap();
    assert_eq!(completed, Completed::Lost);
    let after = suite.get("a").await;
    assert_eq!(
        (after.entry, after.attempts),
        (before.entry, before.attempts)
    );
}

/// Either outcome is right, but it must be the true one.
pub async fn records_outcome_of_ended_lease_or_reports_it_lost<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    suite.advance(TTL.as_secs() * 2).await;
    if suite.inbox.complete(lease, Outcome::Done).await.unwrap() == Completed::Recorded {
        assert_eq!(suite.entry("a").await.state, State::Done);
        assert!(suite.lease(1).await.is_empty());
    } else {
        assert_eq!(suite.entry("a").await.state, State::Pending);
        assert_eq!(suite.lease_one().await.attempt.get(), 2);
    }
}

pub async fn truncates_long_error_between_characters<H: Harness>(suite: Suite<H>) {
    let kept = "x".repeat(MAX_ERROR_LEN - 1);
    let error = format!("{kept}ø");
    suite.store_with("a", Outcome::Dead { error }).await;
    let message = suite.get("a").await;
    assert_eq!(message.entry.last_error.as_ref(), Some(&kept));
    assert_eq!(message.attempts[0].error, Some(kept));
    let error = format!("\0\u{1b}[1m{}", "ø".repeat(100));
    suite
        .store_with(
            "b",
            Outcome::Dead {
                error: error.clone(),
            },
        )
        .await;
    assert_eq!(suite.entry("b").await.last_error, Some(error));
}

pub async fn keeps_history_of_attempts<H: Harness>(suite: Suite<H>) {
    let slack = suite.harness.slack() + Duration::from_millis(2);
    suite.store(message("a")).await;
    suite.store(message("other")).await;
    assert_eq!(suite.get("a").await.attempts, []);
    let mut expected = Vec::new();
    for (seconds, outcome, number, result) in [
        (1, retry(0), 1, AttemptResult::Retry),
        (20, Outcome::Release, 2, AttemptResult::Released),
        (0, retry(0), 2, AttemptResult::Retry),
        (30, dead(), 3, AttemptResult::Dead),
        // After a replay
        (40, Outcome::Done, 1, AttemptResult::Done),
    ] {
        let worker = format!("worker {}", expected.len());
        let request = LeaseRequest::new(1, TTL, worker.clone());
        let started_at = suite.harness.now().await;
        let lease = suite.lease_with(request).await.messages[0].lease;
        suite.advance(seconds).await;
        let is_dead = matches!(outcome, Outcome::Dead { .. });
        suite.complete(lease, outcome).await;
        if is_dead {
            suite.inbox.replay(Selection::dead()).await.unwrap();
        }
        expected.push((worker, number, result, started_at, seconds));
    }
    let attempts = suite.get("a").await.attempts;
    assert_eq!(attempts.len(), expected.len());
    for (attempt, (worker, number, result, started_at, seconds)) in attempts.iter().zip(expected) {
        let Attempt {
            error, duration, ..
        } = attempt;
        let failed = matches!(result, AttemptResult::Retry | AttemptResult::Dead);
        assert_eq!(*attempt.worker, *worker);
        assert_eq!((attempt.number.get(), attempt.result), (number, result));
        assert_eq!(error.as_deref(), failed.then_some("failed"));
        let late = attempt.started_at.duration_since(started_at).unsigned_abs();
        assert!(late <= slack, "{attempt:?} started {late:?} late");
        let excess = duration.unwrap().abs_diff(Duration::from_secs(seconds));
        assert!(excess <= slack, "{attempt:?} did not last {seconds} s");
    }
    assert_eq!(suite.get("other").await.attempts, []);
}

pub async fn records_lost_attempt<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    suite.lease_one().await;
    suite.advance(TTL.as_secs() * 3).await;
    suite.lease_one().await;
    let attempts = suite.get("a").await.attempts;
    assert_eq!(attempts.len(), 1, "{attempts:?}");
    let Attempt {
        number,
        result,
        error,
        duration,
        ..
    } = &attempts[0];
    assert_eq!(
        (number.get(), *result, error),
        (1, AttemptResult::Lost, &None)
    );
    let slack = suite.harness.slack() + Duration::from_millis(2);
    assert!(
        duration.is_none_or(|duration| duration.abs_diff(TTL) <= slack),
        "{duration:?}"
    );
}

pub async fn bounds_history_of_attempts<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let rounds = MAX_ATTEMPTS_KEPT + 5;
    for round in 1..=rounds {
        let lease = suite.lease_one().await.lease;
        let error = format!("round {round}");
        let after = Duration::ZERO;
        suite.complete(lease, Outcome::Retry { after, error }).await;
    }
    let attempts = suite.get("a").await.attempts;
    let numbers = attempts.iter().map(|attempt| attempt.number.get());
    let rounds = u32::try_from(rounds).unwrap();
    assert_eq!(numbers.collect::<Vec<_>>(), Vec::from_iter(6..=rounds));
    let last = format!("round {rounds}");
    assert_eq!(attempts.last().unwrap().error.as_ref(), Some(&last));
    assert_eq!(suite.entry("a").await.attempts, rounds);
}

pub async fn deletes_history_with_message<H: Harness>(suite: Suite<H>) {
    suite.store_with("a", dead()).await;
    assert_eq!(suite.inbox.prune(Selection::dead()).await.unwrap(), 1);
    suite.store(message("a")).await;
    let message = suite.get("a").await;
    assert_eq!(message.attempts, []);
    assert_eq!(message.entry.attempts, 0);
}
