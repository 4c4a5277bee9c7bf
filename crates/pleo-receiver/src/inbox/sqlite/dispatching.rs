//! The statements of leases and their outcomes, inside a transaction.

use core::num::NonZeroU32;
use core::time::Duration;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use tokio::sync::watch;

use super::ended::{Ended, end_lease, log_unreadable, make_dead, record_attempt, reschedule};
use super::error::is_damage;
use super::held::{HeldLeases, Lease};
use super::queries;
use crate::inbox::attempt::AttemptResult;
use crate::inbox::clock::Clock;
use crate::inbox::lease::{
    Completed, LeaseId, LeaseRequest, Leased, LeasedMessage, Outcome, Version,
};
use crate::inbox::message::{State, StoredMessage, from_millisecond, truncate_error};
use crate::inbox::order::{Queue, Rank, Turns};

/// By how much the time of day may differ from the elapsed time before it counts as set.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// What the writer knows about the dispatch of messages, besides what is in the file.
#[derive(Debug)]
pub(super) struct DispatchState {
    clock: Arc<dyn Clock>,
    leases: HeldLeases,
    turns: Turns,
    /// Messages that cannot be read, and why, until they are set aside.
    unreadable: HashMap<i64, String>,
    /// Those of them that the current transaction has set aside.
    set_aside: Vec<i64>,
    /// Messages that can neither be read nor set aside.
    skipped: HashSet<i64>,
    /// Whether the current transaction met damage. SQLite may then refuse every further statement,
    /// also for messages that are intact.
    met_damage: bool,
    /// The time of day and the elapsed time at the last look at the clock, and at the last before
    /// this transaction.
    last_look: (Timestamp, Duration),
    committed_look: (Timestamp, Duration),
}

