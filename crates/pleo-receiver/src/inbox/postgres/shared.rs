//! The state that the tasks of an inbox share.

use core::sync::atomic::AtomicUsize;
use core::time::Duration;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, watch};

use super::connect::{Connector, SharedSession};
use super::health::Health;
use super::progress::Progress;
use crate::backoff::backoff;
use crate::inbox::meter::Meter;
use crate::inbox::order::Turns;

const MIN_RECONNECT_DELAY: Duration = Duration::from_millis(50);
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// The time limit of a statement that may read many messages.
const MANAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// After how many bytes of bodies a lease has no further messages, so that a slow network transfers them
/// in the time limit of a statement. Fewer after a read took too long.
pub(super) const ENOUGH_BYTES: usize = 1 << 20;

pub(super) struct Shared {
    pub(super) connector: Arc<Connector>,
    /// The connection of leases.
    pub(super) leasing: SharedSession,
    /// The connection of renewals and outcomes, which must not wait for leases.
    pub(super) outcomes: SharedSession,
    /// The connection of statistics, which must not wait for searches.
    pub(super) statistics: SharedSession,
    /// The connection of everything else.
    pub(super) managing: SharedSession,
    pub(super) health: Health,
    pub(super) meter: Meter,
    /// Changed when messages may be ready.
    pub(super) version: watch::Sender<u64>,
    /// Changed when this process changed the inbox, so that other processes must be told.
    pub(super) announcements: watch::Sender<u64>,
    pub(super) turns: Mutex<Turns>,
    /// How many bytes of bodies the next lease reads.
    pub(super) lease_bytes: AtomicUsize,
    /// The results of the scans over the connection of leases.
    pub(super) progress: tokio::sync::Mutex<Progress>,
    /// Notified when it is time for a full scan beside the others.
    pub(super) full_scan_needed: Notify,
    pub(super) closing: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(connector: Arc<Connector>, version: watch::Sender<u64>) -> Self {
        let patient = Arc::new(connector.with_statement_timeout(MANAGE_TIMEOUT));
        Self {
            leasing: SharedSession::new(Arc::clone(&connector)),
            outcomes: SharedSession::new(Arc::clone(&connector)),
            statistics: SharedSession::new(Arc::clone(&patient)),
            managing: SharedSession::new(patient),
            connector,
            health: Health::default(),
            meter: Meter::default(),
            version,
            announcements: watch::Sender::new(0),
            turns: Mutex::default(),
            lease_bytes: AtomicUsize::new(ENOUGH_BYTES),
            progress: tokio::sync::Mutex::default(),
            full_scan_needed: Notify::new(),
            closing: watch::Sender::new(false),
        }
    }

    /// Notes that messages may be ready, for this process and all others.
    pub(super) fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
        self.announcements.send_modify(|version| *version += 1);
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closing.borrow()
    }
}

/// Returns the delay after the nth attempt to connect failed.
pub(super) fn reconnect_delay(failures: u32) -> Duration {
    backoff(MIN_RECONNECT_DELAY, MAX_RECONNECT_DELAY, failures)
}
