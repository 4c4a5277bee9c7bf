//! What the tests of the program share.

#![allow(unreachable_pub, reason = "a module of each test")]

#[path = "../../../../pleo-receiver/tests/it/support/http.rs"]
pub mod http;
pub mod padded;
pub mod pleo;
pub mod program;
mod target;
#[path = "../../../../pleo-receiver/tests/it/support/tls.rs"]
pub mod tls;

pub use http::{Answer, Drip, PATH, Request, send_to};
pub use target::target;
