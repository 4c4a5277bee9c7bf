//! Serves Prometheus metrics.

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
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::log::LostLines;

/// The maximum number of concurrent connections. Others wait.
const CONNECTIONS: usize = 32;

/// Serves `/metrics` until the program ends: the metrics of the receiver and of the log.
pub(crate) async fn serve(listener: TcpListener, receiver: Receiver, lost_lines: LostLines) {
    let mut registry = Registry::with_prefix("pleo_receiver");
    registry.register_collector(Box::new(lost_lines));
    let registry = Arc::new(registry);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let slot = Arc::clone(&slots).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(core::time::Duration::from_millis(100)).await;
            continue;
        };
        let (receiver, registry) = (receiver.clone(), Arc::clone(&registry));
        let service = service_fn(move |request| {
            let response = respond(&request, &receiver, &registry);
            async { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // An idle scraper would occupy a slot between two requests.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "metrics connection ended early");
            }
            drop(slot);
        });
    }
}

fn respond(
    request: &Request<Incoming>,
    receiver: &Receiver,
    registry: &Registry,
) -> Response<Full<Bytes>> {
    let found = request.method() == Method::GET && request.uri().path() == "/metrics";
    if !found {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    }
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = text::encode_registry(&mut page, registry);
    page.push_str(&receiver.metrics());
    let mut response = Response::new(Full::from(page));
    let text = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(text));
    response
}
