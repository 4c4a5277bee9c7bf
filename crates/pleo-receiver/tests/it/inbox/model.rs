//! Compares the SQLite inbox with the memory inbox, for random operations.

use core::time::Duration;

use jiff::Timestamp;
use pleo_receiver::{
    Entry, Filter, Inbox, LeaseId, LeaseRequest, Leased, MemoryInbox, NewMessage, Origin, Outcome,
    Selection, SqliteInbox, State,
};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::support::job::job;

/// An operation. Times are in steps of [`STEP`], relative to now.
#[derive(Clone, Debug)]
enum Operation {
    Append {
        endpoint: &'static str,
        id: u8,
        body: u8,
        expires_in: Option<i64>,
    },
    Lease {
        max: usize,
        per_endpoint: usize,
        in_progress: usize,
        lease: u32,
    },
    /// Completes any earlier lease, also a lost one.
    Complete {
        lease: Index,
        end: End,
    },
    Pass {
        steps: i64,
    },
    Replay {
        id: u8,
    },
    ReplayDead,
    ReplaySome {
        event_type: Option<&'static str>,
        endpoint: Option<&'static str>,
        state: Option<State>,
        since: Option<i64>,
        until: Option<i64>,
    },
    Prune {
        state: State,
        before: i64,
    },
    List {
        state: Option<State>,
        endpoint: Option<&'static str>,
        after: Option<Index>,
        limit: Option<u32>,
        newest_first: bool,
    },
    Show {
        id: u8,
    },
}

#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    Retry { after: i64 },
    Dead,
    Release,
    Exhausted,
}

impl End {
    fn outcome(self, now: Timestamp) -> Outcome {
        let error = format!("at {now}");
        match self {
            Self::Done => Outcome::Done,
            Self::Retry { after } => Outcome::Retry {
                at: shift(now, after),
                error,
            },
            Self::Dead => Outcome::Dead { error },
            Self::Release => Outcome::Release,
            Self::Exhausted => Outcome::Exhausted { error },
        }
    }
}

fn any_state() -> impl Strategy<Value = State> {
    prop::sample::select(vec![State::Pending, State::Done, State::Dead])
}

fn any_endpoint() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["books", "sales"])
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let end = prop_oneof![
        Just(End::Done),
        (-5_i64..30).prop_map(|after| End::Retry { after }),
        Just(End::Dead),
        Just(End::Release),
        Just(End::Exhausted),
    ];
    let list = (
        prop::option::of(any_state()),
        prop::option::of(any_endpoint()),
        any::<Option<Index>>(),
        any::<bool>(),
        prop::option::of(0_u32..5),
    );
    let some = (
        prop::option::of(prop::sample::select(vec!["type", "other"])),
        prop::option::of(any_endpoint()),
        prop::option::of(any_state()),
        prop::option::of(-60_i64..1),
        prop::option::of(-30_i64..2),
    );
    // Few ids, so that operations often use the same message.
    let id = 0_u8..8;
    prop_oneof![
        6 => (any_endpoint(), id.clone(), 0_u8..2, prop::option::of(-5_i64..30)).prop_map(
            |(endpoint, id, body, expires_in)| Operation::Append { endpoint, id, body, expires_in }
        ),
        4 => (0_usize..4, 1_usize..4, 0_usize..2, 0_u32..20).prop_map(
            |(max, per_endpoint, in_progress, lease)| Operation::Lease {
                max, per_endpoint, in_progress, lease
            }
        ),
        5 => (any::<Index>(), end).prop_map(|(lease, end)| Operation::Complete { lease, end }),
        3 => (0_i64..20).prop_map(|steps| Operation::Pass { steps }),
        1 => id.clone().prop_map(|id| Operation::Replay { id }),
        1 => Just(Operation::ReplayDead),
        2 => some.prop_map(|(event_type, endpoint, state, since, until)| Operation::ReplaySome {
            event_type, endpoint, state, since, until
        }),
        1 => (any_state(), -60_i64..1)
            .prop_map(|(state, before)| Operation::Prune { state, before }),
        1 => list.prop_map(|(state, endpoint, after, newest_first, limit)| Operation::List {
            state, endpoint, after, limit, newest_first
        }),
        1 => id.prop_map(|id| Operation::Show { id }),
    ]
}

/// Has fractions of a millisecond, so that rounding is compared.
const STEP: Duration = Duration::from_micros(370);

fn shift(now: Timestamp, steps: i64) -> Timestamp {
    let distance = STEP * u32::try_from(steps.unsigned_abs()).unwrap();
    if steps < 0 {
        now - distance
    } else {
        now + distance
    }
}

/// An inbox and its leases. The two inboxes may number their messages differently.
struct Tested<'a> {
    inbox: &'a dyn Inbox,
    leases: Vec<LeaseId>,
}

