//! Deliveries from the sandbox over TLS: retries, secret rotation, duplicates, reordering.

use std::collections::BTreeSet;

use crate::support::harness::{EXPORT, Harness};
use pleo_sandbox::{Export, ExportRequest};
use serde_json::{Value, json};

#[test]
fn retries_while_receiver_is_down() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    let message = &harness
        .sandbox
        .emit(harness.company, EXPORT, &json!({ "id": "1" }))[0];
    let attempts = harness.wait_for_attempts(1);
    assert_eq!(attempts[0].status, None);
    let _server = harness.serve(&[]);
    assert_eq!(harness.final_attempt(message).status, Some(204));
    assert_eq!(
        harness.wait_for_inbox("pending", 1)[0]["webhook_id"],
        **message
    );
}

#[test]
fn accepts_either_signature_during_rotation() {
    let harness = Harness::new();
    let subscription = harness.set_up(EXPORT);
    let old = harness.read_file("webhooks-pleo.secret");
    let server = harness.serve(&[]);
    let send = |signatures| {
        let message = &harness.sandbox.emit(harness.company, EXPORT, &json!({}))[0];
        let attempt = harness.final_attempt(message);
        assert_eq!(attempt.signatures, signatures);
        attempt.status
    };
    assert_eq!(send(1), Some(204));
    harness
        .sandbox
        .rotate_secret(subscription.parse().unwrap())
        .unwrap();
    assert_eq!(send(2), Some(204), "the receiver has the old secret");
    drop(server);

    harness.set_up(EXPORT);
    assert_ne!(harness.read_file("webhooks-pleo.secret"), old);
    let _server = harness.serve(&[]);
    assert_eq!(send(2), Some(204), "the receiver has the new secret");
    harness
        .sandbox
        .retire_old_secrets(subscription.parse().unwrap())
        .unwrap();
    assert_eq!(send(1), Some(204));
}

#[test]
fn stores_duplicated_and_unordered_messages_once() {
    let harness = Harness::new();
    harness.set_up(EXPORT);
    let _server = harness.serve(&[]);
    let request = ExportRequest::new().with_company(harness.company);
    let request = request.with_jobs(20).with_copies(2).with_reverse(true);
    let Export { jobs, messages, .. } = harness.sandbox.export(&request);
    let attempts = harness.wait_for_attempts(2 * jobs.len());
    let arrived: Vec<_> = attempts.iter().map(|attempt| &attempt.message).collect();
    let sent_twice = messages.iter().rev().flat_map(|message| [message; 2]);
    assert_eq!(arrived, sent_twice.collect::<Vec<_>>());
    assert!(
        attempts.iter().all(|attempt| attempt.status == Some(204)),
        "{attempts:?}"
    );
    let stored = harness.wait_for_inbox("pending", jobs.len());
    let ids = |of: &mut dyn Iterator<Item = String>| of.collect::<BTreeSet<_>>();
    let sent = ids(&mut messages.iter().cloned());
    let text = |entry: &Value| entry["webhook_id"].as_str().unwrap().to_owned();
    assert_eq!(
        (stored.len(), ids(&mut stored.iter().map(text))),
        (20, sent)
    );

    harness.sandbox.resend(&messages[0]).unwrap();
    let attempts = harness.wait_for_attempts(2 * jobs.len() + 1);
    assert_eq!(attempts.last().unwrap().status, Some(204));
    assert_eq!(
        harness.wait_for_inbox("pending", 20).len(),
        20,
        "still stored once"
    );
}

#[test]
fn sends_only_to_active_subscriptions_of_company() {
    let harness = Harness::new();
    let subscription = harness.set_up(EXPORT);
    let emitted = |company, event| harness.sandbox.emit(company, event, &json!({})).len();
    assert_eq!(emitted(harness.company, EXPORT), 1);
    assert_eq!(emitted(harness.company, "v1.vendor.created"), 0);
    assert_eq!(emitted(uuid::Uuid::nil(), EXPORT), 0);
    harness.run_ok(&[
        "subscriptions",
        "update",
        &subscription,
        "--status",
        "INACTIVE",
    ]);
    assert_eq!(emitted(harness.company, EXPORT), 0);
}
