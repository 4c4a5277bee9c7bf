//! Every call, against the sandbox, over TLS.

use crate::support::{
    EXPORT, KEY, SCOPES, TOKEN, URL, VENDOR, builder, builder_for, chain, first_page, ids, request,
    start, start_sandbox,
};
use pleo_api::{
    ActivityQuery, Client, Credentials, EndpointAuth, Error, ExportJobQuery, ExportJobStatus,
    OperationType, PageRequest, Status, Subscription, SubscriptionQuery, SubscriptionRequest,
};
use pleo_sandbox::{Sandbox, Token};
use serde_json::json;
use uuid::Uuid;

#[tokio::test]
async fn creates_reads_updates_and_deletes_subscription() {
    let (_pleo, client, _) = start().await;
    let request = request()
        .with_custom_header("x-from", "pleo")
        .with_endpoint_auth(EndpointAuth::basic("user", "hunter2"));

    let created = client.subscriptions().create(&request).await.unwrap();
    assert_eq!(SubscriptionRequest::from(&created), request, "as requested");
    assert_eq!(
        client.subscriptions().get(created.id).await.unwrap(),
        created
    );
    let secret = client.subscriptions().secret(created.id).await.unwrap();
    assert!(secret.expose().starts_with("whsec_"));

    let mut change = SubscriptionRequest::from(&created);
    change.status = Status::Inactive;
    change.event_types = vec![VENDOR.into()];
    let changed = client
        .subscriptions()
        .update(created.id, &change)
        .await
        .unwrap();
    assert_eq!(SubscriptionRequest::from(&changed), change);
    assert_eq!(
        client.subscriptions().get(created.id).await.unwrap(),
        changed
    );
    assert_eq!(
        client.subscriptions().secret(created.id).await.unwrap(),
        secret,
        "the secret stays"
    );

    client.subscriptions().delete(created.id).await.unwrap();
    assert!(matches!(
        client.subscriptions().get(created.id).await,
        Err(Error::NotFound(_))
    ));
    let deleted_again = client.subscriptions().delete(created.id).await;
    assert!(
        matches!(deleted_again, Err(Error::NotFound(_))),
        "{deleted_again:?}"
    );

    let mut activities = client
        .subscriptions()
        .activities(created.id, ActivityQuery::all());
    let page = activities.next_page().await.unwrap();
    let done: Vec<_> = page
        .unwrap()
        .data
        .into_iter()
        .map(|activity| activity.operation_type)
        .collect();
    let all = [
        OperationType::Create,
        OperationType::Update,
        OperationType::Delete,
    ];
    assert_eq!(done, all);
    let list = ActivityQuery::all()
        .with_operation_types([OperationType::Update, OperationType::Delete])
        .with_page(PageRequest::default().with_limit(1));
    let mut some = client.subscriptions().activities(created.id, list);
    for operation in &all[1..] {
        let activity = some.next().await.unwrap().unwrap();
        assert_eq!(activity.operation_type, *operation);
        assert_eq!(activity.subscription_id, created.id);
    }
    assert_eq!(some.next().await.unwrap(), None);
}

#[tokio::test]
async fn update_keeps_unknown_fields() {
    let (pleo, client, _) = start().await;
    for field in ["label", "rotation", "scope"] {
        pleo.add_subscription_field(field);
    }
    let unknown = json!({
        "endpointUrl": URL,
        "eventTypes": [EXPORT],
        "id": Uuid::nil(),
        "status": "ACTIVE",
        "createdAt": "2026-11-24T08:00:00Z",
        "label": { "colors": ["red", null], "number": 1 },
        "endpointAuth": {
            "type": "BASIC",
            "rotation": "weekly",
            "credentials": { "username": "u", "password": "hunter2", "scope": ["a"] },
        },
    });
    let unknown: Subscription = serde_json::from_value(unknown).unwrap();
    let created = client
        .subscriptions()
        .create(&SubscriptionRequest::from(&unknown))
        .await
        .unwrap();
    let change = SubscriptionRequest::from(&created).with_status(Status::Inactive);
    let subscriptions = client.subscriptions();
    subscriptions.update(created.id, &change).await.unwrap();
    let changed = subscriptions.get(created.id).await.unwrap();
    assert_eq!(changed.status, Status::Inactive);
    assert_eq!(changed.extra, unknown.extra);
    assert_eq!(
        changed.extra.as_map()["label"]["colors"],
        json!(["red", null])
    );
    assert_eq!(changed.endpoint_auth, unknown.endpoint_auth);
    let auth = changed.endpoint_auth.unwrap();
    assert_eq!(auth.extra.as_map()["rotation"], "weekly");
    assert_eq!(
        auth.credentials.unwrap().extra.as_map()["scope"],
        json!(["a"])
    );
}

