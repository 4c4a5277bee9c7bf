//! The body on its way in: bounded in size, time and rate, through the MAC as it arrives.

use core::future::{poll_fn, ready};
use core::pin::{Pin, pin};
use core::task::Poll;
use core::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use pleo_webhook_verify::{Headers, Verification, Verified, Verifier, unix_now};
use tokio::time::{self, Instant};

use crate::Rejection;
use crate::body_budget::Waiting;

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

/// Reads a body to its end and checks its signature: gives the id of what is authentic, and the body.
/// Nothing is read before the headers pass, and each piece is fed to the MAC as it comes. Keeps no
/// more than the limit, and while it waits for the rest, no more than there is room for.
pub(crate) async fn verify<'h, B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    verifier: &Verifier,
    headers: &Headers<'h>,
    limits: Limits,
    waiting: Waiting<'_>,
) -> Result<(&'h str, Bytes), Rejection> {
    // Most bodies arrive with their headers and in one piece. What it takes to wait for more is large,
    // and made only where there is more.
    let first = poll_fn(|cx| {
        let mut verification = match verifier.begin(headers, unix_now()) {
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
            // A copy, since a piece is a view of the connection's whole read buffer, which would be
            // kept as long as the message is.
            let whole = |verified: Verified<'h, ()>| {
                let body = Bytes::copy_from_slice(piece);
                First::Whole(verified.id(), body)
            };
            return Poll::Ready(verified.map(whole).map_err(Rejection::from));
        }
        Poll::Ready(Ok(First::Piece(Box::new(verification), frame)))
    });
    match first.await? {
        First::Whole(id, body) => Ok((id, body)),
        First::Piece(verification, first) => {
            Box::pin(read_on(first, body, verification, limits, waiting)).await
        }
    }
}

/// What is there at the first look.
enum First<'h, E> {
    /// All of it, and it's authentic.
    Whole(&'h str, Bytes),
    /// Less, or nothing, or the end.
    Piece(Box<Verification<'h>>, Poll<Option<Result<Frame<Bytes>, E>>>),
}

/// Goes on after the first look.
async fn read_on<'h, B: Body<Data = Bytes> + Unpin>(
    first: Poll<Option<Result<Frame<Bytes>, B::Error>>>,
    mut body: B,
    mut verification: Box<Verification<'h>>,
    limits: Limits,
    mut waiting: Waiting<'_>,
) -> Result<(&'h str, Bytes), Rejection> {
    let mut whole = BytesMut::new();
    let start = Instant::now();
    let mut timer = pin!(time::sleep_until(start + limits.time_for(0)));
    let mut first = Some(first);
    loop {
        let frame = match first.take() {
            Some(Poll::Ready(frame)) => frame,
            _ if body.is_end_stream() => None,
            _ => tokio::select! {
                biased;
                frame = body.frame() => frame,
                // It is not there yet.
                () = ready(()), if !waiting.holds(whole.len()) => {
                    waiting.hold(whole.len())?;
                    continue;
                }
                () = &mut timer => {
                    let end = start + limits.time_for(whole.len());
                    if end <= Instant::now() {
                        return Err(Rejection::BodyTimeout);
                    }
                    timer.as_mut().reset(end);
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
        if piece.len() > limits.bytes - whole.len() {
            let limit = limits.bytes;
            return Err(Rejection::BodyTooLarge { limit });
        }
        verification.update(&piece);
        whole.extend_from_slice(&piece);
    }
    let verified = verification.finish()?;
    Ok((verified.id(), whole.freeze()))
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
