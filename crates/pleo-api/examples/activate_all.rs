//! Activates all subscriptions. Waits while Pleo cannot answer, and goes on after an update that
//! fails.
//!
//! Run with: `PLEO_API_TOKEN=… cargo run -p pleo-api --example activate_all`

#![allow(clippy::print_stderr, reason = "reports to the user")]

use std::time::Duration;

use pleo_api::{Client, Credentials, Error, Status, SubscriptionQuery, SubscriptionRequest};
use tokio::time::sleep;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let token = std::env::var("PLEO_API_TOKEN")?;
    let client = Client::new(Credentials::bearer(&token)?)?;
    activate_all(&client).await?;
    Ok(())
}

/// Activates all subscriptions.
pub async fn activate_all(client: &Client) -> Result<(), Error> {
    let subscriptions = client.subscriptions();
    let mut list = subscriptions.list(SubscriptionQuery::all());
    loop {
        match list.next().await {
            Ok(Some(subscription)) if subscription.status == Status::Active => {}
            Ok(Some(subscription)) => {
                let request = SubscriptionRequest::from(&subscription).with_status(Status::Active);
                if let Err(error) = subscriptions.update(subscription.id, &request).await {
                    eprintln!("cannot activate subscription {}: {error}", subscription.id);
                }
            }
            Ok(None) => return Ok(()),
            // The next call requests the same page again.
            Err(error) if error.is_transient() => {
                sleep(error.retry_after().unwrap_or(Duration::from_secs(30))).await;
            }
            Err(error) => return Err(error),
        }
    }
}
