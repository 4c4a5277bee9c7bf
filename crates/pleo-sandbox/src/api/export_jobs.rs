//! The Export API: export jobs and the events that change them.

use http::{Method, StatusCode};
use jiff::Timestamp;
use pleo_events::{ExportJob, FailureReasonType};
use serde_json::{Value, json};
use uuid::Uuid;

use super::pagination::{Query, page};
use super::validation::{self, ApiError, bad_request};
use crate::http_message::Request;
use crate::state::State;
use crate::state::export_job::{JobEvent, JobEventKind};
use crate::state::token::Identity;

const STATUSES: [&str; 5] = [
    "pending",
    "in_progress",
    "failed",
    "completed",
    "completed_with_errors",
];

/// Answers a request to a path below `/v3/export-jobs`.
pub(super) fn answer(
    state: &State,
    identity: &Identity,
    request: &Request,
    path: &[&str],
) -> Result<Value, ApiError> {
    match (&request.method, path) {
        (&Method::GET, []) => list(state, identity, request.query()),
        (&Method::GET, [text]) => {
            validation::require(identity, "export-jobs:read")?;
            let id: Option<Uuid> = text.parse().ok();
            let job = id.and_then(|id| find(state, identity, id));
            let job = job.ok_or_else(|| missing(text))?;
            Ok(json!({ "data": job }))
        }
        (_, [] | [_]) => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::new(StatusCode::NOT_FOUND, "no such path")),
    }
}

/// Changes the status of a job by the event in the body. Returns the job.
pub(super) fn change(
    state: &mut State,
    identity: &Identity,
    request: &Request,
    now: Timestamp,
) -> Result<ExportJob, ApiError> {
    validation::require(identity, "export-jobs:write")?;
    validation::require_json(request)?;
    let event: JobEvent = match serde_json::from_slice(&request.body) {
        Ok(event) => event,
        Err(error) => return bad_request(error.to_string()),
    };
    if let Some(FailureReasonType::Other(other)) = &event.failure_reason_type {
        return bad_request(format!("unknown failureReasonType {other}"));
    }
    let has_reason = event.failure_reason.is_some() || event.failure_reason_type.is_some();
    if has_reason && event.event != JobEventKind::Failed {
        return bad_request("failureReason and failureReasonType are for the event failed only");
    }
    let id = event.job_id;
    if find(state, identity, id).is_none() {
        return Err(missing(&id.to_string()));
    }
    let invalid_change = |error: crate::Error| ApiError {
        status: StatusCode::BAD_REQUEST,
        kind: "INVALID_EXPORT_JOB_STATUS_CHANGE",
        message: error.to_string(),
    };
    let job = state.export_job(id).map_err(invalid_change)?;
    event.apply(job, now).map_err(invalid_change)?;
    Ok(job.clone())
}

fn list(state: &State, identity: &Identity, query: &str) -> Result<Value, ApiError> {
    validation::require(identity, "export-jobs:read")?;
    let query = Query::parse(query, &["company_id", "statuses"])?;
    let statuses = query.any_of("statuses", &STATUSES)?;
    let matches = |job: &ExportJob| {
        job.company_id == identity.company
            && (statuses.is_empty() || statuses.contains(&job.status.as_str()))
    };
    let jobs = state.export_jobs.iter().filter(|(_, job)| matches(job));
    page(
        jobs.map(|(sequence, job)| (*sequence, json!(job)))
            .collect(),
        &query,
    )
}

/// Finds a job. A token does not see those of other companies.
fn find<'a>(state: &'a State, identity: &Identity, id: Uuid) -> Option<&'a ExportJob> {
    let mut jobs = state.export_jobs.iter().map(|(_, job)| job);
    jobs.find(|job| job.id == id && job.company_id == identity.company)
}

fn missing(text: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("no export job {text}"))
}
