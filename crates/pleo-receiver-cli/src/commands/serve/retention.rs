//! Deletes old messages, a few at a time, so that acknowledgements do not wait.

use core::time::Duration;
use std::sync::Arc;

use jiff::Timestamp;
use pleo_receiver::{Inbox, InboxError, Selection, State};
use tokio::time;
use tracing::{error, info, warn};

use crate::admin::metrics::TaskMetrics;
use crate::failure::chain;

/// How often old messages are deleted.
const INTERVAL: Duration = Duration::from_secs(600);

/// How many messages are deleted at once.
const STEP: u64 = 200;

/// The pause after each step.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the sender repeats a delivery: 28 hours, with room for a late start.
const SENDER_RETRIES: Duration = Duration::from_secs(36 * 3600);

/// Warns of a retention that is shorter than the retries of the sender.
pub(super) fn warn_if_short(retention: &[(State, Duration)]) {
    for (state, age) in retention {
        if *age < SENDER_RETRIES {
            let key = format!("retention.{state}");
            warn!(
                key,
                "retention is shorter than the sender's retries of 28 hours; a deleted message that \
                 is repeated is dispatched again"
            );
        }
    }
}

/// Deletes the messages in these states at these ages.
pub(super) async fn run(
    retention: Vec<(State, Duration)>,
    inbox: Arc<dyn Inbox>,
    metrics: TaskMetrics,
) {
    loop {
        for (state, age) in &retention {
            let mut messages = 0;
            let result = prune(&*inbox, *state, *age, |pruned| {
                metrics.pruned(*state, pruned);
                messages += pruned;
            });
            let result = result.await;
            if messages > 0 {
                info!(%state, messages, "old messages deleted");
            }
            if let Err(error) = result {
                error!(%state, error = chain(&error), "cannot delete old messages");
            }
        }
        time::sleep(INTERVAL).await;
    }
}

async fn prune(
    inbox: &dyn Inbox,
    state: State,
    age: Duration,
    mut count: impl FnMut(u64),
) -> Result<(), InboxError> {
    // A time before all times deletes nothing.
    let until = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
    let old = Selection::state(state).with_until(until).with_limit(STEP);
    loop {
        let pruned = inbox.prune(old.clone()).await?;
        if pruned == 0 {
            return Ok(());
        }
        count(pruned);
        time::sleep(PAUSE).await;
    }
}
