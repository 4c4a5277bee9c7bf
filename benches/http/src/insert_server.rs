//! What is often written: axum, `standardwebhooks`, and one INSERT per request over a pool of 32
//! connections.

use std::env;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use deadpool_postgres::{Manager, Pool};
use standardwebhooks::Webhook;
use tokio::net::TcpListener;
use tokio_postgres::NoTls;

use crate::load::SECRET;

/// The environment variable with the URL of the database.
pub const DATABASE: &str = "BENCH_DATABASE";

const CONNECTIONS: usize = 32;

const TABLE: &str = "
    DROP TABLE IF EXISTS webhook;
    CREATE TABLE webhook (
        id text PRIMARY KEY,
        received_at timestamptz NOT NULL DEFAULT now(),
        body bytea NOT NULL
    );
";

const INSERT: &str = "INSERT INTO webhook (id, body) VALUES ($1, $2) ON CONFLICT DO NOTHING";

struct Receiver {
    webhook: Webhook,
    pool: Pool,
}

/// Serves until the process ends.
pub async fn run(listener: TcpListener) {
    let url = env::var(DATABASE).expect("a database");
    let config = url.parse().expect("a URL");
    let pool = Pool::builder(Manager::new(config, NoTls)).max_size(CONNECTIONS);
    let pool = pool.build().expect("a pool");
    let client = pool.get().await.expect("a connection");
    client.batch_execute(TABLE).await.expect("a table");
    drop(client);
    let webhook = Webhook::new(SECRET).expect("a secret");
    let receiver = Receiver { webhook, pool };
    let app = Router::new().route("/webhooks/pleo", post(receive));
    let app = app.with_state(std::sync::Arc::new(receiver));
    axum::serve(listener, app).await.expect("no failure");
}

async fn receive(
    State(receiver): State<std::sync::Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if receiver.webhook.verify(&body, &headers).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok());
    let id = id.unwrap_or_default();
    let stored = async {
        let client = receiver.pool.get().await.ok()?;
        let insert = client.prepare_cached(INSERT).await.ok()?;
        client.execute(&insert, &[&id, &&*body]).await.ok()
    };
    match stored.await {
        Some(_) => StatusCode::NO_CONTENT,
        None => StatusCode::SERVICE_UNAVAILABLE,
    }
}
