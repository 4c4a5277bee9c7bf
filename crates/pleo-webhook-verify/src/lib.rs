//! Checks that a webhook comes from Pleo: signature and timestamp, in constant time, without std
//! and without a single allocation.
//!
//! Pleo sends its webhooks through Svix, by the [Standard Webhooks] specification: any sender that
//! signs with a `whsec_…` secret is checked by the same call.
//!
//! ```
//! use pleo_webhook_verify::{Headers, Verifier};
//!
//! let verifier = Verifier::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?);
//! let headers = Headers::new(
//!     b"msg_p5jXN8AQM9LWM0D4loKWxJek",                      // webhook-id
//!     b"1614265330",                                        // webhook-timestamp
//!     b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",   // webhook-signature
//! );
//! let now = 1614265330; // Unix seconds; `unix_now()` with the feature `std`
//!
//! let verified = verifier.verify(&headers, b"{\"test\": 2432232314}", now)?;
//! assert_eq!(verified.id(), "msg_p5jXN8AQM9LWM0D4loKWxJek");
//! assert_eq!(verified.body(), b"{\"test\": 2432232314}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The body is the bytes that arrived, before any parser has touched them. Where it comes in pieces,
//! [`Verifier::begin`] checks the headers before the first one and takes them as they come. A
//! delivery that passed may still come again: the sender retries, so keep [`Verified::id`] and do
//! nothing twice.
//!
//! # Any framework
//!
//! [`Headers::from_pairs`] finds the three headers among those of a request, whatever they are kept
//! in. A plain function is enough:
//!
//! ```
//! use pleo_webhook_verify::{Headers, Verified, Verifier, VerifyError};
//!
//! fn check<'r>(
//!     verifier: &Verifier,
//!     headers: &'r [(String, Vec<u8>)],
//!     body: &'r [u8],
//!     now: u64,
//! ) -> Result<Verified<'r, &'r [u8]>, VerifyError> {
//!     let pairs = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
//!     verifier.verify(&Headers::from_pairs(pairs)?, body, now)
//! }
//! # let verifier = Verifier::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?);
//! # let headers = [
//! #     ("Host", "a.b"),
//! #     ("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
//! #     ("Webhook-Timestamp", "1614265330"),
//! #     ("Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
//! # ];
//! # let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
//! # assert!(check(&verifier, &headers, b"{\"test\": 2432232314}", 1614265330).is_ok());
//! # assert!(check(&verifier, &headers[..3], b"{\"test\": 2432232314}", 1614265330).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(
    all(feature = "http", feature = "std"),
    doc = include_str!("../docs/servers.md")
)]
//! # Rotation
//!
//! While a secret is replaced, the verifier has both, the new one first. The sender signs with both
//! for a day; as soon as [`Verified::secret_index`] is 0, the old one isn't needed any more.
//!
//! ```
//! # use pleo_webhook_verify::{Headers, Secret, Verifier};
//! # let (new, old) = ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
//! let verifier = Verifier::new(new.parse()?).and_secret(old.parse()?)?;
//! # let sign = |secret: &str| Ok::<_, Box<dyn std::error::Error>>(secret.parse::<Secret>()?.sign("msg_1", 1614265330, b"{}")?);
//! # let list = format!("{} {}", sign(new)?, sign(old)?);
//! # let headers = Headers::new(b"msg_1", b"1614265330", list.as_bytes());
//! let verified = verifier.verify(&headers, b"{}", 1614265330)?;
//! assert_eq!(verified.secret_index(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Your own tests
//!
//! [`Secret::sign`] signs as Pleo does, so that a test sends what production receives, and fails
//! when the check is taken out:
//!
//! ```
//! use pleo_webhook_verify::{Headers, Secret, Verifier, VerifyError};
//!
//! let secret = Secret::from_bytes(b"a key that only tests have")?;
//! let signature = secret.sign("msg_1", 1614265330, b"{}")?;
//!
//! let verifier = Verifier::new(secret);
//! let headers = Headers::new(b"msg_1", b"1614265330", signature.as_str().as_bytes());
//! assert!(verifier.verify(&headers, b"{}", 1614265330).is_ok());
//! assert_eq!(
//!     verifier.verify(&headers, b"[]", 1614265330),
//!     Err(VerifyError::SignatureMismatch)
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `ring` (default) | HMAC by `ring`; needs a C compiler, and a program without std must name an allocator, though none is called |
//! | `rustcrypto` | HMAC by `hmac` and `sha2`: Rust alone, no allocator at all; used only when `ring` is off |
//! | `http` | `Headers::from_map`: the headers from an `http::HeaderMap` |
//! | `std` | `unix_now`, the system's clock |
//!
//! One of the first two must be on. Take `ring` unless something speaks against it: most servers have
//! it already, for TLS, and it has assembly for processors without SHA instructions too. Take
//! `rustcrypto` where there is no C compiler for the target, where nothing may name an allocator,
//! where all code must be Rust, or where bodies are small and each nanosecond counts: on a processor
//! with SHA instructions it is the faster one for bodies of some hundred bytes, and equal for large
//! ones (see the README for figures).
//!
//! # What is constant time, and what isn't
//!
//! The comparison of each signature in the list with each expected one takes the same time wherever
//! they differ (`subtle`). Every signature in the list is compared with that of every secret,
//! whichever matches, and which one did is found without a branch. HMAC is constant time in the key
//! and in the message, but for the message's length.
//!
//! Everything else depends only on what whoever sent the request chose and so knows: whether and how
//! its headers are malformed (a refused header is refused before anything is hashed), whether its
//! timestamp lies in the window, the length of the body, and the number of well-formed signatures in
//! the list; and on how many secrets the verifier has, which isn't secret. Decoding the base64 of a
//! signature takes a time that depends on its text, which is the sender's too: what must not leak is
//! the expected signature, and that is never encoded, only compared as bytes. Parsing a secret isn't
//! constant time; it happens when a program starts, not when somebody asks.
//!
//! The evidence is in the repository: a statistical test of the timing, and a count of instructions
//! (`benches/README.md`).
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(
    clippy::alloc_instead_of_core,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core
)]

#[cfg(feature = "std")]
extern crate std;

mod error;
mod headers;
mod mac;
mod secret;
mod signature;
mod verifier;

#[cfg(feature = "std")]
mod clock;

#[cfg(feature = "std")]
pub use clock::unix_now;
pub use error::{Header, SecretError, TooManySecrets, VerifyError};
pub use headers::Headers;
pub use secret::Secret;
pub use signature::Signature;
pub use verifier::{Verification, Verified, Verifier};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
