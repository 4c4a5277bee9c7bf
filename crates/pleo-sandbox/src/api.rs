//! The HTTP API: routes, authentication, responses.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::faults::{self, Fault};
use crate::pagination::{Query, encode, page};
use crate::shared::Shared;
use crate::state::{ApiRequest, State, Token, id};
use crate::validation::{self, ApiError};

/// Serves the API. Closes all connections on drop.
pub(crate) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let stream = acceptor.accept(stream).await.ok()?;
            let service = service_fn(|request| handle(Arc::clone(&shared), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.await.ok()
        });
    }
}

async fn handle(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let target = head.uri.path_and_query().unwrap().as_str().to_owned();
    let fault = {
        let mut state = shared.state();
        let method = head.method.to_string();
        state.requests.push(ApiRequest { method, target });
        state.faults.pop_front()
    };
    match &fault {
        Some(Fault::Status {
            status,
            retry_after,
            body,
        }) => return Ok(faults::response(*status, retry_after.clone(), body.clone())),
        Some(Fault::Silence) => core::future::pending().await,
        Some(Fault::Closed) => return Err(io::Error::other("injected fault")),
        Some(Fault::AnswerLost | Fault::Held(_) | Fault::None) | None => {}
    }
    let result = {
        let mut state = shared.state();
        if state.endless_lists {
            respond_without_end(&mut state, head, &body)
        } else {
            respond(&mut state, &head, &body)
        }
    };
    shared.changed.notify_waiters();
    match fault {
        Some(Fault::AnswerLost) => return Err(io::Error::other("injected fault")),
        Some(Fault::Held(released)) => released.notified().await,
        _ => {}
    }
    let (status, body) = match result {
        Ok(Value::Null) => (204, String::new()),
        Ok(value) => (200, value.to_string()),
        Err(error) => (error.status, error.body().to_string()),
    };
    let mut builder = Response::builder().status(status);
    if !body.is_empty() {
        builder = builder.header(CONTENT_TYPE, "application/json;charset=UTF-8");
    }
    Ok(builder.body(Full::from(body)).unwrap())
}

fn respond(state: &mut State, head: &http::request::Parts, body: &[u8]) -> Result<Value, ApiError> {
    let token = authenticate(state, head)?;
    let path: Vec<_> = head.uri.path().trim_start_matches('/').split('/').collect();
    let query = head.uri.query().unwrap_or_default();
    match (&head.method, &path[..]) {
        (&Method::GET, ["v1", "subscriptions"]) => list(state, &token, query),
        (&Method::POST, ["v1", "subscriptions"]) => {
            is_json(head)?;
            let request = validation::subscription(body, &token, &state.more_fields)?;
            let created = state.create(token.company, request);
            Ok(json!({ "data": state.render(created) }))
        }
        (method, ["v1", "subscriptions", id, rest @ ..]) => {
            subscription(state, &token, method, (id, rest), (head, body))
        }
        (&Method::GET, ["v3", "export-jobs"]) => {
            validation::require(&token, "export-jobs:read")?;
            let query = Query::parse(query, &["company_id", "statuses"])?;
            let statuses = query.any_of(
                "statuses",
                &[
                    "pending",
                    "in_progress",
                    "failed",
                    "completed",
                    "completed_with_errors",
                ],
            )?;
            let company = json!(token.company);
            let matches = |job: &Value| {
                let status = job["status"].as_str().unwrap();
                job["companyId"] == company && (statuses.is_empty() || statuses.contains(&status))
            };
            let jobs = state.export_jobs.iter().filter(|(_, job)| matches(job));
            page(jobs.cloned().collect(), &query)
        }
        (_, ["v1", "subscriptions"] | ["v3", "export-jobs"]) => {
            Err(ApiError::new(405, "method not allowed"))
        }
        _ => Err(ApiError::new(404, "no such path")),
    }
}

/// Responds with the first page of a list to every cursor, and with a new cursor.
fn respond_without_end(
    state: &mut State,
    mut head: http::request::Parts,
    body: &[u8],
) -> Result<Value, ApiError> {
    let query = head.uri.query().unwrap_or_default();
    let pairs = query.split('&').filter(|pair| !pair.starts_with("after="));
    let pairs: Vec<_> = pairs.collect();
    head.uri = format!("{}?{}", head.uri.path(), pairs.join("&"))
        .parse()
        .unwrap();
    let mut value = respond(state, &head, body)?;
    if let Some(pagination) = value.get_mut("pagination") {
        pagination["hasNextPage"] = json!(true);
        pagination["endCursor"] = json!(encode(state.next()));
    }
    Ok(value)
}

