//! Retries and errors when the connection or the API fails.

use core::time::Duration;
use std::time::Instant;

use crate::support::{KEY, TOKEN, builder, chain, first_page, request, start};
use pleo_api::{Credentials, EndpointAuth, Error, SubscriptionQuery, SubscriptionRequest};
use pleo_sandbox::Fault;
use serde_json::json;

#[tokio::test]
async fn retries_idempotent_request_after_transient_failure() {
    let (pleo, client, _) = start().await;
    let created = client.subscriptions().create(&request()).await.unwrap();
    for fault in [
        Fault::status(429),
        Fault::status(502),
        Fault::status(503),
        Fault::status(504),
        Fault::Closed,
        Fault::AnswerLost,
    ] {
        let count = || pleo.requests().len();
        let before = count();
        pleo.fail_next([fault.clone(), fault.clone()]);
        client.subscriptions().get(created.id).await.unwrap();
        assert_eq!(count() - before, 3, "GET after {fault:?}");
        pleo.fail_next([fault.clone()]);
        let change = SubscriptionRequest::from(&created);
        client
            .subscriptions()
            .update(created.id, &change)
            .await
            .unwrap();
        assert_eq!(count() - before, 5, "PUT after {fault:?}");
        let second = client.subscriptions().create(&request()).await.unwrap();
        pleo.fail_next([fault.clone()]);
        // After a lost response the retry gets 404, which counts as deleted.
        client.subscriptions().delete(second.id).await.unwrap();
        assert_eq!(count() - before, 8, "DELETE after {fault:?}");
    }
}

#[tokio::test]
async fn never_retries_create() {
    let (pleo, client, _) = start().await;
    for fault in [
        Fault::status(429),
        Fault::status(502),
        Fault::status(503),
        Fault::status(504),
        Fault::Closed,
        Fault::AnswerLost,
    ] {
        let before = pleo.requests().len();
        pleo.fail_next([fault.clone()]);
        client.subscriptions().create(&request()).await.unwrap_err();
        assert_eq!(pleo.requests().len() - before, 1, "{fault:?}");
    }
    let page = first_page(&client, SubscriptionQuery::all()).await.unwrap();
    assert_eq!(page.data.len(), 1, "the subscription of the lost response");
}

#[tokio::test]
async fn does_not_retry_permanent_failure() {
    let (pleo, client, _) = start().await;
    for (status, wanted) in [
        (301, "answered 301"),
        (
            400,
            "rejected the request (400): injected fault (SIMULATED)",
        ),
        (401, "does not accept the token (401)"),
        (403, "lacks a permission (403)"),
        (404, "no such resource"),
        (418, "answered 418"),
        (500, "Pleo failed (500)"),
        (501, "Pleo failed (501)"),
    ] {
        let before = pleo.requests().len();
        pleo.fail_next([Fault::status(status)]);
        let error = first_page(&client, SubscriptionQuery::all())
            .await
            .unwrap_err();
        assert_eq!(error.status().unwrap(), status);
        assert!(!error.is_transient(), "{status}");
        assert!(error.to_string().contains(wanted), "{error}");
        assert_eq!(pleo.requests().len() - before, 1, "{status}");
    }
}

#[tokio::test]
async fn returns_last_error_after_last_retry() {
    let (pleo, _, _) = start().await;
    let client = builder(&pleo).retries(2, Duration::from_millis(1));
    let client = client.build().unwrap();
    pleo.fail_next([503, 502, 504].map(Fault::status));
    let error = first_page(&client, SubscriptionQuery::all())
        .await
        .unwrap_err();
    assert_eq!(error.status().unwrap(), 504, "the last error");
    assert_eq!(pleo.requests().len(), 3);
}

#[tokio::test]
async fn waits_for_retry_after_unless_too_long() {
    let (pleo, client, _) = start().await;
    let begin = Instant::now();
    pleo.fail_next([Fault::retry_after(429, "1")]);
    first_page(&client, SubscriptionQuery::all()).await.unwrap();
    assert!(
        begin.elapsed() >= Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );

    pleo.fail_next([Fault::retry_after(503, "3600")]);
    let all = SubscriptionQuery::all();
    let failed = tokio::time::timeout(Duration::from_secs(60), first_page(&client, all));
    let error = failed.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Server { .. }), "{error:?}");
    assert!(error.is_transient());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    assert_eq!(pleo.requests().len(), 3, "not retried");
}

