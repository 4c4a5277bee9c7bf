//! The admin listener: health and metrics, apart from the endpoints.

mod credentials;
mod listener;
pub(crate) mod metrics;
mod readiness;

use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use pleo_receiver::{Receiver, Tls};

pub(crate) use self::credentials::Credentials;
pub(crate) use self::listener::serve;
use self::metrics::ProgramMetrics;
use self::readiness::Readiness;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers the requests of the admin listener.
pub(crate) struct Admin {
    /// Required of every request, except for `/livez`.
    credentials: RwLock<Option<Credentials>>,
    receiver: Receiver,
    readiness: Readiness,
    metrics: ProgramMetrics,
}

/// A page of the admin listener.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Livez,
    Readyz,
    Metrics,
}

impl Page {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/livez" => Some(Self::Livez),
            "/readyz" => Some(Self::Readyz),
            "/metrics" => Some(Self::Metrics),
            _ => None,
        }
    }
}

impl Admin {
    pub(crate) fn new(
        credentials: Option<Credentials>,
        receiver: &Receiver,
        tls: Option<Tls>,
        metrics: ProgramMetrics,
    ) -> Self {
        Self {
            credentials: RwLock::new(credentials),
            receiver: receiver.clone(),
            readiness: Readiness::new(receiver.clone(), tls),
            metrics,
        }
    }

    /// Replaces the credentials.
    pub(crate) fn set_credentials(&self, credentials: Option<Credentials>) {
        let current = self.credentials.write();
        *current.unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// Makes the receiver not ready, for the rest of the process.
    pub(crate) fn start_shutdown(&self) {
        self.readiness.start_shutdown();
    }

    async fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let page = Page::at(request.uri().path());
        if page != Some(Page::Livez)
            && let Some(unauthorized) = self.check_credentials(request)
        {
            return unauthorized;
        }
        let Some(page) = page else {
            return answer(StatusCode::NOT_FOUND, TEXT, "not found\n");
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let mut response = answer(status, TEXT, "method not allowed\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
        match page {
            Page::Livez => answer(StatusCode::OK, TEXT, "ok\n"),
            Page::Readyz => {
                let (is_ready, report) = self.readiness.report().await;
                let status = match is_ready {
                    true => StatusCode::OK,
                    false => StatusCode::SERVICE_UNAVAILABLE,
                };
                answer(status, JSON, report)
            }
            Page::Metrics => {
                let checks = self.readiness.checks().await;
                let program = self.metrics.encode(&checks);
                let inbox = self.receiver.inbox_metrics().await;
                let page = program + &inbox + &self.receiver.metrics();
                answer(StatusCode::OK, OPENMETRICS, page)
            }
        }
    }

    /// Returns the answer to a request without the credentials, if they are required.
    fn check_credentials<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        let credentials = self.credentials.read();
        let credentials = credentials.unwrap_or_else(PoisonError::into_inner);
        let credentials = credentials.as_ref()?;
        if credentials.allow(request.headers()) {
            return None;
        }
        let mut response = answer(StatusCode::UNAUTHORIZED, TEXT, "credentials required\n");
        let challenge = HeaderValue::from_static(credentials.challenge());
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Some(response)
    }
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}
