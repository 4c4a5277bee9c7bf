//! An inbox that lasts as long as the process.

use core::pin::Pin;
use core::time::Duration;
use std::collections::hash_map::{self, HashMap};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::{
    AppendFuture, Appended, Claim, ClaimId, Claimed, Counts, Entry, Filter, Inbox, InboxError,
    InboxFuture, NewMessage, Outcome, Room, Selection, State, cut,
};

/// An inbox in memory: for tests, and for those who can lose messages. What is done stays until it
/// is pruned, so that a retry of it is known; the sender is told *stored* though nothing is on disk.
#[derive(Debug, Default)]
pub struct MemoryInbox {
    store: Mutex<Store>,
    ready: Notify,
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
}

/// The order in which what is due goes: by expiry, those without one last.
type Rank = (bool, Option<Timestamp>, i64);

#[derive(Debug, Default)]
struct Store {
    /// Boxed, since half of a tree's places are free.
    rows: BTreeMap<i64, Box<Row>>,
    /// Of each endpoint.
    keys: BTreeMap<Arc<str>, HashMap<Arc<str>, i64>>,
    /// What is due, of each endpoint that has any.
    ready: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    waiting: BTreeSet<(Timestamp, i64)>,
    last: i64,
    closed: bool,
}

#[derive(Debug)]
struct Row {
    message: NewMessage,
    state: State,
    attempts: u32,
    claims: i64,
    due_at: Option<Timestamp>,
    leased: bool,
    last_error: Option<String>,
}

impl Row {
    fn new(mut message: NewMessage) -> Self {
        message.received_at = to_millisecond(message.received_at);
        message.expires_at = message.expires_at.map(to_millisecond);
        Self {
            message,
            state: State::Pending,
            attempts: 0,
            claims: 0,
            due_at: None,
            leased: false,
            last_error: None,
        }
    }

    const fn rank(&self, sequence: i64) -> Rank {
        let expires_at = self.message.expires_at;
        (expires_at.is_none(), expires_at, sequence)
    }

    fn entry(&self, sequence: i64) -> Entry {
        let message = &self.message;
        Entry {
            sequence,
            endpoint: message.endpoint.to_string(),
            webhook_id: message.webhook_id.to_string(),
            event_type: message.event_type.clone(),
            event_id: message.event_id.clone(),
            resource_id: message.resource_id.clone(),
            origin: message.origin,
            state: self.state,
            attempts: self.attempts,
            received_at: message.received_at,
            expires_at: message.expires_at,
            due_at: self.due_at,
            last_error: self.last_error.clone(),
            body_len: u64::try_from(message.body.len()).unwrap_or(u64::MAX),
        }
    }
}

impl Store {
    fn append(&mut self, row: Box<Row>) -> Appended {
        let Row { message, .. } = &*row;
        let sequence = self.last + 1;
        let keys = self.keys.entry(Arc::clone(&message.endpoint)).or_default();
        match keys.entry(Arc::clone(&message.webhook_id)) {
            hash_map::Entry::Occupied(known) => {
                let known = self.rows.get(known.get());
                return if known.is_some_and(|known| known.message.body == message.body) {
                    Appended::Known
                } else {
                    Appended::Conflict
                };
            }
            hash_map::Entry::Vacant(new) => {
                new.insert(sequence);
            }
        }
        self.last = sequence;
        let ready = self.ready.entry(Arc::clone(&message.endpoint)).or_default();
        ready.insert(row.rank(sequence));
        self.rows.insert(sequence, row);
        Appended::Stored
    }

    /// Changes a row, and keeps the two queues in step with it.
    fn update(&mut self, sequence: i64, change: impl FnOnce(&mut Row)) {
        self.unqueue(sequence);
        if let Some(row) = self.rows.get_mut(&sequence) {
            change(row);
        }
        self.queue(sequence);
    }

    fn queue(&mut self, sequence: i64) {
        let Some(row) = self.rows.get(&sequence) else {
            return;
        };
        match (row.state, row.due_at) {
            (State::Pending, None) => {
                let endpoint = Arc::clone(&row.message.endpoint);
                let ready = self.ready.entry(endpoint).or_default();
                ready.insert(row.rank(sequence));
            }
            (State::Pending, Some(due_at)) => drop(self.waiting.insert((due_at, sequence))),
            _ => {}
        }
    }

    fn unqueue(&mut self, sequence: i64) {
        let Some(row) = self.rows.get(&sequence) else {
            return;
        };
        let endpoint = &row.message.endpoint;
        if let Some(ready) = self.ready.get_mut(endpoint) {
            ready.remove(&row.rank(sequence));
            if ready.is_empty() {
                self.ready.remove(endpoint);
            }
        }
        if let Some(due_at) = row.due_at {
            self.waiting.remove(&(due_at, sequence));
        }
    }

    fn claim(&mut self, room: &Room, now: Timestamp, lease: Duration) -> Claim {
        while let Some((due_at, sequence)) = self.waiting.first().copied()
            && due_at <= now
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
        let until = now.checked_add(lease).unwrap_or(Timestamp::MAX);
        let mut messages = Vec::new();
        for (_, _, sequence) in next {
            self.update(sequence, |row| {
                row.due_at = Some(until);
                row.leased = true;
                row.attempts += 1;
                row.claims += 1;
                messages.push(Claimed {
                    claim: ClaimId {
                        message: sequence,
                        number: row.claims,
                    },
                    message: row.message.clone(),
                    attempt: row.attempts,
                });
            });
        }
        let next_due = self.waiting.first().map(|(due_at, _)| *due_at);
        Claim { messages, next_due }
    }