#[tokio::test]
async fn replaces_credentials_of_client() {
    let (pleo, client, company) = start().await;
    let own = client.subscriptions().create(&request()).await.unwrap();
    pleo.grant(Token::api_key(KEY).scopes(SCOPES));
    let other = client.with_credentials(Credentials::api_key(KEY).unwrap());
    let expired = client.with_credentials(Credentials::bearer("a.b.c").unwrap());
    assert_eq!(other.host(), client.host());
    assert_eq!(
        ids(&first_page(&client, SubscriptionQuery::all()).await),
        [own.id]
    );
    let others = first_page(&other, SubscriptionQuery::all()).await;
    assert_eq!(others.unwrap().data, []);
    let rejected = expired.subscriptions().get(own.id).await;
    assert!(
        matches!(rejected, Err(Error::Unauthorized(_))),
        "{rejected:?}"
    );

    // A list goes on with a new token.
    for _ in 0..25 {
        pleo.add_export_job(company);
    }
    let mut jobs = client.export_jobs().list(ExportJobQuery::pending());
    jobs.next_page().await.unwrap().unwrap();
    let rest = PageRequest::after(jobs.cursor().unwrap().clone());
    let renewed = expired.with_credentials(Credentials::bearer(TOKEN).unwrap());
    let query = ExportJobQuery::pending().with_page(rest);
    let mut rest = renewed.export_jobs().list(query);
    assert_eq!(rest.next_page().await.unwrap().unwrap().data.len(), 5);
}

