//! Prometheus metrics of the receiver.

#[cfg(feature = "tls")]
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "tls")]
use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
#[cfg(feature = "tls")]
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};

use crate::inbox::Appended;
use crate::striped::{StripedCounter, StripedGauge};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    endpoint: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RejectionLabels {
    endpoint: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndpointLabels {
    endpoint: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[cfg(feature = "tls")]
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CertificateLabels {
    /// The path of its file.
    certificate: String,
}

/// The metrics of one receiver.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    accepted: Family<OutcomeLabels, StripedCounter>,
    rejected: Family<RejectionLabels, Counter>,
    handled: Family<OutcomeLabels, Counter>,
    expired: Family<EndpointLabels, Counter>,
    dispatcher_restarts: Counter,
    in_flight: StripedGauge,
    connections: StripedGauge,
    refused_connections: Family<ReasonLabels, Counter>,
    #[cfg(feature = "tls")]
    certificate_expiry: Family<CertificateLabels, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("pleo_receiver");
        Self {
            accepted: register(
                &mut registry,
                "accepted",
                "Authentic deliveries by outcome: stored, known (duplicate) or conflict (duplicate id with another body)",
            ),
            rejected: register(&mut registry, "rejected", "Rejected requests by reason"),
            handled: register(
                &mut registry,
                "handled",
                "Handler attempts by outcome: done, retry, dead or lost",
            ),
            expired: register(
                &mut registry,
                "expired",
                "Handler attempts that started after the job expired",
            ),
            dispatcher_restarts: register(
                &mut registry,
                "dispatcher_restarts",
                "Restarts of the dispatcher after a panic",
            ),
            in_flight: register(&mut registry, "in_flight", "Requests being read or stored"),
            connections: register(&mut registry, "connections", "Open connections"),
            refused_connections: register(
                &mut registry,
                "refused_connections",
                "Connections closed by the server by reason",
            ),
            #[cfg(feature = "tls")]
            certificate_expiry: register(
                &mut registry,
                "certificate_expiry_timestamp_seconds",
                "Unix time at which the TLS certificate in use expires",
            ),
            registry,
        }
    }

    /// Looks up the counters of an endpoint's accepted deliveries.
    pub(crate) fn accepted(&self, endpoint: &Arc<str>) -> Accepted {
        let counter = |outcome| {
            let endpoint = Arc::clone(endpoint);
            let labels = OutcomeLabels { endpoint, outcome };
            self.accepted.get_or_create(&labels).clone()
        };
        Accepted {
            stored: counter("stored"),
            duplicate: counter("known"),
            conflict: counter("conflict"),
        }
    }

    /// Counts a request in flight until the guard is dropped.
    pub(crate) fn in_flight(&self) -> GaugeGuard<'_> {
        GaugeGuard::new(&self.in_flight)
    }

    /// Counts an open connection until the guard is dropped.
    pub(crate) fn connection(&self) -> GaugeGuard<'_> {
        GaugeGuard::new(&self.connections)
    }

    /// Counts a connection that the server closed.
    pub(crate) fn refused_connection(&self, reason: &'static str) {
        let labels = ReasonLabels { reason };
        self.refused_connections.get_or_create(&labels).inc();
    }

    /// Counts a rejected request. `endpoint` is empty if no endpoint has the path.
    pub(crate) fn rejected(&self, endpoint: &Arc<str>, reason: &'static str) {
        let endpoint = Arc::clone(endpoint);
        let labels = RejectionLabels { endpoint, reason };
        self.rejected.get_or_create(&labels).inc();
    }

    /// Counts a handler attempt.
    pub(crate) fn handled(&self, endpoint: &Arc<str>, outcome: &'static str) {
        let endpoint = Arc::clone(endpoint);
        let labels = OutcomeLabels { endpoint, outcome };
        self.handled.get_or_create(&labels).inc();
    }

    /// Counts a handler attempt that started after the job expired.
    pub(crate) fn expired(&self, endpoint: &Arc<str>) {
        let endpoint = Arc::clone(endpoint);
        self.expired
            .get_or_create(&EndpointLabels { endpoint })
            .inc();
    }

    /// Counts a restart of the dispatcher.
    pub(crate) fn dispatcher_restarted(&self) {
        self.dispatcher_restarts.inc();
    }

    /// Sets the expiry of the certificate in use.
    #[cfg(feature = "tls")]
    pub(crate) fn certificate_expiry(&self, certificate: &Path, expires_at: Timestamp) {
        let certificate = certificate.display().to_string();
        let gauge = self
            .certificate_expiry
            .get_or_create(&CertificateLabels { certificate });
        gauge.set(expires_at.as_second());
    }

    /// Encodes all metrics in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct GaugeGuard<'m>(&'m StripedGauge);

impl<'m> GaugeGuard<'m> {
    fn new(gauge: &'m StripedGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts the accepted deliveries of one endpoint by outcome.
#[derive(Debug)]
pub(crate) struct Accepted {
    stored: StripedCounter,
    duplicate: StripedCounter,
    conflict: StripedCounter,
}

impl Accepted {
    pub(crate) fn count(&self, appended: Appended) {
        match appended {
            Appended::Stored => &self.stored,
            Appended::Duplicate => &self.duplicate,
            Appended::Conflict => &self.conflict,
        }
        .inc();
    }
}

fn register<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}
