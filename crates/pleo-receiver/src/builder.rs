//! Builds a receiver from its endpoints, inbox, handler and limits.

use core::time::Duration;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use http::Extensions;
use ipnet::IpNet;
#[cfg(feature = "otel")]
use opentelemetry::global::ObjectSafeTracerProvider;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::body;
use crate::client_ip::PeerAddr;
use crate::dispatch::{self, DispatchOptions, Dispatcher, Dispatching};
use crate::endpoint::Endpoint;
use crate::handler::Handler;
use crate::inbox::Inbox;
use crate::measure::InboxMeter;
use crate::receiver::{Inner, Receiver};
use crate::rejection::Rejected;
use crate::routes::{self, BuildError, Routes};
use crate::telemetry::{OnRejected, Telemetry};
use crate::trace::Tracing;

impl Receiver {
    /// Creates a builder of a receiver with this inbox and the default limits. Pass an
    /// [`Arc`] to use the inbox in other code too.
    pub fn builder(inbox: impl Inbox) -> ReceiverBuilder {
        ReceiverBuilder {
            endpoints: Vec::new(),
            inbox: Arc::new(inbox),
            handler: None,
            dispatch_options: DispatchOptions::default(),
            body_limits: body::Limits::default(),
            max_in_flight: 4096,
            max_unverified_bytes: 64 * 1024 * 1024,
            trusted_proxies: Vec::new(),
            peer_from: PeerAddr::from_extensions,
            tracing: Tracing::default(),
            on_rejected: None,
        }
    }
}

/// Builds a [`Receiver`].
#[must_use = "call `build`"]
pub struct ReceiverBuilder {
    endpoints: Vec<Endpoint>,
    inbox: Arc<dyn Inbox>,
    handler: Option<Arc<dyn Handler>>,
    dispatch_options: DispatchOptions,
    body_limits: body::Limits,
    max_in_flight: usize,
    max_unverified_bytes: usize,
    trusted_proxies: Vec<IpNet>,
    peer_from: fn(&Extensions) -> Option<IpAddr>,
    tracing: Tracing,
    on_rejected: Option<OnRejected>,
}

impl ReceiverBuilder {
    /// Adds an endpoint. At least one is required.
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Sets the handler. Without one, messages stay pending in the inbox.
    pub fn handler(mut self, handler: impl Handler) -> Self {
        self.handler = Some(Arc::new(handler));
        self
    }

    /// Sets the retry schedule and the concurrency of the dispatcher.
    pub fn dispatch_options(mut self, options: DispatchOptions) -> Self {
        self.dispatch_options = options;
        self
    }

