//! A limited resource that sources share fairly.

use core::cmp::Reverse;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::Poll;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::source::Source;

/// How long a holder must have been idle before it makes room though it did nothing wrong.
const IDLE: Duration = Duration::from_secs(1);

/// Shares a number of units (connections, requests, bytes) among sources.
///
/// While there is room, everybody gets what they ask for. Once there is none, the source that holds
/// most makes room for one that holds less, and nobody for one that holds most itself. What a
/// [trusted](Standing::Trusted) source uses is never taken, and others always make room for it.
#[derive(Debug)]
pub(crate) struct FairPool {
    limit: usize,
    limit_per_source: usize,
    start: Instant,
    state: Mutex<State>,
}

/// How a source stands to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing is known of it.
    Unknown,
    /// It goes first.
    Trusted,
    /// It goes first, and stands for so many others that no limit holds for it alone.
    Proxy,
}

/// Units that a source holds, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    pool: Arc<FairPool>,
    source: Source,
    id: u64,
    holder: Arc<Holder>,
}

/// Why a source gets no more units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The source has as many as one source may have, or holds most of those that hold any.
    SourceLimit,
    /// Everything is in use by others who hold no more.
    Full,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// All sites.
    root: Group,
}

/// Counts the units that the sources of one group hold together.
#[derive(Debug, Default)]
struct Group {
    used: usize,
    /// The groups of the next level; none in a source.
    groups: HashMap<Source, (Self, Rank)>,
    /// The same, the one that holds most last; of equals, the one that grew longest ago.
    by_use: BTreeSet<Rank>,
    /// Of a source, by age.
    holders: BTreeMap<u64, (usize, Arc<Holder>)>,
}

type Rank = (usize, Reverse<u64>, Source);

#[derive(Debug)]
struct Holder {
    /// Milliseconds from the pool's start to when it became idle; `BUSY` while it is not.
    idle_since: AtomicU64,
    /// Whether the source is a trusted proxy: its units are its clients'.
    is_proxy: bool,
    evicted: AtomicBool,
    /// Wakes the holder's task.
    waker: AtomicWaker,
}

const BUSY: u64 = u64::MAX;

/// A request of a source for units.
#[derive(Clone, Copy)]
struct Request {
    source: Source,
    units: usize,
    goes_first: bool,
}

/// Decides which holders may lose their units.
struct Rules<'a> {
    standing: &'a dyn Fn(Source) -> Standing,
    only_idle: bool,
    /// Holders that have been idle since then may be taken.
    idle_before: u64,
}

