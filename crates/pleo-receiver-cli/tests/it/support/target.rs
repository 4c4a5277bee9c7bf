//! A forward target that counts deliveries.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;

/// Starts a server that answers 204 to every delivery. Returns its URL and the number of deliveries
/// by message id.
pub(crate) async fn counting_target() -> (String, Arc<Mutex<HashMap<String, usize>>>) {
    let delivered = Arc::new(Mutex::new(HashMap::new()));
    let count = {
        let delivered = Arc::clone(&delivered);
        move |headers: HeaderMap| {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            *delivered.lock().unwrap().entry(id).or_insert(0) += 1;
            async { StatusCode::NO_CONTENT }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let app = Router::new().fallback(count);
    tokio::spawn(async { axum::serve(listener, app).await });
    (url, delivered)
}
