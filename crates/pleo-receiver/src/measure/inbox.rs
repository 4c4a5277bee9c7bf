//! Measures the inbox, when the metrics are read.

use core::time::Duration;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::Mutex;
use tokio::time::{self, Instant};

use super::encoding::EncodedDistribution;
use super::{EndpointLabels, EndpointMeter};
use crate::inbox::{EndpointStats, Inbox, InboxError, Measurements};

/// How long the inbox's statistics are kept, so that frequent reads of the metrics cost nothing.
const CACHED: Duration = Duration::from_secs(1);

/// How long the inbox may take.
const TIMEOUT: Duration = Duration::from_secs(5);

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    endpoint: Arc<str>,
    state: &'static str,
}

/// Measures an inbox.
#[derive(Debug, Default)]
pub(crate) struct InboxMeter {
    /// The last measurements. Locked meanwhile, so that one call of the inbox is in progress.
    last: Mutex<Option<(Instant, Arc<Reading>)>>,
}

/// The statistics and measurements of an inbox.
#[derive(Debug, Default)]
struct Reading {
    stats: Vec<EndpointStats>,
    measurements: Measurements,
}

impl InboxMeter {
    /// Encodes the measurements of an inbox and of these endpoints in the OpenMetrics text format,
    /// without the last line. Leaves out what the inbox cannot tell.
    pub(crate) async fn encode(
        &self,
        inbox: &dyn Inbox,
        endpoints: &[(Arc<str>, Arc<EndpointMeter>)],
    ) -> String {
        let reading = self.read(inbox, endpoints).await;
        let mut registry = Registry::with_prefix("pleo_receiver");
        register_stats(&mut registry, &reading.stats);
        register_last_deliveries(&mut registry, endpoints, &reading.stats);
        register_measurements(&mut registry, &reading.measurements);
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode_registry(&mut page, &registry);
        page
    }

    async fn read(
        &self,
        inbox: &dyn Inbox,
        endpoints: &[(Arc<str>, Arc<EndpointMeter>)],
    ) -> Arc<Reading> {
        let mut last = self.last.lock().await;
        if let Some((at, reading)) = &*last
            && at.elapsed() < CACHED
        {
            return Arc::clone(reading);
        }
        let read = async {
            let mut stats = inbox.stats().await?;
            // An endpoint without messages counts 0, so that an alert sees the first one.
            for (endpoint, _) in endpoints {
                if !stats.iter().any(|stats| stats.endpoint == *endpoint) {
                    stats.push(EndpointStats::new(Arc::clone(endpoint)));
                }
            }
            Ok::<_, InboxError>(Reading {
                stats,
                measurements: inbox.measurements().await?,
            })
        };
        let reading = match time::timeout(TIMEOUT, read).await {
            Ok(Ok(reading)) => reading,
            // The inbox is closed, cannot be read, or hangs; its metrics are missing.
            Ok(Err(_)) | Err(_) => Reading::default(),
        };
        let reading = Arc::new(reading);
        *last = Some((Instant::now(), Arc::clone(&reading)));
        reading
    }
}

