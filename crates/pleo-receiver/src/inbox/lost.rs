//! The delay of messages whose leases were lost.

use core::time::Duration;

use crate::backoff::backoff;

/// The first lost attempt after which a message is delayed.
const FIRST_DELAYED: u32 = 3;

const MIN_DELAY: Duration = Duration::from_secs(5);
const MAX_DELAY: Duration = Duration::from_secs(3600);

/// Returns the delay of a message whose lease ended without an outcome in this attempt; zero if it is
/// ready immediately. For authors of stores.
///
/// The message may have crashed its process. From the third attempt on it is delayed with backoff, so
/// that a restarted process stays up: 5 seconds, doubled with each attempt up to an hour, plus jitter
/// up to the same delay. Jitter separates messages that were leased together.
#[must_use]
pub fn delay_after_loss(attempt: u32) -> Duration {
    if attempt < FIRST_DELAYED {
        return Duration::ZERO;
    }
    backoff(MIN_DELAY, MAX_DELAY, attempt - FIRST_DELAYED + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_from_third_lost_attempt_on() {
        for (attempt, shortest, longest) in [
            (0, 0, 0),
            (1, 0, 0),
            (2, 0, 0),
            (3, 5, 10),
            (4, 10, 20),
            (12, 2560, 5120),
            (13, 3600, 7200),
            (1000, 3600, 7200),
        ] {
            let delay = delay_after_loss(attempt).as_secs();
            assert!((shortest..=longest).contains(&delay), "{attempt}: {delay}");
        }
    }
}
