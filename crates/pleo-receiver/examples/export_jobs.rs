//! Receives webhooks and handles export jobs.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use pleo_receiver::events::Event;
use pleo_receiver::{Delivery, Endpoint, HandlerError, Receiver, SqliteInbox, serve};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = std::env::var("PLEO_WEBHOOK_SECRET")?.parse()?;
    let receiver = Receiver::builder()
        .endpoint(Endpoint::new("/webhooks/pleo", secret)?)
        .inbox(SqliteInbox::open("pleo-inbox.db")?)
        .handler(book)
        .build()?;
    let listener = TcpListener::bind("127.0.0.1:8787").await?;
    serve(listener, receiver, async {
        signal::ctrl_c().await.unwrap_or(())
    })
    .await?;
    Ok(())
}

/// Runs at least once per message. An error schedules a retry.
async fn book(delivery: Delivery) -> Result<(), HandlerError> {
    if let Event::ExportJobCreated(job) = delivery.envelope()?.event()? {
        println!(
            "book {} entries of company {}",
            job.number_of_items, job.company_id
        );
    }
    Ok(())
}
