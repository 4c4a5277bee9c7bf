//! An inbox that lasts as long as the process.

mod rows;

use core::future::ready;
use core::hash::BuildHasher;
use core::pin::Pin;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Key;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::yield_now;

use self::rows::{Row, Rows};
use super::{
    Appended, Counts, Entry, Filter, Inbox, InboxError, InboxFuture, LeaseId, LeaseRequest, Leased,
    LeasedMessage, NewMessage, Outcome, Selection, State, ceil, cut, timestamp,
};

/// How many messages are looked into at once, and how many bytes of them unless one has more.
const AT_ONCE: usize = 256;
const BYTES_AT_ONCE: usize = 256 * 1024;

/// An inbox in memory: for tests, and for those who can lose messages. What is done stays until it
/// is pruned, so that a retry of it is known; the sender is told *stored* though nothing is on disk.
#[derive(Debug, Default)]
pub struct MemoryInbox {
    hasher: RandomState,
    store: Mutex<Store>,
    ready: Notify,
}

/// The order in which what is due goes: by expiry, those without one last.
type Rank = (i64, i64);

#[derive(Debug, Default)]
struct Store {
    rows: Rows,
    /// Of endpoint and id: the hash, and the place of the message.
    keys: HashTable<(u64, i64)>,
    /// The place of the last message in line. Those behind it are not looked into before somebody
    /// claims, since the sender waits for an append.
    ranked: i64,
    /// What is due, of each endpoint that has any.
    ready: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    waiting: BTreeSet<(i64, i64)>,
    closed: bool,
}

impl Store {
    fn append(
        &mut self,
        hash: u64,
        message: &NewMessage,
        long: Option<Bytes>,
    ) -> Result<Appended, InboxError> {
        if self.closed {
            return Err(InboxError::Closed);
        }
        let Self { rows, keys, .. } = self;
        let is_it = |row: &Row| row.has_key(&message.endpoint, &message.webhook_id);
        let found = |&(known, sequence): &(u64, i64)| {
            known == hash && rows.get(sequence).is_some_and(is_it)
        };
        match keys.entry(hash, found, |&(hash, _)| hash) {
            Key::Occupied(known) => {
                let known = rows.get(known.get().1);
                Ok(
                    if known.is_some_and(|known| known.has_body(&message.body)) {
                        Appended::Duplicate
                    } else {
                        Appended::Conflict
                    },
                )
            }
            Key::Vacant(new) => {
                rows.push(message, long);
                new.insert((hash, rows.last));
                Ok(Appended::Stored)
            }
        }
    }

    /// Some of the messages that aren't in line yet.
    fn unranked(&self) -> Vec<Row> {
        let mut bytes = 0;
        (self.ranked + 1..=self.rows.last)
            .map_while(|sequence| self.rows.get(sequence))
            .take_while(|row| {
                let is_first = bytes == 0;
                bytes += row.len();
                is_first || bytes <= BYTES_AT_ONCE
            })
            .take(AT_ONCE)
            .cloned()
            .collect()
    }

    /// Puts in line what isn't there since.
    fn rank(&mut self, ranks: impl IntoIterator<Item = Rank>) {
        for (expires_at, sequence) in ranks {
            if sequence > self.ranked
                && let Some(row) = self.rows.get_mut(sequence)
            {
                row.expires_at = expires_at;
                self.queue(sequence);
                self.ranked = sequence;
            }
        }
    }

    /// Changes a row, and keeps the two queues in step with it.
    fn update(&mut self, sequence: i64, change: impl FnOnce(&mut Row)) {
        self.unqueue(sequence);
        if let Some(row) = self.rows.get_mut(sequence) {
            change(row);
        }
        if sequence <= self.ranked {
            self.queue(sequence);
        }
    }

    fn queue(&mut self, sequence: i64) {
        let Some(row) = self.rows.get(sequence) else {
            return;
        };
        match (row.state, row.due_at) {
            (State::Pending, None) => {
                let endpoint = Arc::clone(&row.endpoint);
                let ready = self.ready.entry(endpoint).or_default();
                ready.insert((row.expires_at, sequence));
            }
            (State::Pending, Some(due_at)) => drop(self.waiting.insert((due_at, sequence))),
            _ => {}
        }
    }

    fn unqueue(&mut self, sequence: i64) {
        let Some(row) = self.rows.get(sequence) else {
            return;
        };
        if let Some(ready) = self.ready.get_mut(&row.endpoint) {
            ready.remove(&(row.expires_at, sequence));
            if ready.is_empty() {
                self.ready.remove(&row.endpoint);
            }
        }
        if let Some(due_at) = row.due_at {
            self.waiting.remove(&(due_at, sequence));
        }
    }

