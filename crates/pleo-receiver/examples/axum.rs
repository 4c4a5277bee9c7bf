//! Mounts a receiver in an axum router.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

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
        .route("/health", get(async || "ok"))
        .route_service("/webhooks/pleo", receiver.clone());
    let shutdown = || async { signal::ctrl_c().await.unwrap_or(()) };
    let listener = TcpListener::bind("127.0.0.1:8787").await?;
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown());
    let (served, ()) = tokio::join!(server, receiver.dispatch(shutdown()));
    receiver.inbox().close().await?;
    Ok(served?)
}
