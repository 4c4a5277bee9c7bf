//! The retry schedule: how long a message is delayed, and when it is dead.

use core::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use super::options::DispatchOptions;

/// The first attempt after which a crash delays the message.
#[cfg(feature = "sqlite")]
const FIRST_DELAYED_CRASH: u32 = 3;

/// Returns the delay after failed attempt `attempt`, counted from 1; `None` if no attempts are left.
pub(super) fn delay_after_failure(options: &DispatchOptions, attempt: u32) -> Option<Duration> {
    (attempt < options.max_attempts).then(|| backoff(options.min_delay, options.max_delay, attempt))
}

/// Returns the delay after an attempt during which the receiver crashed; `None` if the message is
/// ready immediately.
///
/// Any message in progress may have caused the crash. From the third attempt on, a message is
/// delayed with backoff, so that a restarted receiver stays up. Jitter separates messages that were
/// in progress together.
#[cfg(feature = "sqlite")]
pub(crate) fn delay_after_crash(attempt: u32) -> Option<Duration> {
    let options = DispatchOptions::default();
    (attempt >= FIRST_DELAYED_CRASH).then(|| {
        let crashes = attempt - FIRST_DELAYED_CRASH + 1;
        backoff(options.min_delay, options.max_delay, crashes)
    })
}

/// Returns `true` if attempt `attempt` must not start.
pub(super) fn is_exhausted(options: &DispatchOptions, attempt: u32) -> bool {
    attempt > options.max_attempts.max(1)
}

/// Returns `min` · 2ⁿ⁻¹ for the `n`th failure, at most `max`, plus jitter up to the same delay.
fn backoff(min: Duration, max: Duration, n: u32) -> Duration {
    let delays = ExponentialBuilder::default()
        .with_min_delay(min)
        .with_max_delay(max)
        .with_jitter()
        .without_max_times();
    let nth = usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
    delays.build().nth(nth).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_delay(delay: Option<Duration>, expected: Option<(u64, u64)>) {
        match (delay, expected) {
            (None, None) => {}
            (Some(delay), Some((shortest, longest))) => {
                assert!(
                    (shortest..=longest).contains(&delay.as_secs()),
                    "{delay:?} is not in {shortest}..={longest}"
                );
            }
            _ => assert_eq!(
                delay.map(|delay| (delay.as_secs(), delay.as_secs())),
                expected
            ),
        }
    }

    #[test]
    fn doubles_delay_up_to_maximum_until_attempts_are_exhausted() {
        let options = DispatchOptions::default();
        for (attempt, expected) in [
            (1, Some((5, 10))),
            (2, Some((10, 20))),
            (3, Some((20, 40))),
            (10, Some((2560, 5120))),
            (11, Some((3600, 7200))),
            (12, None),
            (13, None),
        ] {
            assert_delay(delay_after_failure(&options, attempt), expected);
        }
        assert!(!is_exhausted(&options, 12));
        assert!(is_exhausted(&options, 13));
    }

    #[test]
    fn allows_one_attempt_if_maximum_is_zero() {
        let options = DispatchOptions::default().with_max_attempts(0);
        assert!(!is_exhausted(&options, 1));
        assert_delay(delay_after_failure(&options, 1), None);
        assert!(is_exhausted(&options, 2));
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn delays_from_third_crash_on() {
        for (attempt, expected) in [
            (0, None),
            (1, None),
            (2, None),
            (3, Some((5, 10))),
            (4, Some((10, 20))),
            (12, Some((2560, 5120))),
            (13, Some((3600, 7200))),
            (1000, Some((3600, 7200))),
        ] {
            assert_delay(delay_after_crash(attempt), expected);
        }
    }

    #[test]
    fn jitter_separates_messages_that_failed_together() {
        let options = DispatchOptions::default();
        let delay = || delay_after_failure(&options, 1);
        let first = delay();
        assert!((0..100).any(|_| delay() != first));
    }
}