#[tokio::test]
async fn retries_only_get_after_timeout() {
    let (pleo, client, _) = start().await;
    let created = client.subscriptions().create(&request()).await.unwrap();
    let client = builder(&pleo).timeout(Duration::from_millis(200));
    let client = client.retries(1, Duration::from_millis(1)).build().unwrap();
    let requests = || pleo.requests().len();
    let before = requests();
    pleo.fail_next([Fault::Silence]);
    first_page(&client, SubscriptionQuery::all()).await.unwrap();
    assert_eq!(requests() - before, 2, "GET");

    pleo.fail_next([Fault::Silence, Fault::Silence]);
    let error = first_page(&client, SubscriptionQuery::all()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(error.is_transient());
    assert!(error.to_string().contains("localhost:"), "{error}");
    assert_eq!(requests() - before, 4);

    let change = SubscriptionRequest::from(&created);
    pleo.fail_next([Fault::Silence]);
    let updated = client.subscriptions().update(created.id, &change).await;
    assert!(matches!(updated, Err(Error::Timeout { .. })), "{updated:?}");
    pleo.fail_next([Fault::Silence]);
    let deleted = client.subscriptions().delete(created.id).await;
    assert!(matches!(deleted, Err(Error::Timeout { .. })), "{deleted:?}");
    assert_eq!(requests() - before, 6, "PUT and DELETE are not retried");
}

#[tokio::test]
async fn invalid_response_is_error_and_not_shown() {
    let (pleo, client, _) = start().await;
    for body in [
        "",
        "<html>hunter2</html>",
        "{\"data\": \"hunter2\"}",
        "{\"data\": {\"secretKey\": [\"hunter2\"]}}",
    ] {
        pleo.fail_next([Fault::body(body)]);
        let error = client
            .subscriptions()
            .secret(uuid::Uuid::nil())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::InvalidResponse { .. }), "{error:?}");
        assert!(
            !format!("{error:?} {}", chain(&error)).contains("hunter2"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn rejects_too_large_response() {
    const LIMIT: usize = 8 * 1024 * 1024;
    let (pleo, client, _) = start().await;
    let pad = |length: usize| {
        let page =
            r#"{"data": [], "pagination": {"hasNextPage": false, "hasPreviousPage": false}}"#;
        Fault::body(page.to_owned() + &" ".repeat(length - page.len()))
    };
    pleo.fail_next([pad(LIMIT), pad(LIMIT + 1)]);
    let list = SubscriptionQuery::all();
    assert_eq!(first_page(&client, list.clone()).await.unwrap().data, []);
    let error = first_page(&client, list.clone()).await.unwrap_err();
    assert!(
        matches!(error, Error::ResponseTooLarge { limit: LIMIT, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn list_without_new_cursor_ends_with_error() {
    let (pleo, client, _) = start().await;
    let page = |cursor: &str| {
        Fault::body(format!(
            r#"{{"data": [], "pagination": {{"hasNextPage": true, "hasPreviousPage": false{cursor}}}}}"#
        ))
    };
    for faults in [
        vec![page("")],
        vec![page(r#", "endCursor": "A""#), page(r#", "endCursor": "A""#)],
        ["A", "B", "A"]
            .map(|end| page(&format!(r#", "endCursor": "{end}""#)))
            .into(),
    ] {
        let count = faults.len();
        pleo.fail_next(faults);
        let before = pleo.requests().len();
        let mut all = client.subscriptions().list(SubscriptionQuery::all());
        let error = all.next().await.unwrap_err();
        assert!(matches!(error, Error::NoNextPage), "{error:?}");
        let repeated = all.next().await.unwrap_err();
        assert!(matches!(repeated, Error::NoNextPage), "{repeated:?}");
        assert_eq!(pleo.requests().len() - before, count);
    }
}

#[tokio::test]
async fn unreachable_api_is_connection_error() {
    let (pleo, client, _) = start().await;
    let host = client.host();
    drop(pleo);
    let error = first_page(&client, SubscriptionQuery::all())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connection { .. }), "{error:?}");
    assert!(error.to_string().contains(&host), "{error}");
}

#[tokio::test]
async fn secrets_are_hidden_even_if_api_returns_them() {
    let (pleo, client, _) = start().await;
    pleo.add_subscription_field("apiKeys");
    let mut request = request()
        .with_custom_header("x-key", "hunter2")
        .with_endpoint_auth(EndpointAuth::basic("agent", "hunter3"));
    let unknown = request.extra.as_map_mut();
    unknown.insert("apiKeys".to_owned(), json!({ "first": ["hunter4"] }));
    let created = client.subscriptions().create(&request).await.unwrap();
    let secret = client.subscriptions().secret(created.id).await.unwrap();
    let pages = client.subscriptions().list(SubscriptionQuery::all());

    let reason =
        format!(r#"{{"type": "{TOKEN}", "message": "agent: hunter2, hunter3, hunter4, {TOKEN}"}}"#);
    pleo.fail_next([Fault::Status {
        status: 400,
        retry_after: None,
        body: Some(reason),
    }]);
    let error = client
        .subscriptions()
        .update(created.id, &request)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("[not shown]"), "{error}");

    let credentials = Credentials::api_key(KEY).unwrap();
    let builder = builder(&pleo);
    let shown = format!(
        "{credentials:?} {builder:?} {client:?} {request:?} {created:?} {secret:?} {pages:?} {error:?} {} {}",
        chain(&error),
        created.to_redacted_json()
    );
    for secret_text in [
        "hunter",
        "agent",
        TOKEN,
        KEY,
        "whsec_",
        &secret.expose()[6..],
    ] {
        assert!(!shown.contains(secret_text), "{secret_text} in {shown}");
    }
    for name in ["x-key", "apiKeys"] {
        assert!(shown.contains(name), "names are shown: {shown}");
    }
}
