//! The threads that serve connections.

use std::io;
use std::thread;

use tokio::runtime::{self, Handle};
use tokio::sync::oneshot;

/// Threads that each run connections on a runtime of its own, apart from the handlers: a handler
/// that blocks its threads delays no acknowledgement, and a connection never changes threads.
pub(super) struct Workers {
    pub(super) handles: Vec<Handle>,
    /// Each thread ends when its sender is dropped.
    _running: Vec<oneshot::Sender<()>>,
}

impl Workers {
    /// Starts this many threads; with none, connections are served on the current runtime.
    pub(super) async fn start(threads: usize) -> io::Result<Self> {
        let (mut handles, mut running) = (Vec::new(), Vec::new());
        if threads == 0 {
            handles.push(Handle::current());
        }
        for number in 1..=threads {
            let (started, handle) = oneshot::channel();
            let (sender, dropped) = oneshot::channel();
            thread::Builder::new()
                .name(format!("pleo-serve-{number}"))
                .spawn(move || run(started, dropped))?;
            handles.push(handle.await.map_err(io::Error::other)??);
            running.push(sender);
        }
        Ok(Self {
            handles,
            _running: running,
        })
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
