//! Receives Pleo webhooks: verifies each, stores it durably, only then answers, and hands it on.
//!
//! ```no_run
#![doc = include_str!("../examples/export_jobs.rs")]
//! ```
//!
//! - [`Endpoint`]: a path, the secrets that its deliveries are signed with, and what else must hold.
//! - [`Inbox`]: where authentic messages wait; [`SqliteInbox`] keeps them in a file,
//!   [`MemoryInbox`] only as long as the process runs.
//! - [`Handler`]: who gets them, at least once: an async function, or the built-in [`Exec`] and
//!   [`Forward`].
//! - [`Receiver`] puts these together. It is a [`hyper::service::Service`] and a
//!   [`tower_service::Service`], so that it also mounts inside a server that is there already;
//!   [`serve`] is ours, and [`Server`] the same with more to choose: limits, several sockets, HTTPS.
//!   Endpoints and handler can be replaced while it runs.
//!
//! Nothing is answered 2xx before it is on disk, nothing is hashed before its headers pass, nothing
//! is parsed before its signature holds. What is authentic is never thrown away: an event type that
//! nobody knows yet, or a body that is not JSON, is stored as it came.
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `sqlite` (default) | [`SqliteInbox`] |
//! | `exec` | [`Exec`], a handler that runs a command |
//! | `forward` | [`Forward`], a handler that posts to a URL |
//! | `tls` | [`Tls`], for HTTPS with HTTP/1.1 and HTTP/2 |
// The documentation links to items of every feature; it is built with all of them.
#![cfg_attr(
    not(all(
        feature = "sqlite",
        feature = "exec",
        feature = "forward",
        feature = "tls"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

mod body;
mod body_budget;
#[cfg(feature = "forward")]
mod client;
mod client_ip;
mod dispatch;
mod endpoint;
mod error;
mod handler;
mod inbox;
mod metrics;
mod receiver;
mod rejection;
mod server;

#[cfg(feature = "forward")]
pub use client::{ClientError, HttpClient};
pub use client_ip::{PLEO_EU, PLEO_US, PeerAddr};
pub use dispatch::DispatchOptions;
pub use endpoint::{Endpoint, EndpointError};
pub use handler::{Delivery, Handler, HandlerError, HandlerFuture};
#[cfg(feature = "exec")]
pub use handler::{Exec, ExecError};
#[cfg(feature = "forward")]
pub use handler::{Forward, ForwardError};
pub use inbox::{
    Appended, Counts, Entry, Filter, Inbox, InboxError, InboxFuture, LeaseId, LeaseRequest, Leased,
    LeasedMessage, MemoryInbox, NewMessage, Origin, Outcome, Selection, State,
};
#[cfg(feature = "sqlite")]
pub use inbox::{SqliteInbox, SqliteOptions};
pub use pleo_events as events;
pub use pleo_webhook_verify as verify;
pub use receiver::{BuildError, Receiver, ReceiverBuilder};
pub use rejection::Rejection;
pub use server::{ServeError, Server, ServerOptions, serve};
#[cfg(feature = "tls")]
pub use server::{Tls, TlsError};
