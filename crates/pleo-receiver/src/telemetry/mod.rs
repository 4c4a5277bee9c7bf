//! The events of a receiver, for its operator: each function writes a log line, and moves the counter
//! of the event if it has one. So the log and the metrics agree.
//!
//! Log lines that a client without the secret can cause are limited. An event that only the sender,
//! a handler or the operator can cause is always logged.

/// Writes a log line unless the limit of its event is exceeded. The field `suppressed` has the number
/// of lines that were left out since the last one.
macro_rules! limited {
    ($limit:expr, $level:ident, $endpoint:expr, $code:expr, $text:literal, $($fields:tt)+) => {
        let level = tracing::Level::$level;
        if let Some(suppressed) = $limit.check(level, $text, $code, $endpoint) {
            tracing::event!(tracing::Level::$level, $($fields)+, suppressed, $text);
        }
    };
}

mod dispatching;
#[cfg(feature = "sqlite")]
mod inbox;
#[cfg(feature = "postgres")]
mod postgres;
mod rate_limit;
mod requests;
mod serving;

use core::fmt;
use core::time::Duration;

use tracing::{field, info};

use self::rate_limit::Event;
use crate::measure::Meters;
use crate::metrics::Metrics;
use crate::rejection::Rejected;

pub(crate) use self::dispatching::*;
#[cfg(feature = "sqlite")]
pub(crate) use self::inbox::*;
#[cfg(feature = "postgres")]
pub(crate) use self::postgres::*;
pub(crate) use self::rate_limit::RateLimit;
pub(crate) use self::requests::{AuthenticDelivery, RejectedRequest, untrusted_proxy};
pub(crate) use self::serving::*;

/// A function of the program that observes rejected requests.
pub(crate) type OnRejected = Box<dyn Fn(Rejected<'_>) + Send + Sync>;

/// The metrics and the limits of log lines of one receiver.
pub(crate) struct Telemetry {
    pub(crate) metrics: Metrics,
    pub(crate) meters: Meters,
    limit: RateLimit,
    on_rejected: Option<OnRejected>,
}

impl Telemetry {
    pub(crate) fn new(on_rejected: Option<OnRejected>) -> Self {
        Self {
            metrics: Metrics::new(),
            meters: Meters::new(),
            limit: RateLimit::new(),
            on_rejected,
        }
    }

    /// Logs the counts of suppressed lines that no line has reported.
    pub(crate) fn report_suppressed(&self) {
        for (event, suppressed) in self.limit.take_suppressed() {
            let Event {
                text,
                code,
                endpoint,
            } = event;
            info!(
                event = text,
                endpoint = some(&endpoint).map(field::display),
                code = some(code).map(field::display),
                suppressed,
                "log lines suppressed"
            );
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Reports a message that cannot be read or changed.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn message_unreadable(sequence: i64, error: &str) {
    tracing::error!(sequence, error, "message is unreadable; run `inbox check`");
}

/// Returns whole milliseconds.
fn milliseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests;
