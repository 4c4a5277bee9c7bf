//! The receiver: endpoints, inbox and handler in one service, and the way of a request through it.

use core::convert::Infallible;
use core::fmt;
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use ipnet::IpNet;
use pleo_webhook_verify::Headers;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time;
use tracing::{error, info, warn};

use crate::body_budget::BodyBudget;
use crate::client_ip::{self, PeerAddr};
use crate::dispatch::{self, DispatchOptions, Dispatching};
use crate::error::error_chain;
use crate::metrics::{Accepted, Metrics};
use crate::{Appended, Endpoint, Handler, Inbox, InboxError, NewMessage, Rejection};
use crate::{body, rejection};

/// How long to wait where what hands messages on has panicked.
const DISPATCHER_PAUSE: Duration = Duration::from_secs(1);

/// Takes deliveries at its endpoints, stores them in its inbox, and hands them to its handler.
///
/// Cheap to clone; all clones are the same receiver. [`serve`](crate::serve) runs it whole. Inside
/// another server, mount it as a hyper or tower service, and run [`Self::dispatch`] beside it.
#[derive(Clone)]
pub struct Receiver {
    inner: Arc<Inner>,
}

struct Inner {
    routes: RwLock<Routes>,
    inbox: Arc<dyn Inbox>,
    dispatching: watch::Sender<Arc<Dispatching>>,
    body: body::Limits,
    max_in_flight: usize,
    unverified: BodyBudget,
    trusted_proxies: Vec<IpNet>,
    metrics: Metrics,
    closing: AtomicBool,
}

/// Each endpoint by its path.
type Routes = HashMap<String, Arc<Route>>;

struct Route {
    endpoint: Endpoint,
    accepted: Accepted,
}

impl Receiver {
    /// Starts to put a receiver together.
    pub fn builder() -> ReceiverBuilder {
        ReceiverBuilder {
            endpoints: Vec::new(),
            inbox: None,
            handler: None,
            policy: DispatchOptions::default(),
            body: body::Limits::default(),
            max_in_flight: 4096,
            max_unverified_bytes: 64 * 1024 * 1024,
            trusted_proxies: Vec::new(),
        }
    }

