//! The system's clock, for those who have one.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in Unix seconds; 0 where the clock stands before 1970, so that every timestamp is too new.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
