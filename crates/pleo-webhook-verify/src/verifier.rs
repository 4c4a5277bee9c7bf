//! Verifies deliveries: in one call, or while the body arrives.

use core::fmt;

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::mac::{Mac, Tag};
use crate::verified::Verified;
use crate::{Headers, Secret, VerifyError, headers, signature};

/// Verifies deliveries against up to four secrets.
///
/// Several secrets allow a rotation: a delivery is authentic if any signature in its list matches
/// any of them.
#[derive(Clone, Debug)]
pub struct Verifier {
    secrets: ArrayVec<Secret, { Self::MAX_SECRETS }>,
    tolerance: u64,
}

impl Verifier {
    /// The most secrets of one verifier.
    pub const MAX_SECRETS: usize = 4;

    /// The default tolerance: 300 seconds, as in the public Standard Webhooks libraries.
    pub const DEFAULT_TOLERANCE: u64 = 300;

    /// Creates a verifier with one secret and the default tolerance.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self {
            secrets: ArrayVec::from_iter([secret]),
            tolerance: Self::DEFAULT_TOLERANCE,
        }
    }

    /// Adds a secret during a rotation.
    ///
    /// # Errors
    /// The verifier already has [`Self::MAX_SECRETS`].
    pub fn and_secret(mut self, secret: Secret) -> Result<Self, TooManySecrets> {
        self.secrets.try_push(secret).map_err(|_| TooManySecrets)?;
        Ok(self)
    }

    /// Sets the tolerance: how many seconds a timestamp may differ from now, inclusive, in either
    /// direction.
    #[must_use]
    pub const fn with_tolerance(mut self, seconds: u64) -> Self {
        self.tolerance = seconds;
        self
    }

    /// Verifies a delivery whose body is complete. `now` is in Unix seconds.
    ///
    /// The body is any type that is bytes (`&[u8]`, `Vec<u8>`, `Bytes`, …). [`Verified`] returns it.
    /// If you pass it by value, there is no other way to reach it, so it cannot be used unverified.
    ///
    /// ```
    /// # use pleo_webhook_verify::{Headers, Verified, Verifier};
    /// # let verifier = Verifier::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?);
    /// # let (id, timestamp) = (b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330");
    /// # let signature = b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    /// # let headers = Headers::new(id, timestamp, signature);
    /// let body = br#"{"test": 2432232314}"#.to_vec();
    /// let verified: Verified<'_, Vec<u8>> = verifier.verify(&headers, body, 1614265330)?;
    /// assert_eq!(verified.body(), br#"{"test": 2432232314}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first check that fails, in the order of [`VerifyError`].
    pub fn verify<'h, B: AsRef<[u8]>>(
        &self,
        headers: &Headers<'h>,
        body: B,
        now: u64,
    ) -> Result<Verified<'h, B>, VerifyError> {
        let claim = self.check(headers, now)?;
        let tags = self.secrets.iter().map(|secret| {
            let mut mac = Mac::new(&secret.key);
            for part in claim.signed_prefix() {
                mac.update(part);
            }
            mac.update(body.as_ref());
            mac.finish()
        });
        Ok(claim.verify(tags)?.with_body(body))
    }

    /// Checks the headers before the first byte of the body arrives. `now` is in Unix seconds.
    ///
    /// ```
    /// # use pleo_webhook_verify::{Headers, Secret, Verifier};
    /// # let verifier = Verifier::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?);
    /// # let (id, timestamp) = (b"msg_p5jXN8AQM9LWM0D4loKWxJek", b"1614265330");
    /// # let signature = b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    /// let mut verification = verifier.begin(&Headers::new(id, timestamp, signature), 1614265330)?;
    /// for chunk in [&b"{\"test\": "[..], b"2432232314}"] {
    ///     verification.update(chunk);
    /// }
    /// assert_eq!(verification.finish()?.id(), "msg_p5jXN8AQM9LWM0D4loKWxJek");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first check that fails, in the order of [`VerifyError`], except
    /// [`VerifyError::SignatureMismatch`].
    pub fn begin<'h>(
        &self,
        headers: &Headers<'h>,
        now: u64,
    ) -> Result<Verification<'h>, VerifyError> {
        let claim = self.check(headers, now)?;
        let mut verification = Verification {
            claim,
            macs: ArrayVec::new(),
        };
        for secret in &self.secrets {
            verification.macs.push(Mac::new(&secret.key));
        }
        for part in claim.signed_prefix() {
            verification.update(part);
        }
        Ok(verification)
    }

    /// Checks the headers, which needs no secret.
    fn check<'h>(&self, headers: &Headers<'h>, now: u64) -> Result<Claim<'h>, VerifyError> {
        let [id, timestamp_bytes, signatures] = headers.require_all()?;
        let id = headers::parse_id(id)?;
        let timestamp = headers::parse_timestamp(timestamp_bytes)?;
        self.check_window(timestamp, now)?;
        signature::check_list(signatures)?;
        Ok(Claim {
            id,
            timestamp,
            timestamp_bytes,
            signatures,
        })
    }

    /// Standard Webhooks, "Verifying webhook authenticity": a timestamp too far from now, in either
    /// direction, is rejected to prevent replays.
    const fn check_window(&self, timestamp: u64, now: u64) -> Result<(), VerifyError> {
        let tolerance = self.tolerance;
        let skew = timestamp.abs_diff(now);
        if skew <= tolerance {
            Ok(())
        } else if timestamp < now {
            Err(VerifyError::TimestampTooOld { skew, tolerance })
        } else {
            Err(VerifyError::TimestampTooNew { skew, tolerance })
        }
    }
}

