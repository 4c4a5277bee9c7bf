//! The actions: replaying a message, pausing and resuming an endpoint. The outcome of each is logged.

use std::net::IpAddr;

use http::{Response, StatusCode};
use pleo_receiver::{InboxError, Query, Selection};
use tracing::{error, info};

use super::Page;
use super::form::{Form, link};
use super::layout::{failure, redirect};
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
    let account = &*session.account.name;
    let selection = Selection::id(id).with_endpoint(endpoint);
    let inbox = admin.receiver.inbox();
    let done = async {
        let count = inbox.replay(selection.clone()).await?;
        let is_stored = count > 0 || {
            let found = inbox.list(Query::new(selection, 1)).await?;
            !found.entries.is_empty()
        };
        Ok((count, is_stored))
    };
    let done = match done.await {
        Err(error) => return failed(session, peer, "replay", &error),
        Ok((0, is_stored)) => {
            let reason = if is_stored { "leased" } else { "missing" };
            info!(account, %peer, endpoint, webhook_id = id, reason, "message not replayed by admin");
            if !is_stored {
                let text = "The inbox has no such message; it may have been pruned.";
                return failure(StatusCode::NOT_FOUND, Some(session), text);
            }
            reason
        }
        Ok((count, _)) => {
            info!(account, %peer, endpoint, webhook_id = id, count, "message replayed by admin");
            "replayed"
        }
    };
    redirect(&link(
        "/message",
        [("endpoint", endpoint), ("id", id), ("done", done)],
    ))
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
    match done.await {
        Ok(true) => {
            let account = &*session.account.name;
            if paused {
                info!(account, %peer, endpoint, "endpoint paused by admin");
            } else {
                info!(account, %peer, endpoint, "endpoint resumed by admin");
            }
            redirect("/")
        }
        Ok(false) => failure(
            StatusCode::NOT_FOUND,
            Some(session),
            "There is no such endpoint.",
        ),
        Err(error) => failed(
            session,
            peer,
            if paused { "pause" } else { "resume" },
            &error,
        ),
    }
}

fn failed(session: &Session, peer: IpAddr, action: &str, error: &InboxError) -> Response<Body> {
    let (account, error) = (&*session.account.name, chain(error));
    error!(account, %peer, action, error, "action by admin failed");
    let text = format!("The inbox refused it: {error}");
    failure(StatusCode::SERVICE_UNAVAILABLE, Some(session), &text)
}
