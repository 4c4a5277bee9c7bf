//! The spans, by the semantic conventions of [`SCHEMA`].

use core::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::request::Parts;
use http::{Method, StatusCode, Version};
use opentelemetry::global::{BoxedSpan, BoxedTracer, ObjectSafeTracerProvider};
use opentelemetry::trace::{
    FutureExt as _, Link, Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};

use super::RECEIVE_CONTEXT;
use super::context::{format_traceparent, parse_traceparent};
use crate::endpoint::Endpoint;
use crate::inbox::{Appended, Outcome, StoredMessage};
use crate::rejection::Rejection;
use crate::telemetry::RateLimit;

/// The version of the semantic conventions that names and attributes follow. Attributes that begin
/// with `pleo.` are not in the conventions.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";

/// The value of `messaging.system`.
const SYSTEM: &str = "pleo";

/// The maximum length of a span's error text in bytes.
const MAX_ERROR: usize = 1024;

/// Starts spans, if there is a tracer provider.
#[derive(Clone, Default)]
pub(crate) struct Tracing(Option<Arc<Active>>);

struct Active {
    tracer: BoxedTracer,
    /// Limits the spans of rejected requests.
    limit: RateLimit,
}

impl Tracing {
    pub(crate) fn new(provider: &dyn ObjectSafeTracerProvider) -> Self {
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(SCHEMA)
            .build();
        Self(Some(Arc::new(Active {
            tracer: BoxedTracer::new(provider.boxed_tracer(scope)),
            limit: RateLimit::new(),
        })))
    }

    /// Notes the start of a request to an endpoint.
    pub(crate) fn receive(
        &self,
        endpoint: &Endpoint,
        source: Option<IpAddr>,
        request: &Parts,
    ) -> ReceiveSpan {
        ReceiveSpan(self.0.as_ref().map(|active| {
            Box::new(Receiving {
                active: Arc::clone(active),
                endpoint: Arc::clone(endpoint.name()),
                builder: receive_span(endpoint, source, request),
                span: None,
            })
        }))
    }

    /// Starts the span of an attempt to handle a message.
    pub(crate) fn attempt(&self, message: &StoredMessage, attempt: u32) -> AttemptSpan {
        AttemptSpan(self.0.as_ref().map(|active| {
            let span = attempt_span(message, attempt);
            let span = active.tracer.build_with_context(span, &Context::new());
            Context::new().with_span(span)
        }))
    }
}

impl fmt::Debug for Tracing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracing").field(&self.0.is_some()).finish()
    }
}

/// The span of a request to an endpoint. It ends when it is dropped.
pub(crate) struct ReceiveSpan(Option<Box<Receiving>>);

struct Receiving {
    active: Arc<Active>,
    endpoint: Arc<str>,
    builder: SpanBuilder,
    /// `None` until the request is authentic or rejected.
    span: Option<BoxedSpan>,
}

impl ReceiveSpan {
    /// Starts the span of an authentic delivery. Returns the header to store with the message, unless
    /// the span is not sampled.
    pub(crate) fn start(
        &mut self,
        webhook_id: &str,
        body_len: usize,
    ) -> Option<(&'static str, String)> {
        let receiving = self.0.as_mut()?;
        let span = receiving.start();
        span.set_attribute(message_id(webhook_id));
        span.set_attribute(KeyValue::new("http.request.body.size", to_i64(body_len)));
        let context = span.span_context();
        let is_stored = context.is_valid() && context.is_sampled();
        is_stored.then(|| (RECEIVE_CONTEXT, format_traceparent(context)))
    }

    /// Notes that the delivery is answered 204.
    pub(crate) fn accepted(&mut self, appended: Appended) {
        let Some(span) = self
            .0
            .as_mut()
            .and_then(|receiving| receiving.span.as_mut())
        else {
            return;
        };
        span.set_attribute(status_code(StatusCode::NO_CONTENT));
        // As the metrics call them.
        let outcome = match appended {
            Appended::Stored => "stored",
            Appended::Duplicate => "known",
            Appended::Conflict => "conflict",
        };
        span.set_attribute(KeyValue::new("pleo.outcome", outcome));
    }

    /// Notes that the request is rejected. `webhook_id` may be forged.
    pub(crate) fn rejected(&mut self, rejection: &Rejection, webhook_id: Option<&str>) {
        let Some(receiving) = &mut self.0 else {
            return;
        };
        let code = rejection.code();
        if receiving.span.is_none() {
            let limit = &receiving.active.limit;
            if !limit.permits("delivery rejected", code, &receiving.endpoint) {
                return;
            }
            let span = receiving.start();
            if let Some(id) = webhook_id {
                span.set_attribute(message_id(id));
            }
        }
        let Some(span) = &mut receiving.span else {
            return;
        };
        span.set_attribute(status_code(rejection.status()));
        span.set_attribute(KeyValue::new("error.type", code));
        // An error of the client is none of the server.
        if rejection.status().is_server_error() {
            span.set_status(Status::error(rejection.to_string()));
        }
    }
}

