//! Times and leases of inbox tests.

use core::time::Duration;

use pleo_receiver::jiff::Timestamp;
use pleo_receiver::{Inbox, LeaseRequest, LeasedMessage};

pub(crate) const LEASE: Duration = Duration::from_secs(100);

/// Returns the time this many seconds after the start of the test's clock.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// Leases up to ten messages for [`LEASE`].
pub(crate) async fn lease(inbox: &dyn Inbox, now: Timestamp) -> Vec<LeasedMessage> {
    inbox
        .lease(LeaseRequest::new(10), now, LEASE)
        .await
        .unwrap()
        .messages
}
