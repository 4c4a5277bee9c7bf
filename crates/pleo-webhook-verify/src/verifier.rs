//! Verifies deliveries: in one call, or while the body arrives.

use core::fmt;
use core::time::Duration;

use arrayvec::ArrayVec;
use thiserror::Error;

use crate::claim::Claim;
use crate::mac::{Mac, Tag};
use crate::{Secret, SignatureHeaders, Verified, VerifyError, signature};

/// Verifies deliveries against up to four secrets.
///
/// Several secrets allow a rotation: a delivery is authentic if any signature in its list matches
/// any of them.
#[derive(Clone, Debug)]
pub struct Verifier {
    secrets: ArrayVec<Secret, { Self::MAX_SECRETS }>,
    /// In seconds.
    tolerance: u64,
}

impl Verifier {
    /// The most secrets of one verifier.
    pub const MAX_SECRETS: usize = 4;

    /// The default tolerance: 300 seconds, as in the public Standard Webhooks libraries.
    pub const DEFAULT_TOLERANCE: Duration = Duration::from_secs(300);

    /// Creates a verifier with one secret and the default tolerance.
    #[must_use]
    pub fn new(secret: Secret) -> Self {
        Self {
            secrets: ArrayVec::from_iter([secret]),
            tolerance: Self::DEFAULT_TOLERANCE.as_secs(),
        }
    }

    /// Creates a verifier with several secrets and the default tolerance. Put the newest secret
    /// first: [`Verified::secret_index`] counts in this order.
    ///
    /// # Errors
    /// There is no secret, or there are more than [`Self::MAX_SECRETS`].
    pub fn from_secrets(
        secrets: impl IntoIterator<Item = Secret>,
    ) -> Result<Self, SecretCountError> {
        let mut secrets = secrets.into_iter();
        let first = secrets.next().ok_or(SecretCountError::NoSecret)?;
        secrets.try_fold(Self::new(first), Self::and_secret)
    }

    /// Adds a secret during a rotation.
    ///
    /// # Errors
    /// The verifier already has [`Self::MAX_SECRETS`].
    pub fn and_secret(mut self, secret: Secret) -> Result<Self, SecretCountError> {
        self.secrets
            .try_push(secret)
            .map_err(|_| SecretCountError::TooManySecrets)?;
        Ok(self)
    }

