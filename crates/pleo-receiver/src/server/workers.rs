//! The threads that serve connections.
//!
//! Each thread has its own runtime, and a connection stays on its thread. That saves wake-ups
//! between threads. Handlers run on another runtime, so that one that blocks delays no
//! acknowledgement.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::io;
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use tokio::runtime::{self, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time;
use tracing::{debug, warn};

use super::connection;
#[cfg(feature = "tls")]
use super::https;
use super::state::{ConnectionPermit, ServerState};
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::error::error_chain;

/// The workers of a server. Dropping them closes all connections at once.
pub(super) struct Workers {
    workers: Vec<Worker>,
    /// The runtime of the first worker.
    handle: Handle,
    /// Dropped to stop the workers.
    stop: watch::Sender<()>,
}

struct Worker {
    queue: mpsc::UnboundedSender<AcceptedConnection>,
    connections: Arc<AtomicUsize>,
    /// Closed when all connections are closed.
    drained: mpsc::Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// An accepted connection with its permits.
pub(super) struct AcceptedConnection {
    pub(super) stream: TcpStream,
    pub(super) peer: IpAddr,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) source_permit: ConnectionPermit,
}

impl Workers {
    /// Starts `count` threads. With 0, a task of the current runtime serves the connections.
    pub(super) fn start(count: usize, server: &Arc<ServerState>) -> io::Result<Self> {
        let (stop, _) = watch::channel(());
        let mut handle = Handle::current();
        let mut workers = Vec::new();
        if count == 0 {
            let (worker, work) = Worker::new(server, stop.subscribe());
            tokio::spawn(work);
            workers.push(worker);
        }
        for number in 1..=count {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            if number == 1 {
                handle = runtime.handle().clone();
            }
            let runtime = RuntimeGuard(Some(runtime));
            let (mut worker, work) = Worker::new(server, stop.subscribe());
            let thread = thread::Builder::new()
                .name(format!("pleo-serve-{number}"))
                .spawn(move || runtime.block_on(work))?;
            worker.thread = Some(thread);
            workers.push(worker);
        }
        Ok(Self {
            workers,
            handle,
            stop,
        })
    }

    /// Returns the runtime on which to accept connections.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Queues a connection for the worker with the fewest. Returns `false` if that worker panicked.
    pub(super) fn serve(&self, connection: AcceptedConnection) -> bool {
        let load = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let least_loaded = self.workers.iter().min_by_key(load);
        least_loaded.is_some_and(|worker| {
            worker.connections.fetch_add(1, Ordering::Relaxed);
            worker.queue.send(connection).is_ok()
        })
    }

    /// Waits until all connections are closed. Drops those that outlast the grace period.
    pub(super) async fn drain(self) -> DrainedWorkers {
        let Self { workers, stop, .. } = self;
        // Drops all queues before it waits for the first worker.
        let (drained, threads): (Vec<_>, Vec<_>) = (workers.into_iter())
            .map(|worker| (worker.drained, worker.thread))
            .unzip();
        for mut drained in drained {
            // Returns when the sender is dropped.
            let _ = drained.recv().await;
        }
        let threads = threads.into_iter().flatten().collect();
        DrainedWorkers { threads, stop }
    }
}

/// Workers without connections. Their runtimes stay alive until the inbox is closed, which may use
/// them, for a database connection say.
pub(super) struct DrainedWorkers {
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<()>,
}

impl DrainedWorkers {
    /// Stops the runtimes and joins the threads.
    pub(super) fn stop(self) {
        drop(self.stop);
        for thread in self.threads {
            // A thread that panicked has ended too.
            let _ = thread.join();
        }
    }
}

/// A runtime that doesn't wait for blocking calls when it is dropped.
struct RuntimeGuard(Option<Runtime>);

impl RuntimeGuard {
    fn block_on(&self, work: impl Future<Output = ()>) {
        if let Some(runtime) = &self.0 {
            runtime.block_on(work);
        }
    }
}

impl Drop for RuntimeGuard {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Worker {
    /// Creates a worker and the future that does its work.
    fn new(
        server: &Arc<ServerState>,
        mut stop: watch::Receiver<()>,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, queued) = mpsc::unbounded_channel();
        let (not_drained, drained) = mpsc::channel(1);
        let connections = Arc::new(AtomicUsize::new(0));
        let (server, count) = (Arc::clone(server), Arc::clone(&connections));
        let worker = Self {
            queue,
            connections,
            drained,
            thread: None,
        };
        let work = async move {
            serve_all(queued, &server, &count, stop.clone()).await;
            drop((server, not_drained));
            // Returns when the sender is dropped.
            let _ = stop.changed().await;
        };
        (worker, work)
    }
}

/// Serves the queued connections until the queue is closed. Then waits for them to close, for the
/// grace period at most.
async fn serve_all(
    mut queued: mpsc::UnboundedReceiver<AcceptedConnection>,
    server: &Arc<ServerState>,
    count: &Arc<AtomicUsize>,
    mut stop: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            connection = queued.recv() => {
                let Some(connection) = connection else {
                    break;
                };
                let (server, count) = (Arc::clone(server), CountGuard(Arc::clone(count)));
                connections.spawn(async move {
                    serve(connection, &server).await;
                    drop(count);
                });
            }
        }
    }
    let all_closed = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = all_closed => return,
        () = time::sleep(server.options.grace) => {
            warn!("grace period ended; requests in flight are dropped");
        }
        _ = stop.changed() => {}
    }
    connections.shutdown().await;
}

/// Decrements a worker's count of connections when it is dropped.
struct CountGuard(Arc<AtomicUsize>);

impl Drop for CountGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(connection: AcceptedConnection, server: &Arc<ServerState>) {
    let metrics = server.receiver.counters();
    let AcceptedConnection { stream, peer, .. } = connection;
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            warn!(%peer, %error, "cannot serve connection");
            return;
        }
    };
    let open = metrics.connection();
    #[cfg(feature = "tls")]
    let result = match &connection.tls {
        // Boxed: it needs much more memory than a connection without TLS.
        Some(tls) => Box::pin(https::https(stream, peer, server, tls)).await,
        None => connection::http(stream, peer, server).await,
    };
    #[cfg(not(feature = "tls"))]
    let result = connection::http(stream, peer, server).await;
    drop(open);
    if let Err(error) = result {
        if let Some(reason) = error.reason() {
            metrics.refused_connection(reason);
        }
        debug!(%peer, error = error_chain(&error), "connection closed");
    }
    drop((connection.permit, connection.source_permit));
}
