//! The types without a server: round trips and validation.

use crate::support::{EXPORT, URL, VENDOR, chain, request};
use pleo_api::{
    AuthType, Client, ConfigError, Credentials, Cursor, EndpointAuth, InvalidRequest,
    OperationType, Page, Pages, SortOrder, Status, Subscription, SubscriptionRequest,
    Subscriptions,
};
use pleo_sandbox::Authority;
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn parses_sample_of_documentation() {
    let subscription: Subscription = serde_json::from_value(sample()).unwrap();
    assert_eq!(subscription.event_types, [EXPORT]);
    assert_eq!(subscription.status, Status::Active);
    let auth = subscription.endpoint_auth.as_ref().unwrap();
    assert_eq!(auth.kind, AuthType::None);
    assert_eq!(subscription.custom_headers["user"].expose(), "pass");
    assert_eq!(
        subscription.deleted_by.as_deref(),
        Some("urn:pleo:organisation:1")
    );

    let mut shown = sample();
    shown["eventTypes"] = json!([EXPORT]);
    shown["customHeaders"]["user"] = json!("(not shown)");
    for name in ["password", "token", "username"] {
        shown["endpointAuth"]["credentials"][name] = json!("(not shown)");
    }
    assert_eq!(subscription.to_redacted_json(), shown);
}

#[test]
fn null_equals_absent() {
    let absent = json!({
        "id": "123e4567-e89b-12d3-a456-426614174000",
        "endpointUrl": URL,
        "eventTypes": [],
        "status": "ACTIVE",
        "createdAt": "2022-01-01T00:00:00Z",
    });
    let mut null = absent.clone();
    for field in [
        "customHeaders",
        "endpointAuth",
        "updatedAt",
        "deletedAt",
        "deletedBy",
    ] {
        null[field] = Value::Null;
    }
    let read = |value| serde_json::from_value::<Subscription>(value).unwrap();
    assert_eq!(read(null), read(absent));
}

