//! The tasks that a server runs on a schedule.

use std::sync::Arc;

use pleo_receiver::Inbox;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{retention, scheduled_catch_up};
use crate::admin::metrics::TaskMetrics;
use crate::config::tasks::Tasks;

/// Runs the tasks until they are restarted, or the server shuts down.
pub(super) struct RunningTasks {
    inbox: Arc<dyn Inbox>,
    metrics: TaskMetrics,
    stopping: watch::Receiver<bool>,
    tasks: Tasks,
    running: JoinSet<()>,
}

impl RunningTasks {
    /// Runs no tasks yet.
    pub(super) fn new(
        inbox: &Arc<dyn Inbox>,
        metrics: TaskMetrics,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self {
            inbox: Arc::clone(inbox),
            metrics,
            stopping,
            tasks: Tasks::default(),
            running: JoinSet::new(),
        }
    }

    /// Runs these tasks. Does nothing if they run already.
    pub(super) fn restart(&mut self, tasks: Tasks) {
        if tasks == self.tasks {
            return;
        }
        self.running.abort_all();
        if !tasks.retention.is_empty() {
            retention::warn_if_short(&tasks.retention);
            let inbox = Arc::clone(&self.inbox);
            let retention = retention::run(tasks.retention.clone(), inbox, self.metrics.clone());
            self.spawn(retention);
        }
        if let Some(catch_up) = &tasks.catch_up {
            let inbox = Arc::clone(&self.inbox);
            let run = scheduled_catch_up::run(catch_up.clone(), inbox, self.metrics.clone());
            self.spawn(run);
        }
        self.tasks = tasks;
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let mut stopping = self.stopping.clone();
        self.running.spawn(async move {
            tokio::select! {
                () = task => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        });
    }
}
