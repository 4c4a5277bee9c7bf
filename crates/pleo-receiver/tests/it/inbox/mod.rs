//! Tests of the contract, run for each store.

use jiff::Timestamp;
use pleo_receiver::{Appended, Counts, Entry, Filter, Inbox, LeasedMessage, NewMessage, Outcome};

use crate::support::inbox::{at, lease};

/// Runs each test for each store.
macro_rules! for_each_store {
    ($($name:ident,)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&pleo_receiver::MemoryInbox::new()).await;
            })*
        }

        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("inbox.db");
                super::$name(&pleo_receiver::SqliteInbox::open(path).unwrap()).await;
            })*
        }
    };
}

mod appending;
mod leasing;
mod managing;
#[cfg(feature = "sqlite")]
mod model;

fn message(id: &str) -> NewMessage {
    NewMessage {
        received_at: at(0),
        ..NewMessage::new("books", id, id.to_owned())
    }
}

async fn store(inbox: &dyn Inbox, message: NewMessage) {
    assert_eq!(inbox.append(message).await.unwrap(), Appended::Stored);
}

async fn lease_one(inbox: &dyn Inbox, now: Timestamp) -> LeasedMessage {
    let mut leased = lease(inbox, now).await;
    assert_eq!(leased.len(), 1, "{leased:?}");
    leased.remove(0)
}

async fn entries(inbox: &dyn Inbox) -> Vec<Entry> {
    inbox.list(Filter::default()).await.unwrap()
}

async fn entry(inbox: &dyn Inbox, id: &str) -> Entry {
    inbox.show(id.into()).await.unwrap().remove(0).0
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a LeasedMessage>) -> Vec<&'a str> {
    let ids = ids.into_iter();
    ids.map(|leased| &*leased.message.webhook_id).collect()
}

fn counts(pending: u64, done: u64, dead: u64) -> Counts {
    Counts {
        pending,
        done,
        dead,
    }
}

fn dead(error: &str) -> Outcome {
    let error = error.into();
    Outcome::Dead { error }
}
