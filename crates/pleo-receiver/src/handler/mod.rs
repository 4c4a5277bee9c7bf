//! Handlers of messages: their contract, and the handlers that come with the crate.

mod contract;
#[cfg(feature = "exec")]
mod exec;
#[cfg(feature = "forward")]
mod forward;

pub use contract::{Delivery, Handler, HandlerError, HandlerFuture};
#[cfg(feature = "exec")]
pub use exec::{Exec, ExecError};
#[cfg(feature = "forward")]
pub use forward::{Forward, ForwardError};
