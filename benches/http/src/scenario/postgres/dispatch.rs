//! Measures how fast receivers dispatch a backlog to handlers in the same process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pleo_receiver::{
    Delivery, DispatchOptions, Endpoint, Inbox, PostgresInbox, Receiver, handler_fn,
};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::load::SECRET;
use crate::scenario::append;
use crate::targets::Targets;

pub fn run(targets: &mut Targets, quick: bool) {
    let Some(database) = super::database() else {
        return;
    };
    let count = if quick { 2_000 } else { 20_000 };
    // The number of replicas, the concurrency of the endpoint in all of them, and the target. With the
    // default concurrency, each lease is a commit of 4 messages at most.
    let rows = [
        (1, 4, 0.0),
        (2, 4, 0.0),
        (2, 16, 3_000.0),
        (1, 64, 3_000.0),
        (2, 64, 3_000.0),
        (4, 64, 3_000.0),
    ];
    for (replicas, concurrency, target) in rows {
        super::reset(&database, "bench");
        let runtime = Builder::new_multi_thread().enable_all().build();
        let url = database.url("bench");
        let dispatched = dispatch_all(&url, replicas, concurrency, count);
        let rate = runtime.expect("a runtime").block_on(dispatched);
        println!(
            "\n  a backlog of {count} messages, {replicas} replicas, concurrency {concurrency}; the handlers \
             do nothing\n"
        );
        let what = "messages dispatched and completed per second";
        targets.at_least(what, target, rate);
    }
}

async fn dispatch_all(url: &str, replicas: usize, concurrency: usize, count: u64) -> f64 {
    let options = DispatchOptions::default().with_concurrency(concurrency);
    let remaining = Arc::new(AtomicU64::new(count));
    let done = Arc::new(watch::Sender::new(false));
    let mut dispatchers = Vec::new();
    let mut inboxes = Vec::new();
    for replica in 0..replicas {
        let inbox = Arc::new(PostgresInbox::open(url).await.expect("an inbox"));
        if replica == 0 {
            append(Arc::clone(&inbox), count).await;
        }
        let (remaining, done) = (Arc::clone(&remaining), Arc::clone(&done));
        let handler = handler_fn(move |_: Delivery| {
            if remaining.fetch_sub(1, Ordering::Relaxed) == 1 {
                done.send_replace(true);
            }
            std::future::ready(Ok(()))
        });
        let secret = SECRET.parse().expect("a secret");
        let (receiver, dispatcher) = Receiver::builder(Arc::clone(&inbox))
            .endpoint(Endpoint::new("/webhooks/pleo", secret).expect("a path"))
            .handler(handler)
            .dispatch_options(options.clone())
            .build()
            .expect("a receiver");
        dispatchers.push((receiver, dispatcher));
        inboxes.push(inbox);
    }
    let start = Instant::now();
    let mut running = JoinSet::new();
    for (receiver, dispatcher) in dispatchers {
        let mut done = done.subscribe();
        running.spawn(async move {
            let done = async { drop(done.wait_for(|done| *done).await) };
            // Returns after all outcomes are recorded.
            dispatcher.run(done).await.expect("no failure");
            drop(receiver);
        });
    }
    running.join_all().await;
    let taken = start.elapsed();
    let stats = inboxes[0].stats().await.expect("statistics");
    assert_eq!(stats[0].done, count);
    count as f64 / taken.as_secs_f64()
}
