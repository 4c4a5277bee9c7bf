//! The proof that a delivery is authentic.

use core::fmt;

use arrayvec::ArrayString;

use crate::headers::MAX_ID_LEN;

/// Proof that a delivery is authentic and recent, with the verified body. Only a
/// [`Verifier`](crate::Verifier) or a `PublicKeyVerifier` (feature `v1a`) makes one.
///
/// [`Verifier::verify`](crate::Verifier::verify) returns it with the body.
/// [`Verification::finish`](crate::Verification::finish) returns it without one (`B` is `()`),
/// because the body arrived in chunks. The functions of the same names for public keys do the same.
///
/// It owns the id, without allocation, so a web framework's extractor or a layer can pass it on.
///
/// A function that takes a `Verified` cannot be called with an unverified body:
///
/// ```compile_fail,E0308
/// # use pleo_webhook_verify::Verified;
/// fn store(delivery: Verified<Vec<u8>>) {}
///
/// store(b"unverified".to_vec());
/// ```
///
/// Nor can one be made by hand:
///
/// ```compile_fail,E0451
/// # use pleo_webhook_verify::Verified;
/// let forged = Verified {
///     body: b"unverified".to_vec(),
///     id: Default::default(),
///     timestamp: 0,
///     secret_index: 0,
/// };
/// ```
///
/// The compiler warns if the result is unused, because the caller then uses the unverified body:
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// # use pleo_webhook_verify::{SignatureHeaders, Verifier, VerifyError};
/// # fn check(
/// #     verifier: &Verifier, headers: &SignatureHeaders<'_>, body: &[u8], now: u64,
/// # ) -> Result<(), VerifyError> {
/// verifier.verify(headers, body, now)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use = "use the id and the body of this proof: they are what was verified"]
pub struct Verified<B> {
    pub(crate) id: ArrayString<MAX_ID_LEN>,
    pub(crate) timestamp: u64,
    pub(crate) secret_index: usize,
    pub(crate) body: B,
}

impl<B> Verified<B> {
    /// Returns the message id: the same on every retry, so use it as the idempotency key.
    ///
    /// It is unique per sender only. If you receive from several senders, use the sender's name and the
    /// id together.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the time at which this attempt was signed, in Unix seconds.
    #[must_use]
    pub const fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Returns the index of the secret that matched, or of the public key in the proof of a
    /// `PublicKeyVerifier`. It counts from 0 in the order in which they were added, and is the lowest if
    /// several matched.
    ///
    /// If the newest was added first, and the index is 0 for all deliveries, retries included, the older
    /// ones are no longer needed.
    #[must_use]
    pub const fn secret_index(&self) -> usize {
        self.secret_index
    }
}

impl<B: AsRef<[u8]>> Verified<B> {
    /// Returns the verified bytes.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.body.as_ref()
    }

    /// Returns the verified body by value.
    #[must_use]
    pub fn into_body(self) -> B {
        self.body
    }
}

/// Prints no part of the body, which is confidential.
impl<B> fmt::Debug for Verified<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified")
            .field("id", &self.id())
            .field("timestamp", &self.timestamp)
            .field("secret_index", &self.secret_index)
            .finish_non_exhaustive()
    }
}
