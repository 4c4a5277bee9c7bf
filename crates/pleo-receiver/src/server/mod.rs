//! The server: accepts connections, enforces their limits and shuts down gracefully.

mod connection;
#[cfg(feature = "tls")]
mod control_frames;
#[cfg(feature = "tls")]
mod expiry;
mod linger;
mod options;
mod phase;
#[cfg(feature = "tls")]
mod tls;
mod workers;

use core::pin::pin;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time;

use crate::dispatch::Dispatcher;
use crate::inbox::InboxError;
use crate::receiver::Receiver;
use crate::telemetry;
use connection::{Connection, ServerState};
pub use options::ServerOptions;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
use workers::Workers;

/// How long to wait before accepting again after an error.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves a receiver's endpoints on a listener and dispatches messages to its handler until
/// `shutdown` resolves.
///
/// Then stops accepting, finishes what is in flight and closes the inbox. [`Server`] has more
/// options.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve(
    listener: TcpListener,
    receiver: Receiver,
    dispatcher: Dispatcher,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Server::new(receiver, dispatcher)
        .listen(listener)
        .run(shutdown)
        .await
}

/// Serves a receiver on any number of sockets, over HTTP and HTTPS.
#[derive(Debug)]
#[must_use = "call `run`"]
pub struct Server {
    receiver: Receiver,
    dispatcher: Dispatcher,
    options: ServerOptions,
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Server {
    /// Creates a server without listeners.
    pub fn new(receiver: Receiver, dispatcher: Dispatcher) -> Self {
        Self {
            receiver,
            dispatcher,
            options: ServerOptions::default(),
            listeners: Vec::new(),
        }
    }

    /// Sets the limits.
    pub fn options(mut self, options: ServerOptions) -> Self {
        self.options = options;
        self
    }

    /// Adds a listener for HTTP/1.1.
    pub fn listen(mut self, socket: TcpListener) -> Self {
        self.listeners.push(Listener {
            socket,
            #[cfg(feature = "tls")]
            tls: None,
        });
        self
    }

    /// Adds a listener for HTTP/2 and HTTP/1.1 over TLS. The client chooses the version.
    #[cfg(feature = "tls")]
    pub fn listen_tls(mut self, socket: TcpListener, tls: Tls) -> Self {
        let tls = Some(tls);
        self.listeners.push(Listener { socket, tls });
        self
    }

    /// Serves the endpoints and dispatches messages to the handler until `shutdown` resolves. Then
    /// stops accepting, finishes what is in flight and closes the inbox.
    ///
    /// Connections are served by their own threads ([`ServerOptions::threads`]). The handler runs on
    /// the current runtime. Dropping the future closes all connections at once.
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let workers = Workers::start(self.options.threads).await;
        let workers = workers.map_err(ServeError::Start)?;
        let server = Arc::new(ServerState::new(self.receiver, self.options));
        // A set aborts its tasks when it is dropped.
        let mut accepting = JoinSet::new();
        #[cfg(feature = "tls")]
        let mut reloading = JoinSet::new();
        for listener in self.listeners {
            #[cfg(feature = "tls")]
            if let Some(tls) = &listener.tls {
                reloading.spawn(tls.clone().watch(server.receiver.clone()));
            }
            let accept = accept(listener, Arc::clone(&server), workers.clone());
            workers.spawn(&mut accepting, accept);
        }
        let receiver = &server.receiver;
        let failed = Notify::new();
        let dispatching = async {
            let dispatched = self.dispatcher.run(server.shutdown()).await;
            if dispatched.is_err() {
                failed.notify_one();
            }
            dispatched
        };
        let serving = async {
            let mut ended = tokio::select! {
                () = shutdown => None,
                () = failed.notified() => {
                    telemetry::inbox_failed();
                    None
                }
                // Until shutdown, only a failure ends a task that accepts connections.
                ended = accepting.join_next(), if !accepting.is_empty() => ended,
            };
            // Requests that have begun are still stored: the inbox is closed after the last of them.
            server.shut_down();
            let mut result = Ok(());
            loop {
                match ended {
                    Some(Err(_)) => {
                        telemetry::server_panicked();
                        result = Err(ServeError::Panicked);
                    }
                    Some(Ok(Err(error))) => result = Err(ServeError::Start(error)),
                    Some(Ok(Ok(()))) | None => {}
                }
                ended = accepting.join_next().await;
                if ended.is_none() {
                    break result;
                }
            }
        };
        let (served, dispatched) = tokio::join!(serving, dispatching);
        receiver.telemetry().report_suppressed();
        let closed = receiver.inbox().close().await;
        // The inbox may need the threads until it is closed, for example for a connection to a
        // database.
        drop(workers);
        served?;
        dispatched?;
        Ok(closed?)
    }
}

/// Why a server could not start or shut down gracefully.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The system has no threads or file descriptors left.
    #[error("cannot start to serve connections")]
    Start(#[source] io::Error),
    /// A thread that accepts or serves connections panicked.
    #[error(
        "a server thread panicked; the panic is in the log. Restart the receiver and report the panic"
    )]
    Panicked,
    /// The inbox failed permanently or could not be closed. Messages that
    /// were not acknowledged may be missing.
    #[error("the inbox cannot be used any more")]
    Inbox(#[from] InboxError),
}

/// Accepts connections and serves each on a thread. When the server shuts down, stops accepting and
/// waits for the connections to close, for the grace period at most.
///
/// One task accepts for all threads, so that each gets as many connections. The threads would accept
/// them unevenly.
async fn accept(listener: Listener, server: Arc<ServerState>, workers: Workers) -> io::Result<()> {
    // The socket may belong to a runtime whose threads the handler blocks.
    let socket = TcpListener::from_std(listener.socket.into_std()?)?;
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(server.shutdown());
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = socket.accept() => accepted,
        };
        let accepted = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer.ip())));
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually no file descriptor is free.
                server.receiver.telemetry().accept_failed(&error);
                time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let Some(connection) = Connection::admit(peer, Arc::clone(&server)) else {
            continue;
        };
        let served = connection.serve(
            stream,
            #[cfg(feature = "tls")]
            listener.tls.clone(),
        );
        workers.spawn(&mut connections, served);
    }
    drop(socket);
    let closed = async { while connections.join_next().await.is_some() {} };
    if time::timeout(server.options.grace, closed).await.is_err() {
        telemetry::connections_aborted(connections.len());
        connections.shutdown().await;
    }
    Ok(())
}
