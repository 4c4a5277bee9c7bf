//! Tests of the sandbox over real sockets, with a plain HTTP client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails loudly"
)]

mod support;

mod access;
mod api;
mod control;
mod disabling;
mod export_jobs;
mod page;
mod retries;
mod rotation;
mod state_file;
