//! Tests of every inbox: appending messages.

use futures_util::future::try_join_all;
use jiff::Timestamp;
use pleo_receiver::{Appended, Entry, Inbox, NewMessage, Origin, Outcome, State};

use super::{counts, entry, ids, lease_one, message, store};
use crate::support::inbox::{at, lease};

for_each_store! {
    keeps_first_body_of_key,
    returns_own_result_to_each_concurrent_append,
    stores_same_id_once_per_endpoint,
    appends_after_future_is_dropped,
    returns_message_unchanged,
    stores_times_in_milliseconds,
}

async fn keeps_first_body_of_key(inbox: &dyn Inbox) {
    let mut other = message("a");
    other.body = "other".into();
    store(inbox, message("a")).await;
    for (message, appended) in [
        (message("a"), Appended::Duplicate),
        (other, Appended::Conflict),
        (message("a"), Appended::Duplicate),
    ] {
        assert_eq!(inbox.append(message).await.unwrap(), appended);
    }
    let shown = inbox.show("a".into()).await.unwrap();
    assert_eq!((shown.len(), &shown[0].1[..]), (1, &b"a"[..]));

    // A done message is still a duplicate.
    let lease = lease_one(inbox, at(0)).await.lease;
    inbox.complete(lease, Outcome::Done).await.unwrap();
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Duplicate
    );
    assert_eq!(inbox.counts().await.unwrap(), counts(0, 1, 0));
}

async fn returns_own_result_to_each_concurrent_append(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let mut other = message("b");
    other.body = b"other"[..].into();
    let messages = vec![
        message("b"),
        message("a"),
        other,
        message("c"),
        message("b"),
    ];
    let appended: Vec<_> = messages
        .into_iter()
        .map(|message| inbox.append(message))
        .collect();
    let appended = try_join_all(appended).await.unwrap();
    let (stored, duplicate) = (Appended::Stored, Appended::Duplicate);
    assert_eq!(
        appended,
        [stored, duplicate, Appended::Conflict, stored, duplicate]
    );
    assert_eq!(ids(&lease(inbox, at(0)).await), ["a", "b", "c"]);
}

async fn stores_same_id_once_per_endpoint(inbox: &dyn Inbox) {
    let mut second = message("a");
    second.endpoint = "sales".into();
    second.body = "other".into();
    store(inbox, message("a")).await;
    store(inbox, second).await;
    let shown = inbox.show("a".into()).await.unwrap();
    let shown = shown
        .iter()
        .map(|(entry, body)| (&*entry.endpoint, &**body));
    let expected = [("books", &b"a"[..]), ("sales", b"other")];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert_eq!(lease(inbox, at(0)).await.len(), 2);
}

async fn appends_after_future_is_dropped(inbox: &dyn Inbox) {
    drop(inbox.append(message("a")));
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Duplicate
    );
}

async fn returns_message_unchanged(inbox: &dyn Inbox) {
    let full = NewMessage {
        endpoint: "/webhooks/ø".into(),
        webhook_id: "msg_'; --".into(),
        received_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        origin: Origin::CatchUp,
        body: r#"{"eventType":"v1.export-job.created","eventId":"e\u0031","data":{"id":"ø",
            "createdAt":"2026-01-03T02:04:05.9999Z","expiresIn":3600}}"#
            .into(),
    };
    let expires_at = "2026-01-03T03:04:05.999Z".parse().unwrap();
    let mut odd = message("odd");
    odd.body = b"\0\xff{}"[..].into();
    let mut bare = message("bare");
    bare.body = b""[..].into();
    store(inbox, full.clone()).await;
    store(inbox, odd.clone()).await;
    store(inbox, bare.clone()).await;
    let columns = ["v1.export-job.created", "e1", "ø"].map(|text| Some(text.to_owned()));
    let sent = [
        (full, columns, Some(expires_at)),
        (odd, [None, None, None], None),
        (bare, [None, None, None], None),
    ];
    let leased = lease(inbox, at(0)).await;
    assert_eq!(leased.len(), sent.len());
    for ((sent, [event_type, event_id, resource_id], expires_at), leased) in
        sent.into_iter().zip(leased)
    {
        assert_eq!(format!("{:?}", leased.message), format!("{sent:?}"));
        let (entry, body) = inbox
            .show(sent.webhook_id.to_string())
            .await
            .unwrap()
            .remove(0);
        assert_eq!(body, sent.body);
        let sequence = entry.sequence;
        let expected = Entry {
            sequence,
            endpoint: sent.endpoint.to_string(),
            webhook_id: sent.webhook_id.to_string(),
            event_type,
            event_id,
            resource_id,
            origin: sent.origin,
            state: State::Pending,
            attempts: 1,
            received_at: sent.received_at,
            expires_at,
            due_at: Some(at(100)),
            last_error: None,
            body_len: u64::try_from(sent.body.len()).unwrap(),
        };
        assert_eq!(entry, expected);
    }
}

async fn stores_times_in_milliseconds(inbox: &dyn Inbox) {
    let mut precise = message("a");
    precise.received_at = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
    store(inbox, precise).await;
    let kept: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
    assert_eq!(entry(inbox, "a").await.received_at, kept);
    let leased = lease_one(inbox, at(0)).await;
    assert_eq!(leased.message.received_at, kept);
}
