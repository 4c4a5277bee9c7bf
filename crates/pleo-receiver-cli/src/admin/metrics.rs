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
use pleo_receiver::{Receiver, State};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::log::LostLines;

/// The maximum number of concurrent connections. Others wait.
const CONNECTIONS: usize = 32;

/// The metrics of the tasks that a server runs on a schedule.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskMetrics {
    pruned: Family<[(&'static str, &'static str); 1], Counter>,
    catch_ups: Family<[(&'static str, &'static str); 1], Counter>,
    caught_up: Family<[(&'static str, String); 1], Counter>,
}

impl TaskMetrics {
    /// Counts messages that were deleted because of their age.
    pub(crate) fn pruned(&self, state: State, messages: u64) {
        let labels = [("state", state.as_str())];
        self.pruned.get_or_create(&labels).inc_by(messages);
    }

    /// Counts a catch-up.
    pub(crate) fn catch_up(&self, succeeded: bool) {
        let outcome = if succeeded { "done" } else { "failed" };
        self.catch_ups.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts an export job that was added to the inbox.
    pub(crate) fn caught_up(&self, endpoint: &str) {
        let labels = [("endpoint", endpoint.to_owned())];
        self.caught_up.get_or_create(&labels).inc();
    }
}

/// Returns the metrics of the program, besides those of the receiver.
pub(crate) fn registry(lost_lines: LostLines, tasks: &TaskMetrics) -> Registry {
    let mut registry = Registry::with_prefix("pleo_receiver");
    registry.register_collector(Box::new(lost_lines));
    let help = "Messages deleted because of their age by state";
    registry.register("pruned", help, tasks.pruned.clone());
    let help = "Scheduled catch-ups by outcome: done or failed";
    registry.register("catch_ups", help, tasks.catch_ups.clone());
    let help = "Export jobs added by scheduled catch-ups";
    registry.register("caught_up", help, tasks.caught_up.clone());
    registry
}

/// Serves `/metrics` until the program ends: the metrics of the receiver and of the program.
pub(crate) async fn serve(listener: TcpListener, receiver: Receiver, registry: Registry) {
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
