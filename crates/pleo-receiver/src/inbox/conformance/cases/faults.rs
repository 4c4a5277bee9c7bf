//! Writes that fail, and messages that cannot be read. Optional, see [`Harness`].

use core::time::Duration;
use std::sync::Arc;

use futures_util::future::join_all;

use super::{Harness, Suite};
use crate::inbox::conformance::suite::{TTL, dead, ids, message, message_to, request, retry};
use crate::inbox::{AttemptResult, Inbox, InboxError, Key, LeaseId, Outcome, Selection, State};

/// How many writes of an operation fail, one at a time.
const WRITES: u32 = 16;

/// An operation that writes. Its result says what a repetition may change.
#[derive(Clone, Copy, Debug)]
enum Write {
    Append,
    Lease,
    Renew,
    Complete(fn() -> Outcome),
    Replay,
    Prune,
    Pause,
}

const OPERATIONS: [Write; 10] = [
    Write::Append,
    Write::Lease,
    Write::Renew,
    Write::Complete(|| Outcome::Done),
    Write::Complete(|| retry(50)),
    Write::Complete(dead),
    Write::Complete(|| Outcome::Release),
    Write::Replay,
    Write::Prune,
    Write::Pause,
];

impl Write {
    async fn perform(self, inbox: &Arc<dyn Inbox>, held: LeaseId) -> Result<(), InboxError> {
        match self {
            Self::Append => inbox.append(message("appended")).await.map(drop),
            Self::Lease => inbox.lease(request(2)).await.map(drop),
            Self::Renew => inbox.renew(vec![held], TTL * 9).await.map(drop),
            Self::Complete(outcome) => inbox.complete(held, outcome()).await.map(drop),
            Self::Replay => inbox.replay(Selection::all()).await.map(drop),
            Self::Prune => inbox.prune(Selection::all()).await.map(drop),
            Self::Pause => inbox.set_paused("sales".into(), true).await,
        }
    }
}

/// The contents that the operations can change.
type Contents = (
    Vec<(Key, State, bool, u32, Option<String>, Vec<AttemptResult>)>,
    Vec<Arc<str>>,
);

async fn contents<H: Harness>(suite: &Suite<H>) -> Contents {
    let mut messages = Vec::new();
    for entry in suite.entries(Selection::all()).await {
        let stored = suite.inbox.get(entry.key()).await.unwrap().unwrap();
        let attempts = stored.attempts.iter().map(|attempt| attempt.result);
        messages.push((
            entry.key(),
            entry.state,
            entry.leased,
            entry.attempts,
            entry.last_error,
            attempts.collect(),
        ));
    }
    let stats = suite.inbox.stats().await.unwrap();
    let paused = stats.into_iter().filter(|stats| stats.paused);
    (messages, paused.map(|stats| stats.endpoint).collect())
}

/// Opens a store with messages in all states, and returns the lease of one.
async fn prepare<H: Harness>() -> (Suite<H>, LeaseId) {
    let suite = Suite::<H>::open().await;
    suite.store_with("done", Outcome::Done).await;
    suite.store_with("dead", dead()).await;
    suite.store(message("held")).await;
    let held = suite.lease_one().await.lease;
    for id in ["1", "2", "3"] {
        suite.store(message_to("sales", id)).await;
    }
    (suite, held)
}

pub async fn failed_operation_is_done_or_undone<H: Harness>(suite: Suite<H>) {
    if !suite.harness.fail_writes(0) {
        return;
    }
    suite.harness.repair();
    // Concurrently, since opening a store may take long.
    join_all(OPERATIONS.map(fail_each_write::<H>)).await;
}

