//! Accepts and serves the connections of the admin listener.

use core::convert::Infallible;
use core::time::Duration;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time;

use super::Admin;

/// The maximum number of open connections. Another connection takes the place of one whose request has
/// not arrived completely: the oldest of the address with the most connections.
const CONNECTIONS: usize = 32;

/// The maximum time until the last header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum time of a connection, which serves one request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait before accepting again after an error.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// An open connection.
struct Connection {
    peer: IpAddr,
    task: AbortHandle,
    has_request: Arc<AtomicBool>,
}

/// Serves the admin pages until the program ends.
pub(crate) async fn serve(listener: TcpListener, admin: Arc<Admin>) {
    let mut connections = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            time::sleep(ACCEPT_RETRY_DELAY).await;
            continue;
        };
        let peer = peer.ip();
        if !make_room(&mut connections, peer) {
            continue;
        }
        let has_request = Arc::new(AtomicBool::new(false));
        let connection =
            serve_connection(stream, peer, Arc::clone(&admin), Arc::clone(&has_request));
        let task = tokio::spawn(connection).abort_handle();
        connections.push_back(Connection {
            peer,
            task,
            has_request,
        });
    }
}

/// Makes room for a connection of this peer. Returns `false` if there is none.
fn make_room(connections: &mut VecDeque<Connection>, peer: IpAddr) -> bool {
    connections.retain(|connection| !connection.task.is_finished());
    if connections.len() < CONNECTIONS {
        return true;
    }
    let open = |peer: IpAddr| {
        connections
            .iter()
            .filter(|other| other.peer == peer)
            .count()
    };
    let silent = (connections.iter().enumerate())
        .filter(|(_, connection)| !connection.has_request.load(Ordering::Relaxed));
    // Of equals, `max_by_key` finds the last: the oldest, in reverse.
    let largest = silent.rev().max_by_key(|(_, other)| open(other.peer));
    let Some((index, largest)) = largest else {
        return false;
    };
    if open(largest.peer) < open(peer) {
        return false;
    }
    if let Some(connection) = connections.remove(index) {
        connection.task.abort();
    }
    true
}

async fn serve_connection(
    stream: TcpStream,
    peer: IpAddr,
    admin: Arc<Admin>,
    has_request: Arc<AtomicBool>,
) {
    let service = service_fn(|request| {
        let (admin, has_request) = (Arc::clone(&admin), Arc::clone(&has_request));
        let arrived = move || has_request.store(true, Ordering::Relaxed);
        async move { Ok::<_, Infallible>(admin.respond(peer, request, arrived).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        // An idle client would occupy a connection between two requests.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // An error is not logged: any client could cause it, as often as it likes.
    let _ = time::timeout(TIMEOUT, connection).await;
}

#[cfg(test)]
mod tests {
    use core::future::pending;

    use super::*;

    fn connection(peer: u8, has_request: bool) -> Connection {
        Connection {
            peer: IpAddr::from([127, 0, 0, peer]),
            task: tokio::spawn(pending::<()>()).abort_handle(),
            has_request: Arc::new(AtomicBool::new(has_request)),
        }
    }

    #[tokio::test]
    async fn flood_of_one_address_takes_no_place_of_another() {
        let mut connections: VecDeque<_> = [connection(1, false)].into();
        for number in 0..1000 {
            assert!(
                make_room(&mut connections, IpAddr::from([127, 0, 0, 2])),
                "{number}"
            );
            connections.push_back(connection(2, false));
            assert!(connections.len() <= CONNECTIONS);
        }
        assert_eq!(connections[0].peer, IpAddr::from([127, 0, 0, 1]));
        assert!(!connections[0].task.is_finished());
        assert!(make_room(&mut connections, IpAddr::from([127, 0, 0, 3])));
        assert_eq!(connections[0].peer, IpAddr::from([127, 0, 0, 1]));
    }

    #[tokio::test]
    async fn connection_with_request_keeps_its_place() {
        let mut connections: VecDeque<_> = (0..CONNECTIONS).map(|_| connection(1, true)).collect();
        assert!(!make_room(&mut connections, IpAddr::from([127, 0, 0, 2])));
        connections[7] = connection(2, false);
        assert!(!make_room(&mut connections, IpAddr::from([127, 0, 0, 1])));
        assert!(make_room(&mut connections, IpAddr::from([127, 0, 0, 2])));
        assert_eq!(connections.len(), CONNECTIONS - 1);
    }
}
