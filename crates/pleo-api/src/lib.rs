#![doc = include_str!("../README.md")]

mod auth;
mod client;
mod error;
mod export_job;
mod list;
mod pages;
mod sensitive;
mod subscription;
mod transport;

pub use auth::Credentials;
pub use client::{Client, ClientBuilder};
pub use error::{ApiMessage, ConfigError, Error, InvalidRequest};
pub use export_job::{ExportJobList, ListedExportJob};
pub use list::{
    ActivityList, Cursor, CursorError, PageRequest, PageStart, SortOrder, SubscriptionList,
};
pub use pages::{CurrentRequest, Page, Pages, Pagination};
pub use pleo_events::{ExportJob, ExportJobStatus};
pub use sensitive::{Extra, Sensitive};
pub use subscription::{
    Activity, AuthCredentials, AuthType, EndpointAuth, OperationType, Status, Subscription,
    SubscriptionRequest,
};
pub use {futures_util::Stream, http, jiff, serde_json, uuid};
