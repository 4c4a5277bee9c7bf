//! The queue of appends. A few connections take whatever waits in it.

use core::iter;
use core::mem;
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot, watch};
use tokio::time;

use super::append::{Append, append};
use super::error::Failure;
use super::session::Session;
use super::shared::{Shared, reconnect_delay};
use crate::inbox::error::InboxError;
use crate::inbox::message::Appended;

/// How many connections append at a time. While one commits, the other collects.
pub(super) const CONNECTIONS: usize = 2;

/// The most messages of one statement.
const MAX_BATCH: usize = 512;

/// The most bytes of the bodies of one statement, unless one body has more.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// With fewer messages, a connection waits while the other one executes a statement, for [`MAX_WAIT`] at
/// most: more arrive, and small statements cost the server more than they store.
const MIN_CONCURRENT_BATCH: usize = 64;

const MAX_WAIT: Duration = Duration::from_millis(5);

/// The messages to append.
pub(super) struct AppendQueue {
    messages: Mutex<Messages>,
    /// Held by a connection while it executes a statement, unless the other one holds it.
    turn: Mutex<()>,
}

struct Messages {
    receiver: mpsc::UnboundedReceiver<Append>,
    /// Messages that a connection received before its turn. They stay here if it is lost meanwhile.
    received: Vec<Append>,
}

impl AppendQueue {
    pub(super) fn new(receiver: mpsc::UnboundedReceiver<Append>) -> Self {
        let messages = Messages {
            receiver,
            received: Vec::new(),
        };
        Self {
            messages: Mutex::new(messages),
            turn: Mutex::default(),
        }
    }

    /// Waits for messages and takes them, with the turn to append them if it is free. Takes none if the
    /// inbox is closed and the queue is empty.
    async fn take(
        &self,
        closing: &watch::Sender<bool>,
    ) -> (Vec<Append>, Option<MutexGuard<'_, ()>>) {
        let mut messages = self.messages.lock().await;
        messages.receive(closing).await;
        let mut turn = self.turn.try_lock().ok();
        if turn.is_none() && messages.len() < MIN_CONCURRENT_BATCH {
            turn = time::timeout(MAX_WAIT, self.turn.lock()).await.ok();
        }
        (messages.take(MAX_BATCH), turn)
    }
}

