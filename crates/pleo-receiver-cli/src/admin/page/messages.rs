//! The list of messages.

use std::collections::BTreeSet;

use http::{Response, StatusCode};
use jiff::Timestamp;
use maud::{Markup, html};
use pleo_receiver::{Cursor, Entry, Inbox, InboxError, Query, Selection, State};
use tokio::time;

use super::Page;
use super::filter::Filter;
use super::form::{Form, link};
use super::layout::{self, countdown, cut, failure, page};
use super::overview::TIMEOUT;
use super::session::Session;
use crate::admin::Body;
use crate::failure::chain;

/// How many messages a page shows.
pub(super) const SHOWN: u32 = 50;

/// How many characters of a type, an id or an error the list shows.
const CUT: usize = 80;

/// A page of the list.
#[derive(Default)]
struct Listed {
    entries: Vec<Entry>,
    /// The position of the last message, if older ones follow.
    older: Option<Cursor>,
    /// The position of the first message, unless it is the newest.
    newer: Option<Cursor>,
}

/// Responds with a page of the list. A page starts at the position of a message, so that it stays the
/// same while others arrive.
pub(super) async fn respond(admin: &Page, session: &Session, form: Form) -> Response<Body> {
    let position = |name| form.some(name).and_then(|text| text.parse().ok());
    let (after, before) = (position("after"), position("before"));
    let filter = Filter::new(form);
    let inbox = &**admin.receiver.inbox();
    let listed = async {
        let listed = match filter.error() {
            Some(_) => Listed::default(),
            None => list(inbox, filter.selection(inbox).await?, after, before).await?,
        };
        Ok::<_, InboxError>((listed, endpoints(admin).await?))
    };
    let (listed, endpoints) = match time::timeout(TIMEOUT, listed).await {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => {
            let text = format!("the inbox cannot be read: {}", chain(&error));
            return failure(StatusCode::SERVICE_UNAVAILABLE, Some(session), &text);
        }
        Err(_) => {
            let text = "The search took too long, and was stopped. Filter by the state or a message \
                        id, or use `pleo-receiver inbox list`, which has no time limit.";
            return failure(StatusCode::SERVICE_UNAVAILABLE, Some(session), text);
        }
    };
    let now = Timestamp::now();
    let to =
        |path: &str, name, cursor: Cursor| filter.link(path, Some((name, &cursor.to_string())));
    let content = html! {
        div.title {
            h1 { "Messages" }
            @if after.is_none() && before.is_none() && filter.error().is_none() {
                button type="button" data-live=(filter.link("/messages/live", None)) aria-pressed="false" hidden { "Live" }
                span id="live-status" role="status" {}
            }
        }
        (filter.markup(&endpoints))
        @if let Some(error) = filter.error() {
            p.alert role="alert" { (error) }
        } @else if let Some(id) = filter.search() && listed.entries.is_empty() {
            p role="status" { "No message, event or resource has the id " code { (cut(id, CUT)) } "." }
        } @else {
            // The live view shows and hides it.
            p id="empty" role="status" hidden[!listed.entries.is_empty()] { "No messages." }
        }
        (table(&listed.entries, now))
        nav.pages aria-label="Pages of the list" {
            @if listed.newer.is_some() { a.button href=(filter.link("/messages", None)) { "Newest" } }
            @if let Some(newer) = listed.newer { a.button rel="prev" href=(to("/messages", "before", newer)) { "Newer" } }
            @if let Some(older) = listed.older { a.button rel="next" href=(to("/messages", "after", older)) { "Older" } }
            @if session.account.may_act && filter.error().is_none() {
                a.button href=(filter.link("/replays/new", None)) hidden[listed.entries.is_empty()] { "Replay what the filter shows…" }
            }
        }
    };
    page("/messages", "Messages", session, &content)
}

/// Lists the newest messages, those after a position (older), or those before it (newer).
async fn list(
    inbox: &dyn Inbox,
    selection: Selection,
    after: Option<Cursor>,
    before: Option<Cursor>,
) -> Result<Listed, InboxError> {
    let query = Query::new(selection, SHOWN);
    if let Some(before) = before {
        let newer = inbox.list(query.clone().with_after(before)).await?;
        if let (Some(_), mut entries) = (newer.next, newer.entries) {
            entries.reverse();
            return Ok(Listed {
                older: entries.last().map(Entry::cursor),
                newer: entries.first().map(Entry::cursor),
                entries,
            });
        }
        // These are the newest: a page of them is full.
    }
    let mut query = query.newest_first();
    query.after = after;
    let found = inbox.list(query).await?;
    Ok(Listed {
        older: found.next,
        newer: after.and_then(|_| found.entries.first().map(Entry::cursor)),
        entries: found.entries,
    })
}

/// Returns the names of the endpoints that are configured or have messages.
async fn endpoints(admin: &Page) -> Result<BTreeSet<String>, InboxError> {
    let stats = admin.receiver.inbox().stats().await?;
    let stored = stats.iter().map(|stats| stats.endpoint.to_string());
    let configured = admin.receiver.endpoints();
    let configured = configured
        .iter()
        .map(|endpoint| endpoint.name().to_string());
    Ok(stored.chain(configured).collect())
}

fn table(entries: &[Entry], now: Timestamp) -> Markup {
    html! {
        table.messages.stacked {
            caption.hidden { "Messages, the newest first" }
            thead {
                tr {
                    th scope="col" { "Received (UTC)" }
                    th scope="col" { "State" }
                    th scope="col" { "Event type" }
                    th scope="col" { "Message id" }
                    th scope="col" { "Endpoint" }
                    th scope="col" { "Expires" }
                    th.number scope="col" { "Attempts" }
                    th scope="col" { "Last error" }
                }
            }
            tbody id="rows" { @for entry in entries { (row(entry, now)) } }
        }
    }
}

/// A row of the list.
pub(super) fn row(entry: &Entry, now: Timestamp) -> Markup {
    let target = [("endpoint", &*entry.endpoint), ("id", &*entry.webhook_id)];
    // That of a handled message is past; its page has it.
    let error = entry
        .last_error
        .as_deref()
        .filter(|_| entry.state != State::Done);
    let error = error.unwrap_or_default();
    html! {
        tr id={ "message-" (entry.sequence) } {
            td data-label="Received" { time datetime=(entry.received_at) { (entry.received_at.strftime("%m-%d %H:%M:%S")) } }
            td data-label="State" { (layout::state(entry.state, entry.leased)) }
            td data-label="Event type" { (cut(entry.event_type.as_deref().unwrap_or("none"), CUT)) }
            th scope="row" data-label="Message id" { a href=(link("/message", target)) { (cut(&entry.webhook_id, CUT)) } }
            td data-label="Endpoint" { (cut(&entry.endpoint, CUT)) }
            td data-label="Expires" { @if let Some(at) = entry.expires_at && entry.state != State::Done { (countdown(at, now)) } @else { "–" } }
            td.number data-label="Attempts" { (entry.attempts) }
            td.error data-label="Last error" { (cut(error.trim(), CUT)) }
        }
    }
}
