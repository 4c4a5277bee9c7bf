//! The body on its way in: bounded in size, time and rate, through the MAC as it arrives.

use core::pin::pin;
use core::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use pleo_webhook_verify::Verification;
use tokio::time::{self, Instant};

use crate::Rejection;

/// How long a body may be slower than the least rate.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is taken of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) timeout: Duration,
    /// In bytes per second.
    pub(crate) least_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 1024 * 1024,
            timeout: Duration::from_secs(10),
            least_rate: 1024,
        }
    }
}

/// Reads a body to its end, and feeds each piece to the verification as it comes. Keeps no more than
/// the limit.
pub(crate) async fn read<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    verification: &mut Verification<'_>,
    limits: Limits,
) -> Result<Bytes, Rejection> {
    // A copy, since a piece is a view of the connection's whole read buffer, which would be kept as
    // long as the message is. Most bodies arrive in one piece, so this is as long as it must.
    let mut whole = BytesMut::new();
    let start = Instant::now();
    let mut timer = pin!(time::sleep_until(start + limits.time_for(0)));
    while !body.is_end_stream() {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            () = &mut timer => {
                let end = start + limits.time_for(whole.len());
                if end <= Instant::now() {
                    return Err(Rejection::BodyTimeout);
                }
                timer.as_mut().reset(end);
                continue;
            }
        };
        let Some(frame) = frame else {
            break;
        };
        let Ok(chunk) = frame.map_err(|_| Rejection::BodyBroken)?.into_data() else {
            continue; // trailers
        };
        if chunk.len() > limits.bytes - whole.len() {
            let limit = limits.bytes;
            return Err(Rejection::BodyTooLarge { limit });
        }
        verification.update(&chunk);
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

impl Limits {
    /// How long a body may take of which so many bytes are there.
    fn time_for(&self, bytes: usize) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let at_least_rate = Duration::from_secs(bytes.into()).checked_div(self.least_rate);
        let allowed = at_least_rate.map_or(Duration::MAX, |time| PATIENCE + time);
        self.timeout.min(allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_the_time_that_its_bytes_take_at_the_least_rate() {
        let limits = |least_rate| Limits {
            bytes: usize::MAX,
            timeout: Duration::from_secs(10),
            least_rate,
        };
        for (rate, bytes, millis) in [
            (1000, 0, 5000),
            (1000, 500, 5500),
            (1000, 5000, 10_000),
            (1000, 9000, 10_000),
            (1000, usize::MAX, 10_000),
            (0, 0, 10_000),
        ] {
            let time = limits(rate).time_for(bytes);
            assert_eq!(time.as_millis(), millis, "{bytes} at {rate}/s");
        }
    }
}
