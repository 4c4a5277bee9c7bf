//! The retry schedule: how long a message is delayed, and when it is dead.

use core::time::Duration;

use super::options::DispatchOptions;
use crate::backoff::backoff;
use crate::error::error_chain;
use crate::handler::{HandlerError, Retry};
use crate::inbox::Outcome;

/// Returns the delay after failed attempt `attempt`, counted from 1; `None` if no attempts are left.
fn delay_after_failure(options: &DispatchOptions, attempt: u32) -> Option<Duration> {
    (!is_last(options, attempt)).then(|| backoff(options.min_delay, options.max_delay, attempt))
}

/// Returns the outcome of attempt `attempt`, which failed.
pub(super) fn outcome(options: &DispatchOptions, attempt: u32, failure: &HandlerError) -> Outcome {
    let error = error_chain(failure.error());
    let delay = match failure.when() {
        Retry::Backoff => delay_after_failure(options, attempt),
        Retry::After(delay) if !is_last(options, attempt) => Some(delay.min(options.max_delay)),
        Retry::After(_) | Retry::Never => None,
    };
    match delay {
        Some(after) => Outcome::Retry { after, error },
        None => Outcome::Dead { error },
    }
}

/// Returns `true` if the message is dead if attempt `attempt` fails.
pub(super) const fn is_last(options: &DispatchOptions, attempt: u32) -> bool {
    attempt >= options.max_attempts
}

/// Returns `true` if attempt `attempt` must not start.
pub(super) fn is_exhausted(options: &DispatchOptions, attempt: u32) -> bool {
    attempt > options.max_attempts.max(1)
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

    #[test]
    fn jitter_separates_messages_that_failed_together() {
        let options = DispatchOptions::default();
        let delay = || delay_after_failure(&options, 1);
        let first = delay();
        assert!((0..100).any(|_| delay() != first));
    }
}
