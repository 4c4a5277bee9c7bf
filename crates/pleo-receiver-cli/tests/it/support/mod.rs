//! Helpers of the tests of the program.

#[cfg(target_os = "linux")]
pub(crate) mod delay;
pub(crate) mod disk;
pub(crate) mod harness;
#[path = "../../../../pleo-receiver/tests/it/support/http.rs"]
pub(crate) mod http;
pub(crate) mod large_messages;
#[cfg(unix)]
#[path = "../../../../pleo-receiver/tests/it/support/postgres.rs"]
pub(crate) mod postgres;
pub(crate) mod program;
mod target;
#[cfg(unix)]
#[path = "../../../../pleo-receiver/tests/it/support/tcp_proxy.rs"]
pub(crate) mod tcp_proxy;
#[path = "../../../../pleo-receiver/tests/it/support/tls.rs"]
pub(crate) mod tls;
mod turn;

pub(crate) use http::{Answer, PATH, Request, SlowBody, send_to};
pub(crate) use target::counting_target;
