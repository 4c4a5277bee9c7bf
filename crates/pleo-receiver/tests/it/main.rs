//! Tests of the library over real sockets, files and processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail loudly"
)]

#[macro_use]
mod support;

mod accept_panic;
mod acknowledgement;
mod cloud_events;
mod custom_inbox;
mod dispatcher;
mod exec;
mod forward;
mod inbox;
mod inbox_file;
mod inbox_upgrade;
mod limits;
mod malformed;
mod mounting;
mod panicked;
mod postgres_inbox;
mod responses;
mod server_threads;
mod tls;
#[cfg(feature = "otel")]
mod traces;
