//! Compares a store with a model for random operations.

mod leases;
mod message;
mod operation;
mod state;
mod stats;

use core::time::Duration;
use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Builder;

use self::operation::{Body, End, Operation, Selected};
use self::state::Model;
use super::suite::{job, soon};
use super::{Harness, Suite};
use crate::inbox::{
    Appended, Completed, Cursor, LeaseRequest, NewMessage, Outcome, Query, Selection, Version,
};

/// How many random sequences are tried, unless `PROPTEST_CASES` is set.
const CASES: u32 = 64;

/// How long a failing sequence is shortened, in milliseconds.
const MAX_SHRINK_TIME: u32 = 30_000;

/// Compares a store with the model.
pub fn matches_model<H: Harness>() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let keeps_messages = runtime.block_on(async {
        let reopened = Suite::<H>::open().await.reopen().await;
        reopened.is_some()
    });
    let mut config = Config {
        failure_persistence: None,
        max_shrink_iters: 4096,
        max_shrink_time: MAX_SHRINK_TIME,
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let result = TestRunner::new(config).run(&operation::operations(), |mut operations| {
        operations.retain(|operation| keeps_messages || !matches!(operation, Operation::Reopen));
        runtime.block_on(compare::<H>(operations))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

async fn compare<H: Harness>(operations: Vec<Operation>) -> Result<(), TestCaseError> {
    let mut suite = Suite::<H>::open().await;
    let mut model = Model::new(suite.harness.slack());
    let mut version = None;
    for (n, operation) in operations.iter().enumerate() {
        if let Operation::Reopen = operation {
            suite = suite.reopen().await.unwrap();
            model.reopen();
            version = None;
        }
        let result = match perform(&suite, &mut model, operation, &mut version).await {
            Ok(()) => check(&suite, &mut model).await,
            failed => failed,
        };
        result.map_err(|error| {
            TestCaseError::fail(format!("operation {n}, {operation:?}: {error}"))
        })?;
    }
    Ok(())
}

/// Performs an operation on the store, and compares its result with that of the model. `version` is
/// that of the last lease.
async fn perform<H: Harness>(
    suite: &Suite<H>,
    model: &mut Model,
    operation: &Operation,
    version: &mut Option<Version>,
) -> Result<(), TestCaseError> {
    let inbox = &suite.inbox;
    let time_of_day = suite.harness.now().await;
    let has_changed = match operation.clone() {
        Operation::Append { endpoint, id, body } => {
            let (bytes, expires_at) = match body {
                Body::Plain(byte) => (vec![byte; 3].into(), None),
                Body::Job(seconds) => {
                    let second = time_of_day.as_second() + seconds;
                    let expires_at = Timestamp::from_second(second).unwrap();
                    (job(expires_at), Some(expires_at))
                }
            };
            let message = NewMessage::new(endpoint, id.to_string(), bytes);
            let appended = inbox.append(message.clone()).await.unwrap();
            model.append(message, body, expires_at, appended)?;
            appended == Appended::Stored
        }
        Operation::Lease {
            max,
            total,
            per_endpoint,
            ttl,
        } => {
            let worker = format!("worker {}", model.leases.len());
            let request = LeaseRequest::new(max, Duration::from_secs(ttl), worker)
                .with_total(total)
                .with_per_endpoint(per_endpoint);
            let leased = inbox.lease(request.clone()).await.unwrap();
            model.lease(&request, &leased, time_of_day)?;
            *version = Some(leased.version);
            false
        }
        Operation::Renew { leases, ttl } => {
            let ttl = Duration::from_secs(ttl);
            let all = &model.leases;
            let leases = leases.iter().filter(|_| !all.is_empty());
            let leases = BTreeSet::from_iter(leases.map(|lease| *lease.get(all)));
            let leases = Vec::from_iter(leases);
            let lost = inbox.renew(leases.clone(), ttl).await.unwrap();
            model.renew(&leases, ttl, &lost)?;
            false
        }
        Operation::Complete { lease, end } if !model.leases.is_empty() => {
            let id = *lease.get(&model.leases);
            let outcome = end.outcome(model.leases.len());
            let completed = inbox.complete(id, outcome.clone()).await.unwrap();
            model.complete(id, &outcome, completed)?;
            completed == Completed::Recorded
        }
        Operation::Replay(selected) => {
            let selection = selected.selection(time_of_day);
            let replayed = inbox.replay(selection).await.unwrap();
            let entries = suite.entries(Selection::all()).await;
            model.replay(&selected, time_of_day, replayed, &entries)?;
            replayed > 0
        }
        Operation::Prune(selected) => {
            let selection = selected.selection(time_of_day);
            let pruned = inbox.prune(selection).await.unwrap();
            model.prune(&selected, time_of_day, pruned)?;
            false
        }
        Operation::List {
            selected,
            limit,
            after,
            newest_first,
        } => {
            let after = after.filter(|_| !model.messages.is_empty());
            let after = after.map(|index| index.get(&model.messages).sequence);
            let mut query = Query::new(selected.selection(time_of_day), limit);
            query.newest_first = newest_first;
            query.after = after.map(Cursor::new);
            let page = inbox.list(query).await.unwrap();
            model.check_page(&selected, time_of_day, (limit, after, newest_first), &page)?;
            false
        }
        Operation::Pause { endpoint, paused } => {
            inbox.set_paused(endpoint.into(), paused).await.unwrap();
            if paused {
                model.paused.insert(endpoint)
            } else {
                model.paused.remove(endpoint)
            }
        }
        Operation::Advance(seconds) => {
            suite.advance(seconds).await;
            model.now += Duration::from_secs(seconds);
            false
        }
        Operation::StepClock(by) => {
            if suite.harness.step_clock(by) {
                model.step_clock();
            }
            false
        }
        Operation::Complete { .. } | Operation::Reopen => false,
    };
    if let Some(seen) = version.filter(|_| has_changed) {
        soon("change", inbox.changed(seen)).await;
    }
    Ok(())
}

/// Compares everything that the store shows with the model.
async fn check<H: Harness>(suite: &Suite<H>, model: &mut Model) -> Result<(), TestCaseError> {
    let time_of_day = suite.harness.now().await;
    model.check_entries(&suite.entries(Selection::all()).await, time_of_day)?;
    model.check_stats(&suite.inbox.stats().await.unwrap(), time_of_day)?;
    for message in &model.messages {
        let stored = suite.inbox.get(message.new.key()).await.unwrap();
        prop_assert!(stored.is_some(), "{:?} is not found", message.new.key());
        message.check_stored(&stored.unwrap(), model.slack)?;
    }
    Ok(())
}

impl End {
    fn outcome(self, n: usize) -> Outcome {
        let error = format!("error {n}");
        match self {
            Self::Done => Outcome::Done,
            Self::Retry(seconds) => Outcome::Retry {
                after: Duration::from_secs(seconds),
                error,
            },
            Self::Dead => Outcome::Dead { error },
            Self::Release => Outcome::Release,
        }
    }
}

impl Selected {
    fn selection(&self, time_of_day: Timestamp) -> Selection {
        let before = |seconds| time_of_day - Duration::from_secs(seconds);
        let mut selection = Selection::all();
        selection.webhook_id = self.id.map(|id| id.to_string());
        selection.endpoint = self.endpoint.map(Into::into);
        selection.event_type = self.event_type.map(Into::into);
        selection.state = self.state;
        selection.since = self.since.map(before);
        selection.until = self.until.map(before);
        selection.limit = self.limit;
        selection
    }
}
