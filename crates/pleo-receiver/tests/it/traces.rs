//! Spans of a receiver with a tracer provider of the program.

use core::time::Duration;
use std::io;
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use pleo_receiver::opentelemetry::trace::{SpanId, SpanKind, Status, TraceContextExt};
use pleo_receiver::opentelemetry::{Context, trace::Tracer, trace::TracerProvider};
use pleo_receiver::{
    DispatchOptions, Dispatcher, Handler, HandlerError, MemoryInbox, Receiver, handler_fn,
};
use tokio::sync::oneshot;

use crate::support::{BODY, PATH, Request, endpoint};

/// Keeps the spans that ended, the first one first.
#[derive(Clone, Debug, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Ended {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().append(&mut batch);
        Ok(())
    }
}

impl Ended {
    fn of_kind(&self, kind: &SpanKind) -> Vec<SpanData> {
        let mut spans = self.0.lock().unwrap().clone();
        spans.retain(|span| span.span_kind == *kind);
        spans
    }
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let mut attributes = span.attributes.iter();
    let attribute = attributes.find(|attribute| attribute.key.as_str() == key);
    attribute.map(|attribute| attribute.value.to_string())
}

fn build(
    handler: impl Handler,
    options: DispatchOptions,
) -> (Receiver, Dispatcher, SdkTracerProvider, Ended) {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(ended.clone());
    let provider = provider.build();
    let builder = Receiver::builder(MemoryInbox::new())
        .endpoint(endpoint())
        .handler(handler)
        .dispatch_options(options)
        .tracer_provider(&provider);
    let (receiver, dispatcher) = builder.build().unwrap();
    (receiver, dispatcher, provider, ended)
}

async fn deliver(receiver: &Receiver, id: &str) {
    let mut request = http::Request::post(PATH);
    for (name, value) in &Request::signed(id, BODY).headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::from(BODY)).unwrap();
    assert_eq!(receiver.respond(request).await.status(), 204);
}

#[tokio::test]
async fn spans_of_handler_are_children_of_its_attempt() {
    let tracer = Arc::new(Mutex::new(None));
    let own = Arc::clone(&tracer);
    let handler = handler_fn(move |_| {
        let own = Arc::clone(&own);
        async move {
            // The context holds across await points, also on another thread.
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(Context::current().span().span_context().is_valid());
            let tracer: &Option<opentelemetry_sdk::trace::SdkTracer> = &own.lock().unwrap();
            tracer.as_ref().unwrap().start("book");
            Ok(())
        }
    });
    let (receiver, mut dispatcher, provider, ended) = build(handler, DispatchOptions::default());
    *tracer.lock().unwrap() = Some(provider.tracer("test"));
    deliver(&receiver, "msg_1").await;
    deliver(&receiver, "msg_2").await;
    dispatcher.run_until_idle().await.unwrap();
    let (attempts, books) = (
        ended.of_kind(&SpanKind::Consumer),
        ended.of_kind(&SpanKind::Internal),
    );
    assert_eq!((attempts.len(), books.len()), (2, 2));
    for book in books {
        let parent = attempts
            .iter()
            .find(|span| span.span_context.span_id() == book.parent_span_id);
        let parent = parent.unwrap().span_context.trace_id();
        assert_eq!(parent, book.span_context.trace_id());
    }
    assert!(!Context::current().span().span_context().is_valid());
}

#[tokio::test]
async fn receive_span_is_root_whatever_context_is_current() {
    let (receiver, _dispatcher, provider, ended) =
        build(handler_fn(async |_| Ok(())), DispatchOptions::default());
    let span = provider.tracer("test").start("framework");
    {
        let _current = Context::current_with_span(span).attach();
        futures_util::FutureExt::now_or_never(deliver(&receiver, "msg_1")).unwrap();
    }
    let receive = &ended.of_kind(&SpanKind::Server)[0];
    assert_eq!(receive.parent_span_id, SpanId::INVALID);
}

#[tokio::test]
async fn attempt_without_retry_is_dead_and_stopped_one_is_released() {
    let handler = handler_fn(async |delivery| match delivery.id() {
        "dead" => Err(HandlerError::permanent(io::Error::other("no account"))),
        _ => core::future::pending().await,
    });
    let options = DispatchOptions::default().with_grace(Duration::ZERO);
    let (receiver, dispatcher, _provider, ended) = build(handler, options);
    deliver(&receiver, "dead").await;
    deliver(&receiver, "stopped").await;
    let (stop, stopped) = oneshot::channel::<()>();
    let run = tokio::spawn(dispatcher.run(async { drop(stopped.await) }));
    while ended.of_kind(&SpanKind::Consumer).is_empty() {
        tokio::task::yield_now().await;
    }
    drop(stop);
    run.await.unwrap().unwrap();
    let attempts = ended.of_kind(&SpanKind::Consumer);
    let outcomes: Vec<_> = attempts
        .iter()
        .map(|span| {
            (
                attribute(span, "pleo.outcome"),
                attribute(span, "error.type"),
            )
        })
        .collect();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        outcomes,
        [
            (text("dead"), text("handler_failed")),
            (text("released"), None)
        ]
    );
    assert_eq!(attempts[0].status, Status::error("no account"));
    assert_eq!(attempts[1].status, Status::Unset);
}
