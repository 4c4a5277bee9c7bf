//! Replays of all messages that a filter shows: first counted, then in the background.
//!
//! The page asks before. A question fixes what is replayed: the selection, the last message and their
//! number. It is answered once.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Response, StatusCode};
use jiff::Timestamp;
use maud::{Markup, html};
use pleo_receiver::{Cursor, Entry, Inbox, InboxError, Query, Receiver, Selection};
use tokio::task::JoinSet;
use tokio::time;
use tracing::{error, info};

use super::Page;
use super::filter::Filter;
use super::form::Form;
use super::layout::{self, failure, number, page, redirect, token};
use super::overview::TIMEOUT;
use super::session::{Session, random};
use crate::admin::Body;
use crate::escape::escape;
use crate::failure::chain;

/// Up to how many messages are counted.
const COUNTED: u64 = 10_000;

/// How many messages are read at once to count them, and replayed concurrently. Their types and ids may
/// be long.
const PAGE: u32 = 100;
const CONCURRENT: u32 = 50;

/// The maximum number of questions without an answer. Another takes the place of the oldest.
const QUESTIONS: usize = 64;

/// The last replay, of which there is one at a time, and the questions.
#[derive(Default)]
pub(super) struct Replays(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Arc<Replay>>,
    /// The oldest first.
    questions: VecDeque<Question>,
}

/// Whether to replay what was counted.
struct Question {
    id: String,
    session: Session,
    filter: Filter,
    counted: Counted,
}

/// A replay of the messages that a filter shows.
struct Replay {
    id: String,
    account: String,
    filter: String,
    started_at: Timestamp,
    counted: Counted,
    replayed: AtomicU64,
    /// Messages that a handler was processing, or that were deleted.
    skipped: AtomicU64,
    is_cancelled: AtomicBool,
    has_ended: AtomicBool,
    error: Mutex<Option<String>>,
}

impl Replays {
    fn last(&self) -> Option<Arc<Replay>> {
        self.lock().last.clone()
    }

    /// Keeps a question.
    fn ask(&self, question: Question) {
        let questions = &mut self.lock().questions;
        if questions.len() >= QUESTIONS {
            questions.pop_front();
        }
        questions.push_back(question);
    }

    /// Returns a question of this session, once.
    fn take(&self, id: &str, session: &Session) -> Option<Question> {
        let questions = &mut self.lock().questions;
        let is_asked = |other: &Question| other.id == id && other.session.token == session.token;
        questions.remove(questions.iter().position(is_asked)?)
    }

