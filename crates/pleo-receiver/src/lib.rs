//! Receives Pleo webhooks: verifies each delivery, stores it durably, acknowledges it and dispatches
//! it to a handler.
//!
//! ```no_run
#![doc = include_str!("../examples/export_jobs.rs")]
//! ```
//!
//! - [`Endpoint`] has a path, the signing secrets and further checks.
//! - [`Inbox`] stores authentic messages: [`SqliteInbox`] in a file, [`PostgresInbox`] in a database
//!   that several processes share, [`MemoryInbox`] in memory. The module [`inbox`] has the types that
//!   another store needs.
//! - [`Handler`] processes messages, at least once each: an async function, [`Exec`] or [`Forward`].
//! - [`Receiver`] combines them. It is a [`tower_service::Service`], so that it also mounts inside
//!   another server. Its endpoints and handler can be replaced while it runs.
//! - [`Dispatcher`] leases messages from the inbox and runs the handler. There is one per receiver.
//! - [`serve`] runs both as a server. [`Server`] adds limits, several sockets and HTTPS.
//!
//! The receiver answers 2xx only after the message is on disk. It hashes nothing before the headers
//! pass, and parses nothing before the signature holds. It stores every authentic message, also if
//! its event type is unknown or its body is not JSON.
//!
//! # Features
//!
//! | feature | adds |
//! | --- | --- |
//! | `sqlite` (default) | [`SqliteInbox`], a durable inbox in one file |
//! | `postgres` | [`PostgresInbox`], an inbox that several processes share |
//! | `exec` | [`Exec`], a handler that runs a command |
//! | `forward` | [`Forward`], a handler that posts to a URL |
//! | `tls` | [`Tls`], for HTTPS with HTTP/2 and HTTP/1.1 |
//! | `otel` | [`ReceiverBuilder::tracer_provider`], for OpenTelemetry spans of deliveries and attempts |
//! | `conformance` | [`inbox::conformance`], tests of an [`Inbox`], for tests |
//!
//! # Re-exported crates
//!
//! These re-exports have the types of other crates in this API. A program needs no dependencies with
//! matching versions:
//!
//! | re-export | for |
//! | --- | --- |
//! | [`verify`] | secrets and signature errors |
//! | [`events`] | envelopes and events |
//! | [`bytes`] | bodies |
//! | [`http`], [`http_body`], [`http_body_util`] | requests and responses |
//! | [`ipnet`] | networks |
//! | [`jiff`] | timestamps |
//! | [`opentelemetry`] | tracer providers (feature `otel`) |
//!
//! Sockets are those of tokio 1.
#![cfg_attr(docsrs, feature(doc_cfg))]
// The documentation is built with all features and links to their items.
#![cfg_attr(
    not(all(
        feature = "sqlite",
        feature = "postgres",
        feature = "exec",
        feature = "forward",
        feature = "tls",
        feature = "otel",
        feature = "conformance"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

mod admission;
mod backoff;
mod body;
mod builder;
mod client_ip;
mod dispatch;
mod endpoint;
mod error;
mod handler;
mod histogram;
pub mod inbox;
mod measure;
mod metrics;
mod receiver;
mod rejection;
mod removed;
mod routes;
mod server;
mod service;
mod striped;
mod telemetry;
mod trace;

pub use builder::ReceiverBuilder;
pub use client_ip::{PLEO_EU, PLEO_US, PeerAddr};
pub use dispatch::{DispatchOptions, Dispatcher};
pub use endpoint::{Endpoint, EndpointError};
#[cfg(feature = "exec")]
pub use handler::{CommandOutput, Exec, ExecError};
pub use handler::{
    Delivery, DeliveryBuilder, Handler, HandlerError, HandlerFn, HandlerFuture, handler_fn,
};
#[cfg(feature = "forward")]
pub use handler::{Forward, ForwardError};
#[doc(inline)]
pub use inbox::{
    Appended, Attempt, AttemptResult, Cursor, EndpointStats, Entry, Inbox, InboxError,
    InboxErrorKind, Key, MemoryInbox, NewMessage, Origin, Page, Query, Selection, State,
    StoredHeaders, StoredMessage,
};
#[cfg(feature = "postgres")]
#[doc(inline)]
pub use inbox::{PostgresInbox, PostgresOpenError, PostgresOptions};
#[cfg(feature = "sqlite")]
#[doc(inline)]
pub use inbox::{
    SqliteBackupError, SqliteCheck, SqliteExport, SqliteInbox, SqliteOpenError, SqliteOptions,
    UnreadableMessage,
};
#[cfg(feature = "otel")]
pub use opentelemetry;
pub use receiver::Receiver;
pub use rejection::{Rejected, Rejection};
pub use routes::BuildError;
pub use server::{ServeError, Server, ServerOptions, serve};
#[cfg(feature = "tls")]
pub use server::{Tls, TlsError};
pub use service::EndpointService;
pub use {bytes, http, http_body, http_body_util, ipnet, jiff};
pub use {pleo_events as events, pleo_webhook_verify as verify};
