//! The receiver: the request path from the first check to the durable append.

use core::fmt;
use core::panic::AssertUnwindSafe;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{Extensions, HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::Full;
use ipnet::IpNet;
use pleo_webhook_verify::{SignatureHeaders, VerifyError};
use tokio::sync::watch;

use crate::admission::{Admission, Source};
use crate::body;
use crate::client_ip;
use crate::dispatch::{DispatchOptions, Dispatching};
use crate::endpoint::Endpoint;
use crate::handler::Handler;
use crate::inbox::{Appended, Inbox, InboxError, InboxErrorKind, NewMessage, StoredHeaders};
use crate::measure::InboxMeter;
use crate::rejection::{self, Rejection};
use crate::routes::{self, BuildError, Route, Routes};
use crate::telemetry::{self, AuthenticDelivery, RejectedRequest, Telemetry};
use crate::trace::{ReceiveSpan, Tracing};

/// The headers of a request that are kept with a message. Each is in one of the two sets of signature
/// headers, or says where the message belongs in the sender's trace.
const STORED_HEADERS: [&str; 7] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "svix-id",
    "svix-timestamp",
    "svix-signature",
    "traceparent",
];

/// How many bytes of the message id of a rejected request are logged.
const LOGGED_ID: usize = 256;

/// Receives deliveries at its endpoints, stores them in its inbox and dispatches them to its handler.
///
/// Cheap to clone; all clones are the same receiver. [`serve`](crate::serve) runs it as a server.
/// Inside another server, mount it as a tower service, or the service of
/// [one endpoint](Self::endpoint_service), and run its [`Dispatcher`](crate::Dispatcher) beside it.
#[derive(Clone)]
pub struct Receiver {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) routes: RwLock<Routes>,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) dispatching: watch::Sender<Arc<Dispatching>>,
    pub(crate) body_limits: body::Limits,
    pub(crate) admission: Admission,
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Finds the peer address in the extensions of a request.
    pub(crate) peer_from: fn(&Extensions) -> Option<IpAddr>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) tracing: Tracing,
    pub(crate) inbox_meter: InboxMeter,
    /// The fatal error of the inbox, once there is one.
    pub(crate) failure: watch::Sender<Option<InboxError>>,
    pub(crate) is_dispatching: Arc<AtomicBool>,
    pub(crate) shutting_down: AtomicBool,
    /// Whether the warning of an untrusted proxy was logged.
    pub(crate) has_warned: AtomicBool,
}

impl Receiver {
    pub(crate) fn new(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        Self { inner }
    }

