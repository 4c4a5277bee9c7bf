//! Tests of the inspection page.

mod client;
mod hostile;
mod live;
mod replays;
mod security;
mod views;
