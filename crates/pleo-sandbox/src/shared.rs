//! The state and the HTTP client, which the API and the sender share.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::state::State;
use crate::tls::Authority;

#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Notified after each change of the state.
    pub(crate) changed: Notify,
    pub(crate) authority: Authority,
    /// Posts deliveries.
    pub(crate) client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Runs deliveries, which synchronous code may start.
    pub(crate) runtime: Handle,
}

impl Shared {
    pub(crate) fn new() -> Self {
        let authority = Authority::new();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(authority.client_config())
            .https_only()
            .enable_http1()
            .build();
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime: Handle::current(),
            authority,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}
