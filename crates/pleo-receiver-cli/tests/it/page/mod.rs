//! Tests of the inspection page.

mod client;
mod hostile;
mod security;
mod views;
