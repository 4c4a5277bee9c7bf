//! Tests of every inbox: list, show, replay, prune, close.

use pleo_receiver::{Counts, Filter, Inbox, InboxError, LeaseRequest, Outcome, Selection, State};

use super::{counts, dead, entries, ids, lease_one, message, store};
use crate::support::inbox::{LEASE, at, lease};
use crate::support::job::job;

for_each_store! {
    replays_id_in_any_state_and_endpoint,
    replays_only_dead_messages,
    leases_replayed_ready_message_once,
    replays_selected_messages,
    does_not_replay_leased_message,
    replays_scheduled_retry_at_once,
    prunes_old_messages_in_state,
    counts_message_once_while_state_changes,
    does_not_prune_pending_messages,
    stores_pruned_message_again,
    lists_filtered_messages,
    shows_nothing_for_unknown_id,
    closed_inbox_refuses_writes,
    closed_inbox_refuses_reads,
    ready_resolves_after_append_and_replay,
}

async fn replays_id_in_any_state_and_endpoint(inbox: &dyn Inbox) {
    for endpoint in ["done", "dead", "pending"] {
        let mut message = message("a");
        message.endpoint = endpoint.into();
        store(inbox, message).await;
    }
    store(inbox, message("b")).await;
    for leased in lease(inbox, at(0)).await {
        let outcome = match &*leased.message.endpoint {
            "dead" => dead("why"),
            "pending" => Outcome::Release,
            _ => Outcome::Done,
        };
        inbox.complete(leased.lease, outcome).await.unwrap();
    }
    let selection = Selection::id("a");
    assert_eq!(inbox.replay(selection).await.unwrap(), 3);
    let leased = lease(inbox, at(0)).await;
    assert_eq!(ids(&leased), ["a"; 3]);
    assert!(leased.iter().all(|leased| leased.attempt == 1));

    let selection = Selection::id("c");
    assert_eq!(inbox.replay(selection).await.unwrap(), 0);
}

async fn replays_only_dead_messages(inbox: &dyn Inbox) {
    for id in ["a", "b", "c"] {
        store(inbox, message(id)).await;
    }
    for (leased, outcome) in
        (lease(inbox, at(0)).await.iter()).zip([dead("why"), Outcome::Done, dead("why")])
    {
        inbox.complete(leased.lease, outcome).await.unwrap();
    }
    assert_eq!(inbox.replay(Selection::dead()).await.unwrap(), 2);
    assert_eq!(inbox.replay(Selection::dead()).await.unwrap(), 0);
    assert_eq!(inbox.counts().await.unwrap(), counts(2, 1, 0));
    assert_eq!(ids(&lease(inbox, at(0)).await), ["a", "c"]);
}

async fn leases_replayed_ready_message_once(inbox: &dyn Inbox) {
    let mut message = message("a");
    message.body = job(at(10));
    store(inbox, message).await;
    assert_eq!(inbox.replay(Selection::id("a")).await.unwrap(), 1);
    assert_eq!(ids(&lease(inbox, at(0)).await), ["a"]);
    assert!(lease(inbox, at(0)).await.is_empty());
}

