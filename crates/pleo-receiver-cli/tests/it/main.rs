//! Tests that run the program as a process.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails loudly"
)]

mod support;

mod admin;
mod attacks;
mod catch_up;
mod certificate;
mod cloud_events;
mod commands;
mod config;
mod deliveries;
mod demo;
mod dev;
mod disk;
mod doctor;
mod endless_lists;
mod failing_handlers;
mod full_disk;
mod help;
mod http2_floods;
mod idle_connections;
mod inbox_backup;
mod inbox_failures;
mod inbox_files;
mod inbox_list;
mod inbox_manage;
mod kill;
mod log;
mod log_events;
mod log_floods;
mod log_format;
mod metrics;
mod operations;
mod packaging;
mod page;
#[cfg(unix)]
mod postgres;
mod read_only;
mod readme;
mod redaction;
mod reload;
mod reload_files;
mod sandbox;
mod scheduled_tasks;
mod send;
mod serve;
mod setup;
mod slow_bodies;
mod soak;
mod startup;
mod subscriptions;
#[cfg(target_os = "linux")]
mod systemd;
mod terminal;
#[cfg(feature = "otel")]
mod traces;
mod verify_limits;
