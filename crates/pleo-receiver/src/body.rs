//! Reads request bodies through the MAC: bounded in size, time and rate.

use core::future::{poll_fn, ready};
use core::pin::{Pin, pin};
use core::task::Poll;
use core::time::Duration;
use std::sync::Arc;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use pleo_webhook_verify::{SignatureHeaders, Verification, Verified, Verifier, VerifyError};
use tokio::time::{self, Instant};

use crate::admission::BodyPermit;
use crate::rejection::Rejection;

/// How long a body may stay below the minimum rate.
const RATE_GRACE: Duration = Duration::from_secs(5);

/// How many bytes more an incomplete body gets when it needs more memory.
const GROWTH: usize = 64 * 1024;

/// The limits of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) timeout: Duration,
    /// Bytes per second.
    pub(crate) min_rate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 1024 * 1024,
            timeout: Duration::from_secs(10),
            min_rate: 1024,
        }
    }
}

impl Limits {
    /// Returns how long a body may take in total, once `bytes` of it arrived.
    fn time_for(&self, bytes: usize) -> Duration {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let at_min_rate = Duration::from_secs(bytes.into()).checked_div(self.min_rate);
        let allowed = at_min_rate.map_or(Duration::MAX, |time| RATE_GRACE + time);
        self.timeout.min(allowed)
    }
}

/// What the signature of a delivery covers.
pub(crate) struct Authentic {
    pub(crate) id: Arc<str>,
    pub(crate) body: Bytes,
    /// The index of the secret that matched.
    pub(crate) secret_index: usize,
}

impl Authentic {
    fn new(verified: &Verified<()>, body: Bytes) -> Self {
        Self {
            id: verified.id().into(),
            body,
            secret_index: verified.secret_index(),
        }
    }
}

/// A body that is rejected.
pub(crate) struct Refused {
    pub(crate) rejection: Rejection,
    /// The complete body, if no signature matches it.
    pub(crate) unauthentic: Option<Bytes>,
}

impl Refused {
    fn new(error: VerifyError, body: Bytes) -> Self {
        Self {
            rejection: error.into(),
            unauthentic: Some(body),
        }
    }
}

impl<E: Into<Rejection>> From<E> for Refused {
    fn from(rejection: E) -> Self {
        Self {
            rejection: rejection.into(),
            unauthentic: None,
        }
    }
}

/// Reads a body to its end and verifies its signature.
///
/// Checks the headers before it reads. Feeds each piece to the MAC as it arrives. Holds
/// a share of the memory for incomplete bodies while it waits.
pub(crate) async fn verify<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    verifier: &Verifier,
    headers: &SignatureHeaders<'_>,
    limits: Limits,
    permit: BodyPermit<'_>,
) -> Result<Authentic, Refused> {
    // Most bodies arrive complete with the headers. The large future that reads the rest is
    // created only if there is more.
    let first = poll_fn(|cx| {
        let mut verification = match verifier.begin_now(headers) {
            Ok(verification) => verification,
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        let frame = Pin::new(&mut body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(piece) = frame.data_ref()
            && body.is_end_stream()
            && piece.len() <= limits.bytes
        {
            verification.update(piece);
            let verified = verification.finish();
            // A copy: the piece is a view into the connection's read buffer and would keep it alive.
            let complete = |verified: Verified<()>| {
                let body = Bytes::copy_from_slice(piece);
                FirstPoll::Complete(Authentic::new(&verified, body))
            };
            let refused = |error| Refused::new(error, piece.clone());
            return Poll::Ready(verified.map(complete).map_err(refused));
        }
        Poll::Ready(Ok(FirstPoll::Incomplete(Box::new(verification), frame)))
    });
    match first.await? {
        FirstPoll::Complete(authentic) => Ok(authentic),
        FirstPoll::Incomplete(verification, first) => {
            Box::pin(read_rest(first, body, verification, limits, permit)).await
        }
    }
}

/// The result of the first poll.
enum FirstPoll<'h, E> {
    /// The complete body arrived and is authentic.
    Complete(Authentic),
    /// A part arrived, or nothing yet, or the end.
    Incomplete(Box<Verification<'h>>, Poll<Option<Result<Frame<Bytes>, E>>>),
}

/// Reads the rest of a body.
async fn read_rest<B: Body<Data = Bytes> + Unpin>(
    first: Poll<Option<Result<Frame<Bytes>, B::Error>>>,
    mut body: B,
    mut verification: Box<Verification<'_>>,
    limits: Limits,
    mut permit: BodyPermit<'_>,
) -> Result<Authentic, Refused> {
    let mut read = Vec::new();
    let start = Instant::now();
    let mut timer = pin!(time::sleep(limits.time_for(0)));
    let mut first = Some(first);
    loop {
        let frame = match first.take() {
            Some(Poll::Ready(frame)) => frame,
            _ if body.is_end_stream() => None,
            _ => tokio::select! {
                biased;
                frame = body.frame() => frame,
                // The next frame has not arrived.
                () = ready(()), if !permit.holds(read.len()) => {
                    permit.hold(read.len())?;
                    continue;
                }
                rejection = permit.evicted() => return Err(rejection.into()),
                () = &mut timer => {
                    let left = limits.time_for(read.len()).saturating_sub(start.elapsed());
                    if left.is_zero() {
                        return Err(Rejection::BodyTimeout.into());
                    }
                    timer.set(time::sleep(left));
                    continue;
                }
            },
        };
        let Some(frame) = frame else {
            break;
        };
        let Ok(piece) = frame.map_err(|_| Rejection::BodyBroken)?.into_data() else {
            continue; // trailers
        };
        if piece.len() > limits.bytes - read.len() {
            let limit = limits.bytes;
            return Err(Rejection::BodyTooLarge { limit }.into());
        }
        verification.update(&piece);
        if read.capacity() - read.len() < piece.len() {
            // `Vec` would double its capacity, of which the limit on memory knows nothing.
            read.reserve_exact(piece.len().max(GROWTH));
        }
        read.extend_from_slice(&piece);
    }
    match verification.finish() {
        Ok(verified) => Ok(Authentic::new(&verified, read.into())),
        Err(error) => Err(Refused::new(error, read.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extends_time_by_arrived_bytes_up_to_timeout() {
        let limits = |min_rate| Limits {
            bytes: usize::MAX,
            timeout: Duration::from_secs(10),
            min_rate,
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
