//! The admin listener: health, metrics and the inspection page, apart from the endpoints.

mod credentials;
mod guesses;
mod hosts;
mod listener;
pub(crate) mod metrics;
mod page;
mod readiness;

use core::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use pleo_receiver::{Receiver, Tls};
use serde_json::json;

use self::credentials::Claim;
pub(crate) use self::credentials::Credentials;
use self::guesses::Guesses;
pub(crate) use self::hosts::Hosts;
pub(crate) use self::listener::serve;
use self::metrics::ProgramMetrics;
pub(crate) use self::page::History;
use self::page::{Form, Page as InspectionPage};
use self::readiness::Readiness;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The body of an answer.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Answers the requests of the admin listener.
pub(crate) struct Admin {
    access: RwLock<Arc<Access>>,
    /// Guesses of programs, apart from those at the sign-in of the page.
    guesses: Guesses,
    sign_in_guesses: Guesses,
    receiver: Receiver,
    readiness: Arc<Readiness>,
    metrics: ProgramMetrics,
    page: Arc<InspectionPage>,
}

/// Who may read the pages of the admin listener.
pub(crate) struct Access {
    /// Required of every request, except for `/livez`.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) hosts: Hosts,
    /// Whether the inspection page shows the bodies of messages.
    pub(crate) shows_bodies: bool,
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
        access: Access,
        receiver: &Receiver,
        tls: Option<Tls>,
        metrics: ProgramMetrics,
        history: Arc<History>,
        handler: Option<&'static str>,
    ) -> Self {
        let readiness = Arc::new(Readiness::new(receiver.clone(), tls));
        let shows_bodies = access.shows_bodies;
        let page = InspectionPage::new(receiver, &readiness, history, handler, shows_bodies);
        Self {
            access: RwLock::new(Arc::new(access)),
            guesses: Guesses::default(),
            sign_in_guesses: Guesses::default(),
            receiver: receiver.clone(),
            page: Arc::new(page),
            readiness,
            metrics,
        }
    }

    /// Replaces the credentials and the host names.
    pub(crate) fn set_access(&self, access: Access) {
        let current = self.access.write();
        let mut current = current.unwrap_or_else(PoisonError::into_inner);
        let credentials_changed = current.credentials != access.credentials;
        self.page
            .set_access(access.shows_bodies, credentials_changed);
        *current = Arc::new(access);
    }

    /// Replaces the kind of the handler that the inspection page shows.
    pub(crate) fn set_handler(&self, kind: Option<&'static str>) {
        self.page.set_handler(kind);
    }

    /// Creates the path of a link that signs in to the inspection page once. Returns how long it is
    /// valid.
    pub(crate) fn create_sign_in_link(&self) -> (String, Duration) {
        self.page.create_link()
    }

    /// Makes the receiver not ready, for the rest of the process.
    pub(crate) fn start_shutdown(&self) {
        self.readiness.start_shutdown();
    }

    /// Answers a request. Calls `arrived` when it is complete.
    async fn respond<B>(
        &self,
        peer: IpAddr,
        request: Request<B>,
        arrived: impl FnOnce(),
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn core::error::Error + Send + Sync>>,
    {
        if !self.access().hosts.allow(&request) {
            let status = StatusCode::MISDIRECTED_REQUEST;
            let detail = "the host is neither an IP address nor `localhost`; add its name to \
                          `admin_hosts`";
            return problem(status, "unknown_host", detail);
        }
        let (parts, body) = request.into_parts();
        if InspectionPage::has(parts.uri.path()) {
            let form = match parts.method {
                Method::POST => InspectionPage::read_form(body).await,
                _ => Ok(Form::default()),
            };
            arrived();
            return match form {
                Ok(form) => self.respond_page(peer, parts, form).await,
                Err(refused) => refused,
            };
        }
        arrived();
        let access = Arc::clone(&self.access());
        self.respond_probe(peer, &parts, &access).await
    }

    /// Answers a request to the inspection page. Its form has arrived: the credentials and sessions are
    /// those of now.
    async fn respond_page(&self, peer: IpAddr, parts: Parts, form: Form) -> Response<Body> {
        if parts.method == Method::POST && parts.uri.path() == "/sign-in" {
            // Locked until the session has begun: a change of the credentials ends it.
            let access = self.access();
            let credentials = access.credentials.as_ref();
            return (self.page).sign_in(peer, &parts, &form, credentials, &self.sign_in_guesses);
        }
        let access = Arc::clone(&self.access());
        self.page.respond(peer, parts, form, &access).await
    }

    /// Answers a probe of health or metrics.
    async fn respond_probe(
        &self,
        peer: IpAddr,
        request: &Parts,
        access: &Access,
    ) -> Response<Body> {
        let page = Page::at(request.uri.path());
        if let Some(refused) = self.check_credentials(peer, page, request, access) {
            return refused;
        }
        let Some(page) = page else {
            return answer(StatusCode::NOT_FOUND, TEXT, "not found\n");
        };
        if !matches!(request.method, Method::GET | Method::HEAD) {
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

    fn access(&self) -> RwLockReadGuard<'_, Arc<Access>> {
        self.access.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the answer to a request that has no access.
    fn check_credentials(
        &self,
        peer: IpAddr,
        page: Option<Page>,
        request: &Parts,
        access: &Access,
    ) -> Option<Response<Body>> {
        let credentials = access.credentials.as_ref()?;
        if page == Some(Page::Livez) {
            return None;
        }
        if request.headers.contains_key(AUTHORIZATION) {
            let claim = Claim::from_headers(&request.headers);
            let claim = claim.as_ref();
            if claim.is_some_and(|claim| credentials.check_long_token(claim).is_some()) {
                return None;
            }
            let is_right = || claim.is_some_and(|claim| credentials.check(claim).is_some());
            match self.guesses.check(peer, Instant::now(), is_right) {
                Some(true) => return None,
                Some(false) => {}
                None => {
                    let status = StatusCode::TOO_MANY_REQUESTS;
                    let detail = "too many wrong credentials from this address; retry later";
                    let mut response = problem(status, "too_many_guesses", detail);
                    let seconds = HeaderValue::from_static("1");
                    response.headers_mut().insert(RETRY_AFTER, seconds);
                    return Some(response);
                }
            }
        }
        let mut response = answer(StatusCode::UNAUTHORIZED, TEXT, "credentials required\n");
        let challenge = HeaderValue::from_static(credentials.challenge());
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Some(response)
    }
}

/// Creates a problem document (RFC 9457 section 3) with a `code` member.
fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Body> {
    let problem = json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
    });
    answer(status, PROBLEM, format!("{problem}\n"))
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()).boxed_unsync());
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
