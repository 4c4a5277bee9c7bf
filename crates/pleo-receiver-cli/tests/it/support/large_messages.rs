//! Messages larger than a page of the database, each with a body of its own.

use std::path::Path;

use pleo_receiver::{Filter, Inbox, SqliteInbox};

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
    for entry in inbox.list(Filter::default()).await.unwrap() {
        let id = entry.webhook_id;
        let shown = inbox.show(id.clone()).await.unwrap();
        assert_eq!(shown.len(), 1, "{id} is stored more than once");
        assert!(shown[0].1 == body(&id), "{id} has another body");
        stored.push(id);
    }
    stored
}