impl FairPool {
    /// Creates a pool of `limit` units, of which one source may hold `limit_per_source`.
    pub(crate) fn new(limit: usize, limit_per_source: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            limit_per_source,
            start: Instant::now(),
            state: Mutex::default(),
        })
    }

    /// Takes units for a source, from others if need be.
    pub(crate) fn acquire(
        self: &Arc<Self>,
        source: Source,
        units: usize,
        standing: &dyn Fn(Source) -> Standing,
    ) -> Result<Permit, Refused> {
        let mut state = self.state();
        self.make_room(&mut state, source, units, standing)?;
        let id = state.next_id;
        state.next_id += 1;
        let holder = Arc::new(Holder {
            idle_since: AtomicU64::new(BUSY),
            is_proxy: standing(source) == Standing::Proxy,
            evicted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        state.root.add(source, 0, id, units, &holder);
        Ok(Permit {
            pool: Arc::clone(self),
            source,
            id,
            holder,
        })
    }

    /// Makes sure that so many more units are free, or may not be had.
    fn make_room(
        &self,
        state: &mut State,
        source: Source,
        units: usize,
        standing: &dyn Fn(Source) -> Standing,
    ) -> Result<(), Refused> {
        let request = Request {
            source,
            units,
            goes_first: standing(source) != Standing::Unknown,
        };
        if state.root.used_by(source).saturating_add(units) > self.limit_per_source
            && standing(source) != Standing::Proxy
        {
            return Err(Refused::SourceLimit);
        }
        while state.root.used.saturating_add(units) > self.limit {
            let rules = |only_idle| Rules {
                standing,
                only_idle,
                idle_before: self.time(Instant::now()).saturating_sub(millis(IDLE)),
            };
            let victim = state
                .root
                .victim(0, Some(request), &rules(false))
                .or_else(|| state.root.victim(0, Some(request), &rules(true)));
            let Some((victim, id)) = victim else {
                return Err(if state.root.holds_most(request) {
                    Refused::SourceLimit
                } else {
                    Refused::Full
                });
            };
            if let Some(holder) = state.root.remove(victim, 0, id) {
                holder.evicted.store(true, Ordering::Release);
                holder.waker.wake();
            }
        }
        Ok(())
    }

    /// Wakes the tasks of all holders.
    pub(crate) fn wake_all(&self) {
        self.state().root.wake_all();
    }

    /// Returns the milliseconds from the pool's start to this time.
    fn time(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.start))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in this file panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Resolves when another source took the units. They count no more from then on. One task may
    /// wait.
    pub(crate) async fn evicted(&self) {
        poll_fn(|cx| {
            self.holder.waker.register(cx.waker());
            if self.holder.evicted.load(Ordering::Acquire) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Records since when the units are only kept for what may come, as by a connection between two
    /// requests; `None` if they are in use.
    pub(crate) fn set_idle(&self, since: Option<Instant>) {
        let since = since.map_or(BUSY, |since| self.pool.time(since));
        self.holder.idle_since.store(since, Ordering::Relaxed);
    }

    /// Changes how many units are held.
    pub(crate) fn resize(
        &self,
        units: usize,
        standing: &dyn Fn(Source) -> Standing,
    ) -> Result<(), Refused> {
        let mut state = self.pool.state();
        let Some(held) = state.root.units(self.source, self.id) else {
            return Err(Refused::SourceLimit);
        };
        if let Some(more) = units.checked_sub(held) {
            self.pool
                .make_room(&mut state, self.source, more, standing)?;
        }
        state.root.remove(self.source, 0, self.id);
        state.root.add(self.source, 0, self.id, units, &self.holder);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.state().root.remove(self.source, 0, self.id);
    }
}

impl Group {
    fn add(&mut self, source: Source, level: usize, id: u64, units: usize, holder: &Arc<Holder>) {
        self.used += units;
        if level == Source::LEVELS {
            self.holders.insert(id, (units, Arc::clone(holder)));
            return;
        }
        let key = source.group(level);
        let (group, rank) = self
            .groups
            .entry(key)
            .or_insert_with(|| (Self::default(), (0, Reverse(0), key)));
        group.add(source, level + 1, id, units, holder);
        self.by_use.remove(rank);
        *rank = (group.used, Reverse(id), key);
        self.by_use.insert(*rank);
    }

    fn remove(&mut self, source: Source, level: usize, id: u64) -> Option<Arc<Holder>> {
        if level == Source::LEVELS {
            let (units, holder) = self.holders.remove(&id)?;
            self.used -= units;
            return Some(holder);
        }
        let key = source.group(level);
        let (group, rank) = self.groups.get_mut(&key)?;
        let before = group.used;
        let holder = group.remove(source, level + 1, id)?;
        self.used -= before - group.used;
        self.by_use.remove(rank);
        rank.0 = group.used;
        if group.groups.is_empty() && group.holders.is_empty() {
            self.groups.remove(&key);
        } else {
            self.by_use.insert(*rank);
        }
        Some(holder)
    }

    /// Finds who makes room for a request: the largest group that doesn't hold less than the
    /// requester's own would, and in it the same again.
    fn victim(
        &self,
        level: usize,
        request: Option<Request>,
        rules: &Rules<'_>,
    ) -> Option<(Source, u64)> {
        let own = request.map(|request| request.source.group(level));
        let own_use = request.map_or(0, |request| {
            let used = own.and_then(|own| self.groups.get(&own));
            used.map_or(0, |(group, _)| group.used) + request.units
        });
        for (used, _, key) in self.by_use.iter().rev() {
            let (group, _) = self.groups.get(key)?;
            let is_own = own == Some(*key);
            let favoured = request.is_none_or(|request| request.goes_first);
            if !is_own && !favoured && *used < own_use {
                return None;
            }
            let request = request.filter(|_| is_own);
            let found = if level + 1 < Source::LEVELS {
                group.victim(level + 1, request, rules)
            } else {
                group.holder(*key, is_own, rules).map(|id| (*key, id))
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Chooses one of a source's holders: the one that is idle longest, else the largest and newest.
    fn holder(&self, source: Source, is_own: bool, rules: &Rules<'_>) -> Option<u64> {
        let is_trusted = (rules.standing)(source) != Standing::Unknown;
        let holders = self.holders.iter().filter(|(_, (_, holder))| {
            let goes_first = is_trusted || holder.is_proxy;
            rules.only_idle || !goes_first
        });
        let idle = holders
            .clone()
            .map(|(id, (_, holder))| (holder.idle_since.load(Ordering::Relaxed), *id))
            .min()
            .filter(|(since, _)| *since <= rules.idle_before);
        match idle {
            Some((_, id)) => Some(id),
            // A source gains nothing by giving up one request for another of its own.
            None if is_own || rules.only_idle => None,
            None => {
                let newest = holders.max_by_key(|(id, (units, _))| (*units, **id));
                newest.map(|(id, _)| *id)
            }
        }
    }

    fn wake_all(&self) {
        for (_, holder) in self.holders.values() {
            holder.waker.wake();
        }
        for (group, _) in self.groups.values() {
            group.wake_all();
        }
    }

    /// Whether the requester's groups hold more than any other.
    fn holds_most(&self, request: Request) -> bool {
        let most = self.by_use.last();
        most.is_some_and(|(_, _, key)| *key == request.source.group(0))
    }

    fn used_by(&self, source: Source) -> usize {
        self.leaf(source, 0).map_or(0, |group| group.used)
    }

    fn units(&self, source: Source, id: u64) -> Option<usize> {
        let (units, _) = self.leaf(source, 0)?.holders.get(&id)?;
        Some(*units)
    }

    fn leaf(&self, source: Source, level: usize) -> Option<&Self> {
        if level == Source::LEVELS {
            return Some(self);
        }
        let (group, _) = self.groups.get(&source.group(level))?;
        group.leaf(source, level + 1)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(BUSY - 1)
}

#[cfg(test)]
mod tests;