    /// Sets the tolerance: how much a timestamp may differ from now, inclusive, in either direction.
    ///
    /// Timestamps are whole seconds, so a fraction of a second has no effect. A plain number does
    /// not compile, because milliseconds would be taken for seconds:
    ///
    /// ```compile_fail,E0308
    /// # use pleo_webhook_verify::Verifier;
    /// # fn set(verifier: Verifier) -> Verifier {
    /// verifier.with_tolerance(300_000)
    /// # }
    /// ```
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance.as_secs();
        self
    }

    /// Verifies a delivery whose body is complete. `now` is in Unix seconds.
    ///
    /// The body is any type that is bytes (`&[u8]`, `Vec<u8>`, `Bytes`, …). [`Verified`] returns it.
    /// If you pass it by value, there is no other way to reach it, so it cannot be used unverified.
    ///
    /// ```
    /// # use pleo_webhook_verify::{SignatureHeaders, Verified, Verifier};
    /// # let verifier = Verifier::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?);
    /// # let headers = SignatureHeaders::from_pairs([
    /// #     ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
    /// #     ("webhook-timestamp", "1614265330"),
    /// #     ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    /// # ])?;
    /// let body = br#"{"test": 2432232314}"#.to_vec();
    /// let verified: Verified<Vec<u8>> = verifier.verify(&headers, body, 1614265330)?;
    /// assert_eq!(verified.body(), br#"{"test": 2432232314}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first check that fails, in the order of [`VerifyError`].
    pub fn verify<B: AsRef<[u8]>>(
        &self,
        headers: &SignatureHeaders<'_>,
        body: B,
        now: u64,
    ) -> Result<Verified<B>, VerifyError> {
        let claim = self.check(headers, now)?;
        let tags = self.secrets.iter().map(|secret| {
            let mut mac = Mac::new(&secret.key);
            for part in claim.signed_prefix() {
                mac.update(part);
            }
            mac.update(body.as_ref());
            mac.finish()
        });
        let secret_index = matching_secret(claim.signatures, tags)?;
        claim.verified(secret_index, body)
    }

    /// Verifies a delivery whose body is complete, by the system clock. See [`Self::verify`].
    ///
    /// # Errors
    /// The first check that fails, in the order of [`VerifyError`].
    #[cfg(feature = "std")]
    pub fn verify_now<B: AsRef<[u8]>>(
        &self,
        headers: &SignatureHeaders<'_>,
        body: B,
    ) -> Result<Verified<B>, VerifyError> {
        self.verify(headers, body, crate::unix_now())
    }

    /// Checks the headers before the first byte of the body arrives. `now` is in Unix seconds.
    ///
    /// ```
    /// # use pleo_webhook_verify::{SignatureHeaders, Verifier};
    /// # let verifier = Verifier::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?);
    /// # let headers = SignatureHeaders::from_pairs([
    /// #     ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
    /// #     ("webhook-timestamp", "1614265330"),
    /// #     ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    /// # ])?;
    /// let mut verification = verifier.begin(&headers, 1614265330)?;
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
        headers: &SignatureHeaders<'h>,
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

    /// Checks the headers before the first byte of the body arrives, by the system clock. See
    /// [`Self::begin`].
    ///
    /// # Errors
    /// The same as [`Self::begin`].
    #[cfg(feature = "std")]
    pub fn begin_now<'h>(
        &self,
        headers: &SignatureHeaders<'h>,
    ) -> Result<Verification<'h>, VerifyError> {
        self.begin(headers, crate::unix_now())
    }

    /// Checks the headers, which needs no secret.
    fn check<'h>(
        &self,
        headers: &SignatureHeaders<'h>,
        now: u64,
    ) -> Result<Claim<'h>, VerifyError> {
        let claim = Claim::check(headers, self.tolerance, now)?;
        signature::check_list(claim.signatures)?;
        Ok(claim)
    }
}

impl From<Secret> for Verifier {
    fn from(secret: Secret) -> Self {
        Self::new(secret)
    }
}

/// A verifier cannot have that many secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SecretCountError {
    /// There is no secret, so nothing would be authentic.
    #[error("a verifier needs a secret; set at least one")]
    NoSecret,
    /// There are more than [`Verifier::MAX_SECRETS`] secrets.
    #[error(
        "a verifier has at most {} secrets; remove those that were rotated out",
        Verifier::MAX_SECRETS
    )]
    TooManySecrets,
}

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
    pub fn finish(self) -> Result<Verified<()>, VerifyError> {
        let tags = self.macs.iter().map(Mac::finish);
        let secret_index = matching_secret(self.claim.signatures, tags)?;
        self.claim.verified(secret_index, ())
    }
}

impl fmt::Debug for Verification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification")
            .field("claimed_id", &self.claim.id)
            .finish_non_exhaustive()
    }
}

/// Compares the signatures with the tag of each secret. Returns the index of the first secret that
/// matches.
fn matching_secret(
    signatures: &[u8],
    tags: impl Iterator<Item = Tag>,
) -> Result<usize, VerifyError> {
    // One bit per secret, so that no branch depends on which one matched.
    let mut matched = 0_u8;
    for (index, tag) in (0..).zip(tags) {
        matched |= u8::from(signature::list_contains(signatures, &tag)) << index;
    }
    if matched == 0 {
        return Err(VerifyError::SignatureMismatch);
    }
    usize::try_from(matched.trailing_zeros()).map_err(|_| VerifyError::SignatureMismatch)
}
