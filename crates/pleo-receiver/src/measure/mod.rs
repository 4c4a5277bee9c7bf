//! Measures requests, handlers and the inbox, for metrics.

mod encoding;
mod inbox;

use core::time::Duration;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use pleo_webhook_verify::Verifier;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use self::encoding::SharedHistogram;
pub(crate) use self::inbox::InboxMeter;
use crate::histogram::{BYTES, LONG_TIMES, SHORT_TIMES};
use crate::striped::StripedCounter;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SecretLabels {
    endpoint: Arc<str>,
    position: u64,
}

type Histograms = Family<EndpointLabels, SharedHistogram, fn() -> SharedHistogram>;

/// The measurements of one receiver's requests and handlers.
#[derive(Debug)]
pub(crate) struct Meters {
    registry: Registry,
    acknowledgement: Histograms,
    body: Histograms,
    matched_secret: Family<SecretLabels, StripedCounter>,
    handler: Histograms,
    handlers: Family<EndpointLabels, Gauge>,
    /// The endpoints that the receiver has or had.
    endpoints: Mutex<HashMap<Arc<str>, Arc<EndpointMeter>>>,
}

impl Meters {
    pub(crate) fn new() -> Self {
        let short_times = || SharedHistogram::new(&SHORT_TIMES);
        let meters = Self {
            registry: Registry::default(),
            acknowledgement: Family::new_with_constructor(short_times),
            body: Family::new_with_constructor(|| SharedHistogram::new(&BYTES)),
            matched_secret: Family::default(),
            handler: Family::new_with_constructor(|| SharedHistogram::new(&LONG_TIMES)),
            handlers: Family::default(),
            endpoints: Mutex::default(),
        };
        let mut registry = Registry::with_prefix("pleo_receiver");
        registry.register_with_unit(
            "acknowledgement",
            "Time from the headers of a delivery to its answer 204",
            Unit::Seconds,
            meters.acknowledgement.clone(),
        );
        registry.register_with_unit(
            "body",
            "Sizes of authentic bodies",
            Unit::Bytes,
            meters.body.clone(),
        );
        registry.register(
            "matched_secret",
            "Authentic deliveries by the position of the secret that matched, from 1",
            meters.matched_secret.clone(),
        );
        registry.register_with_unit(
            "handler",
            "Durations of handler attempts",
            Unit::Seconds,
            meters.handler.clone(),
        );
        registry.register(
            "handlers",
            "Handler attempts in progress",
            meters.handlers.clone(),
        );
        Self { registry, ..meters }
    }

    /// Returns the meter of an endpoint.
    pub(crate) fn endpoint(&self, endpoint: &Arc<str>) -> Arc<EndpointMeter> {
        let endpoints = self.endpoints.lock();
        // No code panics while it holds the lock.
        let mut endpoints = endpoints.unwrap_or_else(PoisonError::into_inner);
        let meter = endpoints.entry(Arc::clone(endpoint)).or_insert_with(|| {
            let labels = EndpointLabels {
                endpoint: Arc::clone(endpoint),
            };
            Arc::new(EndpointMeter {
                acknowledgement: self.acknowledgement.get_or_create(&labels).clone(),
                body: self.body.get_or_create(&labels).clone(),
                matched_secret: self.matched_secret.clone(),
                matched_at: Default::default(),
                endpoint: Arc::clone(endpoint),
                added: Instant::now(),
                last_delivery: AtomicU64::new(0),
            })
        });
        Arc::clone(meter)
    }

    /// Measures a handler attempt until the guard is dropped.
    pub(crate) fn handler(&self, endpoint: &Arc<str>) -> HandlerGuard {
        let endpoint = Arc::clone(endpoint);
        let labels = EndpointLabels { endpoint };
        let handlers = self.handlers.get_or_create(&labels).clone();
        handlers.inc();
        HandlerGuard {
            time: self.handler.get_or_create(&labels).clone(),
            handlers,
            started: Instant::now(),
        }
    }

    /// Encodes all measurements in the OpenMetrics text format, without the last line.
    pub(crate) fn encode(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode_registry(&mut page, &self.registry);
        page
    }
}

/// Measures the deliveries of one endpoint.
#[derive(Debug)]
pub(crate) struct EndpointMeter {
    acknowledgement: SharedHistogram,
    body: SharedHistogram,
    matched_secret: Family<SecretLabels, StripedCounter>,
    /// The counter of each secret that has matched.
    matched_at: [OnceLock<StripedCounter>; Verifier::MAX_SECRETS],
    endpoint: Arc<str>,
    added: Instant,
    /// When the last authentic delivery arrived, in milliseconds since `added`; 0 if none did.
    last_delivery: AtomicU64,
}

impl EndpointMeter {
    /// Measures an authentic delivery that arrived at this time.
    pub(crate) fn authentic(&self, secret_index: usize, body_len: usize, arrived: Instant) {
        if let Some(matched) = self.matched_at.get(secret_index) {
            let counter = || self.matched_counter(secret_index);
            matched.get_or_init(counter).inc();
        }
        self.body.add_size(body_len);
        let since_added = arrived.saturating_duration_since(self.added).as_millis();
        let since_added = u64::try_from(since_added).unwrap_or(u64::MAX).max(1);
        // Most deliveries of a burst only read.
        if self.last_delivery.load(Ordering::Relaxed) != since_added {
            self.last_delivery.store(since_added, Ordering::Relaxed);
        }
    }

    /// Measures the acknowledgement of a delivery that arrived this long ago.
    pub(crate) fn acknowledged(&self, elapsed: Duration) {
        self.acknowledgement.add_time(elapsed);
    }

    /// Returns the time since the last authentic delivery; `None` if there was none.
    fn since_last_delivery(&self) -> Option<Duration> {
        match self.last_delivery.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(
                self.since_added()
                    .saturating_sub(Duration::from_millis(millis)),
            ),
        }
    }

    fn matched_counter(&self, secret_index: usize) -> StripedCounter {
        let labels = SecretLabels {
            endpoint: Arc::clone(&self.endpoint),
            position: u64::try_from(secret_index + 1).unwrap_or(u64::MAX),
        };
        self.matched_secret.get_or_create(&labels).clone()
    }

    fn since_added(&self) -> Duration {
        self.added.elapsed()
    }
}

/// Measures a handler attempt until it is dropped.
#[derive(Debug)]
pub(crate) struct HandlerGuard {
    time: SharedHistogram,
    handlers: Gauge,
    started: Instant,
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        self.time.add_time(self.started.elapsed());
        self.handlers.dec();
    }
}
