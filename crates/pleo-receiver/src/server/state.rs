//! What all connections of a server share.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::debug;

use super::options::ServerOptions;
use crate::admission::{FairPool, Permit, Source, Standing};
use crate::receiver::Receiver;

/// The receiver, the limits and the connections of a server.
#[derive(Debug)]
pub(super) struct ServerState {
    pub(super) receiver: Receiver,
    pub(super) options: ServerOptions,
    connections: Arc<FairPool>,
    is_shutting_down: watch::Sender<bool>,
}

impl ServerState {
    pub(super) fn new(receiver: Receiver, options: ServerOptions) -> Self {
        let connections =
            FairPool::new(options.max_connections, options.max_connections_per_source);
        Self {
            receiver,
            options,
            connections,
            is_shutting_down: watch::Sender::new(false),
        }
    }

    /// Admits a connection, or returns `None` if its source may not have one more.
    ///
    /// A trusted proxy is always admitted: its clients are told apart request by request.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Permit> {
        let source = Source::from(peer);
        let is_proxy = self.receiver.is_trusted_proxy(peer);
        let standing = |other| {
            if is_proxy && other == source {
                Standing::Proxy
            } else {
                self.receiver.admission().standing(other)
            }
        };
        let admitted = self.connections.acquire(source, 1, &standing);
        if admitted.is_err() {
            self.receiver.counters().refused_connection("source");
            debug!(%peer, reason = "source", "connection refused");
        }
        admitted.ok()
    }

    /// Tells all connections to close once their requests are answered.
    pub(super) fn shut_down(&self) {
        self.is_shutting_down.send_replace(true);
    }

    /// Resolves when the server shuts down.
    pub(super) async fn shutdown(&self) {
        let mut shutting_down = self.is_shutting_down.subscribe();
        // The sender lives as long as `self`.
        let _ = shutting_down
            .wait_for(|is_shutting_down| *is_shutting_down)
            .await;
    }
}
