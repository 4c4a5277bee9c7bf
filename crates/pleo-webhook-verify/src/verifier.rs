//! The check itself, in one call or while the body arrives.

use core::array;

use subtle::{Choice, ConditionallySelectable};

use crate::mac::Mac;
use crate::{Headers, Secret, TooManySecrets, VerifyError, headers, signature};

/// Checks deliveries against one or more secrets.
///
/// Several secrets serve a rotation: a delivery passes when any signature in its list was made with
/// any of them.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// The first one is always there; the others from the left.
    first: Secret,
    others: [Option<Secret>; Self::MAX_SECRETS - 1],
    tolerance: u64,
}

impl Verifier {
    /// The most secrets that one verifier takes.
    pub const MAX_SECRETS: usize = 4;

    /// How far a timestamp may lie from now, either way, unless set: 300 seconds, as in the public
    /// Standard Webhooks libraries.
    pub const DEFAULT_TOLERANCE: u64 = 300;

    /// A verifier with one secret and the default tolerance.
    #[must_use]
    pub const fn new(secret: Secret) -> Self {
        Self {
            first: secret,
            others: [const { None }; Self::MAX_SECRETS - 1],
            tolerance: Self::DEFAULT_TOLERANCE,
        }
    }

    /// Adds a secret, for the time of a rotation.
    ///
    /// # Errors
    /// The verifier has [`Self::MAX_SECRETS`] already.
    pub fn and_secret(mut self, secret: Secret) -> Result<Self, TooManySecrets> {
        let free = self.others.iter_mut().find(|other| other.is_none());
        *free.ok_or(TooManySecrets)? = Some(secret);
        Ok(self)
    }

    /// Sets how many seconds a timestamp may lie from now, either way; the bound itself passes.
    #[must_use]
    pub const fn with_tolerance(mut self, seconds: u64) -> Self {
        self.tolerance = seconds;
        self
    }

    /// Checks a whole delivery. `now` is in Unix seconds.
    ///
    /// # Errors
    /// The first check that fails, in the order of [`VerifyError`].
    pub fn verify<'h>(
        &self,
        headers: &Headers<'h>,
        body: &[u8],
        now: u64,
    ) -> Result<Verified<'h>, VerifyError> {
        let mut verification = self.begin(headers, now)?;
        verification.update(body);
        verification.finish()
    }

    /// Checks everything but the signature itself, before the first byte of the body is there.
    /// `now` is in Unix seconds.
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
    /// The first check that fails, in the order of [`VerifyError`]; never
    /// [`VerifyError::SignatureMismatch`].
    pub fn begin<'h>(
        &self,
        headers: &Headers<'h>,
        now: u64,
    ) -> Result<Verification<'h>, VerifyError> {
        let [id_bytes, timestamp_bytes, list] = headers.require()?;
        let id = headers::parse_id(id_bytes)?;
        let timestamp = headers::parse_timestamp(timestamp_bytes)?;
        self.check_window(timestamp, now)?;
        signature::check_form(list)?;
        let begin = |secret| signature::begin(secret, id_bytes, timestamp_bytes);
        Ok(Verification {
            verified: Verified {
                id,
                timestamp,
                secret: 0,
            },
            list,
            first: begin(&self.first),
            others: array::from_fn(|index| {
                self.others.get(index).and_then(Option::as_ref).map(begin)
            }),
        })
    }

    /// Standard Webhooks, "Verifying webhook authenticity": a timestamp too far from now, either
    /// way, is refused against replays. No sum can overflow.
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

/// A delivery whose headers passed and whose body is still coming; made by [`Verifier::begin`].
///
/// Nothing of the body is kept, and nothing of it may be trusted before [`Self::finish`] says so.
#[must_use = "a delivery is verified only when `finish` says so"]
pub struct Verification<'h> {
    verified: Verified<'h>,
    list: &'h [u8],
    first: Mac,
    others: [Option<Mac>; Verifier::MAX_SECRETS - 1],
}

impl<'h> Verification<'h> {
    /// The id that the header claims; not authentic before [`Self::finish`].
    #[must_use]
    pub const fn claimed_id(&self) -> &'h str {
        self.verified.id
    }

    /// Takes the next bytes of the body, as they arrived.
    pub fn update(&mut self, chunk: &[u8]) {
        self.first.update(chunk);
        for mac in self.others.iter_mut().flatten() {
            mac.update(chunk);
        }
    }

    /// Compares, after the last byte of the body.
    ///
    /// Every candidate is compared with the tag of every secret, in constant time and without an
    /// early exit.
    ///
    /// # Errors
    /// [`VerifyError::SignatureMismatch`].
    pub fn finish(self) -> Result<Verified<'h>, VerifyError> {
        let mut matched = Choice::from(0);
        let mut secret = 0_u64;
        let macs = core::iter::once(self.first).chain(self.others.into_iter().flatten());
        for (index, mac) in (0..).zip(macs) {
            let expected = mac.finish();
            for candidate in signature::candidates(self.list) {
                let equal = signature::equal(&candidate, &expected);
                secret.conditional_assign(&index, equal);
                matched |= equal;
            }
        }
        if bool::from(matched) {
            Ok(Verified {
                secret,
                ..self.verified
            })
        } else {
            Err(VerifyError::SignatureMismatch)
        }
    }
}

impl core::fmt::Debug for Verification<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Verification")
            .field("claimed_id", &self.verified.id)
            .finish_non_exhaustive()
    }
}

/// Proof that a delivery is authentic and fresh. Only a [`Verifier`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified<'h> {
    id: &'h str,
    timestamp: u64,
    secret: u64,
}

impl<'h> Verified<'h> {
    /// The message's identifier: the same on every retry, so the key for idempotency.
    #[must_use]
    pub const fn id(&self) -> &'h str {
        self.id
    }

    /// When this attempt was signed, in Unix seconds.
    #[must_use]
    pub const fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Which secret matched, counted from 0 in the order they were given; the last where several
    /// do. Says when a rotated secret is no longer needed.
    #[must_use]
    pub const fn secret_index(&self) -> u64 {
        self.secret
    }
}
