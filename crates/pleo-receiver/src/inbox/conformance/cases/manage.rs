//! Replaying, pruning and pausing.

use jiff::Timestamp;

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{TTL, dead, ids, message, message_to, retry};
use crate::inbox::{Key, NewMessage, Outcome, Selection, State};

pub async fn replays_id_in_any_state_and_endpoint<H: Harness>(suite: Suite<H>) {
    for endpoint in ["dead", "done", "pending"] {
        suite.store(message_to(endpoint, "a")).await;
    }
    suite.store(message_to("other", "b")).await;
    for leased in suite.lease(10).await {
        let outcome = match &*leased.message.entry.endpoint {
            "dead" => dead(),
            "pending" => retry(500),
            _ => Outcome::Done,
        };
        suite.complete(leased.lease, outcome).await;
    }
    assert_eq!(suite.inbox.replay(Selection::id("c")).await.unwrap(), 0);
    assert_eq!(suite.inbox.replay(Selection::id("a")).await.unwrap(), 3);
    let stored = suite.inbox.get(Key::new("dead", "a")).await.unwrap();
    let entry = stored.unwrap().entry;
    assert_eq!((entry.state, entry.attempts), (State::Pending, 0));
    assert_eq!(entry.due_at, None);
    // The error and the history stay.
    assert_eq!(entry.last_error.as_deref(), Some("failed"));
    let leased = suite.lease(10).await;
    assert_eq!(ids(&leased), ["a"; 3]);
    assert!(leased.iter().all(|leased| leased.attempt.get() == 1));
}

pub async fn replays_only_dead_messages<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b", "c"]).await;
    let leased = suite.lease(10).await;
    for (leased, outcome) in leased.iter().zip([dead(), Outcome::Done, dead()]) {
        suite.complete(leased.lease, outcome).await;
    }
    assert_eq!(suite.inbox.replay(Selection::dead()).await.unwrap(), 2);
    assert_eq!(suite.inbox.replay(Selection::dead()).await.unwrap(), 0);
    assert_eq!(suite.counts().await, [2, 1, 0]);
    assert_eq!(ids(&suite.lease(10).await), ["a", "c"]);
}

pub async fn replays_ready_message_once<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    assert_eq!(suite.inbox.replay(Selection::id("a")).await.unwrap(), 1);
    assert_eq!(ids(&suite.lease(10).await), ["a"]);
}

pub async fn does_not_replay_leased_message<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    let held = suite.lease_one().await.lease;
    for selection in [
        Selection::all(),
        Selection::id("a"),
        Selection::state(State::Pending),
    ] {
        assert_eq!(suite.inbox.replay(selection).await.unwrap(), 0);
    }
    assert!(suite.lease(1).await.is_empty());
    assert_eq!(suite.entry("a").await.attempts, 1);
    suite.complete(held, Outcome::Done).await;
    assert_eq!(suite.counts().await, [0, 1, 0]);
}

pub async fn replays_scheduled_retry_at_once<H: Harness>(suite: Suite<H>) {
    suite.store_with("a", retry(500)).await;
    assert_eq!(suite.inbox.replay(Selection::id("a")).await.unwrap(), 1);
    assert_eq!(suite.lease_one().await.attempt.get(), 1);
}

pub async fn replays_and_prunes_oldest_up_to_limit<H: Harness>(suite: Suite<H>) {
    suite
        .store_all(["done", "leased", "a", "b", "c", "d"])
        .await;
    let leased = suite.lease(10).await;
    suite.complete(leased[0].lease, Outcome::Done).await;
    for leased in &leased[2..] {
        suite.complete(leased.lease, dead()).await;
    }
    // Neither does what is left out count.
    let selection = Selection::all().with_limit(2);
    assert_eq!(suite.inbox.prune(selection).await.unwrap(), 2);
    assert_eq!(
        listed(&suite, Selection::all()).await,
        ["leased", "b", "c", "d"]
    );
    let selection = Selection::all().with_limit(2);
    assert_eq!(suite.inbox.replay(selection).await.unwrap(), 2);
    assert_eq!(listed(&suite, Selection::dead()).await, ["d"]);
    assert_eq!(ids(&suite.lease(10).await), ["b", "c"]);
    let none = Selection::all().with_limit(0);
    assert_eq!(suite.inbox.replay(none.clone()).await.unwrap(), 0);
    assert_eq!(suite.inbox.prune(none).await.unwrap(), 0);
}