    fn lease(&mut self, room: &LeaseRequest, now: Timestamp, lease: Duration) -> Leased {
        while let Some((due_at, sequence)) = self.waiting.first().copied()
            && due_at <= now.as_millisecond()
        {
            self.update(sequence, |row| {
                row.due_at = None;
                row.leased = false;
            });
        }
        let of_each = self.ready.iter().flat_map(|(endpoint, ready)| {
            let room = room.for_endpoint(endpoint);
            ready.iter().take(room).copied()
        });
        let mut next: Vec<Rank> = of_each.collect();
        next.sort_unstable();
        next.truncate(room.total);
        let until = ceil(now.checked_add(lease).unwrap_or(Timestamp::MAX));
        let mut messages = Vec::new();
        for (_, sequence) in next {
            self.update(sequence, |row| {
                row.due_at = Some(until);
                row.leased = true;
                row.attempts += 1;
                row.claims += 1;
                messages.push(LeasedMessage {
                    lease: LeaseId {
                        message: sequence,
                        number: row.claims,
                    },
                    message: row.message(),
                    attempt: row.attempts,
                });
            });
        }
        let next_due = self.waiting.first().map(|(due_at, _)| timestamp(*due_at));
        Leased { messages, next_due }
    }

    fn complete(&mut self, lease: LeaseId, outcome: Outcome) {
        let row = self.rows.get(lease.message);
        if !row.is_some_and(|row| row.leased && row.claims == lease.number) {
            return;
        }
        self.update(lease.message, |row| {
            row.leased = false;
            row.due_at = None;
            match outcome {
                Outcome::Done => row.state = State::Done,
                Outcome::Retry { at, error } => {
                    row.due_at = Some(ceil(at));
                    row.last_error = Some(cut(error).into());
                }
                Outcome::Dead { error } => {
                    row.state = State::Dead;
                    row.last_error = Some(cut(error).into());
                }
                Outcome::Release => row.attempts -= 1,
                Outcome::Exhausted { error } => {
                    row.state = State::Dead;
                    row.last_error = Some(cut(error).into());
                    row.attempts -= 1;
                }
            }
        });
    }

    /// What is selected, as far as that can be told without a look into the bodies.
    fn select(&self, selection: &Selection) -> Vec<Row> {
        let wanted = |row: &&Row| {
            (selection.webhook_id.as_deref()).is_none_or(|id| row.has_id(id))
                && (selection.endpoint.as_deref()).is_none_or(|wanted| *row.endpoint == *wanted)
                && (selection.since).is_none_or(|since| row.received_at() >= since)
                && (selection.until).is_none_or(|until| row.received_at() < until)
                && selection.state.is_none_or(|state| row.state == state)
                && !row.leased
        };
        self.rows.iter().filter(wanted).cloned().collect()
    }

    fn replay(&mut self, sequence: i64, state: Option<State>) -> bool {
        let replayable = |row: &Row| !row.leased && state.is_none_or(|state| row.state == state);
        if !self.rows.get(sequence).is_some_and(replayable) {
            return false;
        }
        self.update(sequence, |row| {
            row.state = State::Pending;
            row.due_at = None;
            row.attempts = 0;
        });
        true
    }

    fn prune(&mut self, hash: impl Fn(&str, &str) -> u64, state: State, before: Timestamp) -> u64 {
        let mut pruned = 0;
        let Self { rows, keys, .. } = self;
        rows.retain(|row| {
            // What is neither pending nor leased is in no queue.
            if row.state == State::Pending || row.state != state || row.received_at() >= before {
                return true;
            }
            let key = hash(&row.endpoint, row.webhook_id());
            if let Ok(key) = keys.find_entry(key, |(_, sequence)| *sequence == row.sequence) {
                key.remove();
            }
            pruned += 1;
            false
        });
        if keys.len() < keys.capacity() / 4 {
            keys.shrink_to(keys.len() * 2, |&(hash, _)| hash);
        }
        pruned
    }
}

impl MemoryInbox {
    /// An empty inbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // Nothing in here panics half way.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hash(&self, endpoint: &str, webhook_id: &str) -> u64 {
        self.hasher.hash_one((endpoint, webhook_id))
    }

    /// What it takes to append a message, made before anybody has to wait.
    fn prepare(&self, message: &NewMessage) -> (u64, Option<Bytes>) {
        let hash = self.hash(&message.endpoint, &message.webhook_id);
        (hash, rows::long_text(message))
    }

    /// Does it at once, unless closed.
    fn with<T: Send + 'static>(&self, act: impl FnOnce(&mut Store) -> T) -> InboxFuture<'_, T> {
        let mut store = self.store();
        let result = if store.closed {
            Err(InboxError::Closed)
        } else {
            Ok(act(&mut store))
        };
        Box::pin(ready(result))
    }
}

