//! Measures how fast the dispatcher dispatches a backlog to a handler in the same process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pleo_receiver::{Delivery, Endpoint, Inbox, Receiver, handler_fn};
use tokio::runtime::Builder;
use tokio::sync::Notify;

use crate::load::SECRET;
use crate::targets::Targets;

pub fn run(targets: &mut Targets, quick: bool) {
    let count = if quick { 2_000 } else { 100_000 };
    let runtime = Builder::new_multi_thread().enable_all().build();
    let rate = runtime.expect("a runtime").block_on(dispatch_all(count));
    println!("\n  a backlog of {count} messages in a SQLite inbox; the handler does nothing\n");
    targets.at_least(
        "messages dispatched and completed per second",
        5_000.0,
        rate,
    );
}

async fn dispatch_all(count: u64) -> f64 {
    let folder = super::folder();
    let inbox = super::fill(&folder, count).await;
    let (remaining, done) = (Arc::new(AtomicU64::new(count)), Arc::new(Notify::new()));
    let handler = {
        let done = Arc::clone(&done);
        handler_fn(move |_: Delivery| {
            if remaining.fetch_sub(1, Ordering::Relaxed) == 1 {
                done.notify_one();
            }
            std::future::ready(Ok(()))
        })
    };
    let secret = SECRET.parse().expect("a secret");
    let (_receiver, dispatcher) = Receiver::builder(Arc::clone(&inbox))
        .endpoint(Endpoint::new("/webhooks/pleo", secret).expect("a path"))
        .handler(handler)
        .build()
        .expect("a receiver");
    let start = Instant::now();
    // Returns after all outcomes are recorded.
    let dispatched = dispatcher.run(done.notified()).await;
    let taken = start.elapsed();
    dispatched.expect("no failure");
    assert_eq!(inbox.stats().await.expect("statistics")[0].done, count);
    count as f64 / taken.as_secs_f64()
}