    /// Answers a request. Responds 204 only after the message is durable.
    pub async fn respond<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let route = self.route(request.uri().path());
        let (parts, body) = request.into_parts();
        let peer = (self.inner.peer_from)(&parts.extensions);
        self.respond_at(route, peer, parts, body).await
    }

    /// Answers a request of the peer with this address.
    pub(crate) fn respond_to<B>(
        &self,
        peer: Option<IpAddr>,
        parts: Parts,
        body: B,
    ) -> impl Future<Output = Response<Full<Bytes>>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let route = self.route(parts.uri.path());
        self.respond_at(route, peer, parts, body)
    }

    async fn respond_at<B>(
        &self,
        route: Option<Arc<Route>>,
        peer: Option<IpAddr>,
        parts: Parts,
        body: B,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let trusted_proxies = &self.inner.trusted_proxies;
        self.warn_of_untrusted_proxy(peer, &parts.headers);
        let source =
            peer.and_then(|peer| client_ip::client_ip(peer, &parts.headers, trusted_proxies));
        let Some(route) = route else {
            return self.reject_unrouted(parts.uri.path(), source, Rejection::NoSuchPath);
        };
        let arrived = Instant::now();
        let mut span = self.inner.tracing.receive(&route.endpoint, source, &parts);
        let _in_flight = self.inner.telemetry.metrics.in_flight();
        let verified = self.verify(&route, source, arrived, &parts, body, &mut span);
        let verified = verified.await;
        // Frees the connection's read buffer, which the headers point into.
        drop(parts);
        let stored = match verified {
            Ok(message) => self.store(&route, arrived, message, &mut span).await,
            Err(rejected) => Err(rejected),
        };
        match stored {
            Ok(()) => rejection::accepted(),
            Err(Rejected {
                rejection,
                webhook_id,
                removed_secret,
            }) => {
                let request = RejectedRequest {
                    endpoint: Some(route.endpoint.name()),
                    webhook_id: webhook_id.as_deref(),
                    source,
                    removed_secret,
                    ..RejectedRequest::default()
                };
                self.inner.telemetry.rejected(request, &rejection);
                span.rejected(&rejection, webhook_id.as_deref());
                rejection::rejected(&rejection)
            }
        }
    }

    /// Answers a request at the endpoint with this name. Its path does not count.
    pub(crate) async fn respond_for<B>(
        &self,
        endpoint: &str,
        request: Request<B>,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let route = self.route_by_name(endpoint);
        let (parts, body) = request.into_parts();
        let peer = (self.inner.peer_from)(&parts.extensions);
        self.respond_at(route, peer, parts, body).await
    }

    /// Replaces all endpoints. Requests that already started are checked against the old endpoints.
    ///
    /// The last secrets that an endpoint of the same name has no more are remembered for a day. They
    /// accept nothing: the log tells a delivery that is signed with one apart from a forgery.
    ///
    /// # Errors
    /// There is no endpoint, or two have the same path or name. Then nothing changes.
    pub fn replace_endpoints(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<(), BuildError> {
        let routes = self.inner.routes.write();
        let mut routes = routes.unwrap_or_else(PoisonError::into_inner);
        *routes = routes::routes(endpoints, &routes, &self.inner.telemetry)?;
        Ok(())
    }

    /// Returns the endpoints, by name.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let routes = self.inner.routes.read();
        let routes = routes.unwrap_or_else(PoisonError::into_inner);
        let endpoints = routes.values().map(|route| route.endpoint.clone());
        let mut endpoints: Vec<_> = endpoints.collect();
        endpoints.sort_by(|one, other| one.name().cmp(other.name()));
        endpoints
    }

    /// Replaces the handler and its options. Attempts that already started keep the old handler and
    /// the old options, for the old grace period at most. They count against the new concurrency.
    pub fn replace_handler(&self, handler: Option<Arc<dyn Handler>>, options: DispatchOptions) {
        let dispatching = Dispatching { handler, options };
        self.inner.dispatching.send_replace(Arc::new(dispatching));
    }

    /// Rejects all further requests with 503.
    pub fn start_shutdown(&self) {
        self.inner.shutting_down.store(true, Ordering::Relaxed);
    }

    /// Returns `true` while its [`Dispatcher`](crate::Dispatcher) runs, except while it restarts
    /// after a panic.
    #[must_use]
    pub fn is_dispatching(&self) -> bool {
        self.inner.is_dispatching.load(Ordering::Relaxed)
    }

    /// Returns the inbox.
    #[must_use]
    pub fn inbox(&self) -> &Arc<dyn Inbox> {
        &self.inner.inbox
    }

    /// Returns the metrics of deliveries, handlers and connections in the OpenMetrics 1.0 text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        let Telemetry {
            meters, metrics, ..
        } = &*self.inner.telemetry;
        meters.encode() + &metrics.encode()
    }

    /// Returns the metrics of the inbox in the same format, without its last line, so that
    /// [`metrics`](Self::metrics) can follow. Asks the inbox at most once a second, and leaves out its
    /// metrics if it cannot be read within five seconds.
    pub async fn inbox_metrics(&self) -> String {
        let endpoints: Vec<_> = {
            let routes = self.inner.routes.read();
            let routes = routes.unwrap_or_else(PoisonError::into_inner);
            let meter =
                |route: &Arc<Route>| (Arc::clone(route.endpoint.name()), Arc::clone(&route.meter));
            routes.values().map(meter).collect()
        };
        let inbox = &*self.inner.inbox;
        self.inner.inbox_meter.encode(inbox, &endpoints).await
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.inner.admission
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.inner.telemetry
    }

    /// Returns `true` for the address of a trusted proxy.
    pub(crate) fn is_trusted_proxy(&self, peer: IpAddr) -> bool {
        client_ip::contains(&self.inner.trusted_proxies, peer.to_canonical())
    }

    fn route(&self, path: &str) -> Option<Arc<Route>> {
        let routes = self.inner.routes.read();
        // No code panics while it holds the lock for writing.
        let routes = routes.unwrap_or_else(PoisonError::into_inner);
        routes.get(path).map(Arc::clone)
    }

    pub(crate) fn route_by_name(&self, name: &str) -> Option<Arc<Route>> {
        let routes = self.inner.routes.read();
        let routes = routes.unwrap_or_else(PoisonError::into_inner);
        let mut routes = routes.values();
        let route = routes.find(|route| &**route.endpoint.name() == name);
        route.map(Arc::clone)
    }

    /// Checks a request and returns its message. Hashes nothing before the headers pass.
    async fn verify<B>(
        &self,
        route: &Route,
        source: Option<IpAddr>,
        arrived: Instant,
        parts: &Parts,
        body: B,
        span: &mut ReceiveSpan,
    ) -> Result<NewMessage, Rejected>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (inner, endpoint) = (&*self.inner, &route.endpoint);
        let limits = inner.body_limits;
        endpoint.check_request(&parts.method, &parts.headers, source, limits.bytes)?;
        if inner.shutting_down.load(Ordering::Relaxed) {
            return Err(Rejection::ShuttingDown.into());
        }
        endpoint.check_credentials(&parts.headers)?;
        let headers = SignatureHeaders::from_pairs(&parts.headers)?;
        let permit = inner.admission.body(Source::from(source));
        let verified = body::verify(body, endpoint.verifier(), &headers, limits, permit);
        let authentic = verified.await.map_err(|refused| Rejected {
            rejection: refused.rejection,
            webhook_id: headers.id().map(claimed_id),
            removed_secret: (refused.unauthentic)
                .is_some_and(|body| self.is_by_removed_secret(route, &headers, &body)),
        })?;
        (route.meter).authentic(authentic.secret_index, authentic.body.len(), arrived);
        let context = span.start(&authentic.id, authentic.body.len());
        let name = Arc::clone(endpoint.name());
        let message = NewMessage::new(name, authentic.id, authentic.body);
        let headers = stored_headers(&parts.headers, context);
        Ok(message.with_source(source).with_headers(headers))
    }

    /// Stores an authentic message. The inbox parses it.
    async fn store(
        &self,
        route: &Route,
        arrived: Instant,
        message: NewMessage,
        span: &mut ReceiveSpan,
    ) -> Result<(), Rejected> {
        let (inner, endpoint) = (&*self.inner, route.endpoint.name());
        let (id, source) = (Arc::clone(&message.webhook_id), message.source);
        let rejected = |rejection: Rejection| Rejected {
            webhook_id: Some(Arc::clone(&id)),
            ..rejection.into()
        };
        // Only an authentic message takes a slot: nobody else can use them up.
        let _slot = inner.admission.store().map_err(rejected)?;
        let appended = self
            .append(endpoint, &id, message)
            .await
            .map_err(rejected)?;
        if appended == Appended::Stored {
            // Not for a duplicate: anybody who saw a delivery can repeat it.
            inner.admission.delivered(source.into(), arrived.into());
        }
        span.accepted(appended);
        let elapsed = arrived.elapsed();
        route.meter.acknowledged(elapsed);
        let delivery = AuthenticDelivery {
            endpoint,
            webhook_id: &id,
            source,
            elapsed,
        };
        (inner.telemetry).accepted(&route.accepted, delivery, appended);
        Ok(())
    }

    /// Returns `true` if a delivery that is not authentic is signed with a secret that was removed.
    /// Returns `false` if its log line is suppressed: so forgeries cause no more hashing than log
    /// lines.
    fn is_by_removed_secret(
        &self,
        route: &Route,
        headers: &SignatureHeaders<'_>,
        body: &[u8],
    ) -> bool {
        let telemetry = &self.inner.telemetry;
        telemetry.logs_mismatch(route.endpoint.name())
            && route.removed.signed(headers, body, Instant::now())
    }

    async fn append(
        &self,
        endpoint: &Arc<str>,
        webhook_id: &str,
        message: NewMessage,
    ) -> Result<Appended, Rejection> {
        // A panic of the inbox must not close the connection without a response.
        let append = AssertUnwindSafe(async { self.inner.inbox.append(message).await });
        let panicked = |_| {
            Err(InboxError::new(
                InboxErrorKind::Unavailable,
                "the inbox panicked",
            ))
        };
        match append.catch_unwind().await.unwrap_or_else(panicked) {
            Ok(appended) => Ok(appended),
            Err(error) => match error.kind() {
                InboxErrorKind::Busy => Err(Rejection::InboxFull),
                InboxErrorKind::Closed => Err(Rejection::ShuttingDown),
                kind => {
                    self.inner
                        .telemetry
                        .append_failed(endpoint, webhook_id, &error);
                    if kind == InboxErrorKind::Fatal {
                        self.inner.failure.send_replace(Some(error));
                    }
                    Err(Rejection::InboxFailed)
                }
            },
        }
    }

    /// Warns once if requests seem to come through a proxy that is not trusted: all of its clients
    /// then share the limits of one source.
    fn warn_of_untrusted_proxy(&self, peer: Option<IpAddr>, headers: &HeaderMap) {
        if let Some(peer) = peer
            && client_ip::is_forwarded(headers)
            && !self.is_trusted_proxy(peer)
            && !self.inner.has_warned.swap(true, Ordering::Relaxed)
        {
            telemetry::untrusted_proxy(peer);
        }
    }

    /// Rejects a request that reaches no endpoint.
    pub(crate) fn reject_unrouted(
        &self,
        path: &str,
        source: Option<IpAddr>,
        rejection: Rejection,
    ) -> Response<Full<Bytes>> {
        let request = RejectedRequest {
            path: Some(path),
            source,
            ..RejectedRequest::default()
        };
        self.inner.telemetry.rejected(request, &rejection);
        rejection::rejected(&rejection)
    }
}

