//! Tests of the program, run as a user runs it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly")]

mod support;

mod broken;
mod catch_up;
mod config;
mod crowd;
mod doctor;
mod failing_handlers;
mod first_steps;
mod floods;
mod full_disk;
mod hoards;
mod killed;
mod log;
mod read_only;
mod readme;
mod reload;
mod sandbox;
mod secrecy;
mod serve;
mod setup;
mod soak;
mod subscriptions;
mod tools;
