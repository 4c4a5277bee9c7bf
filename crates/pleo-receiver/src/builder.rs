//! Builds a receiver from its endpoints, inbox, handler and limits.

use core::time::Duration;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use ipnet::IpNet;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::body;
use crate::dispatch::{DispatchOptions, Dispatching};
use crate::endpoint::Endpoint;
use crate::handler::Handler;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::receiver::{Inner, Receiver};
use crate::routes::{self, BuildError};

impl Receiver {
    /// Creates a builder with the default limits.
    pub fn builder() -> ReceiverBuilder {
        ReceiverBuilder {
            endpoints: Vec::new(),
            inbox: None,
            handler: None,
            dispatch_options: DispatchOptions::default(),
            body_limits: body::Limits::default(),
            max_in_flight: 4096,
            max_unverified_bytes: 64 * 1024 * 1024,
            trusted_proxies: Vec::new(),
        }
    }
}

/// Builds a [`Receiver`].
#[must_use = "call `build`"]
pub struct ReceiverBuilder {
    endpoints: Vec<Endpoint>,
    inbox: Option<Arc<dyn Inbox>>,
    handler: Option<Arc<dyn Handler>>,
    dispatch_options: DispatchOptions,
    body_limits: body::Limits,
    max_in_flight: usize,
    max_unverified_bytes: usize,
    trusted_proxies: Vec<IpNet>,
}

impl ReceiverBuilder {
    /// Adds an endpoint. At least one is required.
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Sets the inbox. It is required.
    pub fn inbox(mut self, inbox: impl Inbox) -> Self {
        self.inbox = Some(Arc::new(inbox));
        self
    }

    /// Sets an inbox that other code uses too, or whose type is chosen at run time.
    pub fn shared_inbox(mut self, inbox: Arc<dyn Inbox>) -> Self {
        self.inbox = Some(inbox);
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
    pub fn trusted_proxies(mut self, networks: impl IntoIterator<Item = IpNet>) -> Self {
        self.trusted_proxies.extend(networks);
        self
    }

    /// Builds the receiver.
    ///
    /// # Errors
    /// There is no endpoint or no inbox, or two endpoints have the same path or name.
    pub fn build(self) -> Result<Receiver, BuildError> {
        let metrics = Metrics::new();
        Ok(Receiver::new(Inner {
            routes: RwLock::new(routes::routes(self.endpoints, &metrics)?),
            inbox: self.inbox.ok_or(BuildError::NoInbox)?,
            dispatching: watch::Sender::new(Arc::new(Dispatching {
                handler: self.handler,
                options: self.dispatch_options,
            })),
            body_limits: self.body_limits,
            admission: Admission::new(
                self.max_in_flight,
                self.max_unverified_bytes,
                self.body_limits.bytes,
            ),
            trusted_proxies: self.trusted_proxies,
            metrics,
            shutting_down: AtomicBool::new(false),
            has_warned: AtomicBool::new(false),
        }))
    }
}