/// Each selection is used to list, to replay and to prune.
pub async fn selects_messages<H: Harness>(suite: Suite<H>) {
    let mut times = Vec::new();
    for (id, endpoint, event_type) in [
        ("a", "books", Some("v1.vendor.created")),
        ("b", "books", Some("v1.export-job.created")),
        ("c", "sales", Some("v1.vendor.created")),
        ("d", "sales", None),
    ] {
        let body = event_type.map(|event_type| {
            let data = format!(r#"{{"id":"resource {id}"}}"#);
            format!(r#"{{"eventType":"{event_type}","eventId":"event {id}","data":{data}}}"#)
        });
        let body = body.unwrap_or_default();
        let message = NewMessage::new(endpoint, id, body);
        let key = message.key();
        suite.store(message).await;
        let stored = suite.inbox.get(key).await.unwrap().unwrap();
        times.push(stored.entry.received_at);
        suite.advance(60).await;
    }
    let all = Selection::all;
    let at = |n: usize| times[n];
    for (selection, expected) in [
        (all(), "abcd"),
        (Selection::id("b"), "b"),
        (Selection::id("B"), ""),
        (Selection::id("%"), ""),
        (Selection::dead(), "abcd"),
        (Selection::state(State::Done), ""),
        (all().with_endpoint("books"), "ab"),
        (all().with_endpoint(""), ""),
        (all().with_event_type("v1.vendor.created"), "ac"),
        (all().with_event_type(""), ""),
        (all().with_event_id("event b"), "b"),
        (all().with_event_id("event"), ""),
        (all().with_resource_id("resource c"), "c"),
        (all().with_resource_id("event c"), ""),
        (all().with_since(at(1)), "bcd"),
        (all().with_until(at(2)), "ab"),
        (all().with_since(at(1)).with_until(at(1)), ""),
        (
            all().with_since(Timestamp::MIN).with_until(Timestamp::MAX),
            "abcd",
        ),
        (
            all()
                .with_since(at(0))
                .with_until(at(3))
                .with_event_type("v1.vendor.created")
                .with_endpoint("sales"),
            "c",
        ),
    ] {
        for leased in suite.lease(10).await {
            suite.complete(leased.lease, dead()).await;
        }
        assert_eq!(
            listed(&suite, selection.clone()).await.concat(),
            expected,
            "{selection:?}"
        );
        let replayed = suite.inbox.replay(selection.clone()).await.unwrap();
        let pending = listed(&suite, Selection::state(State::Pending)).await;
        assert_eq!(pending.concat(), expected, "{selection:?}");
        assert_eq!(usize::try_from(replayed).unwrap(), expected.len());
    }
    for leased in suite.lease(10).await {
        suite.complete(leased.lease, dead()).await;
    }
    for (selection, left) in [
        (all().with_until(at(0)), "abcd"),
        (Selection::state(State::Done), "abcd"),
        (all().with_until(at(1)), "bcd"),
        (Selection::dead().with_endpoint("books"), "cd"),
        (all().with_event_type("v1.vendor.created"), "d"),
        (Selection::id("d"), ""),
    ] {
        suite.inbox.prune(selection.clone()).await.unwrap();
        assert_eq!(listed(&suite, all()).await.concat(), left, "{selection:?}");
    }
}

pub async fn does_not_prune_pending_messages<H: Harness>(suite: Suite<H>) {
    suite.store_with("waiting", retry(500)).await;
    suite.store(message("held")).await;
    suite.lease_one().await;
    suite.store(message("new")).await;
    for selection in [
        Selection::all(),
        Selection::state(State::Pending),
        Selection::id("new"),
    ] {
        assert_eq!(suite.inbox.prune(selection).await.unwrap(), 0);
    }
    assert_eq!(suite.counts().await, [3, 0, 0]);
}

pub async fn stores_pruned_message_again<H: Harness>(suite: Suite<H>) {
    // More messages than a store may delete in one transaction.
    let ids = Vec::from_iter((0..1200).map(|number| number.to_string()));
    let appends = ids.iter().map(|id| suite.inbox.append(message(id)));
    futures_util::future::try_join_all(appends).await.unwrap();
    for leased in suite.lease(1200).await {
        suite.complete(leased.lease, Outcome::Done).await;
    }
    let last = suite.entry("1199").await.sequence;
    let done = Selection::state(State::Done);
    assert_eq!(suite.inbox.prune(done).await.unwrap(), 1200);
    assert!(
        suite
            .inbox
            .get(Key::new("books", "7"))
            .await
            .unwrap()
            .is_none()
    );
    suite.store(message("7")).await;
    // A sequence is never reused.
    assert!(suite.entry("7").await.sequence > last);
}

pub async fn does_not_lease_from_paused_endpoint<H: Harness>(suite: Suite<H>) {
    suite.store(message("held")).await;
    let held = suite.lease_one().await.lease;
    suite.store_all(["a", "b"]).await;
    suite.store(message_to("sales", "c")).await;
    suite.inbox.set_paused("books".into(), true).await.unwrap();
    assert_eq!(ids(&suite.lease(10).await), ["c"]);
    // The lease of a message of the endpoint is not affected.
    suite.advance(60).await;
    assert_eq!(suite.inbox.renew(vec![held], TTL).await.unwrap(), []);
    suite.advance(60).await;
    suite.complete(held, Outcome::Done).await;
    // Pausing twice is the same as once.
    suite.inbox.set_paused("books".into(), true).await.unwrap();
    suite.inbox.set_paused("books".into(), false).await.unwrap();
    let mut resumed = suite.lease(10).await;
    resumed.retain(|leased| *leased.message.entry.endpoint == *"books");
    assert_eq!(ids(&resumed), ["a", "b"]);
}

pub async fn shows_paused_endpoints<H: Harness>(suite: Suite<H>) {
    suite.store(message_to("b", "1")).await;
    for (endpoint, paused) in [("c", true), ("a", true), ("b", true), ("c", false)] {
        suite
            .inbox
            .set_paused(endpoint.into(), paused)
            .await
            .unwrap();
    }
    let stats = suite.inbox.stats().await.unwrap();
    let paused = stats.iter().map(|stats| (&*stats.endpoint, stats.paused));
    assert_eq!(Vec::from_iter(paused), [("a", true), ("b", true)]);
    assert_eq!((stats[0].pending(), stats[1].ready), (0, 1));
}

async fn listed<H: Harness>(suite: &Suite<H>, selection: Selection) -> Vec<String> {
    let entries = suite.entries(selection).await.into_iter();
    entries.map(|entry| entry.webhook_id.to_string()).collect()
}
