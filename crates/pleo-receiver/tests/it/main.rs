//! Tests of the library over real sockets, files and processes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

#[macro_use]
mod support;

mod answers;
mod dispatcher;
mod exec;
mod foreign_inbox;
mod forward;
mod inbox;
mod inbox_file;
mod limits;
mod malformed;
mod panicked;
mod threads;
mod tls;
mod unavailable;
