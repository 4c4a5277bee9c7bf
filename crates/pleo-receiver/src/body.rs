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
        // A copy, since a piece is a view of the connection's whole read buffer, which would be kept
        // as long as the message is. Most bodies arrive in one piece, so this is as long as it must.
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(|_| Rejection::BodyBroken)?.into_data() else {
                continue; // trailers
            };
            if chunk.len() > limit - whole.len() {
                return Err(Rejection::BodyTooLarge { limit });
            }
            verification.update(&chunk);
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    };
    time::timeout(timeout, read)
        .await
        .unwrap_or(Err(Rejection::BodyTimeout))
}