impl Inbox for MemoryInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        let (hash, long) = self.prepare(&message);
        let appended = self.store().append(hash, &message, long);
        self.ready.notify_one();
        Box::pin(ready(appended))
    }

    fn lease(
        &self,
        room: LeaseRequest,
        now: Timestamp,
        lease: Duration,
    ) -> InboxFuture<'_, Leased> {
        Box::pin(async move {
            loop {
                let unranked = {
                    let mut store = self.store();
                    let unranked = store.unranked();
                    if store.closed {
                        return Err(InboxError::Closed);
                    }
                    if unranked.is_empty() {
                        return Ok(store.lease(&room, now, lease));
                    }
                    unranked
                };
                // Nobody waits while they are read.
                let ranks: Vec<_> = unranked.iter().map(Row::rank).collect();
                self.store().rank(ranks);
                yield_now().await;
            }
        })
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, ()> {
        let settled = self.with(|store| store.complete(lease, outcome));
        self.ready.notify_one();
        settled
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.ready.notified())
    }

    fn list(&self, filter: Filter) -> InboxFuture<'_, Vec<Entry>> {
        let rows = self.with(|store| -> Vec<Row> {
            let limit = filter.limit.map_or(usize::MAX, |limit| {
                usize::try_from(limit).unwrap_or(usize::MAX)
            });
            let wanted = |row: &&Row| {
                filter.after.is_none_or(|after| row.sequence > after)
                    && filter.state.is_none_or(|state| row.state == state)
                    && (filter.endpoint.as_deref())
                        .is_none_or(|endpoint| *row.endpoint == *endpoint)
            };
            let rows = store.rows.iter().filter(wanted);
            if filter.newest_first {
                rows.rev().take(limit).cloned().collect()
            } else {
                rows.take(limit).cloned().collect()
            }
        });
        Box::pin(async { Ok(rows.await?.iter().map(Row::entry).collect()) })
    }

    fn show(&self, webhook_id: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>> {
        let rows = self.with(|store| -> Vec<Row> {
            let rows = store.rows.iter();
            rows.filter(|row| row.has_id(&webhook_id))
                .cloned()
                .collect()
        });
        Box::pin(async {
            let rows = rows.await?;
            Ok(rows
                .iter()
                .map(|row| (row.entry(), row.own_body()))
                .collect())
        })
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        Box::pin(async move {
            let mut rows = self.with(|store| store.select(&selection)).await?;
            if let Some(wanted) = &selection.event_type {
                rows.retain(|row| {
                    row.summary()
                        .is_some_and(|found| found.event_type == **wanted)
                });
            }
            let replayed = self.with(|store| {
                let places = rows.iter().map(|row| row.sequence);
                let replayed = places.filter(|place| store.replay(*place, selection.state));
                replayed.fold(0, |count, _| count + 1)
            });
            self.ready.notify_one();
            replayed.await
        })
    }

    fn prune(&self, state: State, before: Timestamp) -> InboxFuture<'_, u64> {
        let hash = |endpoint: &str, webhook_id: &str| self.hash(endpoint, webhook_id);
        self.with(|store| store.prune(hash, state, before))
    }

    fn counts(&self) -> InboxFuture<'_, Counts> {
        self.with(|store| {
            let mut counts = Counts::default();
            for row in store.rows.iter() {
                match row.state {
                    State::Pending => counts.pending += 1,
                    State::Done => counts.done += 1,
                    State::Dead => counts.dead += 1,
                }
            }
            counts
        })
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        self.with(|store| store.closed = true)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails loudly")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_again_takes_no_memory() {
        let inbox = MemoryInbox::new();
        let message = || NewMessage::new("one", "1", "body");
        inbox.append(message()).await.unwrap();
        let room = inbox.store().rows.room();
        assert!(room > 0);
        let other = NewMessage::new("one", "1", "other");
        assert_eq!(inbox.append(message()).await.unwrap(), Appended::Duplicate);
        assert_eq!(inbox.append(other).await.unwrap(), Appended::Conflict);
        assert_eq!(inbox.store().rows.room(), room);
    }

    #[tokio::test]
    async fn what_is_pruned_leaves_nothing_behind() {
        let inbox = MemoryInbox::new();
        for id in 0..10 {
            let message = NewMessage::new("one", id.to_string(), "body");
            inbox.append(message).await.unwrap();
        }
        let (lease, now) = (Duration::from_secs(1), Timestamp::now());
        let lease = inbox.lease(LeaseRequest::of(10), now, lease).await.unwrap();
        for leased in lease.messages {
            inbox.complete(leased.lease, Outcome::Done).await.unwrap();
        }
        let before = Timestamp::MAX;
        assert_eq!(inbox.prune(State::Done, before).await.unwrap(), 10);
        let store = inbox.store();
        assert_eq!(store.rows.iter().count(), 0);
        assert!(store.keys.is_empty() && store.ready.is_empty() && store.waiting.is_empty());
        assert_eq!(store.keys.capacity(), 0);
    }
}
