//! A local collector of traces, and what its spans contain.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::support::program::{RunningServer, SECRET};
use crate::support::{Request, send_to};

pub(super) const TIMEOUT: Duration = Duration::from_secs(60);

/// A request to the collector.
pub(super) struct Export {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: ExportTraceServiceRequest,
}

/// A collector that keeps what it gets.
pub(super) struct Collector {
    pub(super) runtime: Runtime,
    pub(super) exports: Receiver<Export>,
    pub(super) url: String,
}

impl Collector {
    pub(super) fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (sender, exports) = mpsc::channel();
        let keep = move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let body = ExportTraceServiceRequest::decode(body).unwrap();
            let path = uri.path().to_owned();
            // The test may have seen enough.
            let _ = sender.send(Export {
                path,
                headers,
                body,
            });
            async {}
        };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async { axum::serve(listener, Router::new().fallback(keep)).await });
        Self {
            runtime,
            exports,
            url,
        }
    }

    /// Returns an environment that exports to this collector without delay.
    pub(super) fn env<'e>(
        &'e self,
        more: &[(&'static str, &'e str)],
    ) -> Vec<(&'static str, &'e str)> {
        let own = [
            ("PLEO_WEBHOOK_SECRET", SECRET),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &self.url),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        ];
        own.iter().chain(more).copied().collect()
    }

    pub(super) fn next(&self) -> Export {
        self.exports.recv_timeout(TIMEOUT).unwrap()
    }

    /// Waits for this number of spans, in the order of their ends.
    pub(super) fn spans(&self, count: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        while spans.len() < count {
            spans.extend(self.next().spans());
        }
        assert_eq!(spans.len(), count, "{spans:?}");
        spans
    }

    /// Returns the spans of a server that has exited.
    pub(super) fn rest(&self) -> Vec<Span> {
        self.exports
            .try_iter()
            .flat_map(|export| export.spans())
            .collect()
    }

    pub(super) fn send(&self, server: &RunningServer, request: &Request) -> u16 {
        let answer = self.runtime.block_on(send_to(server.address(), request));
        answer.status
    }
}

impl Export {
    pub(super) fn source(&self) -> (&Resource, &InstrumentationScope, &str) {
        let resource = &self.body.resource_spans[0];
        let scope = &resource.scope_spans[0];
        let parts = (resource.resource.as_ref(), scope.scope.as_ref());
        (parts.0.unwrap(), parts.1.unwrap(), &scope.schema_url)
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        let resources = self.body.resource_spans.iter();
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

/// Returns attributes as texts.
pub(super) fn texts(attributes: &[KeyValue]) -> HashMap<&str, String> {
    let text = |attribute: &KeyValue| match attribute.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pair = |attribute: &'_ _| text(attribute);
    attributes
        .iter()
        .map(|attribute| (&*attribute.key, pair(attribute)))
        .collect()
}

#[track_caller]
pub(super) fn assert_attributes(span: &Span, expected: &[(&str, &str)]) {
    let attributes = texts(&span.attributes);
    for (key, value) in expected {
        let actual = attributes.get(key).map(String::as_str);
        assert_eq!(actual, Some(*value), "{key} of {span:?}");
    }
}

pub(super) fn traceparent(trace: &[u8], span: &[u8]) -> String {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    format!("00-{}-{}-01", hex(trace), hex(span))
}

pub(super) fn context(span: &Span) -> String {
    traceparent(&span.trace_id, &span.span_id)
}

pub(super) fn links(span: &Span) -> Vec<String> {
    let links = span.links.iter();
    links
        .map(|link| traceparent(&link.trace_id, &link.span_id))
        .collect()
}

/// Returns the only span of a kind.
pub(super) fn only(spans: &[Span], kind: SpanKind) -> &Span {
    let mut spans = spans.iter().filter(|span| span.kind() == kind);
    let span = spans.next().unwrap();
    assert!(spans.next().is_none(), "{spans:?}");
    span
}

pub(super) fn status(span: &Span) -> StatusCode {
    span.status
        .as_ref()
        .map_or(StatusCode::Unset, |status| status.code())
}