async fn replays_selected_messages(inbox: &dyn Inbox) {
    for (second, (id, endpoint, event_type)) in (0..).zip([
        ("a", "books", Some("v1.vendor.created")),
        ("b", "books", Some("v1.export-job.created")),
        ("c", "sales", Some("v1.vendor.created")),
        ("d", "sales", None),
    ]) {
        let mut message = message(id);
        message.endpoint = endpoint.into();
        if let Some(event_type) = event_type {
            message.body = format!(r#"{{"eventType":"{event_type}"}}"#).into();
        }
        message.received_at = at(second);
        store(inbox, message).await;
    }
    let all = Selection::default;
    for (selection, expected) in [
        (all(), "abcd"),
        (Selection::id("b"), "b"),
        (Selection::dead(), ""),
        (
            Selection {
                state: Some(State::Done),
                ..all()
            },
            "abcd",
        ),
        (
            Selection {
                endpoint: Some("books".into()),
                ..all()
            },
            "ab",
        ),
        (
            Selection {
                event_type: Some("v1.vendor.created".into()),
                ..all()
            },
            "ac",
        ),
        (
            Selection {
                since: Some(at(1)),
                ..all()
            },
            "bcd",
        ),
        (
            Selection {
                until: Some(at(2)),
                ..all()
            },
            "ab",
        ),
        (
            Selection {
                since: Some(at(0)),
                until: Some(at(3)),
                event_type: Some("v1.vendor.created".into()),
                endpoint: Some("sales".into()),
                ..all()
            },
            "c",
        ),
        (
            Selection {
                since: Some(at(1)),
                until: Some(at(1)),
                ..all()
            },
            "",
        ),
    ] {
        for leased in lease(inbox, at(10)).await {
            inbox.complete(leased.lease, Outcome::Done).await.unwrap();
        }
        let replayed = inbox.replay(selection.clone()).await.unwrap();
        let leased = lease(inbox, at(10)).await;
        assert_eq!(ids(&leased).concat(), expected, "{selection:?}");
        assert_eq!(usize::try_from(replayed).unwrap(), leased.len());
        for leased in leased {
            inbox.complete(leased.lease, Outcome::Done).await.unwrap();
        }
    }
}

async fn does_not_replay_leased_message(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let held = lease_one(inbox, at(0)).await.lease;
    let selection = Selection::id("a");
    assert_eq!(inbox.replay(selection).await.unwrap(), 0);
    assert!(lease(inbox, at(0)).await.is_empty());
    inbox.complete(held, Outcome::Done).await.unwrap();
    assert_eq!(inbox.counts().await.unwrap(), counts(0, 1, 0));
}

async fn replays_scheduled_retry_at_once(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let leased = lease_one(inbox, at(0)).await.lease;
    let error = "why".to_owned();
    let retry = Outcome::Retry { at: at(500), error };
    inbox.complete(leased, retry).await.unwrap();
    let selection = Selection::id("a");
    assert_eq!(inbox.replay(selection).await.unwrap(), 1);
    assert_eq!(lease_one(inbox, at(1)).await.attempt, 1);
}

async fn prunes_old_messages_in_state(inbox: &dyn Inbox) {
    for (second, id) in (0..).zip(["done 0", "dead 1", "pending 2", "done 3", "done 4"]) {
        let mut message = message(id);
        message.received_at = at(second);
        store(inbox, message).await;
    }
    for leased in lease(inbox, at(10)).await {
        let outcome = match leased.message.webhook_id.split_once(' ').unwrap().0 {
            "dead" => dead("why"),
            "pending" => Outcome::Release,
            _ => Outcome::Done,
        };
        inbox.complete(leased.lease, outcome).await.unwrap();
    }
    for (state, before, pruned, left) in [
        (State::Done, 0, 0, counts(1, 3, 1)),
        (State::Done, 4, 2, counts(1, 1, 1)),
        (State::Dead, 1, 0, counts(1, 1, 1)),
        (State::Dead, 9, 1, counts(1, 1, 0)),
        (State::Pending, 9, 0, counts(1, 1, 0)),
    ] {
        assert_eq!(inbox.prune(state, at(before)).await.unwrap(), pruned);
        assert_eq!(inbox.counts().await.unwrap(), left, "{state} {before}");
    }
    assert_eq!(ids(&lease(inbox, at(10)).await), ["pending 2"]);
    assert_eq!(entries(inbox).await[1].webhook_id, "done 4");
}

async fn counts_message_once_while_state_changes(inbox: &dyn Inbox) {
    for number in 0..100 {
        store(inbox, message(&number.to_string())).await;
    }
    let complete_all = async {
        while let [leased] = &inbox
            .lease(LeaseRequest::new(1), at(0), LEASE)
            .await
            .unwrap()
            .messages[..]
        {
            inbox.complete(leased.lease, Outcome::Done).await.unwrap();
        }
    };
    let mut complete_all = core::pin::pin!(complete_all);
    loop {
        tokio::select! {
            () = &mut complete_all => break,
            counted = inbox.counts() => {
                let Counts { pending, done, dead } = counted.unwrap();
                assert_eq!((pending + done, dead), (100, 0), "{pending} pending, {done} done");
            }
        }
    }
    assert_eq!(inbox.counts().await.unwrap(), counts(0, 100, 0));
}

async fn does_not_prune_pending_messages(inbox: &dyn Inbox) {
    for id in ["held", "waiting", "new"] {
        store(inbox, message(id)).await;
    }
    let leased = inbox
        .lease(LeaseRequest::new(2), at(0), LEASE)
        .await
        .unwrap();
    let error = "why".to_owned();
    let retry = Outcome::Retry { at: at(500), error };
    inbox
        .complete(leased.messages[1].lease, retry)
        .await
        .unwrap();
    assert_eq!(inbox.prune(State::Pending, at(1)).await.unwrap(), 0);
    assert_eq!(inbox.counts().await.unwrap(), counts(3, 0, 0));
}

async fn stores_pruned_message_again(inbox: &dyn Inbox) {
    // More messages than one transaction deletes.
    for number in 0..1200 {
        store(inbox, message(&number.to_string())).await;
    }
    let leased = inbox
        .lease(LeaseRequest::new(1200), at(0), LEASE)
        .await
        .unwrap();
    for leased in leased.messages {
        inbox.complete(leased.lease, Outcome::Done).await.unwrap();
    }
    let last = entries(inbox).await.last().unwrap().sequence;
    assert_eq!(inbox.prune(State::Done, at(1)).await.unwrap(), 1200);
    assert!(inbox.show("7".into()).await.unwrap().is_empty());
    store(inbox, message("7")).await;
    // A sequence is never reused.
    assert!(entries(inbox).await[0].sequence > last);
}

async fn lists_filtered_messages(inbox: &dyn Inbox) {
    for (id, endpoint) in [
        ("a", "books"),
        ("b", "sales"),
        ("c", "books"),
        ("d", "sales"),
    ] {
        let mut message = message(id);
        message.endpoint = endpoint.into();
        store(inbox, message).await;
    }
    for leased in inbox
        .lease(LeaseRequest::new(2), at(0), LEASE)
        .await
        .unwrap()
        .messages
    {
        inbox.complete(leased.lease, Outcome::Done).await.unwrap();
    }
    let all = entries(inbox).await;
    let filter =
        |state: Option<State>, endpoint: Option<&str>, after: Option<usize>, limit| Filter {
            state,
            endpoint: endpoint.map(Into::into),
            after: after.map(|index| all[index].sequence),
            limit,
            newest_first: false,
        };
    for (filter, expected) in [
        (filter(None, None, None, None), "abcd"),
        (filter(Some(State::Done), None, None, None), "ab"),
        (filter(Some(State::Pending), None, None, None), "cd"),
        (filter(Some(State::Dead), None, None, None), ""),
        (filter(None, Some("sales"), None, None), "bd"),
        (filter(None, Some("three"), None, None), ""),
        (filter(None, None, Some(1), None), "cd"),
        (filter(None, None, Some(3), None), ""),
        (filter(None, None, None, Some(3)), "abc"),
        (filter(None, None, None, Some(0)), ""),
        (
            filter(Some(State::Pending), Some("sales"), Some(0), Some(1)),
            "d",
        ),
        (
            Filter {
                newest_first: true,
                ..filter(None, None, Some(0), Some(2))
            },
            "dc",
        ),
    ] {
        let listed = inbox.list(filter.clone()).await.unwrap();
        let listed: String = listed.into_iter().map(|entry| entry.webhook_id).collect();
        assert_eq!(listed, expected, "{filter:?}");
    }
}

async fn shows_nothing_for_unknown_id(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    for id in ["b", "A", "", "%"] {
        assert!(inbox.show(id.into()).await.unwrap().is_empty(), "{id}");
    }
}

async fn closed_inbox_refuses_writes(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    let lease = lease_one(inbox, at(0)).await.lease;
    inbox.close().await.unwrap();
    let prune = inbox.prune(State::Pending, at(1));
    for (call, closed) in [
        ("append", refused(inbox.append(message("b")).await)),
        (
            "lease",
            refused(inbox.lease(LeaseRequest::new(1), at(0), LEASE).await),
        ),
        (
            "complete",
            refused(inbox.complete(lease, Outcome::Done).await),
        ),
        ("replay", refused(inbox.replay(Selection::dead()).await)),
        ("prune", refused(prune.await)),
        ("close", refused(inbox.close().await)),
    ] {
        assert!(closed, "{call}");
    }
}

async fn closed_inbox_refuses_reads(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    inbox.close().await.unwrap();
    for (call, closed) in [
        ("list", refused(inbox.list(Filter::default()).await)),
        ("show", refused(inbox.show("a".into()).await)),
        ("counts", refused(inbox.counts().await)),
    ] {
        assert!(closed, "{call}");
    }
}

fn refused<T>(result: Result<T, InboxError>) -> bool {
    matches!(result, Err(InboxError::Closed))
}

async fn ready_resolves_after_append_and_replay(inbox: &dyn Inbox) {
    store(inbox, message("a")).await;
    inbox.ready().await;
    let lease = lease_one(inbox, at(0)).await.lease;
    inbox.complete(lease, dead("why")).await.unwrap();
    inbox.replay(Selection::dead()).await.unwrap();
    inbox.ready().await;
    lease_one(inbox, at(0)).await;
}