impl Receiving {
    /// Starts the span at the time of the request.
    fn start(&mut self) -> &mut BoxedSpan {
        let builder = core::mem::take(&mut self.builder);
        // Without the current context: the span is a root.
        let span = self
            .active
            .tracer
            .build_with_context(builder, &Context::new());
        self.span.insert(span)
    }
}

/// The span of an attempt. It ends with its outcome, or when its handler is dropped without one.
#[derive(Clone)]
pub(crate) struct AttemptSpan(Option<Context>);

impl AttemptSpan {
    /// Makes the span the current one while the future runs.
    pub(crate) async fn enter<F: Future>(self, future: F) -> F::Output {
        match self.0 {
            Some(context) => future.with_context(context).await,
            None => future.await,
        }
    }

    /// Ends the span of an attempt with this outcome.
    pub(crate) fn ended(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Done => self.end("done", None),
            Outcome::Retry { error, .. } => self.end("retry", Some(("handler_failed", error))),
            Outcome::Dead { error } => self.end("dead", Some(("handler_failed", error))),
            Outcome::Release => self.end("released", None),
        }
    }

    /// Ends the span of an attempt whose handler was stopped, because its lease was lost.
    pub(crate) fn lost(&self) {
        self.end("lost", Some(("lease_lost", "the lease was lost")));
    }

    fn end(&self, outcome: &'static str, failure: Option<(&'static str, &str)>) {
        let Some(context) = &self.0 else {
            return;
        };
        let span = context.span();
        span.set_attribute(KeyValue::new("pleo.outcome", outcome));
        if let Some((error_type, error)) = failure {
            let error = &error[..error.floor_char_boundary(MAX_ERROR)];
            span.set_attribute(KeyValue::new("error.type", error_type));
            span.set_status(Status::error(error.to_owned()));
        }
        span.end();
    }
}

/// Describes the span of a request, which starts now: HTTP server span.
fn receive_span(endpoint: &Endpoint, source: Option<IpAddr>, request: &Parts) -> SpanBuilder {
    let method = known_method(&request.method);
    let route = endpoint.path();
    let name_method = method.unwrap_or("HTTP");
    let mut attributes = Vec::with_capacity(12);
    attributes.extend([
        KeyValue::new("http.request.method", method.unwrap_or("_OTHER")),
        KeyValue::new("http.route", route.to_owned()),
        KeyValue::new("url.path", request.uri.path().to_owned()),
        KeyValue::new("network.protocol.version", protocol(request.version)),
        KeyValue::new("messaging.system", SYSTEM),
        KeyValue::new("messaging.destination.name", Arc::clone(endpoint.name())),
    ]);
    let source = source.map(|source| KeyValue::new("client.address", source.to_string()));
    attributes.extend(source);
    let sender = request.headers.get("traceparent");
    let sender = sender.and_then(|value| parse_traceparent(value.to_str().ok()?));
    let links = sender.map(|context| Link::new(context, Vec::new(), 0));
    SpanBuilder::from_name(format!("{name_method} {route}"))
        .with_kind(SpanKind::Server)
        .with_start_time(SystemTime::now())
        .with_attributes(attributes)
        .with_links(links.into_iter().collect())
}

/// Describes the span of an attempt: messaging process span.
fn attempt_span(message: &StoredMessage, attempt: u32) -> SpanBuilder {
    let entry = &message.entry;
    let mut attributes = Vec::with_capacity(10);
    attributes.extend([
        KeyValue::new("messaging.system", SYSTEM),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", Arc::clone(&entry.endpoint)),
        message_id(&entry.webhook_id),
        KeyValue::new("pleo.attempt", i64::from(attempt)),
    ]);
    let event_type = entry.event_type.clone();
    attributes.extend(event_type.map(|event_type| KeyValue::new("pleo.event_type", event_type)));
    let received = message.headers.get(RECEIVE_CONTEXT);
    let link = received.and_then(parse_traceparent);
    let link = link.map(|context| Link::new(context, Vec::new(), 0));
    SpanBuilder::from_name(format!("process {}", entry.endpoint))
        .with_kind(SpanKind::Consumer)
        .with_attributes(attributes)
        .with_links(link.into_iter().collect())
}

fn message_id(webhook_id: &str) -> KeyValue {
    KeyValue::new("messaging.message.id", webhook_id.to_owned())
}

fn status_code(status: StatusCode) -> KeyValue {
    KeyValue::new("http.response.status_code", i64::from(status.as_u16()))
}

/// Returns the method if the conventions know it. A client can choose any other.
fn known_method(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = [
        "POST", "GET", "HEAD", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    KNOWN.into_iter().find(|known| method == known)
}

const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

fn to_i64(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
