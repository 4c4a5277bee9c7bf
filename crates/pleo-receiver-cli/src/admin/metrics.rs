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
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

/// How many connections are served at once; others wait.
const CONNECTIONS: usize = 32;

/// Serves `/metrics` until the program ends: what the receiver counts, and the lines that the log
/// lost.
pub(crate) async fn serve(listener: TcpListener, receiver: Receiver, lost_lines: Counter) {
    let mut registry = Registry::with_prefix("pleo_receiver");
    registry.register(
        "log_lines_lost",
        "Lines of the log that were not read in time, or could not be written",
        lost_lines,
    );
    let registry = Arc::new(registry);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
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
            // Who comes once in a while needn't hold a place meanwhile.
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to the metrics ended early");
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
    // Writing to a string can't fail.
    let _ = text::encode_registry(&mut page, registry);
    page.push_str(&receiver.metrics());
    let mut response = Response::new(Full::from(page));
    let text = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(text));
    response
}
