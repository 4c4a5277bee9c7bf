//! Appending messages.

use core::future::poll_fn;
use core::task::Poll;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{dead, ids, message, message_to, request};
use crate::inbox::{Appended, Key, NewMessage, Origin, Outcome, Selection, State, StoredHeaders};

pub async fn keeps_first_body_of_key<H: Harness>(suite: Suite<H>) {
    let mut other = message("a");
    other.body = "other".into();
    suite.store(message("a")).await;
    for (message, expected) in [
        (message("a"), Appended::Duplicate),
        (other, Appended::Conflict),
        (message("a"), Appended::Duplicate),
    ] {
        assert_eq!(suite.inbox.append(message).await.unwrap(), expected);
    }
    assert_eq!(suite.get("a").await.body, "a");
    // A done message is still a duplicate.
    let lease = suite.lease_one().await.lease;
    suite.complete(lease, Outcome::Done).await;
    let appended = suite.inbox.append(message("a")).await.unwrap();
    assert_eq!(appended, Appended::Duplicate);
    assert_eq!(suite.counts().await, [0, 1, 0]);
}

pub async fn stores_id_once_per_endpoint<H: Harness>(suite: Suite<H>) {
    suite.store(NewMessage::new("books", "a", "1")).await;
    suite.store(NewMessage::new("sales", "a", "2")).await;
    for (endpoint, body) in [("books", "1"), ("sales", "2")] {
        let stored = suite.inbox.get(Key::new(endpoint, "a")).await.unwrap();
        assert_eq!(stored.unwrap().body, body);
    }
    assert_eq!(suite.lease(3).await.len(), 2);
}

pub async fn answers_each_concurrent_append<H: Harness>(suite: Suite<H>) {
    for round in 0..20 {
        let id = |n: usize| format!("{round} {n}");
        // Each key four times: three with the same body.
        let appends = (0..32).map(|n| {
            let mut message = message(&id(n % 8));
            if n >= 24 {
                message.body = "other".into();
            }
            let inbox = Arc::clone(&suite.inbox);
            tokio::spawn(async move { inbox.append(message).await.unwrap() })
        });
        let appended: Vec<_> = join_all(appends).await;
        let appended: Vec<_> = appended.into_iter().map(Result::unwrap).collect();
        for key in 0..8 {
            let results = [0, 8, 16, 24].map(|n| appended[key + n]);
            let count = |result| results.iter().filter(|other| **other == result).count();
            let is_other = suite.get(&id(key)).await.body == "other";
            let (duplicates, conflicts) = if is_other { (0, 3) } else { (2, 1) };
            assert_eq!(count(Appended::Stored), 1, "{results:?}");
            assert_eq!(count(Appended::Duplicate), duplicates, "{results:?}");
            assert_eq!(count(Appended::Conflict), conflicts, "{results:?}");
        }
    }
    assert_eq!(suite.counts().await, [160, 0, 0]);
}

pub async fn keeps_message_unchanged<H: Harness>(suite: Suite<H>) {
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "1800000000"),
        ("webhook-signature", "v1,a= v1,b="),
        ("traceparent", ""),
    ];
    let body = r#"{"eventType":"v1.export-job.created","eventId":"e\u0031","data":{"id":"ø",
        "createdAt":"2126-01-03T02:04:05.9999Z","expiresIn":3600}}"#;
    let full = NewMessage::new("/webhooks/ø", "msg_'; --", body)
        .with_origin(Origin::CatchUp)
        .with_source("2001:db8::1".parse().ok())
        .with_headers(StoredHeaders::from_iter(headers));
    let binary = message("binary").with_source("192.0.2.1".parse().ok());
    let binary = NewMessage {
        body: b"\0\xff{}"[..].into(),
        ..binary
    };
    let empty = NewMessage::new("", "empty", "");
    let large = NewMessage::new("books", "large", vec![b'x'; 1 << 20]);
    let sent = [full, binary, empty, large];
    for message in &sent {
        suite.store(message.clone()).await;
    }
    let leased = suite.lease(5).await;
    assert_eq!(leased.len(), sent.len());
    for (sent, leased) in sent.iter().zip(leased) {
        let stored = suite.inbox.get(sent.key()).await.unwrap().unwrap();
        for message in [&stored, &leased.message] {
            let entry = &message.entry;
            let is_full = entry.origin == Origin::CatchUp;
            let text = |text: &str| is_full.then(|| text.to_owned());
            let expires_at = "2126-01-03T03:04:05.999Z".parse().unwrap();
            assert_eq!(message.body, sent.body);
            assert_eq!(message.headers, sent.headers);
            assert_eq!(entry.key(), sent.key());
            assert_eq!(entry.origin, sent.origin);
            assert_eq!(entry.source, sent.source);
            assert_eq!(entry.event_type, text("v1.export-job.created"));
            assert_eq!(entry.event_id, text("e1"));
            assert_eq!(entry.resource_id, text("ø"));
            assert_eq!(entry.expires_at, is_full.then_some(expires_at));
            assert_eq!(usize::try_from(entry.body_len).unwrap(), sent.body.len());
            assert_eq!((entry.state, entry.leased), (State::Pending, true));
            assert_eq!((entry.attempts, &entry.last_error), (1, &None));
        }
        assert_eq!(stored.entry, leased.message.entry);
    }
}

pub async fn stores_time_of_arrival_in_milliseconds<H: Harness>(suite: Suite<H>) {
    suite
        .harness
        .advance(core::time::Duration::from_nanos(1_700_001))
        .await;
    let before = suite.harness.now().await.as_millisecond();
    suite.store(message("a")).await;
    let after = suite.harness.now().await.as_millisecond();
    let received_at = suite.entry("a").await.received_at;
    assert!((before..=after).contains(&received_at.as_millisecond()));
    assert_eq!(received_at.subsec_nanosecond() % 1_000_000, 0);
}

pub async fn dropped_append_is_done_or_undone<H: Harness>(suite: Suite<H>) {
    for polls in 0..20 {
        let id = polls.to_string();
        let mut append = suite.inbox.append(message(&id));
        for _ in 0..polls {
            // A future must not be polled after it resolved.
            let poll = poll_fn(|context| Poll::Ready(append.as_mut().poll(context)));
            if poll.await.is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(append);
        let appended = suite.inbox.append(message(&id)).await.unwrap();
        let expected = if polls == 0 {
            [Appended::Stored; 2]
        } else {
            [Appended::Stored, Appended::Duplicate]
        };
        assert!(expected.contains(&appended), "{polls} polls: {appended:?}");
        assert_eq!(suite.get(&id).await.body, id);
    }
    assert_eq!(suite.lease(30).await.len(), 20);
}

pub async fn does_nothing_before_first_poll<H: Harness>(suite: Suite<H>) {
    suite.store_with("dead", dead()).await;
    suite.store(message_to("sales", "held")).await;
    let held = suite.lease_one().await.lease;
    suite.store(message("ready")).await;
    let inbox = &suite.inbox;
    drop(inbox.append(message("new")));
    drop(inbox.lease(request(1)));
    drop(inbox.renew(vec![held], core::time::Duration::ZERO));
    drop(inbox.complete(held, Outcome::Done));
    drop(inbox.replay(Selection::all()));
    drop(inbox.prune(Selection::all()));
    drop(inbox.set_paused("books".into(), true));
    drop(inbox.close());
    // A store may work in the background.
    inbox.check().await.unwrap();
    assert_eq!(suite.counts().await, [2, 0, 1]);
    assert_eq!(ids(&suite.lease(10).await), ["ready"]);
    suite.complete(held, Outcome::Done).await;
}
