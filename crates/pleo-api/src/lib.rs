//! A typed client of Pleo's Subscriptions API: set up, look at and end the subscriptions that
//! webhooks are sent for.
//!
//! ```no_run
//! use pleo_api::{Client, Credentials, SubscriptionRequest};
//!
//! # async fn set_up() -> Result<(), Box<dyn std::error::Error>> {
//! let token = std::env::var("PLEO_API_TOKEN")?;
//! let client = Client::new(Credentials::bearer(&token)?)?;
//!
//! let request = SubscriptionRequest::new(
//!     "https://receiver.example.com/webhooks/pleo",
//!     ["v1.export-job.created"],
//! );
//! let subscription = client.create(&request).await?;
//! let secret = client.secret(subscription.id).await?;
//! println!("{} signs with a secret of {} letters", subscription.id, secret.expose().len());
//!
//! let mut all = client.subscriptions(Default::default());
//! while let Some(subscription) = all.next().await {
//!     let subscription = subscription?;
//!     println!("{} {}", subscription.status, subscription.endpoint_url);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Client`] has a method for each of the seven calls, and [`Client::export_jobs`] to find what no
//!   webhook told of. It runs inside tokio.
//! - [`Pages`] is a [`Stream`](futures_core::Stream) over everything that a list holds, page after
//!   page; a single page is had from [`Client::list`] and [`Client::activities`].
//! - [`Error`] tells what went wrong by status, with the API's own words.
//!
//! A request is tried again only where that is safe: `GET`, `PUT` and `DELETE`, after 429, 502, 503
//! and 504 and where the connection failed; never `POST`. Tokens, secrets, passwords and the values
//! of custom headers are never shown: not by `Debug`, not in an error.

#[macro_use]
mod open_enum;
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
pub use export_job::{ExportJob, ExportJobList};
pub use list::{
    ActivityList, Cursor, CursorError, PageRequest, PageStart, SortOrder, SubscriptionList,
};
pub use pages::{CurrentRequest, Page, Pages, Pagination};
pub use sensitive::{Extra, Sensitive};
pub use subscription::{
    Activity, AuthCredentials, AuthType, EndpointAuth, OperationType, Status, Subscription,
    SubscriptionRequest,
};

/// The README's example compiles too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
