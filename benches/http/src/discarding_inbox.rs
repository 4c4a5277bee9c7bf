//! An inbox that stores nothing, to measure the receiver without storage.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pleo_receiver::inbox::{
    Completed, InboxFuture, LeaseId, LeaseRequest, Leased, Outcome, Version,
};
use pleo_receiver::{
    Appended, EndpointStats, Inbox, InboxError, Key, NewMessage, Page, Query, Selection,
    StoredMessage,
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

    fn lease(&self, _: LeaseRequest) -> InboxFuture<'_, Leased> {
        ready(Leased::default())
    }

    fn renew(&self, leases: Vec<LeaseId>, _: Duration) -> InboxFuture<'_, Vec<LeaseId>> {
        ready(leases)
    }

    fn complete(&self, _: LeaseId, _: Outcome) -> InboxFuture<'_, Completed> {
        ready(Completed::Lost)
    }

    fn changed(&self, _: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn list(&self, _: Query) -> InboxFuture<'_, Page> {
        ready(Page::default())
    }

    fn get(&self, _: Key) -> InboxFuture<'_, Option<StoredMessage>> {
        ready(None)
    }

    fn replay(&self, _: Selection) -> InboxFuture<'_, u64> {
        ready(0)
    }

    fn prune(&self, _: Selection) -> InboxFuture<'_, u64> {
        ready(0)
    }

    fn set_paused(&self, _: Arc<str>, _: bool) -> InboxFuture<'_, ()> {
        ready(())
    }

    fn stats(&self) -> InboxFuture<'_, Vec<EndpointStats>> {
        ready(Vec::new())
    }

    fn check(&self) -> InboxFuture<'_, ()> {
        ready(())
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        ready(())
    }
}
