#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod access;
mod api;
mod control;
mod error;
mod event_stream;
mod faults;
mod http_message;
mod ids;
mod operations;
mod options;
mod page;
mod sandbox;
mod sender;
mod server;
mod shared;
mod state;
mod store;
#[cfg(feature = "tls")]
mod tls;

pub use error::Error;
pub use event_stream::{Events, SandboxEvent};
pub use faults::Fault;
pub use options::{HeaderPrefix, PlainHttp, SandboxOptions};
/// The payload types; also re-exports `jiff`, `serde_json` and `uuid`, whose types are in the API.
pub use pleo_events as events;
pub use sandbox::Sandbox;
pub use state::export_job::{Export, ExportRequest};
pub use state::message::{Attempt, Message, MessageState};
pub use state::request::ApiRequest;
pub use state::token::Token;
#[cfg(feature = "tls")]
pub use tls::{Authority, TlsProxy};
