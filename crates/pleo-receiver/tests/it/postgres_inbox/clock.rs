//! The server's clock is set back.

use core::time::Duration;
use std::collections::BTreeSet;
use std::time::Instant;

use pleo_receiver::inbox::{Completed, LeaseRequest, LeasedMessage, Outcome};
use pleo_receiver::{Inbox, Key, PostgresInbox};
use tokio::time;

use super::{PATIENCE, connect, execute, message, server};
use crate::support::postgres::{Server, schema};

/// How long the leases last, and the delay of the retry.
const TTL: Duration = Duration::from_secs(10);

fn set_clock_back(server: &Server, schema: &str) {
    let sql = format!(
        "CREATE OR REPLACE FUNCTION {schema}.clock() RETURNS timestamptz LANGUAGE sql STABLE
         AS 'SELECT statement_timestamp() - interval ''1 hour'''"
    );
    execute(server, &sql);
}

async fn lease(inbox: &PostgresInbox) -> Option<LeasedMessage> {
    let request = LeaseRequest::new(1, TTL, "worker");
    inbox.lease(request).await.unwrap().messages.pop()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_retries_keep_their_time_after_clock_is_set_back() {
    let Some(server) = server() else { return };
    let schema = schema();
    let inbox = PostgresInbox::open(&server.url(&schema)).await.unwrap();
    for id in ["failed", "killed", "renewed", "locked", "done"] {
        inbox.append(message(id)).await.unwrap();
    }
    let failed = lease(&inbox).await.unwrap();
    let _killed = lease(&inbox).await.unwrap();
    let renewed = lease(&inbox).await.unwrap();
    let _locked = lease(&inbox).await.unwrap();
    let done = lease(&inbox).await.unwrap();
    let retry = Outcome::Retry {
        after: TTL,
        error: "failed".into(),
    };
    inbox.complete(failed.lease, retry).await.unwrap();
    let other = connect(server).await;
    let lock = format!(
        "BEGIN; SELECT FROM {schema}.dispatch JOIN {schema}.message USING (sequence)
         WHERE webhook_id = 'locked' FOR UPDATE OF dispatch"
    );
    other.batch_execute(&lock).await.unwrap();
    set_clock_back(server, &schema);
    inbox.complete(done.lease, Outcome::Done).await.unwrap();

    let uncorrected = format!(
        "SELECT count(*) FROM {schema}.dispatch WHERE leased_at > {schema}.clock() + interval '1 minute'"
    );
    let uncorrected = || execute(server, &uncorrected);
    let started = Instant::now();
    let mut redelivered = BTreeSet::new();
    while redelivered.len() < 3 || uncorrected().trim() != "0" {
        let lost = inbox.renew(vec![renewed.lease], TTL).await.unwrap();
        assert!(lost.is_empty());
        if let Some(leased) = lease(&inbox).await {
            assert_eq!(leased.attempt.get(), 2);
            redelivered.insert(leased.message.entry.webhook_id.to_string());
            inbox.complete(leased.lease, Outcome::Done).await.unwrap();
            if redelivered.len() == 2 {
                // The first correction is over.
                other.batch_execute("ROLLBACK").await.unwrap();
            }
        }
        assert!(started.elapsed() < PATIENCE, "only {redelivered:?}");
        time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(
        redelivered,
        ["failed", "killed", "locked"].map(String::from).into()
    );
    let completed = inbox.complete(renewed.lease, Outcome::Done).await.unwrap();
    assert_eq!(completed, Completed::Recorded);

    // The history has no attempt that took an hour, or less than nothing.
    for id in ["failed", "killed", "renewed", "locked", "done"] {
        let stored = inbox.get(Key::new("books", id)).await.unwrap().unwrap();
        for attempt in &stored.attempts {
            let duration = attempt.duration.unwrap();
            assert!(duration < Duration::from_secs(600), "{id}: {attempt:?}");
        }
    }
}
