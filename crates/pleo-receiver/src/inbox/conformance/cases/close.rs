//! Closing, and what a store keeps.

use core::time::Duration;

use futures_util::future::{join, join_all};

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{TTL, dead, ids, message, message_to, request, retry};
use crate::inbox::{
    Appended, Completed, Entry, InboxError, InboxErrorKind, Key, Outcome, Query, Selection, State,
};

pub async fn closed_store_refuses_everything<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let lease = suite.lease_one().await.lease;
    suite.inbox.check().await.unwrap();
    suite.inbox.close().await.unwrap();
    let inbox = &suite.inbox;
    for (call, result) in [
        ("append", inbox.append(message("b")).await.map(drop)),
        ("lease", inbox.lease(request(1)).await.map(drop)),
        ("renew", inbox.renew(vec![lease], TTL).await.map(drop)),
        (
            "complete",
            inbox.complete(lease, Outcome::Done).await.map(drop),
        ),
        (
            "list",
            inbox.list(Query::new(Selection::all(), 1)).await.map(drop),
        ),
        ("get", inbox.get(Key::new("books", "a")).await.map(drop)),
        ("replay", inbox.replay(Selection::dead()).await.map(drop)),
        ("prune", inbox.prune(Selection::dead()).await.map(drop)),
        ("set_paused", inbox.set_paused("books".into(), true).await),
        ("stats", inbox.stats().await.map(drop)),
        ("check", inbox.check().await),
        ("close", inbox.close().await),
    ] {
        let kind = result.as_ref().map_err(InboxError::kind);
        assert_eq!(kind, Err(InboxErrorKind::Closed), "{call}");
        assert!(!result.unwrap_err().is_retryable());
    }
}

pub async fn close_finishes_queued_appends<H: Harness>(suite: Suite<H>) {
    let appends = (0..50).map(|n| suite.inbox.append(message(&n.to_string())));
    let (appended, closed) = join(join_all(appends), suite.inbox.close()).await;
    closed.unwrap();
    let mut stored = Vec::new();
    for (n, appended) in appended.into_iter().enumerate() {
        match appended {
            Ok(appended) => {
                assert_eq!(appended, Appended::Stored);
                stored.push(n.to_string());
            }
            Err(error) => assert_eq!(error.kind(), InboxErrorKind::Closed),
        }
    }
    let Some(suite) = suite.crash().await else {
        return;
    };
    for id in stored {
        suite.entry(&id).await;
    }
}

pub async fn reopened_store_has_everything<H: Harness>(suite: Suite<H>) {
    keeps_everything(suite, true).await;
}

pub async fn dropped_store_has_everything<H: Harness>(suite: Suite<H>) {
    keeps_everything(suite, false).await;
}

async fn keeps_everything<H: Harness>(suite: Suite<H>, is_closed: bool) {
    suite.store_with("done", Outcome::Done).await;
    suite.store_with("dead", dead()).await;
    suite.store_with("retry", retry(5000)).await;
    suite.store(message("held")).await;
    let held = suite.lease_one().await.lease;
    suite.store(message("new")).await;
    suite.store(message_to("paused", "a")).await;
    suite.inbox.set_paused("paused".into(), true).await.unwrap();
    let kept = ["done", "dead", "retry", "held", "new"];
    let mut expected = Vec::new();
    for id in kept {
        expected.push(suite.get(id).await);
    }
    let entries = suite.entries(Selection::all()).await;

    let opened = if is_closed {
        suite.reopen().await
    } else {
        suite.crash().await
    };
    let Some(suite) = opened else {
        return;
    };
    let without_lease = |entries: Vec<Entry>| {
        let entries = entries.into_iter();
        Vec::from_iter(entries.map(|entry| Entry {
            leased: false,
            ..entry
        }))
    };
    assert_eq!(
        without_lease(suite.entries(Selection::all()).await),
        without_lease(entries)
    );
    for (id, expected) in kept.into_iter().zip(expected) {
        let stored = suite.get(id).await;
        assert_eq!(
            (stored.body, stored.headers),
            (expected.body, expected.headers)
        );
        if id != "held" {
            assert_eq!(stored.attempts, expected.attempts);
        }
        let appended = suite.inbox.append(message(id)).await.unwrap();
        assert_eq!(appended, Appended::Duplicate);
    }
    assert!(suite.inbox.stats().await.unwrap()[1].paused);
    // Closing may have ended the lease.
    suite.advance(TTL.as_secs() + 10).await;
    let leased = suite.lease(10).await;
    assert_eq!(ids(&leased), ["held", "new"]);
    assert_eq!((leased[0].attempt.get(), leased[1].attempt.get()), (2, 1));
    assert_ne!(leased[0].lease, held);
    let completed = suite.inbox.complete(held, Outcome::Done).await.unwrap();
    assert_eq!(completed, Completed::Lost);
    let lost = suite.inbox.renew(vec![held], TTL).await.unwrap();
    assert_eq!(lost, [held]);
    let history = suite.get("held").await.attempts;
    assert_eq!(history.len(), 1, "{history:?}");
    assert_eq!(history[0].result, crate::inbox::AttemptResult::Lost);
    suite.advance(5000).await;
    let leased = suite.lease(10).await;
    assert!(ids(&leased).contains(&"retry"));
    assert_eq!(suite.entry("done").await.state, State::Done);
    suite
        .inbox
        .set_paused("paused".into(), false)
        .await
        .unwrap();
    let leased = suite.lease(10).await;
    assert_eq!(ids(&leased), ["a"]);
}

/// The next process gets each message that the earlier one did not complete, once.
pub async fn outcome_survives_crash<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b"]).await;
    let leased = suite.lease(2).await;
    suite.complete(leased[0].lease, Outcome::Done).await;
    let Some(suite) = suite.crash().await else {
        return;
    };
    suite.harness.advance(TTL + Duration::from_secs(20)).await;
    assert_eq!(ids(&suite.lease(10).await), ["b"]);
}
