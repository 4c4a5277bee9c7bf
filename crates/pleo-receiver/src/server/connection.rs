//! Serves one connection.

use core::convert::Infallible;
use core::future::poll_fn;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;
use core::time::Duration;
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
use tokio::sync::watch;
use tokio::{task, time};

#[cfg(feature = "tls")]
use super::control_frames::FrameLimit;
use super::linger::LingeringStream;
use super::options::ServerOptions;
use super::phase::{Phase, Progress};
#[cfg(feature = "tls")]
use super::tls::Tls;
use crate::admission::{FairPool, Source, Standing};
use crate::receiver::Receiver;
use crate::rejection::Rejection;

/// The largest read in bytes.
const BUFFER: usize = 64 * 1024;

/// hyper's default limit; any other costs an allocation per request.
const DEFAULT_HEADERS: usize = 100;

/// How long the first request of a connection may take to begin after the server began to shut down.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

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

/// The state that all connections of a server share.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) receiver: Receiver,
    pub(super) options: ServerOptions,
    connections: Arc<FairPool>,
    is_shutting_down: AtomicBool,
    shutdown: watch::Sender<()>,
}

impl ServerState {
    pub(super) fn new(receiver: Receiver, options: ServerOptions) -> Self {
        Self {
            receiver,
            connections: FairPool::new(options.max_connections, options.max_connections_per_source),
            options,
            is_shutting_down: AtomicBool::new(false),
            shutdown: watch::Sender::new(()),
        }
    }

    /// Tells all connections to close once their requests are answered.
    pub(super) fn shut_down(&self) {
        self.is_shutting_down.store(true, Ordering::SeqCst);
        self.shutdown.send_replace(());
        self.connections.wake_all();
    }

    /// Resolves when the server shuts down.
    pub(super) async fn shutdown(&self) {
        let mut shutdown = self.shutdown.subscribe();
        if !self.is_shutting_down.load(Ordering::SeqCst) {
            // The sender lives as long as `self`.
            let _ = shutdown.changed().await;
        }
    }

    /// Resolves when the server shuts down, in a task that also waits for the eviction of its
    /// connection and so is woken. Costs less than [`Self::shutdown`] where it is polled often.
    async fn connection_shutdown(&self) {
        poll_fn(|_| match self.is_shutting_down.load(Ordering::SeqCst) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("the connection failed")]
    Http(#[from] hyper::Error),
    #[cfg(feature = "tls")]
    #[error("the TLS handshake failed")]
    Handshake(#[source] std::io::Error),
    #[error("closed while waiting for the peer ({0:?})")]
    Timeout(Phase),
    #[error("evicted for a connection of another source")]
    Evicted,
}

impl ConnectionError {
    /// Returns the label under which metrics count the connection, if it exceeded a limit.
    pub(super) const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Timeout(Phase::Headers) => Some("slow_headers"),
            Self::Timeout(Phase::Unread) => Some("slow_reader"),
            Self::Timeout(Phase::Flood) => Some("control_frames"),
            Self::Evicted => Some("evicted"),
            _ => None,
        }
    }
}

/// A connection and its requests.
pub(super) struct Connection {
    peer: IpAddr,
    progress: Arc<Progress>,
    server: Arc<ServerState>,
}

impl Connection {
    /// Admits a connection, or returns `None` if its source may not have one more.
    ///
    /// A trusted proxy is always admitted: its clients are told apart request by request.
    pub(super) fn admit(peer: IpAddr, server: Arc<ServerState>) -> Option<Self> {
        let receiver = &server.receiver;
        let source = Source::from(peer);
        let is_proxy = receiver.is_trusted_proxy(peer);
        let standing = |other| {
            if is_proxy && other == source {
                Standing::Proxy
            } else {
                receiver.admission().standing(other)
            }
        };
        let Ok(permit) = server.connections.acquire(source, 1, &standing) else {
            receiver.telemetry().connection_refused(peer);
            return None;
        };
        Some(Self {
            peer,
            progress: Arc::new(Progress::new(&server.options, permit)),
            server,
        })
    }

