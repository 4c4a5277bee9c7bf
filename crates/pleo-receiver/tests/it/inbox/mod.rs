//! What every inbox does, in memory and in a file alike: taking messages and handing them out.

use core::time::Duration;

use futures_util::future::try_join_all;
use jiff::Timestamp;
use pleo_receiver::{
    Appended, Counts, Entry, Filter, Inbox, LeaseId, LeaseRequest, LeasedMessage, NewMessage,
    Origin, Outcome, Selection, State,
};

use crate::support::job::job;

const LEASE: Duration = Duration::from_secs(100);

/// Runs each behaviour against each inbox.
macro_rules! behaviours {
    ($($name:ident,)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&pleo_receiver::MemoryInbox::new()).await;
            })*
        }

        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("inbox.db");
                super::$name(&pleo_receiver::SqliteInbox::open(path).unwrap()).await;
            })*
        }
    };
}

mod keeping;
#[cfg(feature = "sqlite")]
mod model;

behaviours! {
    the_first_bytes_of_a_key_are_kept,
    each_of_many_appended_together_is_told_its_own,
    one_id_on_two_endpoints_is_two_messages,
    an_append_is_done_though_nobody_waits_for_it,
    what_is_stored_comes_out_as_it_went_in,
    times_are_kept_to_the_millisecond,
    the_first_to_expire_is_claimed_first,
    the_first_to_expire_of_many_is_claimed_first,
    no_endpoint_gets_more_than_there_is_room_for,
    a_claim_counts_the_attempt_and_says_when_to_look_again,
    a_lease_that_ends_hands_the_message_out_again,
    a_lost_claim_settles_nothing,
    a_claim_settles_once,
    a_claim_is_not_mistaken_for_a_later_one,
    a_claim_is_still_good_after_its_lease_when_nobody_took_the_message,
    a_retry_is_due_at_its_time_and_not_before,
    what_is_dead_says_why_and_is_not_claimed,
    a_long_error_is_cut_between_characters,
    a_release_does_not_count,
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn message(id: &str) -> NewMessage {
    NewMessage {
        received_at: at(0),
        ..NewMessage::new("one", id, id.to_owned())
    }
}

async fn store(inbox: &dyn Inbox, message: NewMessage) {
    assert_eq!(inbox.append(message).await.unwrap(), Appended::Stored);
}

async fn lease(inbox: &dyn Inbox, now: Timestamp) -> Vec<LeasedMessage> {
    inbox
        .lease(LeaseRequest::of(10), now, LEASE)
        .await
        .unwrap()
        .messages
}

async fn lease_one(inbox: &dyn Inbox, now: Timestamp) -> LeasedMessage {
    let mut leased = lease(inbox, now).await;
    assert_eq!(leased.len(), 1, "{leased:?}");
    leased.remove(0)
}

async fn entries(inbox: &dyn Inbox) -> Vec<Entry> {
    inbox.list(Filter::default()).await.unwrap()
}

async fn entry(inbox: &dyn Inbox, id: &str) -> Entry {
    inbox.show(id.into()).await.unwrap().remove(0).0
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a LeasedMessage>) -> Vec<&'a str> {
    let ids = ids.into_iter();
    ids.map(|leased| &*leased.message.webhook_id).collect()
}

fn counts(pending: u64, done: u64, dead: u64) -> Counts {
    Counts {
        pending,
        done,
        dead,
    }
}

fn dead(error: &str) -> Outcome {
    let error = error.into();
    Outcome::Dead { error }
}

async fn the_first_bytes_of_a_key_are_kept(inbox: &dyn Inbox) {
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

    // It's known for as long as it is there, whatever became of it.
    let lease = lease_one(inbox, at(0)).await.lease;
    inbox.complete(lease, Outcome::Done).await.unwrap();
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Duplicate
    );
    assert_eq!(inbox.counts().await.unwrap(), counts(0, 1, 0));
}

async fn each_of_many_appended_together_is_told_its_own(inbox: &dyn Inbox) {
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
    let appended: Vec<_> = messages.into_iter().map(|one| inbox.append(one)).collect();
    let appended = try_join_all(appended).await.unwrap();
    let (stored, known) = (Appended::Stored, Appended::Duplicate);
    assert_eq!(appended, [stored, known, Appended::Conflict, stored, known]);
    assert_eq!(ids(&lease(inbox, at(0)).await), ["a", "b", "c"]);
}

async fn one_id_on_two_endpoints_is_two_messages(inbox: &dyn Inbox) {
    let mut second = message("a");
    second.endpoint = "two".into();
    second.body = "other".into();
    store(inbox, message("a")).await;
    store(inbox, second).await;
    let shown = inbox.show("a".into()).await.unwrap();
    let shown = shown
        .iter()
        .map(|(entry, body)| (&*entry.endpoint, &**body));
    let expected = [("one", &b"a"[..]), ("two", b"other")];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert_eq!(lease(inbox, at(0)).await.len(), 2);
}

async fn an_append_is_done_though_nobody_waits_for_it(inbox: &dyn Inbox) {
    drop(inbox.append(message("a")));
    assert_eq!(
        inbox.append(message("a")).await.unwrap(),
        Appended::Duplicate
    );
}

