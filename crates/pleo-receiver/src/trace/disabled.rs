//! Records no spans: the crate is built without the feature `otel`.
#![expect(
    clippy::needless_pass_by_ref_mut,
    reason = "the signatures are those with the feature"
)]

use core::net::IpAddr;

use http::request::Parts;

use crate::endpoint::Endpoint;
use crate::inbox::{Appended, Outcome, StoredMessage};
use crate::rejection::Rejection;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tracing(());

impl Tracing {
    pub(crate) const fn receive(&self, _: &Endpoint, _: Option<IpAddr>, _: &Parts) -> ReceiveSpan {
        ReceiveSpan
    }

    pub(crate) const fn attempt(&self, _: &StoredMessage, _: u32) -> AttemptSpan {
        AttemptSpan
    }
}

pub(crate) struct ReceiveSpan;

impl ReceiveSpan {
    pub(crate) const fn start(&mut self, _: &str, _: usize) -> Option<(&'static str, String)> {
        None
    }

    pub(crate) const fn accepted(&mut self, _: Appended) {}

    pub(crate) const fn rejected(&mut self, _: &Rejection, _: Option<&str>) {}
}

#[derive(Clone)]
pub(crate) struct AttemptSpan;

impl AttemptSpan {
    pub(crate) async fn enter<F: Future>(self, future: F) -> F::Output {
        future.await
    }

    pub(crate) const fn ended(&self, _: &Outcome) {}

    pub(crate) const fn lost(&self) {}
}

/// Returns `None`: there is no span.
#[cfg(any(feature = "exec", feature = "forward"))]
pub(crate) const fn current_traceparent() -> Option<String> {
    None
}
