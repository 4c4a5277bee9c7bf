//! Pleo's API: routes, authentication, responses.

mod export_jobs;
mod pagination;
mod subscriptions;
mod validation;

use std::io;

use bytes::Bytes;
use http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use jiff::Timestamp;
use pleo_events::ExportJob;
use serde_json::{Value, json};

use self::pagination::encode;
use self::validation::ApiError;
use crate::event_stream::SandboxEvent;
use crate::faults::Fault;
use crate::http_message::{Request, json_response, response};
use crate::shared::Shared;
use crate::state::State;
use crate::state::request::ApiRequest;
use crate::state::token::Identity;

/// The answer to a request, and what it changed.
#[derive(Default)]
struct Answer {
    /// `Null` is a response without a body.
    body: Value,
    changed_job: Option<ExportJob>,
}

/// Responds to a request. An error closes the connection.
pub(crate) async fn respond(
    shared: &Shared,
    request: &Request,
) -> Result<Response<Full<Bytes>>, io::Error> {
    let target = request.uri.path_and_query();
    let received = ApiRequest {
        method: request.method.to_string(),
        target: target.map_or_else(String::new, ToString::to_string),
    };
    shared.emit(SandboxEvent::Request(received.clone()));
    let fault = shared.change(|state| {
        state.record_request(received);
        state.faults.pop_front()
    });
    match &fault {
        Some(Fault::Status {
            status,
            retry_after,
            body,
        }) => return Ok(faulty(*status, retry_after.as_deref(), body.as_deref())),
        Some(Fault::Silence) => core::future::pending().await,
        Some(Fault::Closed) => return Err(io::Error::other("injected fault")),
        Some(Fault::AnswerLost | Fault::Held(_) | Fault::None) | None => {}
    }
    let result = shared.change(|state| {
        if state.deviations.endless_lists {
            answer_without_end(shared, state, request)
        } else {
            answer(shared, state, request)
        }
    });
    if let Ok(Answer {
        changed_job: Some(job),
        ..
    }) = &result
    {
        shared.emit(SandboxEvent::ExportJob(Box::new(job.clone())));
    }
    if let Err(error) = shared.flushed().await {
        let body = json!({ "type": "INTERNAL_ERROR", "message": error.to_string() });
        return Ok(json_response(StatusCode::INTERNAL_SERVER_ERROR, &body));
    }
    match fault {
        Some(Fault::AnswerLost) => return Err(io::Error::other("injected fault")),
        Some(Fault::Held(released)) => released.notified().await,
        _ => {}
    }
    Ok(match result {
        Ok(Answer {
            body: Value::Null, ..
        }) => response(StatusCode::NO_CONTENT, "", ""),
        Ok(answer) => json_response(StatusCode::OK, &answer.body),
        Err(error) => json_response(error.status, &error.body()),
    })
}

fn answer(shared: &Shared, state: &mut State, request: &Request) -> Result<Answer, ApiError> {
    let identity = authenticate(state, request)?;
    let now = Timestamp::now();
    match &request.segments()[..] {
        ["v1", "subscriptions", rest @ ..] => {
            let plain_http = shared.options.plain_http;
            let rules = validation::Rules {
                identity: &identity,
                plain_http,
            };
            subscriptions::answer(state, &rules, request, rest, now).map(Answer::from)
        }
        ["v3", "export-jobs", rest @ ..] => {
            export_jobs::answer(state, &identity, request, rest).map(Answer::from)
        }
        ["v3", "export-job-events"] if request.method == Method::POST => {
            let job = export_jobs::change(state, &identity, request, now)?;
            Ok(Answer {
                body: json!("Export Job Event created successfully."),
                changed_job: Some(job),
            })
        }
        ["v3", "export-job-events"] => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::new(StatusCode::NOT_FOUND, "no such path")),
    }
}

/// Responds with the first page of a list to every cursor, and with a new cursor.
fn answer_without_end(
    shared: &Shared,
    state: &mut State,
    request: &Request,
) -> Result<Answer, ApiError> {
    let pairs = request.query().split('&');
    let pairs: Vec<_> = pairs.filter(|pair| !pair.starts_with("after=")).collect();
    let uri = format!("{}?{}", request.uri.path(), pairs.join("&"));
    let first = Request {
        method: request.method.clone(),
        uri: uri.parse().unwrap_or_else(|_| request.uri.clone()),
        headers: request.headers.clone(),
        body: request.body.clone(),
    };
    let mut answer = answer(shared, state, &first)?;
    if let Some(pagination) = answer.body.get_mut("pagination") {
        pagination["hasNextPage"] = json!(true);
        pagination["endCursor"] = json!(encode(state.next()));
    }
    Ok(answer)
}

fn authenticate(state: &State, request: &Request) -> Result<Identity, ApiError> {
    let unauthorized = |message| ApiError::new(StatusCode::UNAUTHORIZED, message);
    let Some(given) = request.header(&AUTHORIZATION) else {
        return Err(unauthorized("no token".to_owned()));
    };
    // Echoes the credentials, so that tests show that clients hide them.
    let unknown = || unauthorized(format!("unknown or expired: {given}"));
    state.identity(given).ok_or_else(unknown)
}

/// Builds the response of [`Fault::Status`].
fn faulty(status: u16, retry_after: Option<&str>, body: Option<&str>) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let error = r#"{"type":"SIMULATED","message":"injected fault"}"#;
    let body = body.unwrap_or(error).to_owned();
    let mut response = response(status, "application/json;charset=UTF-8", body);
    let headers = response.headers_mut();
    if let Some(Ok(wait)) = retry_after.map(HeaderValue::from_str) {
        headers.insert(RETRY_AFTER, wait);
    }
    if status.is_redirection() {
        headers.insert(LOCATION, HeaderValue::from_static("/v1/elsewhere"));
    }
    response
}

impl From<Value> for Answer {
    fn from(body: Value) -> Self {
        Self {
            body,
            changed_job: None,
        }
    }
}