#[test]
fn rejects_invalid_request() {
    let url = |url: &str| SubscriptionRequest::new(url, [EXPORT]);
    let header = |name: &str, value: &str| request().with_custom_header(name, value);
    let auth = |auth| request().with_endpoint_auth(auth);
    let mut half = EndpointAuth::basic("user", "hunter2");
    half.credentials.as_mut().unwrap().username = None;
    for (request, part) in [
        (url("http://x.example.com/"), "only over HTTPS"),
        (url("http://127.0.0.1:8787/"), "only over HTTPS"),
        (url("ftp://x.example.com/"), "scheme"),
        (url("x.example.com"), "not absolute"),
        (url("/webhooks"), "not absolute"),
        (url("https:///x"), "not a URL"),
        (url("https://user:hunter2@x.example.com/"), "endpointAuth"),
        (url("https://x.example.com/#hunter"), "fragment"),
        (url(""), "not a URL"),
        (SubscriptionRequest::new(URL, [""; 0]), "no event types"),
        (
            SubscriptionRequest::new(URL, [EXPORT, VENDOR, EXPORT]),
            "duplicated",
        ),
        (header("webhook-id", "x"), "`webhook-id` would replace"),
        (header("WEBHOOK-anything", "x"), "would replace"),
        (header("Svix-Signature", "x"), "would replace"),
        (header("a b", "x"), "`a b` or its value"),
        (header("", "x"), "not a valid HTTP header"),
        (header("x-key", "hunter2\nx: y"), "`x-key` or its value"),
        (auth(half), "BASIC"),
    ] {
        let rejected = request.check().unwrap_err();
        let text = chain(&rejected);
        assert!(text.contains(part), "{part}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    for request in [
        url("https://x.example.com:8443/a?b=c"),
        url("HTTPS://X.EXAMPLE.COM"),
        header("x-webhook-id", "x"),
        header("webhook", "x"),
        auth(EndpointAuth::basic("user", "")),
        auth(EndpointAuth::none()),
    ] {
        assert_eq!(request.check(), Ok(()), "{request:?}");
    }
    let reserved = header("svix-id", "x").check();
    assert!(matches!(
        reserved,
        Err(InvalidRequest::ReservedHeader { .. })
    ));
}

#[test]
fn rejects_base_url_that_would_leak_token() {
    let credentials = || Credentials::bearer("a.b.c").unwrap();
    for (url, part) in [
        ("http://external.pleo.io", "unencrypted"),
        ("http://127.0.0.1.example.com", "unencrypted"),
        ("ftp://external.pleo.io", "scheme"),
        ("external.pleo.io", "not absolute"),
        ("https://user:hunter2@external.pleo.io", "has a user name"),
        ("https://external.pleo.io/?a=b", "query"),
        ("https://external.pleo.io/#a", "fragment"),
        ("", "not a URL"),
    ] {
        let rejected = Client::builder(credentials())
            .base_url(url)
            .build()
            .unwrap_err();
        let text = chain(&rejected);
        assert!(
            text.contains(part) && !text.contains("hunter2"),
            "{url}: {text}"
        );
    }
    let authority = Authority::new().unwrap();
    for url in [
        Client::PRODUCTION,
        Client::STAGING,
        "http://127.0.0.1:1",
        "http://localhost:1/below/",
        "http://[::1]:1",
    ] {
        let client = Client::builder(credentials()).base_url(url);
        let client = client.add_root_certificates(authority.pem()).build();
        assert!(client.is_ok(), "{url}: {client:?}");
    }
    for (token, is_one) in [
        ("a.b.c", true),
        ("", false),
        ("a b", false),
        ("a\nb", false),
        ("ä", false),
    ] {
        assert_eq!(Credentials::bearer(token).is_ok(), is_one, "{token:?}");
        assert_eq!(Credentials::api_key(token).is_ok(), is_one, "{token:?}");
    }
    assert!(Credentials::api_key("a:b").is_err());
    let none = Client::builder(credentials())
        .add_root_certificates("no certificate")
        .build();
    assert!(matches!(none, Err(ConfigError::Roots(_))), "{none:?}");
}

#[test]
fn pages_are_sent_and_client_is_shared() {
    fn is_sent<P: Send + Unpin + 'static>() {}
    fn is_shared<C: Clone + Send + Sync + 'static>() {}
    is_sent::<Pages<Subscription>>();
    is_shared::<Client>();
    is_shared::<Subscriptions>();
}

proptest! {
    #[test]
    fn keeps_unknown_values(
        status in "[A-Z_]{1,12}",
        kind in "[A-Z_]{1,12}",
        field in "[a-z]{1,3}X",
        value in any::<i64>(),
        types in prop::collection::vec(".{0,20}", 0..4),
    ) {
        let mut json = sample();
        json["status"] = json!(status);
        json["endpointAuth"]["type"] = json!(kind);
        json["eventTypes"] = json!(types);
        json[&field] = json!({ "deep": [value] });
        let read: Subscription = serde_json::from_value(json.clone()).unwrap();
        prop_assert_eq!(&read.extra.as_map()[&field], &json[&field]);
        let request = SubscriptionRequest::from(&read);
        prop_assert_eq!(&request.extra, &read.extra);
        let shown = read.to_redacted_json();
        prop_assert_eq!(&shown["status"], &json["status"]);
        prop_assert_eq!(&shown["endpointAuth"]["type"], &json["endpointAuth"]["type"]);
        prop_assert_eq!(&shown["eventTypes"], &json["eventTypes"]);
        prop_assert_eq!(&shown[&field], "(not shown)");
    }

    #[test]
    fn parses_page(total in prop::option::of(any::<u64>()), field in "[a-z]{1,3}X") {
        let mut page = json!({
            "data": [sample()],
            "pagination": {
                "hasNextPage": true,
                "hasPreviousPage": false,
                "startCursor": "AB2=",
                "endCursor": "AB7~",
                "currentRequestPagination": {
                    "parameters": { "status": ["ACTIVE"] },
                    "after": "AA",
                    "limit": 5,
                    "sortingKeys": ["createdAt"],
                    "sortingOrder": ["DESC_NULLS_LAST"],
                },
            },
        });
        page["pagination"][&field] = json!(null);
        if let Some(total) = total {
            page["pagination"]["total"] = json!(total);
        }
        let read: Page<Subscription> = serde_json::from_value(page).unwrap();
        prop_assert_eq!(read.data.len(), 1);
        let pagination = read.pagination;
        prop_assert!(pagination.has_next_page && !pagination.has_previous_page);
        prop_assert_eq!(pagination.start_cursor.unwrap().to_string(), "AB2=");
        prop_assert_eq!(pagination.end_cursor.unwrap().to_string(), "AB7~");
        prop_assert_eq!(pagination.total, total);
        prop_assert_eq!(pagination.extra.as_map().keys().collect::<Vec<_>>(), [&field]);
        let current = pagination.current_request_pagination.unwrap();
        prop_assert_eq!(&current.parameters["status"], &json!(["ACTIVE"]));
        prop_assert_eq!(current.after.unwrap().to_string(), "AA");
        prop_assert_eq!(current.limit, Some(5));
        prop_assert_eq!(current.sorting_keys.unwrap(), ["createdAt"]);
        prop_assert_eq!(current.sorting_order.unwrap(), [SortOrder::DescendingNullsLast]);
    }

    #[test]
    fn accepts_only_documented_cursor(text in "[A-Z2-7=~]{1,20}", wrong in "[^A-Z2-7=~]") {
        let cursor: Cursor = text.parse().unwrap();
        prop_assert_eq!(cursor.as_str(), &text);
        let longer = text + &wrong;
        prop_assert!(longer.parse::<Cursor>().is_err());
        prop_assert!("".parse::<Cursor>().is_err());
    }

    #[test]
    fn arbitrary_input_never_panics(text in ".{0,200}") {
        let _ = serde_json::from_str::<Page<Subscription>>(&text);
        let _ = SubscriptionRequest::new(text.clone(), [text.clone()]).check();
        let _ = Client::builder(Credentials::bearer("a").unwrap()).base_url(text).build();
    }

    #[test]
    fn values_parse_in_any_case(index in 0_usize..3) {
        let operation = [OperationType::Create, OperationType::Update, OperationType::Delete];
        let lower = operation[index].as_str().to_ascii_lowercase();
        prop_assert_eq!(&OperationType::from(lower.as_str()), &operation[index]);
        prop_assert_eq!(SortOrder::from("asc"), SortOrder::Ascending);
    }
}

/// The sample of Pleo's documentation.
fn sample() -> Value {
    json!({
        "createdAt": "2022-01-01T00:00:00Z",
        "endpointUrl": "https://example.com/webhook",
        "eventTypes": "v1.export-job.created",
        "id": "123e4567-e89b-12d3-a456-426614174000",
        "status": "ACTIVE",
        "updatedAt": "2022-01-10T00:00:00Z",
        "customHeaders": { "user": "pass" },
        "deletedAt": "2022-01-01T00:00:00Z",
        "deletedBy": "urn:pleo:organisation:1",
        "endpointAuth": {
            "credentials": { "password": "password", "token": "token", "username": "username" },
            "type": "NONE"
        }
    })
}
