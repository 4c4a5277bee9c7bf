//! Serves one connection.

use core::convert::Infallible;
use core::pin::pin;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tracing::debug;

use super::linger::LingeringStream;
use super::phase::{Phase, Progress};
use super::state::ServerState;
use crate::admission::Permit;
use crate::error::error_chain;
use crate::rejection::Rejection;

/// The largest read in bytes.
const BUFFER: usize = 64 * 1024;

/// hyper's default limit; any other costs an allocation per request.
const DEFAULT_HEADERS: usize = 100;

/// Limits of an HTTP/2 connection.
#[cfg(feature = "tls")]
mod h2_limits {
    /// How many requests may be open at once.
    pub(super) const STREAMS: u32 = 64;

    /// How many bytes of a request's body the peer may send before they are read.
    pub(super) const STREAM_WINDOW: u32 = 64 * 1024;

    /// The same for all requests of the connection together.
    pub(super) const CONNECTION_WINDOW: u32 = 256 * 1024;
}

/// A connection that was accepted.
pub(super) struct AcceptedConnection {
    pub(super) stream: TcpStream,
    pub(super) peer: IpAddr,
    pub(super) permit: Permit,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<super::tls::Tls>,
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the connection failed")]
    Http(#[from] hyper::Error),
    #[cfg(feature = "tls")]
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    #[error("timed out waiting for the peer ({0:?})")]
    Timeout(Phase),
    #[error("evicted for a connection of another source")]
    Evicted,
}

impl ConnectionError {
    /// Returns the label under which metrics count the connection, if it exceeded a limit.
    pub(super) const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Timeout(Phase::Headers) => Some("slow_headers"),
            Self::Timeout(Phase::Write) => Some("slow_reader"),
            Self::Evicted => Some("room"),
            _ => None,
        }
    }
}

impl AcceptedConnection {
    /// Serves the connection until it closes.
    pub(super) async fn serve(self, server: Arc<ServerState>) {
        let peer = self.peer;
        let counters = server.receiver.counters();
        let _open = counters.connection();
        if let Err(error) = self.serve_http(&server).await {
            if let Some(reason) = error.reason() {
                counters.refused_connection(reason);
            }
            if matches!(error, ConnectionError::Evicted) {
                server
                    .receiver
                    .admission()
                    .log_eviction("connection", peer.into());
            }
            let reason = error_chain(&error);
            debug!(%peer, reason, "connection closed early");
        }
    }

    /// Serves HTTP/1.1, or over TLS also HTTP/2.
    async fn serve_http(self, server: &Arc<ServerState>) -> Result<(), ConnectionError> {
        let progress = Arc::new(Progress::new(&server.options, self.permit));
        let stream = LingeringStream::new(self.stream, Arc::clone(&progress));
        let service = ConnectionService {
            peer: self.peer,
            progress,
            server: Arc::clone(server),
        };
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls {
            // Boxed: a plain connection needs much less memory.
            return Box::pin(service.https(stream, &tls)).await;
        }
        service.http1(stream).await
    }
}

/// Answers the requests of one connection.
struct ConnectionService {
    peer: IpAddr,
    progress: Arc<Progress>,
    server: Arc<ServerState>,
}

impl ConnectionService {
    async fn http1<S>(self, stream: S) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let options = &self.server.options;
        let mut builder = http1::Builder::new();
        builder
            // It cannot tell an idle connection from slow headers, and sets a timer per request.
            .header_read_timeout(None)
            // A response is one small piece.
            .writev(false)
            .max_header_size(options.max_header_bytes)
            .max_buf_size(options.max_header_bytes.max(BUFFER));
        if options.max_headers != DEFAULT_HEADERS {
            builder.max_headers(options.max_headers);
        }
        let service = service_fn(|request| self.respond(request));
        self.drive(builder.serve_connection(TokioIo::new(stream), service))
            .await
    }

    #[cfg(feature = "tls")]
    async fn https<S>(self, stream: S, tls: &super::tls::Tls) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let handshake = tokio_rustls::TlsAcceptor::from(tls.config()).accept(stream);
        let stream = tokio::select! {
            biased;
            stream = handshake => stream.map_err(ConnectionError::Handshake)?,
            phase = self.progress.timed_out() => return Err(ConnectionError::Timeout(phase)),
            () = self.progress.evicted() => return Err(ConnectionError::Evicted),
            () = self.server.shutdown() => return Ok(()),
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(stream).await
        } else {
            self.http1(stream).await
        }
    }

    #[cfg(feature = "tls")]
    async fn http2<S>(self, stream: S) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        use hyper::server::conn::http2;
        use hyper_util::rt::TokioExecutor;

        self.progress.set_http2();
        let header_bytes = u32::try_from(self.server.options.max_header_bytes);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .max_concurrent_streams(h2_limits::STREAMS)
            .initial_stream_window_size(h2_limits::STREAM_WINDOW)
            .initial_connection_window_size(h2_limits::CONNECTION_WINDOW)
            .max_header_list_size(header_bytes.unwrap_or(u32::MAX));
        let service = service_fn(|request| self.respond(request));
        self.drive(builder.serve_connection(TokioIo::new(stream), service))
            .await
    }

    /// Answers one request.
    fn respond(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + use<> {
        let mut open = OpenRequest::new(&self.progress);
        let (peer, server) = (self.peer, Arc::clone(&self.server));
        async move {
            let (parts, body) = request.into_parts();
            let response = match check_framing(&parts) {
                Ok(()) => server.receiver.respond_to(Some(peer), parts, body).await,
                Err(rejection) => {
                    let path = parts.uri.path();
                    server.receiver.reject_unrouted(path, Some(peer), rejection)
                }
            };
            open.was_rejected = response.status() != StatusCode::NO_CONTENT;
            drop(open);
            Ok(response)
        }
    }

    /// Drives a connection until it closes: gracefully when the server shuts down or the connection
    /// was idle for too long, at once if the peer is too slow or the connection is evicted.
    async fn drive<C>(&self, connection: C) -> Result<(), ConnectionError>
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let progress = &*self.progress;
        let mut connection = pin!(connection);
        tokio::select! {
            biased;
            result = &mut connection => return Ok(result?),
            phase = progress.timed_out() => if phase != Phase::Idle {
                return Err(ConnectionError::Timeout(phase));
            },
            () = progress.evicted() => return Err(ConnectionError::Evicted),
            () = self.server.shutdown() => {}
        }
        progress.on_close();
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            result = &mut connection => Ok(result?),
            phase = progress.timed_out() => Err(ConnectionError::Timeout(phase)),
            () = progress.evicted() => Err(ConnectionError::Evicted),
        }
    }
}

/// Rejects an HTTP/1.1 request that another server could take for a different one.
fn check_framing(parts: &Parts) -> Result<(), Rejection> {
    if parts.version == Version::HTTP_11 && !parts.headers.contains_key(HOST) {
        return Err(Rejection::MissingHost);
    }
    let mut encodings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(()),
        (Some(only), None) if is_chunked(only) => Ok(()),
        _ => Err(Rejection::AmbiguousFraming),
    }
}

/// A request without a response yet.
struct OpenRequest {
    progress: Arc<Progress>,
    was_rejected: bool,
}

impl OpenRequest {
    fn new(progress: &Arc<Progress>) -> Self {
        progress.on_request();
        Self {
            progress: Arc::clone(progress),
            // Unless it is accepted.
            was_rejected: true,
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.progress.on_response(self.was_rejected);
    }
}