impl Tested<'_> {
    /// Performs an operation and formats its result.
    async fn perform(&mut self, operation: &Operation, now: Timestamp) -> String {
        let inbox = self.inbox;
        match operation.clone() {
            Operation::Append {
                endpoint,
                id,
                body,
                expires_in,
            } => {
                let message = NewMessage {
                    endpoint: endpoint.into(),
                    webhook_id: id.to_string().into(),
                    received_at: now,
                    origin: Origin::Webhook,
                    body: match expires_in {
                        Some(steps) => job(shift(now, steps)),
                        None => vec![body; 3].into(),
                    },
                };
                format!("{:?}", inbox.append(message).await)
            }
            Operation::Lease {
                max,
                per_endpoint,
                in_progress,
                lease,
            } => {
                let request = LeaseRequest::new(max)
                    .with_per_endpoint(per_endpoint)
                    .with_in_progress([("books".into(), in_progress)].into());
                let lease = inbox.lease(request, now, STEP * lease).await.unwrap();
                let Leased { messages, next_due } = lease;
                self.leases
                    .extend(messages.iter().map(|leased| leased.lease));
                let messages = messages
                    .iter()
                    .map(|leased| (&leased.message, leased.attempt));
                format!("{:?} {next_due:?}", messages.collect::<Vec<_>>())
            }
            Operation::Complete { lease, end } => {
                if !self.leases.is_empty() {
                    let lease = *lease.get(&self.leases);
                    inbox.complete(lease, end.outcome(now)).await.unwrap();
                }
                String::new()
            }
            Operation::Pass { .. } => String::new(),
            Operation::Replay { id } => {
                let selection = Selection::id(id.to_string());
                inbox.replay(selection).await.unwrap().to_string()
            }
            Operation::ReplaySome {
                event_type,
                endpoint,
                state,
                since,
                until,
            } => {
                let selection = Selection {
                    webhook_id: None,
                    endpoint: endpoint.map(Into::into),
                    event_type: event_type.map(Into::into),
                    state,
                    since: since.map(|steps| shift(now, steps)),
                    until: until.map(|steps| shift(now, steps)),
                };
                inbox.replay(selection).await.unwrap().to_string()
            }
            Operation::ReplayDead => inbox.replay(Selection::dead()).await.unwrap().to_string(),
            Operation::Prune { state, before } => {
                let before = shift(now, before);
                inbox.prune(state, before).await.unwrap().to_string()
            }
            Operation::List {
                state,
                endpoint,
                after,
                limit,
                newest_first,
            } => {
                let all = inbox.list(Filter::default()).await.unwrap();
                let filter = Filter {
                    state,
                    endpoint: endpoint.map(Into::into),
                    after: (after.filter(|_| !all.is_empty()))
                        .map(|index| index.get(&all).sequence),
                    limit,
                    newest_first,
                };
                format!("{:?}", without_sequences(inbox.list(filter).await.unwrap()))
            }
            Operation::Show { id } => {
                let shown = inbox.show(id.to_string()).await.unwrap();
                let (entries, bodies): (Vec<_>, Vec<_>) = shown.into_iter().unzip();
                format!("{:?} {bodies:?}", without_sequences(entries))
            }
        }
    }

    async fn stored(&self) -> String {
        let entries = without_sequences(self.inbox.list(Filter::default()).await.unwrap());
        format!("{:?} {entries:#?}", self.inbox.counts().await)
    }
}

fn without_sequences(mut entries: Vec<Entry>) -> Vec<Entry> {
    for entry in &mut entries {
        entry.sequence = 0;
    }
    entries
}

async fn compare_inboxes(operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let directory = tempfile::tempdir().unwrap();
    let in_file = SqliteInbox::open(directory.path().join("inbox.db")).unwrap();
    let in_memory = MemoryInbox::new();
    let tested = |inbox| Tested {
        inbox,
        leases: Vec::new(),
    };
    let (mut in_file, mut in_memory) = (tested(&in_file), tested(&in_memory));
    let mut now = Timestamp::from_second(1_800_000_000).unwrap();
    for operation in operations {
        if let Operation::Pass { steps } = operation {
            now = shift(now, steps);
        }
        let expected = in_memory.perform(&operation, now).await;
        prop_assert_eq!(
            in_file.perform(&operation, now).await,
            expected,
            "{:?}",
            operation
        );
        let expected = in_memory.stored().await;
        prop_assert_eq!(in_file.stored().await, expected, "{:?}", operation);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn sqlite_matches_memory(
        operations in prop::collection::vec(any_operation(), 1..80)
    ) {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(compare_inboxes(operations))?;
    }
}
