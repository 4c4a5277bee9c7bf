//! The body on its way in: bounded in size and time, through the MAC as it arrives.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use pleo_webhook_verify::Verification;
use tokio::time;

use crate::Rejection;

/// Reads a body to its end, and feeds each piece to the verification as it comes. Keeps no more than
/// `limit` bytes.
pub(crate) async fn read<B: Body<Data = Bytes> + Unpin>(
    mut body: B,
    verification: &mut Verification<'_>,
    limit: usize,
    timeout: Duration,
) -> Result<Bytes, Rejection> {
    let read = async {
        // Most bodies arrive in one piece, which is then kept without a copy.
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(|_| Rejection::BodyBroken)?.into_data() else {
                continue; // trailers
            };
            if chunk.len() > limit - first.len() - rest.len() {
                return Err(Rejection::BodyTooLarge { limit });
            }
            verification.update(&chunk);
            if first.is_empty() {
                first = chunk;
            } else {
                rest.extend_from_slice(&chunk);
            }
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let mut whole = BytesMut::with_capacity(first.len() + rest.len());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&rest);
        Ok(whole.freeze())
    };
    time::timeout(timeout, read)
        .await
        .unwrap_or(Err(Rejection::BodyTimeout))
}
