//! Outcomes that cannot be recorded.

use core::time::Duration;
use std::time::Instant;

use futures_util::future::join_all;
use pleo_receiver::inbox::{Completed, LeaseRequest, Outcome};
use pleo_receiver::{Inbox, Key, PostgresInbox, State};
use tokio::time;

use super::{PATIENCE, execute, message, server, text};
use crate::support::postgres::{Server, schema};

/// Makes the next attempt of a message one that the history cannot have.
fn damage(server: &Server, schema: &str, id: &str) {
    let sql = format!(
        "UPDATE {schema}.dispatch SET ended = 2147483647 FROM {schema}.message
         WHERE message.sequence = dispatch.sequence AND webhook_id = '{id}'"
    );
    execute(server, &sql);
}

async fn assert_is_set_aside(inbox: &PostgresInbox, id: &str) {
    let stored = inbox.get(Key::new("books", id)).await.unwrap().unwrap();
    assert_eq!(stored.entry.state, State::Dead);
    let error = stored.entry.last_error.unwrap();
    assert!(
        error.starts_with("the outcome cannot be recorded: integer out of range"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_other_outcomes_if_one_cannot_be_recorded() {
    let Some(server) = server() else { return };
    let schema = schema();
    let inbox = PostgresInbox::open(&server.url(&schema)).await.unwrap();
    for n in 0..40 {
        inbox.append(message(&n.to_string())).await.unwrap();
    }
    let request = LeaseRequest::new(40, PATIENCE, "worker");
    let leased = inbox.lease(request).await.unwrap().messages;
    assert_eq!(leased.len(), 40);
    damage(server, &schema, "20");
    let outcomes = leased.iter().map(|leased| {
        // A text that has to be changed to be stored.
        let error = "failed: \u{0}\u{fffe}\u{1f980}".to_owned();
        inbox.complete(leased.lease, Outcome::Dead { error })
    });
    for (leased, result) in leased.iter().zip(join_all(outcomes).await) {
        let id = &*leased.message.entry.webhook_id;
        match result {
            Err(error) if id == "20" => {
                let text = text(&error);
                assert!(
                    text.contains("cannot record the outcome of message `20` at `books`"),
                    "{text}"
                );
                assert!(text.contains("integer out of range"), "{text}");
            }
            result => assert_eq!(result.unwrap(), Completed::Recorded, "{id}"),
        }
    }
    assert_is_set_aside(&inbox, "20").await;
    // A repetition does not fail for ever.
    let lease = leased
        .iter()
        .find(|leased| &*leased.message.entry.webhook_id == "20");
    let repeated = inbox.complete(lease.unwrap().lease, Outcome::Done).await;
    assert_eq!(repeated.unwrap(), Completed::Lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_other_lost_leases_if_one_cannot_be_recorded() {
    let Some(server) = server() else { return };
    let schema = schema();
    let inbox = PostgresInbox::open(&server.url(&schema)).await.unwrap();
    for id in ["damaged", "other"] {
        inbox.append(message(id)).await.unwrap();
    }
    let request = |ttl| LeaseRequest::new(2, ttl, "worker");
    let leased = inbox
        .lease(request(Duration::from_millis(1)))
        .await
        .unwrap();
    assert_eq!(leased.messages.len(), 2);
    damage(server, &schema, "damaged");
    let started = Instant::now();
    let again = loop {
        match inbox.lease(request(PATIENCE)).await {
            Ok(mut leased) if !leased.messages.is_empty() => break leased.messages.remove(0),
            other => assert!(started.elapsed() < PATIENCE / 10, "{other:?}"),
        }
        time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(&*again.message.entry.webhook_id, "other");
    assert_is_set_aside(&inbox, "damaged").await;
}
