//! The dispatch order within and among endpoints.

use futures_util::future::try_join_all;

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{ids, message, message_to, request, retry};
use crate::inbox::{NewMessage, Outcome};

pub async fn leases_live_by_expiry_then_arrival_then_expired<H: Harness>(suite: Suite<H>) {
    for (id, expires_in) in [
        ("expired", Some(-1000)),
        ("never", None),
        ("late", Some(2000)),
        ("soon", Some(1000)),
        ("expired first", Some(-2000)),
        ("never again", None),
        ("late again", Some(2000)),
    ] {
        let mut message = message(id);
        if let Some(seconds) = expires_in {
            message.body = suite.job(seconds).await;
        }
        suite.store(message).await;
    }
    assert_eq!(ids(&suite.lease(2).await), ["soon", "late"]);
    let rest = suite.lease(10).await;
    let expected = [
        "late again",
        "never",
        "never again",
        "expired first",
        "expired",
    ];
    assert_eq!(ids(&rest), expected);
}

pub async fn leases_equal_expiries_by_arrival<H: Harness>(suite: Suite<H>) {
    let body = suite.job(1000).await;
    for id in ["c", "a", "b"] {
        suite
            .store(NewMessage::new("books", id, body.clone()))
            .await;
    }
    assert_eq!(ids(&suite.lease(10).await), ["c", "a", "b"]);
}

pub async fn leases_message_that_expires_meanwhile_last<H: Harness>(suite: Suite<H>) {
    for (id, seconds) in [("soon", 100), ("late", 10_000)] {
        let body = suite.job(seconds).await;
        suite.store(NewMessage::new("books", id, body)).await;
    }
    suite.store(message("never")).await;
    suite.advance(1000).await;
    assert_eq!(ids(&suite.lease(10).await), ["late", "never", "soon"]);
}

pub async fn leases_earliest_expiry_of_many<H: Harness>(suite: Suite<H>) {
    let mut appends = Vec::new();
    for number in 0..1000 {
        let body = suite.job(100_000 - number * 20).await;
        let message = NewMessage::new("books", number.to_string(), body);
        appends.push(suite.inbox.append(message));
    }
    try_join_all(appends).await.unwrap();
    assert_eq!(ids(&suite.lease(2).await), ["999", "998"]);
}

pub async fn leases_retries_and_released_messages_in_order<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "b", "c", "d"]).await;
    let leased = suite.lease(3).await;
    for (leased, outcome) in leased.iter().zip([retry(50), Outcome::Release, retry(20)]) {
        suite.complete(leased.lease, outcome).await;
    }
    suite.advance(100).await;
    assert_eq!(ids(&suite.lease(10).await), ["a", "b", "c", "d"]);
}

/// An endpoint with messages that are never urgent among others whose messages always are.
pub async fn leases_from_each_endpoint_within_two_rounds<H: Harness>(suite: Suite<H>) {
    const BUSY: usize = 5;
    let urgent = suite.job(10_000).await;
    for endpoint in 0..BUSY {
        for number in 0..20 {
            let message = NewMessage::new(
                format!("busy {endpoint}"),
                number.to_string(),
                urgent.clone(),
            );
            suite.store(message).await;
        }
    }
    for number in 0..3 {
        let message = message_to("quiet", &number.to_string());
        suite.store(message).await;
    }
    // One at a time and several at a time.
    for max in [1, 3, 2 * (BUSY + 1)] {
        let mut leased = Vec::new();
        while leased.len() < 2 * (BUSY + 1) {
            let rest = 2 * (BUSY + 1) - leased.len();
            leased.extend(suite.lease(rest.min(max)).await);
        }
        let is_quiet =
            |leased: &crate::inbox::LeasedMessage| &*leased.message.entry.endpoint == "quiet";
        assert!(
            leased.iter().any(is_quiet),
            "max {max}: quiet endpoint is starved"
        );
    }
}

pub async fn gives_every_second_lease_to_most_urgent_message<H: Harness>(suite: Suite<H>) {
    let urgent = suite.job(10_000).await;
    for number in 0..30 {
        let id = number.to_string();
        let message = NewMessage::new("urgent", &*id, urgent.clone());
        suite.store(message).await;
        suite.store(message_to("other", &id)).await;
    }
    for max in [1, 2, 4] {
        let mut urgent = 0;
        for _ in 0..8 / max {
            let leased = suite.lease(max).await;
            assert_eq!(leased.len(), max);
            let leased = leased.iter().map(|leased| &*leased.message.entry.endpoint);
            urgent += leased.filter(|endpoint| *endpoint == "urgent").count();
        }
        assert!(urgent >= 4, "max {max}: {urgent} of 8 leases");
    }
}

pub async fn leaves_out_endpoint_at_its_limit<H: Harness>(suite: Suite<H>) {
    let urgent = suite.job(10_000).await;
    for number in 0..4 {
        let id = number.to_string();
        suite
            .store(NewMessage::new("urgent", &*id, urgent.clone()))
            .await;
        suite.store(message_to("quiet", &id)).await;
    }
    let request = request(10).with_per_endpoint(2);
    let leased = suite.lease_with(request.clone()).await.messages;
    assert_eq!(leased.len(), 4);
    let urgent = leased
        .iter()
        .find(|leased| leased.message.entry.expires_at.is_some());
    suite.complete(urgent.unwrap().lease, Outcome::Done).await;
    let next = suite.lease_with(request).await.messages;
    assert_eq!(
        (ids(&next), &*next[0].message.entry.endpoint),
        (vec!["2"], "urgent")
    );
}