    fn settle(&mut self, claim: ClaimId, outcome: Outcome) {
        let row = self.rows.get(&claim.message);
        if !row.is_some_and(|row| row.leased && row.claims == claim.number) {
            return;
        }
        self.update(claim.message, |row| {
            row.leased = false;
            row.due_at = None;
            match outcome {
                Outcome::Done => row.state = State::Done,
                Outcome::Retry { at, error } => {
                    row.due_at = Some(at);
                    row.last_error = Some(cut(error));
                }
                Outcome::Dead { error } => {
                    row.state = State::Dead;
                    row.last_error = Some(cut(error));
                }
                Outcome::Release => row.attempts -= 1,
                Outcome::Exhausted { error } => {
                    row.state = State::Dead;
                    row.last_error = Some(cut(error));
                    row.attempts -= 1;
                }
            }
        });
    }

    fn replay(&mut self, selection: &Selection) -> u64 {
        let wanted = |row: &Row| {
            let Row { message, state, .. } = row;
            let is = |wanted: &Option<String>, found: Option<&str>| {
                wanted.is_none() || wanted.as_deref() == found
            };
            is(&selection.webhook_id, Some(&message.webhook_id))
                && is(&selection.endpoint, Some(&message.endpoint))
                && is(&selection.event_type, message.event_type.as_deref())
                && selection.state.is_none_or(|wanted| *state == wanted)
                && (selection.since).is_none_or(|since| message.received_at >= since)
                && (selection.until).is_none_or(|until| message.received_at < until)
                && !row.leased
        };
        let selected = self.rows.iter().filter(|(_, row)| wanted(row));
        let sequences: Vec<_> = selected.map(|(sequence, _)| *sequence).collect();
        for sequence in &sequences {
            self.update(*sequence, |row| {
                row.state = State::Pending;
                row.due_at = None;
                row.leased = false;
                row.attempts = 0;
            });
        }
        u64::try_from(sequences.len()).unwrap_or(u64::MAX)
    }

    fn prune(&mut self, state: State, before: Timestamp) -> u64 {
        let old = |row: &Row| row.state == state && row.message.received_at < before;
        let mut pruned = 0;
        let Self { rows, keys, .. } = self;
        rows.retain(|_, row| {
            // What is neither pending nor leased is in no queue.
            if row.state == State::Pending || !old(row) {
                return true;
            }
            if let Some(keys) = keys.get_mut(&row.message.endpoint) {
                keys.remove(&row.message.webhook_id);
            }
            pruned += 1;
            false
        });
        pruned
    }
}

impl MemoryInbox {
    /// Does it at once, unless closed.
    fn with<T: Send + 'static>(&self, act: impl FnOnce(&mut Store) -> T) -> InboxFuture<'_, T> {
        let mut store = self.store();
        let result = if store.closed {
            Err(InboxError::Closed)
        } else {
            Ok(act(&mut store))
        };
        Box::pin(core::future::ready(result))
    }
}

impl Inbox for MemoryInbox {
    fn append_all(&self, messages: Vec<NewMessage>) -> AppendFuture<'_> {
        // Whatever takes its time is done before anybody has to wait.
        let rows: Vec<_> = (messages.into_iter())
            .map(|message| Box::new(Row::new(message)))
            .collect();
        let mut store = self.store();
        let append = |row| {
            if store.closed {
                Err(InboxError::Closed)
            } else {
                Ok(store.append(row))
            }
        };
        let appended = rows.into_iter().map(append).collect();
        drop(store);
        self.ready.notify_one();
        Box::pin(core::future::ready(appended))
    }

    fn claim(&self, room: Room, now: Timestamp, lease: Duration) -> InboxFuture<'_, Claim> {
        self.with(|store| store.claim(&room, now, lease))
    }

    fn settle(&self, claim: ClaimId, outcome: Outcome) -> InboxFuture<'_, ()> {
        let settled = self.with(|store| store.settle(claim, outcome));
        self.ready.notify_one();
        settled
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.ready.notified())
    }

    fn list(&self, filter: Filter) -> InboxFuture<'_, Vec<Entry>> {
        self.with(|store| {
            let limit = filter.limit.map_or(usize::MAX, |limit| {
                usize::try_from(limit).unwrap_or(usize::MAX)
            });
            let wanted = |row: &Row| {
                filter.state.is_none_or(|state| row.state == state)
                    && (filter.endpoint.as_deref())
                        .is_none_or(|endpoint| &*row.message.endpoint == endpoint)
            };
            let mut rows: Vec<_> = store.rows.iter().collect();
            if filter.newest_first {
                rows.reverse();
            }
            rows.into_iter()
                .filter(|(sequence, _)| filter.after.is_none_or(|after| **sequence > after))
                .filter(|(_, row)| wanted(row))
                .map(|(sequence, row)| row.entry(*sequence))
                .take(limit)
                .collect()
        })
    }

    fn show(&self, webhook_id: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>> {
        self.with(|store| {
            let rows = store.rows.iter();
            rows.filter(|(_, row)| *row.message.webhook_id == *webhook_id)
                .map(|(sequence, row)| (row.entry(*sequence), row.message.body.clone()))
                .collect()
        })
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        let replayed = self.with(|store| store.replay(&selection));
        self.ready.notify_one();
        replayed
    }

    fn prune(&self, state: State, before: Timestamp) -> InboxFuture<'_, u64> {
        self.with(|store| store.prune(state, before))
    }

    fn counts(&self) -> InboxFuture<'_, Counts> {
        self.with(|store| {
            let mut counts = Counts::default();
            for row in store.rows.values() {
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

/// As precise as any inbox keeps it.
fn to_millisecond(at: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(at.as_millisecond()).unwrap_or(at)
}