/// A request that is rejected.
struct Rejected {
    rejection: Rejection,
    /// The message id in the headers, if they were read. It may be forged.
    webhook_id: Option<Arc<str>>,
    /// Whether it is signed with a secret that was removed.
    removed_secret: bool,
}

impl From<Rejection> for Rejected {
    fn from(rejection: Rejection) -> Self {
        Self {
            rejection,
            webhook_id: None,
            removed_secret: false,
        }
    }
}

impl From<VerifyError> for Rejected {
    fn from(error: VerifyError) -> Self {
        Rejection::from(error).into()
    }
}

/// Returns the start of the message id of a request that is not authentic.
fn claimed_id(id: &[u8]) -> Arc<str> {
    let id = id.get(..LOGGED_ID).unwrap_or(id);
    String::from_utf8_lossy(id).into()
}

/// Returns the headers to keep with a message, and the one that has the context of its receive span.
fn stored_headers(headers: &HeaderMap, context: Option<(&'static str, String)>) -> StoredHeaders {
    let kept = (headers.iter()).filter(|(name, _)| STORED_HEADERS.contains(&name.as_str()));
    let kept = kept.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let context = context
        .as_ref()
        .map(|(name, value)| (*name, value.as_str()));
    kept.chain(context).collect()
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.inner.routes.read();
        let routes = routes.unwrap_or_else(PoisonError::into_inner);
        let endpoints: Vec<_> = routes.values().map(|route| &route.endpoint).collect();
        f.debug_struct("Receiver")
            .field("endpoints", &endpoints)
            .field("inbox", &self.inner.inbox)
            .finish_non_exhaustive()
    }
}
