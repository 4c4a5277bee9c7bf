//! Listing messages, and statistics.

use core::time::Duration;
use std::collections::HashSet;

use futures_util::future::try_join_all;
use tokio::task::JoinHandle;

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{TTL, dead, message, message_to, request, retry};
use crate::inbox::{
    Appended, Cursor, Entry, Key, NewMessage, Origin, Outcome, Page, Query, Selection, State,
};

pub async fn lists_by_arrival_in_pages<H: Harness>(suite: Suite<H>) {
    // Neither the expiry nor the key decides.
    for (id, seconds) in [
        ("c", 3000),
        ("a", -1000),
        ("e", 1000),
        ("b", 2000),
        ("d", 4000),
    ] {
        let body = suite.job(seconds).await;
        suite.store(NewMessage::new("books", id, body)).await;
    }
    for limit in 1..=6 {
        for (newest_first, expected) in [(false, "caebd"), (true, "dbeac")] {
            let mut listed = String::new();
            let mut after = None;
            let mut pages = 0;
            loop {
                let mut query = Query::new(Selection::all(), limit);
                query.newest_first = newest_first;
                query.after = after;
                let page = suite.inbox.list(query).await.unwrap();
                assert!(page.entries.len() <= usize::try_from(limit).unwrap());
                listed += &ids(&page);
                pages += 1;
                assert!(pages <= 5, "too many pages: {listed}");
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(listed, expected, "limit {limit}");
            assert_eq!(pages, 5_u32.div_ceil(limit), "limit {limit}");
        }
    }
    let none = suite
        .inbox
        .list(Query::new(Selection::all(), 0))
        .await
        .unwrap();
    assert!(none.entries.is_empty());
    let limit = u32::MAX;
    let all = suite
        .inbox
        .list(Query::new(Selection::all(), limit))
        .await
        .unwrap();
    assert_eq!(ids(&all), "caebd");
}

pub async fn filters_pages<H: Harness>(suite: Suite<H>) {
    for (id, endpoint) in [
        ("a", "books"),
        ("b", "sales"),
        ("c", "books"),
        ("d", "sales"),
        ("e", "books"),
    ] {
        suite.store(message_to(endpoint, id)).await;
    }
    let query = Query::new(Selection::all().with_endpoint("books"), 2);
    let page = suite.inbox.list(query.clone()).await.unwrap();
    assert_eq!(ids(&page), "ac");
    let page = suite
        .inbox
        .list(query.with_after(page.next.unwrap()))
        .await
        .unwrap();
    assert_eq!((ids(&page), page.next), ("e".into(), None));
    // The limit of the selection is ignored.
    let query = Query::new(Selection::all().with_endpoint("sales").with_limit(1), 2);
    let page = suite.inbox.list(query).await.unwrap();
    assert_eq!((ids(&page), page.next), ("bd".into(), None));
}

pub async fn cursor_stays_valid_while_messages_change<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b", "c", "d"]).await;
    for leased in suite.lease(3).await {
        suite.complete(leased.lease, Outcome::Done).await;
    }
    let oldest = Query::new(Selection::all(), 2);
    let newest = oldest.clone().newest_first();
    let [oldest_page, newest_page] = [
        suite.inbox.list(oldest.clone()).await.unwrap(),
        suite.inbox.list(newest.clone()).await.unwrap(),
    ];
    assert_eq!(
        (ids(&oldest_page), ids(&newest_page)),
        ("ab".into(), "dc".into())
    );
    // The message at the first cursor is deleted, and another arrives.
    assert_eq!(suite.inbox.prune(Selection::id("b")).await.unwrap(), 1);
    assert_eq!(suite.inbox.prune(Selection::id("c")).await.unwrap(), 1);
    suite.store_all(["e", "f"]).await;
    // The text form is that of a link to the next page.
    let cursor = |page: &Page| {
        let text = page.next.unwrap().to_string();
        text.parse::<Cursor>().unwrap()
    };
    let next = suite
        .inbox
        .list(oldest.with_after(cursor(&oldest_page)))
        .await
        .unwrap();
    assert_eq!(ids(&next), "de");
    let next = suite
        .inbox
        .list(newest.with_after(cursor(&newest_page)))
        .await
        .unwrap();
    assert_eq!(ids(&next), "a");
}