    /// Answers one request. The answer is 204 only when the message is durable.
    pub async fn respond<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = request.into_parts();
        let peer = parts.extensions.get::<PeerAddr>().map(|peer| peer.0);
        self.respond_to(peer, parts, body).await
    }

    /// Answers one request of a peer.
    pub(crate) async fn respond_to<B>(
        &self,
        peer: Option<IpAddr>,
        parts: Parts,
        body: B,
    ) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Some(route) = self.route(parts.uri.path()) else {
            return self.reject(&Arc::default(), Rejection::NoSuchPath);
        };
        match self.receive(&route, peer, parts, body).await {
            Ok(appended) => {
                route.accepted.count(appended);
                rejection::accepted()
            }
            Err(rejection) => self.reject(route.endpoint.name(), rejection),
        }
    }

    /// Puts these endpoints in the place of all there were, at once: a request that comes after this
    /// finds the new ones only, and one that came before is still checked against the old.
    ///
    /// # Errors
    /// No endpoint, or two with one path or one name; then nothing changes.
    pub fn replace_endpoints(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint>,
    ) -> Result<(), BuildError> {
        let new = routes(endpoints, &self.inner.metrics)?;
        let mut routes = self
            .inner
            .routes
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *routes = new;
        Ok(())
    }

    /// Puts this handler and this policy in the place of those there were. Attempts that are under
    /// way end under the old ones, within the old policy's grace; till then they count against the
    /// new policy's limits.
    pub fn replace_handler(&self, handler: Option<Arc<dyn Handler>>, policy: DispatchOptions) {
        let dispatching = Dispatching { handler, policy };
        self.inner.dispatching.send_replace(Arc::new(dispatching));
    }

    /// Hands messages to the handler until `shutdown` resolves, then waits for those in hand.
    ///
    /// A panic in it (an [`Inbox`] of somebody else's may panic, and a [`Handler`] that does is a
    /// failed attempt) is logged and counted, and it begins again after a second: what isn't handed on
    /// waits in the inbox, but what isn't received may be lost. What was in hand comes again when
    /// its lease ends.
    pub async fn dispatch(&self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        loop {
            // Is dropped with this.
            let mut running = JoinSet::new();
            let (go_on, stop) = oneshot::channel();
            running.spawn(self.clone().dispatch_until_panic(stop));
            let (stopped, ended) = tokio::select! {
                () = &mut shutdown => {
                    drop(go_on);
                    (true, running.join_next().await)
                }
                ended = running.join_next() => (false, ended),
            };
            let Some(Err(error)) = ended else { return };
            error!(%error, "what hands messages on has failed, and begins again");
            self.inner.metrics.dispatcher_restarted();
            if stopped {
                return;
            }
            tokio::select! {
                () = &mut shutdown => return,
                () = time::sleep(DISPATCHER_PAUSE) => {}
            }
        }
    }

    async fn dispatch_until_panic(self, stop: oneshot::Receiver<()>) {
        let Inner {
            inbox,
            dispatching,
            metrics,
            ..
        } = &*self.inner;
        let stopped = async {
            // Nothing is ever sent: it ends with the other side.
            let _ = stop.await;
        };
        dispatch::run(inbox, dispatching.subscribe(), metrics, stopped).await;
    }

    /// Answers 503 from now on.
    pub fn start_shutdown(&self) {
        self.inner.closing.store(true, Ordering::Relaxed);
    }

    /// The inbox.
    #[must_use]
    pub fn inbox(&self) -> &Arc<dyn Inbox> {
        &self.inner.inbox
    }

    /// All counters in the text format of OpenMetrics 1.0: deliveries accepted by outcome, requests
    /// rejected by reason, and the handler's attempts by outcome, each by endpoint; requests in
    /// flight, open connections, and those that were refused by reason.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.inner.metrics.encode()
    }

    pub(crate) fn counters(&self) -> &Metrics {
        &self.inner.metrics
    }

    /// Whether this is the address of a trusted proxy.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        client_ip::contains(&self.inner.trusted_proxies, peer.to_canonical())
    }

    fn route(&self, path: &str) -> Option<Arc<Route>> {
        // Nothing can panic while it is being written.
        let routes = self
            .inner
            .routes
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        routes.get(path).map(Arc::clone)
    }

    /// The way of a request through the house. Nothing is hashed before the headers pass, nothing
    /// is parsed before the signature holds, and nothing is answered before it is stored.
    async fn receive<B>(
        &self,
        route: &Route,
        peer: Option<IpAddr>,
        parts: Parts,
        body: B,
    ) -> Result<Appended, Rejection>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let inner = &*self.inner;
        let source = peer
            .and_then(|peer| client_ip::client_ip(peer, &parts.headers, &inner.trusted_proxies));
        let endpoint = &route.endpoint;
        endpoint.check(&parts.method, &parts.headers, source, inner.body.bytes)?;
        if inner.closing.load(Ordering::Relaxed) {
            return Err(Rejection::ShuttingDown);
        }
        endpoint.check_extras(&parts.headers)?;
        let headers = Headers::from_map(&parts.headers)?;
        let in_flight = inner.metrics.in_flight();
        if in_flight.count() > inner.max_in_flight {
            return Err(Rejection::Overloaded);
        }
        let waiting = inner.unverified.request(source);
        let verifying = body::verify(body, endpoint.verifier(), &headers, inner.body, waiting);
        let (id, body) = verifying.await?;
        let message = NewMessage::new(Arc::clone(endpoint.name()), id, body);
        // As long as it's there, it keeps the buffer that it was read into.
        drop(parts);
        self.store(endpoint.name(), message).await
    }

    async fn store(&self, endpoint: &str, message: NewMessage) -> Result<Appended, Rejection> {
        let webhook_id = Arc::clone(&message.webhook_id);
        // A panic of the store must not end the connection without an answer.
        let appended = AssertUnwindSafe(async { self.inner.inbox.append(message).await });
        let panicked = |_| Err(InboxError::Panicked);
        match appended.catch_unwind().await.unwrap_or_else(panicked) {
            Ok(Appended::Conflict) => {
                warn!(%endpoint, webhook_id = &*webhook_id, "known id with other bytes: kept the first");
                Ok(Appended::Conflict)
            }
            Ok(appended) => Ok(appended),
            Err(InboxError::Full) => Err(Rejection::InboxFull),
            Err(InboxError::Closed) => Err(Rejection::ShuttingDown),
            Err(error) => {
                let error = error_chain(&error);
                error!(%endpoint, webhook_id = &*webhook_id, error, "not stored, so not acknowledged");
                Err(Rejection::InboxFailed)
            }
        }
    }

    fn reject(&self, endpoint: &Arc<str>, rejection: Rejection) -> Response<Full<Bytes>> {
        self.inner.metrics.rejected(endpoint, rejection.code());
        info!(%endpoint, reason = rejection.code(), %rejection, "rejected");
        rejection::rejected(&rejection)
    }
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

impl<B> hyper::service::Service<Request<B>> for Receiver
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let receiver = self.clone();
        Box::pin(async move { Ok(receiver.respond(request).await) })
    }
}

impl<B> tower_service::Service<Request<B>> for Receiver
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Send,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        hyper::service::Service::call(self, request)
    }
}

/// Puts a [`Receiver`] together.
#[must_use = "call `build`"]
pub struct ReceiverBuilder {
    endpoints: Vec<Endpoint>,
    inbox: Option<Arc<dyn Inbox>>,
    handler: Option<Arc<dyn Handler>>,
    policy: DispatchOptions,
    body: body::Limits,
    max_in_flight: usize,
    max_unverified_bytes: usize,
    trusted_proxies: Vec<IpNet>,
}

