//! Tests of the fair pool, without sockets.

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
    let more = |text, standing: Standing| pool.acquire(source(text), 1, &|_| standing).map(drop);
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
        permit.set_idle(Some(Instant::now()));
    }
    let acquire = |text| pool.acquire(source(text), 1, &only_a);
    // Not idle for a second yet.
    assert_eq!(acquire(B).unwrap_err(), Refused::Full);
    tokio::time::advance(Duration::from_millis(400)).await;
    let b = acquire(B).unwrap();
    assert_eq!(evicted(&held), [1]);
    held[2].set_idle(None);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(acquire(B).unwrap_err(), Refused::Full);
    b.set_idle(Some(Instant::now()));
    tokio::time::advance(Duration::from_secs(2)).await;
    let _again = acquire(B).unwrap();
    assert!(is_evicted(&b));
}

#[tokio::test]
async fn tells_a_holder_that_it_was_evicted() {
    let pool = FairPool::new(1, 10);
    let first = pool.acquire(source(A), 1, &nobody).unwrap();
    let second = pool.acquire(source(B), 1, &nobody).unwrap();
    let told = tokio::time::timeout(Duration::from_secs(10), first.evicted());
    told.await.expect("the holder is told");
    drop(first);
    assert!(!is_evicted(&second));
    assert_eq!(pool.state().root.used, 1);
}

#[test]
fn makes_room_for_a_body_that_grows() {
    let pool = FairPool::new(100, 1000);
    let a = pool.acquire(source(A), 90, &nobody).unwrap();
    let b = pool.acquire(source(B), 5, &nobody).unwrap();
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
