//! The threads that serve connections.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Threads that each run connections on a runtime of its own, apart from the handlers: a handler
/// that blocks its threads delays no acknowledgement, and a connection never changes threads.
#[derive(Clone)]
pub(super) struct Workers(Arc<[Worker]>);

struct Worker {
    runtime: Handle,
    /// The thread ends when its sender is dropped.
    _running: oneshot::Sender<()>,
}

impl Workers {
    /// Starts this many threads; with none, connections are served on the current runtime.
    pub(super) async fn start(threads: usize) -> io::Result<Self> {
        let mut workers = Vec::new();
        for number in 1..=threads {
            let (started, runtime) = oneshot::channel();
            let (running, dropped) = oneshot::channel();
            thread::Builder::new()
                .name(format!("pleo-serve-{number}"))
                .spawn(move || run(started, dropped))?;
            workers.push(Worker {
                runtime: runtime.await.map_err(io::Error::other)??,
                _running: running,
            });
        }
        Ok(Self(workers.into()))
    }

    /// Runs a task on the thread with the fewest tasks.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        tasks: &mut JoinSet<T>,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        let runtimes = self.0.iter().map(|worker| &worker.runtime);
        match runtimes.min_by_key(|runtime| runtime.metrics().num_alive_tasks()) {
            Some(runtime) => tasks.spawn_on(task, runtime),
            None => tasks.spawn(task),
        };
    }
}

/// Runs a runtime until the sender of `end` is dropped.
fn run(started: oneshot::Sender<io::Result<Handle>>, end: oneshot::Receiver<()>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            // Nobody waits for it if the server is dropped: then `end` resolves at once.
            let _ = started.send(Ok(runtime.handle().clone()));
            let _ = runtime.block_on(end);
            // Does not wait for blocking calls, such as an inbox may make.
            runtime.shutdown_background();
        }
        Err(error) => drop(started.send(Err(error))),
    }
}
