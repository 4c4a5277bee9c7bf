//! The inbox in memory.

use core::future::ready;
use core::pin::Pin;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::Notify;

use super::contract::{Inbox, InboxFuture};
use super::error::InboxError;
use super::types::{
    Appended, Counts, Entry, Filter, LeaseId, LeaseRequest, Leased, LeasedMessage, NewMessage,
    Outcome, Selection, State, SummaryColumns, ceil_millisecond, from_millisecond, to_u64,
};

/// An inbox in memory, for tests. All messages are lost when the process ends, although the sender
/// was answered 204.
///
/// Done and dead messages stay until they are pruned. There is no limit on memory.
#[derive(Debug, Default)]
pub struct MemoryInbox {
    store: Mutex<Store>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct Store {
    rows: BTreeMap<i64, Row>,
    /// The sequence of each endpoint and `webhook-id`.
    keys: HashMap<(Arc<str>, Arc<str>), i64>,
    /// The ready messages of each endpoint, in dispatch order.
    ready: BTreeMap<Arc<str>, BTreeSet<DispatchKey>>,
    /// The leased and scheduled messages, as `due_at` and sequence.
    waiting: BTreeSet<(Timestamp, i64)>,
    last_sequence: i64,
    closed: bool,
}

/// Orders ready messages: those with an expiry, by expiry; then by sequence.
type DispatchKey = (bool, Option<Timestamp>, i64);

#[derive(Debug)]
struct Row {
    message: NewMessage,
    entry: Entry,
    leases: i64,
    leased: bool,
}

impl MemoryInbox {
    /// Creates an empty inbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with_store<T: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Store) -> T,
    ) -> InboxFuture<'_, T> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let result = if store.closed {
            Err(InboxError::Closed)
        } else {
            Ok(operation(&mut store))
        };
        Box::pin(ready(result))
    }
}

impl Inbox for MemoryInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        let appended = self.with_store(|store| store.append(message));
        self.ready.notify_one();
        appended
    }

    fn lease(
        &self,
        request: LeaseRequest,
        now: Timestamp,
        lease: Duration,
    ) -> InboxFuture<'_, Leased> {
        self.with_store(|store| store.lease(&request, now, lease))
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, ()> {
        let completed = self.with_store(|store| store.complete(lease, outcome));
        self.ready.notify_one();
        completed
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.ready.notified())
    }

    fn list(&self, filter: Filter) -> InboxFuture<'_, Vec<Entry>> {
        self.with_store(|store| {
            let limit = usize::try_from(filter.limit.unwrap_or(u32::MAX)).unwrap_or(usize::MAX);
            let entries = store.rows.values().map(|row| &row.entry);
            let entries = entries.filter(|entry| {
                filter.after.is_none_or(|after| entry.sequence > after)
                    && filter.state.is_none_or(|state| entry.state == state)
                    && is_none_or_equal(filter.endpoint.as_ref(), &entry.endpoint)
            });
            if filter.newest_first {
                entries.rev().take(limit).cloned().collect()
            } else {
                entries.take(limit).cloned().collect()
            }
        })
    }

    fn show(&self, webhook_id: String) -> InboxFuture<'_, Vec<(Entry, Bytes)>> {
        self.with_store(|store| {
            let rows = store.rows.values();
            rows.filter(|row| row.entry.webhook_id == webhook_id)
                .map(|row| (row.entry.clone(), row.message.body.clone()))
                .collect()
        })
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        let replayed = self.with_store(|store| store.replay(&selection));
        self.ready.notify_one();
        replayed
    }

    fn prune(&self, state: State, before: Timestamp) -> InboxFuture<'_, u64> {
        self.with_store(|store| store.prune(state, before))
    }

    fn counts(&self) -> InboxFuture<'_, Counts> {
        self.with_store(|store| {
            let count = |state| {
                let rows = store.rows.values();
                to_u64(rows.filter(|row| row.entry.state == state).count())
            };
            Counts {
                pending: count(State::Pending),
                done: count(State::Done),
                dead: count(State::Dead),
            }
        })
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        self.with_store(|store| store.closed = true)
    }
}

impl Store {
    fn append(&mut self, message: NewMessage) -> Appended {
        let (endpoint, webhook_id) = (&message.endpoint, &message.webhook_id);
        let key = (Arc::clone(endpoint), Arc::clone(webhook_id));
        if let Some(stored) = self.keys.get(&key).and_then(|key| self.rows.get(key)) {
            return if stored.message.body == message.body {
                Appended::Duplicate
            } else {
                Appended::Conflict
            };
        }
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        self.keys.insert(key, sequence);
        self.rows.insert(sequence, Row::new(sequence, message));
        self.update(sequence, |_| ());
        Appended::Stored
    }

