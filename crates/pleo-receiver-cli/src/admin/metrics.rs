//! The Prometheus metrics of the program.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use pleo_receiver::State;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::readiness::Check;
use crate::log::LostLines;

/// The metrics of the tasks that a server runs on a schedule.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskMetrics {
    pruned: Family<[(&'static str, &'static str); 1], Counter>,
    catch_ups: Family<[(&'static str, &'static str); 1], Counter>,
    caught_up: Family<[(&'static str, String); 1], Counter>,
}

impl TaskMetrics {
    /// Counts messages that were deleted because of their age.
    pub(crate) fn pruned(&self, state: State, messages: u64) {
        let labels = [("state", state.as_str())];
        self.pruned.get_or_create(&labels).inc_by(messages);
    }

    /// Counts a catch-up.
    pub(crate) fn catch_up(&self, succeeded: bool) {
        let outcome = if succeeded { "done" } else { "failed" };
        self.catch_ups.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts an export job that was added to the inbox.
    pub(crate) fn caught_up(&self, endpoint: &str) {
        let labels = [("endpoint", endpoint.to_owned())];
        self.caught_up.get_or_create(&labels).inc();
    }
}

/// The metrics of reloads of the configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReloadMetrics {
    reloads: Family<[(&'static str, &'static str); 1], Counter>,
    last: Family<[(&'static str, &'static str); 1], Gauge<f64, AtomicU64>>,
}

impl ReloadMetrics {
    /// Counts a reload.
    pub(crate) fn reloaded(&self, succeeded: bool) {
        let labels = [("outcome", if succeeded { "done" } else { "failed" })];
        self.reloads.get_or_create(&labels).inc();
        let now = Timestamp::now().as_duration().as_secs_f64();
        self.last.get_or_create(&labels).set(now);
    }
}

/// The metrics of traces.
#[cfg(feature = "otel")]
#[derive(Clone, Debug)]
pub(crate) struct SpanMetrics(Family<[(&'static str, &'static str); 1], Counter>);

#[cfg(feature = "otel")]
impl SpanMetrics {
    /// Counts spans that were exported, dropped because the queue was full, or failed to be exported.
    pub(crate) fn count(&self, outcome: &'static str, spans: usize) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        self.0.get_or_create(&[("outcome", outcome)]).inc_by(spans);
    }
}

#[cfg(feature = "otel")]
impl Default for SpanMetrics {
    /// Creates all counters, so that an alert sees the first lost span.
    fn default() -> Self {
        let spans = Self(Family::default());
        for outcome in ["exported", "dropped", "failed"] {
            spans.count(outcome, 0);
        }
        spans
    }
}

/// The metrics of the program, besides those of the receiver.
pub(crate) struct ProgramMetrics {
    registry: Registry,
    ready: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl ProgramMetrics {
    pub(crate) fn new(lost_lines: LostLines, tasks: &TaskMetrics, reloads: &ReloadMetrics) -> Self {
        let mut registry = Registry::with_prefix("pleo_receiver");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Version of the program", build);
        let ready = Family::default();
        let help = "1 if a check of `/readyz` succeeds, else 0";
        registry.register("ready", help, ready.clone());
        registry.register_collector(Box::new(lost_lines));
        let help = "Reloads of the configuration by outcome: done or failed";
        registry.register("reloads", help, reloads.reloads.clone());
        registry.register_with_unit(
            "last_reload_timestamp",
            "Unix time of the last reload by outcome",
            Unit::Seconds,
            reloads.last.clone(),
        );
        let help = "Messages deleted because of their age by state";
        registry.register("pruned", help, tasks.pruned.clone());
        let help = "Scheduled catch-ups by outcome: done or failed";
        registry.register("catch_ups", help, tasks.catch_ups.clone());
        let help = "Export jobs added by scheduled catch-ups";
        registry.register("caught_up", help, tasks.caught_up.clone());
        Self { registry, ready }
    }

    /// Adds the metrics of traces.
    #[cfg(feature = "otel")]
    pub(crate) fn with_spans(mut self, spans: &SpanMetrics) -> Self {
        let help = "Spans by outcome: exported, dropped or failed";
        self.registry.register("spans", help, spans.0.clone());
        self
    }

    /// Encodes the metrics in the OpenMetrics text format, without the last line.
    pub(super) fn encode(&self, checks: &[(&'static str, Check)]) -> String {
        for (name, check) in checks {
            let ready = self.ready.get_or_create(&[("check", *name)]);
            ready.set(check.is_ok().into());
        }
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode_registry(&mut page, &self.registry);
        page
    }
}
