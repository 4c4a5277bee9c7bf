//! Verifies deliveries with public keys: in one call, or while the body arrives.

use core::fmt;
use core::time::Duration;

use arrayvec::ArrayVec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use super::ed25519::{Check, SIGNATURE_LEN, Signature};
use super::public_key::PublicKey;
use crate::claim::Claim;
use crate::{SignatureHeaders, Verified, Verifier, VerifyError};

/// The version of Ed25519 signatures.
const V1A: &[u8] = b"v1a,";

/// With one key, each signature is one check.
type Signatures = ArrayVec<Signature, { PublicKeyVerifier::MAX_CHECKS }>;

/// Verifies deliveries with `v1a` signatures against up to four public keys of the sender.
///
/// Several keys allow a rotation: a delivery is authentic if any `v1a` signature in its list is valid
/// under any of them. It skips signatures of other versions. So does [`Verifier`]: a signature that
/// somebody makes by HMAC with the public key, which is no secret, is rejected by both.
///
/// ```
/// use pleo_webhook_verify::{PublicKeyVerifier, SignatureHeaders};
///
/// let key = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=".parse()?;
/// let verifier = PublicKeyVerifier::new(key);
/// let headers = SignatureHeaders::from_pairs([
///     ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
///     ("webhook-timestamp", "1614265330"),
///     (
///         "webhook-signature",
///         "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
///     ),
/// ])?;
/// let verified = verifier.verify(&headers, b"{\"test\": 2432232314}", 1614265330)?;
/// assert_eq!((verified.id(), verified.secret_index()), ("msg_p5jXN8AQM9LWM0D4loKWxJek", 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cost
///
/// A check verifies one signature with one key. It takes about 30 µs for a small body, 70 times as long
/// as HMAC, and hashes the body by SHA-512 on its own: 1.4 ms for 1 MiB. The headers are checked first.
///
/// A delivery causes at most 24 checks ([`Self::MAX_CHECKS`]). A forged one can cause all of them: about
/// 0.7 ms for a small body, and 35 ms for 1 MiB. It takes no secret to forge one, only a current
/// timestamp. So limit the size of the body and the rate of requests, and keep only the keys that you
/// need.
///
/// The times were measured on an AMD EPYC.
///
/// # Which signatures are valid
///
/// RFC 8032 section 5.1.7 leaves some cases open, in which libraries disagree. Here a signature (R, S)
/// over M is valid under a key A only if all of this holds:
///
/// - A is the canonical encoding of a point of the prime order L. [`PublicKey`] checks it.
/// - S is below L.
/// - R is the canonical encoding of S·B − k·A, where k is the hash of R, A and M: the equation
///   without a cofactor.
/// - R is not the identity.
///
/// Every key that section 5.1.5 makes passes, and every signature that section 5.1.6 makes (R is the
/// identity with a chance of 1 in 2^252). What passes here is valid in every library that follows the
/// RFC, with or without the cofactor, and in the strict ones (libsodium, `verify_strict` of
/// `ed25519-dalek`). The reverse is not so: some libraries accept keys and points of small or mixed
/// order, other encodings of a point, or an S that is not reduced. No honest sender makes them. Because
/// of these rules, a signature under one key fits no other message, and nobody without the private key
/// can change it into another valid one.
#[derive(Clone, Debug)]
pub struct PublicKeyVerifier {
    keys: ArrayVec<PublicKey, { Self::MAX_KEYS }>,
    /// In seconds.
    tolerance: u64,
}

impl PublicKeyVerifier {
    /// The most keys of one verifier.
    pub const MAX_KEYS: usize = 4;

    /// The most checks of one delivery: its `v1a` signatures times the keys of the verifier.
    ///
    /// During a rotation, a sender signs with each key that has not expired. The Svix server keeps up to
    /// ten old keys for a day, so up to 11 signatures arrive. A verifier with one or two keys takes them
    /// all: one key takes 24 signatures, two take 12, three 8 and four 6.
    pub const MAX_CHECKS: usize = 24;

