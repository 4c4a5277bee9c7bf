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
mod secrets;
mod signing;
mod support;
mod vectors;
mod verifying;
