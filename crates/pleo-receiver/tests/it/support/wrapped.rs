//! A macro for inboxes that wrap another inbox.

/// Delegates all methods of [`Inbox`](pleo_receiver::Inbox) to `self.inner`, except `append`, `lease`
/// and `close`.
macro_rules! delegate_to_inner {
    () => {
        fn complete(
            &self,
            lease: pleo_receiver::LeaseId,
            outcome: pleo_receiver::Outcome,
        ) -> pleo_receiver::InboxFuture<'_, ()> {
            self.inner.complete(lease, outcome)
        }

        fn ready(&self) -> core::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            self.inner.ready()
        }

        fn list(
            &self,
            filter: pleo_receiver::Filter,
        ) -> pleo_receiver::InboxFuture<'_, Vec<pleo_receiver::Entry>> {
            self.inner.list(filter)
        }

        fn show(
            &self,
            webhook_id: String,
        ) -> pleo_receiver::InboxFuture<'_, Vec<(pleo_receiver::Entry, bytes::Bytes)>> {
            self.inner.show(webhook_id)
        }

        fn replay(
            &self,
            selection: pleo_receiver::Selection,
        ) -> pleo_receiver::InboxFuture<'_, u64> {
            self.inner.replay(selection)
        }

        fn prune(
            &self,
            state: pleo_receiver::State,
            before: jiff::Timestamp,
        ) -> pleo_receiver::InboxFuture<'_, u64> {
            self.inner.prune(state, before)
        }

        fn counts(&self) -> pleo_receiver::InboxFuture<'_, pleo_receiver::Counts> {
            self.inner.counts()
        }
    };
}
