//! Integration tests of the verifier.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test fails loudly, and the fuzz targets share `support::reference`"
)]

mod errors;
mod headers;
#[cfg(target_os = "linux")]
mod no_alloc;
mod properties;
#[cfg(feature = "v1a")]
mod public_key;
mod secrets;
mod signing;
mod support;
#[cfg(feature = "v1a")]
mod v1a;
#[cfg(feature = "v1a")]
mod v1a_properties;
#[cfg(feature = "v1a")]
mod v1a_strict;
mod vectors;
mod verifying;
