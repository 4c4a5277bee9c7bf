//! The check itself, in one call or while the body arrives.

use core::{fmt, iter};

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
    /// The body goes in as bytes (`&[u8]`, `Vec<u8>`, `Bytes`, …) and comes back in [`Verified`].
    /// Given by value it can't be reached any other way, so that nobody takes it unverified.
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
        let mut verification = Verification::new(self.check(headers, now)?, self);
        verification.update(body.as_ref());
        let verified = verification.compare()?;
        Ok(verified.with_body(body))
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
    #[inline] // The result is large, and filled in place only where the caller is seen.
    pub fn begin<'h>(
        &self,
        headers: &Headers<'h>,
        now: u64,
    ) -> Result<Verification<'h>, VerifyError> {
        let claim = self.check(headers, now);
        claim.map(|claim| Verification::new(claim, self))
    }

    /// All the checks that need no secret.
    fn check<'h>(&self, headers: &Headers<'h>, now: u64) -> Result<Claim<'h>, VerifyError> {
        let [id, timestamp_bytes, list] = headers.require()?;
        headers::check_id(id)?;
        let timestamp = headers::parse_timestamp(timestamp_bytes)?;
        self.check_window(timestamp, now)?;
        signature::check_form(list)?;
        Ok(Claim {
            id,
            timestamp,
            timestamp_bytes,
            list,
        })
    }

    /// Standard Webhooks, "Verifying webhook authenticity": a timestamp too far from now, either
    /// way, is refused against replays. A bound that no `u64` holds refuses nothing.
    const fn check_window(&self, timestamp: u64, now: u64) -> Result<(), VerifyError> {
        let tolerance = self.tolerance;
        let skew = timestamp.abs_diff(now);
        if timestamp < now.saturating_sub(tolerance) {
            Err(VerifyError::TimestampTooOld { skew, tolerance })
        } else if timestamp > now.saturating_add(tolerance) {
            Err(VerifyError::TimestampTooNew { skew, tolerance })
        } else {
            Ok(())
        }
    }
}

/// What well-formed headers claim.
#[derive(Clone, Copy)]
struct Claim<'h> {
    /// Visible ASCII.
    id: &'h [u8],
    timestamp: u64,
    timestamp_bytes: &'h [u8],
    list: &'h [u8],
}

/// A delivery whose headers passed and whose body is still coming; made by [`Verifier::begin`].
///
/// Nothing of the body is kept, and nothing of it may be trusted before [`Self::finish`] says so.
#[must_use = "a delivery is verified only when `finish` says so"]
pub struct Verification<'h> {
    claim: Claim<'h>,
    /// Whether the MACs have what comes before the body. They get it with the first piece and not
    /// in `begin`, which can fill them in place then; a copy more would show with small bodies.
    fed: bool,
    first: Mac,
    others: [Option<Mac>; Verifier::MAX_SECRETS - 1],
}

impl<'h> Verification<'h> {
    fn new(claim: Claim<'h>, verifier: &Verifier) -> Self {
        let mac = |secret: &Secret| Mac::new(&secret.key);
        let [b, c, d] = &verifier.others;
        Self {
            claim,
            fed: false,
            first: mac(&verifier.first),
            others: [
                b.as_ref().map(mac),
                c.as_ref().map(mac),
                d.as_ref().map(mac),
            ],
        }
    }

