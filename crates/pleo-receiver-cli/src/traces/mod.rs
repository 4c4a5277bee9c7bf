//! Traces: exports the receiver's spans over OTLP/HTTP, as the `OTEL_*` variables say.
//!
//! - Off unless a variable names a collector or the exporter `otlp`. Each other variable that is
//!   wrong or not supported is an error at the start.
//! - A thread of its own exports spans in batches. The queue is bounded, so a slow or absent
//!   collector costs spans and delays nothing; what is lost is counted and logged.
//! - The end of the server waits for the last export, for [`SHUTDOWN_LIMIT`] at most.

mod collector;
mod queue;
mod settings;

use core::time::Duration;
use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider};
use pleo_receiver::ReceiverBuilder;
use tokio::task;
use tracing::info;

use self::collector::Collector;
use self::queue::{CountingExporter, Queue, Tally};
use self::settings::Settings;
use crate::admin::metrics::SpanMetrics;
use crate::failure::{Failure, chain};

/// How long a shutdown waits for the collector.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);

/// The export of spans, if it is on.
pub(crate) struct Traces {
    active: Option<(SdkTracerProvider, Arc<Tally>)>,
    metrics: SpanMetrics,
}

impl Traces {
    /// Starts to export spans if the environment says so.
    pub(crate) fn start() -> Result<Self, Failure> {
        let metrics = SpanMetrics::default();
        let settings = Settings::from_env()?;
        let active = settings.map(|settings| start(&settings, &metrics));
        let active = active.transpose()?;
        Ok(Self { active, metrics })
    }

    /// Checks the environment.
    pub(crate) fn check() -> Result<(), Failure> {
        Settings::from_env().map(|_| ())
    }

    /// Lets a receiver record spans.
    pub(crate) fn instrument(&self, builder: ReceiverBuilder) -> ReceiverBuilder {
        match &self.active {
            Some((provider, _)) => builder.tracer_provider(provider),
            None => builder,
        }
    }

    pub(crate) const fn metrics(&self) -> &SpanMetrics {
        &self.metrics
    }

    /// Exports the last spans.
    pub(crate) async fn shutdown(self) {
        if let Some((provider, tally)) = self.active {
            let shutdown = move || provider.shutdown_with_timeout(SHUTDOWN_LIMIT);
            let result = task::spawn_blocking(shutdown).await;
            tally.shut_down(matches!(result, Ok(Ok(()))));
        }
    }
}

fn start(
    settings: &Settings,
    metrics: &SpanMetrics,
) -> Result<(SdkTracerProvider, Arc<Tally>), Failure> {
    // The path, user or password may hold a secret. The collector's client posts to the complete URL.
    let origin = settings.target.url().origin().ascii_serialization();
    let tally = Arc::new(Tally::new(metrics.clone()));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::new(settings, Arc::clone(&tally))?)
        .with_endpoint(&origin)
        .with_timeout(settings.timeout)
        .build()
        .map_err(|error| Failure::Usage(chain(&error)))?;
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue)
        .with_max_export_batch_size(settings.batch)
        .with_scheduled_delay(settings.delay)
        .build();
    let exporter = CountingExporter::new(exporter, Arc::clone(&tally));
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config);
    let queue = Queue::new(processor.build(), settings.queue, Arc::clone(&tally));
    let provider = SdkTracerProvider::builder()
        .with_span_processor(queue)
        .with_resource(resource(settings))
        .build();
    info!(collector = origin, "exporting traces");
    Ok((provider, tally))
}

/// Describes this program. `OTEL_SERVICE_NAME` beats `OTEL_RESOURCE_ATTRIBUTES`, and that beats the
/// defaults.
fn resource(settings: &Settings) -> Resource {
    let defaults = [
        KeyValue::new("service.name", "pleo-receiver"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let mut resource = Resource::builder_empty()
        .with_attributes(defaults)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    if let Some(name) = &settings.service_name {
        resource = resource.with_service_name(name.clone());
    }
    resource.build()
}
