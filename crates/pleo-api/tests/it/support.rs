//! A sandbox, clients of it, and requests.

use core::time::Duration;
use std::error::Error as StdError;

use pleo_api::{
    Client, ClientBuilder, Credentials, Error, Page, Subscription, SubscriptionQuery,
    SubscriptionRequest,
};
use pleo_sandbox::{Authority, Sandbox, SandboxOptions, Token};
use uuid::Uuid;

pub const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2VjcmV0";
pub const KEY: &str = "plp_0123456789";
pub const URL: &str = "https://receiver.example.com/webhooks/pleo";
pub const EXPORT: &str = "v1.export-job.created";
pub const VENDOR: &str = "v1.vendor.created";
pub const SCOPES: [&str; 2] = ["export-jobs:read", "export-jobs:write"];

/// Starts a sandbox that accepts `TOKEN`; returns it, a client, and the token's company.
pub async fn start() -> (Sandbox, Client, Uuid) {
    let pleo = start_sandbox().await;
    let company = pleo.grant(Token::bearer(TOKEN).scopes(SCOPES));
    let client = builder(&pleo).build().unwrap();
    (pleo, client, company)
}

/// Starts a sandbox with TLS.
pub async fn start_sandbox() -> Sandbox {
    let options = SandboxOptions::new().with_tls(Authority::new().unwrap());
    Sandbox::start_with(options).await.unwrap()
}

pub fn builder(pleo: &Sandbox) -> ClientBuilder {
    builder_for(pleo, Credentials::bearer(TOKEN).unwrap())
}

/// Builds a client that retries quickly.
pub fn builder_for(pleo: &Sandbox, credentials: Credentials) -> ClientBuilder {
    Client::builder(credentials)
        .base_url(pleo.url())
        .add_root_certificates(pleo.authority().unwrap().pem())
        .retries(4, Duration::from_millis(1))
}

pub fn request() -> SubscriptionRequest {
    SubscriptionRequest::new(URL, [EXPORT])
}

/// Returns the first page that a query selects.
pub async fn first_page(
    client: &Client,
    query: SubscriptionQuery,
) -> Result<Page<Subscription>, Error> {
    let page = client.subscriptions().list(query).next_page().await?;
    Ok(page.unwrap())
}

/// Returns the ids of a page that was fetched.
pub fn ids(page: &Result<Page<Subscription>, Error>) -> Vec<Uuid> {
    ids_of(page.as_ref().unwrap())
}

/// Returns the ids of a page.
pub fn ids_of(page: &Page<Subscription>) -> Vec<Uuid> {
    page.data
        .iter()
        .map(|subscription| subscription.id)
        .collect()
}

/// Formats an error and its causes.
pub fn chain(error: &dyn StdError) -> String {
    core::iter::successors(error.source(), |&error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
