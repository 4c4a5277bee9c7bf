//! The bounded queue of spans, and the count of those that are lost.
//!
//! The SDK's own queue drops spans without telling how many while it runs. So this one counts what is
//! queued or being exported, and passes on only what the SDK's queue has space for.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use opentelemetry::trace::SpanKind;
use opentelemetry::{Context, Key};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use tracing::warn;

use crate::admin::metrics::SpanMetrics;

/// The minimum time between two log lines about lost spans.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The fraction of the queue that spans of requests may use which stored nothing. Anybody who saw a
/// delivery can repeat it, and break the connection before the answer.
const NOT_STORED_FRACTION: usize = 4;

/// Counts spans, and reports those that are lost.
#[derive(Debug)]
pub(super) struct Tally {
    metrics: SpanMetrics,
    /// How many spans are queued or being exported.
    queued: AtomicUsize,
    losses: Mutex<Losses>,
}

#[derive(Debug, Default)]
struct Losses {
    /// How many spans were lost since the last log line.
    spans: usize,
    /// Why the last export failed.
    error: Option<String>,
    /// Why the last request failed.
    cause: Option<String>,
    reported_at: Option<Instant>,
}

impl Tally {
    pub(super) fn new(metrics: SpanMetrics) -> Self {
        Self {
            metrics,
            queued: AtomicUsize::new(0),
            losses: Mutex::default(),
        }
    }

    /// Notes why a request to the collector failed. The exporter's error doesn't say.
    pub(super) fn note_cause(&self, cause: String) {
        self.losses(|losses| losses.cause = Some(cause));
    }

    /// Reports the spans that are lost at the end of the program.
    pub(super) fn shut_down(&self, is_complete: bool) {
        let spans = self.queued.load(Ordering::Relaxed);
        self.losses(|losses| {
            if !is_complete && spans > 0 {
                self.metrics.count("failed", spans);
                losses.spans += spans;
                losses.error = Some("the collector did not answer before the shutdown".to_owned());
            }
            losses.reported_at = None;
            losses.report();
        });
    }

    /// Takes a place in the queue, unless this number of places is taken.
    fn enqueue(&self, limit: usize) -> bool {
        let has_place = self.queued.fetch_add(1, Ordering::Relaxed) < limit;
        if !has_place {
            self.queued.fetch_sub(1, Ordering::Relaxed);
            self.metrics.count("dropped", 1);
            self.losses(|losses| losses.spans += 1);
        }
        has_place
    }

    fn exported(&self, spans: usize, result: &OTelSdkResult) {
        self.queued.fetch_sub(spans, Ordering::Relaxed);
        self.losses(|losses| {
            let cause = losses.cause.take();
            match result {
                Ok(()) => self.metrics.count("exported", spans),
                Err(error) => {
                    self.metrics.count("failed", spans);
                    losses.spans += spans;
                    losses.error = Some(cause.unwrap_or_else(|| error.to_string()));
                }
            }
            losses.report();
        });
    }

    fn losses(&self, change: impl FnOnce(&mut Losses)) {
        change(&mut self.losses.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Losses {
    /// Logs how many spans were lost, if the last line is old enough.
    fn report(&mut self) {
        let is_recent = |at: Instant| at.elapsed() < REPORT_INTERVAL;
        if self.spans == 0 || self.reported_at.is_some_and(is_recent) {
            return;
        }
        let (spans, error) = (core::mem::take(&mut self.spans), self.error.take());
        warn!(spans, error, "spans lost");
        self.reported_at = Some(Instant::now());
    }
}

/// Queues spans for the SDK's processor.
#[derive(Debug)]
pub(super) struct Queue {
    next: BatchSpanProcessor,
    limit: usize,
    tally: Arc<Tally>,
}

impl Queue {
    /// `limit` is the size of the processor's own queue.
    pub(super) const fn new(next: BatchSpanProcessor, limit: usize, tally: Arc<Tally>) -> Self {
        Self { next, limit, tally }
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        let limit = match stored_nothing(&span) {
            true => self.limit.div_ceil(NOT_STORED_FRACTION),
            false => self.limit,
        };
        if self.tally.enqueue(limit) {
            self.next.on_end(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// Returns `true` for the span of a request that stored no message, as far as the span tells.
fn stored_nothing(span: &SpanData) -> bool {
    let outcome = Key::from_static_str("pleo.outcome");
    let outcome = span.attributes.iter().find(|own| own.key == outcome);
    span.span_kind == SpanKind::Server
        && outcome.is_none_or(|outcome| outcome.value.as_str() != "stored")
}

/// Counts what an exporter exports.
#[derive(Debug)]
pub(super) struct CountingExporter<E> {
    next: E,
    tally: Arc<Tally>,
}

impl<E> CountingExporter<E> {
    pub(super) const fn new(next: E, tally: Arc<Tally>) -> Self {
        Self { next, tally }
    }
}

impl<E: SpanExporter + Send + Sync> SpanExporter for CountingExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.next.export(batch).await;
        self.tally.exported(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;
    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    /// Keeps the spans that ended.
    #[derive(Clone, Debug, Default)]
    struct Ended(Arc<Mutex<Vec<SpanData>>>);

    impl SpanProcessor for Ended {
        fn on_start(&self, _: &mut Span, _: &Context) {}

        fn on_end(&self, span: SpanData) {
            self.0.lock().unwrap().push(span);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    #[test]
    fn only_stored_deliveries_and_attempts_may_fill_the_queue() {
        let ended = Ended::default();
        let provider = SdkTracerProvider::builder().with_span_processor(ended.clone());
        let tracer = provider.build().tracer("test");
        let cases = [
            (SpanKind::Server, Some("stored"), false),
            (SpanKind::Server, Some("known"), true),
            (SpanKind::Server, Some("conflict"), true),
            // Rejected, or the client went away before the answer.
            (SpanKind::Server, None, true),
            (SpanKind::Consumer, Some("retry"), false),
            (SpanKind::Consumer, None, false),
        ];
        for (kind, outcome, expected) in cases {
            let builder = tracer.span_builder("span").with_kind(kind.clone());
            let mut span = tracer.build_with_context(builder, &Context::new());
            if let Some(outcome) = outcome {
                span.set_attribute(KeyValue::new("pleo.outcome", outcome));
            }
            span.end();
            let span = ended.0.lock().unwrap().pop().unwrap();
            assert_eq!(stored_nothing(&span), expected, "{kind:?} {outcome:?}");
        }
    }
}
