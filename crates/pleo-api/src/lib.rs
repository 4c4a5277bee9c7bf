#![doc = include_str!("../README.md")]

mod auth;
mod base_url;
mod client;
mod endpoint_auth;
mod error;
mod export_jobs;
mod json;
mod page_request;
mod pages;
mod query;
mod request;
mod sensitive;
mod subscription;
mod subscriptions;
mod transport;

pub use auth::Credentials;
pub use client::{Client, ClientBuilder};
pub use endpoint_auth::{AuthCredentials, AuthType, EndpointAuth};
pub use error::{ApiMessage, ConfigError, Error, InvalidRequest};
pub use export_jobs::{ExportJobs, ListedExportJob};
pub use page_request::{Cursor, CursorError, PageRequest, PageStart, SortOrder};
pub use pages::{CurrentRequest, Page, Pages, Pagination};
pub use pleo_events::{ExportJob, ExportJobStatus, FailureReasonType, OtherValue};
pub use query::{ActivityQuery, ExportJobQuery, SubscriptionQuery};
pub use request::SubscriptionRequest;
pub use sensitive::{Extra, Sensitive};
pub use subscription::{Activity, OperationType, Status, Subscription};
pub use subscriptions::Subscriptions;
pub use {futures_util::Stream, http, jiff, serde_json, uuid};