impl Messages {
    /// Waits until there are messages, or until the queue has ended.
    async fn receive(&mut self, closing: &watch::Sender<bool>) {
        if !self.received.is_empty() {
            return;
        }
        let mut closing = closing.subscribe();
        tokio::select! {
            biased;
            _ = self.receiver.recv_many(&mut self.received, MAX_BATCH) => return,
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.receiver.close();
        self.receiver.recv_many(&mut self.received, MAX_BATCH).await;
    }

    fn len(&self) -> usize {
        self.received.len() + self.receiver.len()
    }

    /// Takes messages that have arrived.
    fn take(&mut self, max: usize) -> Vec<Append> {
        while self.received.len() < max
            && let Ok(message) = self.receiver.try_recv()
        {
            self.received.push(message);
        }
        mem::take(&mut self.received)
    }
}

/// Appends queued messages over one connection until the inbox is closed and the queue is empty.
pub(super) async fn run_connection(shared: Arc<Shared>, queue: Arc<AppendQueue>) {
    let mut failures = 0;
    let mut closing = shared.closing.subscribe();
    loop {
        let session = match shared.connector.connect().await {
            Ok(session) => session,
            Err(failure) => {
                failures += 1;
                if !shared.health.is_connected() {
                    let error = InboxError::from(failure.clone());
                    shared.health.failed(failure);
                    if refuse_queued(&shared, &mut *queue.messages.lock().await, &error) {
                        return;
                    }
                }
                if shared.is_closed() {
                    // The other connection appends the rest.
                    return;
                }
                let closed = async { drop(closing.wait_for(|closing| *closing).await) };
                tokio::select! {
                    () = time::sleep(reconnect_delay(failures)) => {}
                    () = closed => {}
                }
                continue;
            }
        };
        failures = 0;
        shared.health.connected();
        let is_ended = append_queued(&shared, &queue, &session).await;
        shared.health.lost();
        if is_ended {
            return;
        }
    }
}

/// Appends queued messages until the connection is lost. Returns `true` if the queue has ended instead.
async fn append_queued(shared: &Shared, queue: &AppendQueue, session: &Session) -> bool {
    loop {
        let (mut batch, _turn) = tokio::select! {
            taken = queue.take(&shared.closing) => taken,
            () = session.lost() => return false,
        };
        if batch.is_empty() {
            return true;
        }
        // A key order in which two statements never wait for each other.
        batch.sort_by(|a, b| a.key().cmp(&b.key()));
        while !batch.is_empty() {
            let rest = batch.split_off(statement_len(&batch));
            let appended = append_and_reply(shared, session, batch).await;
            batch = rest;
            if let Err(failure) = appended
                && failure.is_hang()
            {
                // All that wait would hang too, one statement after the other.
                let error = InboxError::from(failure);
                refuse(shared, mem::take(&mut batch), &error);
                // If the other connection waits for messages, there are none.
                if let Ok(mut messages) = queue.messages.try_lock() {
                    refuse_queued(shared, &mut messages, &error);
                }
            }
        }
        if session.is_broken() {
            return false;
        }
    }
}

/// Returns how many messages fit into one statement, at least one.
fn statement_len(batch: &[Append]) -> usize {
    let mut bytes = 0;
    let fits = |append: &&Append| {
        bytes += append.size;
        bytes <= MAX_BATCH_BYTES
    };
    batch.iter().take_while(fits).count().max(1)
}

/// Appends the messages and replies to their callers. Returns the failure of the statement.
async fn append_and_reply(
    shared: &Shared,
    session: &Session,
    batch: Vec<Append>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let mut results = append(session, &batch).await;
    if results.as_ref().is_err_and(Failure::is_data_error) && batch.len() > 1 {
        return append_one_by_one(shared, session, batch).await;
    }
    if results.as_ref().is_err_and(Failure::is_transient) {
        results = append(session, &batch).await;
    }
    match results {
        Ok(results) => {
            shared.health.succeeded();
            let stored = results.iter().filter(|result| **result == Appended::Stored);
            let stored = stored.count();
            if stored > 0 {
                shared.meter.commit_time.add_time(started.elapsed());
                shared.meter.commit_appends.add_size(stored);
                shared.changed();
            }
            reply(shared, batch, results.into_iter().map(Ok));
            Ok(())
        }
        Err(failure) => {
            shared.health.failed(failure.clone());
            refuse(shared, batch, &failure.clone().into());
            Err(failure)
        }
    }
}

/// Appends the messages in a statement each: one that cannot be stored must not keep the others out.
async fn append_one_by_one(
    shared: &Shared,
    session: &Session,
    batch: Vec<Append>,
) -> Result<(), Failure> {
    let mut hang: Result<(), Failure> = Ok(());
    for message in batch {
        let result = match &hang {
            Err(failure) => Err(failure.clone()),
            Ok(()) => append(session, core::slice::from_ref(&message)).await,
        };
        match &result {
            Ok(_) => shared.changed(),
            Err(failure) if failure.is_hang() => hang = Err(failure.clone()),
            Err(_) => {}
        }
        let result = result.map(|appended| appended[0]).map_err(Into::into);
        reply(shared, vec![message], iter::once(result));
    }
    hang
}

/// Replies to queued appends with the error. Returns `true` if the queue has ended.
fn refuse_queued(shared: &Shared, messages: &mut Messages, error: &InboxError) -> bool {
    if *shared.closing.borrow() {
        messages.receiver.close();
    }
    refuse(shared, messages.take(usize::MAX), error);
    messages.receiver.is_closed()
}

fn refuse(shared: &Shared, batch: Vec<Append>, error: &InboxError) {
    let count = batch.len();
    reply(shared, batch, iter::repeat_n(Err(error.clone()), count));
}

type Reply = (
    oneshot::Sender<Result<Appended, InboxError>>,
    Result<Appended, InboxError>,
);

/// Replies to the callers. A task of their runtime does so: to wake a task from another thread takes a
/// system call, and a commit has many callers.
fn reply(
    shared: &Shared,
    batch: Vec<Append>,
    results: impl Iterator<Item = Result<Appended, InboxError>>,
) {
    let mut by_runtime: Vec<(Option<Handle>, Replies)> = Vec::new();
    for (append, result) in batch.into_iter().zip(results) {
        shared.meter.unqueue(1, append.size);
        let id = |runtime: &Option<Handle>| runtime.as_ref().map(Handle::id);
        let reply = (append.reply, result);
        match by_runtime
            .iter_mut()
            .find(|(other, _)| id(other) == id(&append.runtime))
        {
            Some((_, replies)) => replies.0.push(reply),
            None => by_runtime.push((append.runtime, Replies(vec![reply]))),
        }
    }
    for (runtime, replies) in by_runtime {
        match runtime {
            Some(runtime) => drop(runtime.spawn(async move { drop(replies) })),
            None => drop(replies),
        }
    }
}

/// Sends the replies when it is dropped, also if the runtime ends before.
struct Replies(Vec<Reply>);

impl Drop for Replies {
    fn drop(&mut self) {
        for (reply, result) in self.0.drain(..) {
            // The caller may have dropped its future.
            let _ = reply.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use core::pin::pin;

    use futures_util::poll;

    use super::*;
    use crate::inbox::message::NewMessage;

    fn queue() -> (mpsc::UnboundedSender<Append>, AppendQueue) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, AppendQueue::new(receiver))
    }