pub async fn page_that_ends_with_last_message_has_no_next<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b"]).await;
    let page = suite
        .inbox
        .list(Query::new(Selection::all(), 2))
        .await
        .unwrap();
    assert_eq!((ids(&page), page.next), ("ab".into(), None));
    // The position after the last message, for those that arrive later.
    let end = page.entries[1].cursor();
    let query = Query::new(Selection::all(), 2).with_after(end);
    assert_eq!(ids(&suite.inbox.list(query.clone()).await.unwrap()), "");
    suite.store(message("c")).await;
    assert_eq!(ids(&suite.inbox.list(query).await.unwrap()), "c");
}

pub async fn list_from_last_position_misses_no_append<H: Harness>(suite: Suite<H>) {
    const APPENDS: usize = 400;
    let mut processes = Vec::new();
    for (n, inbox) in (0..4).zip(suite.replicas().await.into_iter().cycle()) {
        processes.push(tokio::spawn(async move {
            for id in 0..APPENDS / 4 {
                let message = message(&format!("{n} {id}"));
                inbox.append(message).await.unwrap();
            }
        }));
    }
    let mut seen = HashSet::new();
    let mut query = Query::new(Selection::all(), 7);
    loop {
        let is_last = processes.iter().all(JoinHandle::is_finished);
        let page = suite.inbox.list(query.clone()).await.unwrap();
        query.after = page.entries.last().map(Entry::cursor).or(query.after);
        for entry in &page.entries {
            assert!(seen.insert(entry.key()), "listed twice: {entry:?}");
        }
        if is_last && page.entries.is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(seen.len(), APPENDS);
}

pub async fn gets_nothing_for_unknown_key<H: Harness>(suite: Suite<H>) {
    suite.store(message("a")).await;
    for (endpoint, id) in [
        ("books", "A"),
        ("books", ""),
        ("books", "%"),
        ("Books", "a"),
        ("a", "books"),
    ] {
        let stored = suite.inbox.get(Key::new(endpoint, id)).await.unwrap();
        assert!(stored.is_none(), "{endpoint} {id}");
    }
}

pub async fn counts_messages_by_endpoint_and_state<H: Harness>(suite: Suite<H>) {
    assert_eq!(suite.inbox.stats().await.unwrap(), []);
    for (n, outcome) in [Outcome::Done, dead(), dead(), retry(5000)]
        .into_iter()
        .enumerate()
    {
        suite.store_with(&format!("ended {n}"), outcome).await;
    }
    suite.store(message_to("b", "leased")).await;
    suite.store(message_to("b", "leased too")).await;
    suite.lease_with(request(2)).await;
    for id in ["1", "2", "3"] {
        suite.store(message_to("a", id)).await;
    }
    let stats = suite.inbox.stats().await.unwrap();
    let counts = stats.iter().map(|stats| {
        let counts = [
            stats.ready,
            stats.leased,
            stats.scheduled,
            stats.done,
            stats.dead,
        ];
        (&*stats.endpoint, counts)
    });
    let expected = [
        ("a", [3, 0, 0, 0, 0]),
        ("b", [0, 2, 0, 0, 0]),
        ("books", [0, 0, 1, 1, 2]),
    ];
    assert_eq!(Vec::from_iter(counts), expected);
    assert!(stats.iter().all(|stats| !stats.paused));
    // The retry is ready, and the leases ended.
    suite.advance(6000).await;
    suite.lease_with(request(1)).await;
    let stats = suite.inbox.stats().await.unwrap();
    let sum = |count: fn(&crate::inbox::EndpointStats) -> u64| stats.iter().map(count).sum::<u64>();
    assert_eq!(
        (sum(|stats| stats.ready), sum(|stats| stats.leased)),
        (5, 1)
    );
    assert_eq!(sum(|stats| stats.scheduled), 0);
}

pub async fn shows_ages_and_expiries_of_pending_messages<H: Harness>(suite: Suite<H>) {
    let slack = suite.harness.slack() + Duration::from_millis(2);
    suite.store_with("done long ago", Outcome::Done).await;
    suite.advance(1000).await;
    suite.store(message("oldest")).await;
    suite.advance(1000).await;
    for (id, seconds) in [
        ("expired", -500),
        ("late", 9000),
        ("soon", 4000),
        ("expired too", -400),
    ] {
        let body = suite.job(seconds).await;
        suite.store(NewMessage::new("books", id, body)).await;
    }
    let stats = suite.inbox.stats().await.unwrap().remove(0);
    let age = stats.oldest_pending.unwrap();
    assert!(age.abs_diff(Duration::from_secs(1000)) <= slack, "{age:?}");
    assert_eq!(stats.nearest_expiry, suite.entry("soon").await.expires_at);
    assert_eq!((stats.expired, stats.pending()), (2, 5));
    suite.advance(5000).await;
    let stats = suite.inbox.stats().await.unwrap().remove(0);
    assert_eq!(stats.nearest_expiry, suite.entry("late").await.expires_at);
    assert_eq!(stats.expired, 3);
    // A clock that was set back does not matter.
    if suite.step_clock_hours(-24) {
        let stats = suite.inbox.stats().await.unwrap().remove(0);
        assert_eq!(stats.oldest_pending, Some(Duration::ZERO));
    }
    for leased in suite.lease(10).await {
        suite.complete(leased.lease, Outcome::Done).await;
    }
    let stats = suite.inbox.stats().await.unwrap().remove(0);
    assert_eq!((stats.oldest_pending, stats.nearest_expiry), (None, None));
    assert_eq!((stats.expired, stats.done), (0, 6));
}

/// Many that arrived later expire before it.
pub async fn finds_oldest_pending_message_that_expires_last<H: Harness>(suite: Suite<H>) {
    let slack = suite.harness.slack() + Duration::from_millis(2);
    let body = suite.job(9000).await;
    suite.store(NewMessage::new("books", "oldest", body)).await;
    suite.advance(1000).await;
    let body = suite.job(4000).await;
    for hundred in 0..21 {
        let later = (0..100).map(|n| {
            let message = NewMessage::new("books", format!("{hundred} {n}"), body.clone());
            suite.inbox.append(message)
        });
        let stored = try_join_all(later).await.unwrap();
        assert!(stored.iter().all(|stored| *stored == Appended::Stored));
    }
    let stats = suite.inbox.stats().await.unwrap().remove(0);
    let age = stats.oldest_pending.unwrap();
    assert!(age + slack >= Duration::from_secs(1000), "{age:?}");
}

pub async fn shows_time_of_last_delivery<H: Harness>(suite: Suite<H>) {
    suite.store(message("first")).await;
    suite.advance(100).await;
    suite.store(message("last")).await;
    suite.advance(100).await;
    // Not sent by the sender.
    let caught_up = message("caught up").with_origin(Origin::CatchUp);
    suite.store(caught_up).await;
    let repeated = suite.inbox.append(message("last")).await.unwrap();
    assert_eq!(repeated, Appended::Duplicate);
    let delivered_at = suite.inbox.stats().await.unwrap()[0].delivered_at;
    assert_eq!(delivered_at, Some(suite.entry("last").await.received_at));
    let other = message_to("other", "caught up").with_origin(Origin::CatchUp);
    suite.store(other).await;
    let stats = suite.inbox.stats().await.unwrap();
    assert_eq!(stats[1].delivered_at, None);
}

pub async fn counts_message_once_while_state_changes<H: Harness>(suite: Suite<H>) {
    for number in 0..100 {
        suite.store(message(&number.to_string())).await;
    }
    let inbox = std::sync::Arc::clone(&suite.inbox);
    let complete_all = tokio::spawn(async move {
        while let [leased] = &inbox.lease(request(1)).await.unwrap().messages[..] {
            inbox.complete(leased.lease, Outcome::Done).await.unwrap();
        }
    });
    while !complete_all.is_finished() {
        let [pending, done, dead] = suite.counts().await;
        assert_eq!(
            (pending + done, dead),
            (100, 0),
            "{pending} pending, {done} done"
        );
    }
    complete_all.await.unwrap();
    assert_eq!(suite.counts().await, [0, 100, 0]);
}

/// A lease that ended may be shown as such only when the next messages are leased.
pub async fn shows_lost_message_as_ready_after_next_lease<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b"]).await;
    suite.lease(2).await;
    suite.advance(TTL.as_secs() * 2).await;
    suite.lease(1).await;
    let leased = suite.entries(Selection::state(State::Pending)).await;
    let leased = leased.iter().filter(|entry| entry.leased).count();
    assert_eq!(leased, 1);
    let stats = suite.inbox.stats().await.unwrap().remove(0);
    assert_eq!((stats.ready, stats.leased), (1, 1));
}

fn ids(page: &Page) -> String {
    page.entries
        .iter()
        .map(|entry| &*entry.webhook_id)
        .collect()
}
