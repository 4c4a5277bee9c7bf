//! Deliveries that take room in the inbox, each with bytes of its own.

#![allow(unreachable_pub, reason = "a module of each test")]

use std::path::Path;

use pleo_receiver::{Filter, Inbox, SqliteInbox};

/// Other bytes for each id, of more than a page of the file.
pub fn body(id: &str) -> Vec<u8> {
    format!(
        r#"{{"eventType":"v9.new","padding":"{}"}}"#,
        id.repeat(1000)
    )
    .into()
}

/// The ids that are in the inbox, in their order: each once, with the right bytes.
pub async fn stored(path: &Path) -> Vec<String> {
    let inbox = SqliteInbox::open_shared(path).unwrap();
    let mut stored = Vec::new();
    for entry in inbox.list(Filter::default()).await.unwrap() {
        let id = entry.webhook_id;
        let shown = inbox.show(id.clone()).await.unwrap();
        assert_eq!(shown.len(), 1, "{id} is there more than once");
        assert!(shown[0].1 == body(&id), "{id} has other bytes");
        stored.push(id);
    }
    stored
}
