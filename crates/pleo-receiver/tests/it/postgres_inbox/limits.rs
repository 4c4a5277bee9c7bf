//! The limits of leases, in many processes at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::try_join_all;
use pleo_receiver::inbox::{LeaseRequest, Outcome};
use pleo_receiver::{Inbox, NewMessage, PostgresInbox};

use super::{PATIENCE, server};
use crate::support::postgres::schema;

const PROCESSES: usize = 6;

/// Each process chooses a message of another endpoint, so that only the count of all leases limits them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn total_limit_holds_for_processes_that_choose_different_messages() {
    let Some(server) = server() else { return };
    let url = server.url(&schema());
    let inboxes = try_join_all((0..PROCESSES).map(|_| PostgresInbox::open(&url)));
    let inboxes = inboxes.await.unwrap();
    let messages = (0..300).map(|n| {
        let endpoint = format!("endpoint {}", n % PROCESSES);
        inboxes[0].append(NewMessage::new(endpoint, n.to_string(), ""))
    });
    try_join_all(messages).await.unwrap();
    let (running, handled) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut processes = Vec::new();
    for inbox in inboxes {
        let (running, handled) = (Arc::clone(&running), Arc::clone(&handled));
        processes.push(tokio::spawn(async move {
            while handled.load(Ordering::SeqCst) < 300 {
                let request = LeaseRequest::new(1, PATIENCE, "worker").with_total(1);
                for leased in inbox.lease(request).await.unwrap().messages {
                    let others = running.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(others, 0, "more leases than in total");
                    tokio::task::yield_now().await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    inbox.complete(leased.lease, Outcome::Done).await.unwrap();
                    handled.fetch_add(1, Ordering::SeqCst);
                }
            }
        }));
    }
    try_join_all(processes).await.unwrap();
}
