//! The server: accepts connections, sets their limits, and ends in good order.

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

use crate::{InboxError, Receiver};
pub use options::ServerOptions;
use state::ServerState;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
use workers::{AcceptedConnection, Workers};

/// Runs a receiver on a listener until `shutdown` resolves: serves its endpoints and hands messages
/// to its handler. Then it stops accepting, finishes what is in flight, and closes the inbox.
///
/// [`Server`] has more to choose.
///
/// # Errors
/// The system gives no thread or no more open files, what serves connections panicked, or the inbox
/// [broke](crate::Inbox::broken) or could not be closed in good order.
pub async fn serve(
    listener: TcpListener,
    receiver: Receiver,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    Server::new(receiver).listen(listener).run(shutdown).await
}

/// A receiver with the sockets that it listens on.
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
    /// The same on another runtime.
    fn on(mut self, runtime: &Handle) -> io::Result<Self> {
        let socket = self.socket.into_std()?;
        let _there = runtime.enter();
        self.socket = TcpListener::from_std(socket)?;
        Ok(self)
    }
}

impl Server {
    /// A server that listens nowhere yet.
    pub fn new(receiver: Receiver) -> Self {
        Self {
            receiver,
            options: ServerOptions::default(),
            listeners: Vec::new(),
        }
    }

    /// Sets its limits.
    pub fn options(mut self, options: ServerOptions) -> Self {
        self.options = options;
        self
    }

    /// Serves HTTP/1.1 here; may be called again for other sockets.
    pub fn listen(mut self, socket: TcpListener) -> Self {
        self.listeners.push(Listener {
            socket,
            #[cfg(feature = "tls")]
            tls: None,
        });
        self
    }

    /// Serves HTTP/2 and HTTP/1.1 over TLS here, as the client chooses; may be called again for other
    /// sockets.
    #[cfg(feature = "tls")]
    pub fn listen_tls(mut self, socket: TcpListener, tls: Tls) -> Self {
        let tls = Some(tls);
        self.listeners.push(Listener { socket, tls });
        self
    }

    /// Serves the endpoints and hands messages to the handler until `shutdown` resolves. Then it
    /// stops accepting, finishes what is in flight, and closes the inbox.
    ///
    /// Connections are served by threads of their own ([`ServerOptions::threads`]), the handler runs
    /// on the runtime that this is called on. Dropped before its end, it ends all connections.
    ///
    /// # Errors
    /// The system gives no thread or no more open files, what serves connections panicked, or the
    /// inbox [broke](crate::Inbox::broken) or could not be closed in good order.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let state = Arc::new(ServerState::new(self.receiver, self.options));
        let threads = Workers::start(state.options.threads, &state).map_err(ServeError::Start)?;
        let threads = Arc::new(threads);
        let mut listening = JoinSet::new();
        // Ends when this does.
        #[cfg(feature = "tls")]
        let mut watching = JoinSet::new();
        for listener in self.listeners {
            #[cfg(feature = "tls")]
            if let Some(tls) = &listener.tls {
                watching.spawn(tls.clone().watch());
            }
            let listener = listener.on(threads.handle()).map_err(ServeError::Start)?;
            let accepting = accept(listener, Arc::clone(&state), Arc::clone(&threads));
            listening.spawn_on(accepting, threads.handle());
        }
        let broken = Notify::new();
        let end = async {
            tokio::select! {
                () = shutdown => {}
                () = broken.notified() => error!("what serves connections has panicked: stopping"),
                () = state.receiver.inbox().broken() => error!("the inbox is broken: stopping"),
            }
            state.receiver.start_shutdown();
            state.stop();
        };
        let serving = async {
            let mut result = Ok(());
            while let Some(ended) = listening.join_next().await {
                if !matches!(ended, Ok(true)) {
                    result = Err(ServeError::Panicked);
                    broken.notify_one();
                }
            }
            match Arc::into_inner(threads) {
                Some(threads) => (Some(threads.finish().await), result),
                None => (None, result),
            }
        };
        let handing_on = state.receiver.dispatch(state.stopped());
        let ((), (idle, served), ()) = tokio::join!(end, serving, handing_on);
        let closed = state.receiver.inbox().close().await;
        if let Some(idle) = idle {
            idle.end();
        }
        served?;
        Ok(closed?)
    }
}

/// Why a server couldn't begin, or not end in good order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The system gave it no thread, or no more open files.
    #[error("cannot start to serve connections: {0}")]
    Start(#[source] io::Error),
    /// What takes or serves connections panicked, so that it stopped.
    #[error(
        "what serves connections has panicked: restart it, and see what was written of the panic"
    )]
    Panicked,
    /// What it had to store or to note may not be in the inbox's file.
    #[error("the inbox was not closed in good order: {0}")]
    Inbox(#[from] InboxError),
}

/// Takes whoever connects until the server stops, or a thread is no more: says whether it's the former.
async fn accept(listener: Listener, state: Arc<ServerState>, threads: Arc<Workers>) -> bool {
    let mut stopped = pin!(state.stopped());
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => return true,
            accepted = listener.socket.accept() => accepted,
        };
        // It is for another runtime.
        let accepted = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer.ip())));
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Usually no file descriptor is free; trying again at once would only burn time.
                warn!(%error, "cannot accept a connection");
                time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(share) = state.share(peer) else {
            state.receiver.counters().refused_connection("source");
            debug!(%peer, "closed at once: too many connections from there");
            continue;
        };
        let slot = tokio::select! {
            () = &mut stopped => return true,
            slot = state.slot() => slot,
        };
        // Answers are small and waited for.
        let _ = stream.set_nodelay(true);
        let arrival = AcceptedConnection {
            stream,
            peer,
            #[cfg(feature = "tls")]
            tls: listener.tls.clone(),
            slot,
            share,
        };
        if !threads.serve(arrival) {
            return false;
        }
    }
}
