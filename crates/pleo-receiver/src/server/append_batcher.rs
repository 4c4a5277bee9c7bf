//! What the requests of one thread append, gathered.
//!
//! Between two looks at its sockets a thread reads many requests. They are appended together, so that
//! all of them cost one hand-over to the inbox and one wake-up back.

use core::iter::zip;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::{Appended, Inbox, InboxError, NewMessage};

/// How many messages are appended together at most.
const MOST: usize = 1024;

type Reply = oneshot::Sender<Result<Appended, InboxError>>;

/// Where the requests of one thread append what they bring. How many wait in here is bounded by how
/// many requests may be in flight.
#[derive(Clone, Debug)]
pub(crate) struct AppendBatcher(mpsc::UnboundedSender<(NewMessage, Reply)>);

impl AppendBatcher {
    /// Works as long as a task of the current runtime can.
    pub(super) fn start(inbox: Arc<dyn Inbox>) -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut gathered = Vec::new();
            while receiver.recv_many(&mut gathered, MOST).await > 0 {
                let (messages, replies) = gathered.drain(..).unzip();
                let inbox = Arc::clone(&inbox);
                tokio::spawn(append(inbox, messages, replies));
            }
        });
        Self(sender)
    }

    /// Stores a message, as [`Inbox::append`] does.
    pub(crate) async fn append(&self, message: NewMessage) -> Result<Appended, InboxError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.0.send((message, reply));
        sent.map_err(|_| InboxError::Closed)?;
        let unanswered = |_| {
            let why = "it panicked, or gave not one result for each message";
            InboxError::Failed(Arc::from(Box::from(why)))
        };
        answer.await.map_err(unanswered)?
    }
}

async fn append(inbox: Arc<dyn Inbox>, messages: Vec<NewMessage>, replies: Vec<Reply>) {
    let results = inbox.append_all(messages).await;
    if results.len() != replies.len() {
        // There is no telling which result is whose, and none may have what is another's.
        return;
    }
    for (reply, result) in zip(replies, results) {
        // Whoever asked may be gone.
        let _ = reply.send(result);
    }
}
