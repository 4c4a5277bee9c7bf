//! The queue of appends. A few connections take whatever waits in it.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};
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

pub(super) type AppendQueue = mpsc::UnboundedReceiver<Append>;

/// Appends queued messages over one connection until the inbox is closed and the queue is empty.
pub(super) async fn run_connection(shared: Arc<Shared>, queue: Arc<Mutex<AppendQueue>>) {
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
                    if refuse_queued(&shared, &mut *queue.lock().await, &error) {
                        return;
                    }
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
async fn append_queued(shared: &Shared, queue: &Mutex<AppendQueue>, session: &Session) -> bool {
    let mut closing = shared.closing.subscribe();
    loop {
        let mut batch = Vec::new();
        let receive = async {
            let mut queue = queue.lock().await;
            let closed = async { drop(closing.wait_for(|closing| *closing).await) };
            tokio::select! {
                biased;
                count = queue.recv_many(&mut batch, MAX_BATCH) => return count,
                () = closed => {}
            }
            queue.close();
            queue.recv_many(&mut batch, MAX_BATCH).await
        };
        let count = tokio::select! {
            count = receive => count,
            () = session.lost() => return false,
        };
        if count == 0 {
            return true;
        }
        // A key order in which two statements never wait for each other.
        batch.sort_by(|a, b| a.key().cmp(&b.key()));
        while !batch.is_empty() {
            let rest = batch.split_off(statement_len(&batch));
            append_and_reply(shared, session, batch).await;
            batch = rest;
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

async fn append_and_reply(shared: &Shared, session: &Session, batch: Vec<Append>) {
    let started = Instant::now();
    let mut results = append(session, &batch).await;
    if results.as_ref().is_err_and(Failure::is_data_error) && batch.len() > 1 {
        // One message that cannot be stored must not keep the others out.
        let mut single = Vec::with_capacity(batch.len());
        for append_one in &batch {
            let result = append(session, core::slice::from_ref(append_one)).await;
            single.push(result.map(|appended| appended[0]));
        }
        let is_stored = single.iter().any(Result::is_ok);
        if is_stored {
            shared.changed();
        }
        return reply(
            shared,
            batch,
            single.into_iter().map(|result| result.map_err(Into::into)),
        );
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
        }
        Err(failure) => {
            let error = InboxError::from(failure.clone());
            shared.health.failed(failure);
            let count = batch.len();
            reply(shared, batch, core::iter::repeat_n(Err(error), count));
        }
    }
}

/// Replies to queued appends with the error. Returns `true` if the queue has ended.
fn refuse_queued(shared: &Shared, queue: &mut AppendQueue, error: &InboxError) -> bool {
    if *shared.closing.borrow() {
        queue.close();
    }
    let mut refused = Vec::new();
    let is_ended = loop {
        match queue.try_recv() {
            Ok(append) => refused.push(append),
            Err(mpsc::error::TryRecvError::Empty) => break false,
            Err(mpsc::error::TryRecvError::Disconnected) => break true,
        }
    };
    let count = refused.len();
    reply(
        shared,
        refused,
        core::iter::repeat_n(Err(error.clone()), count),
    );
    is_ended
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
