//! Tests of the inspection page.

mod audit;
mod client;
mod hostile;
mod live;
#[cfg(unix)]
mod postgres;
mod replays;
mod security;
mod slow_forms;
mod views;
