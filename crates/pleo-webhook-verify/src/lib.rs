//! Verifies that a webhook comes from Pleo: signature and timestamp, in constant time, without
//! allocation, and with or without std.
//!
//! Pleo sends webhooks through Svix, which implements [Standard Webhooks]. The same call verifies any
//! sender that signs with a `whsec_…` secret.
//!
//! ```
//! use pleo_webhook_verify::{SignatureHeaders, Verifier};
//!
//! let verifier = Verifier::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?);
//! let headers = SignatureHeaders::from_pairs([
//!     ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
//!     ("webhook-timestamp", "1614265330"),
//!     ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
//! ])?;
//! let now = 1614265330; // Unix seconds. `verify_now` reads the system clock.
//!
//! let verified = verifier.verify(&headers, b"{\"test\": 2432232314}", now)?;
//! assert_eq!(verified.id(), "msg_p5jXN8AQM9LWM0D4loKWxJek");
//! assert_eq!(verified.body(), b"{\"test\": 2432232314}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Pass the raw request body, before any parser. If it arrives in chunks, [`Verifier::begin`] checks
//! the headers before the first chunk. The sender retries, so an authentic delivery can arrive twice:
//! use [`Verified::id`] as the idempotency key, together with the sender's name if there are several senders.
//!
//! # Any framework
//!
//! [`SignatureHeaders::from_pairs`] finds the three signature headers among all headers of a request.
//! It takes a reference to a `HeaderMap` of any version of `http`, a reference to a map, or any
//! iterator of names and references to values:
//!
//! ```
//! use pleo_webhook_verify::{SignatureHeaders, Verified, Verifier, VerifyError};
//!
//! fn verify<'r>(
//!     verifier: &Verifier,
//!     headers: &[(String, Vec<u8>)],
//!     body: &'r [u8],
//!     now: u64,
//! ) -> Result<Verified<&'r [u8]>, VerifyError> {
//!     let pairs = headers.iter().map(|(name, value)| (name, value));
//!     verifier.verify(&SignatureHeaders::from_pairs(pairs)?, body, now)
//! }
//! # let verifier = Verifier::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse()?);
//! # let headers = [
//! #     ("Host", "a.b"),
//! #     ("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
//! #     ("Webhook-Timestamp", "1614265330"),
//! #     ("Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
//! # ];
//! # let headers = headers.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
//! # assert!(verify(&verifier, &headers, b"{\"test\": 2432232314}", 1614265330).is_ok());
//! # assert!(verify(&verifier, &headers[..3], b"{\"test\": 2432232314}", 1614265330).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(feature = "std", doc = include_str!("../docs/servers.md"))]
//! # Rotating a secret
//!
//! During a rotation, give the verifier both secrets, the new one first. The sender signs with both
//! for a day. Once [`Verified::secret_index`] is 0 for all deliveries, retries included, the old secret is
//! no longer needed.
//!
//! ```
//! # use pleo_webhook_verify::{Secret, SignatureHeaders, Verifier};
//! # let (new, old) = ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
//! let verifier = Verifier::from_secrets([new.parse()?, old.parse()?])?;
//! # let sign = |secret: &str| Ok::<_, Box<dyn std::error::Error>>(secret.parse::<Secret>()?.sign("msg_1", 1614265330, b"{}")?);
//! # let list = format!("{} {}", sign(new)?, sign(old)?);
//! # let headers = SignatureHeaders::from_pairs([
//! #     ("webhook-id", "msg_1"),
//! #     ("webhook-timestamp", "1614265330"),
//! #     ("webhook-signature", &list),
//! # ])?;
//! let verified = verifier.verify(&headers, b"{}", 1614265330)?;
//! assert_eq!(verified.secret_index(), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Testing your receiver
//!
//! [`Secret::sign`] signs as Pleo does. A test with a real signature fails if the verification is
//! removed:
//!
//! ```
//! use pleo_webhook_verify::{Secret, SignatureHeaders, Verifier, VerifyError};
//!
//! let secret = Secret::from_bytes(b"a key that only tests have")?;
//! let signature = secret.sign("msg_1", 1614265330, b"{}")?;
//!
//! let verifier = Verifier::new(secret);
//! let headers = SignatureHeaders::from_pairs([
//!     ("webhook-id", "msg_1"),
//!     ("webhook-timestamp", "1614265330"),
//!     ("webhook-signature", signature.as_str()),
//! ])?;
//! assert!(verifier.verify(&headers, b"{}", 1614265330).is_ok());
//! assert_eq!(
//!     verifier.verify(&headers, b"[]", 1614265330),
//!     Err(VerifyError::SignatureMismatch)
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
#![cfg_attr(all(feature = "std", feature = "v1a"), doc = include_str!("../docs/public-keys.md"))]
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `std` (default) | the system clock: `verify_now`, `begin_now`, `unix_now` |
//! | `ring` (default) | HMAC by `ring`; needs a C compiler; a program without std must name an allocator, which is never called |
//! | `rustcrypto` | HMAC by `hmac` and `sha2`: pure Rust, no allocator; unused if `ring` is on |
//! | `v1a` | asymmetric signatures: `PublicKeyVerifier`, by `ed25519-dalek`; pure Rust, no allocator; with either backend; about 12 KiB of stack, or 25 KiB in chunks, of which 12 KiB are the state |
//!
//! Without `std`, pass the time to `verify` and `begin`. A backend, `ring` or `rustcrypto`, must be on.
//! Use `ring` by default: most servers already have it for TLS, and it is also fast on processors
//! without SHA instructions. Use `rustcrypto` if there is no C compiler for the target, if the program
//! must not have an allocator, or if all code must be Rust.
//!
//! # Constant time
//!
//! This section is about [`Verifier`]. A public key is not secret, so the time of verifying a `v1a` signature
//! reveals nothing.
//!
//! The comparison of two signatures (by `constant_time_eq`) takes the same time wherever they differ.
//! Every signature in the list is compared with that of every secret, without an early exit. No
//! branch depends on which secret matched. HMAC is constant time in the key and in the message,
//! except for the message's length.
//!
//! All other time depends only on what the sender of the request already knows: whether the headers
//! are well-formed, whether the timestamp is in the window, the length of the body, and the number
//! and text of the signatures in the list. It also depends on the number of secrets, which is not
//! secret. Decoding the base64 of a received signature is not constant time; the expected signature
//! is compared as bytes and never encoded. Parsing a secret is not constant time; it happens at
//! start-up and not per request.
//!
//! A statistical test and a count of instructions test this: see `benches/README.md` in the
//! repository.
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

mod claim;
mod error;
mod headers;
mod mac;
mod secret;
mod signature;
mod verified;
mod verifier;

#[cfg(feature = "v1a")]
mod v1a;

#[cfg(feature = "std")]
mod clock;

#[cfg(feature = "std")]
pub use clock::unix_now;
pub use error::{Header, InvalidId, VerifyError};
pub use headers::SignatureHeaders;
pub use secret::{Secret, SecretError};
pub use signature::Signature;
#[cfg(feature = "v1a")]
pub use v1a::{KeyCountError, PublicKey, PublicKeyError, PublicKeyVerification, PublicKeyVerifier};
pub use verified::Verified;
pub use verifier::{SecretCountError, Verification, Verifier};

#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;
