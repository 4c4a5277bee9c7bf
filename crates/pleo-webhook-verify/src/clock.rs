//! The system clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the current time in Unix seconds.
///
/// Returns 0 if the clock is set before 1970, so that every timestamp is too new.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
