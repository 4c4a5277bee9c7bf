//! Mounts the receiver in an axum router, beside other routes.

#![allow(clippy::print_stdout, reason = "an example shows what it got")]

use axum::Router;
use axum::routing::get;
use pleo_receiver::{Delivery, Endpoint, HandlerError, Receiver, SqliteInbox};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = std::env::var("PLEO_WEBHOOK_SECRET")?.parse()?;
    let receiver = Receiver::builder()
        .endpoint(Endpoint::new("/webhooks/pleo", secret)?)
        .inbox(SqliteInbox::open("pleo-inbox.db")?)
        .handler(async |delivery: Delivery| {
            println!("{:?}", delivery.event_type);
            Ok::<(), HandlerError>(())
        })
        .build()?;
    let app = Router::new()
        .route("/health", get(async || "fine"))
        .route_service("/webhooks/pleo", receiver.clone());
    let stop = || async { signal::ctrl_c().await.unwrap_or(()) };
    let listener = TcpListener::bind("127.0.0.1:8787").await?;
    let server = axum::serve(listener, app).with_graceful_shutdown(stop());
    let (served, ()) = tokio::join!(server, receiver.dispatch(stop()));
    receiver.inbox().close().await?;
    Ok(served?)
}
