//! Helpers shared by the tests of the program.

#![allow(unreachable_pub, reason = "a module of each test")]

pub mod harness;
#[path = "../../../../pleo-receiver/tests/it/support/http.rs"]
pub mod http;
pub mod large_messages;
pub mod program;
mod target;
#[path = "../../../../pleo-receiver/tests/it/support/tls.rs"]
pub mod tls;

pub use http::{Answer, Drip, PATH, Request, send_to};
pub use target::target;
