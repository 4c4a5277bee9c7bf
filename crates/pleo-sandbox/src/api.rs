//! The API: who may ask what, and the answers.

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

use crate::check::{self, Refused};
use crate::faults;
use crate::page::{Query, page};
use crate::state::{Seen, State, Token, id};
use crate::{Fault, Shared};

/// Serves until it is dropped, and all connections with it.
pub(crate) async fn serve(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            let stream = acceptor.accept(stream).await.ok()?;
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.await.ok()
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let target = head.uri.path_and_query().unwrap().as_str().to_owned();
    let fault = {
        let mut state = shared.state();
        let method = head.method.to_string();
        state.requests.push(Seen { method, target });
        state.faults.pop_front()
    };
    match &fault {
        Some(Fault::Status {
            status,
            retry_after,
            body,
        }) => return Ok(faults::answer(*status, retry_after.clone(), body.clone())),
        Some(Fault::Silence) => core::future::pending().await,
        Some(Fault::Closed) => return Err(io::Error::other("as the test wished")),
        Some(Fault::AnswerLost | Fault::None) | None => {}
    }
    let answered = respond(&mut shared.state(), &head, &body);
    shared.changed.notify_waiters();
    if matches!(fault, Some(Fault::AnswerLost)) {
        return Err(io::Error::other("as the test wished"));
    }
    let (status, body) = match answered {
        Ok(Value::Null) => (204, String::new()),
        Ok(value) => (200, value.to_string()),
        Err(refused) => (refused.status, refused.body().to_string()),
    };
    let mut builder = Response::builder().status(status);
    if !body.is_empty() {
        builder = builder.header(CONTENT_TYPE, "application/json;charset=UTF-8");
    }
    Ok(builder.body(Full::from(body)).unwrap())
}

fn respond(state: &mut State, head: &http::request::Parts, body: &[u8]) -> Result<Value, Refused> {
    let token = authenticate(state, head)?;
    let path: Vec<_> = head.uri.path().trim_start_matches('/').split('/').collect();
    let query = head.uri.query().unwrap_or_default();
    match (&head.method, &path[..]) {
        (&Method::GET, ["v1", "subscriptions"]) => list(state, &token, query),
        (&Method::POST, ["v1", "subscriptions"]) => {
            is_json(head)?;
            let request = check::subscription(body, &token)?;
            let made = state.create(token.company, request);
            Ok(json!({ "data": state.shown(made) }))
        }
        (method, ["v1", "subscriptions", id, rest @ ..]) => {
            one(state, &token, method, (id, rest), (head, body))
        }
        (&Method::GET, ["v3", "export-jobs"]) => {
            check::require(&token, "export-jobs:read")?;
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
            let fits = |job: &Value| {
                let status = job["status"].as_str().unwrap();
                job["companyId"] == company && (statuses.is_empty() || statuses.contains(&status))
            };
            let jobs = state.export_jobs.iter().filter(|(_, job)| fits(job));
            page(jobs.cloned().collect(), &query)
        }
        (_, ["v1", "subscriptions"] | ["v3", "export-jobs"]) => {
            Err(Refused::new(405, "no such method here"))
        }
        _ => Err(Refused::new(404, "no such path")),
    }
}

/// All that begins with the id of a subscription.
fn one(
    state: &mut State,
    token: &Token,
    method: &Method,
    (text, rest): (&str, &[&str]),
    (head, body): (&http::request::Parts, &[u8]),
) -> Result<Value, Refused> {
    let missing = || Refused::new(404, format!("no subscription {text}"));
    let id: Uuid = text.parse().map_err(|_| missing())?;
    if (method, rest) == (&Method::GET, &["activities"]) {
        return activities(state, token, id, head.uri.query().unwrap_or_default())?
            .ok_or_else(missing);
    }
    // Somebody else's subscription is none.
    let found = state.subscriptions.get(&id);
    let found = found.filter(|one| one.company == token.company);
    let found = found.ok_or_else(missing)?;
    match (method, rest) {
        (&Method::GET, []) => Ok(json!({ "data": state.shown(found.value.clone()) })),
        (&Method::PUT, []) => {
            is_json(head)?;
            let request = check::subscription(body, token)?;
            let changed = state.update(id, request);
            Ok(json!({ "data": state.shown(changed) }))
        }
        (&Method::DELETE, []) => {
            state.delete(id);
            Ok(Value::Null)
        }
        (&Method::GET, ["secret"]) => Ok(json!({ "data": { "secretKey": found.secrets[0] } })),
        (_, [] | ["secret" | "activities"]) => Err(Refused::new(405, "no such method here")),
        _ => Err(Refused::new(404, "no such path")),
    }
}

fn list(state: &State, token: &Token, query: &str) -> Result<Value, Refused> {
    let query = Query::parse(query, &["status", "event_types"])?;
    let status = query.one_of("status", &["ACTIVE", "INACTIVE"])?;
    let event_types = query.all("event_types");
    let fits = |value: &Value| {
        let mut types = value["eventTypes"].as_array().unwrap().iter();
        status.is_none_or(|status| value["status"] == status)
            && (event_types.is_empty()
                || types.any(|one| event_types.contains(&one.as_str().unwrap())))
    };
    let mine = state.subscriptions.values();
    let mine = mine.filter(|one| one.company == token.company && fits(&one.value));
    let list = mine.map(|one| (one.sequence, state.shown(one.value.clone())));
    page(list.collect(), &query)
}

/// Those of a subscription that was deleted are still there.
fn activities(
    state: &State,
    token: &Token,
    subscription: Uuid,
    query: &str,
) -> Result<Option<Value>, Refused> {
    let query = Query::parse(query, &["operation_types"])?;
    let types = query.any_of("operation_types", &["CREATE", "UPDATE", "DELETE"])?;
    let actor = json!(format!("urn:pleo:company:{}", token.company));
    let mine = |activity: &Value| {
        id(&activity["subscriptionId"]) == subscription && activity["actorUrn"] == actor
    };
    if !state.activities.iter().any(|(_, activity)| mine(activity)) {
        return Ok(None);
    }
    let fits = |activity: &Value| {
        let kind = activity["operationType"].as_str().unwrap();
        mine(activity) && (types.is_empty() || types.contains(&kind))
    };
    let fitting = state
        .activities
        .iter()
        .filter(|(_, activity)| fits(activity));
    page(fitting.cloned().collect(), &query).map(Some)
}

impl State {
    /// A subscription as it is answered.
    fn shown(&self, mut value: Value) -> Value {
        if self.bare_event_types
            && let Some([one]) = value["eventTypes"].as_array().map(Vec::as_slice)
        {
            value["eventTypes"] = one.clone();
        }
        value
    }
}

fn authenticate(state: &State, head: &http::request::Parts) -> Result<Token, Refused> {
    let given = head.headers.get(AUTHORIZATION);
    let Some(given) = given.and_then(|value| value.to_str().ok()) else {
        return Err(Refused::new(401, "there is no token"));
    };
    let token = state
        .tokens
        .iter()
        .find(|token| token.authorization == given);
    // As a careless API would say it.
    let unknown = || Refused::new(401, format!("unknown or expired: {given}"));
    token.cloned().ok_or_else(unknown)
}

fn is_json(head: &http::request::Parts) -> Result<(), Refused> {
    let given = head.headers.get(CONTENT_TYPE);
    let given = given.and_then(|value| value.to_str().ok());
    if given.is_some_and(|text| text.to_ascii_lowercase().starts_with("application/json")) {
        return Ok(());
    }
    Err(Refused::new(415, "the body must be application/json"))
}