fn register_stats(registry: &mut Registry, stats: &[EndpointStats]) {
    let messages = Family::<StateLabels, Gauge>::default();
    let paused = Family::<EndpointLabels, Gauge>::default();
    let oldest_pending = Family::<EndpointLabels, Seconds>::default();
    let nearest_expiry = Family::<EndpointLabels, Seconds>::default();
    let expired_pending = Family::<EndpointLabels, Gauge>::default();
    for stats in stats {
        let labels = EndpointLabels {
            endpoint: Arc::clone(&stats.endpoint),
        };
        for (state, count) in [
            ("ready", stats.ready),
            ("leased", stats.leased),
            ("scheduled", stats.scheduled),
            ("done", stats.done),
            ("dead", stats.dead),
        ] {
            let endpoint = Arc::clone(&stats.endpoint);
            let labels = StateLabels { endpoint, state };
            messages.get_or_create(&labels).set(to_i64(count));
        }
        paused.get_or_create(&labels).set(stats.paused.into());
        expired_pending
            .get_or_create(&labels)
            .set(to_i64(stats.expired));
        // 0 rather than no series, so that an alert ends when the messages are handled.
        let age = stats.oldest_pending.unwrap_or_default();
        oldest_pending.get_or_create(&labels).set(age.as_secs_f64());
        if let Some(at) = stats.nearest_expiry {
            let left = at.duration_since(Timestamp::now()).as_secs_f64();
            nearest_expiry.get_or_create(&labels).set(left);
        }
    }
    registry.register("inbox_messages", "Messages in the inbox by state", messages);
    registry.register(
        "inbox_paused",
        "1 if the endpoint is paused: its messages are not dispatched",
        paused,
    );
    registry.register_with_unit(
        "oldest_pending_age",
        "Age of the pending message that arrived first; 0 if none is pending",
        Unit::Seconds,
        oldest_pending,
    );
    registry.register_with_unit(
        "nearest_expiry",
        "Time until the next pending message expires",
        Unit::Seconds,
        nearest_expiry,
    );
    registry.register(
        "expired_pending",
        "Pending messages that have expired",
        expired_pending,
    );
}

fn register_last_deliveries(
    registry: &mut Registry,
    endpoints: &[(Arc<str>, Arc<EndpointMeter>)],
    stats: &[EndpointStats],
) {
    let stored: HashMap<_, _> = (stats.iter())
        .filter_map(|stats| Some((&stats.endpoint, stats.delivered_at?)))
        .collect();
    let ages = Family::<EndpointLabels, Seconds>::default();
    for (endpoint, meter) in endpoints {
        let since_stored = || {
            let age = Timestamp::now().duration_since(*stored.get(endpoint)?);
            Some(Duration::try_from(age).unwrap_or_default())
        };
        let age = meter.since_last_delivery().or_else(since_stored);
        let age = age.unwrap_or_else(|| meter.since_added());
        let endpoint = Arc::clone(endpoint);
        ages.get_or_create(&EndpointLabels { endpoint })
            .set(age.as_secs_f64());
    }
    registry.register_with_unit(
        "last_delivery_age",
        "Time since the last authentic delivery, or since the start if there was none",
        Unit::Seconds,
        ages,
    );
}

fn register_measurements(registry: &mut Registry, measurements: &Measurements) {
    let Measurements {
        queued_appends,
        queued_bytes,
        commit_seconds,
        commit_appends,
        file_bytes,
        log_bytes,
        free_bytes,
    } = measurements;
    let gauge = |value: u64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(to_i64(value));
        gauge
    };
    if let Some(appends) = queued_appends {
        let help = "Messages that wait to be stored";
        registry.register("append_queue", help, gauge(*appends));
    }
    for (name, help, bytes) in [
        (
            "append_queue",
            "Size of the messages that wait to be stored",
            queued_bytes,
        ),
        ("inbox_file", "Size of the inbox", file_bytes),
        (
            "inbox_log",
            "Size of the inbox's write-ahead log",
            log_bytes,
        ),
        (
            "inbox_free",
            "Free space on the disk of the inbox",
            free_bytes,
        ),
    ] {
        if let Some(bytes) = bytes {
            registry.register_with_unit(name, help, Unit::Bytes, gauge(*bytes));
        }
    }
    if let Some(seconds) = commit_seconds {
        let help = "Durations of commits that were flushed to the disk";
        let seconds = EncodedDistribution(seconds.clone());
        registry.register_with_unit("commit", help, Unit::Seconds, seconds);
    }
    if let Some(appends) = commit_appends {
        let help = "Messages stored by one commit";
        registry.register("commit_appends", help, EncodedDistribution(appends.clone()));
    }
}

fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
