//! The threads that serve connections.

use std::io;
use std::thread;

use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::oneshot;

/// Threads that each run connections on a runtime of its own, apart from the handlers: a handler
/// that blocks its threads delays no acknowledgement, and a connection never changes threads.
pub(super) struct Workers {
    handles: Vec<Handle>,
    /// Each thread ends when its sender is dropped.
    _running: Vec<oneshot::Sender<()>>,
}

impl Workers {
    /// Starts this many threads; with none, connections are served on the current runtime.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        if threads == 0 {
            return Ok(Self {
                handles: vec![Handle::current()],
                _running: Vec::new(),
            });
        }
        let mut handles = Vec::new();
        let mut running = Vec::new();
        for number in 1..=threads {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            handles.push(runtime.handle().clone());
            let runtime = OwnRuntime(Some(runtime));
            let (sender, dropped) = oneshot::channel();
            running.push(sender);
            thread::Builder::new()
                .name(format!("pleo-serve-{number}"))
                .spawn(move || runtime.run_until(dropped))?;
        }
        Ok(Self {
            handles,
            _running: running,
        })
    }

    pub(super) fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

/// A runtime that does not wait for blocking calls when it is dropped, such as an inbox may make.
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn run_until(&self, end: oneshot::Receiver<()>) {
        if let Some(runtime) = &self.0 {
            // The sender is dropped without a message.
            let _ = runtime.block_on(end);
        }
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
