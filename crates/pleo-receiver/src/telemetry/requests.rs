//! The events of requests.

use core::fmt::Display;
use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;

use pleo_webhook_verify::VerifyError;
use tracing::{Level, field, info, warn};

use super::{Telemetry, milliseconds};
use crate::error::error_chain;
use crate::inbox::{Appended, InboxError};
use crate::metrics::Accepted;
use crate::rejection::{Rejected, Rejection};

/// How many bytes of an unknown path are logged.
const MAX_PATH: usize = 256;

/// What a delivery is that is signed with a removed secret.
const REMOVED_SECRET: &str = "signed with a secret that was removed from this endpoint within the \
                              last day";

/// A delivery whose signature holds.
#[derive(Clone, Copy)]
pub(crate) struct AuthenticDelivery<'a> {
    pub(crate) endpoint: &'a Arc<str>,
    pub(crate) webhook_id: &'a str,
    pub(crate) source: Option<IpAddr>,
    /// The time since the request's headers arrived.
    pub(crate) elapsed: Duration,
}

/// A request that is rejected.
#[derive(Clone, Copy, Default)]
pub(crate) struct RejectedRequest<'a> {
    /// `None` if the request reached no endpoint.
    pub(crate) endpoint: Option<&'a Arc<str>>,
    /// The path, if the request reached no endpoint.
    pub(crate) path: Option<&'a str>,
    /// The message id in the headers, if they were read. It may be forged.
    pub(crate) webhook_id: Option<&'a str>,
    pub(crate) source: Option<IpAddr>,
    /// Whether it is signed with a secret that was removed from the endpoint.
    pub(crate) removed_secret: bool,
}

impl Telemetry {
    /// Reports a delivery that is stored, or was stored before. It is answered 204.
    pub(crate) fn accepted(
        &self,
        counters: &Accepted,
        delivery: AuthenticDelivery<'_>,
        appended: Appended,
    ) {
        counters.count(appended);
        let AuthenticDelivery {
            endpoint,
            webhook_id,
            source,
            elapsed,
        } = delivery;
        let source = source.map(field::display);
        let milliseconds = milliseconds(elapsed);
        // Anybody who saw a delivery can repeat it: only the first is not limited.
        match appended {
            Appended::Stored => {
                info!(%endpoint, webhook_id, source, milliseconds, "delivery stored");
            }
            Appended::Duplicate => {
                limited!(
                    self.limit, INFO, endpoint, "", "duplicate delivery",
                    %endpoint, webhook_id, source, milliseconds
                );
            }
            Appended::Conflict => {
                limited!(
                    self.limit, WARN, endpoint, "",
                    "duplicate id with another body; the first is kept",
                    %endpoint, webhook_id, source, milliseconds
                );
            }
        }
    }

    /// Reports a request that is rejected.
    pub(crate) fn rejected(&self, request: RejectedRequest<'_>, rejection: &Rejection) {
        let RejectedRequest {
            endpoint,
            path,
            webhook_id,
            source,
            removed_secret,
        } = request;
        let (code, no_endpoint) = (rejection.code(), Arc::default());
        let label = endpoint.unwrap_or(&no_endpoint);
        self.metrics.rejected(label, code);
        if let Some(observe) = &self.on_rejected {
            observe(Rejected {
                endpoint: endpoint.map(|endpoint| &**endpoint),
                path,
                webhook_id,
                source,
                rejection: *rejection,
            });
        }
        let path = path.map(|path| &path[..path.floor_char_boundary(MAX_PATH)]);
        let endpoint = endpoint.map(field::display);
        let source = source.map(field::display);
        match level(rejection) {
            Level::WARN => {
                let detail: &dyn Display = match removed_secret {
                    true => &REMOVED_SECRET,
                    false => rejection,
                };
                limited!(
                    self.limit, WARN, label, code, "delivery rejected",
                    endpoint, path, webhook_id, source, code = %code,
                    removed_secret = removed_secret.then_some(true), detail = %detail
                );
            }
            Level::INFO => {
                limited!(
                    self.limit, INFO, label, code, "delivery rejected",
                    endpoint, path, webhook_id, source, code = %code, detail = %rejection
                );
            }
            _ => {
                limited!(
                    self.limit, DEBUG, label, code, "delivery rejected",
                    endpoint, path, webhook_id, source, code = %code, detail = %rejection
                );
            }
        }
    }

    /// Returns `true` if a delivery to this endpoint whose signature does not match would be logged
    /// now.
    pub(crate) fn logs_mismatch(&self, endpoint: &Arc<str>) -> bool {
        let code = VerifyError::SignatureMismatch.code();
        self.limit
            .is_open(Level::WARN, "delivery rejected", code, endpoint)
    }

    /// Reports that the inbox could not store a message.
    pub(crate) fn append_failed(&self, endpoint: &Arc<str>, webhook_id: &str, error: &InboxError) {
        let error = error_chain(error);
        limited!(
            self.limit, ERROR, endpoint, "", "append failed",
            %endpoint, webhook_id, error
        );
    }

    /// Reports a request or a connection that lost its place to another source.
    pub(crate) fn evicted(&self, what: &'static str, source: impl Display) {
        limited!(
            self.limit, WARN, &Arc::default(), what, "evicted for another source",
            what, %source
        );
    }
}

/// Reports that requests seem to come through a proxy that is not trusted.
pub(crate) fn untrusted_proxy(peer: IpAddr) {
    warn!(%peer, "forwarded request from an untrusted proxy; if it is yours, set `trusted_proxies`");
}

/// Returns the level of a rejection: a secret that differs needs the operator, and scanners need
/// nobody.
const fn level(rejection: &Rejection) -> Level {
    match rejection {
        Rejection::Signature(VerifyError::SignatureMismatch)
        | Rejection::WrongCredentials
        | Rejection::WrongHeader => Level::WARN,
        Rejection::NoSuchPath | Rejection::MethodNotAllowed => Level::DEBUG,
        _ => Level::INFO,
    }
}
