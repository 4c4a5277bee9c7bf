//! Replays of all messages that a filter shows: first counted, then in the background.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use http::{Response, StatusCode};
use jiff::Timestamp;
use maud::{Markup, html};
use pleo_receiver::{Entry, Inbox, InboxError, Query, Receiver, Selection};
use tokio::task::JoinSet;
use tokio::time;
use tracing::{error, info};

use super::Page;
use super::filter::Filter;
use super::form::Form;
use super::layout::{self, failure, number, page, redirect, token};
use super::overview::TIMEOUT;
use super::session::Session;
use crate::admin::Body;
use crate::escape::escape;
use crate::failure::chain;

/// Up to how many messages are counted.
const COUNTED: u64 = 10_000;

/// How many messages are read at once to count them, and replayed concurrently.
const PAGE: u32 = 500;
const CONCURRENT: u32 = 50;

/// The last replay. There is one at a time.
#[derive(Default)]
pub(super) struct Replays(Mutex<Option<Arc<Replay>>>);

/// A replay of the messages that a filter shows.
struct Replay {
    account: String,
    filter: String,
    started_at: Timestamp,
    /// The number of messages; at least so many if there are more than are counted.
    total: u64,
    selection: Selection,
    /// The sequence of the last message: later ones are not replayed.
    last: i64,
    replayed: AtomicU64,
    /// Messages that a handler was processing, or that were deleted.
    skipped: AtomicU64,
    is_cancelled: AtomicBool,
    has_ended: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Replays {
    fn last(&self) -> Option<Arc<Replay>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps a replay unless another is running.
    fn start(&self, replay: &Arc<Replay>) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_some_and(|last| last.is_running()) {
            return false;
        }
        *last = Some(Arc::clone(replay));
        true
    }
}

impl Replay {
    fn is_running(&self) -> bool {
        !self.has_ended.load(Ordering::Relaxed)
    }

