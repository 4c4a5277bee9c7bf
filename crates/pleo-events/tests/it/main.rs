//! Integration tests of the payload types.

#![allow(unreachable_pub, reason = "the modules of one test binary")]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod envelope;
mod errors;
mod payload;
mod properties;
mod resource;
mod samples;
mod support;
