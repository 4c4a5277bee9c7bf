//! Helpers of the tests of the program.

#[cfg(target_os = "linux")]
pub(crate) mod delay;
pub(crate) mod disk;
pub(crate) mod harness;
#[path = "../../../../pleo-receiver/tests/it/support/http.rs"]
pub(crate) mod http;
pub(crate) mod large_messages;
pub(crate) mod program;
mod target;
#[path = "../../../../pleo-receiver/tests/it/support/tls.rs"]
pub(crate) mod tls;
mod turn;

pub(crate) use http::{Answer, PATH, Request, SlowBody, send_to};
pub(crate) use target::counting_target;
