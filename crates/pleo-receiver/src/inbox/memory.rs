//! The inbox in memory.

use core::num::NonZeroU32;
use core::pin::Pin;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::attempt::{Attempt, AttemptResult, MAX_ATTEMPTS_KEPT};
use super::clock::{Clock, SystemClock};
use super::contract::{Inbox, InboxFuture};
use super::error::InboxErrorKind;
use super::lease::{Completed, LeaseId, LeaseRequest, Leased, LeasedMessage, Outcome, Version};
use super::lost::delay_after_loss;
use super::message::{
    Appended, Entry, Key, NewMessage, Origin, State, StoredMessage, ceil_millisecond,
    from_millisecond, to_u64, truncate_error,
};
use super::order::{Rank, Turns};
use super::query::{EndpointStats, Page, Query, Selection};

/// An inbox in memory, for tests. All messages are lost when the process ends, although the sender
/// was answered 204.
///
/// Done and dead messages stay until they are pruned. There is no limit on memory.
#[derive(Debug)]
pub struct MemoryInbox {
    store: Mutex<Store>,
    clock: Arc<dyn Clock>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Store {
    /// Messages by sequence.
    rows: BTreeMap<i64, Row>,
    keys: HashMap<Key, i64>,
    paused: BTreeSet<Arc<str>>,
    turns: Turns,
    last_sequence: i64,
    last_lease: u128,
    closed: bool,
}

#[derive(Debug)]
struct Row {
    message: StoredMessage,
    /// When the message is ready, as time of [`Clock::elapsed`].
    due: Duration,
    lease: Option<Lease>,
}

#[derive(Debug)]
struct Lease {
    id: LeaseId,
    attempt: NonZeroU32,
    worker: Arc<str>,
    started_at: Timestamp,
    started: Duration,
    ends: Duration,
}

impl Default for MemoryInbox {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryInbox {
    /// Creates an empty inbox.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::default()))
    }

    /// Creates an empty inbox with another clock, for tests.
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self {
            store: Mutex::default(),
            clock,
            version: watch::Sender::new(0),
        }
    }

    fn with_store<'a, T: Send + 'a>(
        &'a self,
        operation: impl FnOnce(&mut Store, &dyn Clock) -> T + Send + 'a,
    ) -> InboxFuture<'a, T> {
        Box::pin(async move {
            let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
            if store.closed {
                return Err(InboxErrorKind::Closed.into());
            }
            Ok(operation(&mut store, &*self.clock))
        })
    }

    /// Runs an operation and changes the version.
    fn change<'a, T: Send + 'a>(
        &'a self,
        operation: impl FnOnce(&mut Store, &dyn Clock) -> T + Send + 'a,
    ) -> InboxFuture<'a, T> {
        self.with_store(|store, clock| {
            let result = operation(store, clock);
            self.version.send_modify(|version| *version += 1);
            result
        })
    }
}

impl Inbox for MemoryInbox {
    fn append(&self, message: NewMessage) -> InboxFuture<'_, Appended> {
        self.change(|store, clock| store.append(message, clock))
    }

    fn lease(&self, request: LeaseRequest) -> InboxFuture<'_, Leased> {
        self.with_store(move |store, clock| {
            store.end_leases(clock);
            let messages = store.lease(&request, clock);
            if !messages.is_empty() {
                self.version.send_modify(|version| *version += 1);
            }
            let next_due_in = store.next_due_in(clock.elapsed());
            Leased::new(messages, next_due_in, Version::new(*self.version.borrow()))
        })
    }

    fn renew(&self, leases: Vec<LeaseId>, ttl: Duration) -> InboxFuture<'_, Vec<LeaseId>> {
        self.with_store(move |store, clock| {
            let mut lost = leases;
            lost.retain(
                |id| match store.leased(*id).and_then(|row| row.lease.as_mut()) {
                    Some(lease) => {
                        lease.ends = clock.elapsed().saturating_add(ttl);
                        false
                    }
                    None => true,
                },
            );
            lost
        })
    }

    fn complete(&self, lease: LeaseId, outcome: Outcome) -> InboxFuture<'_, Completed> {
        self.change(move |store, clock| store.complete(lease, outcome, clock))
    }

    fn changed(&self, seen: Version) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut version = self.version.subscribe();
        Box::pin(async move {
            // The sender lives as long as the inbox.
            let _ = version
                .wait_for(|version| Version::new(*version) != seen)
                .await;
        })
    }

    fn list(&self, query: Query) -> InboxFuture<'_, Page> {
        self.with_store(move |store, _| {
            let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
            let after = query.after.map(|cursor| cursor.sequence());
            let entries = store.rows.values().map(|row| &row.message.entry);
            let entries = entries.filter(|entry| query.selection.matches(entry));
            let mut entries: Vec<Entry> = if query.newest_first {
                let entries = entries.rev();
                let entries = entries.filter(|entry| after.is_none_or(|at| entry.sequence < at));
                entries.take(limit.saturating_add(1)).cloned().collect()
            } else {
                let entries = entries.filter(|entry| after.is_none_or(|at| entry.sequence > at));
                entries.take(limit.saturating_add(1)).cloned().collect()
            };
            let has_more = entries.len() > limit;
            entries.truncate(limit);
            let next = entries.last().filter(|_| has_more).map(Entry::cursor);
            Page::new(entries, next)
        })
    }

    fn get(&self, key: Key) -> InboxFuture<'_, Option<StoredMessage>> {
        self.with_store(move |store, _| {
            let row = store.keys.get(&key).and_then(|key| store.rows.get(key));
            row.map(|row| row.message.clone())
        })
    }

    fn replay(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.change(move |store, clock| {
            let rows = store.select(&selection, |row| row.lease.is_none());
            let replayed = rows.map(|row| {
                row.message.entry.state = State::Pending;
                row.message.entry.attempts = 0;
                row.schedule(Duration::ZERO, clock);
            });
            to_u64(replayed.count())
        })
    }

    fn prune(&self, selection: Selection) -> InboxFuture<'_, u64> {
        self.with_store(move |store, _| {
            let rows = store.select(&selection, |row| row.message.entry.state != State::Pending);
            let keys: Vec<Key> = rows.map(|row| row.message.entry.key()).collect();
            for key in &keys {
                if let Some(sequence) = store.keys.remove(key) {
                    store.rows.remove(&sequence);
                }
            }
            to_u64(keys.len())
        })
    }

    fn set_paused(&self, endpoint: Arc<str>, paused: bool) -> InboxFuture<'_, ()> {
        self.change(move |store, _| {
            if paused {
                store.paused.insert(endpoint);
            } else {
                store.paused.remove(&endpoint);
            }
        })
    }

    fn stats(&self) -> InboxFuture<'_, Vec<EndpointStats>> {
        self.with_store(|store, clock| store.stats(clock))
    }

    fn check(&self) -> InboxFuture<'_, ()> {
        self.with_store(|_, _| ())
    }

    fn close(&self) -> InboxFuture<'_, ()> {
        self.change(|store, _| store.closed = true)
    }
}