    /// Replays one page after the other. A message is replayed once, even if it fails again meanwhile.
    async fn run(&self, receiver: &Receiver) {
        if let Err(error) = self.replay(receiver.inbox()).await {
            let error = chain(&error);
            error!(error, "replay by admin failed");
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
        let account = &*self.account;
        let replayed = self.replayed.load(Ordering::Relaxed);
        let skipped = self.skipped.load(Ordering::Relaxed);
        let cancelled = self.is_cancelled.load(Ordering::Relaxed);
        info!(
            account,
            replayed, skipped, cancelled, "replay by admin ended"
        );
        self.has_ended.store(true, Ordering::Relaxed);
    }

    async fn replay(&self, inbox: &Arc<dyn Inbox>) -> Result<(), InboxError> {
        let mut query = Query::new(self.selection.clone(), CONCURRENT);
        while !self.is_cancelled.load(Ordering::Relaxed) {
            let page = inbox.list(query.clone()).await?;
            let mut tasks = JoinSet::new();
            for entry in page
                .entries
                .iter()
                .filter(|entry| entry.sequence <= self.last)
            {
                let mut one = Selection::id(&*entry.webhook_id).with_endpoint(&*entry.endpoint);
                one.state = self.selection.state;
                let inbox = Arc::clone(inbox);
                tasks.spawn(async move { inbox.replay(one).await });
            }
            while let Some(done) = tasks.join_next().await {
                // The store does not panic.
                let replayed = done.unwrap_or(Ok(0))?;
                let counter = if replayed > 0 {
                    &self.replayed
                } else {
                    &self.skipped
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            let is_last = |entry: &Entry| entry.sequence >= self.last;
            if page.next.is_none() || page.entries.last().is_some_and(is_last) {
                break;
            }
            query.after = page.next;
        }
        Ok(())
    }
}

/// What a filter selects.
struct Counted {
    selection: Selection,
    /// At most [`COUNTED`].
    count: u64,
    has_more: bool,
    /// The sequence of the newest message.
    last: i64,
}

async fn count(inbox: &dyn Inbox, filter: &Filter) -> Result<Counted, InboxError> {
    let selection = filter.selection(inbox).await?;
    let mut query = Query::new(selection.clone(), PAGE).newest_first();
    let (mut count, mut last) = (0, i64::MIN);
    loop {
        let page = inbox.list(query.clone()).await?;
        if let Some(newest) = page.entries.first() {
            last = last.max(newest.sequence);
        }
        count += u64::try_from(page.entries.len()).unwrap_or(0);
        query.after = page.next;
        if page.next.is_none() || count >= COUNTED {
            return Ok(Counted {
                selection,
                count,
                has_more: page.next.is_some(),
                last,
            });
        }
    }
}

/// Responds with the number of messages, and asks whether to replay them.
pub(super) async fn respond_new(admin: &Page, session: &Session, form: Form) -> Response<Body> {
    if !session.account.may_act {
        return failure(
            StatusCode::FORBIDDEN,
            Some(session),
            "This account may only read.",
        );
    }
    let filter = Filter::new(form);
    let counted = time::timeout(TIMEOUT, count(&**admin.receiver.inbox(), &filter)).await;
    let Ok(Ok(counted)) = counted else {
        let text = "The inbox did not count the messages in time; narrow the filter.";
        return failure(StatusCode::SERVICE_UNAVAILABLE, Some(session), text);
    };
    let content = html! {
        p { a href=(filter.link("/messages", None)) { "Messages" } }
        h1 { "Replay" }
        (criteria(&filter))
        @if counted.count == 0 {
            p { "The filter shows no messages." }
        } @else {
            p {
                @if counted.has_more { "More than " }
                b { (number(counted.count)) }
                @if counted.count == 1 { " message becomes" } @else { " messages become" }
                " pending and ready, and the handler gets them again. Messages that arrive from now on, "
                "and those that a handler is processing, are left out."
            }
            form method="post" action="/replays" {
                (token(session))
                @for (name, value) in filter.parameters() {
                    input type="hidden" name=(name) value=(value);
                }
                input type="hidden" name="last" value=(counted.last);
                button.main { "Replay " (number(counted.count)) @if counted.has_more { " and more" } }
                " "
                a.button href=(filter.link("/messages", None)) { "Don’t replay" }
            }
        }
    };
    page("", "Replay", session, &content)
}

fn criteria(filter: &Filter) -> Markup {
    html! {
        dl.facts {
            @if filter.is_empty() { div { dt { "Filter" } dd { "none: all messages" } } }
            @for (name, value) in filter.parameters() {
                div { dt { (name) } dd { (escape(value)) } }
            }
        }
    }
}

/// Starts a replay of the messages up to the last that was counted.
pub(super) async fn start(
    admin: &Page,
    session: &Session,
    peer: IpAddr,
    form: &Form,
) -> Response<Body> {
    let Ok(last) = form.get("last").parse() else {
        let text = "The form is incomplete. Open it anew.";
        return failure(StatusCode::BAD_REQUEST, Some(session), text);
    };
    let filter = Filter::new(form.clone());
    if filter.is_invalid() {
        let text = "A time of the filter is not a time.";
        return failure(StatusCode::BAD_REQUEST, Some(session), text);
    }
    let counted = time::timeout(TIMEOUT, count(&**admin.receiver.inbox(), &filter)).await;
    let Ok(Ok(counted)) = counted else {
        let text = "The inbox did not respond in time; retry later.";
        return failure(StatusCode::SERVICE_UNAVAILABLE, Some(session), text);
    };
    let replay = Arc::new(Replay {
        account: session.account.name.clone(),
        filter: filter.link("", None),
        started_at: Timestamp::now(),
        total: counted.count,
        selection: counted.selection,
        last,
        replayed: AtomicU64::new(0),
        skipped: AtomicU64::new(0),
        is_cancelled: AtomicBool::new(false),
        has_ended: AtomicBool::new(false),
        error: Mutex::new(None),
    });
    if !admin.replays.start(&replay) {
        let text = "Another replay is running. Wait for its end, or cancel it.";
        return failure(StatusCode::CONFLICT, Some(session), text);
    }
    let (account, filter, count) = (&*replay.account, &*replay.filter, replay.total);
    info!(account, %peer, filter, count, "replay started by admin");
    let receiver = admin.receiver.clone();
    tokio::spawn(async move { replay.run(&receiver).await });
    redirect("/replays")
}

/// Cancels the running replay. What was replayed stays so.
pub(super) fn cancel(admin: &Page, session: &Session, peer: IpAddr) -> Response<Body> {
    if let Some(replay) = (admin.replays.last()).filter(|replay| replay.is_running()) {
        replay.is_cancelled.store(true, Ordering::Relaxed);
        let account = &*session.account.name;
        info!(account, %peer, "replay cancelled by admin");
    }
    redirect("/replays")
}

/// Responds with the progress of the last replay.
pub(super) fn respond(admin: &Page, session: &Session) -> Response<Body> {
    let replay = admin.replays.last();
    let is_running = replay.as_ref().is_some_and(|replay| replay.is_running());
    let content = html! {
        p { a href="/messages" { "Messages" } }
        h1 { "Replay" }
        div data-refresh="1000" {
            @match &replay {
                None => p { "None since the receiver started." },
                Some(replay) => (progress(replay)),
            }
        }
        @if is_running && session.account.may_act {
            form method="post" action="/replays/cancel" {
                (token(session))
                button { "Cancel" }
            }
        }
    };
    page("", "Replay", session, &content)
}

fn progress(replay: &Replay) -> Markup {
    let replayed = replay.replayed.load(Ordering::Relaxed);
    let skipped = replay.skipped.load(Ordering::Relaxed);
    let has_ended = !replay.is_running();
    let is_cancelled = replay.is_cancelled.load(Ordering::Relaxed);
    let error = replay.error.lock().unwrap_or_else(PoisonError::into_inner);
    let (class, state) = match (has_ended, is_cancelled) {
        (_, _) if error.is_some() => ("dead", "failed"),
        (false, false) => ("pending", "running"),
        (false, true) => ("pending", "being cancelled"),
        (true, true) => ("dead", "cancelled"),
        (true, false) => ("done", "done"),
    };
    let total = replay.total.max(replayed + skipped);
    html! {
        p {
            span.state.(class) { (state) } " "
            b { (number(replayed)) } " replayed of " (number(total))
            @if replay.total >= COUNTED { " or more" }
            @if skipped > 0 { ", " (number(skipped)) " left out" }
        }
        @if !has_ended { progress value=(replayed + skipped) max=(total) aria-label="Replayed" {} }
        @if let Some(error) = &*error { p.alert role="alert" { (escape(error)) } }
        p.note { "Started " (layout::time(replay.started_at)) " by " (escape(&replay.account)) "." }
    }
}
