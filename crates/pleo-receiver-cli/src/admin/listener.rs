//! Accepts and serves the connections of the admin listener.

use core::convert::Infallible;
use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time;
use tracing::debug;

use super::Admin;

/// The maximum number of open connections. Another connection takes the place of the oldest one that
/// has sent no request.
const CONNECTIONS: usize = 32;

/// The maximum time until the last header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum time of a connection, which serves one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait before accepting again after an error.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// An open connection.
struct Connection {
    task: AbortHandle,
    has_request: Arc<AtomicBool>,
}

/// Serves the admin pages until the program ends.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let mut connections = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        make_room(&mut connections);
        let has_request = Arc::new(AtomicBool::new(false));
        let connection = serve_connection(stream, Arc::clone(&admin), Arc::clone(&has_request));
        let task = tokio::spawn(connection).abort_handle();
        connections.push_back(Connection { task, has_request });
    }
}

/// Closes a connection if the limit is reached: the oldest without a request, else the oldest.
fn make_room(connections: &mut VecDeque<Connection>) {
    connections.retain(|connection| !connection.task.is_finished());
    if connections.len() < CONNECTIONS {
        return;
    }
    let is_silent = |connection: &Connection| !connection.has_request.load(Ordering::Relaxed);
    let oldest = connections.iter().position(is_silent).unwrap_or_default();
    if let Some(connection) = connections.remove(oldest) {
        connection.task.abort();
    }
}

async fn serve_connection(stream: TcpStream, admin: Arc<Admin>, has_request: Arc<AtomicBool>) {
    let service = service_fn(|request| {
        has_request.store(true, Ordering::Relaxed);
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.respond(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // An idle client would occupy a connection between two requests.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match time::timeout(TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin connection ended early"),
        Err(_) => debug!("admin connection timed out"),
    }
}