    fn send(sender: &mpsc::UnboundedSender<Append>, id: &str) {
        let (reply, _) = oneshot::channel();
        let message = NewMessage::new("/", id, "");
        assert!(sender.send(Append::new(message, 0, reply)).is_ok());
    }

    fn ids(batch: &[Append]) -> Vec<&str> {
        batch.iter().map(|append| append.key().0).collect()
    }

    #[tokio::test]
    async fn messages_gather_while_other_connection_has_its_turn() {
        let (sender, queue) = queue();
        let closing = watch::Sender::new(false);
        send(&sender, "a");
        let (batch, turn) = queue.take(&closing).await;
        assert_eq!(ids(&batch), ["a"]);
        assert!(turn.is_some());

        send(&sender, "b");
        let mut waiting = pin!(queue.take(&closing));
        assert!(poll!(&mut waiting).is_pending());
        send(&sender, "c");
        drop(turn);
        let (batch, turn) = waiting.await;
        assert_eq!(ids(&batch), ["b", "c"]);
        assert!(turn.is_some());
    }

    #[tokio::test]
    async fn does_not_wait_long_for_connection_that_hangs_nor_with_many_messages() {
        let (sender, queue) = queue();
        let closing = watch::Sender::new(false);
        let hangs = queue.turn.lock().await;
        send(&sender, "a");
        let (batch, turn) = queue.take(&closing).await;
        assert_eq!(ids(&batch), ["a"]);
        assert!(turn.is_none());

        (0..MIN_CONCURRENT_BATCH).for_each(|_| send(&sender, "b"));
        let many = poll!(pin!(queue.take(&closing)));
        assert!(many.is_ready());
        drop(hangs);
    }

    #[tokio::test]
    async fn keeps_messages_of_connection_that_is_lost_before_its_turn() {
        let (sender, queue) = queue();
        let closing = watch::Sender::new(false);
        let turn = queue.turn.lock().await;
        send(&sender, "a");
        {
            let mut lost = pin!(queue.take(&closing));
            assert!(poll!(&mut lost).is_pending());
        }
        drop(turn);
        let (batch, _) = queue.take(&closing).await;
        assert_eq!(ids(&batch), ["a"]);
        drop(sender);
        assert!(queue.take(&closing).await.0.is_empty());
    }
}