async fn what_is_stored_comes_out_as_it_went_in(inbox: &dyn Inbox) {
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
    let known = ["v1.export-job.created", "e1", "ø"].map(|text| Some(text.to_owned()));
    let sent = [
        (full, known, Some(expires_at)),
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

async fn times_are_kept_to_the_millisecond(inbox: &dyn Inbox) {
    let mut precise = message("a");
    precise.received_at = "2026-01-02T03:04:05.678901234Z".parse().unwrap();
    store(inbox, precise).await;
    let kept: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
    assert_eq!(entry(inbox, "a").await.received_at, kept);
    let leased = lease_one(inbox, at(0)).await;
    assert_eq!(leased.message.received_at, kept);
}

async fn the_first_to_expire_is_claimed_first(inbox: &dyn Inbox) {
    for (id, expires_at) in [
        ("never", None),
        ("late", Some(at(20))),
        ("soon", Some(at(10))),
        ("never again", None),
        ("late again", Some(at(20))),
        ("over", Some(at(-10))),
    ] {
        let mut message = message(id);
        message.body = expires_at.map_or(message.body, job);
        store(inbox, message).await;
    }
    let first = inbox
        .lease(LeaseRequest::of(2), at(0), LEASE)
        .await
        .unwrap()
        .messages;
    assert_eq!(ids(&first), ["over", "soon"]);
    let rest = lease(inbox, at(0)).await;
    assert_eq!(ids(&rest), ["late", "late again", "never", "never again"]);
}

async fn the_first_to_expire_of_many_is_claimed_first(inbox: &dyn Inbox) {
    let many: Vec<_> = (0..1000)
        .map(|number| NewMessage {
            body: job(at(10_000 - number)),
            ..message(&number.to_string())
        })
        .map(|message| inbox.append(message))
        .collect();
    try_join_all(many).await.unwrap();
    let first = inbox
        .lease(LeaseRequest::of(1), at(0), LEASE)
        .await
        .unwrap();
    assert_eq!(ids(&first.messages), ["999"]);
}

async fn no_endpoint_gets_more_than_there_is_room_for(inbox: &dyn Inbox) {
    for (number, endpoint) in (0..).zip(["", "", "", "", "two", "two", "three", "three"]) {
        let mut message = message(&number.to_string());
        message.endpoint = endpoint.into();
        // Those of the first go first, and 5 goes before 4.
        message.body = job(at(if number == 5 { 4 } else { 10 + number }));
        store(inbox, message).await;
    }
    let room = |total, per_endpoint, in_progress: &[(&str, usize)]| LeaseRequest {
        total,
        per_endpoint,
        in_progress: in_progress
            .iter()
            .map(|(name, count)| ((*name).into(), *count))
            .collect(),
    };
    for (room, expected) in [
        (room(0, 9, &[]), ""),
        (room(9, 0, &[]), ""),
        (
            room(9, 2, &[("", 2), ("two", 9), ("three", 2), ("four", 1)]),
            "",
        ),
        (room(3, 2, &[("", 1)]), "504"),
        (room(9, 1, &[("two", 1)]), "16"),
        (room(9, 9, &[]), "237"),
    ] {
        let lease = inbox.lease(room.clone(), at(0), LEASE).await.unwrap();
        assert_eq!(ids(&lease.messages).concat(), expected, "{room:?}");
    }
}

async fn a_claim_counts_the_attempt_and_says_when_to_look_again(inbox: &dyn Inbox) {
    assert_eq!(
        inbox
            .lease(LeaseRequest::of(10), at(0), LEASE)
            .await
            .unwrap()
            .next_due,
        None
    );
    store(inbox, message("a")).await;
    store(inbox, message("b")).await;
    assert_eq!(
        inbox
            .lease(LeaseRequest::of(0), at(0), LEASE)
            .await
            .unwrap()
            .next_due,
        None
    );
    for (now, id, next_due) in [(0, "a", 100), (5, "b", 100)] {
        let lease = inbox
            .lease(LeaseRequest::of(1), at(now), LEASE)
            .await
            .unwrap();
        assert_eq!(ids(&lease.messages), [id]);
        assert_eq!(lease.messages[0].attempt, 1);
        assert_eq!(lease.next_due, Some(at(next_due)));
        let entry = entry(inbox, id).await;
        assert_eq!((entry.attempts, entry.due_at), (1, Some(at(now + 100))));
    }
    assert!(lease(inbox, at(99)).await.is_empty());
}

async fn a_lease_that_ends_hands_the_message_out_again(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let first = lease_one(inbox, at(0)).await;
    assert!(lease(inbox, at(99)).await.is_empty());
    let second = lease_one(inbox, at(100)).await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert_ne!(first.lease, second.lease);
    assert_eq!(second.message.body, "a");
}

async fn a_lost_claim_settles_nothing(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let lost = lease_one(inbox, at(0)).await.lease;
    let held = lease_one(inbox, at(100)).await.lease;
    let before = entry(inbox, "a").await;
    let retry = Outcome::Retry {
        at: at(0),
        error: "late".into(),
    };
    for outcome in [Outcome::Done, retry, dead("late"), Outcome::Release] {
        inbox.complete(lost, outcome).await.unwrap();
        assert_eq!(entry(inbox, "a").await, before);
    }
    inbox.complete(held, Outcome::Done).await.unwrap();
    assert_eq!(entry(inbox, "a").await.state, State::Done);

    let unknown = LeaseId {
        message: held.message + 1,
        number: 1,
    };
    inbox.complete(unknown, Outcome::Done).await.unwrap();
    assert_eq!(inbox.counts().await.unwrap(), counts(0, 1, 0));
}

async fn a_claim_settles_once(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let lease = lease_one(inbox, at(0)).await.lease;
    inbox.complete(lease, Outcome::Done).await.unwrap();
    inbox.complete(lease, dead("late")).await.unwrap();
    inbox.complete(lease, Outcome::Release).await.unwrap();
    let entry = entry(inbox, "a").await;
    let stands = (entry.state, entry.attempts, entry.due_at, entry.last_error);
    assert_eq!(stands, (State::Done, 1, None, None));
}

async fn a_claim_is_still_good_after_its_lease_when_nobody_took_the_message(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let late = lease_one(inbox, at(0)).await.lease;
    // The handler was slow, and nobody looked for messages meanwhile.
    inbox.complete(late, Outcome::Done).await.unwrap();
    assert!(lease(inbox, at(1000)).await.is_empty());
    assert_eq!(inbox.counts().await.unwrap(), counts(0, 1, 0));
}

async fn a_retry_is_due_at_its_time_and_not_before(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let first = lease_one(inbox, at(0)).await.lease;
    // A fraction of a millisecond is not rounded down.
    let due = at(50).checked_add(Duration::from_nanos(1)).unwrap();
    let error = "no answer".to_owned();
    let retry = Outcome::Retry { at: due, error };
    inbox.complete(first, retry).await.unwrap();
    let waiting = entry(inbox, "a").await;
    assert_eq!((waiting.state, waiting.attempts), (State::Pending, 1));
    assert_eq!(waiting.last_error.as_deref(), Some("no answer"));
    assert!(waiting.due_at.unwrap() >= due);

    let early = inbox
        .lease(LeaseRequest::of(10), at(50), LEASE)
        .await
        .unwrap();
    assert!(early.messages.is_empty());
    assert_eq!(early.next_due, waiting.due_at);
    let second = lease_one(inbox, waiting.due_at.unwrap()).await;
    assert_eq!(second.attempt, 2);

    inbox.complete(second.lease, Outcome::Done).await.unwrap();
    let last_error = entry(inbox, "a").await.last_error;
    assert_eq!(last_error.as_deref(), Some("no answer"));
}

async fn what_is_dead_says_why_and_is_not_claimed(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let leased = lease_one(inbox, at(0)).await.lease;
    inbox.complete(leased, dead("why")).await.unwrap();
    let entry = entry(inbox, "a").await;
    assert_eq!((entry.state, entry.due_at), (State::Dead, None));
    assert_eq!(entry.last_error.as_deref(), Some("why"));
    let lease = inbox
        .lease(LeaseRequest::of(10), at(1000), LEASE)
        .await
        .unwrap();
    assert!(lease.messages.is_empty() && lease.next_due.is_none());
    assert_eq!(inbox.counts().await.unwrap(), counts(0, 0, 1));
}

async fn a_long_error_is_cut_between_characters(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let leased = lease_one(inbox, at(0)).await.lease;
    let error = format!("{}ø", "x".repeat(4095));
    inbox.complete(leased, dead(&error)).await.unwrap();
    let last_error = entry(inbox, "a").await.last_error;
    assert_eq!(last_error, Some("x".repeat(4095)));
}

async fn a_release_does_not_count(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let leased = lease_one(inbox, at(0)).await.lease;
    inbox.complete(leased, Outcome::Release).await.unwrap();
    let entry = entry(inbox, "a").await;
    let stands = (entry.state, entry.attempts, entry.due_at, entry.last_error);
    assert_eq!(stands, (State::Pending, 0, None, None));
    assert_eq!(lease_one(inbox, at(0)).await.attempt, 1);
}

async fn a_claim_is_not_mistaken_for_a_later_one(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let released = lease_one(inbox, at(0)).await.lease;
    inbox.complete(released, Outcome::Release).await.unwrap();
    let held = lease_one(inbox, at(0)).await.lease;
    assert_ne!(released, held);
    inbox.complete(released, Outcome::Done).await.unwrap();
    assert_eq!(inbox.counts().await.unwrap(), counts(1, 0, 0));

    inbox.complete(held, Outcome::Done).await.unwrap();
    let selection = Selection::id("a");
    assert_eq!(inbox.replay(selection).await.unwrap(), 1);
    let replayed = lease_one(inbox, at(0)).await.lease;
    inbox.complete(held, Outcome::Done).await.unwrap();
    assert_eq!(
        inbox.counts().await.unwrap(),
        counts(1, 0, 0),
        "{replayed:?}"
    );
}
