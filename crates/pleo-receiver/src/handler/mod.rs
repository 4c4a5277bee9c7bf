//! Handlers of messages: their contract, and the handlers that come with the crate.

#[cfg(feature = "forward")]
mod cloud_events;
mod contract;
mod delivery;
#[cfg(feature = "exec")]
mod exec;
#[cfg(feature = "forward")]
mod forward;

pub(crate) use contract::Retry;
pub use contract::{Handler, HandlerError, HandlerFn, HandlerFuture, handler_fn};
pub use delivery::{Delivery, DeliveryBuilder};
#[cfg(feature = "exec")]
pub use exec::{CommandOutput, Exec, ExecError};
#[cfg(feature = "forward")]
pub use forward::{Forward, ForwardError};
