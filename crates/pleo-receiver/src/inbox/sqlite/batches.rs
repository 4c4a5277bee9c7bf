//! Collects the appends of each runtime, so that those of all requests that a thread reads together
//! reach the writer as one command.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Handle, Id};
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};
use tokio::task;

use super::append::ParsedMessage;
use super::command::Command;
use super::replies::Reply;
use crate::inbox::message::Appended;

/// A message to append, and its caller.
pub(super) struct QueuedAppend {
    pub(super) message: Box<ParsedMessage>,
    /// The message's part of the queue in bytes.
    pub(super) size: usize,
    pub(super) reply: Reply<Appended>,
}

/// The appends that have not been sent to the writer, by runtime.
#[derive(Default)]
pub(super) struct AppendBatches(Mutex<Vec<(Id, Vec<QueuedAppend>)>>);

impl AppendBatches {
    /// Sends an append to the writer, together with those that other tasks of this runtime add before
    /// a new task runs.
    pub(super) fn add(self: &Arc<Self>, append: QueuedAppend, commands: &UnboundedSender<Command>) {
        // Outside of a task, nothing may drive the runtime, and a new task would never run.
        let runtime = task::try_id().and_then(|_| Handle::try_current().ok());
        let Some(runtime) = runtime else {
            let (appends, runtime) = (vec![append], None);
            // If the writer has ended, the reply is dropped with the command.
            let _ = commands.send(Command::Append { appends, runtime });
            return;
        };
        if self.push(runtime.id(), append) {
            let batch = Batch {
                batches: Arc::clone(self),
                runtime: runtime.clone(),
                commands: commands.downgrade(),
            };
            runtime.spawn(async move { drop(batch) });
        }
    }

    /// Returns `true` if the batch was empty.
    fn push(&self, runtime: Id, append: QueuedAppend) -> bool {
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match batches.iter_mut().find(|(other, _)| *other == runtime) {
            Some((_, batch)) => batch.push(append),
            None => {
                batches.push((runtime, vec![append]));
                return true;
            }
        }
        false
    }

    fn take(&self, runtime: Id) -> Vec<QueuedAppend> {
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let batch = batches.iter().position(|(other, _)| *other == runtime);
        batch.map_or_else(Vec::new, |batch| batches.swap_remove(batch).1)
    }
}

/// Sends the batch of a runtime when it is dropped, also if the runtime ends before.
struct Batch {
    batches: Arc<AppendBatches>,
    runtime: Handle,
    /// Weak: a task that never runs must not keep the writer.
    commands: WeakUnboundedSender<Command>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        let appends = self.batches.take(self.runtime.id());
        if let Some(commands) = self.commands.upgrade() {
            let runtime = Some(self.runtime.clone());
            let _ = commands.send(Command::Append { appends, runtime });
        }
    }
}
