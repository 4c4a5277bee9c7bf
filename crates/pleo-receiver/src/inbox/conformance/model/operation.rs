//! Random operations.

use jiff::SignedDuration;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::inbox::State;

/// Few endpoints and ids, so that operations often meet the same message.
pub(super) const ENDPOINTS: [&str; 3] = ["a", "b", "c"];
const IDS: u8 = 8;

/// An operation. Times are in seconds.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Append {
        endpoint: &'static str,
        id: u8,
        body: Body,
    },
    Lease {
        max: usize,
        total: usize,
        per_endpoint: usize,
        ttl: u64,
    },
    /// Renews any earlier leases, also lost ones.
    Renew {
        leases: Vec<Index>,
        ttl: u64,
    },
    /// Completes any earlier lease, also a lost one.
    Complete {
        lease: Index,
        end: End,
    },
    Replay(Selected),
    Prune(Selected),
    List {
        selected: Selected,
        limit: u32,
        after: Option<Index>,
        newest_first: bool,
    },
    Pause {
        endpoint: &'static str,
        paused: bool,
    },
    Advance(u64),
    StepClock(SignedDuration),
    Reopen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Plain(u8),
    /// An export job that expires in this time.
    Job(i64),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Done,
    Retry(u64),
    Dead,
    Release,
}

/// A selection. Times are before now.
#[derive(Clone, Debug)]
pub(super) struct Selected {
    pub(super) id: Option<u8>,
    pub(super) endpoint: Option<&'static str>,
    pub(super) event_type: Option<&'static str>,
    pub(super) state: Option<State>,
    pub(super) since: Option<u64>,
    pub(super) until: Option<u64>,
    pub(super) limit: Option<u64>,
}

pub(super) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    vec(operation(), 1..100)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (endpoint(), 0..IDS, body())
            .prop_map(|(endpoint, id, body)| Operation::Append { endpoint, id, body }),
        6 => (0_usize..5, limit(6), limit(3), 1_u64..60).prop_map(
            |(max, total, per_endpoint, ttl)| Operation::Lease { max, total, per_endpoint, ttl }
        ),
        2 => (vec(any::<Index>(), 0..4), 1_u64..60)
            .prop_map(|(leases, ttl)| Operation::Renew { leases, ttl }),
        7 => (any::<Index>(), end()).prop_map(|(lease, end)| Operation::Complete { lease, end }),
        1 => selected().prop_map(Operation::Replay),
        1 => selected().prop_map(Operation::Prune),
        1 => (selected(), 0_u32..6, option::of(any::<Index>()), any::<bool>()).prop_map(
            |(selected, limit, after, newest_first)| Operation::List {
                selected, limit, after, newest_first
            }
        ),
        1 => (endpoint(), any::<bool>())
            .prop_map(|(endpoint, paused)| Operation::Pause { endpoint, paused }),
        4 => (0_u64..50).prop_map(Operation::Advance),
        1 => (-10_000_i64..10_000)
            .prop_map(|seconds| Operation::StepClock(SignedDuration::from_secs(seconds))),
        1 => Just(Operation::Reopen),
    ]
}

fn endpoint() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&ENDPOINTS[..])
}

/// Zero to `max`, or no limit.
fn limit(max: usize) -> impl Strategy<Value = usize> {
    prop_oneof![2 => 0..=max, 1 => Just(usize::MAX)]
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        (0_u8..2).prop_map(Body::Plain),
        (-50_i64..200).prop_map(Body::Job)
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        2 => Just(End::Done),
        2 => (0_u64..60).prop_map(End::Retry),
        1 => Just(End::Dead),
        1 => Just(End::Release),
    ]
}

fn selected() -> impl Strategy<Value = Selected> {
    (
        option::weighted(0.3, 0..IDS),
        option::weighted(0.3, endpoint()),
        option::weighted(0.2, prop::sample::select(vec!["type", "other"])),
        option::of(prop::sample::select(vec![
            State::Pending,
            State::Done,
            State::Dead,
        ])),
        option::weighted(0.2, 0_u64..200),
        option::weighted(0.2, 0_u64..100),
        option::weighted(0.3, 0_u64..4),
    )
        .prop_map(
            |(id, endpoint, event_type, state, since, until, limit)| Selected {
                id,
                endpoint,
                event_type,
                state,
                since,
                until,
                limit,
            },
        )
}
