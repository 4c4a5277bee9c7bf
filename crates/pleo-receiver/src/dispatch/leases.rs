//! The leases of the dispatcher: renews them, and reports those that were lost.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{INBOX_RETRY_DELAY, limit, sleep_until, unwind};
use crate::inbox::{Inbox, InboxError, InboxErrorKind, LeaseId};
use crate::telemetry;

/// Renews leases after a third of their time, so that two renewals may fail.
pub(super) struct Leases {
    inbox: Arc<dyn Inbox>,
    held: HashMap<LeaseId, Lease>,
    /// The call of [`Inbox::renew`], if one is in progress.
    renewing: JoinSet<Renewal>,
    renew_at: Option<Instant>,
}

struct Lease {
    ttl: Duration,
    /// When the lease ends at the earliest.
    ends: Instant,
}

struct Renewal {
    leases: Vec<LeaseId>,
    ttl: Duration,
    requested: Instant,
    result: Result<Vec<LeaseId>, InboxError>,
}

impl Leases {
    pub(super) fn new(inbox: Arc<dyn Inbox>) -> Self {
        Self {
            inbox,
            held: HashMap::new(),
            renewing: JoinSet::new(),
            renew_at: None,
        }
    }

    /// Holds a lease that was requested at this time.
    pub(super) fn hold(&mut self, lease: LeaseId, requested: Instant, ttl: Duration) {
        let ends = requested + ttl;
        self.held.insert(lease, Lease { ttl, ends });
        let renew_at = requested + ttl / 3;
        self.renew_at = Some(self.renew_at.map_or(renew_at, |at| at.min(renew_at)));
    }

    /// Stops renewing a lease.
    pub(super) fn forget(&mut self, lease: LeaseId) {
        self.held.remove(&lease);
    }

    /// Waits until leases are lost: the inbox says so, or they were not renewed in time. Returns them
    /// and does not hold them any more.
    ///
    /// # Errors
    /// The inbox failed permanently.
    pub(super) async fn lost(&mut self) -> Result<Vec<LeaseId>, InboxError> {
        loop {
            let renew_at = self.renew_at.filter(|_| self.renewing.is_empty());
            let next_end = self.held.values().map(|lease| lease.ends).min();
            let lost: Vec<_> = tokio::select! {
                Some(joined) = self.renewing.join_next() => match unwind(joined) {
                    Some(renewal) => self.renewed(renewal)?,
                    None => continue,
                },
                () = sleep_until(renew_at) => {
                    self.renew();
                    continue;
                }
                () = sleep_until(next_end) => {
                    let now = Instant::now();
                    let ended = self.held.iter().filter(|(_, lease)| lease.ends <= now);
                    ended.map(|(id, _)| *id).collect()
                }
            };
            for id in &lost {
                self.held.remove(id);
            }
            if !lost.is_empty() {
                return Ok(lost);
            }
        }
    }

    /// Renews all leases in the background.
    fn renew(&mut self) {
        self.renew_at = None;
        let Some(ttl) = self.held.values().map(|lease| lease.ttl).min() else {
            return;
        };
        let leases: Vec<_> = self.held.keys().copied().collect();
        let (inbox, requested) = (Arc::clone(&self.inbox), Instant::now());
        self.renew_at = Some(requested + ttl / 3);
        self.renewing.spawn(async move {
            // A call that hangs leaves time for another one.
            let result = limit(ttl / 3, inbox.renew(leases.clone(), ttl)).await;
            Renewal {
                leases,
                ttl,
                requested,
                result,
            }
        });
    }

    /// Notes the new ends of the leases. Returns those that were lost.
    fn renewed(&mut self, renewal: Renewal) -> Result<Vec<LeaseId>, InboxError> {
        let mut lost = match renewal.result {
            Ok(lost) => lost,
            Err(error) if error.kind() == InboxErrorKind::Fatal => return Err(error),
            Err(error) => {
                telemetry::renewal_failed(&error);
                let delay = INBOX_RETRY_DELAY.min(renewal.ttl / 6);
                self.renew_at = Some(Instant::now() + delay);
                return Ok(Vec::new());
            }
        };
        let kept = renewal.leases.iter().filter(|id| !lost.contains(id));
        for id in kept {
            if let Some(lease) = self.held.get_mut(id) {
                lease.ends = renewal.requested + renewal.ttl;
            }
        }
        // A lease whose outcome was recorded meanwhile is not held any more.
        lost.retain(|id| self.held.contains_key(id));
        Ok(lost)
    }
}
