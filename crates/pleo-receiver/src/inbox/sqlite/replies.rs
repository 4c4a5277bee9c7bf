//! The writer's replies to its callers.

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::append::ParsedMessage;
use super::error::unavailable;
use crate::inbox::error::InboxError;
use crate::inbox::message::Appended;

/// Sends the result of a command.
pub(super) type Reply<T> = oneshot::Sender<Result<T, InboxError>>;

/// Replies that wait for the commit.
#[derive(Default)]
pub(super) struct PendingReplies {
    /// With the callers' runtime.
    appends: Vec<(Option<Handle>, Vec<AppendReply>)>,
    others: Vec<OtherReply>,
}

/// The message goes back to the runtime that allocated it: memory is freed faster there.
pub(super) type AppendReply = (
    Box<ParsedMessage>,
    Reply<Appended>,
    Result<Appended, InboxError>,
);

/// Takes the error if the commit failed.
type OtherReply = Box<dyn FnOnce(Option<&InboxError>)>;

impl PendingReplies {
    pub(super) fn add_appends(&mut self, runtime: Option<Handle>, replies: Vec<AppendReply>) {
        self.appends.push((runtime, replies));
    }

    pub(super) fn add<T: 'static>(&mut self, reply: Reply<T>, result: rusqlite::Result<T>) {
        let result = result.map_err(unavailable);
        self.others.push(Box::new(move |failure| {
            // The caller may have dropped its future.
            let _ = reply.send(failure.cloned().map_or(result, Err));
        }));
    }

    /// Sends all replies after the commit, or its error.
    pub(super) fn send(self, failure: Option<&InboxError>) {
        for (runtime, replies) in self.appends {
            let failure = failure.cloned();
            let committed = CommittedAppends { replies, failure };
            // A task of the callers' runtime sends the replies: to wake a task from another thread
            // takes a system call, and a commit has many callers.
            if let Some(runtime) = runtime {
                runtime.spawn(async move { drop(committed) });
            }
        }
        for reply in self.others {
            reply(failure);
        }
    }
}

/// Sends the replies to appends when it is dropped, also if the runtime ends before.
struct CommittedAppends {
    replies: Vec<AppendReply>,
    /// The error if the commit failed.
    failure: Option<InboxError>,
}

impl Drop for CommittedAppends {
    fn drop(&mut self) {
        for (_message, reply, result) in self.replies.drain(..) {
            // The caller may have dropped its future.
            let _ = reply.send(self.failure.clone().map_or(result, Err));
        }
    }
}
