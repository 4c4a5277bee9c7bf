//! What is counted.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::Appended;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AcceptedLabels {
    endpoint: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RejectedLabels {
    endpoint: Arc<str>,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndpointLabel {
    endpoint: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The counters of a receiver, in the registry that shows them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    accepted: Family<AcceptedLabels, Counter>,
    rejected: Family<RejectedLabels, Counter>,
    handled: Family<AcceptedLabels, Counter>,
    expired: Family<EndpointLabel, Counter>,
    dispatcher_restarts: Counter,
    in_flight: Gauge,
    connections: Gauge,
    refused_connections: Family<ReasonLabels, Counter>,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("pleo_receiver");
        let accepted = Family::default();
        let rejected = Family::default();
        let handled = Family::default();
        let expired = Family::default();
        let dispatcher_restarts = Counter::default();
        let in_flight = Gauge::default();
        let connections = Gauge::default();
        let refused_connections = Family::default();
        registry.register(
            "accepted",
            "Authentic deliveries: stored, known before, or known before with other bytes",
            Family::clone(&accepted),
        );
        registry.register(
            "rejected",
            "Refused requests, by the code of their answer",
            Family::clone(&rejected),
        );
        registry.register(
            "handled",
            "Attempts of the handler: done, to be retried, or dead",
            Family::clone(&handled),
        );
        registry.register(
            "expired",
            "Attempts of the handler that began after the job had expired",
            Family::clone(&expired),
        );
        registry.register(
            "dispatcher_restarts",
            "How often what hands messages on has panicked, and begun again",
            Counter::clone(&dispatcher_restarts),
        );
        registry.register(
            "in_flight",
            "Requests that are being read or stored",
            Gauge::clone(&in_flight),
        );
        registry.register(
            "connections",
            "Open connections",
            Gauge::clone(&connections),
        );
        registry.register(
            "refused_connections",
            "Connections that were closed since they asked too much, or others needed the room",
            Family::clone(&refused_connections),
        );
        Self {
            registry,
            accepted,
            rejected,
            handled,
            expired,
            dispatcher_restarts,
            in_flight,
            connections,
            refused_connections,
        }
    }

    /// The counters of one endpoint's accepted deliveries, looked up once.
    pub(crate) fn accepted(&self, endpoint: &Arc<str>) -> Accepted {
        let counter = |outcome| {
            let endpoint = Arc::clone(endpoint);
            let labels = AcceptedLabels { endpoint, outcome };
            self.accepted.get_or_create(&labels).clone()
        };
        Accepted {
            stored: counter("stored"),
            known: counter("known"),
            conflict: counter("conflict"),
        }
    }

    /// Counts one more request in flight, as long as what it gives lives.
    pub(crate) fn in_flight(&self) -> GaugeGuard<'_> {
        GaugeGuard::new(&self.in_flight)
    }

    /// Counts one more open connection, as long as what it gives lives.
    pub(crate) fn connection(&self) -> GaugeGuard<'_> {
        GaugeGuard::new(&self.connections)
    }

    pub(crate) fn refused_connection(&self, reason: &'static str) {
        let labels = ReasonLabels { reason };
        self.refused_connections.get_or_create(&labels).inc();
    }

    /// `endpoint` is empty where no endpoint has the path.
    pub(crate) fn rejected(&self, endpoint: &Arc<str>, reason: &'static str) {
        let endpoint = Arc::clone(endpoint);
        let labels = RejectedLabels { endpoint, reason };
        self.rejected.get_or_create(&labels).inc();
    }

    pub(crate) fn handled(&self, endpoint: &Arc<str>, outcome: &'static str) {
        let endpoint = Arc::clone(endpoint);
        let labels = AcceptedLabels { endpoint, outcome };
        self.handled.get_or_create(&labels).inc();
    }

    pub(crate) fn expired(&self, endpoint: &Arc<str>) {
        let endpoint = Arc::clone(endpoint);
        self.expired
            .get_or_create(&EndpointLabel { endpoint })
            .inc();
    }

    pub(crate) fn dispatcher_restarted(&self) {
        self.dispatcher_restarts.inc();
    }

    /// All counters in the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let mut out = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// Counts one in a gauge until it is dropped.
#[derive(Debug)]
pub(crate) struct GaugeGuard<'m>(&'m Gauge);

impl<'m> GaugeGuard<'m> {
    fn new(gauge: &'m Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for GaugeGuard<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// One endpoint's counters of accepted deliveries.
#[derive(Debug)]
pub(crate) struct Accepted {
    stored: Counter,
    known: Counter,
    conflict: Counter,
}

impl Accepted {
    pub(crate) fn count(&self, appended: Appended) {
        match appended {
            Appended::Stored => &self.stored,
            Appended::Duplicate => &self.known,
            Appended::Conflict => &self.conflict,
        }
        .inc();
    }
}
