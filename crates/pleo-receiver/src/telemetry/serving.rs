//! The events of connections and the server.

use core::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tracing::{error, warn};

use super::Telemetry;
use crate::error::error_chain;

impl Telemetry {
    /// Reports a connection of a source that may not have one more.
    pub(crate) fn connection_refused(&self, peer: IpAddr) {
        self.metrics.refused_connection("source");
        limited!(
            self.limit, DEBUG, &Arc::default(), "", "connection refused",
            %peer, reason = "source"
        );
    }

    /// Reports a connection that ended early. `limit` is the limit that it exceeded.
    pub(crate) fn connection_closed(
        &self,
        peer: IpAddr,
        limit: Option<&'static str>,
        error: &(dyn Error + 'static),
    ) {
        if let Some(reason) = limit {
            self.metrics.refused_connection(reason);
        }
        let code = limit.unwrap_or_default();
        limited!(
            self.limit, DEBUG, &Arc::default(), code, "connection closed early",
            %peer, reason = error_chain(error)
        );
    }

    /// Reports that a connection cannot be accepted, usually because no file descriptor is free.
    pub(crate) fn accept_failed(&self, error: &io::Error) {
        limited!(
            self.limit, WARN, &Arc::default(), "", "cannot accept connection",
            %error
        );
    }
}

/// Reports how many connections were open at the end of the grace period.
pub(crate) fn connections_aborted(connections: usize) {
    warn!(
        connections,
        "connections closed at the end of the grace period"
    );
}

/// Reports that the inbox failed permanently.
pub(crate) fn inbox_failed() {
    error!("inbox failed; shutting down");
}

/// Reports that a task that accepts connections panicked.
pub(crate) fn server_panicked() {
    error!("server task panicked; shutting down");
}

/// Reports that the certificate or its key changed, and is used for new connections.
#[cfg(feature = "tls")]
pub(crate) fn certificate_reloaded(certificate: impl core::fmt::Display) {
    tracing::info!(%certificate, "TLS certificate reloaded");
}

/// Reports that the certificate or its key changed, and cannot be used.
#[cfg(feature = "tls")]
pub(crate) fn certificate_not_reloaded(
    certificate: impl core::fmt::Display,
    error: &(dyn Error + 'static),
) {
    let error = error_chain(error);
    warn!(%certificate, error, "TLS certificate not reloaded; the old one stays in use");
}

/// Reports that the certificate expires soon.
#[cfg(feature = "tls")]
pub(crate) fn certificate_expires_soon(
    certificate: impl core::fmt::Display,
    expires_at: jiff::Timestamp,
) {
    warn!(%certificate, %expires_at, "TLS certificate expires soon; renew it");
}

/// Reports that the certificate has expired.
#[cfg(feature = "tls")]
pub(crate) fn certificate_expired(
    certificate: impl core::fmt::Display,
    expires_at: jiff::Timestamp,
) {
    warn!(%certificate, %expires_at, "TLS certificate has expired; clients reject it");
}
