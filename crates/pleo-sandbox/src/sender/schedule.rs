//! The retry schedule.

use core::num::NonZeroU32;
use core::time::Duration;

/// Pleo's retry schedule: the delay after each failed attempt.
const SCHEDULE: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
    Duration::from_secs(5 * 60 * 60),
    Duration::from_secs(10 * 60 * 60),
    Duration::from_secs(10 * 60 * 60),
];

/// The minimum delay after a timeout.
const AFTER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long all attempts to an endpoint fail until it is disabled.
const DISABLE_AFTER: Duration = Duration::from_secs(5 * 24 * 60 * 60);

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A response other than 2xx, with the delay of its `Retry-After`.
    Response { retry_after: Option<Duration> },
    /// No response in time.
    Timeout,
    /// No connection, or a broken one.
    Connection,
}

/// Returns the delay before the next attempt, after this number of failures; `None` if it was the last.
/// `Retry-After` counts as once to twice the scheduled delay.
pub(crate) fn delay(failures: usize, cause: Cause, compression: NonZeroU32) -> Option<Duration> {
    let scheduled = *SCHEDULE.get(failures.checked_sub(1)?)?;
    let delay = match cause {
        Cause::Response {
            retry_after: Some(wanted),
        } => wanted.clamp(scheduled, scheduled * 2),
        Cause::Timeout => scheduled.max(AFTER_TIMEOUT),
        Cause::Response { retry_after: None } | Cause::Connection => scheduled,
    };
    Some(delay / compression.get())
}

/// Returns how long all attempts to an endpoint fail until it is disabled.
pub(crate) fn disable_after(compression: NonZeroU32) -> Duration {
    DISABLE_AFTER / compression.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn real_time(failures: usize, cause: Cause) -> Option<u64> {
        delay(failures, cause, NonZeroU32::MIN).map(|delay| delay.as_secs())
    }

    #[test]
    fn follows_published_schedule() {
        let delays: Vec<_> = (1..)
            .map_while(|failures| real_time(failures, Cause::Connection))
            .collect();
        assert_eq!(delays, [5, 300, 1800, 7200, 18000, 36000, 36000]);
        let compressed = delay(7, Cause::Connection, NonZeroU32::new(100_000).unwrap());
        assert_eq!(compressed, Some(Duration::from_millis(360)));
    }

    #[test]
    fn clamps_retry_after_to_scheduled_delay() {
        for (seconds, delay) in [(0, 5), (5, 5), (7, 7), (10, 10), (3600, 10)] {
            let retry_after = Some(SECOND * seconds);
            assert_eq!(real_time(1, Cause::Response { retry_after }), Some(delay));
        }
        assert_eq!(real_time(1, Cause::Response { retry_after: None }), Some(5));
    }

    #[test]
    fn waits_longer_after_timeout() {
        assert_eq!(real_time(1, Cause::Timeout), Some(60));
        assert_eq!(real_time(2, Cause::Timeout), Some(300));
        assert_eq!(real_time(8, Cause::Timeout), None);
    }
}
