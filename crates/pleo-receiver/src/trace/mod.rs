//! OpenTelemetry spans: one for each received delivery, one for each attempt to handle a message.
//!
//! - The receive span (SERVER) and the attempt span (CONSUMER) are roots of traces of their own. An
//!   attempt may start days later, or in another process.
//! - The context of the receive span is stored with the message, as one of its headers under a name
//!   that is never taken from a request. So no store knows of it, a sender cannot forge it, and a
//!   duplicate keeps the context of the first delivery. An attempt span links to it.
//! - The sender's `traceparent` is not signed, so it is a link of the receive span, never its parent.
//! - The attempt span is the current context of its handler. `Forward` and `Exec` pass it on.
//! - Requests to unknown paths have no span. Rejected ones have spans at the rate of log lines, so
//!   that a client without the secret cannot flood the exporter.
//! - The library only knows the API of OpenTelemetry. Without a tracer provider, each call is one
//!   branch; without the feature `otel`, it is empty.

#[cfg(feature = "otel")]
mod context;
#[cfg(not(feature = "otel"))]
mod disabled;
#[cfg(feature = "otel")]
mod spans;

#[cfg(all(feature = "otel", any(feature = "exec", feature = "forward")))]
pub(crate) use self::context::current_traceparent;
#[cfg(not(feature = "otel"))]
pub(crate) use self::disabled::*;
#[cfg(feature = "otel")]
pub(crate) use self::spans::{AttemptSpan, ReceiveSpan, Tracing};

/// The stored header with the context of the receive span. A request's header of this name is not
/// stored.
#[cfg(feature = "otel")]
pub(crate) const RECEIVE_CONTEXT: &str = "receive-traceparent";