    /// Creates a verifier with one key and the tolerance [`Verifier::DEFAULT_TOLERANCE`].
    #[must_use]
    pub fn new(key: PublicKey) -> Self {
        Self {
            keys: ArrayVec::from_iter([key]),
            tolerance: Verifier::DEFAULT_TOLERANCE.as_secs(),
        }
    }

    /// Creates a verifier with several keys and the tolerance [`Verifier::DEFAULT_TOLERANCE`]. Put the
    /// newest key first: [`Verified::secret_index`] counts in this order.
    ///
    /// # Errors
    /// There is no key, or there are more than [`Self::MAX_KEYS`].
    pub fn from_keys(keys: impl IntoIterator<Item = PublicKey>) -> Result<Self, KeyCountError> {
        let mut keys = keys.into_iter();
        let first = keys.next().ok_or(KeyCountError::NoKey)?;
        keys.try_fold(Self::new(first), Self::and_key)
    }

    /// Adds a key during a rotation.
    ///
    /// # Errors
    /// The verifier already has [`Self::MAX_KEYS`].
    pub fn and_key(mut self, key: PublicKey) -> Result<Self, KeyCountError> {
        self.keys
            .try_push(key)
            .map_err(|_| KeyCountError::TooManyKeys)?;
        Ok(self)
    }

    /// Sets the tolerance: how much a timestamp may differ from now, inclusive, in either direction.
    /// A fraction of a second has no effect.
    #[must_use]
    pub const fn with_tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = tolerance.as_secs();
        self
    }

    /// Verifies a delivery whose body is complete. `now` is in Unix seconds.
    ///
    /// The body is any type that is bytes, as in [`Verifier::verify`]. It is hashed once per check, so
    /// once for a delivery with one signature and a verifier with one key.
    ///
    /// # Errors
    /// The first check that fails, in the order of [`VerifyError`].
    pub fn verify<B: AsRef<[u8]>>(
        &self,
        headers: &SignatureHeaders<'_>,
        body: B,
        now: u64,
    ) -> Result<Verified<B>, VerifyError> {
        let (claim, signatures) = self.check(headers, now)?;
        let mut checks = self.checks(&claim, &signatures);
        let matched = checks.find_map(|(index, mut check)| {
            check.update(body.as_ref());
            check.finish().then_some(index)
        });
        claim.verified(matched.ok_or(VerifyError::SignatureMismatch)?, body)
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
    /// Returns a state of about 12 KiB, however few the checks are. A body that arrives slowly keeps that
    /// much memory. Verification in chunks needs about 25 KiB of stack, the state included, and
    /// [`Self::verify`] about 12 KiB (measured on x86-64).
    ///
    /// ```
    /// # use pleo_webhook_verify::{PublicKeyVerifier, SignatureHeaders};
    /// # let key = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=".parse()?;
    /// # let verifier = PublicKeyVerifier::new(key);
    /// # let headers = SignatureHeaders::from_pairs([
    /// #     ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
    /// #     ("webhook-timestamp", "1614265330"),
    /// #     (
    /// #         "webhook-signature",
    /// #         "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
    /// #     ),
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
    ) -> Result<PublicKeyVerification<'h>, VerifyError> {
        let (claim, signatures) = self.check(headers, now)?;
        let checks = self.checks(&claim, &signatures).collect();
        Ok(PublicKeyVerification { claim, checks })
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
    ) -> Result<PublicKeyVerification<'h>, VerifyError> {
        self.begin(headers, crate::unix_now())
    }

    /// Checks the headers, which needs no key.
    fn check<'h>(
        &self,
        headers: &SignatureHeaders<'h>,
        now: u64,
    ) -> Result<(Claim<'h>, Signatures), VerifyError> {
        let claim = Claim::check(headers, self.tolerance, now)?;
        let signatures = parse_list(claim.signatures, self.keys.len())?;
        Ok((claim, signatures))
    }

    /// Begins the check of each signature with each key, in the order of the keys, up to the body. Each
    /// has the index of its key.
    fn checks(
        &self,
        claim: &Claim<'_>,
        signatures: &Signatures,
    ) -> impl Iterator<Item = (usize, Check)> {
        self.keys.iter().enumerate().flat_map(move |(index, key)| {
            signatures.iter().filter_map(move |signature| {
                let mut check = Check::new(&key.key, signature)?;
                for part in claim.signed_prefix() {
                    check.update(part);
                }
                Some((index, check))
            })
        })
    }
}