impl Store {
    fn append(&mut self, message: NewMessage, clock: &dyn Clock) -> Appended {
        let stored = self.keys.get(&message.key());
        if let Some(stored) = stored.and_then(|sequence| self.rows.get(sequence)) {
            return if stored.message.body == message.body {
                Appended::Duplicate
            } else {
                Appended::Conflict
            };
        }
        self.last_sequence += 1;
        let entry = Entry::new(self.last_sequence, clock.now(), &message);
        self.keys.insert(message.key(), self.last_sequence);
        let row = Row {
            message: StoredMessage::new(entry, message.headers, message.body),
            due: clock.elapsed(),
            lease: None,
        };
        self.rows.insert(self.last_sequence, row);
        Appended::Stored
    }

    fn lease(&mut self, request: &LeaseRequest, clock: &dyn Clock) -> Vec<LeasedMessage> {
        let (now, elapsed) = (clock.now(), clock.elapsed());
        let mut free: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        let mut queues: BTreeMap<Arc<str>, Vec<Rank>> = BTreeMap::new();
        for (sequence, row) in &self.rows {
            let entry = &row.message.entry;
            let free = free.entry(&entry.endpoint).or_insert(request.per_endpoint);
            if row.lease.is_some() {
                *free = free.saturating_sub(1);
            } else if entry.state == State::Pending
                && row.due <= elapsed
                && !self.paused.contains(&entry.endpoint)
            {
                let rank = Rank::new(entry.expires_at, now, *sequence);
                let queue = queues.entry(Arc::clone(&entry.endpoint)).or_default();
                queue.push(rank);
            }
        }
        let queues = queues.into_iter().map(|(endpoint, mut queue)| {
            queue.sort_unstable();
            queue.truncate(free.get(&endpoint).copied().unwrap_or_default());
            (endpoint, queue.into())
        });
        let leases = self.rows.values().filter(|row| row.lease.is_some()).count();
        let max = request.total.saturating_sub(leases).min(request.max);
        let taken = self.turns.take(queues.collect(), max);
        let leased = taken.into_iter().filter_map(|rank| {
            let row = self.rows.get_mut(&rank.sequence())?;
            let message = &mut row.message;
            message.entry.attempts += 1;
            message.entry.leased = true;
            message.entry.due_at = None;
            let attempt = NonZeroU32::new(message.entry.attempts)?;
            self.last_lease += 1;
            let id = LeaseId::new(self.last_lease);
            row.lease = Some(Lease {
                id,
                attempt,
                worker: Arc::clone(&request.worker),
                started_at: now,
                started: elapsed,
                ends: elapsed.saturating_add(request.ttl),
            });
            let (entry, headers) = (message.entry.clone(), message.headers.clone());
            let message = StoredMessage::new(entry, headers, message.body.clone());
            Some(LeasedMessage::new(id, attempt, message))
        });
        leased.collect()
    }

