//! The commands of the writer thread.

use core::time::Duration;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::batches::QueuedAppend;
use super::replies::Reply;
use crate::inbox::error::InboxError;
use crate::inbox::lease::{Completed, LeaseId, LeaseRequest, Leased, Outcome};
use crate::inbox::query::Selection;

pub(super) enum Command {
    Append {
        appends: Vec<QueuedAppend>,
        /// The callers' runtime; `None` outside of one.
        runtime: Option<Handle>,
    },
    Lease {
        request: LeaseRequest,
        reply: Reply<Leased>,
    },
    Renew {
        leases: Vec<LeaseId>,
        ttl: Duration,
        reply: Reply<Vec<LeaseId>>,
    },
    Complete {
        lease: LeaseId,
        outcome: Outcome,
        reply: Reply<Completed>,
    },
    /// Replays those of the messages that still match the selection.
    Replay {
        sequences: Vec<i64>,
        selection: Arc<Selection>,
        reply: Reply<u64>,
    },
    /// Deletes those of the messages that still match the selection.
    Prune {
        sequences: Vec<i64>,
        selection: Arc<Selection>,
        reply: Reply<u64>,
    },
    SetPaused {
        endpoint: Arc<str>,
        paused: bool,
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
    /// Panics in the writer thread.
    #[cfg(test)]
    Panic,
    /// Rolls back the transaction, as a statement that fails may do.
    #[cfg(test)]
    RollBack,
}

impl Command {
    /// Returns how many messages the command appends, and their part of the queue in bytes.
    pub(super) fn appends(&self) -> (usize, usize) {
        match self {
            Self::Append { appends, .. } => {
                let sizes = appends.iter().map(|append| append.size);
                (appends.len(), sizes.sum())
            }
            _ => (0, 0),
        }
    }

    /// Returns `true` if the command must survive a crash of the machine. If a lease or an outcome is
    /// lost, the message is redelivered.
    pub(super) const fn is_durable(&self) -> bool {
        matches!(
            self,
            Self::Append { .. } | Self::Replay { .. } | Self::Prune { .. } | Self::SetPaused { .. }
        )
    }

    /// Returns `true` if messages may be ready after the command.
    pub(super) const fn changes(&self) -> bool {
        !matches!(
            self,
            Self::Lease { .. } | Self::Renew { .. } | Self::Prune { .. }
        )
    }

    pub(super) fn refuse(self, error: InboxError) {
        // The caller may have dropped its future.
        match self {
            Self::Append { appends, .. } => {
                for append in appends {
                    drop(append.reply.send(Err(error.clone())));
                }
            }
            Self::Lease { reply, .. } => drop(reply.send(Err(error))),
            Self::Renew { reply, .. } => drop(reply.send(Err(error))),
            Self::Complete { reply, .. } => drop(reply.send(Err(error))),
            Self::Close { reply } | Self::SetPaused { reply, .. } => drop(reply.send(Err(error))),
            Self::Replay { reply, .. } | Self::Prune { reply, .. } => drop(reply.send(Err(error))),
            #[cfg(test)]
            Self::Panic | Self::RollBack => {}
        }
    }
}
