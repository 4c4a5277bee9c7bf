//! Mounts a receiver in an axum router.

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use pleo_receiver::{Endpoint, Receiver, SqliteInbox, handler_fn};
use tokio::{net::TcpListener, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secret = std::env::var("PLEO_WEBHOOK_SECRET")?.parse()?;
    let (receiver, dispatcher) = Receiver::builder(SqliteInbox::open("pleo-inbox.db")?)
        .endpoint(Endpoint::new("/webhooks/pleo", secret)?.with_name("pleo"))
        .handler(handler_fn(async |delivery| {
            println!("{:?}", delivery.event_type());
            Ok(())
        }))
        .peer_from(|extensions| {
            let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
            Some(peer.ip())
        })
        .build()?;
    let app = Router::new()
        .route("/health", get(async || "ok"))
        .nest_service("/webhooks/pleo", receiver.endpoint_service("pleo")?)
        .into_make_service_with_connect_info::<SocketAddr>();
    let shutdown = || async { signal::ctrl_c().await.unwrap_or(()) };
    let listener = TcpListener::bind("127.0.0.1:8787").await?;
    let server = axum::serve(listener, app).with_graceful_shutdown(shutdown());
    let (served, dispatched) = tokio::join!(server, dispatcher.run(shutdown()));
    receiver.inbox().close().await?;
    dispatched?;
    Ok(served?)
}
