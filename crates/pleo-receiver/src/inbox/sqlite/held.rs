//! The leases that a server holds, in memory.

use core::time::Duration;
use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;

use jiff::Timestamp;

use crate::inbox::lease::LeaseId;

/// A lease of a message.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) sequence: i64,
    pub(super) endpoint: Arc<str>,
    /// The number of the attempt.
    pub(super) attempt: u32,
    pub(super) worker: Arc<str>,
    pub(super) started_at: Timestamp,
    /// Times of [`Clock::elapsed`](crate::inbox::Clock::elapsed), so that setting the clock changes nothing.
    pub(super) started: Duration,
    pub(super) ends: Duration,
}

/// The leases that a server holds. A server that opens the file later holds none of them.
///
/// Changes can be undone until they are [kept](Self::keep), because the transaction that they belong
/// to may fail.
#[derive(Debug)]
pub(super) struct HeldLeases {
    leases: HashMap<LeaseId, Lease>,
    last: u128,
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    Remove(LeaseId),
    Insert(LeaseId, Lease),
}

impl Default for HeldLeases {
    fn default() -> Self {
        // A server must not take a lease of an earlier server for one of its own.
        let random = RandomState::new().build_hasher().finish();
        Self {
            leases: HashMap::new(),
            last: u128::from(random) << 64,
            undo: Vec::new(),
        }
    }
}

impl HeldLeases {
    pub(super) fn insert(&mut self, lease: Lease) -> LeaseId {
        self.last += 1;
        let id = LeaseId::new(self.last);
        self.leases.insert(id, lease);
        self.undo.push(Undo::Remove(id));
        id
    }

    pub(super) fn get(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(super) fn remove(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.undo.push(Undo::Insert(id, lease));
        }
    }

    /// Removes a lease. Cannot be undone.
    pub(super) fn drop(&mut self, id: LeaseId) -> Option<Lease> {
        self.leases.remove(&id)
    }

    /// Sets when a lease ends. Returns `false` if it is not held. Cannot be undone.
    pub(super) fn renew(&mut self, id: LeaseId, ends: Duration) -> bool {
        let lease = self.leases.get_mut(&id);
        lease.map(|lease| lease.ends = ends).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Returns the leases that have ended.
    pub(super) fn ended(&self, elapsed: Duration) -> Vec<LeaseId> {
        let ended = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.ends <= elapsed);
        ended.map(|(id, _)| *id).collect()
    }

    /// Returns when the next lease ends.
    pub(super) fn next_end(&self) -> Option<Duration> {
        self.leases.values().map(|lease| lease.ends).min()
    }

    pub(super) fn by_endpoint(&self) -> HashMap<Arc<str>, usize> {
        let mut counts = HashMap::new();
        for lease in self.leases.values() {
            *counts.entry(Arc::clone(&lease.endpoint)).or_insert(0) += 1;
        }
        counts
    }

    /// Returns a mark for [`undo_to`](Self::undo_to).
    pub(super) fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Undoes all changes since the mark.
    pub(super) fn undo_to(&mut self, mark: usize) {
        for undo in self.undo.drain(mark.min(self.undo.len())..).rev() {
            match undo {
                Undo::Remove(id) => drop(self.leases.remove(&id)),
                Undo::Insert(id, lease) => drop(self.leases.insert(id, lease)),
            }
        }
    }

    /// Keeps all changes.
    pub(super) fn keep(&mut self) {
        self.undo.clear();
    }
}
