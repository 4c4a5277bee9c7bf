//! One connection, from its first byte to its last.

use core::convert::Infallible;
use core::pin::pin;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::connection_state::{ConnectionState, Phase, Timeout};
use super::linger::LingeringStream;
use super::state::ServerState;

/// As many bytes as are read at once, at most.
const BUFFER: usize = 64 * 1024;

/// hyper's own limit on the number of headers; any other costs an allocation for each request.
const USUAL_HEADERS: usize = 100;

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Timeout(Timeout),
    #[cfg(feature = "tls")]
    #[error("no TLS connection came about: {0}")]
    Handshake(std::io::Error),
}

impl ConnectionError {
    /// A stable name, where the peer asked too much.
    pub(super) const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Timeout(Timeout::Slow(Phase::Headers)) => Some("slow_headers"),
            Self::Timeout(Timeout::Slow(Phase::Write)) => Some("slow_reader"),
            _ => None,
        }
    }
}

/// A request that is not answered yet.
struct Open {
    pace: Arc<ConnectionState>,
    refused: bool,
}

/// Serves HTTP/1.1 in the clear until the connection closes.
pub(super) async fn http(
    stream: TcpStream,
    peer: IpAddr,
    state: &Arc<ServerState>,
) -> Result<(), ConnectionError> {
    let pace = Arc::new(ConnectionState::default());
    let wire = LingeringStream::new(stream, Arc::clone(&pace));
    http1(wire, peer, &pace, state).await
}

/// Serves HTTP/1.1 until the connection closes.
pub(super) async fn http1<S>(
    stream: S,
    peer: IpAddr,
    pace: &Arc<ConnectionState>,
    state: &Arc<ServerState>,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let options = &state.options;
    let mut builder = http1::Builder::new();
    builder
        // It would set a timer for each request.
        .header_read_timeout(None)
        // An answer is one small piece.
        .writev(false)
        .max_header_size(options.max_header_bytes)
        .max_buf_size(options.max_header_bytes.max(BUFFER));
    if options.max_headers != USUAL_HEADERS {
        builder.max_headers(options.max_headers);
    }
    let service = service_fn(|request| answer(request, peer, pace, state));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    drive(connection, pace, state).await
}

/// Has a request answered; it counts as open from now on.
pub(super) fn answer(
    request: Request<Incoming>,
    peer: IpAddr,
    pace: &Arc<ConnectionState>,
    state: &Arc<ServerState>,
) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + use<> {
    let mut open = Open::new(pace);
    let state = Arc::clone(state);
    async move {
        let (parts, body) = request.into_parts();
        let responding = state.receiver.respond_to(Some(peer), parts, body);
        let response = responding.await;
        open.refused = response.status() != StatusCode::NO_CONTENT;
        drop(open);
        Ok(response)
    }
}

/// Drives a connection to its end: gently where it only waits for one more request and the server
/// stops, somebody else needs the room, or that takes too long; at once where the peer is too slow.
pub(super) async fn drive<C>(
    connection: C,
    pace: &ConnectionState,
    state: &ServerState,
) -> Result<(), ConnectionError>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        result = &mut connection => return Ok(result?),
        overdue = pace.overdue(state, false) => match overdue {
            Timeout::Slow(Phase::Request(_)) | Timeout::Evicted(Phase::Request(_)) => {}
            overdue => return Err(ConnectionError::Timeout(overdue)),
        },
        () = state.stopped() => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        result = &mut connection => Ok(result?),
        overdue = pace.overdue(state, true) => Err(ConnectionError::Timeout(overdue)),
    }
}

impl Open {
    fn new(pace: &Arc<ConnectionState>) -> Self {
        pace.begin();
        Self {
            pace: Arc::clone(pace),
            // Until it is answered.
            refused: true,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.pace.end(self.refused);
    }
}
