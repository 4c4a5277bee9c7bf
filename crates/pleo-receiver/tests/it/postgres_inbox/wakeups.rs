//! Processes that wake up each other.

use core::time::Duration;
use std::time::Instant;

use pleo_receiver::inbox::LeaseRequest;
use pleo_receiver::{Inbox, PostgresInbox};

use super::{append_until_stored, message, server};
use crate::support::postgres::schema;

/// Less than the interval in which an inbox polls.
pub(super) const SOON: Duration = Duration::from_millis(700);

pub(super) async fn time_until_woken(
    waiting: &PostgresInbox,
    other: &PostgresInbox,
    id: &str,
) -> Duration {
    let request = LeaseRequest::new(0, SOON, "worker");
    // Other changes may still be announced.
    let version = loop {
        let version = waiting.lease(request.clone()).await.unwrap().version;
        let changed = waiting.changed(version);
        if tokio::time::timeout(Duration::from_millis(200), changed)
            .await
            .is_err()
        {
            break version;
        }
    };
    let waiting = waiting.changed(version);
    other.append(message(id)).await.unwrap();
    let appended = Instant::now();
    waiting.await;
    appended.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_wakes_other_process() {
    let Some(server) = server() else { return };
    let url = server.url(&schema());
    let waiting = PostgresInbox::open(&url).await.unwrap();
    let other = PostgresInbox::open(&url).await.unwrap();
    append_until_stored(&other, "first").await;
    let mut times = Vec::new();
    for round in 0..5 {
        times.push(time_until_woken(&waiting, &other, &round.to_string()).await);
    }
    times.sort();
    assert!(times[2] < SOON, "{times:?}");
}