/// A verifier already has [`Verifier::MAX_SECRETS`] secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a verifier has at most {} secrets; remove those that were rotated out",
    Verifier::MAX_SECRETS
)]
pub struct TooManySecrets;

/// A delivery whose headers are valid and whose body is arriving. Made by [`Verifier::begin`].
///
/// It stores no part of the body. Do not trust the body before [`Self::finish`] returns `Ok`.
#[must_use = "a delivery is verified only if `finish` returns `Ok`"]
pub struct Verification<'h> {
    claim: Claim<'h>,
    macs: ArrayVec<Mac, { Verifier::MAX_SECRETS }>,
}

impl<'h> Verification<'h> {
    /// Returns the id in the header. It is not authentic before [`Self::finish`] returns `Ok`.
    #[must_use]
    pub const fn claimed_id(&self) -> &'h str {
        self.claim.id
    }

    /// Takes the next chunk of the body.
    pub fn update(&mut self, chunk: &[u8]) {
        for mac in &mut self.macs {
            mac.update(chunk);
        }
    }

    /// Verifies the signature after the last chunk. On `Ok`, the chunks that [`Self::update`] took
    /// are authentic in their order.
    ///
    /// Compares every signature in the list with that of every secret, in constant time and without
    /// an early exit.
    ///
    /// # Errors
    /// [`VerifyError::SignatureMismatch`].
    pub fn finish(self) -> Result<Verified<'h, ()>, VerifyError> {
        self.claim.verify(self.macs.iter().map(Mac::finish))
    }
}

impl fmt::Debug for Verification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification")
            .field("claimed_id", &self.claim.id)
            .finish_non_exhaustive()
    }
}

/// Valid headers of a delivery that is not verified yet.
#[derive(Clone, Copy)]
struct Claim<'h> {
    id: &'h str,
    timestamp: u64,
    timestamp_bytes: &'h [u8],
    signatures: &'h [u8],
}

impl<'h> Claim<'h> {
    /// Returns what is signed before the body.
    fn signed_prefix(&self) -> [&'h [u8]; 4] {
        signature::signed_prefix(self.id, self.timestamp_bytes)
    }

    /// Compares the signatures with the tag of each secret.
    fn verify(self, tags: impl Iterator<Item = Tag>) -> Result<Verified<'h, ()>, VerifyError> {
        // One bit per secret, so that no branch depends on which one matched.
        let mut matched = 0_u8;
        for (index, tag) in (0..).zip(tags) {
            matched |= u8::from(signature::list_contains(self.signatures, &tag)) << index;
        }
        if matched == 0 {
            return Err(VerifyError::SignatureMismatch);
        }
        Ok(Verified {
            id: self.id,
            timestamp: self.timestamp,
            secret_index: usize::try_from(matched.trailing_zeros()).unwrap_or_default(),
            body: (),
        })
    }
}
