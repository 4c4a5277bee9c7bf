//! Builds a [`Receiver`].

use core::time::Duration;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, RwLock};

use ipnet::IpNet;
use tokio::sync::{Semaphore, watch};

use crate::body;
use crate::body_budget::BodyBudget;
use crate::dispatch::{DispatchOptions, Dispatching};
use crate::endpoint::Endpoint;
use crate::handler::Handler;
use crate::inbox::Inbox;
use crate::metrics::Metrics;
use crate::receiver::{Inner, Receiver};
use crate::routes::{self, BuildError};

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
        Ok(Receiver::new(Inner {
            routes: RwLock::new(routes::routes(self.endpoints, &metrics)?),
            inbox: self.inbox.ok_or(BuildError::NoInbox)?,
            dispatching: watch::Sender::new(Arc::new(Dispatching {
                handler: self.handler,
                policy: self.policy,
            })),
            body: self.body,
            in_flight: Semaphore::new(self.max_in_flight.min(Semaphore::MAX_PERMITS)),
            unverified: BodyBudget::new(
                self.max_in_flight,
                self.max_unverified_bytes,
                self.body.bytes,
            ),
            trusted_proxies: self.trusted_proxies,
            metrics,
            closing: AtomicBool::new(false),
        }))
    }
}
