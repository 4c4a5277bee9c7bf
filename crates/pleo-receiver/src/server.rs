//! The server: accepts connections, sets their limits, and ends in good order.

mod linger;

use core::convert::Infallible;
use core::pin::pin;
use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time;
use tracing::{debug, warn};

use linger::Linger;

use crate::{InboxError, PeerAddr, Receiver};

/// What a server puts up with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerOptions {
    /// How many connections are open at once; more wait to be accepted. 1024 unless set.
    pub max_connections: usize,
    /// How long a connection may take to send a request's headers, and how long it may stay idle.
    /// 15 seconds unless set.
    pub header_timeout: Duration,
    /// How many bytes a request's headers may take; more is answered 431. 16 KiB unless set, at
    /// least 8 KiB.
    pub max_header_bytes: usize,
    /// How long requests in flight may go on after shutdown began. 20 seconds unless set.
    pub grace: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            header_timeout: Duration::from_secs(15),
            max_header_bytes: 16 * 1024,
            grace: Duration::from_secs(20),
        }
    }
}

/// Runs a receiver on a listener until `shutdown` resolves: serves its endpoints and hands messages
/// to its handler. Then it stops accepting, finishes what is in flight, and closes the inbox.
///
/// # Errors
/// The inbox could not be closed in good order.
pub async fn serve(
    listener: TcpListener,
    receiver: Receiver,
    shutdown: impl Future<Output = ()>,
) -> Result<(), InboxError> {
    serve_with(listener, receiver, ServerOptions::default(), shutdown).await
}

/// Like [`serve`], with other limits.
///
/// # Errors
/// The inbox could not be closed in good order.
pub async fn serve_with(
    listener: TcpListener,
    receiver: Receiver,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) -> Result<(), InboxError> {
    let (stop, stopped) = watch::channel(false);
    let stopped = || {
        let mut stopped = stopped.clone();
        async move {
            // An error says that the sender is gone, which means the same.
            let _ = stopped.wait_for(|stopped| *stopped).await;
        }
    };
    let announce = async {
        shutdown.await;
        let _ = stop.send(true);
    };
    tokio::join!(
        announce,
        accept(listener, &receiver, &options, stopped()),
        receiver.dispatch(stopped()),
    );
    receiver.inbox().close().await
}

async fn accept(
    listener: TcpListener,
    receiver: &Receiver,
    options: &ServerOptions,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let slots = Arc::new(Semaphore::new(options.max_connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let slot = Arc::clone(&slots).acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(stream, peer, receiver, options, &graceful);
                connections.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                // Usually no file descriptor is free; trying again at once would only burn time.
                warn!(%error, "cannot accept a connection");
                time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    receiver.refuse_new();
    if time::timeout(options.grace, graceful.shutdown())
        .await
        .is_err()
    {
        warn!("requests still in flight at the end of the grace period are dropped");
        connections.shutdown().await;
    }
}

/// Serves one connection until it closes.
fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    receiver: &Receiver,
    options: &ServerOptions,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + use<> {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let receiver = receiver.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(PeerAddr(peer.ip()));
        let receiver = receiver.clone();
        async move { Ok::<Response<_>, Infallible>(receiver.respond(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(options.max_header_bytes.max(8192))
        .serve_connection(TokioIo::new(Linger::new(stream)), service);
    let connection = graceful.watch(connection);
    async move {
        if let Err(error) = connection.await {
            debug!(%peer, %error, "connection ended early");
        }
    }
}
