//! Messages larger than a page of the database, each with a body of its own.

use std::path::Path;

use pleo_receiver::{Inbox, Query, Selection, SqliteInbox};

/// A body that differs for each id and is larger than a page of the database.
pub(crate) fn body(id: &str) -> Vec<u8> {
    format!(
        r#"{{"eventType":"v9.new","padding":"{}"}}"#,
        id.repeat(1000)
    )
    .into()
}

/// Returns the ids in the inbox, in order. Asserts that each is stored once, with its own body.
pub(crate) async fn stored(path: &Path) -> Vec<String> {
    let inbox = SqliteInbox::open_shared(path).unwrap();
    let mut stored = Vec::new();
    let all = Query::new(Selection::all(), u32::MAX);
    for entry in inbox.list(all).await.unwrap().entries {
        let id = entry.webhook_id.to_string();
        assert!(!stored.contains(&id), "{id} is stored more than once");
        let message = inbox.get(entry.key()).await.unwrap().unwrap();
        assert!(message.body == body(&id), "{id} has another body");
        stored.push(id);
    }
    stored
}
