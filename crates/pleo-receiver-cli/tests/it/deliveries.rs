//! A day with Pleo's sender: retries, rotation, duplicates and disorder, over TLS.

#![cfg(unix)]

use std::collections::BTreeSet;

use crate::support::harness::{EXPORT, World};
use serde_json::{Value, json};

fn set_up(world: &World) -> uuid::Uuid {
    world.done(&[
        "setup",
        "--url",
        &world.url("/webhooks/pleo"),
        "--event",
        EXPORT,
    ]);
    let id = &world.json(&["subscriptions", "list"])[0]["id"];
    id.as_str().unwrap().parse().unwrap()
}

#[test]
fn retries_while_receiver_is_down() {
    let world = World::new();
    set_up(&world);
    let message = &world
        .pleo
        .emit(world.company, EXPORT, &json!({ "id": "1" }))[0];
    let failed = world.attempted(1);
    assert_eq!(failed[0].status, None);
    let _server = world.serve(&[]);
    assert_eq!(world.settled(message).status, Some(204));
    assert_eq!(world.inbox("pending", 1)[0]["webhook_id"], **message);
}

#[test]
fn accepts_either_signature_during_rotation() {
    let world = World::new();
    let subscription = set_up(&world);
    let old = world.read("webhooks-pleo.secret");
    let server = world.serve(&[]);
    let send = |signatures| {
        let message = &world.pleo.emit(world.company, EXPORT, &json!({}))[0];
        let attempt = world.settled(message);
        assert_eq!(attempt.signatures, signatures);
        attempt.status
    };
    assert_eq!(send(1), Some(204));
    world.pleo.rotate(subscription);
    assert_eq!(send(2), Some(204), "with the old secret");
    drop(server);

    world.done(&[
        "setup",
        "--url",
        &world.url("/webhooks/pleo"),
        "--event",
        EXPORT,
    ]);
    assert_ne!(world.read("webhooks-pleo.secret"), old);
    let _server = world.serve(&[]);
    assert_eq!(send(2), Some(204), "with the new one");
    world.pleo.retire(subscription);
    assert_eq!(send(1), Some(204));
}

#[test]
fn stores_duplicated_and_unordered_messages_once() {
    let world = World::new();
    set_up(&world);
    let _server = world.serve(&[]);
    let jobs: Vec<_> = (0..20)
        .map(|number| json!({ "id": number.to_string() }))
        .collect();
    let messages = world.pleo.emit_badly(world.company, EXPORT, &jobs);
    let attempts = world.attempted(2 * jobs.len());
    assert!(
        attempts.iter().all(|one| one.status == Some(204)),
        "{attempts:?}"
    );
    let stored = world.inbox("pending", jobs.len());
    let ids = |of: &mut dyn Iterator<Item = String>| of.collect::<BTreeSet<_>>();
    let sent = ids(&mut messages.iter().cloned());
    let text = |one: &Value| one["webhook_id"].as_str().unwrap().to_owned();
    assert_eq!(
        (stored.len(), ids(&mut stored.iter().map(text))),
        (20, sent)
    );

    world.pleo.resend(&messages[0]);
    let attempts = world.attempted(2 * jobs.len() + 1);
    assert_eq!(attempts.last().unwrap().status, Some(204));
    assert_eq!(
        world.inbox("pending", 20).len(),
        20,
        "days later, still once"
    );
}

#[test]
fn sends_only_to_active_subscriptions_of_the_company() {
    let world = World::new();
    let subscription = set_up(&world);
    let emitted = |company, event| world.pleo.emit(company, event, &json!({})).len();
    assert_eq!(emitted(world.company, EXPORT), 1);
    assert_eq!(emitted(world.company, "v1.vendor.created"), 0);
    assert_eq!(emitted(uuid::Uuid::nil(), EXPORT), 0);
    let id = subscription.to_string();
    world.done(&["subscriptions", "update", &id, "--status", "INACTIVE"]);
    assert_eq!(emitted(world.company, EXPORT), 0);
}
