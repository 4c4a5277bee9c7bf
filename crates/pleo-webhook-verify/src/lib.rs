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
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The body is the bytes that arrived, before any parser has touched them. Where it comes in pieces,
//! [`Verifier::begin`] checks the headers before the first one and takes them as they come.
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `ring` (default) | HMAC by `ring`: the fastest from about 1 KiB on; needs a C compiler |
//! | `rustcrypto` | HMAC by `hmac` and `sha2`: no C compiler, no allocator at all, wasm; used only when `ring` is off |
//! | `http` | [`Headers::from_map`](Headers): both header prefixes from an `http::HeaderMap` |
//! | `std` | `unix_now()`, the system's clock |
//!
//! # What is constant time, and what isn't
//!
//! The comparison of each signature in the list with the expected one takes the same time wherever
//! they differ (`subtle`), and all are compared, whichever matches. HMAC is constant time in the
//! key. Everything else depends only on what the sender of the request chose and knows: the length
//! of the body, the form of the headers, the number of signatures; and on how many secrets the
//! verifier has. What a forger can learn from the time is therefore what it sent.
//!
//! [Standard Webhooks]: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
#![no_std]
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
