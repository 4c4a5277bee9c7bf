//! The threads that serve connections.
//!
//! Each has a runtime of its own, and a connection stays where it is put. That spares the wake-ups
//! that threads cost each other where all of them take from one queue, and keeps acknowledgements
//! apart from handlers: one that blocks its runtime delays none.

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
use super::state::{ConnectionPermit, ServerState};
#[cfg(feature = "tls")]
use super::{https, tls::Tls};

/// The threads of a server. When this is dropped, all connections end at once.
pub(super) struct Workers {
    threads: Vec<Thread>,
    /// Of the first thread's runtime.
    handle: Handle,
    /// Its receivers see when it's dropped.
    alive: watch::Sender<()>,
}

struct Thread {
    arrivals: mpsc::UnboundedSender<AcceptedConnection>,
    /// How many connections it has.
    connections: Arc<AtomicUsize>,
    /// Closed when its work is done.
    at_end: mpsc::Receiver<()>,
    handle: Option<JoinHandle<()>>,
}

/// A connection that was accepted.
pub(super) struct AcceptedConnection {
    pub(super) stream: TcpStream,
    pub(super) peer: IpAddr,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
    pub(super) slot: Option<OwnedSemaphorePermit>,
    pub(super) share: ConnectionPermit,
}

impl Workers {
    /// Starts so many threads; with none, a task of this runtime does what a thread would.
    pub(super) fn start(count: usize, state: &Arc<ServerState>) -> io::Result<Self> {
        let (alive, _) = watch::channel(());
        let mut handle = Handle::current();
        let mut threads = Vec::new();
        if count == 0 {
            let (thread, work) = Thread::new(state, alive.subscribe());
            tokio::spawn(work);
            threads.push(thread);
        }
        for number in 1..=count {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            if number == 1 {
                handle = runtime.handle().clone();
            }
            let runtime = RuntimeGuard(Some(runtime));
            let (mut thread, work) = Thread::new(state, alive.subscribe());
            let handle = thread::Builder::new()
                .name(format!("pleo-serve-{number}"))
                .spawn(move || runtime.run(work))?;
            thread.handle = Some(handle);
            threads.push(thread);
        }
        Ok(Self {
            threads,
            handle,
            alive,
        })
    }

    /// Where whoever accepts connections is to run.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Has a connection served by the thread that has the fewest; says whether that one lives.
    pub(super) fn serve(&self, arrival: AcceptedConnection) -> bool {
        let load = |thread: &&Thread| thread.connections.load(Ordering::Relaxed);
        let least = self.threads.iter().min_by_key(load);
        least.is_some_and(|thread| {
            thread.connections.fetch_add(1, Ordering::Relaxed);
            // It takes them as long as this can send any, unless it panicked.
            thread.arrivals.send(arrival).is_ok()
        })
    }

    /// Waits until all connections have ended, at the end of the grace period by force.
    pub(super) async fn finish(self) -> DrainedWorkers {
        let Self { threads, alive, .. } = self;
        // Nothing arrives any more; that is told to all before waiting for one.
        let (ends, handles): (Vec<_>, Vec<_>) = (threads.into_iter())
            .map(|thread| (thread.at_end, thread.handle))
            .unzip();
        for mut at_end in ends {
            // Nothing is ever sent: it ends with the other side.
            let _ = at_end.recv().await;
        }
        let handles = handles.into_iter().flatten().collect();
        DrainedWorkers { handles, alive }
    }
}

/// Workers that serve nothing any more. Their runtimes go on, since what an inbox began there may be
/// what it needs to the end, such as a connection to a database.
pub(super) struct DrainedWorkers {
    handles: Vec<JoinHandle<()>>,
    alive: watch::Sender<()>,
}

impl DrainedWorkers {
    /// Ends them.
    pub(super) fn end(self) {
        drop(self.alive);
        for handle in self.handles {
            // A connection's panic ends there; were it another, there is nothing to wait for.
            let _ = handle.join();
        }
    }
}

/// A thread's runtime. When it is dropped it doesn't wait for a call that blocks, such as an inbox
/// may have made; nor may it, where the thread could not be started.
struct RuntimeGuard(Option<Runtime>);

impl RuntimeGuard {
    fn run(&self, work: impl Future<Output = ()>) {
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

impl Thread {
    /// A thread that isn't there yet, and what it is to do.
    fn new(
        state: &Arc<ServerState>,
        alive: watch::Receiver<()>,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (arrivals, arriving) = mpsc::unbounded_channel();
        let (at_work, at_end) = mpsc::channel(1);
        let connections = Arc::new(AtomicUsize::new(0));
        let (state, counted) = (Arc::clone(state), Arc::clone(&connections));
        let thread = Self {
            arrivals,
            connections,
            at_end,
            handle: None,
        };
        let mut ended = alive.clone();
        let work = async move {
            serve_all(arriving, &state, &counted, alive).await;
            drop(state);
            drop(at_work);
            // Nothing is ever sent: it ends with the other side.
            let _ = ended.changed().await;
        };
        (thread, work)
    }
}

/// Serves what arrives until nothing more can; then lets those still served finish.
async fn serve_all(
    mut arriving: mpsc::UnboundedReceiver<AcceptedConnection>,
    state: &Arc<ServerState>,
    counted: &Arc<AtomicUsize>,
    mut alive: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            arrival = arriving.recv() => {
                let Some(arrival) = arrival else {
                    break;
                };
                let (state, counted) = (Arc::clone(state), Counted(Arc::clone(counted)));
                connections.spawn(async move {
                    serve(arrival, &state).await;
                    drop(counted);
                });
            }
        }
    }
    let finished = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = finished => return,
        () = time::sleep(state.options.grace) => {
            warn!("requests still in flight at the end of the grace period are dropped");
        }
        _ = alive.changed() => {}
    }
    connections.shutdown().await;
}

/// One of a thread's connections.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(arrival: AcceptedConnection, state: &Arc<ServerState>) {
    let counters = state.receiver.counters();
    let AcceptedConnection { stream, peer, .. } = arrival;
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            warn!(%error, "cannot serve a connection");
            return;
        }
    };
    let counted = counters.connection();
    #[cfg(feature = "tls")]
    let ended = match &arrival.tls {
        // Apart, since a connection in the clear needs much less room.
        Some(tls) => Box::pin(https::https(stream, peer, state, tls)).await,
        None => connection::http(stream, peer, state).await,
    };
    #[cfg(not(feature = "tls"))]
    let ended = connection::http(stream, peer, state).await;
    drop(counted);
    if let Err(error) = ended {
        if let Some(reason) = error.reason() {
            counters.refused_connection(reason);
        }
        debug!(%peer, %error, "connection ended early");
    }
    drop((arrival.slot, arrival.share));
}
