//! The control API and the page: everything besides Pleo's own API.

mod body;
mod view;

use core::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, LOCATION};
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time;
use uuid::Uuid;

use self::body::parse;
use crate::error::Error;
use crate::faults::Fault;
use crate::http_message::{Request, json_response, response};
use crate::operations::Operations;
use crate::page;
use crate::state::export_job::{ExportRequest, JobEvent};
use crate::state::message::MessageState;
use crate::state::token::Token;
use crate::state::{SCOPES, State};

/// How long a form of the page waits for the first attempt, so that the page shows its answer.
const FORM_WAIT: Duration = Duration::from_secs(1);

/// The longest wait of a request.
const MAX_WAIT: u64 = 60;

/// An error of the control API.
#[derive(Debug)]
struct Refusal(StatusCode, String);

/// Responds to a request outside Pleo's API.
pub(crate) async fn respond(
    operations: &Operations,
    url: &str,
    request: &Request,
) -> Response<Full<Bytes>> {
    let segments = request.segments();
    let page = match (&request.method, &segments[..]) {
        (&Method::GET | &Method::HEAD, [""]) => {
            Some(page::respond(&operations.shared.state(), url))
        }
        (&Method::GET | &Method::HEAD, ["sandbox.css"]) => Some(page::stylesheet()),
        _ => None,
    };
    if let Some(page) = page {
        return page;
    }
    let answer = if request.method == Method::POST {
        post(operations, request, &segments).await
    } else {
        get(operations, url, request, &segments).await
    };
    match answer {
        Ok(_) if wants_page(request) && request.method == Method::POST => {
            let mut response = response(StatusCode::SEE_OTHER, "", "");
            let headers = response.headers_mut();
            headers.insert(LOCATION, HeaderValue::from_static("/"));
            response
        }
        Ok(value) => json_response(StatusCode::OK, &value),
        Err(Refusal(status, message)) => json_response(status, &json!({ "error": message })),
    }
}

async fn get(
    operations: &Operations,
    url: &str,
    request: &Request,
    path: &[&str],
) -> Result<Value, Refusal> {
    match (&request.method, path) {
        (&Method::GET, ["sandbox", "state"]) => Ok(view::state(&operations.shared.state(), url)),
        (&Method::GET, ["sandbox", "messages", id]) => {
            let seconds = match request.query().strip_prefix("wait=") {
                Some(text) => text.parse().map_err(|_| {
                    Refusal(
                        StatusCode::BAD_REQUEST,
                        format!("wait must be seconds: {text}"),
                    )
                })?,
                None => 0,
            };
            let wait = Duration::from_secs(u64::min(seconds, MAX_WAIT));
            // After the wait, the message is returned as it is.
            let _ = time::timeout(wait, operations.wait_for_message(id)).await;
            Ok(json!(operations.shared.state().message(id)?))
        }
        _ => Err(no_route(request)),
    }
}

async fn post(operations: &Operations, request: &Request, path: &[&str]) -> Result<Value, Refusal> {
    let answer = match path {
        ["sandbox", "export"] => {
            let export = operations.export(&parse::<ExportRequest>(request)?);
            if wants_page(request) {
                wait_for_attempts(operations, &export.messages).await;
            }
            json!(export)
        }
        ["sandbox", "vendor"] => {
            let Target { company } = parse(request)?;
            json!({ "messages": operations.add_vendor(company) })
        }
        ["sandbox", "event"] => {
            let event: NewEvent = parse(request)?;
            let messages = operations.emit(event.company, &event.event_type, &event.data);
            json!({ "messages": messages })
        }
        ["sandbox", "messages", id, "resend"] => {
            operations.resend(id)?;
            json!({})
        }
        ["sandbox", "subscriptions", id, action] => {
            subscription(operations, request, (*id, *action))?
        }
        ["sandbox", "export-job-events"] => {
            json!(operations.change_export_job(parse::<JobEvent>(request)?)?)
        }
        ["sandbox", "faults"] => {
            let Faults { faults } = parse(request)?;
            let count = faults.len();
            operations
                .shared
                .change(|state| state.faults.extend(faults));
            json!({ "faults": count })
        }
        ["sandbox", "tokens"] => {
            let token: NewToken = parse(request)?;
            operations.shared.change(|state| grant(state, token))
        }
        _ => return Err(no_route(request)),
    };
    operations.shared.flushed().await?;
    Ok(answer)
}

fn subscription(
    operations: &Operations,
    request: &Request,
    (id, action): (&str, &str),
) -> Result<Value, Refusal> {
    let missing = |_| Refusal(StatusCode::NOT_FOUND, format!("no subscription {id}"));
    let id: Uuid = id.parse().map_err(missing)?;
    match action {
        "rotate" => {
            let Rotation { overlap } = parse(request)?;
            let overlap = overlap.map(|seconds| SignedDuration::from_secs(seconds.into()));
            operations.rotate_secret(id, overlap)?;
        }
        "retire" => operations.retire_old_secrets(id)?,
        "disable" => operations.set_active(id, false)?,
        "enable" => operations.set_active(id, true)?,
        _ => return Err(no_route(request)),
    }
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    #[serde(default)]
    company: Option<Uuid>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewEvent {
    event_type: String,
    data: Value,
    #[serde(default)]
    company: Option<Uuid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotation {
    /// How long the present secret signs too, in seconds.
    #[serde(default)]
    overlap: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Faults {
    faults: Vec<Fault>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewToken {
    #[serde(default)]
    scopes: Option<Vec<String>>,
    #[serde(default)]
    company: Option<Uuid>,
    /// An API key instead of a bearer token.
    #[serde(default)]
    api_key: bool,
}

fn grant(state: &mut State, new: NewToken) -> Value {
    let company = new
        .company
        .unwrap_or_else(|| state.ids.uuid(crate::ids::Kind::Company));
    let (text, token) = if new.api_key {
        let key = state.ids.api_key();
        let token = Token::api_key(&key);
        (key, token)
    } else {
        let bearer = state.ids.bearer(company);
        let token = Token::bearer(&bearer);
        (bearer, token)
    };
    let scopes = new
        .scopes
        .unwrap_or_else(|| SCOPES.map(str::to_owned).to_vec());
    let token = token.scopes(scopes.iter().map(String::as_str));
    state.grant(token.company(company));
    json!({ "token": text, "company": company, "scopes": scopes })
}

/// Waits shortly until each message was attempted.
async fn wait_for_attempts(operations: &Operations, messages: &[String]) {
    let wait = operations.shared.wait_for(|state| {
        let is_attempted = |id: &String| {
            state.message(id).is_ok_and(|message| {
                message.state != MessageState::Pending || !message.attempts.is_empty()
            })
        };
        messages.iter().all(is_attempted).then_some(())
    });
    // After the wait, the page shows the messages as they are.
    let _ = time::timeout(FORM_WAIT, wait).await;
}

/// Returns `true` if the client shows pages.
fn wants_page(request: &Request) -> bool {
    let accepted = request.header(&ACCEPT).unwrap_or_default();
    accepted.contains("text/html")
}

fn no_route(request: &Request) -> Refusal {
    let (method, path) = (&request.method, request.uri.path());
    Refusal(
        StatusCode::NOT_FOUND,
        format!("no route for {method} {path}"),
    )
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::NoSubscription(_) | Error::NoMessage(_) | Error::NoExportJob(_) => {
                StatusCode::NOT_FOUND
            }
            Error::StatusChange { .. } => StatusCode::CONFLICT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}
