//! Serves the requests of one connection.

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

/// How many bytes are read at once.
const READ_BUFFER: usize = 64 * 1024;

/// hyper's default limit of headers. Any other limit costs an allocation per request.
const DEFAULT_MAX_HEADERS: usize = 100;

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error(transparent)]
    Timeout(#[from] Timeout),
    #[cfg(feature = "tls")]
    #[error("TLS handshake failed")]
    Handshake(#[source] std::io::Error),
}

impl ConnectionError {
    /// Returns the reason that metrics count if the peer was too slow.
    pub(super) const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Timeout(Timeout::Slow(Phase::Headers)) => Some("slow_headers"),
            Self::Timeout(Timeout::Slow(Phase::Write)) => Some("slow_reader"),
            _ => None,
        }
    }
}

/// A request in flight. Dropping it records its end.
struct InFlight {
    state: Arc<ConnectionState>,
    is_rejected: bool,
}

/// Serves HTTP/1.1 over TCP until the connection closes.
pub(super) async fn http(
    stream: TcpStream,
    peer: IpAddr,
    server: &Arc<ServerState>,
) -> Result<(), ConnectionError> {
    let state = Arc::new(ConnectionState::default());
    let stream = LingeringStream::new(stream, Arc::clone(&state));
    http1(stream, peer, &state, server).await
}

/// Serves HTTP/1.1 over a stream until the connection closes.
pub(super) async fn http1<S>(
    stream: S,
    peer: IpAddr,
    state: &Arc<ConnectionState>,
    server: &Arc<ServerState>,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let options = &server.options;
    let mut builder = http1::Builder::new();
    builder
        // `ConnectionState` enforces this timeout without a timer per request.
        .header_read_timeout(None)
        // A response is one small buffer.
        .writev(false)
        .max_header_size(options.max_header_bytes)
        .max_buf_size(options.max_header_bytes.max(READ_BUFFER));
    if options.max_headers != DEFAULT_MAX_HEADERS {
        builder.max_headers(options.max_headers);
    }
    let service = service_fn(|request| answer(request, peer, state, server));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    drive(connection, state, server).await
}

/// Answers a request. It is in flight from the call on.
pub(super) fn answer(
    request: Request<Incoming>,
    peer: IpAddr,
    state: &Arc<ConnectionState>,
    server: &Arc<ServerState>,
) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + use<> {
    let mut in_flight = InFlight::new(state);
    let server = Arc::clone(server);
    async move {
        let (parts, body) = request.into_parts();
        let responding = server.receiver.respond_to(Some(peer), parts, body);
        let response = responding.await;
        in_flight.is_rejected = response.status() != StatusCode::NO_CONTENT;
        drop(in_flight);
        Ok(response)
    }
}

/// Drives a connection until it closes.
///
/// At shutdown, and if an idle connection times out or is evicted, it finishes the current responses.
/// Any other timeout drops it.
pub(super) async fn drive<C>(
    connection: C,
    state: &ConnectionState,
    server: &ServerState,
) -> Result<(), ConnectionError>
where
    C: GracefulConnection<Error = hyper::Error>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        result = &mut connection => return Ok(result?),
        timeout = state.timed_out(server, false) => match timeout {
            Timeout::Slow(Phase::Idle(_)) | Timeout::Evicted(Phase::Idle(_)) => {}
            timeout => return Err(timeout.into()),
        },
        () = server.shutdown() => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        result = &mut connection => Ok(result?),
        timeout = state.timed_out(server, true) => Err(timeout.into()),
    }
}

impl InFlight {
    fn new(state: &Arc<ConnectionState>) -> Self {
        state.request_started();
        Self {
            state: Arc::clone(state),
            // Without a response, the request may be incomplete.
            is_rejected: true,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.request_ended(self.is_rejected);
    }
}
