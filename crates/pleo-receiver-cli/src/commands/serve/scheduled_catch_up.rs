//! Runs a catch-up on a schedule.

use std::sync::Arc;

use jiff::SignedDuration;
use pleo_receiver::Inbox;
use tokio::time::{self, MissedTickBehavior};
use tracing::{error, info};
use uuid::Uuid;

use crate::admin::metrics::TaskMetrics;
use crate::args::pleo::{ApiArgs, ConfigArgs};
use crate::config::tasks::ScheduledCatchUp;
use crate::failure::Failure;
use crate::pleo::catch_up::{CatchUp, Report};
use crate::pleo::declared;

/// Runs a catch-up at once, and then on this schedule.
pub(super) async fn run(schedule: ScheduledCatchUp, inbox: Arc<dyn Inbox>, metrics: TaskMetrics) {
    let mut ticks = time::interval(schedule.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut logged = Logged {
            metrics: &metrics,
            jobs: 0,
            failures: 0,
        };
        if let Err(failure) = catch_up(&schedule, &*inbox, &mut logged).await {
            logged.failures += 1;
            error!(error = failure.to_string(), "catch-up failed");
        }
        let Logged { jobs, failures, .. } = logged;
        metrics.catch_up(failures == 0);
        info!(jobs, failures, "catch-up finished");
    }
}

async fn catch_up(
    schedule: &ScheduledCatchUp,
    inbox: &dyn Inbox,
    logged: &mut Logged<'_>,
) -> Result<(), Failure> {
    let config = schedule.config.clone();
    let file = declared::read(&ConfigArgs {
        config,
        inbox: None,
    })?;
    let api = ApiArgs::from_env().map_err(|error| Failure::Usage(error.to_string()))?;
    let run = CatchUp {
        file: &file,
        api: &api,
        inbox,
        min_age: SignedDuration::try_from(schedule.min_age).unwrap_or(SignedDuration::MAX),
        dry_run: false,
    };
    run.run(logged).await
}

/// Logs and counts the results.
struct Logged<'a> {
    metrics: &'a TaskMetrics,
    jobs: usize,
    failures: usize,
}

impl Report for Logged<'_> {
    fn missing(&mut self, endpoint: &str, job: Uuid) -> Result<(), Failure> {
        self.jobs += 1;
        self.metrics.caught_up(endpoint);
        info!(endpoint, %job, "export job caught up");
        Ok(())
    }

    fn failed(&mut self, endpoint: &str, why: &str) -> Result<(), Failure> {
        self.failures += 1;
        error!(endpoint, error = why, "catch-up failed");
        Ok(())
    }
}