impl ReceiverBuilder {
    /// Adds an endpoint; there must be at least one.
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Sets the inbox; there must be one.
    pub fn inbox(mut self, inbox: impl Inbox) -> Self {
        self.inbox = Some(Arc::new(inbox));
        self
    }

    /// Sets an inbox that somebody else holds too, or of a type known only at run time.
    pub fn shared_inbox(mut self, inbox: Arc<dyn Inbox>) -> Self {
        self.inbox = Some(inbox);
        self
    }

    /// Sets who gets the messages. Without a handler they stay pending in the inbox.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// Sets when a failed message comes again, and how many are handed on at once.
    pub fn dispatch_options(mut self, policy: DispatchOptions) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how many bytes a body may have; 1 MiB unless set.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body.bytes = bytes;
        self
    }

    /// Sets how long a body may take to arrive; 10 seconds unless set. The sender gives up after 15.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body.timeout = timeout;
        self
    }

    /// Sets how many bytes a second a body must bring after its first 5 seconds, from the beginning on;
    /// 1,024 unless set. A client that is slower is answered 408 without waiting for the timeout.
    pub fn min_body_rate(mut self, bytes_per_second: u32) -> Self {
        self.body.least_rate = bytes_per_second;
        self
    }

    /// Sets how many requests are read and stored at once; 4,096 unless set. More are answered 503
    /// at once.
    ///
    /// Of these, no more than three quarters may wait for their bodies, and no more than a quarter
    /// from one IPv4 address or one IPv6 network of 64 bits, as far as the source is known
    /// ([`PeerAddr`](crate::PeerAddr), [`Self::trusted_proxies`]): so neither one who lets its bodies
    /// drip nor many keep out a request that comes whole.
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// Sets how many bytes of bodies that are not there whole, so that nobody knows whether they are
    /// authentic, are held at once; 64 MiB unless set, and at least one body of the size that
    /// [`Self::body_limit`] allows. A quarter of it, and at least one such body, may be of one source.
    /// A request that would bring more is answered 503. A body that comes whole doesn't count.
    pub fn max_unverified_bytes(mut self, bytes: usize) -> Self {
        self.max_unverified_bytes = bytes;
        self
    }

    /// Names the networks of proxies in front, whose `X-Forwarded-For` and `Forwarded` are believed; none unless
    /// set.
    pub fn trusted_proxies(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.trusted_proxies.extend(networks);
        self
    }

    /// Puts it together.
    ///
    /// # Errors
    /// No endpoint, no inbox, or two endpoints with one path or one name.
    pub fn build(self) -> Result<Receiver, BuildError> {
        let metrics = Metrics::new();
        Ok(Receiver {
            inner: Arc::new(Inner {
                routes: RwLock::new(routes(self.endpoints, &metrics)?),
                inbox: self.inbox.ok_or(BuildError::NoInbox)?,
                dispatching: watch::Sender::new(Arc::new(Dispatching {
                    handler: self.handler,
                    policy: self.policy,
                })),
                body: self.body,
                max_in_flight: self.max_in_flight,
                unverified: BodyBudget::new(
                    self.max_in_flight,
                    self.max_unverified_bytes,
                    self.body.bytes,
                ),
                trusted_proxies: self.trusted_proxies,
                metrics,
                closing: AtomicBool::new(false),
            }),
        })
    }
}

fn routes(
    endpoints: impl IntoIterator<Item = Endpoint>,
    metrics: &Metrics,
) -> Result<Routes, BuildError> {
    let (mut routes, mut names) = (Routes::new(), HashSet::new());
    for endpoint in endpoints {
        let (name, path) = (endpoint.name(), endpoint.path().to_owned());
        if routes.contains_key(&path) {
            return Err(BuildError::SamePath { path });
        }
        if !names.insert(Arc::clone(name)) {
            let name = name.to_string();
            return Err(BuildError::SameName { name });
        }
        let accepted = metrics.accepted(name);
        routes.insert(path, Arc::new(Route { endpoint, accepted }));
    }
    if routes.is_empty() {
        return Err(BuildError::NoEndpoint);
    }
    Ok(routes)
}

/// Why a receiver couldn't be put together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// It would take nothing.
    #[error("there is no endpoint: add at least one")]
    NoEndpoint,
    /// It could keep nothing.
    #[error("there is no inbox: set one")]
    NoInbox,
    /// A request couldn't be told apart.
    #[error("two endpoints have the path `{path}`: give each its own")]
    SamePath {
        /// The path.
        path: String,
    },
    /// A stored message couldn't be told apart.
    #[error("two endpoints have the name `{name}`: give each its own")]
    SameName {
        /// The name.
        name: String,
    },
}