#[tokio::test]
async fn token_and_api_key_see_only_their_own_company() {
    let (pleo, client, _) = start().await;
    pleo.grant(Token::api_key(KEY).scopes(SCOPES));
    let key_client = builder_for(&pleo, Credentials::api_key(KEY).unwrap());
    let key_client = key_client.build().unwrap();
    let own = client.subscriptions().create(&request()).await.unwrap();
    let foreign = key_client.subscriptions().create(&request()).await.unwrap();
    assert_eq!(
        ids(&first_page(&client, SubscriptionQuery::all()).await),
        [own.id]
    );
    assert_eq!(
        ids(&first_page(&key_client, SubscriptionQuery::all()).await),
        [foreign.id]
    );
    assert!(matches!(
        key_client.subscriptions().get(own.id).await,
        Err(Error::NotFound(_))
    ));
    assert!(matches!(
        key_client.subscriptions().secret(own.id).await,
        Err(Error::NotFound(_))
    ));
    assert!(matches!(
        key_client.subscriptions().delete(own.id).await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test]
async fn reads_bare_event_type_as_list() {
    let (pleo, client, _) = start().await;
    pleo.answer_bare_event_types();
    let created = client.subscriptions().create(&request()).await.unwrap();
    assert_eq!(created.event_types, [EXPORT]);
    let listed = first_page(&client, SubscriptionQuery::all()).await.unwrap();
    assert_eq!(listed.data, [created]);
}

#[tokio::test]
async fn lists_pending_export_jobs_of_own_company() {
    let (pleo, client, company) = start().await;
    let mut jobs = Vec::new();
    for _ in 0..25 {
        jobs.push(pleo.add_export_job(company));
    }
    pleo.add_export_job(Uuid::new_v4());
    let mut listed = client.export_jobs().list(ExportJobQuery::pending());
    for job in &jobs {
        let listed = listed.next().await.unwrap().unwrap();
        let parsed = listed.parse().unwrap();
        assert_eq!(parsed.id.to_string(), job["id"].as_str().unwrap());
        assert_eq!(serde_json::to_value(&listed).unwrap(), *job);
    }
    assert!(listed.next().await.unwrap().is_none(), "no other company's");
    let failed = ExportJobQuery::all().with_statuses([ExportJobStatus::Failed]);
    assert!(
        client
            .export_jobs()
            .list(failed)
            .next()
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn errors_have_status_and_message_of_api() {
    let pleo = start_sandbox().await;
    pleo.grant(Token::bearer(TOKEN).scopes(["export-jobs:read"]));
    let client = builder(&pleo).build().unwrap();
    let stranger = builder_for(&pleo, Credentials::bearer("a.b.c").unwrap());
    let stranger = stranger.build().unwrap();

    let missing = client.subscriptions().create(&request()).await.unwrap_err();
    assert!(matches!(&missing, Error::Forbidden(message) if message.kind == "ACCESS_DENIED"));
    assert!(
        chain(&missing).contains("the scope export-jobs:write is missing"),
        "{missing}"
    );

    let unknown = client
        .subscriptions()
        .create(&SubscriptionRequest::new(URL, ["v1.typo"]))
        .await
        .unwrap_err();
    assert!(matches!(&unknown, Error::BadRequest(message) if message.kind == "BAD_REQUEST"));
    assert!(
        unknown.to_string().contains("unknown event type v1.typo"),
        "{unknown}"
    );

    let rejected = first_page(&stranger, SubscriptionQuery::all())
        .await
        .unwrap_err();
    assert!(matches!(&rejected, Error::Unauthorized(_)), "{rejected:?}");
    assert!(
        rejected.to_string().contains("unknown or expired"),
        "{rejected}"
    );

    let nothing = client.subscriptions().get(Uuid::nil()).await.unwrap_err();
    assert!(matches!(&nothing, Error::NotFound(_)));
    assert_eq!(nothing.status().unwrap(), 404);
}

#[tokio::test]
async fn invalid_request_is_not_sent() {
    let (pleo, client, _) = start().await;
    let bad = request().with_custom_header("Webhook-Id", "x");
    let rejected = client.subscriptions().create(&bad).await.unwrap_err();
    assert!(
        chain(&rejected).contains("`Webhook-Id` would replace"),
        "{rejected}"
    );
    let plain = SubscriptionRequest::new("http://receiver.example.com/", [EXPORT]);
    let rejected = client
        .subscriptions()
        .update(Uuid::nil(), &plain)
        .await
        .unwrap_err();
    assert!(chain(&rejected).contains("only over HTTPS"), "{rejected}");
    assert_eq!(pleo.requests(), []);
}

#[tokio::test]
async fn sandbox_without_tls_delivers_to_its_machine() {
    let pleo = Sandbox::start().await.unwrap();
    let credentials = Credentials::bearer(&pleo.token()).unwrap();
    let client = Client::builder(credentials).base_url(pleo.url());
    let client = client.build().unwrap();
    let local = SubscriptionRequest::new("http://127.0.0.1:8787/webhooks/pleo", [EXPORT]);
    client.subscriptions().create(&local).await.unwrap();
    let remote = SubscriptionRequest::new("http://receiver.example.com/", [EXPORT]);
    let rejected = client.subscriptions().create(&remote).await.unwrap_err();
    assert!(chain(&rejected).contains("only over HTTPS"), "{rejected}");
    assert!(local.check().is_err(), "Pleo delivers nothing there");
}

#[tokio::test]
async fn returns_time_of_api() {
    let (_pleo, client, _) = start().await;
    let time = client.time().await.unwrap().unwrap();
    let skew = jiff::Timestamp::now().duration_since(time);
    assert!(skew.abs() < jiff::SignedDuration::from_secs(30), "{skew:?}");
}

#[tokio::test]
async fn rejects_certificate_of_unknown_authority() {
    let (pleo, _, _) = start().await;
    let trusting_others = Client::builder(Credentials::bearer(TOKEN).unwrap())
        .base_url(pleo.url())
        .add_root_certificates(start_sandbox().await.authority().unwrap().pem())
        .retries(0, core::time::Duration::ZERO)
        .build()
        .unwrap();
    let rejected = first_page(&trusting_others, SubscriptionQuery::all())
        .await
        .unwrap_err();
    assert!(matches!(rejected, Error::Connection { .. }));
    assert!(
        chain(&rejected).contains("UnknownIssuer"),
        "{}",
        chain(&rejected)
    );
    assert_eq!(pleo.requests(), [], "the token was not sent");
}