/// Performs an operation on new stores, of which each write fails in turn.
async fn fail_each_write<H: Harness>(operation: Write) {
    let (suite, held) = prepare::<H>().await;
    let before = contents(&suite).await;
    operation.perform(&suite.inbox, held).await.unwrap();
    let after = contents(&suite).await;
    for writes in 0..WRITES {
        let (suite, held) = prepare::<H>().await;
        assert!(suite.harness.fail_writes(writes));
        let result = operation.perform(&suite.inbox, held).await;
        suite.harness.repair();
        let Err(error) = result else {
            assert_eq!(contents(&suite).await, after, "{operation:?} {writes}");
            continue;
        };
        let (suite, is_reopened) = recover(suite, &error).await;
        let failed = contents(&suite).await;
        let is_known = failed == before || failed == after;
        assert!(
            is_known || is_reopened,
            "{operation:?} failed after {writes} writes and is neither done nor undone\n\
             before {before:#?}\nafter {after:#?}\nnow {failed:#?}"
        );
        // A lease that failed but is done ends by itself.
        if !is_reopened && !matches!(operation, Write::Lease) {
            operation.perform(&suite.inbox, held).await.unwrap();
            assert_eq!(
                contents(&suite).await,
                after,
                "{operation:?} {writes} repeated"
            );
        }
        assert_works(&suite).await;
    }
}

/// Returns the store and whether it had to be opened again.
async fn recover<H: Harness>(suite: Suite<H>, error: &InboxError) -> (Suite<H>, bool) {
    for _ in 0..10 {
        if !error.is_retryable() {
            break;
        }
        // It may recover in the background.
        if suite.inbox.check().await.is_ok() {
            return (suite, false);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let reopened = suite.crash().await;
    (
        reopened.expect("a store that does not recover can be reopened"),
        true,
    )
}

/// Every message that is pending can be leased and completed.
async fn assert_works<H: Harness>(suite: &Suite<H>) {
    suite.store(message("new")).await;
    suite.inbox.set_paused("sales".into(), false).await.unwrap();
    suite.advance(TTL.as_secs() * 20).await;
    let [pending, ..] = suite.counts().await;
    let leased = suite.lease(100).await;
    assert_eq!(
        u64::try_from(leased.len()).unwrap(),
        pending,
        "{:?}",
        ids(&leased)
    );
    for leased in leased {
        suite.complete(leased.lease, Outcome::Done).await;
    }
    assert_eq!(suite.counts().await[0], 0);
}

pub async fn stored_messages_survive_failing_writes<H: Harness>(mut suite: Suite<H>) {
    if !suite.harness.fail_writes(0) {
        return;
    }
    suite.harness.repair();
    let mut stored = Vec::new();
    for n in 0..60 {
        let id = n.to_string();
        assert!(suite.harness.fail_writes(n % 7));
        let mut result = suite.inbox.append(message(&id)).await;
        suite.harness.repair();
        while let Err(error) = result {
            suite = recover(suite, &error).await.0;
            result = suite.inbox.append(message(&id)).await;
        }
        stored.push(id);
    }
    assert_eq!(listed(&suite).await, stored);
    if let Some(suite) = suite.reopen().await {
        assert_eq!(listed(&suite).await, stored);
    }
}

async fn listed<H: Harness>(suite: &Suite<H>) -> Vec<String> {
    let entries = suite.entries(Selection::all()).await.into_iter();
    entries.map(|entry| entry.webhook_id.to_string()).collect()
}

pub async fn unreadable_message_blocks_no_other<H: Harness>(suite: Suite<H>) {
    suite.store_all(["a", "damaged", "b"]).await;
    if !suite.harness.damage(&Key::new("books", "damaged")).await {
        return;
    }
    assert_eq!(ids(&suite.lease(2).await).first(), Some(&"a"));
    suite.lease(2).await;
    suite.store(message("c")).await;
    suite.lease(1).await;
    for id in ["a", "b", "c"] {
        let entry = suite.entry(id).await;
        assert_eq!((entry.leased, entry.attempts), (true, 1), "{id}");
    }
    assert_eq!(suite.counts().await, [3, 0, 1]);
    let dead = suite.entries(Selection::dead()).await;
    assert_eq!(*dead[0].webhook_id, *"damaged");
    assert!(dead[0].last_error.is_some());
}