    /// Serves the connection until it closes: HTTP/1.1, or over TLS also HTTP/2.
    pub(super) async fn serve(
        self,
        stream: std::net::TcpStream,
        #[cfg(feature = "tls")] tls: Option<Tls>,
    ) {
        let connection = Arc::new(self);
        let Self { peer, server, .. } = &*connection;
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return server.receiver.telemetry().accept_failed(&error),
        };
        // Clients wait for small responses.
        let _ = stream.set_nodelay(true);
        let _open = server.receiver.telemetry().metrics.connection();
        let timeout = server.options.write_timeout;
        let stream = LingeringStream::new(stream, Arc::clone(&connection.progress), timeout);
        #[cfg(feature = "tls")]
        let served = match tls {
            // Boxed: a plain connection needs much less memory.
            Some(tls) => Box::pin(connection.https(stream, &tls)).await,
            None => connection.http1(stream).await,
        };
        #[cfg(not(feature = "tls"))]
        let served = connection.http1(stream).await;
        if let Err(error) = served {
            let telemetry = server.receiver.telemetry();
            telemetry.connection_closed(*peer, error.reason(), &error);
            if matches!(error, ConnectionError::Evicted) {
                telemetry.evicted("connection", Source::from(*peer));
            }
        }
    }

    async fn http1<S>(self: &Arc<Self>, stream: S) -> Result<(), ConnectionError>
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
            // Otherwise hyper tries to read while a request is in flight, into a second buffer.
            .half_close(true)
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
    async fn https<S>(self: &Arc<Self>, stream: S, tls: &Tls) -> Result<(), ConnectionError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let handshake = tokio_rustls::TlsAcceptor::from(tls.config()).accept(stream);
        let stream = tokio::select! {
            biased;
            stream = handshake => stream.map_err(ConnectionError::Handshake)?,
            phase = self.progress.timed_out() => return Err(ConnectionError::Timeout(phase)),
            () = self.progress.evicted() => return Err(ConnectionError::Evicted),
            () = self.closing() => return Ok(()),
        };
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(stream).await
        } else {
            self.http1(stream).await
        }
    }

    #[cfg(feature = "tls")]
    async fn http2<S>(self: &Arc<Self>, stream: S) -> Result<(), ConnectionError>
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
        let stream = FrameLimit::new(stream, Arc::clone(&self.progress));
        let service = service_fn(|request| self.respond(request));
        self.drive(builder.serve_connection(TokioIo::new(stream), service))
            .await
    }

    /// Answers one request.
    fn respond(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + use<> {
        let connection = Arc::clone(self);
        let mut open = self.progress.begin_request();
        let (parts, body) = request.into_parts();
        async move {
            let (peer, receiver) = (connection.peer, &connection.server.receiver);
            let response = match check_framing(&parts) {
                Ok(()) => receiver.respond_to(Some(peer), parts, body).await,
                Err(rejection) => receiver.reject_unrouted(parts.uri.path(), Some(peer), rejection),
            };
            open.was_rejected = response.status() != StatusCode::NO_CONTENT;
            if open.was_rejected {
                // Otherwise a client could use up the thread with many cheap requests at once.
                task::yield_now().await;
            }
            drop(open);
            Ok(response)
        }
    }

    /// Resolves when the server shuts down and no first request of the connection is on its way.
    async fn closing(&self) {
        self.server.connection_shutdown().await;
        // A client that has just connected gets its answer.
        let _ = time::timeout(FIRST_REQUEST, self.progress.headers_arrived()).await;
    }

    /// Drives a connection until it closes: gracefully when the server shuts down or the connection
    /// was idle for too long, at once if the peer is too slow or the connection is evicted.
    async fn drive<C>(&self, connection: C) -> Result<(), ConnectionError>
    where
        C: GracefulConnection<Error = hyper::Error>,
    {
        let mut connection = pin!(connection);
        let mut closing = pin!(self.closing());
        let mut is_closing = false;
        loop {
            tokio::select! {
                biased;
                result = &mut connection => return Ok(result?),
                phase = self.progress.timed_out() => if phase != Phase::Idle || is_closing {
                    return Err(ConnectionError::Timeout(phase));
                },
                () = self.progress.evicted() => return Err(ConnectionError::Evicted),
                () = &mut closing, if !is_closing => {}
            }
            is_closing = true;
            self.progress.on_close();
            connection.as_mut().graceful_shutdown();
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