    /// Ends the leases that were not renewed.
    fn end_leases(&mut self, clock: &dyn Clock) {
        for row in self.rows.values_mut() {
            let ends = row.lease.as_ref().map(|lease| lease.ends);
            if let Some(ends) = ends.filter(|ends| *ends <= clock.elapsed()) {
                row.schedule(delay_after_loss(row.message.entry.attempts), clock);
                row.end_lease(AttemptResult::Lost, None, ends);
            }
        }
    }

    fn next_due_in(&self, elapsed: Duration) -> Option<Duration> {
        let due = self.rows.values().filter_map(|row| match &row.lease {
            Some(lease) => Some(lease.ends),
            None if row.message.entry.state == State::Pending && row.due > elapsed => Some(row.due),
            None => None,
        });
        due.min().map(|due| due.saturating_sub(elapsed))
    }

    fn leased(&mut self, id: LeaseId) -> Option<&mut Row> {
        let has_lease = |row: &Row| row.lease.as_ref().is_some_and(|lease| lease.id == id);
        self.rows.values_mut().find(|row| has_lease(row))
    }

    fn complete(&mut self, id: LeaseId, outcome: Outcome, clock: &dyn Clock) -> Completed {
        let Some(row) = self.leased(id) else {
            return Completed::Lost;
        };
        let (state, result, error) = match outcome {
            Outcome::Done => (State::Done, AttemptResult::Done, None),
            Outcome::Retry { after, error } => {
                row.schedule(after, clock);
                (State::Pending, AttemptResult::Retry, Some(error))
            }
            Outcome::Dead { error } => (State::Dead, AttemptResult::Dead, Some(error)),
            Outcome::Release => (State::Pending, AttemptResult::Released, None),
        };
        row.message.entry.state = state;
        row.end_lease(result, error.map(truncate_error), clock.elapsed());
        Completed::Recorded
    }

    /// Returns the selected rows that also satisfy `condition`, in the order of arrival.
    fn select<'a>(
        &'a mut self,
        selection: &'a Selection,
        condition: impl Fn(&Row) -> bool + 'a,
    ) -> impl Iterator<Item = &'a mut Row> {
        let limit = usize::try_from(selection.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let rows = self.rows.values_mut();
        rows.filter(move |row| selection.matches(&row.message.entry) && condition(row))
            .take(limit)
    }

    fn stats(&self, clock: &dyn Clock) -> Vec<EndpointStats> {
        let (now, elapsed) = (clock.now(), clock.elapsed());
        let mut endpoints: BTreeMap<Arc<str>, EndpointStats> = BTreeMap::new();
        for row in self.rows.values() {
            let entry = &row.message.entry;
            let stats = endpoints
                .entry(Arc::clone(&entry.endpoint))
                .or_insert_with(|| EndpointStats::new(Arc::clone(&entry.endpoint)));
            let count = match entry.state {
                State::Done => &mut stats.done,
                State::Dead => &mut stats.dead,
                State::Pending if row.lease.is_some() => &mut stats.leased,
                State::Pending if row.due > elapsed => &mut stats.scheduled,
                State::Pending => &mut stats.ready,
            };
            *count += 1;
            if entry.origin == Origin::Webhook {
                stats.delivered_at = Some(entry.received_at);
            }
            if entry.state == State::Pending {
                // The age is negative if the clock was set back.
                let age = now.duration_since(entry.received_at).try_into();
                let age = Some(age.unwrap_or_default());
                stats.oldest_pending = stats.oldest_pending.or(age);
                match entry.expires_at {
                    Some(at) if at <= now => stats.expired += 1,
                    at => stats.nearest_expiry = stats.nearest_expiry.into_iter().chain(at).min(),
                }
            }
        }
        for endpoint in &self.paused {
            let stats = endpoints
                .entry(Arc::clone(endpoint))
                .or_insert_with(|| EndpointStats::new(Arc::clone(endpoint)));
            stats.paused = true;
        }
        endpoints.into_values().collect()
    }
}

impl Row {
    /// Makes the message ready after this delay.
    fn schedule(&mut self, delay: Duration, clock: &dyn Clock) {
        self.due = clock.elapsed().saturating_add(delay);
        let due_at = clock.now().saturating_add(delay).unwrap_or(Timestamp::MAX);
        self.message.entry.due_at =
            (!delay.is_zero()).then(|| from_millisecond(ceil_millisecond(due_at)));
    }

    /// Ends the lease and records its attempt.
    fn end_lease(&mut self, result: AttemptResult, error: Option<String>, ended: Duration) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        let StoredMessage {
            entry, attempts, ..
        } = &mut self.message;
        entry.leased = false;
        if error.is_some() {
            entry.last_error.clone_from(&error);
        }
        attempts.push(Attempt::new(
            lease.attempt,
            lease.worker,
            lease.started_at,
            Some(ended.saturating_sub(lease.started)),
            result,
            error,
        ));
        attempts.drain(..attempts.len().saturating_sub(MAX_ATTEMPTS_KEPT));
        if result == AttemptResult::Released {
            entry.attempts -= 1;
        }
    }
}
