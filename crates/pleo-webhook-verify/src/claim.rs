//! The signature headers of a delivery after the checks that need no secret.

use core::time::Duration;

use arrayvec::ArrayString;

use crate::{InvalidId, SignatureHeaders, Verified, VerifyError, headers, signature};

/// Valid headers of a delivery that is not verified yet.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'h> {
    pub(crate) id: &'h str,
    timestamp: u64,
    timestamp_bytes: &'h [u8],
    /// The signature list, which is not checked.
    pub(crate) signatures: &'h [u8],
}

impl<'h> Claim<'h> {
    /// Checks that all headers are there, the form of id and timestamp, and the time window.
    /// `tolerance` and `now` are in seconds.
    pub(crate) fn check(
        headers: &SignatureHeaders<'h>,
        tolerance: u64,
        now: u64,
    ) -> Result<Self, VerifyError> {
        let [id, timestamp_bytes, signatures] = headers.require_all()?;
        let id = headers::parse_id(id).map_err(|InvalidId| VerifyError::InvalidId)?;
        let timestamp = headers::parse_timestamp(timestamp_bytes)?;
        check_window(timestamp, tolerance, now)?;
        Ok(Self {
            id,
            timestamp,
            timestamp_bytes,
            signatures,
        })
    }

    /// Returns what is signed before the body.
    pub(crate) fn signed_prefix(&self) -> [&'h [u8]; 4] {
        signature::signed_prefix(self.id, self.timestamp_bytes)
    }

    /// Makes the proof, with a copy of the id.
    pub(crate) fn verified<B>(
        self,
        secret_index: usize,
        body: B,
    ) -> Result<Verified<B>, VerifyError> {
        Ok(Verified {
            id: ArrayString::from(self.id).map_err(|_| VerifyError::InvalidId)?,
            timestamp: self.timestamp,
            secret_index,
            body,
        })
    }
}

/// Standard Webhooks, "Verifying webhook authenticity": a timestamp too far from now, in either
/// direction, is rejected to prevent replays.
const fn check_window(timestamp: u64, tolerance: u64, now: u64) -> Result<(), VerifyError> {
    let skew = timestamp.abs_diff(now);
    if skew <= tolerance {
        return Ok(());
    }
    let skew = Duration::from_secs(skew);
    let tolerance = Duration::from_secs(tolerance);
    if timestamp < now {
        Err(VerifyError::TimestampTooOld { skew, tolerance })
    } else {
        Err(VerifyError::TimestampTooNew { skew, tolerance })
    }
}
