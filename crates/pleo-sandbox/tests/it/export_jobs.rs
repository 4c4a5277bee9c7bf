//! Export jobs: changes of status, expiry.

use pleo_http::reqwest::Method;
use pleo_sandbox::{ExportRequest, Sandbox, SandboxEvent};
use serde_json::{Value, json};

use crate::support::{Answer, call, control};

async fn job(sandbox: &Sandbox, id: &str) -> Value {
    let answer = call(sandbox, Method::GET, &format!("/v3/export-jobs/{id}"), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["data"].clone()
}

async fn change(sandbox: &Sandbox, body: Value) -> Answer {
    call(sandbox, Method::POST, "/v3/export-job-events", Some(body)).await
}

#[tokio::test]
async fn changes_status_by_events() {
    let sandbox = Sandbox::start().await.unwrap();
    let id = sandbox.export(&ExportRequest::new()).jobs[0].id.to_string();
    let event = |event: &str| json!({ "event": event, "jobId": id });
    let answer = change(&sandbox, event("completed")).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.json()["type"], "INVALID_EXPORT_JOB_STATUS_CHANGE");

    assert_eq!(change(&sandbox, event("started")).await.status, 200);
    let started = job(&sandbox, &id).await;
    assert_eq!(started["status"], "in_progress");
    assert!(started["startedAt"].is_string() && started["lastUpdatedAt"].is_string());
    assert_eq!(
        change(&sandbox, event("completed_with_errors"))
            .await
            .status,
        200
    );
    let completed = job(&sandbox, &id).await;
    assert_eq!(completed["status"], "completed_with_errors");
    assert!(completed["completedAt"].is_string());
    assert_eq!(change(&sandbox, event("failed")).await.status, 400);
}

#[tokio::test]
async fn fails_job_with_reason() {
    let sandbox = Sandbox::start().await.unwrap();
    let id = sandbox.export(&ExportRequest::new()).jobs[0].id.to_string();
    for (wrong, status) in [
        (
            json!({ "event": "started", "jobId": id, "failureReason": "x" }),
            400,
        ),
        (
            json!({ "event": "failed", "jobId": id, "failureReasonType": "x" }),
            400,
        ),
        (json!({ "event": "canceled", "jobId": id }), 400),
        (
            json!({ "event": "failed", "jobId": "00000000-0000-4000-8000-000000000000" }),
            404,
        ),
    ] {
        let answer = change(&sandbox, wrong).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    let reason = "accounting_system_unreachable";
    let body = json!({ "event": "failed", "jobId": id, "failureReason": "down",
        "failureReasonType": reason });
    assert_eq!(change(&sandbox, body).await.status, 200);
    let failed = job(&sandbox, &id).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(
        (&failed["failureReason"], &failed["failureReasonType"]),
        (&json!("down"), &json!(reason))
    );
}

#[tokio::test]
async fn expires_after_lifetime_since_last_action() {
    let sandbox = Sandbox::start().await.unwrap();
    let mut events = sandbox.events();
    let request = ExportRequest::new().with_expires_in(1).with_jobs(2);
    let export = sandbox.export(&request);
    let [started, pending] = &export.jobs[..] else {
        panic!("{export:?}");
    };
    let body = json!({ "event": "started", "jobId": started.id });
    assert_eq!(change(&sandbox, body).await.status, 200);
    let mut expired = Vec::new();
    while expired.len() < 2 {
        if let SandboxEvent::ExportJob(job) = events.next().await.unwrap()
            && let Some(at) = job.expired_at
        {
            let last_action = job.started_at.unwrap_or(job.created_at);
            let lifetime = at.duration_since(last_action);
            assert!(lifetime.as_millis() >= 1000, "{lifetime:?}");
            assert_eq!(job.status.as_str(), "failed");
            let reason = job.failure_reason_type.as_ref().unwrap();
            assert_eq!(reason.as_str(), "job_expired");
            expired.push(job.id);
        }
    }
    assert!(expired.contains(&started.id) && expired.contains(&pending.id));
    let listed = call(
        &sandbox,
        Method::GET,
        "/v3/export-jobs?statuses=failed",
        None,
    )
    .await;
    assert_eq!(listed.json()["pagination"]["total"], 2);
    let body = json!({ "event": "completed", "jobId": started.id });
    assert_eq!(
        control(&sandbox, "export-job-events", Some(body))
            .await
            .status,
        409
    );
}
