//! The receiver: endpoints, inbox and handler in one service, and the way of a request through it.

use core::convert::Infallible;
use core::fmt;
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use core::time::Duration;
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
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time;
use tracing::{error, info, warn};

use crate::body;
use crate::body_budget::BodyBudget;
use crate::client_ip::{self, PeerAddr};
use crate::dispatch::{self, DispatchOptions, Dispatching};
use crate::endpoint::Endpoint;
use crate::handler::Handler;
use crate::inbox::{Appended, Inbox, InboxError, NewMessage};
use crate::metrics::Metrics;
use crate::rejection::{self, Rejection};
use crate::routes::{self, BuildError, Route, Routes};

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

pub(crate) struct Inner {
    pub(crate) routes: RwLock<Routes>,
    pub(crate) inbox: Arc<dyn Inbox>,
    pub(crate) dispatching: watch::Sender<Arc<Dispatching>>,
    pub(crate) body: body::Limits,
    /// One permit for each request that may be read and stored at once.
    pub(crate) in_flight: Semaphore,
    pub(crate) unverified: BodyBudget,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) metrics: Metrics,
    pub(crate) closing: AtomicBool,
}

impl Receiver {
    pub(crate) fn new(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        Self { inner }
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
        let new = routes::routes(endpoints, &self.inner.metrics)?;
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
        let _permit = (inner.in_flight.try_acquire()).map_err(|_| Rejection::Overloaded)?;
        let _in_flight = inner.metrics.in_flight();
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
                error!(%endpoint, webhook_id = &*webhook_id, %error, "not stored, so not acknowledged");
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