    fn lease(&mut self, request: &LeaseRequest, now: Timestamp, lease: Duration) -> Leased {
        while let Some((due_at, sequence)) = self.waiting.first().copied()
            && due_at <= now
        {
            self.update(sequence, |row| {
                row.entry.due_at = None;
                row.leased = false;
            });
        }
        let mut next: Vec<DispatchKey> = (self.ready.iter())
            .flat_map(|(endpoint, ready)| ready.iter().take(request.max_of(endpoint)))
            .copied()
            .collect();
        next.sort_unstable();
        next.truncate(request.max);
        let ends_at = now.checked_add(lease).unwrap_or(Timestamp::MAX);
        let messages = next
            .into_iter()
            .filter_map(|(.., sequence)| self.update(sequence, |row| row.lease(ends_at)))
            .collect();
        Leased {
            messages,
            next_due: self.waiting.first().map(|(due_at, _)| *due_at),
        }
    }

    fn complete(&mut self, lease: LeaseId, outcome: Outcome) {
        let is_held = |row: &Row| row.leased && row.leases == lease.number;
        if self.rows.get(&lease.message).is_some_and(is_held) {
            self.update(lease.message, |row| row.complete(outcome));
        }
    }

    fn replay(&mut self, selection: &Selection) -> u64 {
        let selected: Vec<i64> = (self.rows.iter())
            .filter(|(_, row)| !row.leased && row.matches(selection))
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in &selected {
            self.update(*sequence, |row| {
                row.entry.state = State::Pending;
                row.entry.due_at = None;
                row.entry.attempts = 0;
            });
        }
        to_u64(selected.len())
    }

    fn prune(&mut self, state: State, before: Timestamp) -> u64 {
        if state == State::Pending {
            return 0;
        }
        let stored = self.rows.len();
        self.rows
            .retain(|_, Row { entry, .. }| entry.state != state || entry.received_at >= before);
        self.keys
            .retain(|_, sequence| self.rows.contains_key(sequence));
        to_u64(stored - self.rows.len())
    }

    /// Changes a row and keeps `ready` and `waiting` consistent with it.
    fn update<T>(&mut self, sequence: i64, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        let row = self.rows.get_mut(&sequence)?;
        let endpoint = Arc::clone(&row.message.endpoint);
        let ready = self.ready.entry(endpoint).or_default();
        let expires_at = row.entry.expires_at;
        let key = (expires_at.is_none(), expires_at, sequence);
        ready.remove(&key);
        if let Some(due_at) = row.entry.due_at {
            self.waiting.remove(&(due_at, sequence));
        }
        let result = change(row);
        if let Some(due_at) = row.entry.due_at {
            self.waiting.insert((due_at, sequence));
        } else if row.entry.state == State::Pending {
            ready.insert(key);
        }
        Some(result)
    }
}

impl Row {
    fn new(sequence: i64, mut message: NewMessage) -> Self {
        message.received_at = from_millisecond(message.received_at.as_millisecond());
        let columns = SummaryColumns::parse(&message);
        let entry = Entry {
            sequence,
            endpoint: message.endpoint.to_string(),
            webhook_id: message.webhook_id.to_string(),
            event_type: columns.event_type,
            event_id: columns.event_id,
            resource_id: columns.resource_id,
            origin: message.origin,
            state: State::Pending,
            attempts: 0,
            received_at: message.received_at,
            expires_at: columns.expires_at,
            due_at: None,
            last_error: None,
            body_len: to_u64(message.body.len()),
        };
        Self {
            message,
            entry,
            leases: 0,
            leased: false,
        }
    }

    fn lease(&mut self, ends_at: Timestamp) -> LeasedMessage {
        self.entry.due_at = Some(from_millisecond(ceil_millisecond(ends_at)));
        self.entry.attempts += 1;
        self.leased = true;
        self.leases += 1;
        let lease = LeaseId {
            message: self.entry.sequence,
            number: self.leases,
        };
        LeasedMessage {
            lease,
            message: self.message.clone(),
            attempt: self.entry.attempts,
        }
    }

    fn complete(&mut self, outcome: Outcome) {
        let columns = outcome.into_columns();
        let entry = &mut self.entry;
        self.leased = false;
        entry.state = columns.state;
        entry.due_at = columns.due_at.map(from_millisecond);
        entry.attempts -= columns.uncounted_attempts;
        if columns.last_error.is_some() {
            entry.last_error = columns.last_error;
        }
    }

    fn matches(&self, selection: &Selection) -> bool {
        let entry = &self.entry;
        let event_type = &selection.event_type;
        is_none_or_equal(selection.webhook_id.as_ref(), &entry.webhook_id)
            && is_none_or_equal(selection.endpoint.as_ref(), &entry.endpoint)
            && (event_type.is_none() || *event_type == entry.event_type)
            && selection.state.is_none_or(|state| entry.state == state)
            && (selection.since).is_none_or(|since| entry.received_at >= since)
            && (selection.until).is_none_or(|until| entry.received_at < until)
    }
}

fn is_none_or_equal(wanted: Option<&String>, value: &String) -> bool {
    wanted.is_none_or(|wanted| wanted == value)
}
