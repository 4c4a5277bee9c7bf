//! An inbox that stores nothing, to measure the receiver without storage.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use pleo_receiver::{
    Appended, Counts, Entry, Filter, Inbox, InboxError, InboxFuture, LeaseId, LeaseRequest, Leased,
    NewMessage, Outcome, Selection, State,
};

/// Reports every message as stored, and discards it.
#[derive(Debug)]
pub struct DiscardingInbox;

fn ready<T: Send + 'static>(value: T) -> InboxFuture<'static, T> {
    Box::pin(std::future::ready(Ok::<_, InboxError>(value)))
}

impl Inbox for DiscardingInbox {
    fn append(&self, _: NewMessage) -> InboxFuture<'_, Appended> {
        ready(Appended::Stored)
    }

    fn lease(&self, _: LeaseRequest, _: Timestamp, _: Duration) -> InboxFuture<'_, Leased> {
        ready(Leased::default())
    }

    fn complete(&self, _: LeaseId, _: Outcome) -> InboxFuture<'_, ()> {
        ready(())
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn list(&self, _: Filter) -> InboxFuture<'_, Vec<Entry>> {
        ready(Vec::new())
    }

    fn show(&self, _: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>> {
        ready(Vec::new())
    }

    fn replay(&self, _: Selection) -> InboxFuture<'_, u64> {
        ready(0)
    }

    fn prune(&self, _: State, _: Timestamp) -> InboxFuture<'_, u64> {
        ready(0)
    }

    fn counts(&self) -> InboxFuture<'_, Counts> {
        ready(Counts::default())
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        ready(())
    }
}
