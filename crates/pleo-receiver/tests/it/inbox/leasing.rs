//! Tests of every inbox: leasing messages and completing leases.

use core::time::Duration;

use futures_util::future::try_join_all;
use pleo_receiver::{Inbox, LeaseId, LeaseRequest, NewMessage, Outcome, Selection, State};

use super::{counts, dead, entry, ids, lease_one, message, store};
use crate::support::inbox::{LEASE, at, lease};
use crate::support::job::job;

for_each_store! {
    leases_by_expiry_then_arrival,
    leases_earliest_expiry_of_many,
    limits_leases_per_endpoint,
    lease_counts_attempt_and_returns_next_due,
    redelivers_after_lease_ends,
    ignores_completion_of_lost_lease,
    completes_lease_once,
    ignores_completion_of_earlier_lease,
    completes_after_lease_ended_unless_leased_again,
    retries_at_scheduled_time_not_earlier,
    dead_message_has_error_and_is_not_leased,
    truncates_long_error_between_characters,
    release_does_not_count_attempt,
}

async fn leases_by_expiry_then_arrival(inbox: &dyn Inbox) {
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
        .lease(LeaseRequest::new(2), at(0), LEASE)
        .await
        .unwrap()
        .messages;
    assert_eq!(ids(&first), ["over", "soon"]);
    let rest = lease(inbox, at(0)).await;
    assert_eq!(ids(&rest), ["late", "late again", "never", "never again"]);
}

async fn leases_earliest_expiry_of_many(inbox: &dyn Inbox) {
    let many: Vec<_> = (0..1000)
        .map(|number| NewMessage {
            body: job(at(10_000 - number)),
            ..message(&number.to_string())
        })
        .map(|message| inbox.append(message))
        .collect();
    try_join_all(many).await.unwrap();
    let first = inbox
        .lease(LeaseRequest::new(1), at(0), LEASE)
        .await
        .unwrap();
    assert_eq!(ids(&first.messages), ["999"]);
}

async fn limits_leases_per_endpoint(inbox: &dyn Inbox) {
    for (number, endpoint) in (0..).zip(["", "", "", "", "two", "two", "three", "three"]) {
        let mut message = message(&number.to_string());
        message.endpoint = endpoint.into();
        // Messages 0 to 3 expire first, and 5 expires before 4.
        message.body = job(at(if number == 5 { 4 } else { 10 + number }));
        store(inbox, message).await;
    }
    let request = |max, per_endpoint, in_progress: &[(&str, usize)]| {
        let in_progress = in_progress.iter();
        LeaseRequest::new(max)
            .with_per_endpoint(per_endpoint)
            .with_in_progress(
                in_progress
                    .map(|(name, count)| ((*name).into(), *count))
                    .collect(),
            )
    };
    for (request, expected) in [
        (request(0, 9, &[]), ""),
        (request(9, 0, &[]), ""),
        (
            request(9, 2, &[("", 2), ("two", 9), ("three", 2), ("four", 1)]),
            "",
        ),
        (request(3, 2, &[("", 1)]), "504"),
        (request(9, 1, &[("two", 1)]), "16"),
        (request(9, 9, &[]), "237"),
    ] {
        let lease = inbox.lease(request.clone(), at(0), LEASE).await.unwrap();
        assert_eq!(ids(&lease.messages).concat(), expected, "{request:?}");
    }
}

async fn lease_counts_attempt_and_returns_next_due(inbox: &dyn Inbox) {
    assert_eq!(
        inbox
            .lease(LeaseRequest::new(10), at(0), LEASE)
            .await
            .unwrap()
            .next_due,
        None
    );
    store(inbox, message("a")).await;
    store(inbox, message("b")).await;
    assert_eq!(
        inbox
            .lease(LeaseRequest::new(0), at(0), LEASE)
            .await
            .unwrap()
            .next_due,
        None
    );
    for (now, id, next_due) in [(0, "a", 100), (5, "b", 100)] {
        let lease = inbox
            .lease(LeaseRequest::new(1), at(now), LEASE)
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

async fn redelivers_after_lease_ends(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let first = lease_one(inbox, at(0)).await;
    assert!(lease(inbox, at(99)).await.is_empty());
    let second = lease_one(inbox, at(100)).await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert_ne!(first.lease, second.lease);
    assert_eq!(second.message.body, "a");
}

async fn ignores_completion_of_lost_lease(inbox: &dyn Inbox) {
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

async fn completes_lease_once(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let lease = lease_one(inbox, at(0)).await.lease;
    inbox.complete(lease, Outcome::Done).await.unwrap();
    inbox.complete(lease, dead("late")).await.unwrap();
    inbox.complete(lease, Outcome::Release).await.unwrap();
    let entry = entry(inbox, "a").await;
    let recorded = (entry.state, entry.attempts, entry.due_at, entry.last_error);
    assert_eq!(recorded, (State::Done, 1, None, None));
}

async fn ignores_completion_of_earlier_lease(inbox: &dyn Inbox) {
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

async fn completes_after_lease_ended_unless_leased_again(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let late = lease_one(inbox, at(0)).await.lease;
    // The lease ended, but the message was not leased again.
    inbox.complete(late, Outcome::Done).await.unwrap();
    assert!(lease(inbox, at(1000)).await.is_empty());
    assert_eq!(inbox.counts().await.unwrap(), counts(0, 1, 0));
}

async fn retries_at_scheduled_time_not_earlier(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let first = lease_one(inbox, at(0)).await.lease;
    // Fractions of a millisecond are rounded up.
    let due = at(50).checked_add(Duration::from_nanos(1)).unwrap();
    let error = "no answer".to_owned();
    let retry = Outcome::Retry { at: due, error };
    inbox.complete(first, retry).await.unwrap();
    let waiting = entry(inbox, "a").await;
    assert_eq!((waiting.state, waiting.attempts), (State::Pending, 1));
    assert_eq!(waiting.last_error.as_deref(), Some("no answer"));
    assert!(waiting.due_at.unwrap() >= due);

    let early = inbox
        .lease(LeaseRequest::new(10), at(50), LEASE)
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

async fn dead_message_has_error_and_is_not_leased(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let leased = lease_one(inbox, at(0)).await.lease;
    inbox.complete(leased, dead("why")).await.unwrap();
    let entry = entry(inbox, "a").await;
    assert_eq!((entry.state, entry.due_at), (State::Dead, None));
    assert_eq!(entry.last_error.as_deref(), Some("why"));
    let lease = inbox
        .lease(LeaseRequest::new(10), at(1000), LEASE)
        .await
        .unwrap();
    assert!(lease.messages.is_empty() && lease.next_due.is_none());
    assert_eq!(inbox.counts().await.unwrap(), counts(0, 0, 1));
}

async fn truncates_long_error_between_characters(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let leased = lease_one(inbox, at(0)).await.lease;
    let error = format!("{}ø", "x".repeat(4095));
    inbox.complete(leased, dead(&error)).await.unwrap();
    let last_error = entry(inbox, "a").await.last_error;
    assert_eq!(last_error, Some("x".repeat(4095)));
}

async fn release_does_not_count_attempt(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let leased = lease_one(inbox, at(0)).await.lease;
    inbox.complete(leased, Outcome::Release).await.unwrap();
    let entry = entry(inbox, "a").await;
    let recorded = (entry.state, entry.attempts, entry.due_at, entry.last_error);
    assert_eq!(recorded, (State::Pending, 0, None, None));
    assert_eq!(lease_one(inbox, at(0)).await.attempt, 1);
}
