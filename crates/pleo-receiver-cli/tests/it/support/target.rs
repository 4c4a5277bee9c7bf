//! A server that counts what `forward` sends it.

#![allow(unreachable_pub, reason = "a module of each test")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;

/// Takes whatever is forwarded, and counts how often each message came.
pub async fn target() -> (String, Arc<Mutex<HashMap<String, usize>>>) {
    let handed = Arc::new(Mutex::new(HashMap::new()));
    let take = {
        let handed = Arc::clone(&handed);
        move |headers: HeaderMap| {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            *handed.lock().unwrap().entry(id).or_insert(0) += 1;
            async { StatusCode::NO_CONTENT }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let app = Router::new().fallback(take);
    tokio::spawn(async { axum::serve(listener, app).await });
    (url, handed)
}