    /// The id that the header claims; not authentic before [`Self::finish`].
    #[must_use]
    pub fn claimed_id(&self) -> &'h str {
        text(self.claim.id)
    }

    /// Takes the next bytes of the body, as they arrived.
    #[inline]
    pub fn update(&mut self, chunk: &[u8]) {
        self.feed();
        self.first.update(chunk);
        for mac in self.others.iter_mut().flatten() {
            mac.update(chunk);
        }
    }

    /// Compares, after the last byte of the body. What is authentic then are the pieces that
    /// [`Self::update`] took, in their order.
    ///
    /// Every candidate is compared with the tag of every secret, in constant time and without an
    /// early exit.
    ///
    /// # Errors
    /// [`VerifyError::SignatureMismatch`].
    #[inline] // It only reads what is large, which needs no copy then.
    pub fn finish(self) -> Result<Verified<'h, ()>, VerifyError> {
        if self.fed {
            self.compare()
        } else {
            self.finish_empty()
        }
    }

    /// [`Self::finish`] where no piece of a body came.
    #[cold]
    fn finish_empty(mut self) -> Result<Verified<'h, ()>, VerifyError> {
        self.feed();
        self.compare()
    }

    fn compare(&self) -> Result<Verified<'h, ()>, VerifyError> {
        let mut tags = [None; Verifier::MAX_SECRETS];
        let macs = iter::once(&self.first).chain(self.others.iter().flatten());
        for (tag, mac) in tags.iter_mut().zip(macs) {
            *tag = mac.finish();
        }
        // A bit for each secret, so that nothing branches on which one matched.
        let mut matched = 0_u8;
        for candidate in signature::candidates(self.claim.list) {
            for (nth, tag) in (0..).zip(tags.iter().flatten()) {
                matched |= signature::equal(&candidate, tag).unwrap_u8() << nth;
            }
        }
        if matched == 0 {
            return Err(VerifyError::SignatureMismatch);
        }
        Ok(Verified {
            id: self.claim.id,
            timestamp: self.claim.timestamp,
            secret: usize::try_from(matched.trailing_zeros()).unwrap_or_default(),
            body: (),
        })
    }

    fn feed(&mut self) {
        if !self.fed {
            self.fed = true;
            let Claim {
                id,
                timestamp_bytes,
                ..
            } = self.claim;
            signature::feed_prefix(&mut self.first, id, timestamp_bytes);
            for mac in self.others.iter_mut().flatten() {
                signature::feed_prefix(mac, id, timestamp_bytes);
            }
        }
    }
}

impl fmt::Debug for Verification<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verification")
            .field("claimed_id", &self.claimed_id())
            .finish_non_exhaustive()
    }
}

/// Proof that a delivery is authentic and fresh, with the body that was checked. Only a
/// [`Verifier`] makes one.
///
/// From [`Verifier::verify`] it holds the body that went in. From [`Verification::finish`] it holds
/// none (`B` is `()`): the body went through in pieces.
///
/// A function that asks for one can't be given a body that nobody verified:
///
/// ```compile_fail,E0308
/// # use pleo_webhook_verify::Verified;
/// fn store(delivery: Verified<'_, Vec<u8>>) {}
///
/// store(b"whatever arrived".to_vec());
/// ```
///
/// and the compiler warns of a check whose result nobody looks at, since the body that went in may
/// be used by mistake then:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # use pleo_webhook_verify::{Headers, Verifier, VerifyError};
/// # fn check(verifier: &Verifier, headers: &Headers<'_>, body: &[u8], now: u64) -> Result<(), VerifyError> {
/// verifier.verify(headers, body, now)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use = "take the id and the body from here: they are what was verified"]
pub struct Verified<'h, B> {
    id: &'h [u8],
    timestamp: u64,
    secret: usize,
    body: B,
}

impl<'h, B> Verified<'h, B> {
    /// The message's identifier: the same on every retry, so the key for idempotency.
    #[must_use]
    pub fn id(&self) -> &'h str {
        text(self.id)
    }

    /// When this attempt was signed, in Unix seconds.
    #[must_use]
    pub const fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Which secret matched, counted from 0 in the order they were given; the first where several
    /// do. With the newest secret first, an older one is still needed where this isn't 0.
    #[must_use]
    pub const fn secret_index(&self) -> usize {
        self.secret
    }
}

impl<B: AsRef<[u8]>> Verified<'_, B> {
    /// The bytes that were verified.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.as_ref()
    }

    /// The body that was verified, as it went in.
    #[must_use]
    pub fn into_body(self) -> B {
        self.body
    }
}

impl<'h> Verified<'h, ()> {
    fn with_body<B>(self, body: B) -> Verified<'h, B> {
        Verified {
            id: self.id,
            timestamp: self.timestamp,
            secret: self.secret,
            body,
        }
    }
}

/// Shows nothing of the body, which is somebody's business data.
impl<B> fmt::Debug for Verified<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("id", &self.id())
            .field("timestamp", &self.timestamp)
            .field("secret_index", &self.secret)
            .finish_non_exhaustive()
    }
}

/// A checked id as text. Only where somebody asks for it, since this takes longer than all checks of
/// the headers together; what is ASCII never yields the default.
fn text(id: &[u8]) -> &str {
    str::from_utf8(id).unwrap_or_default()
}
