//! A limited resource that sources share fairly.

use core::cmp::Reverse;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
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

/// What the sources of one group hold together.
#[derive(Debug, Default)]
struct Group {
    used: usize,
    /// The groups of the next level; none in a source.
    groups: HashMap<Source, (Group, Rank)>,
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
    evicted: Notify,
}

const BUSY: u64 = u64::MAX;

/// Who asks for units.
#[derive(Clone, Copy)]
struct Request {
    source: Source,
    units: usize,
    goes_first: bool,
}

/// What may be taken from whom.
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
            evicted: Notify::new(),
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
                idle_before: self.now().saturating_sub(millis(IDLE)),
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
                holder.evicted.notify_one();
            }
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        millis(self.start.elapsed())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in this file panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Resolves when another source took the units. They count no more from then on.
    pub(crate) async fn evicted(&self) {
        self.holder.evicted.notified().await;
    }

    /// Says whether the units are only kept for what may come, such as by a connection between two
    /// requests.
    pub(crate) fn set_idle(&self, is_idle: bool) {
        let since = if is_idle { self.pool.now() } else { BUSY };
        self.holder.idle_since.store(since, Ordering::Relaxed);
    }

    /// Changes how many units are held.
    pub(crate) fn resize(
        &mut self,
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
        if state.root.remove(self.source, 0, self.id).is_none() {
            // It made room for itself.
            return Err(Refused::SourceLimit);
        }
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
mod tests {
    use core::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "192.0.2.1";
    const B: &str = "192.0.2.2";
    const C: &str = "192.0.2.3";

    fn source(text: &str) -> Source {
        Source::from(text.parse::<IpAddr>().unwrap())
    }

    fn nobody(_: Source) -> Standing {
        Standing::Unknown
    }

    fn only_a(other: Source) -> Standing {
        if other == source(A) {
            Standing::Trusted
        } else {
            Standing::Unknown
        }
    }

    fn is_evicted(permit: &Permit) -> bool {
        let state = permit.pool.state();
        state.root.units(permit.source, permit.id).is_none()
    }

    /// Which of the permits are evicted, in their order.
    fn evicted(permits: &[Permit]) -> Vec<usize> {
        let evicted = permits
            .iter()
            .enumerate()
            .filter(|(_, one)| is_evicted(one));
        evicted.map(|(number, _)| number).collect()
    }

    fn hold(pool: &Arc<FairPool>, sources: &[&str]) -> Vec<Permit> {
        let acquire = |one: &&str| pool.acquire(source(one), 1, &nobody).unwrap();
        sources.iter().map(acquire).collect()
    }

    #[test]
    fn takes_the_newest_of_the_source_that_holds_most() {
        let pool = FairPool::new(4, 10);
        let held = hold(&pool, &[A, B, A, A]);
        let new = pool.acquire(source(C), 1, &nobody).unwrap();
        assert_eq!(evicted(&held), [3]);
        assert!(!is_evicted(&new));
    }

    #[test]
    fn refuses_the_source_that_holds_most() {
        let pool = FairPool::new(3, 10);
        let held = hold(&pool, &[A, A, B]);
        let more = pool.acquire(source(A), 1, &nobody);
        assert_eq!(more.unwrap_err(), Refused::SourceLimit);
        assert!(evicted(&held).is_empty());
        drop(held);
        assert!(pool.acquire(source(A), 3, &nobody).is_ok());
    }

    #[test]
    fn refuses_more_than_one_source_may_have() {
        let pool = FairPool::new(10, 2);
        let _held = hold(&pool, &[A, A, B]);
        let more =
            |text, standing: Standing| pool.acquire(source(text), 1, &|_| standing).map(drop);
        assert_eq!(more(A, Standing::Unknown), Err(Refused::SourceLimit));
        assert_eq!(more(A, Standing::Trusted), Err(Refused::SourceLimit));
        assert_eq!(more(A, Standing::Proxy), Ok(()));
        assert_eq!(more(B, Standing::Unknown), Ok(()));
    }

    #[test]
    fn takes_nothing_from_a_trusted_source_that_is_busy() {
        let pool = FairPool::new(4, 10);
        let held = hold(&pool, &[A, A, A, B]);
        // Those of C weigh as much as that of B, which came earlier.
        let c = pool.acquire(source(C), 1, &only_a).unwrap();
        assert_eq!(evicted(&held), [3]);
        let more = pool.acquire(source(C), 1, &only_a);
        assert_eq!(more.unwrap_err(), Refused::Full);
        let _a = pool.acquire(source(A), 1, &only_a).unwrap();
        assert!(is_evicted(&c));
        let full = pool.acquire(source(B), 1, &only_a);
        assert_eq!(full.unwrap_err(), Refused::Full);
    }

    #[test]
    fn takes_nothing_from_a_proxy_for_a_client_of_none() {
        let pool = FairPool::new(3, 10);
        let proxy = |_| Standing::Proxy;
        let held = [A, A, B].map(|text| {
            let standing: &dyn Fn(Source) -> Standing = if text == A { &proxy } else { &nobody };
            pool.acquire(source(text), 1, standing).unwrap()
        });
        let _new = pool.acquire(source(C), 1, &nobody).unwrap();
        assert_eq!(evicted(&held), [2]);
    }

    #[test]
    fn weighs_ipv6_by_site_then_by_subnet_then_by_network() {
        let pool = FairPool::new(6, 10);
        let held = hold(
            &pool,
            &[
                "2001:db8:1:0::1",
                "2001:db8:1:1::1",
                "2001:db8:1:100::1",
                "2001:db8:1:2::1",
                A,
                "2001:db8:2::1",
            ],
        );
        // Of the site that holds most, the subnet that holds most, and there the oldest of equals.
        let first = pool.acquire(source(B), 1, &nobody).unwrap();
        assert_eq!(evicted(&held), [0]);
        let _second = pool
            .acquire(source("2001:db8:1:300::1"), 1, &nobody)
            .unwrap();
        assert_eq!(evicted(&held), [0, 1]);
        assert!(!is_evicted(&first));
    }

    #[test]
    fn evicts_the_quietest_of_sources_that_hold_one_each() {
        let pool = FairPool::new(3, 10);
        let held = hold(&pool, &[A, B, C]);
        let _new = pool.acquire(source("192.0.2.9"), 1, &nobody).unwrap();
        assert_eq!(evicted(&held), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn takes_the_longest_idle_even_from_a_trusted_or_the_same_source() {
        let pool = FairPool::new(3, 10);
        let held = hold(&pool, &[A, A, A]);
        for permit in [&held[1], &held[2]] {
            tokio::time::advance(Duration::from_millis(700)).await;
            permit.set_idle(true);
        }
        let acquire = |text| pool.acquire(source(text), 1, &only_a);
        // Not idle for a second yet.
        assert_eq!(acquire(B).unwrap_err(), Refused::Full);
        tokio::time::advance(Duration::from_millis(400)).await;
        let b = acquire(B).unwrap();
        assert_eq!(evicted(&held), [1]);
        held[2].set_idle(false);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(acquire(B).unwrap_err(), Refused::Full);
        b.set_idle(true);
        tokio::time::advance(Duration::from_secs(2)).await;
        let _again = acquire(B).unwrap();
        assert!(is_evicted(&b));
    }

    #[tokio::test]
    async fn tells_a_holder_that_it_was_evicted() {
        let pool = FairPool::new(1, 10);
        let first = pool.acquire(source(A), 1, &nobody).unwrap();
        let second = pool.acquire(source(B), 1, &nobody).unwrap();
        first.evicted().await;
        drop(first);
        assert!(!is_evicted(&second));
        assert_eq!(pool.state().root.used, 1);
    }

    #[test]
    fn makes_room_for_a_body_that_grows() {
        let pool = FairPool::new(100, 1000);
        let mut a = pool.acquire(source(A), 90, &nobody).unwrap();
        let mut b = pool.acquire(source(B), 5, &nobody).unwrap();
        assert_eq!(b.resize(10, &nobody), Ok(()));
        assert_eq!(a.resize(91, &nobody), Err(Refused::SourceLimit));
        assert_eq!(b.resize(11, &nobody), Ok(()));
        assert!(is_evicted(&a));
        assert_eq!(a.resize(1, &nobody), Err(Refused::SourceLimit));
        assert_eq!(b.resize(3, &nobody), Ok(()));
        assert_eq!(pool.state().root.used, 3);
    }

    proptest! {
        #[test]
        fn never_gives_more_than_there_is_and_takes_all_back(
            steps in prop::collection::vec((0u16..40, 1usize..9, any::<bool>()), 1..200)
        ) {
            let pool = FairPool::new(20, 12);
            let standing = |source| match source {
                Source::V4(ip) if ip.octets()[3] % 4 == 0 => Standing::Trusted,
                _ => Standing::Unknown,
            };
            let mut held = Vec::new();
            for (number, units, gives_back) in steps {
                let source = if number % 2 == 0 {
                    Source::from(IpAddr::from([192, 0, 2, u8::try_from(number).unwrap()]))
                } else {
                    Source::V6(u64::from(number) << 6)
                };
                let result = pool.acquire(source, units, &standing);
                if let Ok(permit) = result {
                    held.push(permit);
                }
                if gives_back && !held.is_empty() {
                    held.swap_remove(usize::from(number) % held.len());
                }
                let live = held.iter().filter_map(|permit: &Permit| {
                    pool.state().root.units(permit.source, permit.id)
                });
                let used: usize = live.sum();
                prop_assert_eq!(used, pool.state().root.used);
                prop_assert!(used <= 20);
            }
            drop(held);
            let state = pool.state();
            prop_assert_eq!(state.root.used, 0);
            prop_assert!(state.root.groups.is_empty() && state.root.by_use.is_empty());
        }
    }
}
