//! The counters, served for Prometheus.

use core::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pleo_receiver::Receiver;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

/// How many connections are served at once; others wait.
const CONNECTIONS: usize = 32;

/// Serves `/metrics` until the program ends.
pub(crate) async fn serve(listener: TcpListener, receiver: Receiver) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let slot = Arc::clone(&slots).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(core::time::Duration::from_millis(100)).await;
            continue;
        };
        let receiver = receiver.clone();
        let service = service_fn(move |request| {
            let response = respond(&request, &receiver);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to the metrics ended early");
            }
            drop(slot);
        });
    }
}

fn respond(request: &Request<Incoming>, receiver: &Receiver) -> Response<Full<Bytes>> {
    let found = request.method() == Method::GET && request.uri().path() == "/metrics";
    if !found {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let mut response = Response::new(Full::from(receiver.metrics()));
    let text = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(text));
    response
}
