//! Tests of the program, run as a user runs it.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails loudly"
)]

mod support;

mod catch_up;
mod commands;
mod config;
mod deliveries;
mod doctor;
mod failing_handlers;
mod first_steps;
mod full_disk;
mod http2_floods;
mod idle_connections;
mod inbox_failures;
mod kill;
mod log;
mod read_only;
mod readme;
mod redaction;
mod reload;
mod serve;
mod setup;
mod slow_bodies;
mod soak;
mod subscriptions;