impl From<PublicKey> for PublicKeyVerifier {
    fn from(key: PublicKey) -> Self {
        Self::new(key)
    }
}

/// A verifier cannot have that many keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeyCountError {
    /// There is no key, so nothing would be authentic.
    #[error("a verifier needs a public key; set at least one")]
    NoKey,
    /// There are more than [`PublicKeyVerifier::MAX_KEYS`] keys.
    #[error(
        "a verifier has at most {} public keys; remove those that were rotated out",
        PublicKeyVerifier::MAX_KEYS
    )]
    TooManyKeys,
}

/// A delivery whose headers are valid and whose body is arriving. Made by
/// [`PublicKeyVerifier::begin`].
///
/// It stores no part of the body. Do not trust the body before [`Self::finish`] returns `Ok`.
///
/// It has room for the states of 24 checks, about 12 KiB, and keeps it until the body is complete. Each byte
/// of the body is hashed once per `v1a` signature and key.
#[must_use = "a delivery is verified only if `finish` returns `Ok`"]
pub struct PublicKeyVerification<'h> {
    claim: Claim<'h>,
    /// Each with the index of its key.
    checks: ArrayVec<(usize, Check), { PublicKeyVerifier::MAX_CHECKS }>,
}

impl<'h> PublicKeyVerification<'h> {
    /// Returns the id in the header. It is not authentic before [`Self::finish`] returns `Ok`.
    #[must_use]
    pub const fn claimed_id(&self) -> &'h str {
        self.claim.id
    }

    /// Takes the next chunk of the body.
    pub fn update(&mut self, chunk: &[u8]) {
        for (_, check) in &mut self.checks {
            check.update(chunk);
        }
    }

    /// Verifies the signature after the last chunk. On `Ok`, the chunks that [`Self::update`] took
    /// are authentic in their order.
    ///
    /// # Errors
    /// [`VerifyError::SignatureMismatch`].
    pub fn finish(self) -> Result<Verified<()>, VerifyError> {
        let matched =
            (self.checks.into_iter()).find_map(|(index, check)| check.finish().then_some(index));
        (self.claim).verified(matched.ok_or(VerifyError::SignatureMismatch)?, ())
    }
}

impl fmt::Debug for PublicKeyVerification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKeyVerification")
            .field("claimed_id", &self.claim.id)
            .finish_non_exhaustive()
    }
}

/// Parses the `v1a` entries of a signature list for a number of keys. Skips those that no key and message
/// could have.
///
/// Standard Webhooks, "Webhook headers": the signatures are a list delimited by spaces. Standard
/// Webhooks, "Signature scheme": each is a version, a comma and the signature in base64.
fn parse_list(list: &[u8], keys: usize) -> Result<Signatures, VerifyError> {
    let mut signatures = Signatures::new();
    let (mut v1, mut v1a) = (false, false);
    for entry in list.split(|byte| *byte == b' ') {
        v1 |= entry.starts_with(b"v1,");
        let Some(encoded) = entry.strip_prefix(V1A) else {
            continue;
        };
        v1a = true;
        let Some(signature) = decode(encoded) else {
            continue;
        };
        (signatures.try_push(signature)).map_err(|_| VerifyError::TooManySignatures)?;
        if signatures.len() * keys > PublicKeyVerifier::MAX_CHECKS {
            return Err(VerifyError::TooManySignatures);
        }
    }
    if !v1a {
        return Err(VerifyError::NoAsymmetricSignature { v1 });
    }
    Ok(signatures)
}

/// Decodes a signature; `None` if it is not the canonical base64 of 64 bytes that can be a signature.
fn decode(encoded: &[u8]) -> Option<Signature> {
    let mut bytes = [0; SIGNATURE_LEN];
    match STANDARD.decode_slice(encoded, &mut bytes) {
        Ok(SIGNATURE_LEN) => Signature::new(&bytes),
        _ => None,
    }
}