    /// Keeps a replay unless another is running.
    fn start(&self, replay: &Arc<Replay>) -> bool {
        let last = &mut self.lock().last;
        if last.as_ref().is_some_and(|last| last.is_running()) {
            return false;
        }
        *last = Some(Arc::clone(replay));
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Counted {
            selection, last, ..
        } = &self.counted;
        // Messages may enter the filter meanwhile: no more are replayed than were asked for.
        let mut left = match self.counted.has_more {
            true => usize::MAX,
            false => usize::try_from(self.counted.count).unwrap_or(usize::MAX),
        };
        let mut query = Query::new(selection.clone(), CONCURRENT);
        while !self.is_cancelled.load(Ordering::Relaxed) {
            let page = inbox.list(query.clone()).await?;
            let mut tasks = JoinSet::new();
            let counted = (page.entries.iter()).filter(|entry| entry.sequence <= *last);
            for entry in counted.take(left) {
                let mut one = Selection::id(&*entry.webhook_id).with_endpoint(&*entry.endpoint);
                one.state = selection.state;
                let inbox = Arc::clone(inbox);
                tasks.spawn(async move { inbox.replay(one).await });
            }
            left -= tasks.len();
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
            let is_last = |entry: &Entry| entry.sequence >= *last;
            if left == 0 || page.next.is_none() || page.entries.last().is_some_and(is_last) {
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
    /// At most about [`COUNTED`].
    count: u64,
    has_more: bool,
    /// The sequence of the newest message: later ones are not replayed.
    last: i64,
}

impl Counted {
    /// Counts the selected messages, up to one of them if it is given.
    async fn new(
        inbox: &dyn Inbox,
        selection: Selection,
        last: Option<i64>,
    ) -> Result<Self, InboxError> {
        let mut query = Query::new(selection.clone(), PAGE).newest_first();
        query.after = last.map(|last| Cursor::new(last.saturating_add(1)));
        let mut counted = Self {
            selection,
            count: 0,
            has_more: true,
            last: last.unwrap_or(i64::MIN),
        };
        while counted.has_more && counted.count < COUNTED {
            let page = inbox.list(query.clone()).await?;
            if let Some(newest) = page.entries.first() {
                counted.last = counted.last.max(newest.sequence);
            }
            counted.count += u64::try_from(page.entries.len()).unwrap_or(0);
            counted.has_more = page.next.is_some();
            query.after = page.next;
        }
        Ok(counted)
    }

    /// Returns `true` if there are more messages than in another count.
    const fn exceeds(&self, other: &Self) -> bool {
        !other.has_more && (self.has_more || self.count > other.count)
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
    if let Some(error) = filter.error() {
        return failure(StatusCode::BAD_REQUEST, Some(session), &error);
    }
    let inbox = &**admin.receiver.inbox();
    let counted = async { Counted::new(inbox, filter.selection(inbox).await?, None).await };
    let Ok(Ok(counted)) = time::timeout(TIMEOUT, counted).await else {
        let text = "The inbox did not count the messages in time; narrow the filter.";
        return failure(StatusCode::SERVICE_UNAVAILABLE, Some(session), text);
    };
    ask(admin, session, filter, counted, None)
}

/// Asks whether to replay what was counted. `before` is how many an earlier question was about.
fn ask(
    admin: &Page,
    session: &Session,
    filter: Filter,
    counted: Counted,
    before: Option<u64>,
) -> Response<Body> {
    let id = random();
    let content = html! {
        p { a href=(filter.link("/messages", None)) { "Messages" } }
        h1 { "Replay" }
        (criteria(&filter))
        @if let Some(before) = before {
            p.alert role="alert" { "Before, there were " (number(before)) ": nothing was replayed." }
        }
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
                input type="hidden" name="question" value=(id);
                button.main { "Replay " (number(counted.count)) @if counted.has_more { " and more" } }
                " "
                a.button href=(filter.link("/messages", None)) { "Don’t replay" }
            }
        }
    };
    let session = session.clone();
    let response = page("", "Replay", &session, &content);
    admin.replays.ask(Question {
        id,
        session,
        filter,
        counted,
    });
    response
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

/// Starts the replay that a question was about. Asks again if there are more messages now.
pub(super) async fn start(
    admin: &Page,
    session: &Session,
    peer: IpAddr,
    form: &Form,
) -> Response<Body> {
    if (admin.replays.last()).is_some_and(|replay| replay.is_running()) {
        let text = "Another replay is running. Wait for its end, or cancel it.";
        return failure(StatusCode::CONFLICT, Some(session), text);
    }
    let Some(question) = admin.replays.take(form.get("question"), session) else {
        let text = "The form was used before, or is too old. Open it anew.";
        return failure(StatusCode::CONFLICT, Some(session), text);
    };
    let (selection, last) = (question.counted.selection.clone(), question.counted.last);
    let counted = Counted::new(&**admin.receiver.inbox(), selection, Some(last));
    let Ok(Ok(counted)) = time::timeout(TIMEOUT, counted).await else {
        let text = "The inbox did not respond in time; retry later.";
        return failure(StatusCode::SERVICE_UNAVAILABLE, Some(session), text);
    };
    if counted.exceeds(&question.counted) {
        let before = question.counted.count;
        return ask(admin, session, question.filter, counted, Some(before));
    }
    let replay = Arc::new(Replay {
        id: question.id,
        account: session.account.name.clone(),
        filter: question.filter.link("", None),
        started_at: Timestamp::now(),
        counted,
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
    let (account, filter) = (&*replay.account, &*replay.filter);
    let count = replay.counted.count;
    info!(account, %peer, filter, count, "replay started by admin");
    let receiver = admin.receiver.clone();
    tokio::spawn(async move { replay.run(&receiver).await });
    redirect("/replays")
}

/// Cancels a replay unless it has ended. What was replayed stays so.
pub(super) fn cancel(admin: &Page, session: &Session, peer: IpAddr, form: &Form) -> Response<Body> {
    let is_meant = |replay: &Arc<Replay>| replay.is_running() && replay.id == form.get("replay");
    if let Some(replay) = admin.replays.last().filter(is_meant) {
        replay.is_cancelled.store(true, Ordering::Relaxed);
        let account = &*session.account.name;
        info!(account, %peer, "replay cancelled by admin");
    }
    redirect("/replays")
}

/// Responds with the progress of the last replay.
pub(super) fn respond(admin: &Page, session: &Session) -> Response<Body> {
    let replay = admin.replays.last();
    let running = replay.as_ref().filter(|replay| replay.is_running());
    let content = html! {
        p { a href="/messages" { "Messages" } }
        h1 { "Replay" }
        div data-refresh="1000" {
            @match &replay {
                None => p { "None since the receiver started." },
                Some(replay) => (progress(replay)),
            }
            @if let Some(replay) = running && session.account.may_act {
                form method="post" action="/replays/cancel" {
                    (token(session))
                    input type="hidden" name="replay" value=(replay.id);
                    button { "Cancel" }
                }
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
    let total = replay.counted.count.max(replayed + skipped);
    html! {
        p {
            span.state.(class) { (state) } " "
            b { (number(replayed)) } " replayed of " (number(total))
            @if replay.counted.has_more { " or more" }
            @if skipped > 0 { ", " (number(skipped)) " left out" }
        }
        @if !has_ended { progress value=(replayed + skipped) max=(total) aria-label="Replayed" {} }
        @if let Some(error) = &*error { p.alert role="alert" { (escape(error)) } }
        p.note { "Started " (layout::time(replay.started_at)) " by " (escape(&replay.account)) "." }
    }
}
