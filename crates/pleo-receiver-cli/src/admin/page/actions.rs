//! The actions: replaying a message, pausing and resuming an endpoint. Each is logged.

use std::net::IpAddr;

use http::{Response, StatusCode};
use pleo_receiver::Selection;
use tokio::time;
use tracing::info;

use super::Page;
use super::form::{Form, link};
use super::layout::{failure, redirect};
use super::overview::TIMEOUT;
use super::session::Session;
use crate::admin::Body;
use crate::failure::chain;

/// Replays one message.
pub(super) async fn replay(
    admin: &Page,
    session: &Session,
    peer: IpAddr,
    form: &Form,
) -> Response<Body> {
    let (endpoint, id) = (form.get("endpoint"), form.get("id"));
    let selection = Selection::id(id).with_endpoint(endpoint);
    match time::timeout(TIMEOUT, admin.receiver.inbox().replay(selection)).await {
        Ok(Ok(count)) => {
            let account = &*session.account.name;
            info!(account, %peer, endpoint, webhook_id = id, count, "message replayed by admin");
            let done = if count == 0 { "leased" } else { "replayed" };
            redirect(&link(
                "/message",
                [("endpoint", endpoint), ("id", id), ("done", done)],
            ))
        }
        failed => not_done(session, failed.map(|done| done.map(|_| ()))),
    }
}

/// Pauses or resumes the dispatch of an endpoint.
pub(super) async fn set_paused(
    admin: &Page,
    session: &Session,
    peer: IpAddr,
    form: &Form,
    paused: bool,
) -> Response<Body> {
    let endpoint = form.get("endpoint");
    let inbox = admin.receiver.inbox();
    let done = async {
        let stats = inbox.stats().await?;
        let is_known = stats.iter().any(|stats| &*stats.endpoint == endpoint)
            || admin
                .receiver
                .endpoints()
                .iter()
                .any(|other| &**other.name() == endpoint);
        if is_known {
            inbox.set_paused(endpoint.into(), paused).await?;
        }
        Ok(is_known)
    };
    match time::timeout(TIMEOUT, done).await {
        Ok(Ok(true)) => {
            let account = &*session.account.name;
            if paused {
                info!(account, %peer, endpoint, "endpoint paused by admin");
            } else {
                info!(account, %peer, endpoint, "endpoint resumed by admin");
            }
            redirect("/")
        }
        Ok(Ok(false)) => failure(
            StatusCode::NOT_FOUND,
            Some(session),
            "There is no such endpoint.",
        ),
        failed => not_done(session, failed.map(|done| done.map(|_| ()))),
    }
}

fn not_done(
    session: &Session,
    failed: Result<Result<(), pleo_receiver::InboxError>, time::error::Elapsed>,
) -> Response<Body> {
    let text = match failed {
        Ok(Err(error)) => format!("The inbox refused it: {}", chain(&error)),
        _ => "The inbox did not respond in time; the action may still be done.".to_owned(),
    };
    failure(StatusCode::SERVICE_UNAVAILABLE, Some(session), &text)
}
