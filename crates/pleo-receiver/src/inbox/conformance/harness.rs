//! The harness of a store.

use core::future::ready;
use core::time::Duration;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::inbox::{Inbox, Key};

/// Opens a store for the suite and controls its time. Each test creates a harness.
///
/// The methods with a default implementation are optional. Tests that need one pass without it.
pub trait Harness: Sized + 'static {
    /// Creates the harness of an empty store.
    fn new() -> Self;

    /// Opens the store for the first time.
    fn open(&self) -> impl Future<Output = Arc<dyn Inbox>>;

    /// Opens the store again after it was closed; `None` if it does not keep its messages.
    fn reopen(&self) -> impl Future<Output = Option<Arc<dyn Inbox>>> {
        ready(None)
    }

    /// Opens the open store a second time, as another process does; `None` if that is impossible.
    fn open_replica(&self) -> impl Future<Output = Option<Arc<dyn Inbox>>> {
        ready(None)
    }

    /// Lets time pass. A store with a [`Clock`](crate::inbox::Clock) gets a
    /// [`ManualClock`](super::ManualClock). A database calls a function of its own for the time, which
    /// the harness replaces. Moving the stored times is not enough: the expiries stay.
    fn advance(&self, duration: Duration) -> impl Future<Output = ()>;

    /// Returns the time of day of the store's clock.
    fn now(&self) -> impl Future<Output = Timestamp>;

    /// Sets the time of day of the store's clock forward or back. Returns `false` if it cannot be
    /// set.
    fn step_clock(&self, by: SignedDuration) -> bool {
        let _ = by;
        false
    }

    /// Returns how much time passes in a test at most, beside that of [`advance`](Self::advance). At
    /// most ten seconds; zero by default, for a clock that stands still.
    fn slack(&self) -> Duration {
        Duration::ZERO
    }

    /// Makes writes of the store fail, to a disk or over a connection for example: all after the next
    /// `after` writes. A failed write may take effect. Returns `false` if that is impossible.
    fn fail_writes(&self, after: u32) -> bool {
        let _ = after;
        false
    }

    /// Ends the effect of [`fail_writes`](Self::fail_writes).
    fn repair(&self) {}

    /// Damages a stored message, so that it cannot be read. Returns `false` if that is impossible.
    fn damage(&self, key: &Key) -> impl Future<Output = bool> {
        let _ = key;
        ready(false)
    }
}
