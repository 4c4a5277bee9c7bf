//! Pleo's API: authentication, scopes, lists, validation.

use pleo_http::reqwest::Method;
use pleo_sandbox::{PlainHttp, Sandbox, SandboxOptions, Token};
use serde_json::{Value, json};

use crate::support::{EXPORT, call, control, request, send, subscribe, with_json};

const LIST: &str = "/v1/subscriptions";

#[tokio::test]
async fn accepts_token_and_api_key() {
    let sandbox = Sandbox::start().await.unwrap();
    let get = || request(&sandbox, Method::GET, LIST);
    let by_token = send(get().bearer_auth(sandbox.token())).await;
    assert_eq!(by_token.status, 200, "{by_token:?}");
    let by_key = send(get().basic_auth(sandbox.api_key(), Some(""))).await;
    assert_eq!(by_key.status, 200, "{by_key:?}");
    for refused in [
        get(),
        get().bearer_auth("x"),
        get().bearer_auth(sandbox.api_key()),
        get().basic_auth(sandbox.token(), Some("")),
        get().basic_auth(sandbox.api_key(), Some("x")),
    ] {
        let answer = send(refused).await;
        assert_eq!(
            (answer.status, &answer.json()["type"]),
            (401, &json!("UNAUTHORIZED"))
        );
    }
}

#[tokio::test]
async fn requires_scopes() {
    let sandbox = Sandbox::start().await.unwrap();
    let body = json!({ "endpointUrl": "https://x.example.com/", "eventTypes": [EXPORT] });
    for (scopes, create, jobs) in [
        (&[][..], 403, 403),
        (&["export-jobs:read"], 403, 200),
        (&["export-jobs:write"], 403, 403),
        (&["export-jobs:read", "export-jobs:write"], 200, 200),
    ] {
        let granted = control(&sandbox, "tokens", Some(json!({ "scopes": scopes }))).await;
        let token = granted.json()["token"].as_str().unwrap().to_owned();
        let post = request(&sandbox, Method::POST, LIST).bearer_auth(&token);
        let answer = send(with_json(post, Some(body.clone()))).await;
        assert_eq!(answer.status, create, "{scopes:?}: {answer:?}");
        let get = request(&sandbox, Method::GET, "/v3/export-jobs").bearer_auth(&token);
        assert_eq!(send(get).await.status, jobs, "{scopes:?}");
    }
}

#[tokio::test]
async fn separates_companies() {
    let sandbox = Sandbox::start().await.unwrap();
    let id = subscribe(&sandbox, "https://x.example.com/").await;
    let company = sandbox.grant(Token::api_key("other").scopes(["export-jobs:read"]));
    assert_ne!(company, sandbox.company());
    let path = format!("{LIST}/{id}");
    let get = |path: &str| request(&sandbox, Method::GET, path).basic_auth("other", Some(""));
    assert_eq!(send(get(&path)).await.status, 404);
    assert_eq!(send(get(LIST)).await.json()["data"], json!([]));
    let job = sandbox.add_export_job(sandbox.company());
    let path = format!("/v3/export-jobs/{}", job["id"].as_str().unwrap());
    assert_eq!(send(get(&path)).await.status, 404);
}

#[tokio::test]
async fn pages_through_list_in_both_directions() {
    let sandbox = Sandbox::start().await.unwrap();
    for number in 0..7 {
        subscribe(&sandbox, &format!("https://x.example.com/{number}")).await;
    }
    let page = async |query: &str| {
        let answer = call(
            &sandbox,
            Method::GET,
            &format!("{LIST}?limit=3{query}"),
            None,
        )
        .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let value = answer.json();
        let url = |one: &Value| one["endpointUrl"].as_str().unwrap().chars().last().unwrap();
        let urls: String = value["data"].as_array().unwrap().iter().map(url).collect();
        (urls, value["pagination"].clone())
    };
    let (urls, first) = page("").await;
    assert_eq!(urls, "012");
    assert_eq!(
        (&first["total"], &first["hasPreviousPage"]),
        (&json!(7), &json!(false))
    );
    let after =
        |pagination: &Value| format!("&after={}", pagination["endCursor"].as_str().unwrap());
    let (urls, second) = page(&after(&first)).await;
    assert_eq!(urls, "345");
    let (urls, third) = page(&after(&second)).await;
    assert_eq!((urls.as_str(), &third["hasNextPage"]), ("6", &json!(false)));
    let before = second["startCursor"].as_str().unwrap();
    assert_eq!(page(&format!("&before={before}")).await.0, "012");
    assert_eq!(page("&offset=5").await.0, "56");
    let sorted = page("&sorting_keys=createdAt&sorting_order=DESC").await;
    assert_eq!(sorted.0, "654");
    for wrong in [
        "&offset=1&after=AAAAAAA=",
        "&after=x",
        "&limit=0",
        "&unknown=1",
    ] {
        let answer = call(
            &sandbox,
            Method::GET,
            &format!("{LIST}?{}", &wrong[1..]),
            None,
        )
        .await;
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
    }
}

#[tokio::test]
async fn accepts_plain_http_endpoints_as_configured() {
    for (plain_http, loopback, remote) in [
        (PlainHttp::Refused, 400, 400),
        (PlainHttp::Loopback, 200, 400),
        (PlainHttp::Allowed, 200, 200),
    ] {
        let options = SandboxOptions::new().with_plain_http(plain_http);
        let sandbox = Sandbox::start_with(options).await.unwrap();
        for (url, status) in [
            ("http://127.0.0.1:1/", loopback),
            ("http://localhost/", loopback),
            ("http://[::1]/", loopback),
            ("http://receiver.example.com/", remote),
            ("http://127.0.0.1.example.com/", remote),
            ("https://receiver.example.com/", 200),
        ] {
            let body = json!({ "endpointUrl": url, "eventTypes": [EXPORT] });
            let answer = call(&sandbox, Method::POST, LIST, Some(body)).await;
            assert_eq!(answer.status, status, "{plain_http:?} {url}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn records_activities_of_deleted_subscription() {
    let sandbox = Sandbox::start().await.unwrap();
    let id = subscribe(&sandbox, "https://x.example.com/").await;
    sandbox.set_active(id, false).unwrap();
    let path = format!("{LIST}/{id}");
    assert_eq!(
        call(&sandbox, Method::DELETE, &path, None).await.status,
        204
    );
    let answer = call(&sandbox, Method::GET, &format!("{path}/activities"), None).await;
    let value = answer.json();
    let kinds = value["data"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds
        .map(|one| one["operationType"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["CREATE", "UPDATE", "DELETE"]);
    assert_eq!(call(&sandbox, Method::GET, &path, None).await.status, 404);
}
