//! Serves HTTP/2 and HTTP/1.1 over TLS.

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

/// How many streams an HTTP/2 connection may have open.
const MAX_STREAMS: u32 = 64;

/// The flow-control window of a stream in bytes.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The flow-control window of a connection in bytes.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// Serves the HTTP version that the client chooses (ALPN, RFC 7301) until the connection closes.
pub(super) async fn https(
    stream: TcpStream,
    peer: IpAddr,
    server: &Arc<ServerState>,
    tls: &Tls,
) -> Result<(), ConnectionError> {
    let state = Arc::new(ConnectionState::default());
    let stream = LingeringStream::new(stream, Arc::clone(&state));
    let handshake = TlsAcceptor::from(tls.config()).accept(stream);
    let stream = tokio::select! {
        biased;
        stream = handshake => stream.map_err(ConnectionError::Handshake)?,
        timeout = state.timed_out(server, false) => return Err(timeout.into()),
        () = server.shutdown() => return Ok(()),
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        state.set_http2();
        http2(stream, peer, &state, server).await
    } else {
        http1(stream, peer, &state, server).await
    }
}

async fn http2<S>(
    stream: S,
    peer: IpAddr,
    state: &Arc<ConnectionState>,
    server: &Arc<ServerState>,
) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let header_bytes = u32::try_from(server.options.max_header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_bytes);
    let service = service_fn(|request| answer(request, peer, state, server));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    drive(connection, state, server).await
}
