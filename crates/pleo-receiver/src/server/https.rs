//! A connection over TLS, with HTTP/2 or HTTP/1.1.

use std::net::IpAddr;
use std::sync::Arc;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::connection::{ConnectionError, answer, drive, http1};
use super::connection_state::ConnectionState;
use super::linger::LingeringStream;
use super::state::ServerState;
use super::tls::Tls;

/// How many requests an HTTP/2 connection may have open at once.
const STREAMS: u32 = 64;

/// How many bytes of a request an HTTP/2 peer may send before they are read.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for all requests of a connection together.
const WINDOW: u32 = 256 * 1024;

/// Serves what the client chooses (RFC 7301) until the connection closes.
pub(super) async fn https(
    stream: TcpStream,
    peer: IpAddr,
    state: &Arc<ServerState>,
    tls: &Tls,
) -> Result<(), ConnectionError> {
    let pace = Arc::new(ConnectionState::default());
    let wire = LingeringStream::new(stream, Arc::clone(&pace));
    let handshake = TlsAcceptor::from(tls.config()).accept(wire);
    let stream = tokio::select! {
        biased;
        stream = handshake => stream.map_err(ConnectionError::Handshake)?,
        overdue = pace.overdue(state, false) => return Err(ConnectionError::Timeout(overdue)),
        () = state.stopped() => return Ok(()),
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        pace.framed();
        http2(stream, peer, &pace, state).await
    } else {
        http1(stream, peer, &pace, state).await
    }
}

async fn http2<S>(
    stream: S,
    peer: IpAddr,
    pace: &Arc<ConnectionState>,
    state: &Arc<ServerState>,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let header_bytes = u32::try_from(state.options.max_header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(header_bytes);
    let service = service_fn(|request| answer(request, peer, pace, state));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    drive(connection, pace, state).await
}
