//! Integration tests of the API client against the sandbox.

#![allow(unreachable_pub, reason = "the modules of one test binary")]
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

mod activate_all;
mod calls;
mod faults;
mod lists;
mod model;
mod support;
