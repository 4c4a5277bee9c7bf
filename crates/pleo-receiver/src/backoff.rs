//! Exponential backoff with jitter.

use core::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// Returns `min` · 2ⁿ⁻¹ for the `n`th failure, at most `max`, plus jitter up to the same delay.
pub(crate) fn backoff(min: Duration, max: Duration, n: u32) -> Duration {
    let delays = ExponentialBuilder::default()
        .with_min_delay(min)
        .with_max_delay(max)
        .with_jitter()
        .without_max_times();
    let nth = usize::try_from(n.saturating_sub(1)).unwrap_or(usize::MAX);
    delays.build().nth(nth).unwrap_or(max)
}