/// Handles the paths below the id of a subscription.
fn subscription(
    state: &mut State,
    token: &Token,
    method: &Method,
    (text, rest): (&str, &[&str]),
    (head, body): (&http::request::Parts, &[u8]),
) -> Result<Value, ApiError> {
    let missing = || ApiError::new(404, format!("no subscription {text}"));
    let id: Uuid = text.parse().map_err(|_| missing())?;
    if (method, rest) == (&Method::GET, &["activities"]) {
        return activities(state, token, id, head.uri.query().unwrap_or_default())?
            .ok_or_else(missing);
    }
    // A token does not see subscriptions of other companies.
    let found = state.subscriptions.get(&id);
    let found = found.filter(|found| found.company == token.company);
    let found = found.ok_or_else(missing)?;
    match (method, rest) {
        (&Method::GET, []) => Ok(json!({ "data": state.render(found.value.clone()) })),
        (&Method::PUT, []) => {
            is_json(head)?;
            let request = validation::subscription(body, token, &state.more_fields)?;
            let changed = state.update(id, request);
            Ok(json!({ "data": state.render(changed) }))
        }
        (&Method::DELETE, []) => {
            state.delete(id);
            Ok(Value::Null)
        }
        (&Method::GET, ["secret"]) => Ok(json!({ "data": { "secretKey": found.secrets[0] } })),
        (_, [] | ["secret" | "activities"]) => Err(ApiError::new(405, "method not allowed")),
        _ => Err(ApiError::new(404, "no such path")),
    }
}

fn list(state: &State, token: &Token, query: &str) -> Result<Value, ApiError> {
    let query = Query::parse(query, &["status", "event_types"])?;
    let status = query.one_of("status", &["ACTIVE", "INACTIVE"])?;
    let event_types = query.all("event_types");
    let matches = |value: &Value| {
        let mut types = value["eventTypes"].as_array().unwrap().iter();
        status.is_none_or(|status| value["status"] == status)
            && (event_types.is_empty()
                || types.any(|event_type| event_types.contains(&event_type.as_str().unwrap())))
    };
    let subscriptions = state.subscriptions.values();
    let matching = subscriptions.filter(|subscription| {
        subscription.company == token.company && matches(&subscription.value)
    });
    let list = matching.map(|subscription| {
        let value = state.render(subscription.value.clone());
        (subscription.sequence, value)
    });
    page(list.collect(), &query)
}

/// Lists the activities of a subscription, including a deleted one.
fn activities(
    state: &State,
    token: &Token,
    subscription: Uuid,
    query: &str,
) -> Result<Option<Value>, ApiError> {
    let query = Query::parse(query, &["operation_types"])?;
    let types = query.any_of("operation_types", &["CREATE", "UPDATE", "DELETE"])?;
    let actor = json!(format!("urn:pleo:company:{}", token.company));
    let is_own = |activity: &Value| {
        id(&activity["subscriptionId"]) == subscription && activity["actorUrn"] == actor
    };
    if !state
        .activities
        .iter()
        .any(|(_, activity)| is_own(activity))
    {
        return Ok(None);
    }
    let matches = |activity: &Value| {
        let kind = activity["operationType"].as_str().unwrap();
        is_own(activity) && (types.is_empty() || types.contains(&kind))
    };
    let matching = state
        .activities
        .iter()
        .filter(|(_, activity)| matches(activity));
    page(matching.cloned().collect(), &query).map(Some)
}

impl State {
    /// Returns a subscription as a response shows it.
    fn render(&self, mut value: Value) -> Value {
        if self.bare_event_types
            && let Some([event_type]) = value["eventTypes"].as_array().map(Vec::as_slice)
        {
            value["eventTypes"] = event_type.clone();
        }
        value
    }
}

fn authenticate(state: &State, head: &http::request::Parts) -> Result<Token, ApiError> {
    let given = head.headers.get(AUTHORIZATION);
    let Some(given) = given.and_then(|value| value.to_str().ok()) else {
        return Err(ApiError::new(401, "no token"));
    };
    let token = state
        .tokens
        .iter()
        .find(|token| token.authorization == given);
    // Echoes the credentials, so that tests show that clients hide them.
    let unknown = || ApiError::new(401, format!("unknown or expired: {given}"));
    token.cloned().ok_or_else(unknown)
}

fn is_json(head: &http::request::Parts) -> Result<(), ApiError> {
    let given = head.headers.get(CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok());
    if given.is_some_and(|text| text.to_ascii_lowercase().starts_with("application/json")) {
        return Ok(());
    }
    Err(ApiError::new(415, "the body must be application/json"))
}
