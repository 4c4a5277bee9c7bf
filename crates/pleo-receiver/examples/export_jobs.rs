//! Receives webhooks and handles export jobs.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use pleo_receiver::events::Event;
use pleo_receiver::{Delivery, Endpoint, HandlerError, Receiver, SqliteInbox, handler_fn, serve};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = std::env::var("PLEO_WEBHOOK_SECRET")?.parse()?;
    let (receiver, dispatcher) = Receiver::builder(SqliteInbox::open("pleo-inbox.db")?)
        .endpoint(Endpoint::new("/webhooks/pleo", secret)?)
        .handler(handler_fn(book))
        .build()?;
    let listener = TcpListener::bind("127.0.0.1:8787").await?;
    let shutdown = async { signal::ctrl_c().await.unwrap_or(()) };
    serve(listener, receiver, dispatcher, shutdown).await?;
    Ok(())
}

/// Runs at least once per message. An error schedules a retry.
async fn book(delivery: Delivery) -> Result<(), HandlerError> {
    if let Event::ExportJobCreated(job) = delivery.event()? {
        println!(
            "book {} entries of company {}",
            job.number_of_items, job.company_id
        );
    }
    Ok(())
}