    /// Sets the largest body in bytes; 1 MiB unless set. A larger body is answered 413.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limits.bytes = bytes;
        self
    }

    /// Sets how long a body may take to arrive; 10 seconds unless set. Pleo gives up after 15. A
    /// slower body is answered 408.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_limits.timeout = timeout;
        self
    }

    /// Sets the minimum rate of a body in bytes per second; 1,024 unless set. It is the average since
    /// the start of the body and applies after 5 seconds. A slower body is answered 408 before its
    /// timeout.
    pub fn min_body_rate(mut self, bytes_per_second: u32) -> Self {
        self.body_limits.min_rate = bytes_per_second;
        self
    }

    /// Sets how many requests may wait for their bodies, and how many authentic messages may be
    /// stored at once; 4,096 each unless set. Further requests are answered 503 immediately.
    ///
    /// When too many wait for their bodies, the source with the most of them loses one to another
    /// source, unless it delivered something authentic lately. A source is an IPv4 address or an
    /// IPv6 network, if it is known ([`PeerAddr`](crate::PeerAddr), [`Self::trusted_proxies`]).
    pub fn max_in_flight(mut self, requests: usize) -> Self {
        self.max_in_flight = requests;
        self
    }

    /// Sets how many bytes of incomplete bodies are kept in memory; 64 MiB unless set, at least
    /// [`Self::body_limit`]. They are not verified yet, and are shared among sources as requests
    /// are. A request that gets no more is answered 503. Bodies that arrive complete with their
    /// headers don't count.
    pub fn max_unverified_bytes(mut self, bytes: usize) -> Self {
        self.max_unverified_bytes = bytes;
        self
    }

    /// Adds the networks of proxies whose `X-Forwarded-For` and `Forwarded` are trusted; none unless
    /// set.
    pub fn trusted_proxies(mut self, networks: &[IpNet]) -> Self {
        self.trusted_proxies.extend(networks);
        self
    }

    /// Sets how the peer address of the connection is found in a request's extensions; by
    /// [`PeerAddr`] unless set. For a receiver inside another server.
    ///
    /// ```
    /// use axum::extract::ConnectInfo;
    /// use core::net::SocketAddr;
    ///
    /// # fn set(builder: pleo_receiver::ReceiverBuilder) -> pleo_receiver::ReceiverBuilder {
    /// builder.peer_from(|extensions| {
    ///     let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    ///     Some(peer.ip())
    /// })
    /// # }
    /// ```
    pub fn peer_from(mut self, find: fn(&Extensions) -> Option<IpAddr>) -> Self {
        self.peer_from = find;
        self
    }

    /// Calls a function for each rejected request, before it is answered; for counts by source, for
    /// example. It must not block. Any client can cause calls, as often as it likes.
    pub fn on_rejected(mut self, observe: impl Fn(Rejected<'_>) + Send + Sync + 'static) -> Self {
        self.on_rejected = Some(Box::new(observe));
        self
    }

    /// Sets the provider of the tracer that records a span for each delivery and each attempt; none
    /// unless set.
    ///
    /// An attempt links to its delivery, and its span is the current context of its handler. The
    /// sender's `traceparent` is only linked, since it isn't signed. Requests to unknown paths have no
    /// span, and those of rejected requests are limited.
    ///
    /// ```
    /// use pleo_receiver::opentelemetry::global;
    ///
    /// # fn set(builder: pleo_receiver::ReceiverBuilder) -> pleo_receiver::ReceiverBuilder {
    /// builder.tracer_provider(&global::tracer_provider())
    /// # }
    /// ```
    #[cfg(feature = "otel")]
    pub fn tracer_provider(mut self, provider: &impl ObjectSafeTracerProvider) -> Self {
        self.tracing = Tracing::new(provider);
        self
    }

    /// Builds the receiver and its dispatcher.
    ///
    /// # Errors
    /// There is no endpoint, or two endpoints have the same path or name.
    pub fn build(self) -> Result<(Receiver, Dispatcher), BuildError> {
        let telemetry = Arc::new(Telemetry::new(self.on_rejected));
        let routes = routes::routes(self.endpoints, &Routes::new(), &telemetry)?;
        let dispatching = watch::Sender::new(Arc::new(Dispatching {
            handler: self.handler,
            options: self.dispatch_options,
        }));
        let failure = watch::Sender::new(None);
        let is_dispatching = Arc::new(AtomicBool::new(false));
        let dispatcher = Dispatcher::new(dispatch::Shared {
            inbox: Arc::clone(&self.inbox),
            dispatching: dispatching.subscribe(),
            telemetry: Arc::clone(&telemetry),
            tracing: self.tracing.clone(),
            failure: failure.subscribe(),
            is_running: Arc::clone(&is_dispatching),
        });
        let receiver = Receiver::new(Inner {
            routes: RwLock::new(routes),
            inbox: self.inbox,
            dispatching,
            body_limits: self.body_limits,
            admission: Admission::new(
                self.max_in_flight,
                self.max_unverified_bytes,
                self.body_limits.bytes,
                Arc::clone(&telemetry),
            ),
            trusted_proxies: self.trusted_proxies,
            peer_from: self.peer_from,
            telemetry,
            tracing: self.tracing,
            inbox_meter: InboxMeter::default(),
            failure,
            is_dispatching,
            shutting_down: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
        });
        Ok((receiver, dispatcher))
    }
}