impl DispatchState {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let look = (clock.now(), clock.elapsed());
        Self {
            clock,
            leases: HeldLeases::default(),
            turns: Turns::default(),
            unreadable: HashMap::new(),
            set_aside: Vec::new(),
            skipped: HashSet::new(),
            met_damage: false,
            last_look: look,
            committed_look: look,
        }
    }

    /// Leases messages: all that are returned or, on an error, none.
    pub(super) fn lease(
        &mut self,
        connection: &Connection,
        request: &LeaseRequest,
        version: &watch::Sender<u64>,
    ) -> rusqlite::Result<Leased> {
        let (mark, look) = (self.leases.mark(), self.last_look);
        let leased = completely(connection, || self.lease_ready(connection, request));
        if leased.is_err() {
            self.leases.undo_to(mark);
            self.last_look = look;
        }
        let (messages, next_due_in) = leased?;
        if !messages.is_empty() {
            version.send_modify(|version| *version += 1);
        }
        let version = Version::new(*version.borrow());
        Ok(Leased::new(messages, next_due_in, version))
    }

    fn lease_ready(
        &mut self,
        connection: &Connection,
        request: &LeaseRequest,
    ) -> rusqlite::Result<(Vec<LeasedMessage>, Option<Duration>)> {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        self.set_aside(connection)?;
        for id in self.leases.ended(elapsed) {
            self.end_lost(connection, id, now)?;
        }
        self.look_at_clock(connection, now, elapsed)?;
        connection
            .prepare_cached(
                "UPDATE message INDEXED BY message_scheduled SET due_at = NULL, delay = NULL
                 WHERE state = 'pending' AND due_at IS NOT NULL AND due_at <= ?1",
            )?
            .execute([now.as_millisecond()])?;
        let max = request.total.saturating_sub(self.leases.len());
        let max = max.min(request.max);
        let queues = self.queues(connection, request, max, now)?;
        let mut messages = Vec::new();
        for rank in self.turns.take(queues, max) {
            let sequence = rank.sequence();
            let error = match queries::message(connection, sequence) {
                Err(error) => error,
                Ok(message) => match self.lease_one(connection, request, message, now, elapsed) {
                    Ok(leased) => {
                        messages.push(leased);
                        continue;
                    }
                    Err(error) if is_damage(&error) && !self.met_damage => error,
                    Err(error) => return Err(error),
                },
            };
            self.met_damage = true;
            let text = log_unreadable(sequence, &error);
            self.unreadable.insert(sequence, text);
            // An I/O error rolls back the transaction. Further statements would commit on their own.
            if connection.is_autocommit() {
                return Err(error);
            }
            self.set_aside(connection)?;
        }
        let next_due = connection
            .prepare_cached(
                "SELECT min(due_at) FROM message INDEXED BY message_scheduled
                 WHERE state = 'pending' AND due_at IS NOT NULL",
            )?
            .query_row([], |row| row.get::<_, Option<i64>>(0))?;
        let next_retry = next_due.map(|due_at| {
            let wait = due_at.saturating_sub(now.as_millisecond());
            Duration::from_millis(wait.try_into().unwrap_or_default())
        });
        let next_end = self.leases.next_end();
        let next_end = next_end.map(|ends| ends.saturating_sub(elapsed));
        let next_due_in = next_retry.into_iter().chain(next_end).min();
        Ok((messages, next_due_in))
    }

    /// Finds the ready messages of each endpoint that may be leased, in dispatch order. Reads no more
    /// messages of an endpoint than that, so that a backlog costs nothing.
    fn queues(
        &self,
        connection: &Connection,
        request: &LeaseRequest,
        max: usize,
        now: Timestamp,
    ) -> rusqlite::Result<Vec<Queue>> {
        let mut queues = Vec::new();
        if max == 0 {
            return Ok(queues);
        }
        let mut first_endpoint = connection.prepare_cached(
            "SELECT min(endpoint) FROM message INDEXED BY message_ready
             WHERE state = 'pending' AND due_at IS NULL AND leased = 0",
        )?;
        let mut next_endpoint = connection.prepare_cached(
            "SELECT min(endpoint) FROM message INDEXED BY message_ready
             WHERE state = 'pending' AND due_at IS NULL AND leased = 0 AND endpoint > ?1",
        )?;
        let mut is_paused = connection
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM paused WHERE endpoint = ?1)")?;
        let held = self.leases.by_endpoint();
        let mut endpoint: Option<String> = first_endpoint.query_row([], |row| row.get(0))?;
        while let Some(name) = endpoint {
            let free = request.per_endpoint;
            let free = free.saturating_sub(held.get(&*name).copied().unwrap_or(0));
            if free > 0 && !is_paused.query_row([&name], |row| row.get::<_, bool>(0))? {
                let queue = self.queue(connection, &name, free.min(max), now)?;
                queues.push((Arc::from(&*name), queue));
            }
            endpoint = next_endpoint.query_row([&name], |row| row.get(0))?;
        }
        Ok(queues)
    }

    /// Finds the first `limit` ready messages of an endpoint.
    fn queue(
        &self,
        connection: &Connection,
        endpoint: &str,
        limit: usize,
        now: Timestamp,
    ) -> rusqlite::Result<VecDeque<Rank>> {
        let mut live = connection.prepare_cached(
            "SELECT sequence, expires_at FROM message INDEXED BY message_ready
             WHERE state = 'pending' AND due_at IS NULL AND leased = 0 AND endpoint = ?1
               AND coalesce(expires_at, 9223372036854775807) > ?2
             ORDER BY coalesce(expires_at, 9223372036854775807), sequence LIMIT ?3",
        )?;
        let mut expired = connection.prepare_cached(
            "SELECT sequence, expires_at FROM message INDEXED BY message_ready
             WHERE state = 'pending' AND due_at IS NULL AND leased = 0 AND endpoint = ?1
               AND coalesce(expires_at, 9223372036854775807) <= ?2
             ORDER BY coalesce(expires_at, 9223372036854775807), sequence LIMIT ?3",
        )?;
        let mut queue = VecDeque::new();
        for statement in [&mut live, &mut expired] {
            let missing = (limit - queue.len()).saturating_add(self.skipped.len());
            let missing = i64::try_from(missing).unwrap_or(i64::MAX);
            let found = statement.query_map((endpoint, now.as_millisecond(), missing), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            for found in found {
                let (sequence, expires_at): (i64, Option<i64>) = found?;
                if queue.len() < limit && !self.skipped.contains(&sequence) {
                    let expires_at = expires_at.map(from_millisecond);
                    queue.push_back(Rank::new(expires_at, now, sequence));
                }
            }
        }
        Ok(queue)
    }

    fn lease_one(
        &mut self,
        connection: &Connection,
        request: &LeaseRequest,
        mut message: StoredMessage,
        now: Timestamp,
        elapsed: Duration,
    ) -> rusqlite::Result<LeasedMessage> {
        let entry = &mut message.entry;
        connection
            .prepare_cached(
                "UPDATE message SET leased = 1, attempts = attempts + 1, leased_at = ?2, worker = ?3
                 WHERE sequence = ?1",
            )?
            .execute((entry.sequence, now.as_millisecond(), &*request.worker))?;
        entry.leased = true;
        let attempt = NonZeroU32::MIN.saturating_add(entry.attempts);
        entry.attempts = attempt.get();
        let lease = self.leases.insert(Lease {
            sequence: entry.sequence,
            endpoint: Arc::clone(&entry.endpoint),
            attempt: attempt.get(),
            worker: Arc::clone(&request.worker),
            started_at: now,
            started: elapsed,
            ends: elapsed.saturating_add(request.ttl),
        });
        Ok(LeasedMessage::new(lease, attempt, message))
    }

    /// Makes messages that cannot be read dead, so that they do not block the others.
    ///
    /// After a damaged page was read, SQLite may refuse every further statement and the commit. The
    /// next transaction then sets the message aside before it reads anything. If that fails too, the
    /// message is skipped until the inbox is opened again.
    fn set_aside(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (sequence, error) in self.unreadable.clone() {
            let is_new = self.skipped.insert(sequence);
            let updated = make_dead(connection, sequence, &error);
            if updated.is_err() && !is_new {
                self.unreadable.remove(&sequence);
            }
            updated?;
            self.skipped.remove(&sequence);
            self.set_aside.push(sequence);
        }
        Ok(())
    }

    /// Notes that a statement of the current transaction met damage.
    pub(super) const fn set_met_damage(&mut self) {
        self.met_damage = true;
    }

    /// Keeps the changes of a transaction that was committed.
    pub(super) fn committed(&mut self) {
        self.met_damage = false;
        self.leases.keep();
        self.committed_look = self.last_look;
        for sequence in self.set_aside.drain(..) {
            self.unreadable.remove(&sequence);
        }
    }

    /// Undoes the changes of a transaction that was rolled back.
    pub(super) fn rolled_back(&mut self) {
        self.met_damage = false;
        self.leases.undo_to(0);
        self.set_aside.clear();
        self.last_look = self.committed_look;
    }

    pub(super) fn renew(&mut self, mut leases: Vec<LeaseId>, ttl: Duration) -> Vec<LeaseId> {
        let ends = self.clock.elapsed().saturating_add(ttl);
        leases.retain(|id| !self.leases.renew(*id, ends));
        leases
    }

    pub(super) fn complete(
        &mut self,
        connection: &Connection,
        id: LeaseId,
        outcome: Outcome,
    ) -> rusqlite::Result<Completed> {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        self.look_at_clock(connection, now, elapsed)?;
        let Some(lease) = self.leases.get(id) else {
            return Ok(Completed::Lost);
        };
        let (state, result, delay, error) = match outcome {
            Outcome::Done => (State::Done, AttemptResult::Done, None, None),
            Outcome::Retry { after, error } => {
                let error = Some(truncate_error(error));
                let delay = Some(after).filter(|after| !after.is_zero());
                (State::Pending, AttemptResult::Retry, delay, error)
            }
            Outcome::Dead { error } => {
                let error = Some(truncate_error(error));
                (State::Dead, AttemptResult::Dead, None, error)
            }
            Outcome::Release => (State::Pending, AttemptResult::Released, None, None),
        };
        let duration = elapsed.saturating_sub(lease.started);
        let ended = Ended {
            state,
            delay,
            uncounted: u32::from(result == AttemptResult::Released),
            now,
        };
        let ended = completely(connection, || {
            end_lease(connection, lease, &ended)?;
            record_attempt(connection, lease, Some(duration), result, error.as_deref())
        });
        if let Err(error) = ended {
            self.give_up(connection, id, error)?;
            return Ok(Completed::Lost);
        }
        self.leases.remove(id);
        Ok(Completed::Recorded)
    }

    /// Ends a lease that was not renewed.
    fn end_lost(
        &mut self,
        connection: &Connection,
        id: LeaseId,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let Some(lease) = self.leases.get(id) else {
            return Ok(());
        };
        let duration = Some(lease.ends.saturating_sub(lease.started));
        let ended = completely(connection, || {
            end_lease(connection, lease, &Ended::lost(lease, now))?;
            record_attempt(connection, lease, duration, AttemptResult::Lost, None)
        });
        match ended {
            Ok(()) => self.leases.remove(id),
            Err(error) => self.give_up(connection, id, error)?,
        }
        Ok(())
    }

    /// Drops the lease of a message that cannot be changed, so that it blocks no other. The next
    /// [`lease`](Self::lease) sets the message aside.
    ///
    /// # Errors
    /// The error, if it is not that of a damaged message, or if it rolled back the transaction.
    fn give_up(
        &mut self,
        connection: &Connection,
        id: LeaseId,
        error: rusqlite::Error,
    ) -> rusqlite::Result<()> {
        if is_damage(&error)
            && !core::mem::replace(&mut self.met_damage, true)
            && let Some(lease) = self.leases.drop(id)
        {
            let text = log_unreadable(lease.sequence, &error);
            self.unreadable.insert(lease.sequence, text);
            if !connection.is_autocommit() {
                return Ok(());
            }
        }
        Err(error)
    }

    /// If the time of day was set back since the last look, brings messages that were scheduled
    /// before nearer by the same time.
    fn look_at_clock(
        &mut self,
        connection: &Connection,
        now: Timestamp,
        elapsed: Duration,
    ) -> rusqlite::Result<()> {
        let (then, then_elapsed) = self.last_look;
        let passed = SignedDuration::try_from(elapsed.saturating_sub(then_elapsed));
        let set_back = passed.unwrap_or_default() - now.duration_since(then);
        if set_back >= CLOCK_TOLERANCE {
            reschedule(connection, now, set_back)?;
        }
        self.last_look = (now, elapsed);
        Ok(())
    }
}

/// Executes statements: all or, on an error, none. If they cannot be undone, rolls back the
/// transaction.
fn completely<T>(
    connection: &Connection,
    statements: impl FnOnce() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let execute = |sql| connection.prepare_cached(sql)?.execute([]);
    execute("SAVEPOINT statements")?;
    let result = statements();
    if result.is_err() && !connection.is_autocommit() {
        let undone = execute("ROLLBACK TO statements");
        if undone.and_then(|_| execute("RELEASE statements")).is_err() {
            connection.execute_batch("ROLLBACK")?;
        }
        return result;
    }
    let result = result?;
    execute("RELEASE statements")?;
    Ok(result)
}
