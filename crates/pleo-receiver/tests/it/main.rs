//! Tests of the library over real sockets, files and processes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

#[macro_use]
mod support;

mod acknowledgement;
mod custom_inbox;
mod dispatcher;
mod exec;
mod forward;
mod inbox;
mod inbox_file;
mod limits;
mod malformed;
mod panicked;
mod responses;
mod server_threads;
mod tls;
