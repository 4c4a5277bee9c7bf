//! The scenarios.

pub mod dispatch;
pub mod endpoints;
pub mod growth;
pub mod latency;
pub mod postgres;
pub mod start;
pub mod throughput;

use std::sync::Arc;

use pleo_receiver::{Inbox, NewMessage, SqliteInbox};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::load::{self, BODY};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Creates an inbox with this many messages in a folder.
async fn fill(folder: &TempDir, count: u64) -> Arc<SqliteInbox> {
    let inbox = SqliteInbox::open(folder.path().join("inbox.db")).expect("an inbox");
    let inbox = Arc::new(inbox);
    append(Arc::clone(&inbox), count).await;
    inbox
}

/// Stores this many messages.
async fn append<I: Inbox>(inbox: Arc<I>, count: u64) {
    let mut appends = JoinSet::new();
    for number in 0..count {
        let message = NewMessage::new("/webhooks/pleo", load::increasing_id(number), BODY);
        let inbox = Arc::clone(&inbox);
        appends.spawn(async move { inbox.append(message).await.expect("stored") });
        if appends.len() > 1000 {
            appends.join_next().await;
        }
    }
    appends.join_all().await;
}
