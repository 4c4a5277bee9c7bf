//! The HTTP server: connections, hosts, routes.

use core::time::Duration;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time;

use crate::access;
use crate::api;
use crate::control;
use crate::error::Error;
use crate::http_message::{Request, json_response, response};
use crate::operations::Operations;
use crate::options::SandboxOptions;

/// The largest body of a request.
const MAX_BODY: usize = 1024 * 1024;

/// How long the headers of a request may take.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the body of a request may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait after a failed accept, as when the process has too many open files.
const ACCEPT_DELAY: Duration = Duration::from_millis(100);

pub(crate) struct Server {
    listener: TcpListener,
    address: SocketAddr,
    #[cfg(feature = "tls")]
    acceptor: Option<tokio_rustls::TlsAcceptor>,
}

/// What each request needs.
struct Context {
    operations: Operations,
    url: String,
}

impl Server {
    pub(crate) async fn bind(options: &SandboxOptions) -> Result<Self, Error> {
        let address = options.listen;
        if !address.ip().is_loopback() && options.hosts.is_empty() {
            return Err(Error::NotLoopback { address });
        }
        let cannot_listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(cannot_listen)?;
        Ok(Self {
            address: listener.local_addr().map_err(cannot_listen)?,
            listener,
            #[cfg(feature = "tls")]
            acceptor: match &options.authority {
                Some(authority) => Some(authority.acceptor(&["localhost", "127.0.0.1"])?),
                None => None,
            },
        })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the base URL, for clients on this machine.
    pub(crate) fn url(&self, options: &SandboxOptions) -> String {
        let port = self.address.port();
        #[cfg(feature = "tls")]
        if self.acceptor.is_some() {
            return format!("https://localhost:{port}");
        }
        match options.hosts.first() {
            Some(host) if !self.address.ip().is_loopback() => format!("http://{host}:{port}"),
            _ => format!("http://{}", self.address),
        }
    }

    /// Serves until the task is aborted, which also closes all connections.
    pub(crate) async fn serve(self, operations: Operations, url: String) {
        let context = Arc::new(Context { operations, url });
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                time::sleep(ACCEPT_DELAY).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            let context = Arc::clone(&context);
            #[cfg(feature = "tls")]
            if let Some(acceptor) = self.acceptor.clone() {
                connections.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve_connection(TokioIo::new(stream), context).await;
                    }
                });
                continue;
            }
            connections.spawn(serve_connection(TokioIo::new(stream), context));
        }
    }
}

async fn serve_connection(stream: impl Read + Write + Unpin, context: Arc<Context>) {
    let service = service_fn(|request| respond(Arc::clone(&context), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(stream, service);
    // An error is the client's: it has closed the connection or sent no HTTP.
    let _ = connection.await;
}

/// Responds to a request. An error closes the connection.
async fn respond(
    context: Arc<Context>,
    request: http::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let operations = &context.operations;
    if !access::names_sandbox(&head, &operations.shared.options.hosts) {
        let text = "this host name is not one of the sandbox\n";
        return Ok(response(StatusCode::MISDIRECTED_REQUEST, TEXT, text));
    }
    if access::is_of_other_page(&head) {
        let error = json!({ "error": "the request comes from another web page" });
        return Ok(json_response(StatusCode::FORBIDDEN, &error));
    }
    let body = Limited::new(body, MAX_BODY).collect();
    let Ok(Ok(body)) = time::timeout(BODY_TIMEOUT, body).await else {
        let text = "the body is larger than 1 MiB, incomplete or too slow\n";
        return Ok(response(StatusCode::PAYLOAD_TOO_LARGE, TEXT, text));
    };
    let request = Request {
        method: head.method,
        uri: head.uri,
        headers: head.headers,
        body: body.to_bytes(),
    };
    match request.segments()[..] {
        ["v1" | "v3", ..] => api::respond(&operations.shared, &request).await,
        _ => Ok(control::respond(operations, &context.url, &request).await),
    }
}

const TEXT: &str = "text/plain;charset=UTF-8";
