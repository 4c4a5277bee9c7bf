//! The server: accepts connections, enforces their limits and shuts down gracefully.

mod connection;
mod connection_state;
#[cfg(feature = "tls")]
mod https;
mod linger;
mod options;
mod state;
#[cfg(feature = "tls")]
mod tls;
mod workers;

use core::pin::pin;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time;
use tracing::{debug, error, warn};

use crate::inbox::InboxError;
use crate::receiver::Receiver;
pub use options::ServerOptions;
use state::ServerState;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
use workers::{AcceptedConnection, Workers};

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
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Server::new(receiver).listen(listener).run(shutdown).await
}

/// Serves a receiver on any number of sockets, over HTTP and HTTPS.
#[derive(Debug)]
#[must_use = "call `run`"]
pub struct Server {
    receiver: Receiver,
    options: ServerOptions,
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Listener {
    /// Moves the listener to another runtime.
    fn on(mut self, runtime: &Handle) -> io::Result<Self> {
        let socket = self.socket.into_std()?;
        let _guard = runtime.enter();
        self.socket = TcpListener::from_std(socket)?;
        Ok(self)
    }
}

impl Server {
    /// Creates a server without listeners.
    pub fn new(receiver: Receiver) -> Self {
        Self {
            receiver,
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
        let server = Arc::new(ServerState::new(self.receiver, self.options));
        let workers = Workers::start(server.options.threads, &server).map_err(ServeError::Start)?;
        let workers = Arc::new(workers);
        let mut accepting = JoinSet::new();
        // A set aborts its tasks when it is dropped.
        #[cfg(feature = "tls")]
        let mut reloading = JoinSet::new();
        for listener in self.listeners {
            #[cfg(feature = "tls")]
            if let Some(tls) = &listener.tls {
                reloading.spawn(tls.clone().watch());
            }
            let listener = listener.on(workers.handle()).map_err(ServeError::Start)?;
            let accept = accept(listener, Arc::clone(&server), Arc::clone(&workers));
            accepting.spawn_on(accept, workers.handle());
        }
        let panicked = Notify::new();
        let shutting_down = async {
            tokio::select! {
                () = shutdown => {}
                () = panicked.notified() => error!("server thread panicked; shutting down"),
                () = server.receiver.inbox().broken() => error!("inbox failed; shutting down"),
            }
            server.receiver.start_shutdown();
            server.shut_down();
        };
        let serving = async {
            let mut result = Ok(());
            while let Some(ended) = accepting.join_next().await {
                if !matches!(ended, Ok(true)) {
                    result = Err(ServeError::Panicked);
                    panicked.notify_one();
                }
            }
            match Arc::into_inner(workers) {
                Some(workers) => (Some(workers.drain().await), result),
                None => (None, result),
            }
        };
        let dispatching = server.receiver.dispatch(server.shutdown());
        let ((), (workers, served), ()) = tokio::join!(shutting_down, serving, dispatching);
        let closed = server.receiver.inbox().close().await;
        if let Some(workers) = workers {
            workers.stop();
        }
        served?;
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
    /// The inbox [failed permanently](crate::Inbox::broken) or could not be closed. Messages that
    /// were not acknowledged may be missing.
    #[error("cannot close the inbox")]
    Inbox(#[from] InboxError),
}

/// Accepts connections until the server shuts down. Returns `false` if a worker panicked.
async fn accept(listener: Listener, server: Arc<ServerState>, workers: Arc<Workers>) -> bool {
    let mut shutdown = pin!(server.shutdown());
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return true,
            accepted = listener.socket.accept() => accepted,
        };
        // Another runtime may serve the connection.
        let accepted = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer.ip())));
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually no file descriptor is free.
                warn!(%error, "cannot accept connection");
                time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            }
        };
        let Some(source_permit) = server.source_permit(peer) else {
            server.receiver.counters().refused_connection("source");
            debug!(%peer, reason = "source", "connection refused");
            continue;
        };
        let permit = tokio::select! {
            () = &mut shutdown => return true,
            permit = server.permit() => permit,
        };
        // Clients wait for small responses.
        let _ = stream.set_nodelay(true);
        let connection = AcceptedConnection {
            stream,
            peer,
            #[cfg(feature = "tls")]
            tls: listener.tls.clone(),
            permit,
            source_permit,
        };
        if !workers.serve(connection) {
            return false;
        }
    }
}
