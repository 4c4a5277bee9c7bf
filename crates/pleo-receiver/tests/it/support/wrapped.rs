//! A macro for inboxes that wrap another inbox.

/// Delegates these methods of [`Inbox`](pleo_receiver::Inbox) to `self.inner`, and those that no test
/// changes.
macro_rules! delegate_to_inner {
    ($($method:ident),*) => {
        $(delegate_method_to_inner!($method);)*

        fn changed(
            &self,
            seen: pleo_receiver::inbox::Version,
        ) -> core::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
            self.inner.changed(seen)
        }

        fn list(
            &self,
            query: pleo_receiver::Query,
        ) -> pleo_receiver::inbox::InboxFuture<'_, pleo_receiver::Page> {
            self.inner.list(query)
        }

        fn get(
            &self,
            key: pleo_receiver::Key,
        ) -> pleo_receiver::inbox::InboxFuture<'_, Option<pleo_receiver::StoredMessage>> {
            self.inner.get(key)
        }

        fn replay(
            &self,
            selection: pleo_receiver::Selection,
        ) -> pleo_receiver::inbox::InboxFuture<'_, u64> {
            self.inner.replay(selection)
        }

        fn prune(
            &self,
            selection: pleo_receiver::Selection,
        ) -> pleo_receiver::inbox::InboxFuture<'_, u64> {
            self.inner.prune(selection)
        }

        fn set_paused(
            &self,
            endpoint: std::sync::Arc<str>,
            paused: bool,
        ) -> pleo_receiver::inbox::InboxFuture<'_, ()> {
            self.inner.set_paused(endpoint, paused)
        }

        fn stats(
            &self,
        ) -> pleo_receiver::inbox::InboxFuture<'_, Vec<pleo_receiver::EndpointStats>> {
            self.inner.stats()
        }

        fn check(&self) -> pleo_receiver::inbox::InboxFuture<'_, ()> {
            self.inner.check()
        }
    };
}

/// Delegates one method that some tests change.
macro_rules! delegate_method_to_inner {
    (append) => {
        fn append(
            &self,
            message: pleo_receiver::NewMessage,
        ) -> pleo_receiver::inbox::InboxFuture<'_, pleo_receiver::Appended> {
            self.inner.append(message)
        }
    };
    (lease) => {
        fn lease(
            &self,
            request: pleo_receiver::inbox::LeaseRequest,
        ) -> pleo_receiver::inbox::InboxFuture<'_, pleo_receiver::inbox::Leased> {
            self.inner.lease(request)
        }
    };
    (renew) => {
        fn renew(
            &self,
            leases: Vec<pleo_receiver::inbox::LeaseId>,
            ttl: core::time::Duration,
        ) -> pleo_receiver::inbox::InboxFuture<'_, Vec<pleo_receiver::inbox::LeaseId>> {
            self.inner.renew(leases, ttl)
        }
    };
    (complete) => {
        fn complete(
            &self,
            lease: pleo_receiver::inbox::LeaseId,
            outcome: pleo_receiver::inbox::Outcome,
        ) -> pleo_receiver::inbox::InboxFuture<'_, pleo_receiver::inbox::Completed> {
            self.inner.complete(lease, outcome)
        }
    };
    (close) => {
        fn close(&self) -> pleo_receiver::inbox::InboxFuture<'_, ()> {
            self.inner.close()
        }
    };
}
