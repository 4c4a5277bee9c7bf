//! What the API, the sender and the page share: the state, its version, and the tasks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::{JoinSet, spawn_blocking};

use crate::error::Error;
use crate::event_stream::SandboxEvent;
use crate::options::SandboxOptions;
use crate::state::{State, export_job};
use crate::store::{self, WriteError};

/// How many events a slow reader can be behind.
const EVENTS: usize = 1024;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: SandboxOptions,
    state: Mutex<State>,
    /// Raised by each change of the state.
    version: watch::Sender<u64>,
    /// The version in the state file, or why it could not be written.
    saved: watch::Sender<Saved>,
    pub(crate) events: broadcast::Sender<SandboxEvent>,
    /// Runs tasks, which synchronous code may start.
    runtime: Handle,
    /// `None` once the sandbox has stopped.
    tasks: Mutex<Option<JoinSet<()>>>,
}

#[derive(Clone, Debug, Default)]
struct Saved {
    version: u64,
    error: Option<WriteError>,
}

impl Shared {
    pub(crate) fn new(options: SandboxOptions) -> Result<Self, Error> {
        let stored = match &options.state_file {
            Some(path) => store::read(path)?,
            None => None,
        };
        let state = stored.unwrap_or_else(|| State::new(options.seed));
        Ok(Self {
            options,
            state: Mutex::new(state),
            version: watch::Sender::new(1),
            saved: watch::Sender::default(),
            events: broadcast::Sender::new(EVENTS),
            runtime: Handle::current(),
            tasks: Mutex::new(Some(JoinSet::new())),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state);
        // Raised under the lock, so that a saved version includes its change.
        self.version.send_modify(|version| *version += 1);
        result
    }

    /// Sends an event to those who listen.
    pub(crate) fn emit(&self, event: SandboxEvent) {
        // An error means that nobody listens.
        let _ = self.events.send(event);
    }

    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Waits until `find` returns a value.
    pub(crate) async fn wait_for<T>(&self, find: impl Fn(&State) -> Option<T>) -> T {
        let mut versions = self.versions();
        loop {
            versions.mark_unchanged();
            let found = find(&self.state());
            if let Some(found) = found {
                return found;
            }
            // The sender is in `self`, so it cannot be closed.
            let _ = versions.changed().await;
        }
    }

    /// Runs a task until the sandbox stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = lock(&self.tasks).as_mut() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn_on(task, &self.runtime);
        }
    }

    /// Stops all tasks.
    pub(crate) fn stop(&self) {
        let tasks = lock(&self.tasks).take();
        drop(tasks);
    }

    /// Waits until the state so far is in the state file, if there is one.
    pub(crate) async fn flushed(&self) -> Result<(), Error> {
        if self.options.state_file.is_none() {
            return Ok(());
        }
        let wanted = *self.version.borrow();
        let mut saved = self.saved.subscribe();
        // The sender is in `self`, so it cannot be closed.
        let saved = saved.wait_for(|saved| saved.version >= wanted).await;
        match saved.ok().and_then(|saved| saved.error.clone()) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Writes each change into the state file. Changes during a write are written together.
    pub(crate) async fn save_changes(self: Arc<Self>, path: PathBuf) {
        let mut versions = self.versions();
        loop {
            let (version, encoded) = {
                let state = self.state();
                (*versions.borrow_and_update(), store::encode(&state))
            };
            let file = path.clone();
            let write = move || store::write(&file, &encoded.map_err(std::io::Error::other)?);
            let written = spawn_blocking(write).await;
            let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let error = written.err().map(|source| WriteError {
                path: path.clone(),
                source: Arc::new(source),
            });
            self.saved.send_replace(Saved { version, error });
            if versions.changed().await.is_err() {
                return;
            }
        }
    }

    /// Fails export jobs when they expire.
    pub(crate) async fn expire_jobs(self: Arc<Self>) {
        let mut versions = self.versions();
        loop {
            versions.mark_unchanged();
            let now = Timestamp::now();
            let next = {
                let state = self.state();
                let jobs = state.export_jobs.iter();
                jobs.filter_map(|(_, job)| export_job::expiry(job)).min()
            };
            match next {
                Some(next) if next <= now => {
                    let expired = self.change(|state| {
                        let jobs = state.export_jobs.iter_mut().map(|(_, job)| job);
                        let expired = jobs
                            .filter_map(|job| export_job::expire(job, now).then(|| job.clone()));
                        expired.collect::<Vec<_>>()
                    });
                    for job in expired {
                        self.emit(SandboxEvent::ExportJob(Box::new(job)));
                    }
                }
                next => {
                    let wait = async {
                        match next {
                            Some(next) => sleep_until(next).await,
                            None => core::future::pending().await,
                        }
                    };
                    tokio::select! {
                        () = wait => {}
                        changed = versions.changed() => if changed.is_err() {
                            return;
                        },
                    }
                }
            }
        }
    }
}

/// Sleeps until this time of the wall clock.
pub(crate) async fn sleep_until(time: Timestamp) {
    let wait = time.duration_since(Timestamp::now());
    tokio::time::sleep(wait.try_into().unwrap_or_default()).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
